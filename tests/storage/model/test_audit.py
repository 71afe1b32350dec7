"""The audit of a log whose records are whole, but were never right."""

from __future__ import annotations

import struct
import zlib

import pytest

from allsource.storage.model.audit import IndexCounts, audit
from allsource.storage.model.entry import EVENTS, NOOP, Entry, Part, make_entry
from allsource.storage.model.events import NewEvent, encode_blob
from allsource.storage.model.log import HardState, LogMarks, PartitionState, StreamHead, StreamSlice

EVENT = NewEvent("T", b"1")
BLOB = encode_blob([EVENT])


class Agreeing:
    """Indexes that fit the one entry of `faults_of`."""

    def __init__(self, part: Part) -> None:
        self.part = part

    def head(self, partition: int, stream: str) -> StreamHead:
        return StreamHead(self.part.last_version, 1, 5, 5)

    def index_of_append(self, partition: int, first_event_id: bytes) -> int:
        return 1

    def slice_at(self, partition: int, stream: str, first_version: int) -> StreamSlice:
        return StreamSlice(1, self.part.count, 1)

    def count_indexes(self, partition: int) -> IndexCounts:
        return IndexCounts(1, 1, 1)


def faults_of(part: Part) -> list[str]:
    entry = make_entry(
        partition=0, index=1, term=1, kind=EVENTS, first_position=1, timestamp_us=5, parts=(part,)
    )
    state = PartitionState(
        partition=0,
        last_index=1,
        last_term=1,
        terms=[(1, 1)],
        next_position=1 + part.count,
        last_timestamp_us=5,
    )
    return list(audit(state, [(1, entry.record)], Agreeing(part)))


def test_what_is_right() -> None:
    assert faults_of(Part("s", 1, 1, EVENT.id, BLOB)) == []


def test_another_number_of_events_than_claimed() -> None:
    (fault,) = faults_of(Part("s", 1, 2, EVENT.id, BLOB))
    assert fault.startswith("partition 0: index 1, stream 's': 2 events from")


def test_another_first_id_than_claimed() -> None:
    (fault,) = faults_of(Part("s", 1, 1, bytes(16), BLOB))
    assert EVENT.id.hex() in fault


def test_events_that_cannot_be_read() -> None:
    (fault,) = faults_of(Part("s", 1, 1, EVENT.id, b"\x91\x01"))
    assert "an event is an array" in fault


class Empty:
    """The indexes of a log without events."""

    def head(self, partition: int, stream: str) -> None:
        return None

    def index_of_append(self, partition: int, first_event_id: bytes) -> None:
        return None

    def slice_at(self, partition: int, stream: str, first_version: int) -> None:
        return None

    def count_indexes(self, partition: int) -> IndexCounts:
        return IndexCounts(0, 0, 0)


def noop(index: int, term: int = 1, timestamp_us: int = 5) -> Entry:
    return make_entry(
        partition=0, index=index, term=term, kind=NOOP, first_position=1, timestamp_us=timestamp_us
    )


def faults_of_log(*entries: Entry, commit: int = 0) -> list[str]:
    """Of a log without events, whose state is what it says."""
    marks = LogMarks()
    for entry in entries:
        marks.append(entry)
    last = entries[-1]
    state = PartitionState(
        partition=0,
        hard=HardState(last.term, "", commit),
        last_index=last.index,
        last_term=last.term,
        terms=marks.terms,
        last_timestamp_us=last.timestamp_us,
    )
    return list(audit(state, [(entry.index, entry.record) for entry in entries], Empty()))


def claiming(entry: Entry, count: int) -> Entry:
    """The entry with another number of events in its header, and a CRC that fits."""
    body = bytearray(entry.record[4:])
    struct.pack_into(">I", body, struct.calcsize(">BHQQQ"), count)
    record = struct.pack(">I", zlib.crc32(body)) + body
    return Entry(0, entry.index, entry.term, NOOP, 1, count, entry.timestamp_us, (), record)


@pytest.mark.parametrize(
    ("entries", "commit", "fault"),
    [
        ([noop(1), noop(2)], 2, ""),
        ([noop(1), noop(2)], 3, "committed up to 3, but the log ends at 2"),
        ([noop(1), noop(3)], 0, "index 3 follows 1: entries are missing"),
        ([noop(1, term=2), noop(2, term=1)], 0, "index 2 has term 1 behind term 2"),
        ([noop(1), noop(2, timestamp_us=4)], 0, "index 2 has an earlier timestamp"),
        ([claiming(noop(1), 3)], 0, "index 1 claims 3 events, its parts hold another number"),
    ],
)
def test_what_contradicts_itself_along_a_log(entries: list[Entry], commit: int, fault: str) -> None:
    found = faults_of_log(*entries, commit=commit)
    assert [one for one in found if one.startswith(f"partition 0: {fault}")] if fault else found == []
