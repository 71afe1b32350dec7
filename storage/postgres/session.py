"""A process's hold on its schema: the lock, the connection that writes, the one that reads.

One process at a time: the connection that writes holds an advisory lock for as long as it lives, and is
never made anew. So a process that lost its connection cannot write any more, and one that is started
while a killed one's last transaction still runs waits for it. (A pooler between us and the server that
shares sessions would break that: connect directly.) The connection that reads holds nothing and is
replaced once if it breaks.

Also started here, on connections of their own: the copying to the tables that people query
(`projection`), and reading at the start which streams, tags and event ids there are (`seen.Seen`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from allsource.storage.model.errors import DirectoryInUse
from allsource.storage.model.identity import Identity
from allsource.storage.postgres import log_tables
from allsource.storage.postgres.bridge import Bridge
from allsource.storage.postgres.driver import (
    Target,
    all_errors,
    connect,
    connection_errors,
    explain,
    is_full,
    is_lost,
    is_passing,
)
from allsource.storage.postgres.migrate import Wanted, prepare
from allsource.storage.postgres.overlay import Layer
from allsource.storage.postgres.projection import Projection
from allsource.storage.postgres.seen import BloomFilter, Seen, tag_key

T = TypeVar("T")

LOCK_PATIENCE_S = 10.0
"""How long a start waits until the connection of a process that was just killed is gone."""
FULL_PATIENCE_S = 60.0
"""How long a sync goes on trying while the server's disk is full; then it fails."""
FULL_RETRY_S = 0.25
TRIES = 5
"""How often a sync is tried that the server rolls back because of a deadlock or the like."""
READ_TIMEOUT_S = 30.0
CATCH_UP_S = 2.0
"""How long `close` waits for the tables that people query."""

_LOCK = "SELECT pg_try_advisory_lock(hashtextextended('allsource node ' || $1, 0))"
_NEXT_INCARNATION = "UPDATE store SET incarnation = incarnation + 1 RETURNING incarnation"
_SEEN_COUNT = """
    SELECT count(*)
         + count(*) FILTER (WHERE first_version = 1) + count(*) FILTER (WHERE first_tag_number = 1)
    FROM log_parts
"""
_SEEN = "SELECT partition_id, stream_id, first_version, first_id, tag, first_tag_number FROM log_parts"


