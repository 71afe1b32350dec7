"""Checking a partition's log, and its indexes against a replay of it.

The promise "indexes are the log" (storage.interface) can only be checked from outside the code that
keeps it, so this walks the raw records once, replays what they mean, and asks the indexes for exactly
that. Every expected row is looked up; then the rows are counted. All found and the same number means
that nothing is missing and nothing is left over. (Where one entry moves a mark several times, the last
of them is looked up, the others are counted.) Streams' heads, tags' numbers and marks are held in memory.
An event id that was appended twice shows as the row of the first append, which points to the second.

Pure: the backend hands in the records and answers the lookups. Faults are sentences for an operator.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from allsource.storage.model.append import moves
from allsource.storage.model.chunks import check_chunks
from allsource.storage.model.entry import Entry, Mark, Part, Place, PlacedPart, decode_entry
from allsource.storage.model.errors import Corrupt, InvalidRequest
from allsource.storage.model.log import (
    LogMarks,
    MarkAt,
    PartitionState,
    StreamHead,
    StreamSlice,
    TagSlice,
)
from allsource.storage.model.partition import tag_of


class IndexCounts(NamedTuple):
    """How many rows a partition's indexes hold."""

    streams: int
    slices: int
    ids: int
    tag_slices: int
    marks: int
    """Moves of marks, of all marks together."""


class Indexes(Protocol):
    """What the audit asks a backend."""

    def head(self, partition: int, stream: str) -> StreamHead | None: ...

    def place_of_append(self, partition: int, first_event_id: bytes) -> Place | None: ...

    def slice_at(self, partition: int, stream: str, first_version: int) -> StreamSlice | None: ...

    def tag_slice_at(self, partition: int, tag: str, first_number: int) -> TagSlice | None: ...

    def mark(self, partition: int, name: str, *, index_max: int) -> MarkAt | None: ...

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
    tags: dict[str, int] = field(default_factory=dict)
    """The newest number of each tag."""
    moved: dict[str, MarkAt] = field(default_factory=dict)
    parts: int = 0
    tagged_parts: int = 0
    moves: int = 0
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
        try:
            self.marks.append(entry)
        except Corrupt as error:
            yield self.say(f"{at}: {error.message}")
        for placed in entry.placed():
            yield from self._part(entry, placed)
        for ordinal, append in enumerate(entry.appends):
            for mark in append.marks:
                yield from self._mark(entry, ordinal, mark)
        self.last_index, self.last_term = entry.index, entry.term
        self.next_position, self.last_timestamp_us = entry.next_position, entry.timestamp_us

    def _part(self, entry: Entry, placed: PlacedPart) -> Iterator[str]:
        part = placed.part
        at = f"index {entry.index}, stream {part.stream!r}"
        head = self.heads.get(part.stream)
        version = head.version if head else 0
        if part.first_version != version + 1 and not self.skipped:
            yield self.say(f"{at}: it goes on at version {part.first_version} behind {version}")
        try:
            found = check_chunks(entry.chunks(placed), events_max=part.count, event_bytes_max=1 << 62)
        except (InvalidRequest, Corrupt) as error:
            yield self.say(f"{at}: {error.message}")
        else:
            if found != (part.count, part.first_id, part.types):
                yield self.say(
                    f"{at}: {part.count} events {part.types} from {part.first_id.hex()} are claimed, its "
                    f"chunks hold {found.count} {found.types} from {found.first_id.hex()}"
                )
        created_us = head.created_us if head else entry.timestamp_us
        self.heads[part.stream] = StreamHead(part.last_version, entry.index, created_us, entry.timestamp_us)
        self.parts += 1
        yield from self._numbers(at, part)

    def _numbers(self, at: str, part: Part) -> Iterator[str]:
        tag = tag_of(part.stream)
        newest = self.tags.get(tag, 0)
        expected = newest + 1 if tag else 0
        if part.first_tag_number != expected and not self.skipped:
            yield self.say(f"{at}: its tag goes on at number {part.first_tag_number} behind {newest}")
        if tag:
            self.tags[tag] = part.first_tag_number + part.count - 1
            self.tagged_parts += 1

    def _mark(self, entry: Entry, ordinal: int, mark: Mark) -> Iterator[str]:
        before = self.moved.get(mark.name)
        if before is not None and not moves(before, mark.position, mark.generation):
            yield self.say(f"index {entry.index}: {mark} moves back what was {before}")
        self.moved[mark.name] = MarkAt(mark.position, mark.generation, entry.index, ordinal)
        self.moves += 1


def _check_rows(replay: _Replay, entry: Entry, indexes: Indexes) -> Iterator[str]:
    partition = entry.partition
    number = 0
    for ordinal, append in enumerate(entry.appends):
        place = Place(entry.index, ordinal)
        for part in append.parts:
            at = f"index {entry.index}, stream {part.stream!r}"
            expected = StreamSlice(part.first_version, part.count, entry.index, number, entry.timestamp_us)
            found = indexes.slice_at(partition, part.stream, part.first_version)
            if found != expected:
                yield replay.say(f"{at}: the version index holds {found}, the log {expected}")
            indexed = indexes.place_of_append(partition, part.first_id)
            if indexed != place:
                yield replay.say(f"{at}: event id {part.first_id.hex()} is indexed at {indexed}")
            if tag := tag_of(part.stream):
                numbered = TagSlice(part.first_tag_number, part.count, entry.index, number)
                tagged = indexes.tag_slice_at(partition, tag, part.first_tag_number)
                if tagged != numbered:
                    yield replay.say(f"{at}: the tag index holds {tagged}, the log {numbered}")
            number += 1
    yield from _check_marks(replay, entry, indexes)


def _check_marks(replay: _Replay, entry: Entry, indexes: Indexes) -> Iterator[str]:
    newest = {mark.name for append in entry.appends for mark in append.marks}
    for name in newest:
        stored = indexes.mark(entry.partition, name, index_max=entry.index)
        if stored != replay.moved[name]:
            yield replay.say(
                f"index {entry.index}: mark {name!r} is stored as {stored}, the log says "
                f"{replay.moved[name]}"
            )


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
    expected_counts = IndexCounts(
        len(replay.heads), replay.parts, replay.parts, replay.tagged_parts, replay.moves
    )
    counts = indexes.count_indexes(replay.partition)
    if counts != expected_counts:
        yield replay.say(f"the indexes hold {counts}, the log says {expected_counts}")
