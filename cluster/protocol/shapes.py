"""The shape of an array on the wire, said once, and the functions that follow from it.

A `Shape` names the elements of an array in their order, each with what it may be. From that follow
`read`, which refuses whatever is not of the shape and else makes the value; `listed`, the other direction;
and `text`, as PROTOCOL.md writes it.

`read` and `listed` are compiled from source text when the shape is made, as `dataclasses` makes its
`__init__`: they are the wire's hot loops, and a walk over a list of elements costs three times as much as
the plain comparisons that are compiled (tried). The source is put together from this repository's own
names alone, never from anything that was received.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, NoReturn

from allsource.cluster.protocol.payload import UINT_MAX, malformed, shown
from allsource.storage.model.expected import ANY, EXISTS

PARTITION_MAX = 65_535
"""A record's header has 16 bits for the partition."""


class Source(NamedTuple):
    """How to read something: statements, then an expression that is the value; and the names in them."""

    lines: list[str]
    value: str
    known: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Element:
    """What one element of an array may be."""

    text: str
    """How PROTOCOL.md calls it, behind the name; nothing for a whole number."""
    test: str
    """A Python expression of `{0}`, true if it is one. The types are exact: `True` is no number."""
    source: Callable[[str], Source] | None = None
    """How to read the one in the variable of this name; None: it is its own value. Its own variables begin
    with that name. What it says raises `ProtocolError`."""
    listed: str = ""
    """A Python expression of `value` that stands in the array in place of `value.name`."""


def _whole(low: int, high: int, text: str = "") -> Element:
    return Element(text, f"type({{0}}) is int and {low} <= {{0}} <= {high}")


UINT = _whole(0, UINT_MAX)
PARTITION = _whole(0, PARTITION_MAX)
EXPECTED = _whole(EXISTS, UINT_MAX, "int")
"""An expected version: see `storage.model.expected`."""
EXPECTED_TAG = _whole(ANY, UINT_MAX, "int")
"""The number of a tag's newest event, or `ANY`."""
PARTITION_IF_SAID = _whole(-1, PARTITION_MAX, "int")
BOOL = Element("bool", "type({0}) is bool")
STR = Element("str", "type({0}) is str")
BIN = Element("bin", "type({0}) is bytes")
MAP = Element("map", "type({0}) is dict")


class Shape:
    """An array of so many elements.

    `head`: what stands before the elements named; the caller has looked at it already. Its last one is the
    `number` that says which shape it is, the others are the caller's (an id). `make` takes the values of
    the named elements, in order. `name` is for people, and for PROTOCOL.md.
    """

    def __init__(
        self,
        name: str,
        make: Callable[..., Any],
        elements: Mapping[str, Element],
        *,
        head: Sequence[str] = (),
        number: int | None = None,
    ) -> None:
        self.name = name
        self.text = ", ".join(
            f"{called}: {element.text}" if element.text else called for called, element in elements.items()
        )
        self._head = tuple(head)
        self._number = number
        self._make = make
        self.elements = dict(elements)
        in_order = getattr(make, "_fields", tuple(elements))
        assert tuple(elements) == in_order, f"{name}: its elements are not in the order of its fields"
        self._rule = f"{name} is [{', '.join([*head, *([self.text] if self.text else [])])}]"
        self._tests = {
            called: _compiled(f"lambda value: {element.test.format('value')}")
            for called, element in elements.items()
        }
        self.read = self._compiled_read()
        """The value that an array says; raises `ProtocolError` unless it is of this shape."""
        self.listed = self._compiled_listed()
        """What is packed of a value: takes the head without its number, then the value."""

    def refused(self, item: Any) -> NoReturn:
        """Say what is wrong with it. A client may make us do so a thousand times for a frame."""
        shape = self._rule
        if type(item) is not list:
            raise malformed(f"{shown(item)}; {shape}")
        values = item[len(self._head) :]
        if len(values) != len(self.elements):
            raise malformed(f"{len(item)} elements; {shape}")
        for (called, test), value in zip(self._tests.items(), values, strict=True):
            if not test(value):
                raise malformed(f"{called} is {shown(value)}; {shape}")
        raise AssertionError("an item that is of the shape was refused")

    def source(self, item: str) -> Source:
        """How to read the list in the variable `item`."""
        names = [f"{item}_{number}" for number in range(len(self.elements))]
        known: dict[str, Any] = {f"{item}_refused": self.refused, f"{item}_make": self._make}
        tests, inner, values = [], [], []
        for name, element in zip(names, self.elements.values(), strict=True):
            tests.append(element.test.format(name))
            if element.source is None:
                values.append(name)
                continue
            lines, value, more = element.source(name)
            inner += lines
            values.append(value)
            known.update(more)
        refused, make = f"{item}_refused({item})", f"{item}_make"
        if self._make is tuple:
            made = _tuple(values)
        elif not _is_named_tuple(self._make):
            made = f"{make}({', '.join(values)})"
        else:  # what its own constructor does in the end
            known["new"] = tuple.__new__
            made = f"new({make}, {item if values == names and not self._head else _tuple(values)})"
        lines = [
            f"if len({item}) != {len(self._head) + len(names)}: {refused}",
            f"{_tuple(['_'] * len(self._head) + names)} = {item}",
            f"if not ({' and '.join(tests) or 'True'}): {refused}",
            *inner,
        ]
        return Source(lines, made, known)

    def _compiled_read(self) -> Callable[[list[Any]], Any]:
        return _function(self.source("item"))

    def _compiled_listed(self) -> Callable[..., tuple[Any, ...]]:
        first = list(self._head[:-1])
        items = [*first, *([] if self._number is None else [str(int(self._number))])]
        if _is_named_tuple(self._make) and not any(element.listed for element in self.elements.values()):
            items.append("*value")
        else:
            items += [element.listed or f"value.{called}" for called, element in self.elements.items()]
        return _compiled(f"lambda {', '.join([*first, 'value'])}: {_tuple(items)}")


