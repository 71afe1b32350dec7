"""PROTOCOL.md says what the code does: its tables are the constants, its numbers the limits."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path
from typing import get_args

import pytest

from allsource.cluster.budgets import strangers
from allsource.cluster.consensus.messages import Message
from allsource.cluster.consensus.sense import PeerNonsense
from allsource.cluster.protocol import codec, frames, handshake, message_codec
from allsource.cluster.protocol.acquaintance import REGRESSED
from allsource.cluster.transport import connection, server

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


def constants(cls: type) -> dict[str, int]:
    return {name: value for name, value in vars(cls).items() if name.isupper()}


def test_kinds() -> None:
    rows = table("| kind | name | sent by | payload |")
    assert {name: int(kind) for kind, name, _, _ in rows} == constants(codec.Kind)
    for kind, _, _, payload in rows:
        assert payload.startswith(f"`[{kind}, ")


def test_operations() -> None:
    asked = {int(row[0]) for row in table("| op | request | fields |")}
    answered = {int(row[0]) for row in table("| op | result | fields |")}
    assert answered == set(constants(codec.Op).values()) - {codec.Op.PASS_ON} == set(codec._RESULTS)
    assert asked == answered - {codec.Op.ERROR} | {codec.Op.PASS_ON}


def test_messages() -> None:
    rows = table("| type | message | fields |")
    assert {int(number): name for number, name, _ in rows} == {
        number: cls.__name__ for number, cls in message_codec.MESSAGE_TYPES.items()
    }
    assert set(message_codec.MESSAGE_TYPES.values()) == set(get_args(Message))
    for number, _, described in rows:
        names = re.sub(r": \[.*\]$|: \w+", "", described.strip("`"))
        cls = message_codec.MESSAGE_TYPES[int(number)]
        # `records` is how a sender holds `entries` that it did not decode.
        assert names.split(", ") == [field.name for field in fields(cls) if field.name != "records"]


def test_limits() -> None:
    rows = table("| limit | default | meaning |")
    assert {name.strip("`"): int(default) for name, default, _ in rows} == {
        field.name: field.default for field in fields(handshake.WireLimits)
    }


def test_refusals() -> None:
    """Each code that the sources raise is on the page, and none that they do not."""
    listed = {code.strip("`") for code, _ in table("| code | meaning |")}
    raised = set()
    names = ("acquaintance", "frames", "codec", "message_codec", "handshake", "handshake_frames")
    sources = [ROOT / "cluster" / "protocol" / f"{name}.py" for name in names]
    sources += [ROOT / "cluster" / "transport" / f"{name}.py" for name in ("connection", "server", "link")]
    for path in (*sources, ROOT / "node" / "acquaintances.py"):
        raised |= set(re.findall(r'ProtocolError\(\s*"(\w+)"', path.read_text()))
    assert raised | {REGRESSED, PeerNonsense("").code} == listed


@pytest.mark.parametrize(
    ("sentence", "value"),
    [
        ("after ([\\d,]+) bytes or", codec.BATCH_BYTES),
        ("bytes or ([\\d,]+) items", codec.BATCH_ITEMS_MAX),
        ("at most ([\\d,]+) elements in an array", codec.SMALL_ARRAY_MAX),
        ("at most ([\\d,]+) values in all", codec.LARGE_VALUES_MAX),
        ("values in all, (\\d+) levels", codec.DEPTH_MAX),
        ("payload of up to (\\d+) KiB", codec.SMALL_BYTES // 1024),
        ("before any of it is read: (\\d+) KiB", handshake.HELLO_BYTES_MAX // 1024),
        ("(\\d+) KiB for what a dialler takes", handshake.WELCOME_BYTES_MAX // 1024),
        ("\\((\\d+) MiB by default\\)", frames.FRAME_BYTES_MAX >> 20),
        ("over (\\d+) seconds", int(connection.HANDSHAKE_TIMEOUT_S)),
        ("`timeout_ms` \\(0 to ([\\d,]+)\\)", codec.TIMEOUT_MS_MAX),
        ("`nonce`: (\\d+) random bytes", handshake.NONCE_BYTES),
        ("asked nothing for (\\d+) minutes", int(server.CLIENT_IDLE_S) // 60),
        ("(\\d+) MiB of answers or messages", server.OUTGOING_BYTES_MAX >> 20),
        ("leaves (\\d+) MiB of answers unread", server.OUTGOING_BYTES_MAX >> 21),
        ("(\\d+) clients are served", server.CONNECTIONS_MAX),
        ("not through yet, (\\d+) are kept", strangers.STRANGERS_MAX),
        ("moved for (\\d+) seconds", int(server.STALLED_S)),
        ("This is version (\\d+)", handshake.VERSION_MAX),
    ],
)
def test_sentences(sentence: str, value: int) -> None:
    found = re.search(sentence, PAGE)
    assert found, f"the page no longer says: {sentence}"
    number = next(group for group in found.groups() if group)
    assert int(number.replace(",", "")) == value
