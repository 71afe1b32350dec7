"""Numbers, tables and events as people and programs see them."""

from __future__ import annotations

import ast
import json
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from allsource.node.cli import output
from allsource.node.cli.control.picture import owner_map
from allsource.node.cli.figures import percentile, ranges, show_ms, show_rate
from allsource.node.cli.output import (
    echo_json,
    echo_table,
    markdown_table,
    note,
    plain_table,
    rich_table,
    say,
)
from allsource.node.cli.show import event_json, event_line, partition_line, tag_line
from allsource.storage.model.events import BINARY, JSON, Event


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
    assert event_line(event()) == '3\t2023-11-14T22:13:20.000001Z\tT\t{"a":"é"}'
    assert event_line(event(data=b"\xff\x00", encoding=BINARY)).endswith("\tbase64:/wA=")
    tagged = event(stream="s{t}", tag_number=9)
    assert tag_line(tagged) == '9\ts{t}\t3\t2023-11-14T22:13:20.000001Z\tT\t{"a":"é"}'
    assert partition_line(event()) == '7\ts\t3\t2023-11-14T22:13:20.000001Z\tT\t{"a":"é"}'


EVIL = "a\x1b[2J\x9b\x7f\u202e\u200b\u2066b"
SHOWN = "a\\u001b[2J\\u009b\\u007f\\u202e\\u200b\\u2066b"


@pytest.mark.parametrize("show", [event_line, partition_line, tag_line])
def test_a_line_does_nothing_to_a_terminal(show: Callable[[Event], str]) -> None:
    evil = event(stream=EVIL, type=EVIL, data=f'"{EVIL[2:]}"'.encode())
    assert show(evil).replace("\t", "").isprintable()
    assert SHOWN in show(evil)
    half = event(data=b'{"half": "\\ud800"}')
    assert show(half).endswith('\t{"half":"\\ud800"}')
    show(half).encode()  # can be written


@pytest.mark.parametrize(
    "data", [b"123456789012345678901234567890.1234", b"1e999", b"1.0", b'{"b":1,"a":1,"a":2}']
)
def test_data_is_shown_as_it_was_written(data: bytes) -> None:
    assert event_line(event(data=data)).endswith("\t" + data.decode())
    assert f'"data": {data.decode()}, ' in event_json(event(data=data))
    spread = data.replace(b":", b" :\n ")
    assert event_line(event(data=spread)).endswith("\t" + data.decode())


def test_an_event_is_json_as_the_http_door_shows_it() -> None:
    assert json.loads(event_json(event())) == {
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


def test_the_json_of_a_tagged_event_has_its_tag_and_number() -> None:
    found = json.loads(event_json(event(stream="s{t}", tag_number=9)))
    assert (found["tag"], found["tag_number"]) == ("t", 9)


def test_json_for_programs_is_exact_and_pure_ascii() -> None:
    text = event_json(
        event(
            stream=EVIL,
            type=EVIL,
            data=json.dumps(EVIL, ensure_ascii=False).encode(),
            metadata=b'"\\udc00"',
        )
    )
    assert text.isascii()
    assert text.isprintable() or "\x7f" in text
    found = json.loads(text)
    assert (found["stream"], found["type"], found["data"], found["metadata"]) == (
        EVIL,
        EVIL,
        EVIL,
        "\udc00",
    )


def test_a_time_behind_the_calendar_is_its_end() -> None:
    late = event(timestamp_us=2**63 - 1)
    assert "\t9999-12-31T23:59:59." in event_line(late)
    assert json.loads(event_json(late))["timestamp"].startswith("9999-12-31T23:59:59.")


def test_what_is_not_json_goes_as_base64_and_says_so() -> None:
    binary = json.loads(event_json(event(data=b"{}", encoding=BINARY, metadata=b"\xff")))
    assert (binary["data"], binary["encoding"]) == ("e30=", "base64")
    assert (binary["metadata"], binary["metadata_encoding"]) == ("/w==", "base64")
    broken = json.loads(event_json(event(data=b"{broken")))
    assert broken["encoding"] == "base64"


def test_tables_and_notes_do_nothing_to_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    echo_table(EVIL, ("name",), [[EVIL]])
    say(EVIL)
    note(f"two\n{EVIL}")
    echo_json({"name": EVIL})
    captured = capsys.readouterr()
    assert (captured.out + captured.err).replace("\n", "").isprintable()
    assert captured.out.count(SHOWN) == 4
    assert captured.err == f"two\n{SHOWN}\n"
    console = Console(file=StringIO(), width=200)
    console.print(rich_table(EVIL, ("name",), [[EVIL]]))
    assert console.file.getvalue().replace("\n", "").isprintable()  # type: ignore[attr-defined]


def test_commands_print_through_one_place() -> None:
    """So that whatever they print has been made printable."""
    own = {"output.py"}
    breaches = [
        f"{path.name}:{node.lineno}"
        for path in Path(output.__file__).parent.rglob("*.py")
        if path.name not in own
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("print", "click.echo", "click.secho")
    ]
    assert breaches == []
