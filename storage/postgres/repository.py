"""`PostgresEventStreamRepository`: streams in a database that other processes may use at the same time.

The same promises as the other repositories, kept by a database instead of a log of our own. An append is
one transaction: it locks its partition's row, so that positions are given without gaps and become visible
in order; it looks at what is there *after* it got the lock; it decides as the others do; and it writes
with one statement that only moves a stream from the version that it saw (`tables`).

What becomes of an append when something breaks::

    the server or the connection is lost before COMMIT was sent   Unavailable: nothing happened
    ... while COMMIT was under way                                OutcomeUnknown: the same event ids again
                                                                  tell, and store nothing twice
    deadlock, serialization failure                               rolled back and retried, TRIES times;
                                                                  then Overloaded: nothing happened
    no free connection within `acquire_timeout_s`                 Overloaded: nothing happened
    a statement or a lock takes longer than `statement_timeout_s` Overloaded: rolled back
    the server's disk is full                                     DiskFull: rolled back; reads go on
    the task is cancelled                                         as if the connection was lost

A read that finds its connection lost is asked once more, on another one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from time import time_ns
from types import TracebackType
from typing import Any, Self

from allsource.config.schema import Limits
from allsource.storage.embedded.questions import PartitionRead, StreamRead, StreamsRead, TagRead
from allsource.storage.embedded.stream_repository import EventStreamRepository
from allsource.storage.model.answers import AppendResult, PartitionStats, StreamInfo
from allsource.storage.model.append import AppendRequest
from allsource.storage.model.chunks import CheckedEvents
from allsource.storage.model.errors import CheckpointsUnsupported, NotFound, Overloaded
from allsource.storage.model.events import Event
from allsource.storage.model.log import MarkAt
from allsource.storage.model.partition import PARTITION_COUNT, EntityId
from allsource.storage.model.times import as_datetime, as_microseconds
from allsource.storage.postgres.appending import Appending, LostRace
from allsource.storage.postgres.driver import (
    NO_CHECKPOINTS,
    SCHEMA,
    connect,
    connection_errors,
    explain,
    is_passing,
    parse_target,
)
from allsource.storage.postgres.migrate import REPOSITORY, Wanted, prepare
from allsource.storage.postgres.pool import Pool
from allsource.storage.postgres.tables import EVENT_COLUMNS, events_of

TRIES = 5
RETRY_AFTER_S = 0.01
"""Before the second try; twice as long before each further one."""

_INFO = "stream_id, partition_id, current_version, created_at, updated_at"


class PostgresEventStreamRepository(EventStreamRepository):
    """See the module's page. Use it in `async with`."""

    _keeps_chunks = False

    def __init__(
        self,
        url: str,
        *,
        schema: str = SCHEMA,
        pool_size: int = 10,
        acquire_timeout_s: float = 5.0,
        statement_timeout_s: float = 30.0,
        durability: str = "fsync",
        limits: Limits | None = None,
        clock_us: Callable[[], int] = lambda: time_ns() // 1000,
    ) -> None:
        """`url` is `postgresql://user:password@host/database`, its `?schema=` beats `schema`.

        `pool_size` connections at most. `durability` "os" returns before the server's disk has it.
        """
        super().__init__(limits=limits, clock_us=clock_us)
        self.target = parse_target(url, schema)
        self._pool = Pool(
            self.target,
            size=pool_size,
            acquire_timeout_s=acquire_timeout_s,
            statement_timeout_s=statement_timeout_s,
            durability=durability,
        )

    async def __aenter__(self) -> Self:
        """Make or update the schema, then connect."""
        connection = await connect(self.target)
        try:
            await prepare(connection, self.target, Wanted(REPOSITORY, PARTITION_COUNT))
        except connection_errors() as error:
            raise explain(error, self.target) from error
        finally:
            await connection.close()
        await self._pool.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._pool.close()

    @property
    def partition_count(self) -> int:
        return PARTITION_COUNT

    # -- appending

    async def _append(
        self, partition: int, request: AppendRequest, checked: Sequence[CheckedEvents]
    ) -> AppendResult:
        """As the others; the outcomes are those of the module's page."""
        appending = Appending(partition, request, checked, self._clock_us)
        wait = RETRY_AFTER_S
        for left in reversed(range(TRIES)):
            try:
                return await self._pool.transaction(appending.run)
            except LostRace as error:
                if left == 0:
                    raise Overloaded(f"{self.target.shown}: others change its streams by hand") from error
            except connection_errors() as error:
                if left == 0 or not is_passing(error):
                    raise explain(error, self.target) from error
            await asyncio.sleep(wait)
            wait *= 2
        raise AssertionError("the last try returns or raises")

    # -- reading

    async def _read_stream(self, wanted: StreamRead) -> list[Event]:
        """As the others; raises `NotFound`, `Unavailable` or `Overloaded`."""
        where = _Where()
        where.add("stream_id = {}", wanted.stream)
        where.begin("version", wanted.start, backward=wanted.backward)
        where.moment("<=", wanted.until_us)
        rows = await self._pool.fetch(
            f"SELECT {EVENT_COLUMNS} FROM events {where}"
            f" ORDER BY version {_order(wanted.backward)} {where.limit(wanted.most)}",
            *where.arguments,
        )
        if not rows:
            await self.get_stream_info(wanted.stream)
        return events_of(rows)

    async def _read_partition(self, wanted: PartitionRead) -> list[Event]:
        """As the others, with the filters in the database."""
        where = _Where()
        where.add("partition_id = {}", wanted.partition)
        where.begin("position", wanted.start, backward=wanted.backward)
        if wanted.types is not None:
            where.add("event_type = ANY ({}::text[])", list(wanted.types))
        where.moment(">=", wanted.since_us)
        where.moment("<=", wanted.until_us)
        rows = await self._pool.fetch(
            f"SELECT {EVENT_COLUMNS} FROM events {where}"
            f" ORDER BY position {_order(wanted.backward)} {where.limit(wanted.most)}",
            *where.arguments,
        )
        return events_of(rows)

    async def _read_tag(self, wanted: TagRead) -> list[Event]:
        """As the others, with the filter in the database."""
        where = _Where()
        where.add("tag = {}", wanted.tag)
        where.begin("tag_number", wanted.start, backward=wanted.backward)
        if wanted.types is not None:
            where.add("event_type = ANY ({}::text[])", list(wanted.types))
        rows = await self._pool.fetch(
            f"SELECT {EVENT_COLUMNS} FROM events {where}"
            f" ORDER BY tag_number {_order(wanted.backward)} {where.limit(wanted.most)}",
            *where.arguments,
        )
        return events_of(rows)

    async def _mark(self, partition: int, name: str) -> MarkAt | None:
        rows = await self._pool.fetch(
            "SELECT position, generation FROM marks WHERE partition_id = $1 AND name = $2", partition, name
        )
        return MarkAt(rows[0]["position"], rows[0]["generation"], 0, 0) if rows else None

    # -- copies

    async def checkpoint(self, path: Path | str) -> None:
        """Raises `CheckpointsUnsupported`, which says what to do instead."""
        raise CheckpointsUnsupported(f"a repository in PostgreSQL makes no checkpoints: {NO_CHECKPOINTS}")

    # -- facts

    async def _stream_info(self, stream: EntityId) -> StreamInfo:
        rows = await self._pool.fetch(
            f"SELECT {_INFO} FROM event_streams WHERE stream_id = $1 AND current_version > 0", stream
        )
        if not rows:
            raise NotFound(f"there is no stream {stream!r}", stream=stream)
        return _info(rows[0])

    async def verify_gapless(self, entity_id: str) -> bool:
        """Asks the database's own `verify_stream_gapless`; raises `NotFound`."""
        stream = (await self.get_stream_info(entity_id)).stream
        rows = await self._pool.fetch("SELECT verify_stream_gapless($1)", stream)
        return bool(rows[0][0])

    async def _streams(self, wanted: StreamsRead) -> list[StreamInfo]:
        where = _Where("current_version > 0")
        if wanted.partition is not None:
            where.add("partition_id = {}", wanted.partition)
        where.add("stream_id > {}", wanted.after)
        where.add("stream_id >= {}", wanted.prefix)
        where.add("starts_with(stream_id, {})", wanted.prefix)
        rows = await self._pool.fetch(
            f"SELECT {_INFO} FROM event_streams {where} ORDER BY stream_id {where.limit(wanted.most)}",
            *where.arguments,
        )
        return [_info(row) for row in rows]

    async def count_streams(self) -> int:
        """How many streams there are."""
        return int(
            (await self._pool.fetch("SELECT count(*) FROM event_streams WHERE current_version > 0"))[0][0]
        )

    async def _partition_stats(self, partition: int) -> PartitionStats:
        """The partition's row of the view `partition_stats`."""
        rows = await self._pool.fetch("SELECT * FROM partition_stats WHERE partition_id = $1", partition)
        if not rows:
            return PartitionStats(partition, 0, 0, 0.0, 0, None, None)
        number, streams, events, average, largest, oldest, newest = rows[0]
        return PartitionStats(
            number,
            streams,
            events,
            float(average),
            largest,
            as_microseconds(oldest),
            as_microseconds(newest),
        )


