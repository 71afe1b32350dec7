"""A repository over a `Storage`, the interface that nodes use too: in memory, or in RocksDB.

A partition's log has one writer, this one, so nothing is ever truncated and everything written is
committed. A read returns only when everything that it found is durable.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from time import time_ns
from types import TracebackType
from typing import NamedTuple, Self, TypeVar

from allsource.config.schema import Limits
from allsource.storage.embedded.group_sync import GroupSync
from allsource.storage.embedded.questions import (
    NO_LIMIT,
    PartitionRead,
    StreamRead,
    StreamsRead,
    TagRead,
)
from allsource.storage.embedded.stream_repository import EventStreamRepository
from allsource.storage.interface import Storage
from allsource.storage.model.answers import AppendResult, PartitionStats, StreamInfo
from allsource.storage.model.append import AppendRequest, Known, Unmet, answer_again, decide, result_of
from allsource.storage.model.chunks import CheckedEvents
from allsource.storage.model.entry import EVENTS, Entry, NewAppend, Place, make_entry
from allsource.storage.model.errors import EventIdConflict, NotFound, StorageFault
from allsource.storage.model.events import Event
from allsource.storage.model.log import (
    HardState,
    MarkAt,
    PartitionState,
    PartitionWrite,
    StreamHead,
    StreamSlice,
    TagSlice,
)
from allsource.storage.model.partition import EntityId, partition_of

_TERM = 1  # one writer needs no other term; a log that was a node's goes on in that node's last one
_SCAN_BYTES = 1 << 20
_SCAN_ENTRIES = 1000
_BACKWARD_ENTRIES = 64
_SLICES = 256
_PAGE = 1000

_Slice = TypeVar("_Slice", StreamSlice, TagSlice)


class LogRepository(EventStreamRepository):
    """See the module's page."""

    def __init__(
        self,
        opener: Callable[[], Storage],
        *,
        limits: Limits | None = None,
        clock_us: Callable[[], int] = lambda: time_ns() // 1000,
    ) -> None:
        """`opener` is called (in a thread: it may block) when the `async with` begins."""
        super().__init__(limits=limits, clock_us=clock_us)
        self._opener = opener
        self._opened: Storage | None = None
        self._sync: GroupSync
        self._ends: dict[int, PartitionState] = {}
        """Where the partitions' logs end, kept up to date here."""
        self._durable: dict[int, int] = {}
        """Up to which index each of them is known to be synced."""

    async def __aenter__(self) -> Self:
        opening = asyncio.ensure_future(asyncio.to_thread(self._opener))
        try:
            self._opened = await asyncio.shield(opening)
        except asyncio.CancelledError:
            opening.add_done_callback(_close_again)  # the thread cannot be stopped
            raise
        self._sync = GroupSync(self._opened)
        self._ends, self._durable = {}, {}
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        storage, self._opened = self._opened, None
        if storage is not None:
            await self._sync.close()
            # In a thread, because closing waits for a checkpoint that is being made, and for a last sync.
            await asyncio.to_thread(storage.close)

    @property
    def partition_count(self) -> int:
        return self._storage.partition_count

    # -- appending

    async def _append(
        self, partition: int, request: AppendRequest, checked: Sequence[CheckedEvents]
    ) -> AppendResult:
        storage = self._storage
        self._end(partition)
        # Callers act on each of these answers, so what an answer rests on is made durable first.
        match decide(request, checked, _Log(storage, partition)):
            case Known((index, ordinal)):
                await self._wait_until_durable(partition, index)
                entry = storage.entries_at(partition, [index])[0]
                answer = answer_again(request, entry.stored(ordinal), entry.content(ordinal))
                if isinstance(answer, EventIdConflict):
                    raise answer
                return answer
            case Unmet(error, index):
                await self._wait_until_durable(partition, index)
                raise error
            case decided:
                if refusal := storage.pressure():
                    raise refusal.as_error(partition)
                entry = self._write(partition, decided)
        await self._wait_until_durable(partition, entry.index)
        return result_of(entry.stored(0), duplicate=False)

    def _write(self, partition: int, append: NewAppend) -> Entry:
        end = self._end(partition)
        term = max(end.last_term, _TERM)
        entry = make_entry(
            partition=partition,
            index=end.last_index + 1,
            term=term,
            kind=EVENTS,
            first_position=end.next_position,
            timestamp_us=max(self._clock_us(), end.last_timestamp_us),
            appends=[append],
        )
        self._storage.write([PartitionWrite(partition, HardState(term, "", entry.index), None, [entry])])
        end.last_index, end.next_position = entry.index, entry.next_position
        end.last_timestamp_us = entry.timestamp_us
        return entry

    async def _wait_until_durable(self, partition: int, index: int) -> None:
        if index <= self._durable.get(partition, 0):
            return
        covered = self._end(partition).last_index
        await self._sync.durable()
        self._durable[partition] = max(self._durable.get(partition, 0), covered)

    def _end(self, partition: int) -> PartitionState:
        """The end of a partition's log. All that an opened storage holds at first is durable."""
        end = self._ends.get(partition)
        if end is None:
            end = self._ends[partition] = self._storage.load(partition)
            self._durable[partition] = end.last_index
        return end

    # -- reading

    async def _read_stream(self, wanted: StreamRead) -> list[Event]:
        stream, partition, start, most, backward, until_us = wanted
        head = self._existing_head(partition, stream)
        version = start if start is not None else (head.version if backward else 1)
        found: list[Event] = []
        while len(found) < most and (version >= 1 if backward else version <= head.version):
            # Each slice has at least one event, and only `until_us` can leave it out.
            at_once = _SLICES if until_us is not None else min(_SLICES, most - len(found))
            slices = self._storage.slices(
                partition, stream, version, forward=not backward, slices_max=at_once
            )
            if not slices:
                break
            await self._wait_until_durable(partition, max(piece.index for piece in slices))
            for piece, entry in self._entries_of(partition, slices):
                if until_us is None or piece.timestamp_us <= until_us:
                    wanted_here = _Wanted(version, most - len(found), backward)
                    found += _events_of(entry, piece.part, wanted_here, piece.first_version)
            last = slices[-1]
            if not backward and until_us is not None and last.timestamp_us > until_us:
                break
            version = last.first_version - 1 if backward else last.first_version + last.count
        del found[most:]
        return found

    def _entries_of(self, partition: int, slices: Sequence[_Slice]) -> Iterator[tuple[_Slice, Entry]]:
        """The slices with the entries that hold them, each entry fetched once."""
        indexes = list(dict.fromkeys(piece.index for piece in slices))
        entries = dict(zip(indexes, self._storage.entries_at(partition, indexes), strict=True))
        return ((piece, entries[piece.index]) for piece in slices)

    async def _read_tag(self, wanted: TagRead) -> list[Event]:
        tag, partition, start, most, backward, types = wanted
        self._end(partition)
        head = self._storage.tag_head(partition, tag)
        last = head.number if head is not None else 0
        number = start if start is not None else (last if backward else 1)
        found: list[Event] = []
        while len(found) < most and 1 <= number <= (last if not backward else NO_LIMIT):
            slices = self._storage.tag_slices(
                partition, tag, number, forward=not backward, slices_max=_SLICES
            )
            if not slices:
                break
            await self._wait_until_durable(partition, max(piece.index for piece in slices))
            for piece, entry in self._entries_of(partition, slices):
                if types is not None and set(entry.parts[piece.part].types).isdisjoint(types):
                    continue
                wanted_here = _Wanted(number, NO_LIMIT, backward)
                events = _events_of(entry, piece.part, wanted_here, piece.first_number)
                found += [event for event in events if types is None or event.type in types]
                if len(found) >= most:
                    break
            last_piece = slices[-1]
            number = last_piece.first_number - 1 if backward else last_piece.first_number + last_piece.count
            await asyncio.sleep(0)  # a long scan must not hold up the loop
        return found[:most]

    async def _mark(self, partition: int, name: str) -> MarkAt | None:
        self._end(partition)
        found = self._storage.mark(partition, name)
        if found is not None:
            await self._wait_until_durable(partition, found.index)
        return found

    async def _read_partition(self, wanted: PartitionRead) -> list[Event]:
        partition, start, most, backward, types, since_us, until_us = wanted
        newest = self._end(partition).next_position - 1
        low, high = (1, newest) if start is None else _span(start, newest, backward)
        if low > high:
            return []
        first, last = self._index_of(partition, low), self._index_of(partition, high)
        if since_us is not None:
            first = max(first, self._first_index_at(partition, since_us))
        if until_us is not None:
            last = min(last, self._first_index_at(partition, until_us + 1) - 1)
        found: list[Event] = []
        at_once = most if types is None else _SCAN_ENTRIES
        async for entry in self._walk(partition, first, last, at_once, backward=backward):
            events = [
                event
                for event in entry.events()
                if low <= event.position <= high and (types is None or event.type in types)
            ]
            found += reversed(events) if backward else events
            if len(found) >= most:
                break
        return found[:most]

    async def _walk(
        self, partition: int, first: int, last: int, most: int, *, backward: bool
    ) -> AsyncIterator[Entry]:
        """The entries `first` to `last`, or `backward` from `last` to `first`, each durable. At most `most`
        are read at a time."""
        most = min(most, _BACKWARD_ENTRIES if backward else _SCAN_ENTRIES)
        while first <= last:
            if backward:
                indexes = range(last, max(first, last - most + 1) - 1, -1)
                entries = self._storage.entries_at(partition, indexes)
                last = entries[-1].index - 1
            else:
                entries = self._storage.entries(partition, first, min(last, first + most - 1), _SCAN_BYTES)
                first = entries[-1].index + 1
            await self._wait_until_durable(partition, max(entries[0].index, entries[-1].index))
            for entry in entries:
                yield entry
            await asyncio.sleep(0)  # a long scan must not hold up the loop

    def _index_of(self, partition: int, position: int) -> int:
        index = self._storage.index_of_position(partition, position)
        assert index is not None, "every position up to the end of the log has an index"
        return index

    def _first_index_at(self, partition: int, time_us: int) -> int:
        """The first index whose entry is of this time or later. (Times never decrease in a partition.)"""
        low, high = 1, self._end(partition).last_index + 1
        while low < high:
            middle = (low + high) // 2
            if self._storage.entries_at(partition, [middle])[0].timestamp_us < time_us:
                low = middle + 1
            else:
                high = middle
        return low

    # -- copies

    async def checkpoint(self, path: Path | str) -> None:
        await asyncio.to_thread(self._storage.checkpoint, Path(path))

    # -- facts

    async def _stream_info(self, stream: EntityId) -> StreamInfo:
        partition = partition_of(stream, self.partition_count)
        head = self._existing_head(partition, stream)
        await self._wait_until_durable(partition, head.index)
        return _info(partition, stream, head)

    async def _streams(self, wanted: StreamsRead) -> list[StreamInfo]:
        if wanted.partition is not None:
            return await self._streams_of(wanted.partition, wanted)
        pages = [await self._streams_of(partition, wanted) for partition in range(self.partition_count)]
        return list(heapq.merge(*pages, key=lambda info: info.stream.encode()))[: wanted.most]

    async def _streams_of(self, partition: int, wanted: StreamsRead) -> list[StreamInfo]:
        self._end(partition)
        found = self._storage.streams(
            partition, prefix=wanted.prefix, after=wanted.after, limit=wanted.most
        )
        if found:
            await self._wait_until_durable(partition, max(head.index for _, head in found))
        return [_info(partition, stream, head) for stream, head in found]

    async def _partition_stats(self, partition: int) -> PartitionStats:
        """By walking the heads of the partition's streams."""
        versions: list[int] = []
        updates: list[int] = []
        wanted = StreamsRead(partition, "", "", _PAGE)
        while page := await self._streams(wanted):
            versions += [info.current_version for info in page]
            updates += (min(info.updated_us for info in page), max(info.updated_us for info in page))
            wanted = wanted._replace(after=page[-1].stream)
            await asyncio.sleep(0)
        return PartitionStats(
            partition=partition,
            stream_count=len(versions),
            total_events=sum(versions),
            avg_events_per_stream=sum(versions) / len(versions) if versions else 0.0,
            max_events_per_stream=max(versions, default=0),
            oldest_update_us=min(updates, default=None),
            newest_update_us=max(updates, default=None),
        )

    # -- small things

    @property
    def _storage(self) -> Storage:
        if self._opened is None:
            raise StorageFault("this repository is not open; use it in `async with`")
        if self._sync.failure is not None:
            raise StorageFault(f"a sync failed ({self._sync.failure}); close this repository and reopen it")
        return self._opened

    def _existing_head(self, partition: int, stream: str) -> StreamHead:
        self._end(partition)
        head = self._storage.head(partition, stream)
        if head is None:
            raise NotFound(f"there is no stream {stream!r}", stream=stream)
        return head


