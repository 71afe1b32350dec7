"""`PostgresEventStreamRepository`: streams in a database that other processes may use at the same time.

The same promises as the other repositories, kept by a database instead of a log of our own. An append is
one transaction: it locks its partition's row, so that positions are given without gaps and become visible
in order; it looks at what is there *after* it got the lock; it decides as the others do; and it writes
with one statement that only moves a stream from the version that it saw (`tables.RECORD`).

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
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from time import time_ns
from types import TracebackType
from typing import Any, Self
from uuid import UUID

from allsource.config.schema import Limits
from allsource.storage.embedded.stream_repository import EventStreamRepository, page_size, start_of
from allsource.storage.model.answers import AppendResult, PartitionStats, StreamInfo
from allsource.storage.model.append import AppendPart, Known, Unmet, answer_again, decide, result_of
from allsource.storage.model.arguments import flag, text
from allsource.storage.model.entry import Part
from allsource.storage.model.errors import (
    CheckpointsUnsupported,
    EventIdConflict,
    NotFound,
    OutcomeUnknown,
    Overloaded,
    StorageFault,
)
from allsource.storage.model.events import Event, encode_blob
from allsource.storage.model.expected import VERSION_MAX
from allsource.storage.model.partition import PARTITION_COUNT, EntityId
from allsource.storage.model.times import as_microseconds
from allsource.storage.postgres.driver import (
    CONNECT_TIMEOUT_S,
    NO_CHECKPOINTS,
    SCHEMA,
    connect,
    connection_errors,
    driver,
    explain,
    is_lost,
    is_passing,
    parse_target,
    session_settings,
)
from allsource.storage.postgres.migrate import REPOSITORY, Wanted, prepare
from allsource.storage.postgres.tables import EVENT_COLUMNS, RECORD, Recording, events_of

TRIES = 5
RETRY_AFTER_S = 0.01
"""Before the second try; twice as long before each further one."""

_LOOK = "SELECT * FROM lock_for_append($1, $2, $3)"
_APPENDED = f"""
    SELECT {EVENT_COLUMNS} FROM events
    WHERE partition_id = $1 AND append_position = $2 AND position BETWEEN $2 AND $2 + $3
    ORDER BY position
"""
_INFO = "stream_id, partition_id, current_version, created_at, updated_at"


class _LostRace(Exception):
    """Somebody moved a stream without its partition's lock. Look again."""


class _Log:
    """A partition's log for `model.append.decide`, as the holder of the partition's lock sees it."""

    def __init__(self, versions: Mapping[str, int], known: int | None) -> None:
        """`known`: the position of the oldest append that has one of the ids."""
        self._versions = versions
        self._known = known

    def index_of_append(self, first_event_id: bytes) -> int | None:
        return self._known

    def head(self, stream: str) -> tuple[int, int]:
        return self._versions[stream], 0


@dataclass(frozen=True, slots=True)
class _Stored:
    """An append in the tables (`model.append.Stored`)."""

    partition: int
    first_position: int
    parts: tuple[Part, ...]
    index: int = 0

    @property
    def count(self) -> int:
        return sum(part.count for part in self.parts)


