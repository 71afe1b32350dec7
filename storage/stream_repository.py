"""`EventStreamRepository`: appending to streams and reading them back, over any `Storage`.

One class over the interface that nodes use too, so that every backend behaves alike and nothing is
written twice (`repository` has the backends' names). It keeps the cluster's promises with one replica:
an append returns when it is durable, all or nothing, checked against the expected version, and can be
retried with the same event ids for ever. A read shows nothing that a power cut could still take back:
it waits for the sync of what it saw.

A stream exists from its first event on: there is no empty stream in a storage, so no half-made one
either. What is not there is `NotFound`, in every method and every backend.

One event loop uses a repository; other threads hand their calls to it with
`asyncio.run_coroutine_threadsafe`.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from time import time_ns
from types import TracebackType
from typing import Self

from allsource.config.schema import Limits
from allsource.storage.answers import (
    Appended,
    AppendedTo,
    PartitionStats,
    StreamAppend,
    StreamInfo,
    as_datetime,
    as_microseconds,
)
from allsource.storage.entry import EVENTS, Entry, Part, make_entry
from allsource.storage.errors import (
    DiskFull,
    EventIdConflict,
    InvalidRequest,
    NotFound,
    Overloaded,
    StorageFault,
    TooLarge,
    WrongExpectedVersion,
)
from allsource.storage.events import Event, NewEvent, check_blob, encode_blob, same_content
from allsource.storage.expected import is_met, parse_expected, show_expected
from allsource.storage.group_sync import GroupSync
from allsource.storage.interface import HardState, PartitionState, PartitionWrite, Storage, StreamHead
from allsource.storage.partition import EntityId, partition_of
from allsource.storage.streams import EventStream

_TERM = 1  # there is one writer, for ever
_SCAN_BYTES = 1 << 20
_SCAN_ENTRIES = 1000
_SLICES = 256
_PAGE = 1000


class EventStreamRepository:
    """See the module's page. Use it in `async with`."""

    def __init__(
        self,
        opener: Callable[[], Storage],
        *,
        limits: Limits | None = None,
        clock_us: Callable[[], int] = lambda: time_ns() // 1000,
    ) -> None:
        """`opener` is called (in a thread: it may block) when the `async with` begins."""
        self._opener = opener
        self._limits = limits or Limits()
        self._clock_us = clock_us
        self._opened: Storage | None = None
        self._sync: GroupSync
        self._ends: dict[int, PartitionState] = {}
        """Where the partitions' logs end, kept up to date here."""
        self._durable: dict[int, int] = {}
        """Up to which index each of them is known to be synced."""

    async def __aenter__(self) -> Self:
        self._opened = await asyncio.to_thread(self._opener)
        self._sync = GroupSync(self._opened)
        self._ends, self._durable = {}, {}
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        storage, self._opened = self._opened, None
        if storage is not None:
            await self._sync.close()
            storage.close()

    @property
    def partition_count(self) -> int:
        """How many partitions the streams are dealt to."""
        return self._storage.partition_count

    # -- aggregates

    async def get_or_create_stream(self, entity_id: str) -> EventStream:
        """The stream, or one without events. Nothing is stored before its first event is saved."""
        try:
            return await self.load_stream(entity_id)
        except NotFound:
            return EventStream(entity_id, partition_count=self.partition_count)

    async def load_stream(self, entity_id: str, *, as_of: datetime | None = None) -> EventStream:
        """The whole stream, or what it was at a time; raises `NotFound`.

        A stream of the past can be looked at but not saved: by then it is stale.
        """
        events = await self.read_stream(entity_id, limit=0, as_of=as_of)
        if not events:
            raise NotFound(f"stream {entity_id!r} did not exist at that time", stream=entity_id)
        version = len(events)
        return EventStream.reconstruct(
            entity_id,
            events,
            current_version=version,
            watermark=version,
            partition_count=self.partition_count,
        )

    async def save_stream(self, stream: EventStream) -> Appended | None:
        """Store the stream's pending events; None if it has none.

        Raises `WrongExpectedVersion` if the stream has moved on since this copy was loaded: load it
        and decide again. After `OutcomeUnknown` the same copy can be saved again safely.
        """
        pending = stream.pending
        if not pending:
            return None
        appended = await self.append_to_stream(stream.entity_id, pending, stream.watermark)
        first = appended.streams[0].first_version
        stream.committed(await self.read_stream(stream.entity_id, from_version=first, limit=len(pending)))
        return appended

    # -- appending

    async def append_to_stream(
        self, entity_id: str, events: Sequence[NewEvent], expected_version: str | int = "any"
    ) -> Appended:
        """Append events to one stream; see `append`."""
        return await self.append(StreamAppend(entity_id, events, expected_version))

    async def append(self, *appends: StreamAppend) -> Appended:
        """Append to one or several streams of one partition, all or nothing, durable when it returns.

        The same events (by their ids) appended again give the first answer again. Raises
        `WrongExpectedVersion`, `EventIdConflict`, `InvalidRequest`, `TooLarge`, `Overloaded`,
        `DiskFull` (nothing happened) or `OutcomeUnknown` (a sync failed; reopen and retry).
        """
        partition = self._partition(appends)
        parts = [self._part(append) for append in appends]
        self._check_limits(parts)
        stored = self._stored_before(partition, parts)
        if stored is not None:
            await self._wait_until_durable(partition, stored.index)
            return _answer(stored, duplicate=True)
        versions = [self._head(partition, append.stream) for append in appends]
        for append, head in zip(appends, versions, strict=True):
            expected = parse_expected(append.expected_version)
            if not is_met(expected, head.version):
                # The caller may act on this: let it rest on nothing that could still be lost.
                await self._wait_until_durable(partition, head.index)
                raise WrongExpectedVersion(append.stream, show_expected(expected), head.version)
        self._check_pressure()
        entry = self._write(
            partition,
            tuple(
                part._replace(first_version=head.version + 1)
                for part, head in zip(parts, versions, strict=True)
            ),
        )
        await self._wait_until_durable(partition, entry.index)
        return _answer(entry, duplicate=False)

    def _partition(self, appends: Sequence[StreamAppend]) -> int:
        if not appends:
            raise InvalidRequest("an append names at least one stream")
        streams = [EntityId(append.stream) for append in appends]
        if len(set(streams)) != len(streams):
            raise InvalidRequest("an append names each stream once")
        partitions = {partition_of(stream, self.partition_count) for stream in streams}
        if len(partitions) > 1:
            raise InvalidRequest(
                f"an append is atomic within one partition, these streams are in {sorted(partitions)};"
                " give them a common {tag}"
            )
        return partitions.pop()

    def _part(self, append: StreamAppend) -> Part:
        blob = encode_blob(append.events)
        limits = self._limits
        count, first_id = check_blob(
            blob, events_max=limits.append_events_max, event_bytes_max=limits.event_bytes_max
        )
        return Part(append.stream, 0, count, first_id, blob)

    def _check_limits(self, parts: Sequence[Part]) -> None:
        size, limit = sum(len(part.blob) for part in parts), self._limits.append_bytes_max
        if size > limit:
            raise TooLarge(f"an append has at most {limit} bytes", limit=limit, actual=size)
        if len({part.first_id for part in parts}) != len(parts):
            raise InvalidRequest("two events of one append have the same id")

    def _stored_before(self, partition: int, parts: Sequence[Part]) -> Entry | None:
        """The entry that holds these events already; `EventIdConflict` if it holds others by their ids."""
        indexes = {self._storage.index_of_append(partition, part.first_id) for part in parts} - {None}
        if not indexes:
            return None
        index = min(_existing(index) for index in indexes)
        entry = self._storage.entries_at(partition, [index])[0]
        stored = {part.stream: part.blob for part in entry.parts}
        wanted = {part.stream: part.blob for part in parts}
        if stored.keys() != wanted.keys() or not all(
            same_content(stored[stream], wanted[stream]) for stream in wanted
        ):
            raise EventIdConflict(
                f"these event ids are stored at position {entry.first_position} of partition {partition}"
                " with other content; a new append needs new event ids",
                partition=partition,
                first_position=entry.first_position,
            )
        return entry

    def _check_pressure(self) -> None:
        if reason := self._storage.pressure():
            kind = DiskFull if "nearly full" in reason else Overloaded
            raise kind(f"{reason}; nothing was written, try again later")

    def _write(self, partition: int, parts: tuple[Part, ...]) -> Entry:
        end = self._end(partition)
        entry = make_entry(
            partition=partition,
            index=end.last_index + 1,
            term=_TERM,
            kind=EVENTS,
            first_position=end.next_position,
            timestamp_us=max(self._clock_us(), end.last_timestamp_us),
            parts=parts,
        )
        self._storage.write([PartitionWrite(partition, HardState(_TERM, "", entry.index), None, [entry])])
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

    async def read_stream(
        self,
        entity_id: str,
        *,
        from_version: int | None = None,
        limit: int = 1000,
        backward: bool = False,
        as_of: datetime | None = None,
    ) -> list[Event]:
        """Up to `limit` events (0: all) from a version on, ascending or, `backward`, descending.

        Without `from_version` it begins at the stream's natural end. With `as_of`, events that came
        later are left out. Raises `NotFound` if there is no such stream.
        """
        partition = self._partition_of(entity_id)
        head = self._existing_head(partition, entity_id)
        version = from_version if from_version is not None else (head.version if backward else 1)
        until_us = None if as_of is None else as_microseconds(as_of)
        wanted = limit or head.version
        found: list[Event] = []
        while len(found) < wanted and (version >= 1 if backward else version <= head.version):
            slices = self._storage.slices(
                partition, entity_id, version, forward=not backward, slices_max=_SLICES
            )
            if not slices:
                break
            entries = self._storage.entries_at(partition, [piece.index for piece in slices])
            await self._wait_until_durable(partition, max(entry.index for entry in entries))
            for entry in entries:
                found += _of_stream(entry, entity_id, version, until_us, backward=backward)
            if not backward and until_us is not None and entries[-1].timestamp_us > until_us:
                break
            last = slices[-1]
            version = last.first_version - 1 if backward else last.first_version + last.count
        del found[wanted:]
        return found

    async def read_partition(
        self,
        partition: int,
        *,
        from_position: int = 1,
        limit: int = 1000,
        types: Collection[str] | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> list[Event]:
        """Up to `limit` events (0: all) of a partition by position, ascending.

        Only events of these `types`, not before `since` and not after `until`, where given. Read on
        from the last event's position + 1.
        """
        end = self._end(self._checked_partition(partition))
        since_us = None if since is None else as_microseconds(since)
        until_us = None if until is None else as_microseconds(until)
        index = self._storage.index_of_position(partition, max(from_position, 1))
        if index is None:
            return []
        if since_us is not None:
            index = max(index, self._first_index_since(partition, since_us))
        last, found = end.last_index, list[Event]()
        while index <= last:
            entries = self._storage.entries(
                partition, index, min(last, index + _SCAN_ENTRIES - 1), _SCAN_BYTES
            )
            await self._wait_until_durable(partition, entries[-1].index)
            for entry in entries:
                if until_us is not None and entry.timestamp_us > until_us:
                    return found
                found += [
                    event
                    for event in entry.events()
                    if event.position >= from_position and (types is None or event.type in types)
                ]
                if limit and len(found) >= limit:
                    return found[:limit]
            index = entries[-1].index + 1
            await asyncio.sleep(0)  # a long scan must not hold up the loop
        return found

    def _first_index_since(self, partition: int, since_us: int) -> int:
        """The first index whose entry is not older: times never decrease in a partition."""
        low, high = 1, self._end(partition).last_index + 1
        while low < high:
            middle = (low + high) // 2
            if self._storage.entries_at(partition, [middle])[0].timestamp_us < since_us:
                low = middle + 1
            else:
                high = middle
        return low

    # -- facts

    async def get_stream_info(self, entity_id: str) -> StreamInfo:
        """A stream's facts; raises `NotFound`."""
        partition = self._partition_of(entity_id)
        head = self._existing_head(partition, entity_id)
        await self._wait_until_durable(partition, head.index)
        return _info(partition, entity_id, head)

    async def get_watermark(self, entity_id: str) -> int:
        """The version up to which the stream is durable; raises `NotFound`."""
        return (await self.get_stream_info(entity_id)).current_version

    async def verify_gapless(self, entity_id: str) -> bool:
        """Whether the stream's events are exactly the versions 1 to its newest; raises `NotFound`."""
        head = self._existing_head(self._partition_of(entity_id), entity_id)
        events = await self.read_stream(entity_id, limit=0)
        return [event.version for event in events[: head.version]] == list(range(1, head.version + 1))

    async def get_streams_by_partition(
        self, partition: int, *, prefix: str = "", after: str = "", limit: int = 1000
    ) -> list[StreamInfo]:
        """Streams of a partition, ordered by their UTF-8 bytes, those behind `after`."""
        self._checked_partition(partition)
        found = self._storage.streams(partition, prefix=prefix, after=after, limit=limit)
        if found:
            await self._wait_until_durable(partition, max(head.index for _, head in found))
        return [_info(partition, stream, head) for stream, head in found]

    async def list_streams(
        self, *, prefix: str = "", after: str = "", limit: int = 1000
    ) -> list[StreamInfo]:
        """Streams of all partitions in one order, a page of `limit` behind `after`."""
        pages = [
            await self.get_streams_by_partition(partition, prefix=prefix, after=after, limit=limit)
            for partition in range(self.partition_count)
        ]
        return list(heapq.merge(*pages, key=lambda info: info.stream.encode()))[:limit]

    async def count_streams(self) -> int:
        """How many streams there are (by walking their heads)."""
        stats = [await self.partition_stats(partition) for partition in range(self.partition_count)]
        return sum(one.stream_count for one in stats)

    async def partition_stats(self, partition: int) -> PartitionStats:
        """Figures of a partition (by walking its streams' heads)."""
        versions: list[int] = []
        updates: list[datetime] = []
        after = ""
        while page := await self.get_streams_by_partition(partition, after=after, limit=_PAGE):
            versions += [info.current_version for info in page]
            updates += (min(info.updated_at for info in page), max(info.updated_at for info in page))
            after = page[-1].stream
            await asyncio.sleep(0)
        return PartitionStats(
            partition=partition,
            stream_count=len(versions),
            total_events=sum(versions),
            avg_events_per_stream=sum(versions) / len(versions) if versions else 0.0,
            max_events_per_stream=max(versions, default=0),
            oldest_update=min(updates, default=None),
            newest_update=max(updates, default=None),
        )

    # -- small things

    @property
    def _storage(self) -> Storage:
        if self._opened is None:
            raise StorageFault("this repository is not open; use it in `async with`")
        if self._sync.failure is not None:
            raise StorageFault(f"a sync failed ({self._sync.failure}); close this repository and reopen it")
        return self._opened

    def _partition_of(self, entity_id: str) -> int:
        return partition_of(EntityId(entity_id), self.partition_count)

    def _checked_partition(self, partition: int) -> int:
        if not 0 <= partition < self.partition_count:
            raise InvalidRequest(f"partition {partition} is out of range: 0 to {self.partition_count - 1}")
        return partition

    def _head(self, partition: int, stream: str) -> StreamHead:
        self._end(partition)
        return self._storage.head(partition, stream) or StreamHead(0, 0, 0, 0)

    def _existing_head(self, partition: int, stream: str) -> StreamHead:
        head = self._head(partition, stream)
        if head.version == 0:
            raise NotFound(f"there is no stream {stream!r}", stream=stream)
        return head


def _of_stream(
    entry: Entry, stream: str, version: int, until_us: int | None, *, backward: bool
) -> list[Event]:
    """The entry's events of a stream, from `version` on in reading order, if it is not too young."""
    if until_us is not None and entry.timestamp_us > until_us:
        return []
    events = entry.events(stream)
    ahead = version - events[0].version
    return events[ahead::-1] if backward else events[max(ahead, 0) :]


def _answer(entry: Entry, *, duplicate: bool) -> Appended:
    return Appended(
        entry.partition,
        entry.first_position,
        entry.next_position - 1,
        tuple(AppendedTo(part.stream, part.first_version, part.last_version) for part in entry.parts),
        duplicate,
    )


def _info(partition: int, stream: str, head: StreamHead) -> StreamInfo:
    return StreamInfo(
        stream, partition, head.version, as_datetime(head.created_us), as_datetime(head.updated_us)
    )


def _existing(index: int | None) -> int:
    assert index is not None, "an append that was just stored has an index"
    return index