class _Log:
    """A partition's log for `model.append.decide`: everything that is written, durable or not."""

    def __init__(self, storage: Storage, partition: int) -> None:
        self._storage = storage
        self._partition = partition

    def place_of_append(self, first_event_id: bytes) -> Place | None:
        return self._storage.place_of_append(self._partition, first_event_id)

    def tag(self, tag: str) -> tuple[int, int]:
        return self._storage.tag_head(self._partition, tag) or (0, 0)

    def mark(self, name: str) -> MarkAt | None:
        return self._storage.mark(self._partition, name)

    def head(self, stream: str) -> tuple[int, int]:
        head = self._storage.head(self._partition, stream)
        return (head.version, head.index) if head is not None else (0, 0)


def _close_again(opening: asyncio.Future[Storage]) -> None:
    """Close what was opened for somebody who no longer waits for it."""
    if not opening.cancelled() and opening.exception() is None:
        opening.result().close()


class _Wanted(NamedTuple):
    """Which events of a slice a reader wants: up to `most` from version (or tag number) `start` on."""

    start: int
    most: int
    backward: bool


def _events_of(entry: Entry, part_number: int, wanted: _Wanted, first: int) -> list[Event]:
    """The wanted events of one part of an entry, in reading order. `first`: the version, or the tag number,
    of the part's first event. Only the chunks that hold a wanted event are unpacked."""
    placed = entry.placed()[part_number]
    start, most, backward = wanted
    ahead = start - first
    if backward:
        high = min(ahead, placed.part.count - 1)
        found = entry.some_events(placed, max(0, high - most + 1), high)
        found.reverse()
        return found
    low = max(0, ahead)
    return entry.some_events(placed, low, min(placed.part.count, low + most) - 1)


def _span(from_position: int, newest: int, backward: bool) -> tuple[int, int]:
    """The lowest and the highest position that are asked for."""
    return (1, min(from_position, newest)) if backward else (max(from_position, 1), newest)


def _info(partition: int, stream: str, head: StreamHead) -> StreamInfo:
    return StreamInfo(stream, partition, head.version, head.created_us, head.updated_us)