class PostgresEventStreamRepository(EventStreamRepository):
    """See the module's page. Use it in `async with`."""

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
        self._pool_size = pool_size
        self._acquire_timeout_s = acquire_timeout_s
        self._statement_timeout_s = statement_timeout_s
        self._durability = durability
        self._pool: Any = None

    async def __aenter__(self) -> Self:
        """Make or update the schema, then connect."""
        asyncpg = driver()
        milliseconds = str(int(self._statement_timeout_s * 1000))
        settings = {
            "statement_timeout": milliseconds,
            "lock_timeout": milliseconds,
            "synchronous_commit": "on" if self._durability == "fsync" else "off",
        }
        connection = await connect(self.target)
        try:
            await prepare(connection, self.target, Wanted(REPOSITORY, PARTITION_COUNT))
        except connection_errors() as error:
            raise explain(error, self.target) from error
        finally:
            await connection.close()
        self._pool = await asyncpg.create_pool(
            self.target.dsn,
            min_size=0,
            max_size=self._pool_size,
            timeout=CONNECT_TIMEOUT_S,
            # The server ends a statement in time; this is for a server that says nothing any more.
            command_timeout=self._statement_timeout_s + 5,
            reset=_leave_as_it_is,
            server_settings=session_settings(self.target, **settings),
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pool, self._pool = self._pool, None
        if pool is not None:
            await pool.close()

    @property
    def partition_count(self) -> int:
        return PARTITION_COUNT

    # -- appending

    async def _append(
        self, partition: int, parts: Sequence[AppendPart], checked: Sequence[tuple[int, bytes]]
    ) -> AppendResult:
        """As the others; the outcomes are those of the module's page."""
        wait = RETRY_AFTER_S
        for left in reversed(range(TRIES)):
            try:
                async with self._connection() as connection:
                    return await self._append_once(connection, partition, parts, checked)
            except _LostRace as error:
                if left == 0:
                    raise Overloaded(f"{self.target.shown}: others change its streams by hand") from error
            except connection_errors() as error:
                if left == 0 or not is_passing(error):
                    raise explain(error, self.target) from error
            await asyncio.sleep(wait)
            wait *= 2
        raise AssertionError("the last try returns or raises")

    async def _append_once(
        self,
        connection: Any,
        partition: int,
        parts: Sequence[AppendPart],
        checked: Sequence[tuple[int, bytes]],
    ) -> AppendResult:
        """One transaction. What it raises, except `OutcomeUnknown`, is definite."""
        try:
            await connection.execute("BEGIN")
            answer = await self._decide(connection, partition, parts, checked)
        except Exception:
            await _roll_back(connection)
            raise
        except BaseException:  # cancelled: there is no time for a conversation
            _drop(connection)
            raise
        try:
            await connection.execute("COMMIT")
        except connection_errors() as error:
            if is_lost(error):
                _drop(connection)  # it may still be in the transaction, and the pool does not ask
                raise OutcomeUnknown(
                    f"{self.target.shown} was lost while it committed ({error});"
                    " retry with the same event ids"
                ) from error
            await _roll_back(connection)
            raise
        except BaseException:
            _drop(connection)
            raise
        return answer

    async def _decide(
        self,
        connection: Any,
        partition: int,
        parts: Sequence[AppendPart],
        checked: Sequence[tuple[int, bytes]],
    ) -> AppendResult:
        """Take the partition's lock, decide about what is there then, and write it."""
        streams, ids = [part.stream for part in parts], [UUID(bytes=first_id) for _, first_id in checked]
        position, timestamp_us, versions, known = await connection.fetchrow(_LOOK, partition, streams, ids)
        match decide(parts, checked, _Log(dict(zip(streams, versions, strict=True)), known)):
            case Known(place):
                answer = answer_again(parts, await self._stored(connection, partition, place, checked))
                if isinstance(answer, EventIdConflict):
                    raise answer
                return answer
            case Unmet(error):
                raise error
            case decided:
                return await self._record(connection, partition, parts, decided, position + 1, timestamp_us)

    async def _record(
        self,
        connection: Any,
        partition: int,
        parts: Sequence[AppendPart],
        decided: tuple[Part, ...],
        position: int,
        timestamp_us: int,
    ) -> AppendResult:
        """Write it; raises `_LostRace` if a stream has moved. `timestamp_us`: the newest so far."""
        recording = Recording()
        recording.add(
            partition,
            decided,
            position,
            max(self._clock_us(), timestamp_us),
            expected=[part.expected if part.expected >= 0 else None for part in parts],
        )
        try:
            moved = await connection.fetchval(RECORD, *recording.arguments())
        except driver().UniqueViolationError as error:
            raise _LostRace from error
        if moved != recording.stream_count:
            raise _LostRace
        return result_of(_Stored(partition, position, decided), duplicate=False)

    async def _stored(
        self, connection: Any, partition: int, position: int, checked: Sequence[tuple[int, bytes]]
    ) -> _Stored:
        """The append at this position, cut off behind one event more than `checked` has."""
        count = sum(count for count, _ in checked)
        rows = await connection.fetch(_APPENDED, partition, position, count)
        streams: dict[str, list[Event]] = {}
        for event in events_of(rows):
            streams.setdefault(event.stream, []).append(event)
        return _Stored(
            partition,
            position,
            tuple(
                Part(stream, events[0].version, len(events), events[0].id, encode_blob(events))
                for stream, events in streams.items()
            ),
        )

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
        """As the others; raises `NotFound`, `Unavailable` or `Overloaded`."""
        stream = EntityId(entity_id)
        start, backward = start_of("from_version", from_version), flag("backward", backward)
        version = start if start is not None else (VERSION_MAX if backward else 1)
        where = _Where()
        where.add("stream_id = {}", stream)
        where.add("version <= {}" if backward else "version >= {}", version)
        if as_of is not None:
            as_microseconds(as_of)
            where.add("timestamp <= {}", as_of)
        rows = await self._fetch(
            f"SELECT {EVENT_COLUMNS} FROM events {where} ORDER BY version {'DESC' if backward else ''}"
            f" {where.limit(limit)}",
            *where.arguments,
        )
        if not rows:
            await self.get_stream_info(stream)
        return events_of(rows)

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
        """As the others, with the filters in the database."""
        where = _Where()
        where.add("partition_id = {}", self._checked_partition(partition))
        start, backward = start_of("from_position", from_position), flag("backward", backward)
        position = start if start is not None else (VERSION_MAX if backward else 1)
        where.add("position <= {}" if backward else "position >= {}", position)
        if types is not None:
            where.add("event_type = ANY ({}::text[])", list(types))
        for bound, condition in ((since, "timestamp >= {}"), (until, "timestamp <= {}")):
            if bound is not None:
                as_microseconds(bound)
                where.add(condition, bound)
        rows = await self._fetch(
            f"SELECT {EVENT_COLUMNS} FROM events {where} ORDER BY position {'DESC' if backward else ''}"
            f" {where.limit(limit)}",
            *where.arguments,
        )
        return events_of(rows)

    # -- copies

    async def checkpoint(self, path: Path | str) -> None:
        """Raises `CheckpointsUnsupported`, which says what to do instead."""
        raise CheckpointsUnsupported(f"a repository in PostgreSQL makes no checkpoints: {NO_CHECKPOINTS}")

    # -- facts

    async def get_stream_info(self, entity_id: str) -> StreamInfo:
        """A stream's facts; raises `NotFound`."""
        rows = await self._fetch(
            f"SELECT {_INFO} FROM event_streams WHERE stream_id = $1 AND current_version > 0",
            EntityId(entity_id),
        )
        if not rows:
            raise NotFound(f"there is no stream {entity_id!r}", stream=entity_id)
        return _info(rows[0])

    async def verify_gapless(self, entity_id: str) -> bool:
        """Asks the database's own `verify_stream_gapless`; raises `NotFound`."""
        stream = (await self.get_stream_info(entity_id)).stream
        rows = await self._fetch("SELECT verify_stream_gapless($1)", stream)
        return bool(rows[0][0])

    async def get_streams_by_partition(
        self, partition: int, *, prefix: str = "", after: str = "", limit: int | None = 1000
    ) -> list[StreamInfo]:
        """Streams of a partition, ordered by their UTF-8 bytes, those behind `after`."""
        return await self._streams(self._checked_partition(partition), prefix, after, limit)

    async def list_streams(
        self, *, prefix: str = "", after: str = "", limit: int | None = 1000
    ) -> list[StreamInfo]:
        """Streams of all partitions in one order, a page of `limit` behind `after`."""
        return await self._streams(None, prefix, after, limit)

    async def _streams(
        self, partition: int | None, prefix: str, after: str, limit: int | None
    ) -> list[StreamInfo]:
        where = _Where("current_version > 0")
        if partition is not None:
            where.add("partition_id = {}", partition)
        where.add("stream_id > {}", text("after", after))
        where.add("stream_id >= {}", text("prefix", prefix))
        where.add("starts_with(stream_id, {})", prefix)
        rows = await self._fetch(
            f"SELECT {_INFO} FROM event_streams {where} ORDER BY stream_id {where.limit(limit)}",
            *where.arguments,
        )
        return [_info(row) for row in rows]

    async def count_streams(self) -> int:
        """How many streams there are."""
        return int(
            (await self._fetch("SELECT count(*) FROM event_streams WHERE current_version > 0"))[0][0]
        )

    async def partition_stats(self, partition: int) -> PartitionStats:
        """The partition's row of the view `partition_stats`."""
        rows = await self._fetch(
            "SELECT * FROM partition_stats WHERE partition_id = $1", self._checked_partition(partition)
        )
        if not rows:
            return PartitionStats(partition, 0, 0, 0.0, 0, None, None)
        number, streams, events, average, largest, oldest, newest = rows[0]
        return PartitionStats(number, streams, events, float(average), largest, oldest, newest)

    # -- connections

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[Any]:
        """A connection of the pool; raises `Overloaded` if none becomes free in time."""
        pool = self._pool  # closing forgets it, and waits for what is under way
        if pool is None:
            raise StorageFault("this repository is not open; use it in `async with`")
        try:
            # Not acquire's own timeout: before Python 3.12 that is a task, a tenth of a small read.
            async with asyncio.timeout(self._acquire_timeout_s):
                connection = await pool.acquire()
        except TimeoutError as error:
            raise Overloaded(
                f"{self.target.shown}: no connection became free within {self._acquire_timeout_s:g} s;"
                f" the pool has {self._pool_size}"
            ) from error
        except connection_errors() as error:
            raise explain(error, self.target) from error
        try:
            yield connection
        finally:
            await pool.release(connection)

    async def _fetch(self, query: str, *arguments: Any) -> list[Any]:
        for left in (1, 0):
            try:
                async with self._connection() as connection:
                    rows: list[Any] = await connection.fetch(query, *arguments)
                    return rows
            except connection_errors() as error:
                if left == 0 or not is_lost(error):
                    raise explain(error, self.target) from error
        raise AssertionError("the last try returns or raises")


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

    def limit(self, limit: int | None) -> str:
        """A page's size; None is all."""
        self.arguments.append(page_size(limit))
        return f"LIMIT ${len(self.arguments)}"

    def __str__(self) -> str:
        return "WHERE " + " AND ".join(self._conditions)


async def _leave_as_it_is(connection: Any) -> None:
    """We change nothing in a session, so there is nothing to reset (it would be one more round trip)."""


async def _roll_back(connection: Any) -> None:
    try:
        await connection.execute("ROLLBACK")
    except connection_errors():
        _drop(connection)
    except BaseException:
        _drop(connection)
        raise


def _drop(connection: Any) -> None:
    """Break it off; the server rolls back what it has lost."""
    with suppress(driver().InterfaceError):  # it broke by itself, and the pool has it back already
        connection.terminate()