class Session:
    """Its calls block. Any thread may make them; `flush` is called by one at a time."""

    identity: Identity
    projection: Projection

    def __init__(
        self, target: Target, wanted: Wanted, *, fsync: bool, lock_patience_s: float = LOCK_PATIENCE_S
    ) -> None:
        """Make or update the schema and take it; raises `StorageFault` and its kinds, or `Unavailable`."""
        self.target = target
        self.seen = Seen()
        self.full: str | None = None
        """Why the sync that is running does not end: the server's disk is full."""
        self.flushes = self.reads = 0
        self._fsync = fsync
        self._writer: Any = None
        self._reader: Any = None
        self._tasks: list[asyncio.Task[None]] = []
        self._bridge = Bridge()
        try:
            self._call(self._open(wanted, "on" if fsync else "off", lock_patience_s))
        except BaseException:
            self.close()
            raise

    async def _open(self, wanted: Wanted, commit: str, patience_s: float) -> None:
        self._writer = await connect(self.target, synchronous_commit=commit)
        identity = await prepare(self._writer, self.target, wanted)
        await self._take(patience_s)
        incarnation = await self._writer.fetchval(_NEXT_INCARNATION)
        self.identity = identity._replace(incarnation=incarnation)
        commits = await self._writer.fetch("SELECT partition_id, commit_index FROM hard_states")
        self.projection = Projection(lambda: connect(self.target, synchronous_commit="off"))
        self.projection.advance(dict(commits))
        self._tasks = [asyncio.create_task(self.projection.run()), asyncio.create_task(self._read_seen())]

    async def _take(self, patience_s: float) -> None:
        """Become the one process that writes here."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + patience_s
        while not await self._writer.fetchval(_LOCK, self.target.schema):
            if loop.time() > deadline:
                raise DirectoryInUse(
                    f"{self.target.shown} is in use by another process; stop it, or give this node another"
                    " id or schema (?schema=NAME)",
                    schema=self.target.schema,
                )
            await asyncio.sleep(0.02)

    async def _read_seen(self) -> None:
        """Fill the filter with what the log held at the start.

        Until then every question is asked, and for good if the server fails here: that is slower and
        not wrong, and whoever writes or reads next will meet the same server.
        """
        try:
            await self._read_all_seen(await connect(self.target))
        except all_errors():
            return

    async def _read_all_seen(self, connection: Any) -> None:
        try:
            found = BloomFilter(await connection.fetchval(_SEEN_COUNT))
            async with connection.transaction():
                async for row in connection.cursor(_SEEN, prefetch=1000):
                    partition, stream, version, first_id, tag, number = row
                    found.add(hash((partition, first_id)))
                    if version == 1:
                        found.add(hash((partition, stream)))
                    if number == 1:
                        found.add(hash((partition, tag_key(tag))))
        finally:
            connection.terminate()
        self.seen.complete(found)

    # -- reading

    def ask(self, question: Callable[..., Coroutine[Any, Any, T]], *arguments: Any, **named: Any) -> T:
        """What `question(connection, ...)` returns."""
        self.reads += 1
        return self._call(self._answer(lambda connection: question(connection, *arguments, **named)))

    async def _answer(self, question: Callable[[Any], Coroutine[Any, Any, T]]) -> T:
        for left in (1, 0):
            if self._reader is None or self._reader.is_closed():
                self._reader = await connect(self.target)
            try:
                async with asyncio.timeout(READ_TIMEOUT_S):
                    return await question(self._reader)
            except connection_errors() as error:
                if left == 0 or not is_lost(error):
                    raise
                self._reader.terminate()
        raise AssertionError("the last try returns or raises")

    def _call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        try:
            return self._bridge.call(coroutine)
        except connection_errors() as error:
            raise explain(error, self.target) from error

    # -- writing

    def flush(self, layer: Layer) -> None:
        """Store a layer durably, in one transaction.

        What it raises leaves open whether that happened, except where the server said that it rolled
        back; those are tried again here. The caller must not go on.
        """
        self._call(self._flush(layer))

    async def _flush(self, layer: Layer) -> None:
        loop = asyncio.get_running_loop()
        tries, deadline = 0, loop.time() + FULL_PATIENCE_S
        try:
            while not await self._write(layer):
                tries += self.full is None
                if tries == TRIES or loop.time() > deadline:
                    raise explain(TimeoutError("rolled back again and again"), self.target)
                await asyncio.sleep(FULL_RETRY_S if self.full else 0)
        finally:
            self.full = None
        self.flushes += 1
        self.projection.advance(
            {p: share.hard.commit for p, share in layer.partitions.items() if share.hard is not None}
        )

    async def _write(self, layer: Layer) -> bool:
        """False: surely rolled back, and worth another try."""
        try:
            if layer.meta and not self._fsync:
                await self._write_for_sure(layer)
            else:
                await log_tables.write(self._writer, self.identity.incarnation, layer)
        except connection_errors() as error:
            if not (is_full(error) or is_passing(error)):
                raise
            self.full = f"the disk of the PostgreSQL server is full ({error})" if is_full(error) else None
            return False
        return True

    async def _write_for_sure(self, layer: Layer) -> None:
        """Small named values are durable with every durability: a node is known by them to its peers."""
        async with self._writer.transaction():
            await self._writer.execute("SET LOCAL synchronous_commit = on")
            await log_tables.write(self._writer, self.identity.incarnation, layer)

    # -- the end

    def catch_up(self) -> None:
        """Give the tables that people query a moment to show all that is committed."""
        self._bridge.call(self._catch_up())

    async def _catch_up(self) -> None:
        try:
            async with asyncio.timeout(CATCH_UP_S):
                await self.projection.caught_up()
        except TimeoutError:
            return  # the next start goes on from its mark

    def close(self) -> None:
        """Drop the connections, and with them the lock."""
        self._bridge.call(self._disconnect())
        self._bridge.close()

    async def _disconnect(self) -> None:
        for connection in (self._writer, self._reader):
            if connection is not None and not connection.is_closed():
                connection.terminate()