def array(
    of: Element | Shape,
    *,
    called: str = "",
    into: type[Any] = tuple,
    listed: str = "",
    most: int | None = None,
) -> Element:
    """An array of any number of these, or of at most `most`. `called`: one of them, in PROTOCOL.md; `into`:
    tuple or list."""
    inner = called or (f"[{of.text}]" if isinstance(of, Shape) else of.text)
    if not isinstance(of, Shape) and called and of.text:
        inner = f"{called}: {of.text}"

    def source(name: str) -> Source:
        one, found = f"{name}_one", f"{name}_found"
        if isinstance(of, Shape):
            lines, made, known = of.source(one)
            lines = [
                f"{found} = []",
                f"for {one} in {name}:",
                f"    if type({one}) is not list: {one}_refused({one})",
                *[f"    {line}" for line in lines],
                f"    {found}.append({made})",
            ]
        else:
            found = name
            known = {f"{one}_refused": _refuser(inner)}
            lines = [
                f"for {one} in {name}:",
                f"    if not ({of.test.format(one)}): {one}_refused({one})",
            ]
        return Source(lines, found if into is list else f"tuple({found})", known)

    test = "type({0}) is list" if most is None else f"type({{0}}) is list and len({{0}}) <= {most}"
    return Element(f"[{inner}, ...]", test, source, listed)


def nested(of: Shape) -> Element:
    """One array of this shape, which PROTOCOL.md calls by the element's name."""
    return Element("", "type({0}) is list", of.source)


def _refuser(what: str) -> Callable[[Any], NoReturn]:
    def refused(value: Any) -> NoReturn:
        raise malformed(f"{shown(value)} in an array of {what}")

    return refused


def _is_named_tuple(make: Callable[..., Any]) -> bool:
    return isinstance(make, type) and issubclass(make, tuple) and hasattr(make, "_fields")


def _tuple(items: list[str]) -> str:
    return f"({''.join(f'{item}, ' for item in items)})"


def _function(source: Source) -> Callable[[list[Any]], Any]:
    lines, value, known = source
    names = dict(known)
    exec("def made(item):\n" + "".join(f"    {line}\n" for line in [*lines, f"return {value}"]), names)
    made: Callable[[list[Any]], Any] = names["made"]
    return made


def _compiled(source: str) -> Callable[..., Any]:
    made: Callable[..., Any] = eval(source, {})
    return made
