"""`EventStreamRepository`: appending to streams and reading them back, whatever stands behind.

It keeps the cluster's promises with one replica: an append returns when it is durable, all or nothing,
checked against the expected version, and can be retried with the same event ids for ever. A read shows
nothing that a power cut could still take back.

A stream exists from its first event on: there is no empty stream in a storage, so no half-made one
either. What is not there is `NotFound`, in every method and every backend.

One event loop uses a repository; other threads hand their calls to it with
`asyncio.run_coroutine_threadsafe`. `repository` opens one by its address; `log_repository` stands on a
node's storage in memory or RocksDB, `postgres.repository` on a database.
"""

from __future__ import annotations

import heapq
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Sequence
from datetime import datetime
from pathlib import Path
from time import time_ns
from types import TracebackType
from typing import ClassVar, Self

from allsource.config.schema import Limits
from allsource.storage.embedded.questions import (
    PartitionRead,
    StreamRead,
    StreamsRead,
    TagRead,
    checked_partition,
)
from allsource.storage.model.answers import AppendResult, PartitionStats, StreamAppend, StreamInfo
from allsource.storage.model.append import (
    AppendRequest,
    append_request,
    check_append,
    partition_of_append,
)
from allsource.storage.model.chunks import CheckedEvents
from allsource.storage.model.entry import Mark
from allsource.storage.model.errors import NotFound
from allsource.storage.model.events import Event, Events
from allsource.storage.model.expected import Expectation
from allsource.storage.model.log import MarkAt
from allsource.storage.model.partition import EntityId, check_name
from allsource.storage.model.streams import EventStream

_PAGE_OF_EACH = 100
"""Events that `read_all` asks each partition for at a time."""


