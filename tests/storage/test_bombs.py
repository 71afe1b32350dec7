"""Small bytes that would be large values: chunks and records are decoded by their type and stop at once."""

from __future__ import annotations

import struct
import zlib
from typing import Any

import msgpack
import pytest
import zstandard

from allsource.config.knobs import knobs_of
from allsource.config.schema import Limits
from allsource.config.values import Count
from allsource.storage.model.chunks import (
    PLAIN,
    ZSTD,
    Chunk,
    check_chunks,
    decode_chunk,
    pack_events,
    same_content,
    unpack_chunk,
)
from allsource.storage.model.entry import (
    APPENDS_MAX,
    CONFIG,
    EVENTS,
    Configuration,
    decode_entry,
    make_entry,
)
from allsource.storage.model.errors import Corrupt, InvalidRequest
from allsource.storage.model.events import NewEvent
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


def small(bomb: bytes, count: int) -> bytes:
    """As much of it as fits into a chunk that is taken, with the number of events that is claimed."""
    return array(count) + bomb[5 if bomb[0] == 0xDD else 1 :][:60_000]


@pytest.mark.parametrize("name", BOMBS)
@pytest.mark.parametrize("codec", [PLAIN, ZSTD])
def test_a_chunk_that_is_a_bomb_is_refused_small(name: str, codec: int) -> None:
    for count, raw in ((1, BOMBS[name]), (200, small(BOMBS[name], 200))):
        data = raw if codec == PLAIN else zstandard.ZstdCompressor(level=1).compress(raw)
        chunk = Chunk(count, len(raw), codec, data)
        unpacked = 0 if codec == PLAIN else len(raw)  # once, and no more
        for event_bytes_max in (MIB, 16 * MIB):
            with at_most(unpacked + MIB), pytest.raises(InvalidRequest):
                check_chunks([chunk], events_max=10_000, event_bytes_max=event_bytes_max)
        with at_most(unpacked + MIB), pytest.raises(Corrupt):
            unpack_chunk(chunk)
        with at_most(unpacked + MIB), pytest.raises(Corrupt):
            decode_chunk(
                chunk,
                stream="s",
                partition=0,
                first_version=1,
                first_position=1,
                first_tag_number=0,
                timestamp_us=0,
            )
        with at_most(unpacked + MIB), pytest.raises(Corrupt):
            same_content([chunk], pack_events([NewEvent("t")]))


def record(heads: bytes, kind: int, chunks: bytes = b"", count: int = 0) -> bytes:
    """A record with a valid CRC, as a peer or a bad disk could bring it."""
    head = make_entry(
        partition=1, index=1, term=1, kind=CONFIG, first_position=1, timestamp_us=1, payload=heads
    ).record[4:]
    body = bytearray(head)
    body[1] = kind
    struct.pack_into(">I", body, 29, count)
    return struct.pack(">I", zlib.crc32(body)) + body + chunks


def test_where_the_kind_and_the_count_of_a_record_are() -> None:
    read = decode_entry(record(msgpack.packb([[[PART], []]]), EVENTS, b"\x00", 1))
    assert (read.kind, read.count) == (EVENTS, 1)


PART: list[Any] = ["s", 1, 1, bytes(16), 0, ["t"], [[1, 1, 1, PLAIN, zlib.crc32(b"\x00")]]]


def with_part(at: int, value: bytes) -> bytes:
    """Heads of one part, one of whose fields is these bytes."""
    fields = [msgpack.packb(field) for field in PART]
    fields[at] = value
    return b"\x91\x92\x91\x97" + b"".join(fields) + b"\x90"


