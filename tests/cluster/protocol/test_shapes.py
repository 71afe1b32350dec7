"""A shape reads exactly what it says, makes the value, and says what is wrong with everything else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import pytest

from allsource.cluster.protocol import shapes
from allsource.cluster.protocol.frames import ProtocolError
from allsource.cluster.protocol.shapes import (
    BIN,
    BOOL,
    EXPECTED,
    EXPECTED_TAG,
    MAP,
    PARTITION,
    PARTITION_IF_SAID,
    STR,
    UINT,
    Element,
    Shape,
    array,
    nested,
)


class Point(NamedTuple):
    x: int
    name: str


@dataclass
class Line:
    points: tuple[Point, ...]
    bold: bool


POINT = Shape("a point", Point, {"x": UINT, "name": STR})
LINE = Shape("a line", Line, {"points": array(POINT), "bold": BOOL}, head=("id", "type"), number=7)


def test_there_and_back() -> None:
    line = Line((Point(1, "a"), Point(2, "b")), True)
    assert LINE.listed(99, line) == (99, 7, line.points, True)
    read = LINE.read([99, 7, [[1, "a"], [2, "b"]], True])
    assert read == line
    assert type(read.points[0]) is Point
    assert LINE.text == "points: [[x, name: str], ...], bold: bool"


class Flag(NamedTuple):
    """A tuple with all that a shape may have in it."""

    name: str
    at: Point
    lines: tuple[Line, ...]


DRAWN = Shape("a drawn line", Line, {"points": array(POINT), "bold": BOOL})
FLAG = Shape("a flag", Flag, {"name": STR, "at": nested(POINT), "lines": array(DRAWN, called="line")})


def test_shapes_stand_within_shapes() -> None:
    flag = Flag("f", Point(1, "a"), (Line((Point(2, "b"), Point(3, "c")), True), Line((), False)))
    written = ["f", [1, "a"], [[[[2, "b"], [3, "c"]], True], [[], False]]]
    read = FLAG.read(written)
    assert read == flag
    assert (type(read.at), type(read.lines[0].points[1])) == (Point, Point)
    assert FLAG.listed(flag) == flag, "a tuple is packed as it is"
    assert FLAG.text == "name: str, at, lines: [line, ...]"
    for wrong, says in (
        (["f", [1], []], "1 elements; a point is"),
        (["f", [1, b"a"], []], "name is a bytes; a point is"),
        (["f", (1, "a"), []], "at is a tuple; a flag is"),
        (["f", [1, "a"], [[[[2, "b"], [3, 5]], True]]], "name is 5; a point is"),
        (["f", [1, "a"], [[[], 0]]], "bold is 0; a drawn line is"),
        (["f", [1, "a"], [5]], "5; a drawn line is"),
    ):
        with pytest.raises(ProtocolError, match=says):
            FLAG.read(wrong)


def test_a_tuples_elements_are_in_the_order_of_its_fields() -> None:
    with pytest.raises(AssertionError, match="order"):
        Shape("a point", Point, {"name": STR, "x": UINT})


@pytest.mark.parametrize(
    ("element", "good", "bad"),
    [
        (UINT, [0, 2**63 - 1], [-1, 2**63, True, 1.0, "1", None]),
        (PARTITION, [0, 65_535], [-1, 65_536, False]),
        (EXPECTED, [-2, 0, 2**63 - 1], [-3, 2**63, True]),
        (BOOL, [True, False], [0, 1, None]),
        (STR, ["", "x"], [b"x", None, 1]),
        (BIN, [b"", b"x"], ["x", None, bytearray(b"x")]),
        (MAP, [{}, {1: 2}], [[], None]),
        (EXPECTED_TAG, [-1, 0, 2**63 - 1], [-2, 2**63, True, None]),
        (PARTITION_IF_SAID, [-1, 0, 65_535], [-2, 65_536, True, None]),
        (array(STR, most=2), [[], ["a", "b"]], [["a"] * 3, [1], "ab"]),
        (array(UINT), [[], [1, 2]], [(), 1, [True], [-1], [[1]]]),
        (
            array(POINT),
            [[], [[1, "a"]]],
            [{}, [1], [[1]], [[1, "a", 2]], [[-1, "a"]], [[1, b"a"]], [(1, "a")]],
        ),
    ],
)
def test_an_element_is_read_by_its_exact_type_and_range(
    element: Element, good: list[object], bad: list[object]
) -> None:
    shape = Shape("it", lambda value: value, {"value": element})
    for value in good:
        shape.read([value])
    for value in bad:
        with pytest.raises(ProtocolError) as caught:
            shape.read([value])
        assert caught.value.code == "malformed"


@pytest.mark.parametrize(
    ("item", "wrong"),
    [
        ([1, 7, []], "3 elements; "),
        ([1, 7, [], True, 0], "5 elements; "),
        ([1, 7, {}, True], "points is a dict; "),
        ([1, 7, [], 5], "bold is 5; "),
    ],
)
def test_a_refusal_says_what_is_wrong_and_what_is_right(item: list[object], wrong: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        LINE.read(item)
    assert caught.value.message == f"{wrong}a line is [id, type, points: [[x, name: str], ...], bold: bool]"


def test_refusing_compiles_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client may have a thousand wrong requests in a frame; compiling for each took 0.1 ms."""

    def compiled(source: str) -> object:
        raise AssertionError(source)

    monkeypatch.setattr(shapes, "_compiled", compiled)
    with pytest.raises(ProtocolError):
        LINE.read([1, 7, [], 5])