def _info(row: Any) -> StreamInfo:
    stream, partition, version, created_at, updated_at = row
    return StreamInfo(stream, partition, version, as_microseconds(created_at), as_microseconds(updated_at))


class _Where:
    """The conditions of a query and their arguments."""

    def __init__(self, *conditions: str) -> None:
        self._conditions = list(conditions)
        self.arguments: list[Any] = []

    def add(self, condition: str, argument: Any) -> None:
        """A condition on one argument, which stands where the braces are."""
        self.arguments.append(argument)
        self._conditions.append(condition.format(f"${len(self.arguments)}"))

    def begin(self, column: str, start: int | None, *, backward: bool) -> None:
        """From this version or position on; None: from the natural end."""
        if start is not None:
            self.add(f"{column} <= {{}}" if backward else f"{column} >= {{}}", start)

    def moment(self, comparison: str, time_us: int | None) -> None:
        """How the events' times compare with this one, if there is one."""
        if time_us is not None:
            self.add(f"timestamp {comparison} {{}}", as_datetime(time_us))

    def limit(self, most: int) -> str:
        """A page's size."""
        self.arguments.append(most)
        return f"LIMIT ${len(self.arguments)}"

    def __str__(self) -> str:
        return "WHERE " + " AND ".join(self._conditions)


def _order(backward: bool) -> str:
    return "DESC" if backward else "ASC"
