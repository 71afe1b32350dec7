"""The log record: every field, every flipped bit."""

from __future__ import annotations

import struct
import zlib

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from allsource.storage.model.entry import (
    CONFIG,
    EVENTS,
    HEADER_BYTES,
    NOOP,
    Configuration,
    Entry,
    Part,
    check_record,
    decode_entry,
    make_entry,
    span_of,
)
from allsource.storage.model.errors import Corrupt
from allsource.storage.model.events import NewEvent, encode_blob
from tests.storage.logs import part

U64 = st.integers(0, 2**64 - 1)
parts_lists = st.lists(
    st.builds(
        lambda name, first, count: part(name, first, count),
        st.text(min_size=1, max_size=10),
        st.integers(1, 2**40),
        st.integers(1, 4),
    ),
    min_size=1,
    max_size=3,
).map(tuple)


def entry(**changed: object) -> Entry:
    wanted: dict = {
        "partition": 3, "index": 9, "term": 2, "kind": EVENTS, "first_position": 20,
        "timestamp_us": 1_700_000_000_000_000, "parts": (part("a", 4, 2), part("b", 1, 1)),
    }  # fmt: skip
    return make_entry(**{**wanted, **changed})


@given(st.integers(0, 2**16 - 1), U64, U64, U64, U64, parts_lists)
def test_a_record_gives_back_its_entry(
    partition: int, index: int, term: int, position: int, timestamp: int, parts: tuple[Part, ...]
) -> None:
    made = make_entry(
        partition=partition, index=index, term=term, kind=EVENTS, first_position=position,
        timestamp_us=timestamp, parts=parts,
    )  # fmt: skip
    read = decode_entry(made.record)
    assert read == made
    for name in ("partition", "index", "term", "kind", "first_position", "count", "timestamp_us", "parts"):
        assert getattr(read, name) == getattr(made, name)
    assert span_of(made.record) == (position, sum(p.count for p in parts))


def test_the_layout_is_the_one_on_the_page() -> None:
    record = entry().record
    crc, kind, partition, term, index, first_position, count, timestamp = struct.unpack_from(
        ">IBHQQQIQ", record
    )
    assert (kind, partition, term, index, first_position, count) == (1, 3, 2, 9, 20, 3)
    assert timestamp == 1_700_000_000_000_000
    assert crc == zlib.crc32(record[4:])
    assert HEADER_BYTES == 43
    streams = [p[:4] for p in msgpack.unpackb(record[HEADER_BYTES:])]
    assert streams == [["a", 4, 2, part("a", 4, 2).first_id], ["b", 1, 1, part("b", 1).first_id]]


def test_every_flipped_bit_is_found() -> None:
    record = entry().record
    for at in range(len(record)):
        for bit in range(8):
            flipped = bytearray(record)
            flipped[at] ^= 1 << bit
            with pytest.raises(Corrupt):
                decode_entry(bytes(flipped))


def test_every_cut_is_found() -> None:
    record = entry().record
    for length in range(len(record)):
        with pytest.raises(Corrupt):
            decode_entry(record[:length])
    with pytest.raises(Corrupt):
        decode_entry(record + b"\0")


@given(st.binary(max_size=80))
def test_any_payload_with_a_valid_crc_is_an_entry_or_corrupt(payload: bytes) -> None:
    body = struct.pack(">BHQQQIQ", EVENTS, 0, 1, 1, 1, 1, 1) + payload
    try:
        read = decode_entry(struct.pack(">I", zlib.crc32(body)) + body)
    except Corrupt:
        return
    assert all(len(p) == 5 for p in read.parts)


@pytest.mark.parametrize("kind", [0, 4, 255])
def test_an_unknown_kind_is_refused_not_skipped(kind: int) -> None:
    with pytest.raises(Corrupt, match=f"unknown kind {kind}; a newer version"):
        decode_entry(entry(kind=kind, parts=()).record)


def test_events_get_their_versions_positions_and_time() -> None:
    events = entry().events()
    assert [(e.stream, e.version, e.position) for e in events] == [("a", 4, 20), ("a", 5, 21), ("b", 1, 22)]
    assert {e.timestamp_us for e in events} == {1_700_000_000_000_000}
    assert {e.partition for e in events} == {3}
    assert entry().next_position == 23
    assert [p.last_version for p in entry().parts] == [5, 1]


def test_entries_without_events_take_no_position() -> None:
    for kind, payload in ((NOOP, b""), (CONFIG, Configuration(("n1",)).encode())):
        made = entry(kind=kind, parts=(), payload=payload)
        assert made.next_position == made.first_position
        assert made.events() == []
        assert decode_entry(made.record).payload() == payload


def test_the_blob_is_carried_as_it_came() -> None:
    blob = encode_blob([NewEvent("t", b"\x00" * 40, encoding=1)])
    made = entry(parts=(Part("a", 1, 1, bytes(16), blob),))
    assert blob in made.record
    assert decode_entry(made.record).parts[0].blob == blob


def test_equal_records_are_equal_entries() -> None:
    assert entry() == entry()
    assert hash(entry()) == hash(entry())
    assert entry() != entry(term=3)
    assert entry() != entry().record


names = st.lists(st.text(max_size=8), max_size=4, unique=True).map(lambda found: tuple(sorted(found)))


@given(names, names, names)
def test_configurations_go_there_and_back(voters: tuple, learners: tuple, outgoing: tuple) -> None:
    made = Configuration(voters, learners, outgoing)
    assert Configuration.decode(made.encode()) == made
    assert made.members() == tuple(sorted({*voters, *learners, *outgoing}))


@pytest.mark.parametrize("payload", [b"", b"\xc1", msgpack.packb({}), msgpack.packb([1]), msgpack.packb(7)])
def test_unreadable_configurations_are_corrupt(payload: bytes) -> None:
    with pytest.raises(Corrupt, match="configuration"):
        Configuration.decode(payload)


def test_a_record_that_is_passed_on_is_whole_and_the_one_that_it_should_be() -> None:
    record = entry().record
    check_record(record, 3, 9)
    for at in range(len(record)):
        flipped = bytes([*record[:at], record[at] ^ 1, *record[at + 1 :]])
        with pytest.raises(Corrupt, match="log record 3/9 of"):
            check_record(flipped, 3, 9)
    with pytest.raises(Corrupt, match="fails its CRC"):
        check_record(record[: HEADER_BYTES - 1], 3, 9)
    for partition, index in ((3, 8), (4, 9)):
        with pytest.raises(Corrupt, match=f"at {partition}/{index} lies the log record of another entry"):
            check_record(record, partition, index)