HEADS = {
    **BOMBS,
    "more appends than there are": array(APPENDS_MAX + 1) + b"\x92\x90\x90" * (APPENDS_MAX + 1),
    "a claim of appends": array(APPENDS_MAX),
    "a claim of parts": b"\x91\x92" + array(2**32 - 1),
    "parts of nothing": b"\x91\x92" + array(8 * MIB) + b"\x90" * (8 * MIB) + b"\x90",
    "a claim of marks": b"\x91\x92\x90" + array(2**32 - 1),
    "marks of nothing": b"\x91\x92\x90" + array(8 * MIB) + b"\x90" * (8 * MIB),
    "a claim of types": with_part(5, array(2**32 - 1)),
    "types of nothing": with_part(5, array(8 * MIB) + b"\xa0" * (8 * MIB)),
    "a claim of chunks": with_part(6, array(2**32 - 1)),
    "chunks of nothing": with_part(6, array(8 * MIB) + b"\x90" * (8 * MIB)),
    "a long name": with_part(0, b"\xdb" + struct.pack(">I", 8 * MIB) + b"s" * (8 * MIB)),
    "a long id": with_part(3, b"\xc6" + struct.pack(">I", 8 * MIB) + bytes(8 * MIB)),
    "a large number": with_part(1, b"\xd8" + bytes(17)),
    "no value": b"\xc0",
    "no heads": b"",
}


@pytest.mark.parametrize("name", HEADS)
def test_a_record_that_is_a_bomb_is_corrupt_and_small(name: str) -> None:
    whole = record(HEADS[name], EVENTS)
    # Its heads are cut out once, and a long name or id is copied before it is measured.
    with at_most(2 * len(whole) + 2 * MIB), pytest.raises(Corrupt, match=r"1/1"):
        decode_entry(whole)
    with at_most(MIB), pytest.raises(Corrupt):
        Configuration.decode(HEADS[name])


SMALLEST = {
    "marks": b"\x91\x92\x90" + array(100_000) + msgpack.packb(["m", 9000, 9000]) * 100_000,
    "appends of a mark": array(100_000) + msgpack.packb([[], [["m", 9000, 9000]]]) * 100_000,
    "parts": b"\x91\x92" + array(100_000) + msgpack.packb(PART) * 100_000 + b"\x90",
    "types": with_part(5, array(200_000) + b"\xa2ab" * 200_000),
    "chunks": with_part(6, array(200_000) + msgpack.packb([9, 9, 9, 1, 9]) * 200_000),
}


@pytest.mark.parametrize("name", SMALLEST)
def test_heads_become_some_thirty_times_their_bytes_at_most(name: str) -> None:
    """Valid or not: of values as small as they can be, as many as there is room for."""
    heads = SMALLEST[name]
    whole = record(heads, EVENTS)
    with at_most(35 * len(heads)):
        if name == "appends of a mark":
            assert len(decode_entry(whole).appends) == APPENDS_MAX
        else:
            with pytest.raises(Corrupt, match="1/1"):
                decode_entry(whole)


def test_chunks_that_claim_to_lie_behind_the_record_take_no_time() -> None:
    """Each says that it is as long as all that is left, which is read once, not each time."""
    head = msgpack.packb([1, 1 << 20, 1 << 20, PLAIN, 0])
    heads = with_part(6, array(50_000) + head * 50_000)
    with at_most(35 * len(heads) + 3 * MIB), pytest.raises(Corrupt, match="fails its CRC"):
        decode_entry(record(heads, EVENTS, bytes(MIB)))
    entry = decode_entry(record(heads, EVENTS, bytes(MIB)), whole=False)
    with at_most(35 * len(heads) + 3 * MIB), pytest.raises(Corrupt, match="fails its CRC"):
        entry.events()


def test_as_many_appends_as_the_settings_allow_events() -> None:
    kind = knobs_of(Limits)["append_events_max"].kind
    assert isinstance(kind, Count)
    assert kind.most == APPENDS_MAX
    one = make_entry(
        partition=1,
        index=1,
        term=1,
        kind=EVENTS,
        first_position=1,
        timestamp_us=1,
        appends=[],
    )
    assert decode_entry(one.record).appends == ()


@pytest.mark.parametrize("value", [True, 1.0, None, "0", b"\x00", -1, 2])
def test_an_encoding_is_a_number(value: object) -> None:
    raw = msgpack.packb([[bytes(16), "t", b"", b"", value]])
    with pytest.raises(InvalidRequest, match="encoding is 0 or 1"):
        check_chunks([Chunk(1, len(raw), PLAIN, raw)], events_max=9, event_bytes_max=9)
