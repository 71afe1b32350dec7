"""Checking a partition's log, and its indexes against a replay of it.

The promise "indexes are the log" (storage.interface) can only be checked from outside the code that
keeps it, so this walks the raw records once, replays what they mean, and asks the indexes for exactly
that. Every expected row is looked up; then the rows are counted. All found and the same number means
that nothing is missing and nothing is left over. What is held in memory are the streams' heads. An event
id that was appended twice shows as the row of the first append, which points to the second.

Pure: the backend hands in the records and answers the lookups. Faults are sentences for an operator.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from allsource.storage.model.entry import Entry, Part, decode_entry
from allsource.storage.model.errors import Corrupt, InvalidRequest
from allsource.storage.model.events import check_blob
from allsource.storage.model.log import LogMarks, PartitionState, StreamHead, StreamSlice


class IndexCounts(NamedTuple):
    """How many rows a partition's indexes hold."""

    streams: int
    slices: int
    ids: int


class Indexes(Protocol):
    """What the audit asks a backend."""

    def head(self, partition: int, stream: str) -> StreamHead | None: ...

    def index_of_append(self, partition: int, first_event_id: bytes) -> int | None: ...

    def slice_at(self, partition: int, stream: str, first_version: int) -> StreamSlice | None: ...

    def count_indexes(self, partition: int) -> IndexCounts: ...


def audit(state: PartitionState, records: Iterable[tuple[int, bytes]], indexes: Indexes) -> Iterator[str]:
    """One sentence for each fault of the partition, none if all is well.

    `state` is what a start would load, `records` the raw log in order of index.
    """
    replay = _Replay(state.partition)
    for index, record in records:
        try:
            entry = decode_entry(record)
        except Corrupt as error:
            replay.skipped = True
            yield replay.say(f"index {index}: {error.message}")
            continue
        if entry.index != index or entry.partition != state.partition:
            yield replay.say(f"index {index} holds the entry {entry.partition}/{entry.index}")
        yield from replay.step(entry)
        yield from _check_rows(replay, entry, indexes)
    if replay.skipped:
        # What an unreadable record added is not known, so the totals below could only accuse the innocent.
        return
    yield from _check_state(replay, state)
    yield from _check_totals(replay, indexes)


@dataclass(slots=True)
class _Replay:
    """What the log means so far."""

    partition: int
    last_index: int = 0
    last_term: int = 0
    next_position: int = 1
    last_timestamp_us: int = 0
    heads: dict[str, StreamHead] = field(default_factory=dict)
    parts: int = 0
    marks: LogMarks = field(default_factory=LogMarks)
    skipped: bool = False

    def say(self, fault: str) -> str:
        return f"partition {self.partition}: {fault}"

    def step(self, entry: Entry) -> Iterator[str]:
        """Take the next entry; yield what contradicts the ones before it."""
        at = f"index {entry.index}"
        if not self.skipped:
            if entry.index != self.last_index + 1:
                yield self.say(f"{at} follows {self.last_index}: entries are missing")
            if entry.first_position != self.next_position:
                yield self.say(
                    f"{at} starts at position {entry.first_position}, expected {self.next_position}"
                )
        if entry.term < self.last_term:
            yield self.say(f"{at} has term {entry.term} behind term {self.last_term}")
        if entry.timestamp_us < self.last_timestamp_us:
            yield self.say(f"{at} has an earlier timestamp than the entry before it")
        if entry.count != sum(part.count for part in entry.parts):
            yield self.say(f"{at} claims {entry.count} events, its parts hold another number")
        self.marks.append(entry)
        for part in entry.parts:
            yield from self._part(entry, part)
        self.last_index, self.last_term = entry.index, entry.term
        self.next_position, self.last_timestamp_us = entry.next_position, entry.timestamp_us

    def _part(self, entry: Entry, part: Part) -> Iterator[str]:
        head = self.heads.get(part.stream)
        version = head.version if head else 0
        if part.first_version != version + 1 and not self.skipped:
            yield self.say(
                f"index {entry.index}: stream {part.stream!r} goes on at version {part.first_version}"
                f" behind {version}"
            )
        try:
            size = len(part.blob)
            found = check_blob(part.blob, events_max=size, event_bytes_max=size)
        except InvalidRequest as error:
            yield self.say(f"index {entry.index}, stream {part.stream!r}: {error.message}")
        else:
            if found != (part.count, part.first_id):
                yield self.say(
                    f"index {entry.index}, stream {part.stream!r}: {part.count} events from"
                    f" {part.first_id.hex()} are claimed, its bytes hold {found[0]} from {found[1].hex()}"
                )
        created_us = head.created_us if head else entry.timestamp_us
        self.heads[part.stream] = StreamHead(part.last_version, entry.index, created_us, entry.timestamp_us)
        self.parts += 1


def _check_rows(replay: _Replay, entry: Entry, indexes: Indexes) -> Iterator[str]:
    partition = entry.partition
    for part in entry.parts:
        at = f"index {entry.index}, stream {part.stream!r}"
        expected = StreamSlice(part.first_version, part.count, entry.index)
        found = indexes.slice_at(partition, part.stream, part.first_version)
        if found != expected:
            yield replay.say(f"{at}: the version index holds {found}, the log {expected}")
        index = indexes.index_of_append(partition, part.first_id)
        if index != entry.index:
            yield replay.say(f"{at}: event id {part.first_id.hex()} is indexed at {index}")


def _check_state(replay: _Replay, state: PartitionState) -> Iterator[str]:
    if state.hard.commit > replay.last_index:
        yield replay.say(f"committed up to {state.hard.commit}, but the log ends at {replay.last_index}")
    for what, loaded, replayed in (
        ("last index", state.last_index, replay.last_index),
        ("last term", state.last_term, replay.last_term),
        ("next position", state.next_position, replay.next_position),
        ("term starts", state.terms, replay.marks.terms),
        ("configurations", state.configurations, replay.marks.configurations),
    ):
        if loaded != replayed:
            yield replay.say(f"{what}: stored {loaded}, the log says {replayed}")


def _check_totals(replay: _Replay, indexes: Indexes) -> Iterator[str]:
    for stream, expected in replay.heads.items():
        found = indexes.head(replay.partition, stream)
        if found != expected:
            yield replay.say(f"stream {stream!r}: its head is stored as {found}, the log says {expected}")
    expected_counts = IndexCounts(len(replay.heads), replay.parts, replay.parts)
    counts = indexes.count_indexes(replay.partition)
    if counts != expected_counts:
        yield replay.say(f"the indexes hold {counts}, the log says {expected_counts}")
