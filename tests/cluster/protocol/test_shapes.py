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
    MAP,
    PARTITION,
    STR,
    UINT,
    Element,
    Shape,
    array,
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
