"""Small bytes that would be large values: blobs and records are decoded by their type, and stop at once."""

from __future__ import annotations

import struct
import zlib

import msgpack
import pytest

from allsource.storage.model.entry import (
    CONFIG,
    EVENTS,
    PARTS_MAX,
    Configuration,
    Part,
    decode_entry,
    make_entry,
)
from allsource.storage.model.errors import Corrupt, InvalidRequest
from allsource.storage.model.events import (
    NewEvent,
    blob_ids,
    check_blob,
    decode_blob,
    encode_blob,
    same_content,
)
from tests.memory import at_most

MIB = 1 << 20
ONE = msgpack.packb([bytes(16), "t", b"", b"", 0])


def array(length: int) -> bytes:
    return b"\xdd" + struct.pack(">I", length)


BOMBS = {
    "empty arrays": array(10_000) + b"\x90" * (8 * MIB),
    "an array of empty arrays": b"\x91" + array(8 * MIB) + b"\x90" * (8 * MIB),
    "an event of arrays": b"\x91\x95" + array(8 * MIB) + b"\x90" * (8 * MIB),
    "data of arrays": b"\x91" + ONE[:20] + array(8 * MIB) + b"\x90" * (8 * MIB),
    "data of maps": b"\x91" + ONE[:20] + b"\xdf\x00\x40\x00\x00" + b"\x00\x80" * (4 * MIB),
    "nested arrays": b"\x91" * (8 * MIB),
    "claims within claims": array(10_000) * 1_000_000,
    "a good event, then arrays": array(9_999) + ONE + b"\x90" * (8 * MIB),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_blob_that_is_a_bomb_is_refused_small(name: str) -> None:
    blob = BOMBS[name]
    with at_most(MIB), pytest.raises(InvalidRequest):
        check_blob(blob, events_max=10_000, event_bytes_max=MIB)
    with at_most(MIB), pytest.raises(Corrupt):
        decode_blob(blob, stream="s", partition=0, first_version=1, first_position=1, timestamp_us=0)
    with at_most(MIB), pytest.raises(Corrupt):
        blob_ids(blob)
    with at_most(MIB), pytest.raises(Corrupt):
        same_content(blob, encode_blob([NewEvent("t")]))


def record(payload: bytes, kind: int) -> bytes:
    """A record with a valid CRC, as a peer or a bad disk could bring it."""
    head = make_entry(
        partition=1, index=1, term=1, kind=CONFIG, first_position=1, timestamp_us=1, payload=payload
    ).record[4:]
    body = bytes((kind,)) + head[1:]
    return struct.pack(">I", zlib.crc32(body)) + body


@pytest.mark.parametrize(
    "payload",
    [*BOMBS.values(), array(PARTS_MAX + 1), b"\xc0", b"", msgpack.packb([["s", 1, 1, b"short", b""]])],
)
def test_a_record_that_is_a_bomb_is_corrupt_and_small(payload: bytes) -> None:
    whole = record(payload, EVENTS)
    with at_most(len(whole) + MIB), pytest.raises(Corrupt, match=r"1/1"):
        decode_entry(whole)
    with at_most(MIB), pytest.raises(Corrupt):
        Configuration.decode(payload)


def test_as_many_parts_as_an_append_may_have_events() -> None:
    one = Part("s", 1, 1, bytes(16), b"")
    assert len(decode_entry(record(msgpack.packb([one] * PARTS_MAX), EVENTS)).parts) == PARTS_MAX
    with pytest.raises(Corrupt, match="more than"):
        decode_entry(record(msgpack.packb([one] * (PARTS_MAX + 1)), EVENTS))


def test_as_many_parts_as_the_settings_allow_events() -> None:
    from allsource.config.knobs import knobs_of
    from allsource.config.schema import Limits
    from allsource.config.values import Count

    kind = knobs_of(Limits)["append_events_max"].kind
    assert isinstance(kind, Count)
    assert kind.most == PARTS_MAX


@pytest.mark.parametrize("value", [True, 1.0, None, "0", b"\x00", -1, 2])
def test_an_encoding_is_a_number(value: object) -> None:
    blob = msgpack.packb([[bytes(16), "t", b"", b"", value]])
    with pytest.raises(InvalidRequest, match="encoding is 0 or 1"):
        check_blob(blob, events_max=9, event_bytes_max=9)
