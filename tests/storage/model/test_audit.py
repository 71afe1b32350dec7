"""The audit of a log whose records are whole, but were never right."""

from __future__ import annotations

from allsource.storage.model.audit import IndexCounts, audit
from allsource.storage.model.entry import EVENTS, Part, make_entry
from allsource.storage.model.events import NewEvent, encode_blob
from allsource.storage.model.log import PartitionState, StreamHead, StreamSlice

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
