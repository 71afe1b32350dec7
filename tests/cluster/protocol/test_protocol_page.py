"""PROTOCOL.md says what the code does: its tables are the constants, its numbers the limits."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path
from typing import get_args

import pytest

from allsource.client import unpacking
from allsource.cluster.budgets import strangers
from allsource.cluster.consensus.messages import Message
from allsource.cluster.consensus.sense import PeerNonsense
from allsource.cluster.protocol import (
    codec,
    frames,
    handshake_frames,
    kinds,
    message_codec,
    payload,
    requests,
)
from allsource.cluster.protocol.acquaintance import REGRESSED
from allsource.cluster.sockets import connection
from allsource.cluster.transport import server, server_connection
from allsource.storage.model import append, chunks, partition

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "cluster" / "protocol" / "PROTOCOL.md").read_text()


def table(head: str) -> list[list[str]]:
    """The rows of the table that begins with this header line."""
    lines = PAGE.split(head + "\n", 1)[1].splitlines()[1:]
    rows = []
    for line in lines:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split(" | ")])
    return rows


def numbered(head: str) -> dict[int, tuple[str, str]]:
    """Of a table of numbers, names and fields: the name and the fields by number."""
    rows = table(head)
    assert len({row[0] for row in rows}) == len(rows)
    return {int(number): (name, described.strip("`")) for number, name, described in rows}


def test_kinds() -> None:
    rows = table("| kind | name | sent by | role | channel | KiB | payload |")
    assert [tuple(row[:6]) for row in rows] == [
        (
            str(int(kind)),
            kind.name,
            kind.sender.value,
            kind.role or "any",
            kind.channel or "any",
            "limit" if kind.bytes_max is None else str(kind.bytes_max // 1024),
        )
        for kind in kinds.Kind
    ]
    for number, *_, described in rows:
        assert described.startswith(f"`[{number}, ")
    assert rows[-3][-1] == f"`[17, {message_codec.BEAT.text}]`"


def test_operations() -> None:
    asked = numbered("| op | request | fields |")
    passed_on = asked.pop(codec.Op.PASS_ON)
    assert passed_on == ("pass on (peers only)", "op, field, ...` of an append or a read")
    assert asked == {int(row.op): (row.shape.name, row.shape.text) for row in codec.REQUESTS}
    answered = numbered("| op | result | fields |")
    assert answered == {int(row.op): (row.shape.name, row.shape.text) for row in codec.RESULTS}
    assert {*asked, *answered, codec.Op.PASS_ON} == set(codec.Op)
    assert f"    chunk = [{codec.CHUNK.text}]\n" in PAGE
    assert f"`run = [{codec.RUN.text}]`" in PAGE


def test_messages() -> None:
    rows = message_codec.MESSAGES
    assert numbered("| type | message | fields |") == {
        row.number: (row.cls.__name__, row.shape.text) for row in rows
    }
    assert {row.cls for row in rows} == set(get_args(Message))
    for row in rows:
        # `records` is how a sender holds `entries` that it did not decode.
        assert list(row.shape.elements) == [f.name for f in fields(row.cls) if f.name != "records"]


def test_limits() -> None:
    rows = table("| limit | default | meaning |")
    assert {name.strip("`"): int(default) for name, default, _ in rows} == {
        field.name: field.default for field in fields(handshake_frames.WireLimits)
    }


def test_refusals() -> None:
    """Each code that the sources raise is on the page, and none that they do not."""
    listed = {code.strip("`") for code, _ in table("| code | meaning |")}
    raised = set()
    for path in (*(ROOT / "cluster").rglob("*.py"), *(ROOT / "node").rglob("*.py")):
        raised |= set(re.findall(r'ProtocolError\(\s*"(\w+)"', path.read_text()))
    assert raised | {REGRESSED, PeerNonsense("").code} == listed


@pytest.mark.parametrize(
    ("sentence", "value"),
    [
        ("after ([\\d,]+) bytes or", payload.BATCH_BYTES),
        ("bytes or ([\\d,]+) items", payload.BATCH_ITEMS_MAX),
        ("at most ([\\d,]+) elements in an array", payload.SMALL_ARRAY_MAX),
        ("at most ([\\d,]+) values in all", payload.LARGE_VALUES_MAX),
        ("values in all, (\\d+) levels", payload.DEPTH_MAX),
        ("payload of up to (\\d+) KiB", payload.SMALL_BYTES // 1024),
        ("before any of it is read: (\\d+) KiB", kinds.UNPROVED_BYTES_MAX // 1024),
        ("(\\d+) KiB for what a dialler takes", kinds.HANDSHAKE_BYTES_MAX // 1024),
        ("\\((\\d+) MiB by default\\)", frames.FRAME_BYTES_MAX >> 20),
        ("over (\\d+) seconds", int(connection.HANDSHAKE_TIMEOUT_S)),
        ("`timeout_ms` \\(0 to ([\\d,]+)\\)", codec.TIMEOUT_MS_MAX),
        ("`nonce`: (\\d+) random bytes", handshake_frames.NONCE_BYTES),
        ("asked nothing for (\\d+) minutes", int(server.CLIENT_IDLE_S) // 60),
        ("(\\d+) MiB of answers or messages", server.OUTGOING_BYTES_MAX >> 20),
        ("leaves (\\d+) MiB of answers unread", server.OUTGOING_BYTES_MAX >> 21),
        ("(\\d+) clients are served", server.CONNECTIONS_MAX),
        ("not through yet, (\\d+) are kept", strangers.STRANGERS_MAX),
        ("moved for (\\d+) seconds", int(server_connection.STALLED_S)),
        ("A chunk has at most (\\d+) events", chunks.CHUNK_EVENTS_MAX),
        ("at most ([\\d,]+) bytes of `raw_size`", chunks.CHUNK_RAW_MAX),
        ("compresses\n\\(this repository's from (\\d+) KiB on", chunks.COMPRESS_FROM >> 10),
        ("All streams of an append \\(at most (\\d+)\\)", append.STREAMS_MAX),
        ("`marks` \\(at most (\\d+),", append.MARKS_MAX),
        ("each name once, of 1 to (\\d+) bytes", partition.STREAM_ID_BYTES_MAX),
        ("`types` \\(at most (\\d+)\\)", requests.TYPES_MAX),
        ("a page claim\n(\\d+) MiB", unpacking.PAGE_RAW_MAX >> 20),
        ("This is version (\\d+)", handshake_frames.VERSION_MAX),
    ],
)
def test_sentences(sentence: str, value: int) -> None:
    found = re.search(sentence, PAGE)
    assert found, f"the page no longer says: {sentence}"
    number = next(group for group in found.groups() if group)
    assert int(number.replace(",", "")) == value
