"""Storage in the memory of one process: for tests, demos, caches, and embedded use without a disk.

It keeps every promise of `storage.interface` except the one about power cuts: a process that ends has
forgotten its log *and its votes*. Therefore each `MemoryStorage` is a new replica (a fresh
`replica_id`), so that a cluster never takes a restarted node for the one that voted before
(RULES.md rule 9).

Tests ask for more: `crash()` forgets exactly what was not synced, as a power cut would. For that, each
write leaves behind what it would take to undo it, until a sync makes it final.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, TypeVar
from uuid import uuid4

from allsource.storage.interface import INDEX_MAX, Refusal
from allsource.storage.model.audit import IndexCounts, audit
from allsource.storage.model.entry import Entry, Part, Place
from allsource.storage.model.errors import CheckpointsUnsupported, Corrupt, StorageFault
from allsource.storage.model.identity import Identity
from allsource.storage.model.log import (
    HardState,
    LogMarks,
    MarkAt,
    PartitionState,
    PartitionWrite,
    StreamHead,
    StreamSlice,
    TagHead,
    TagSlice,
)
from allsource.storage.model.partition import PARTITION_COUNT, tag_of
from allsource.storage.model.writes import check_continues, combined


class _Undo(NamedTuple):
    """How one partition stood before a write."""

    partition: int
    hard: HardState
    last_index: int
    removed: list[Entry]
    """Entries that the write truncated, to be appended again behind what was before them."""


class MemoryStorage:
    """See the module's page, and `storage.interface` for what the methods promise."""

    def __init__(
        self, *, cluster_id: str = "", node_id: str = "", partition_count: int = PARTITION_COUNT
    ) -> None:
        self.identity = Identity(cluster_id, node_id, uuid4().hex, 1)
        self.partition_count = partition_count
        self._logs = [_Log() for _ in range(partition_count)]
        self._meta: dict[str, bytes] = {}
        self._unsynced: deque[list[_Undo]] = deque()
        self._closed = False

    # -- writing

    def load(self, partition: int) -> PartitionState:
        self._check_open()
        log = self._logs[partition]
        last = log.entries[-1] if log.entries else None
        if log.hard.commit > len(log.entries):
            raise Corrupt(f"partition {partition}: committed up to {log.hard.commit}, log ends before it")
        return PartitionState(
            partition=partition,
            hard=log.hard,
            last_index=len(log.entries),
            last_term=last.term if last else 0,
            terms=list(log.marks.terms),
            next_position=last.next_position if last else 1,
            last_timestamp_us=last.timestamp_us if last else 0,
            configurations=list(log.marks.configurations),
        )

    def write(self, writes: Sequence[PartitionWrite]) -> None:
        self._check_open()
        writes = combined(writes)
        for write in writes:
            check_continues(write, len(self._logs[write.partition].entries))
        undo = []
        for write in writes:
            log = self._logs[write.partition]
            hard, last_index, removed = log.hard, len(log.entries), log.apply(write)
            undo.append(_Undo(write.partition, hard, last_index - len(removed), removed))
        self._unsynced.append(undo)

    def sync(self) -> None:
        self._check_open()
        # A deque, taken one by one: the writing thread may add while this one runs.
        for _ in range(len(self._unsynced)):
            self._unsynced.popleft()

    @property
    def sync_is_short(self) -> bool:
        return True

    @property
    def no_checkpoints(self) -> str:
        return "what it holds is in memory, and gone when its process ends"

    def checkpoint(self, target: Path) -> None:
        raise CheckpointsUnsupported(f"storage in memory makes no checkpoints: {self.no_checkpoints}")

    def crash(self) -> None:
        """For tests: a power cut and a restart. What was not synced is gone; the incarnation rises."""
        while self._unsynced:
            for undo in reversed(self._unsynced.pop()):
                log = self._logs[undo.partition]
                log.apply(PartitionWrite(undo.partition, undo.hard, undo.last_index + 1, undo.removed))
        self.identity = self.identity._replace(incarnation=self.identity.incarnation + 1)
        self._closed = False

    def pressure(self) -> Refusal | None:
        return None

    # -- the log

    def entries(self, partition: int, first: int, last: int, bytes_max: int) -> list[Entry]:
        found: list[Entry] = []
        size = 0
        for entry in self._log(partition).entries[first - 1 : last]:
            size += len(entry.record)
            if found and size > bytes_max:
                break
            found.append(entry)
        return found

    def records(self, partition: int, first: int, last: int, bytes_max: int) -> list[bytes]:
        return [entry.record for entry in self.entries(partition, first, last, bytes_max)]

    def entries_at(self, partition: int, indexes: Sequence[int]) -> list[Entry]:
        entries = self._log(partition).entries
        for index in indexes:
            if not 0 < index <= len(entries):
                raise Corrupt(f"partition {partition} has no entry {index}; its log ends at {len(entries)}")
        return [entries[index - 1] for index in indexes]

    def index_of_position(self, partition: int, position: int) -> int | None:
        entries = self._log(partition).entries
        # Entries without events share the position of the next event, so the rightmost one counts.
        at = bisect_right(entries, position, key=_first_position) - 1
        return entries[at].index if at >= 0 and position < entries[at].next_position else None

    # -- the indexes

    def head(self, partition: int, stream: str) -> StreamHead | None:
        return self._log(partition).heads.get(stream)

    def place_of_append(self, partition: int, first_event_id: bytes) -> Place | None:
        return self._log(partition).ids.get(first_event_id)

    def tag_head(self, partition: int, tag: str) -> TagHead | None:
        slices = self._log(partition).tags.get(tag)
        return TagHead(slices[-1].first_number + slices[-1].count - 1, slices[-1].index) if slices else None

    def mark(self, partition: int, name: str, *, index_max: int = INDEX_MAX) -> MarkAt | None:
        moves = self._log(partition).moved.get(name, [])
        at = bisect_right(moves, index_max, key=_index) - 1
        return moves[at] if at >= 0 else None

    def slices(
        self, partition: int, stream: str, from_version: int, *, forward: bool, slices_max: int
    ) -> list[StreamSlice]:
        slices = self._log(partition).slices.get(stream, [])
        return _page(slices, from_version, forward=forward, slices_max=slices_max)

    def tag_slices(
        self, partition: int, tag: str, from_number: int, *, forward: bool, slices_max: int
    ) -> list[TagSlice]:
        slices = self._log(partition).tags.get(tag, [])
        return _page(slices, from_number, forward=forward, slices_max=slices_max)

    def slice_at(self, partition: int, stream: str, first_version: int) -> StreamSlice | None:
        """The slice that begins with exactly this version."""
        slices = self._log(partition).slices.get(stream, [])
        at = bisect_left(slices, first_version, key=_first)
        return slices[at] if at < len(slices) and slices[at].first_version == first_version else None

    def tag_slice_at(self, partition: int, tag: str, first_number: int) -> TagSlice | None:
        """The tag's slice that begins with exactly this number."""
        slices = self._log(partition).tags.get(tag, [])
        at = bisect_left(slices, first_number, key=_first)
        return slices[at] if at < len(slices) and slices[at].first_number == first_number else None

    def streams(
        self, partition: int, *, prefix: str = "", after: str = "", limit: int = 1000
    ) -> list[tuple[str, StreamHead]]:
        log = self._log(partition)
        names, start, begin = log.sorted_names(), after.encode(), prefix.encode()
        at = max(bisect_left(names, begin), bisect_right(names, start) if start else 0)
        found: list[tuple[str, StreamHead]] = []
        for name in names[at : at + limit]:
            if not name.startswith(begin):
                break
            stream = name.decode()
            found.append((stream, log.heads[stream]))
        return found

    # -- the rest

    def get_meta(self, key: str) -> bytes | None:
        self._check_open()
        return self._meta.get(key)

    def put_meta(self, values: Mapping[str, bytes]) -> None:
        self._check_open()
        self._meta.update(values)

    def verify(self, partition: int) -> Iterator[str]:
        records = [(index, entry.record) for index, entry in enumerate(self._log(partition).entries, 1)]
        return audit(self.load(partition), records, self)

    def count_indexes(self, partition: int) -> IndexCounts:
        """How many rows each index holds."""
        log = self._log(partition)
        return IndexCounts(
            len(log.heads),
            sum(map(len, log.slices.values())),
            len(log.ids),
            sum(map(len, log.tags.values())),
            sum(map(len, log.moved.values())),
        )

    def properties(self) -> Mapping[str, int]:
        return {
            "entries": sum(len(log.entries) for log in self._logs),
            "streams": sum(len(log.heads) for log in self._logs),
            "unsynced_writes": len(self._unsynced),
        }

    def close(self) -> None:
        if not self._closed:
            self.sync()
            self._closed = True

    def _log(self, partition: int) -> _Log:
        self._check_open()
        return self._logs[partition]

    def _check_open(self) -> None:
        if self._closed:
            raise StorageFault("this storage was closed")


