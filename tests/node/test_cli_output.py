"""Numbers, tables and events as people and programs see them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from allsource.node.cli.figures import percentile, ranges, show_ms, show_rate
from allsource.node.cli.output import echo_table, markdown_table, plain_table
from allsource.node.cli.picture import owner_map
from allsource.node.cli.show import event_json, event_line
from allsource.storage.events import BINARY, JSON, Event


@pytest.mark.parametrize(
    ("values", "percent", "expected"),
    [
        ([], 50, 0.0),
        ([3.0], 99, 3.0),
        ([1.0, 2.0], 50, 1.0),
        (list(range(1, 101)), 99, 99),
        ([5, 1, 3], 0, 1),
    ],
)
def test_percentiles_are_values_that_were_seen(
    values: list[float], percent: float, expected: float
) -> None:
    assert percentile(values, percent) == expected


@pytest.mark.parametrize(
    ("numbers", "text"),
    [([], "-"), ([4], "4"), ([0, 1, 2], "0-2"), ([2, 0, 1, 5, 7, 8], "0-2, 5, 7-8"), ([1, 3], "1, 3")],
)
def test_ranges_are_short(numbers: list[int], text: str) -> None:
    assert ranges(numbers) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0005123, "0.512"), (0.00512, "5.12"), (0.0512, "51.2"), (0.2504, "250"), (0, "0.000")],
)
def test_milliseconds_have_three_digits(seconds: float, text: str) -> None:
    assert show_ms(seconds) == text


def test_rates_have_thousands() -> None:
    assert show_rate(12345.6) == "12,346"


def test_a_plain_table_is_aligned_and_one_line_a_row() -> None:
    assert plain_table(("a", "long name"), [["x y z", "1"], ["q", "two\nlines"]]) == [
        "a      long name",
        "x y z  1",
        "q      two lines",
    ]


def test_without_a_terminal_a_table_is_plain(capsys: pytest.CaptureFixture[str]) -> None:
    echo_table("things", ("a", "b"), [["1", "2"]])
    assert capsys.readouterr().out == "things\na  b\n1  2\n"


def test_a_markdown_table_keeps_its_bars() -> None:
    assert markdown_table(("a", "b"), [["x|y", "1"]]) == "| a | b |\n| --- | --- |\n| x\\|y | 1 |"


def test_the_owner_map_lists_all_partitions() -> None:
    assert owner_map(["n1", None, "n10"], columns=2) == ["  0 n1     1 -", "  2 n10"]


def event(**changes: Any) -> Event:
    fields: dict[str, Any] = {
        "stream": "s",
        "version": 3,
        "partition": 5,
        "position": 7,
        "timestamp_us": 1_700_000_000_000_001,
        "id": b"\x01" * 16,
        "type": "T",
        "data": b'{"a":"\xc3\xa9"}',
        "metadata": b"",
        "encoding": JSON,
    }
    return Event(**{**fields, **changes})


def test_an_event_is_a_line() -> None:
    assert event_line(event()) == '3\t2023-11-14T22:13:20.000001Z\tT\t{"a": "é"}'
    assert event_line(event(data=b"\xff\x00", encoding=BINARY)).endswith("\tbase64:/wA=")


def test_an_event_is_json_as_the_http_door_shows_it() -> None:
    assert event_json(event()) == {
        "id": "01010101-0101-0101-0101-010101010101",
        "stream": "s",
        "version": 3,
        "partition": 5,
        "position": 7,
        "type": "T",
        "timestamp": "2023-11-14T22:13:20.000001Z",
        "data": {"a": "é"},
        "metadata": None,
    }


def test_what_is_not_json_goes_as_base64_and_says_so() -> None:
    binary = event_json(event(data=b"{}", encoding=BINARY, metadata=b"\xff"))
    assert (binary["data"], binary["encoding"]) == ("e30=", "base64")
    assert (binary["metadata"], binary["metadata_encoding"]) == ("/w==", "base64")
    broken = event_json(event(data=b"{broken"))
    assert broken["encoding"] == "base64"
    json.dumps(broken)
