"""Copying what the cluster has committed from a node's log to the tables that people query.

A node's log may hold what is never committed. So `events`, `event_streams` and `marks` follow the commit
index that is stored with the log, never the log's end, a moment behind it: one transaction copies a stretch
of several partitions and notes how far it went (`partitions.log_index`). It is a copy that can always be
continued from there, and nothing of the node depends on it. So a failure here (the tables were changed by
hand, the server went away) does not stop the node: it is counted, and tried again on a fresh connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from allsource.storage.model.entry import Entry, decode_entry
from allsource.storage.model.errors import Corrupt
from allsource.storage.postgres import log_tables
from allsource.storage.postgres.driver import all_errors
from allsource.storage.postgres.tables import Recording

EVENTS_MAX = 1000
"""Events in one transaction, about."""
BYTES_MAX = 4 << 20
RETRY_AFTER_S = 0.5


class Projection:
    """Lives on the private loop (`bridge`); the two figures may be read from anywhere."""

    def __init__(self, connect: Callable[[], Awaitable[Any]]) -> None:
        self._connect = connect
        self._connection: Any = None
        self._commits: dict[int, int] = {}
        self._done: dict[int, int] = {}
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self.failures = 0
        """How often copying failed since the start."""

    @property
    def lag(self) -> int:
        """Log entries that are committed and not copied yet."""
        return sum(commit - self._done.get(p, 0) for p, commit in list(self._commits.items()))

    def advance(self, commits: Mapping[int, int]) -> None:
        """Partitions' logs are durable and committed up to here."""
        if commits:
            self._commits.update(commits)
            self._idle.clear()
            self._wake.set()

    async def caught_up(self) -> None:
        """Return when everything that was committed is copied, or when that just failed."""
        await self._idle.wait()

    async def run(self) -> None:
        """Copy for ever."""
        try:
            while True:
                try:
                    await self._copy_all()
                    self._idle.set()
                    await self._wake.wait()
                except all_errors():
                    self.failures += 1
                    self._idle.set()
                    await self._disconnect()
                    await asyncio.sleep(RETRY_AFTER_S)
        finally:
            await self._disconnect()

    async def _copy_all(self) -> None:
        if self._connection is None:
            self._connection = await self._connect()
            # Not what this process remembers: a COMMIT whose answer was lost may have happened.
            rows = await self._connection.fetch("SELECT partition_id, log_index FROM partitions")
            self._done = dict(rows)
        self._wake.clear()
        while await self._copy_some():
            pass

    async def _copy_some(self) -> bool:
        """One transaction; False if there is nothing left to copy."""
        recording = Recording()
        done: dict[int, int] = {}
        for partition, commit in list(self._commits.items()):
            start = self._done.get(partition, 0)
            if start < commit:
                done[partition] = await self._add(recording, partition, start + 1, commit)
                if len(recording) >= EVENTS_MAX:
                    break
        if not done:
            return False
        async with self._connection.transaction():
            moved = await self._connection.fetchval(recording.statement, *recording.arguments())
            if moved != recording.moved_count:
                raise Corrupt(
                    "event_streams or marks were changed by hand: one is not where it was copied last"
                )
        self._done.update(done)
        return True

    async def _add(self, recording: Recording, partition: int, first: int, last: int) -> int:
        """Add a stretch of a log; returns its last index."""
        rows = await log_tables.entries(self._connection, partition, first, last, BYTES_MAX)
        if not rows:
            raise Corrupt(f"partition {partition} has no entry {first}, which is committed")
        for index, record in rows:  # noqa: B007  # the last one is the answer
            _record(recording, decode_entry(record, whole=False))
            if len(recording) >= EVENTS_MAX:
                break
        return index

    async def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()


def _record(recording: Recording, entry: Entry) -> None:
    """Add an entry's appends, and that it is copied."""
    partition, timestamp_us, position = entry.partition, entry.timestamp_us, entry.first_position
    placed = iter(entry.placed())
    for parts, marks in entry.appends:
        content = [(part, entry.chunks(place)) for part, place in zip(parts, placed, strict=False)]
        recording.add(partition, content, marks, position, timestamp_us)
        position += sum([part.count for part in parts])
    recording.end(partition, position - 1, timestamp_us, entry.index)
