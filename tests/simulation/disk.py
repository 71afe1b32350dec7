"""A disk that forgets what was not synced, one for each node.

It keeps two copies of each partition's replica: the view, which reads see as soon as a write
returns, and what is durable. A crash keeps a random prefix of the writes in between (a torn last
record is the same as that write being lost) and drops the rest. It is written independently of
`allsource.storage`, so that one mistake cannot hide in both.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from random import Random
from typing import NamedTuple, TypeVar

import msgpack

from allsource.storage.model.chunks import PLAIN, Chunk
from allsource.storage.model.entry import CONFIG, Configuration, Entry, Part, Place
from allsource.storage.model.log import (
    ConfigurationAt,
    HardState,
    MarkAt,
    PartitionState,
    PartitionWrite,
    TermStart,
)
from allsource.storage.model.partition import tag_of

T = TypeVar("T")

CHUNK_EVENTS = 2
"""Few, so that an append often has several chunks."""


def chunks_of(ids: Sequence[bytes]) -> tuple[Chunk, ...]:
    """Chunks of events that are nothing but their ids."""
    cut = [ids[first : first + CHUNK_EVENTS] for first in range(0, len(ids), CHUNK_EVENTS)]
    packed = [msgpack.packb([[event_id, "E", b"", b"", 1] for event_id in some]) for some in cut]
    return tuple([Chunk(len(some), len(raw), PLAIN, raw) for some, raw in zip(cut, packed, strict=True)])


def parts_of(entry: Entry) -> Iterator[tuple[Part, tuple[bytes, ...]]]:
    """The parts of all appends of an entry, in order, each with its event ids."""
    for placed in entry.placed():
        found = [msgpack.unpackb(chunk.data) for chunk in entry.chunks(placed)]
        yield placed.part, tuple([event[0] for chunk in found for event in chunk])


def ids_of(entry: Entry, ordinal: int) -> list[tuple[str, tuple[bytes, ...]]]:
    """Streams and event ids of one append of an entry."""
    first = sum(len(append.parts) for append in entry.appends[:ordinal])
    parts = list(parts_of(entry))[first : first + len(entry.appends[ordinal].parts)]
    return [(part.stream, ids) for part, ids in parts]


class Replica:
    """One partition's log and hard state."""

    __slots__ = ("entries", "hard")

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.hard = HardState()

    def apply(self, write: PartitionWrite) -> None:
        """Carry out one write; raises if it would leave a hole."""
        if write.hard is not None:
            self.hard = write.hard
        if write.truncate_from is not None:
            del self.entries[write.truncate_from - 1 :]
        for entry in write.entries:
            assert entry.index == len(self.entries) + 1, (
                f"entry {entry.partition}/{entry.index} behind a log of {len(self.entries)}"
            )
            self.entries.append(entry)

    def copy(self) -> Replica:
        """An independent copy (entries are shared: they never change)."""
        copied = Replica()
        copied.entries = list(self.entries)
        copied.hard = self.hard
        return copied

    def at(self, index: int) -> Entry | None:
        """The entry with this index, if the log reaches it."""
        return self.entries[index - 1] if 0 < index <= len(self.entries) else None


class Held(NamedTuple):
    """One event as an index has it: in which entry, its id, and its number under its tag (0 without)."""

    index: int  # type: ignore[assignment]  # a field, not tuple.index
    id: bytes
    number: int


