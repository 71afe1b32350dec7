"""A disk that forgets what was not synced, one for each node.

It keeps two copies of each partition's replica: the view, which reads see as soon as a write
returns, and what is durable. A crash keeps a random prefix of the writes in between (a torn last
record is the same as that write being lost) and drops the rest. It is written independently of
`allsource.storage`, so that one mistake cannot hide in both.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from random import Random

import msgpack

from allsource.storage.model.entry import CONFIG, Configuration, Entry
from allsource.storage.model.log import (
    ConfigurationAt,
    HardState,
    PartitionState,
    PartitionWrite,
    TermStart,
)


def blob_of(ids: Sequence[bytes]) -> bytes:
    """A blob of events that are nothing but their ids."""
    packed: bytes = msgpack.packb([[event_id, "E", b"", b"", 1] for event_id in ids])
    return packed


def ids_of(blob: bytes) -> list[bytes]:
    """The event ids in a blob, in order."""
    return [event[0] for event in msgpack.unpackb(blob)]


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


class Index:
    """What storage derives from a log: streams with their events, and appends by first event id."""

    __slots__ = ("appends", "configurations", "streams")

    def __init__(self, entries: Sequence[Entry] = ()) -> None:
        self.configurations: list[ConfigurationAt] = []
        """Ascending; the newest is the one in force (rule 8)."""
        self.streams: dict[str, list[tuple[int, bytes]]] = {}
        """`(index of the entry, event id)` by version, of each stream."""
        self.appends: dict[bytes, int] = {}
        for entry in entries:
            self.add(entry)

    def add(self, entry: Entry) -> None:
        """Index one more entry."""
        if entry.kind == CONFIG:
            self.configurations.append(ConfigurationAt(entry.index, Configuration.decode(entry.payload())))
        for part in entry.parts:
            events = self.streams.setdefault(part.stream, [])
            events.extend((entry.index, event_id) for event_id in ids_of(part.blob))
            self.appends[part.first_id] = entry.index

    def remove(self, entry: Entry) -> None:
        """Undo the newest entry."""
        if entry.kind == CONFIG:
            self.configurations.pop()
        for part in entry.parts:
            events = self.streams[part.stream]
            del events[len(events) - part.count :]
            if not events:
                del self.streams[part.stream]
            if self.appends.get(part.first_id) == entry.index:
                del self.appends[part.first_id]

    def version(self, stream: str) -> int:
        """The stream's newest version, committed or not; 0 if it has no event."""
        return len(self.streams.get(stream, ()))

    def head_index(self, stream: str) -> int:
        """Index of the entry that holds the newest version; 0 if there is none."""
        events = self.streams.get(stream)
        return events[-1][0] if events else 0

    def events_up_to(self, stream: str, index: int) -> tuple[bytes, ...]:
        """Ids of the stream's events in entries up to `index`."""
        events = self.streams.get(stream, [])
        end = bisect_right(events, index, key=lambda event: event[0])
        return tuple([event_id for _, event_id in events[:end]])

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Index)
            and self.streams == other.streams
            and self.appends == other.appends
            and self.configurations == other.configurations
        )

    __hash__ = None  # type: ignore[assignment]


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
