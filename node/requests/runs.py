"""What a page shows of the log, a chunk at a time, and what it may cost.

A stream's events are numbered by version, a tag's by number, and a page of either is cut out in the same
way: the index says in which part of which entry a number is (`Axis`), the part's heads say in which chunk,
and that chunk alone is verified and shown, as it lies there (`Run`).

What a page costs is bounded by its limits, whatever is asked for and whatever the entries hold beside it:
events and bytes that it shows, and the entries that have to be fetched and looked at for it. A page that
comes to such a bound ends early, and says where to read on.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Protocol

from allsource.cluster.protocol.requests import Run
from allsource.config.schema import Limits
from allsource.node.requests.entries import RecentEntries
from allsource.storage.model.entry import ChunkHead, Entry, Part, PlacedPart
from allsource.storage.model.errors import Corrupt
from allsource.storage.model.log import StreamSlice, TagSlice
from allsource.storage.model.partition import tag_of

WORK_BYTES_MAX = 16 << 20
"""Memory of the entries that are fetched for one page; about 40 ms where they are nothing but heads."""
_SLICE_WORK = 1 << 10
"""What looking at a slice counts as."""
_SLICES_AT_ONCE = 64
_SLICES_AT_FIRST = 16
_ENTRIES_AT_FIRST = 4


class Slices(Protocol):
    """The part of `Storage` that axes read."""

    def slices(
        self, partition: int, stream: str, from_version: int, *, forward: bool, slices_max: int
    ) -> list[StreamSlice]: ...

    def tag_slices(
        self, partition: int, tag: str, from_number: int, *, forward: bool, slices_max: int
    ) -> list[TagSlice]: ...


class Axis(Protocol):
    """Events that are numbered from 1 without gaps: those of a stream, or of a tag."""

    name: str

    def slices(self, number: int, *, forward: bool, slices_max: int) -> Sequence[StreamSlice | TagSlice]:
        """Where they are, from this number on or back (`Storage.slices`)."""
        ...

    def first_of(self, part: Part) -> int:
        """The number of a part's first event; 0 if it is not of these."""
        ...


class StreamAxis:
    """A stream's events, by version."""

    __slots__ = ("_log", "_partition", "name")

    def __init__(self, log: Slices, partition: int, stream: str) -> None:
        self._log = log
        self._partition = partition
        self.name = stream

    def slices(self, number: int, *, forward: bool, slices_max: int) -> list[StreamSlice]:
        return self._log.slices(self._partition, self.name, number, forward=forward, slices_max=slices_max)

    def first_of(self, part: Part) -> int:
        return part.first_version if part.stream == self.name else 0


class TagAxis:
    """The events of all streams with a tag, by number."""

    __slots__ = ("_log", "_partition", "name")

    def __init__(self, log: Slices, partition: int, tag: str) -> None:
        self._log = log
        self._partition = partition
        self.name = tag

    def slices(self, number: int, *, forward: bool, slices_max: int) -> list[TagSlice]:
        return self._log.tag_slices(
            self._partition, self.name, number, forward=forward, slices_max=slices_max
        )

    def first_of(self, part: Part) -> int:
        return part.first_tag_number if tag_of(part.stream) == self.name else 0