def _first_position(entry: Entry) -> int:
    return entry.first_position


_Item = TypeVar("_Item")
_Slice = TypeVar("_Slice", StreamSlice, TagSlice)


def _first(piece: StreamSlice | TagSlice) -> int:
    return piece[0]


def _index(mark: MarkAt) -> int:
    return mark.index


def _page(slices: list[_Slice], start: int, *, forward: bool, slices_max: int) -> list[_Slice]:
    """The slice that holds `start` (forward: or the first one behind it), and those that follow it."""
    holder = bisect_right(slices, start, key=_first) - 1
    if not forward:
        return slices[max(0, holder + 1 - slices_max) : holder + 1][::-1]
    at = max(holder, 0)
    if slices and start >= slices[at][0] + slices[at].count:
        at += 1
    return slices[at : at + slices_max]


@dataclass(slots=True)
class _Log:
    """One partition: its entries (index 1 first) and the indexes that follow from them."""

    hard: HardState = field(default_factory=HardState)
    entries: list[Entry] = field(default_factory=list)
    heads: dict[str, StreamHead] = field(default_factory=dict)
    slices: dict[str, list[StreamSlice]] = field(default_factory=dict)
    ids: dict[bytes, Place] = field(default_factory=dict)
    tags: dict[str, list[TagSlice]] = field(default_factory=dict)
    moved: dict[str, list[MarkAt]] = field(default_factory=dict)
    """Every move of every mark, by its name."""
    marks: LogMarks = field(default_factory=LogMarks)
    names: list[bytes] | None = None
    """Streams in the order of their UTF-8 bytes; None when it must be sorted anew."""

    def apply(self, write: PartitionWrite) -> list[Entry]:
        """Change the log as told; returns the entries that were truncated."""
        removed: list[Entry] = []
        if write.hard is not None:
            self.hard = write.hard
        if write.truncate_from is not None:
            removed = self._truncate(write.truncate_from)
        for entry in write.entries:
            self._append(entry)
        return removed

    def _append(self, entry: Entry) -> None:
        self.marks.append(entry)
        self.entries.append(entry)
        part_number = 0
        for ordinal, (parts, marks) in enumerate(entry.appends):
            for part in parts:
                self._add(entry, part_number, part)
                self.ids[part.first_id] = Place(entry.index, ordinal)
                part_number += 1
            for name, position, generation in marks:
                moved = MarkAt(position, generation, entry.index, ordinal)
                self.moved.setdefault(name, []).append(moved)

    def _add(self, entry: Entry, number: int, part: Part) -> None:
        stream, index, timestamp_us = part.stream, entry.index, entry.timestamp_us
        head = self.heads.get(stream)
        if head is None:
            self.names = None
        created_us = head.created_us if head else timestamp_us
        self.heads[stream] = StreamHead(part.last_version, index, created_us, timestamp_us)
        self.slices.setdefault(stream, []).append(
            StreamSlice(part.first_version, part.count, index, number, timestamp_us)
        )
        if tag := tag_of(stream):
            self.tags.setdefault(tag, []).append(TagSlice(part.first_tag_number, part.count, index, number))

    def _truncate(self, index: int) -> list[Entry]:
        removed = self.entries[index - 1 :]
        self.marks.truncate(index)
        for entry in reversed(removed):
            for part in reversed(entry.parts):
                del self.ids[part.first_id]
                self._drop_last_slice(part.stream)
                if tag := tag_of(part.stream):
                    _drop_last(self.tags, tag)
            for append in entry.appends:
                for mark in append.marks:
                    _drop_last(self.moved, mark.name)
        del self.entries[index - 1 :]
        return removed

    def _drop_last_slice(self, stream: str) -> None:
        slices = self.slices[stream]
        slices.pop()
        if not slices:
            del self.slices[stream], self.heads[stream]
            self.names = None
            return
        last = slices[-1]
        self.heads[stream] = StreamHead(
            last.first_version + last.count - 1,
            last.index,
            self.heads[stream].created_us,
            last.timestamp_us,
        )

    def sorted_names(self) -> list[bytes]:
        if self.names is None:
            self.names = sorted(stream.encode() for stream in self.heads)
        return self.names


def _drop_last(lists: dict[str, list[_Item]], name: str) -> None:
    items = lists[name]
    items.pop()
    if not items:
        del lists[name]