class Index:
    """What storage derives from a log: events by stream and tag, marks, and appends by first event id."""

    __slots__ = ("appends", "configurations", "marks", "streams", "tags")

    def __init__(self, entries: Sequence[Entry] = ()) -> None:
        self.configurations: list[ConfigurationAt] = []
        """Ascending; the newest is the one in force (rule 8)."""
        self.streams: dict[str, list[Held]] = {}
        """The events of each stream, by version."""
        self.tags: dict[str, list[Held]] = {}
        """The events of each tag, by number."""
        self.marks: dict[str, list[MarkAt]] = {}
        """All that each mark ever was, oldest first."""
        self.appends: dict[bytes, Place] = {}
        for entry in entries:
            self.add(entry)

    def add(self, entry: Entry) -> None:
        """Index one more entry."""
        if entry.kind == CONFIG:
            self.configurations.append(ConfigurationAt(entry.index, Configuration.decode(entry.payload())))
        for part, ids in parts_of(entry):
            number = part.first_tag_number
            events = [Held(entry.index, id_, number and number + n) for n, id_ in enumerate(ids)]
            self.streams.setdefault(part.stream, []).extend(events)
            if tag := tag_of(part.stream):
                self.tags.setdefault(tag, []).extend(events)
        for ordinal, append in enumerate(entry.appends):
            for part in append.parts:
                self.appends[part.first_id] = Place(entry.index, ordinal)
            for name, position, generation in append.marks:
                moved = MarkAt(position, generation, entry.index, ordinal)
                self.marks.setdefault(name, []).append(moved)

    def remove(self, entry: Entry) -> None:
        """Undo the newest entry."""
        if entry.kind == CONFIG:
            self.configurations.pop()
        for part in entry.parts:
            _drop(self.streams, part.stream, part.count)
            if tag := tag_of(part.stream):
                _drop(self.tags, tag, part.count)
            place = self.appends.get(part.first_id)
            if place is not None and place.index == entry.index:
                del self.appends[part.first_id]
        for append in entry.appends:
            for mark in append.marks:
                _drop(self.marks, mark.name, 1)

    def version(self, stream: str) -> int:
        """The stream's newest version, committed or not; 0 if it has no event."""
        return len(self.streams.get(stream, ()))

    def head_index(self, stream: str) -> int:
        """Index of the entry that holds the newest version; 0 if there is none."""
        events = self.streams.get(stream)
        return events[-1][0] if events else 0

    def tag(self, tag: str) -> tuple[int, int]:
        """`(newest number, index of the entry that holds it)` of the tag; zeros if it has no event."""
        events = self.tags.get(tag)
        return (len(events), events[-1][0]) if events else (0, 0)

    def events_up_to(self, stream: str, index: int) -> list[Held]:
        """The stream's events in entries up to `index`."""
        return _up_to(self.streams.get(stream, []), index)

    def tagged_up_to(self, tag: str, index: int) -> list[Held]:
        """The tag's events in entries up to `index`."""
        return _up_to(self.tags.get(tag, []), index)

    def mark(self, name: str, index_max: int) -> MarkAt | None:
        """The mark as the entries up to `index_max` left it."""
        moves = self.marks.get(name, [])
        end = bisect_right(moves, index_max, key=lambda moved: moved.index)
        return moves[end - 1] if end else None

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Index)
            and self.streams == other.streams
            and self.tags == other.tags
            and self.marks == other.marks
            and self.appends == other.appends
            and self.configurations == other.configurations
        )

    __hash__ = None  # type: ignore[assignment]


def _drop(lists: dict[str, list[T]], name: str, count: int) -> None:
    """Drop the newest `count` of one of these lists, and an empty list."""
    found = lists[name]
    del found[len(found) - count :]
    if not found:
        del lists[name]


def _up_to(events: list[Held], index: int) -> list[Held]:
    return events[: bisect_right(events, index, key=lambda event: event.index)]


class SimDisk:
    """The part of `Storage` that consensus and the simulated node use."""

    def __init__(self, partitions: Sequence[int]) -> None:
        self.view = {partition: Replica() for partition in partitions}
        self.durable = {partition: Replica() for partition in partitions}
        self.index = {partition: Index() for partition in partitions}
        self._unsynced: list[list[PartitionWrite]] = []

    # -- writing

    def write(self, writes: Sequence[PartitionWrite]) -> None:
        """Visible at once, durable after a sync that begins later."""
        kept = [PartitionWrite(w.partition, w.hard, w.truncate_from, tuple(w.entries)) for w in writes]
        self._unsynced.append(kept)
        for write in kept:
            index = self.index[write.partition]
            replica = self.view[write.partition]
            if write.truncate_from is not None:
                for entry in reversed(replica.entries[write.truncate_from - 1 :]):
                    index.remove(entry)
            replica.apply(write)
            for entry in write.entries:
                index.add(entry)

    def unsynced(self) -> int:
        """How many writes a sync that begins now would make durable."""
        return len(self._unsynced)

    def harden(self, count: int) -> None:
        """A sync that covered the `count` oldest unsynced writes has finished."""
        for batch in self._unsynced[:count]:
            for write in batch:
                self.durable[write.partition].apply(write)
        del self._unsynced[:count]

    def crash(self, random: Random) -> int:
        """The power fails: a random prefix of the unsynced writes stays. Returns how many are lost."""
        kept = random.randint(0, len(self._unsynced))
        self.harden(kept)
        lost = len(self._unsynced)
        self._unsynced.clear()
        self.view = {partition: replica.copy() for partition, replica in self.durable.items()}
        self.index = {partition: Index(replica.entries) for partition, replica in self.view.items()}
        return lost

    # -- reading

    def load(self, partition: int) -> PartitionState:
        """As `Storage.load`."""
        replica = self.view[partition]
        state = PartitionState(partition, replica.hard, len(replica.entries))
        for entry in replica.entries:
            if entry.term != state.last_term or not state.terms:
                state.terms.append(TermStart(entry.index, entry.term))
            state.last_term = entry.term
            state.next_position = entry.next_position
            state.last_timestamp_us = entry.timestamp_us
        state.configurations = list(self.index[partition].configurations)
        return state

    def records(self, partition: int, first: int, last: int, bytes_max: int) -> list[bytes]:
        """As `Storage.records`."""
        return [entry.record for entry in self.entries(partition, first, last, bytes_max)]

    def entries(self, partition: int, first: int, last: int, bytes_max: int) -> list[Entry]:
        """As `Storage.entries`."""
        found: list[Entry] = []
        size = 0
        for entry in self.view[partition].entries[first - 1 : last]:
            size += len(entry.record)
            if found and size > bytes_max:
                break
            found.append(entry)
        return found