class RunsOfPage:
    """The runs of one page, as they are collected. `limit`: events that it shows at most. `types`: parts
    that hold none of these are passed over by their heads; empty for all."""

    __slots__ = (
        "_bytes_left",
        "_entries",
        "_events_left",
        "_fetched",
        "_fetched_bytes",
        "_partition",
        "_types",
        "_work_left",
        "runs",
    )

    def __init__(
        self,
        entries: RecentEntries,
        partition: int,
        limits: Limits,
        limit: int,
        types: Collection[str] = (),
    ) -> None:
        self.runs: list[Run] = []
        self._entries = entries
        self._partition = partition
        self._events_left = min(limit, limits.read_events_max)
        self._bytes_left = limits.read_bytes_max
        self._work_left = WORK_BYTES_MAX
        self._types = frozenset(types)
        self._fetched = self._fetched_bytes = 0

    @property
    def is_full(self) -> bool:
        """Whether the page ends here."""
        return self._events_left <= 0 or self._bytes_left <= 0 or self._work_left <= 0

    @property
    def events_left(self) -> int:
        """How many events it may still show."""
        return self._events_left

    @property
    def bytes_left(self) -> int:
        """How many bytes it may still show."""
        return self._bytes_left

    def looked_at(self, entry: Entry) -> None:
        """The entry was fetched for this page by the caller."""
        self._work_left -= entry.memory_bytes

    # -- along an axis

    def forward(self, axis: Axis, number: int, last: int) -> int:
        """Collect events from `number` on, up to `last`; where to read on, 0 if nothing is left."""
        at_once = _SLICES_AT_FIRST
        while number <= last and not self.is_full:
            stop = last if self._types else min(last, number + self._events_left - 1)
            slices = axis.slices(number, forward=True, slices_max=min(at_once, stop - number + 1))
            at_once = _SLICES_AT_ONCE
            before = number
            for entry, found in self._fetch([one for one in slices if one[0] <= stop]):
                first, count = found[0], found[1]
                placed = _placed(axis, entry, found)
                if self._is_wanted(placed.part):
                    number += self.add(entry, placed, number - first, count - 1)
                    if number < first + count:
                        return number
                else:
                    number = first + count
            _check_progress(axis, self._partition, before, number)
        return number if number <= last else 0

    def backward(self, axis: Axis, number: int) -> int:
        """Collect events from `number` back, the newest first; where to read on, 0 if nothing is left."""
        at_once = _SLICES_AT_FIRST
        while number >= 1 and not self.is_full:
            stop = 1 if self._types else max(1, number - self._events_left + 1)
            slices = axis.slices(number, forward=False, slices_max=min(at_once, number - stop + 1))
            at_once = _SLICES_AT_ONCE
            before = number
            for entry, found in self._fetch([one for one in slices if one[0] + one[1] > stop]):
                first = found[0]
                placed = _placed(axis, entry, found)
                if self._is_wanted(placed.part):
                    number -= self.add_backward(entry, placed, number - first)
                    if number >= first:
                        return number
                else:
                    number = first - 1
            _check_progress(axis, self._partition, before, number)
        return number

    def _is_wanted(self, part: Part) -> bool:
        return not self._types or not self._types.isdisjoint(part.types)

    def _fetch(
        self, slices: Sequence[StreamSlice | TagSlice]
    ) -> Iterator[tuple[Entry, StreamSlice | TagSlice]]:
        """The slices with their entries, until the page is full. As many at a time as are likely to fit: an
        entry may have 200 bytes or eight megabytes, and what is fetched is not all shown."""
        entries, partition = self._entries, self._partition
        at = 0
        while at < len(slices) and not self.is_full:
            count = _ENTRIES_AT_FIRST
            if self._fetched:
                room = min(self._bytes_left, self._work_left)
                count = room * self._fetched // (self._fetched_bytes or 1)
            some = slices[at : at + max(1, min(_SLICES_AT_ONCE, count))]
            before = entries.fetched_bytes
            fetched = entries.at(partition, [found.index for found in some])
            cost = entries.fetched_bytes - before
            at += len(some)
            self._fetched += len(some)
            self._fetched_bytes += cost
            self._work_left -= cost + _SLICE_WORK * len(some)
            yield from zip(fetched, some, strict=True)

    # -- of one part

    def add(self, entry: Entry, placed: PlacedPart, low: int, high: int) -> int:
        """Add the events `low` to `high` (from 0, inclusive) of a part. How many were added: fewer if the
        page is full. Raises `Corrupt`."""
        part, position, at = placed
        high = min(high, low + self._events_left - 1)
        first = taken = 0
        for head in part.chunks:
            if first > high:
                break
            behind = first + head.count
            if behind > low:
                skip = max(0, low - first)
                take = min(behind, high + 1) - first - skip
                if not self._add(entry, part, position, head, at, first, skip, take):
                    break
                taken += take
            first = behind
            at += head.stored_size
        return taken

    def add_backward(self, entry: Entry, placed: PlacedPart, high: int) -> int:
        """Add the events `high` to 0 of a part, the last chunk first; as `add`."""
        part, position, at = placed
        low = max(0, high - self._events_left + 1)
        chunks: list[tuple[ChunkHead, int, int]] = []
        first = 0
        for head in part.chunks:
            if first > high:
                break
            if first + head.count > low:
                chunks.append((head, at, first))
            first += head.count
            at += head.stored_size
        taken = 0
        for head, at, first in reversed(chunks):
            skip = max(0, low - first)
            take = min(first + head.count, high + 1) - first - skip
            if not self._add(entry, part, position, head, at, first, skip, take):
                break
            taken += take
        return taken

    def _add(
        self,
        entry: Entry,
        part: Part,
        position: int,
        head: ChunkHead,
        at: int,
        first: int,
        skip: int,
        take: int,
    ) -> bool:
        """Add a run of one chunk, whose first event is number `first` of the part; False if it does not
        fit any more."""
        size = max(head.raw_size, head.stored_size)
        if self.runs and size > self._bytes_left:
            self._bytes_left = 0
            return False
        first_number = part.first_tag_number
        self.runs.append(
            Run(
                part.stream,
                part.first_version + first,
                position + first,
                first_number + first if first_number else 0,
                entry.timestamp_us,
                skip,
                take,
                entry.chunk(head, at),
            )
        )
        self._bytes_left -= size
        self._events_left -= take
        return True


def _placed(axis: Axis, entry: Entry, found: StreamSlice | TagSlice) -> PlacedPart:
    """The part of an entry that the index says."""
    parts = entry.placed()
    if found.part < len(parts):
        placed = parts[found.part]
        if axis.first_of(placed.part) == found[0] and placed.part.count == found[1]:
            return placed
    raise Corrupt(
        f"partition {entry.partition}: the index says that part {found.part} of entry {entry.index} holds "
        f"{axis.name!r} from {found[0]}, and it does not",
        partition=entry.partition,
    )


def _check_progress(axis: Axis, partition: int, before: int, after: int) -> None:
    if before == after:
        raise Corrupt(
            f"partition {partition}: the index does not say where number {before} of {axis.name!r} is",
            partition=partition,
        )