class EventStreamRepository(ABC):
    """See the module's page. Use it in `async with`."""

    _keeps_chunks: ClassVar[bool] = True
    """Whether chunks are stored as they are packed; if not, compressing them is lost work."""

    def __init__(
        self,
        *,
        limits: Limits | None = None,
        clock_us: Callable[[], int] = lambda: time_ns() // 1000,
    ) -> None:
        """`clock_us`: microseconds since 1970, for the events' times."""
        self._limits = limits or Limits()
        self._clock_us = clock_us

    @abstractmethod
    async def __aenter__(self) -> Self:
        """Open it; raises `StorageFault` and its kinds."""

    @abstractmethod
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it, when what is under way has ended."""

    @property
    @abstractmethod
    def partition_count(self) -> int:
        """How many partitions the streams are dealt to."""

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
        events = await self.read_stream(entity_id, limit=None, as_of=as_of)
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

    async def save_stream(self, stream: EventStream) -> AppendResult | None:
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
        self, entity_id: str, events: Events, expected_version: Expectation = "any"
    ) -> AppendResult:
        """Append one event or several to one stream; see `append`."""
        return await self.append(StreamAppend(entity_id, events, expected_version))

    async def append(
        self, *appends: StreamAppend, expected_tag: int | None = None, marks: Iterable[Mark] = ()
    ) -> AppendResult:
        """Append to one or several streams of one partition, all or nothing, durable when it returns.

        `expected_tag`: the number of the newest event of the streams' `{tag}`, 0 for none. `marks` are
        moved with it. The same events (by their ids) appended again give the first answer again. Raises
        `WrongExpectedVersion`, `WrongExpectedTag`, `MarkRefused`, `EventIdConflict`, `InvalidRequest`,
        `TooLarge`, `Overloaded`, `DiskFull` (nothing happened) or `OutcomeUnknown` (reopen and retry, with
        the same ids).
        """
        return await self._append_checked(
            append_request("appends", appends, expected_tag, marks, compress=self._keeps_chunks)
        )

    async def move_marks(self, partition: int, marks: Iterable[Mark]) -> AppendResult:
        """Move marks of a partition, all or none, durable when it returns; raises `MarkRefused`."""
        partition = checked_partition(partition, self.partition_count)
        return await self._append_checked(append_request("appends", (), None, marks, partition))

    async def _append_checked(self, request: AppendRequest) -> AppendResult:
        partition = partition_of_append(request, self.partition_count)
        return await self._append(partition, request, check_append(request, self._limits))

    @abstractmethod
    async def _append(
        self, partition: int, request: AppendRequest, checked: Sequence[CheckedEvents]
    ) -> AppendResult:
        """Carry out what `model.append.decide` says of this request, which was `checked`."""

    # -- reading

    async def read_stream(
        self,
        entity_id: str,
        *,
        from_version: int | None = None,
        limit: int | None = 1000,
        backward: bool = False,
        as_of: datetime | None = None,
    ) -> list[Event]:
        """Up to `limit` events (None: all) from a version on, ascending or, `backward`, descending.

        Without `from_version` (1 or more) it begins at the stream's natural end. With `as_of`, events
        that came later are left out. Raises `NotFound` if there is no such stream.
        """
        return await self._read_stream(
            StreamRead.of(entity_id, self.partition_count, from_version, limit, backward, as_of)
        )

    @abstractmethod
    async def _read_stream(self, wanted: StreamRead) -> list[Event]: ...

    async def read_partition(
        self,
        partition: int,
        *,
        from_position: int | None = None,
        limit: int | None = 1000,
        backward: bool = False,
        types: Collection[str] | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> list[Event]:
        """Up to `limit` events (None: all) of a partition by position, ascending or descending.

        Without `from_position` it begins at the partition's natural end. Only events of these `types`,
        not before `since` and not after `until`, where given. Read on from the last event's position plus
        1, or backward minus 1; position 1 is the first.
        """
        return await self._read_partition(
            PartitionRead.of(
                partition, self.partition_count, from_position, limit, backward, types, since, until
            )
        )

    @abstractmethod
    async def _read_partition(self, wanted: PartitionRead) -> list[Event]: ...

    async def read_tag(
        self,
        tag: str,
        *,
        from_number: int | None = None,
        limit: int | None = 1000,
        backward: bool = False,
        types: Collection[str] | None = None,
    ) -> list[Event]:
        """Up to `limit` events (None: all) of all streams with this `{tag}`, by `Event.tag_number`.

        Without `from_number` (1 or more) it begins at the tag's natural end. Only events of these `types`,
        where given. A tag that nothing was appended under has no events.
        """
        return await self._read_tag(
            TagRead.of(tag, self.partition_count, from_number, limit, backward, types)
        )

    @abstractmethod
    async def _read_tag(self, wanted: TagRead) -> list[Event]: ...

    async def get_mark(self, partition: int, name: str) -> Mark | None:
        """The mark of a partition, None if it was never set."""
        check_name(name, "a mark")
        found = await self._mark(checked_partition(partition, self.partition_count), name)
        return None if found is None else Mark(name, found.position, found.generation)

    @abstractmethod
    async def _mark(self, partition: int, name: str) -> MarkAt | None: ...

    async def read_all(
        self,
        *,
        types: Collection[str] | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> AsyncIterator[Event]:
        """The events of all partitions by time, and within a partition by position: `async for`.

        They are fetched while you iterate; what is appended meanwhile may come along or not.
        """
        partitions = [
            self._following(partition, types, since, until) for partition in range(self.partition_count)
        ]
        waiting: list[tuple[int, int, Event]] = []
        for partition, events in enumerate(partitions):
            if (event := await anext(events, None)) is not None:
                waiting.append((event.timestamp_us, partition, event))
        heapq.heapify(waiting)
        while waiting:
            _, partition, event = waiting[0]
            yield event
            following = await anext(partitions[partition], None)
            if following is None:
                heapq.heappop(waiting)
            else:
                heapq.heapreplace(waiting, (following.timestamp_us, partition, following))

    async def _following(
        self, partition: int, types: Collection[str] | None, since: datetime | None, until: datetime | None
    ) -> AsyncIterator[Event]:
        position = 1
        while page := await self.read_partition(
            partition, from_position=position, limit=_PAGE_OF_EACH, types=types, since=since, until=until
        ):
            for event in page:
                yield event
            position = page[-1].position + 1

    # -- copies

    @abstractmethod
    async def checkpoint(self, path: Path | str) -> None:
        """Make `path`, which must not exist, a consistent copy of everything appended before this call.

        Appends and reads go on meanwhile. The copy is complete and durable when this returns, and is a
        directory that a repository opens. On the same file system it takes next to no room at first. Raises
        `CheckpointExists`, `CheckpointFailed`, `DiskFull`, `Overloaded` (one is being made already) or
        `InvalidRequest`; nothing is left of it then. A task that is cancelled does not stop it: the copy is
        made all the same, and leaving the `async with` waits for it.

        RocksDB's does. Others raise `CheckpointsUnsupported`, which says what to do instead.
        """

    # -- facts

    async def get_stream_info(self, entity_id: str) -> StreamInfo:
        """A stream's facts; raises `NotFound`."""
        return await self._stream_info(EntityId(entity_id))

    @abstractmethod
    async def _stream_info(self, stream: EntityId) -> StreamInfo: ...

    async def get_watermark(self, entity_id: str) -> int:
        """The version up to which the stream is durable; raises `NotFound`."""
        return (await self.get_stream_info(entity_id)).current_version

    async def verify_gapless(self, entity_id: str) -> bool:
        """Whether the stream's events are exactly the versions 1 to its newest; raises `NotFound`."""
        version = (await self.get_stream_info(entity_id)).current_version
        events = await self.read_stream(entity_id, limit=version)
        return [event.version for event in events] == list(range(1, version + 1))

    async def get_streams_by_partition(
        self, partition: int, *, prefix: str = "", after: str = "", limit: int | None = 1000
    ) -> list[StreamInfo]:
        """Up to `limit` streams (None: all) of a partition behind `after`, ordered by their UTF-8 bytes."""
        partition = checked_partition(partition, self.partition_count)
        return await self._streams(StreamsRead.of(partition, prefix, after, limit))

    async def list_streams(
        self, *, prefix: str = "", after: str = "", limit: int | None = 1000
    ) -> list[StreamInfo]:
        """Up to `limit` streams (None: all) of all partitions in one order, those behind `after`."""
        return await self._streams(StreamsRead.of(None, prefix, after, limit))

    @abstractmethod
    async def _streams(self, wanted: StreamsRead) -> list[StreamInfo]: ...

    async def count_streams(self) -> int:
        """How many streams there are."""
        stats = [await self.partition_stats(partition) for partition in range(self.partition_count)]
        return sum(one.stream_count for one in stats)

    async def partition_stats(self, partition: int) -> PartitionStats:
        """Figures of a partition and its streams."""
        return await self._partition_stats(checked_partition(partition, self.partition_count))

    @abstractmethod
    async def _partition_stats(self, partition: int) -> PartitionStats: ...
