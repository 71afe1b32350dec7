#!/usr/bin/env python3
"""Measure PostgreSQL as a repository and as a node's storage: microseconds per call, beside bare asyncpg.

    scripts/bench_postgres.py [--dsn DSN] [--rounds N] [--json]

Run it on an idle machine. Without `--dsn` it brings the tests' server, with fsync on. Each figure is the
median of many calls. Bare asyncpg does the least that could work with the same tables, constraints and
indexes: a transaction with one insert of arrays, no lock, no version check, no retry that is known again;
and a select of what it stored. The schemas it makes are dropped.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from random import Random
from statistics import median
from typing import Any, NamedTuple

import asyncpg

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from allsource.storage.model.answers import StreamAppend
from allsource.storage.model.chunks import pack_events
from allsource.storage.model.entry import EVENTS, Append, Mark, NewAppend, Part, chunk_heads, make_entry
from allsource.storage.model.events import NewEvent
from allsource.storage.model.log import HardState, PartitionWrite
from allsource.storage.postgres.driver import SCHEMA, node_target, quoted, with_schema
from allsource.storage.postgres.repository import PostgresEventStreamRepository
from allsource.storage.postgres.storage import PostgresStorage

BATCH = 100
STREAMS = 20
RANDOM = Random(20)
INSERT = """
    INSERT INTO events (id, stream_id, version, partition_id, position, event_type, payload,
                        timestamp, encoding, data, metadata_bytes, append_position)
    SELECT encode(id, 'hex')::uuid, stream, version, 0, position, 'Measured',
           convert_from(data, 'UTF8')::jsonb, now(), 0, data, '', position
    FROM unnest($1::bytea[], $2::text[], $3::bigint[], $4::bigint[], $5::bytea[])
         AS e (id, stream, version, position, data)
"""
SELECT = f"""
    SELECT id, stream_id, version, position, event_type, data, metadata_bytes, timestamp FROM events
    WHERE stream_id = $1 ORDER BY version LIMIT {BATCH}
"""


class Figure(NamedTuple):
    """One line of the table."""

    name: str
    us: float
    bare_us: float | None = None


def new(count: int) -> list[NewEvent]:
    """Orders, about 200 bytes each."""
    return [NewEvent.json("Measured", order()) for _ in range(count)]


def order() -> dict[str, Any]:
    number = RANDOM.randrange
    items = [{"sku": f"SKU-{number(10_000):05}", "quantity": number(1, 9)} for _ in range(3)]
    at = f"2026-11-24T{number(24):02}:{number(60):02}:00Z"
    return {"order": number(10**9), "customer": f"c-{number(10**6)}", "items": items, "at": at}


async def timed(act: Callable[[], Awaitable[Any]]) -> float:
    begin = time.perf_counter()
    await act()
    return (time.perf_counter() - begin) * 1e6


class Bare:
    """The least that could work, in a schema that a repository made."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._versions: dict[str, int] = {}
        self._position = 0

    async def append(self, stream: str, events: list[NewEvent]) -> None:
        version, position = self._versions.get(stream, 0), self._position
        self._versions[stream] = version + len(events)
        self._position += len(events)
        numbers = range(1, len(events) + 1)
        async with self._connection.transaction():
            await self._connection.execute(
                INSERT,
                [event.id for event in events],
                [stream] * len(events),
                [version + number for number in numbers],
                [position + number for number in numbers],
                [event.data for event in events],
            )

    async def read(self, stream: str) -> None:
        await self._connection.fetch(SELECT, stream)


async def measure_repository(dsn: str, rounds: int) -> list[Figure]:
    ours, theirs = with_schema(dsn, "bench_ours"), with_schema(dsn, "bench_bare")
    async with PostgresEventStreamRepository(ours) as events, PostgresEventStreamRepository(theirs):
        connection = await asyncpg.connect(dsn, server_settings={"search_path": "bench_bare"})
        names = [f"stream-{number}" for number in range(STREAMS)]
        await connection.executemany(
            "INSERT INTO event_streams (stream_id, partition_id) VALUES ($1, 0)",
            [(name,) for name in names],
        )
        bare = Bare(connection)
        figures = []
        for size in (1, BATCH):
            times: tuple[list[float], list[float]] = ([], [])
            for i in range(rounds):  # by turns, so that both meet the same machine
                made, stream = new(size), names[i % STREAMS]
                times[0].append(await timed(lambda: events.append_to_stream(stream, made)))  # noqa: B023
                times[1].append(await timed(lambda: bare.append(stream, made)))  # noqa: B023
            figures.append(Figure(f"repository: append {size}", median(times[0]), median(times[1])))
        times = ([], [])
        for i in range(rounds):
            made, marks = new(1), [Mark("done", i, 1)]
            append = StreamAppend(f"{names[i % STREAMS]}-{{tag}}", made)
            times[0].append(await timed(lambda: events.append(append, expected_tag=i, marks=marks)))  # noqa: B023
            times[1].append(await timed(lambda: bare.append(names[i % STREAMS], made)))  # noqa: B023
        figures.append(Figure("repository: append 1, tag and mark", median(times[0]), median(times[1])))
        times = ([], [])
        for i in range(rounds):
            stream = names[i % STREAMS]
            times[0].append(await timed(lambda: events.read_stream(stream, limit=BATCH)))  # noqa: B023
            times[1].append(await timed(lambda: bare.read(stream)))  # noqa: B023
        figures.append(Figure(f"repository: read {BATCH}", median(times[0]), median(times[1])))
        await connection.close()
    return figures


def new_append(stream: str) -> NewAppend:
    events = new(1)
    chunks = pack_events(events)
    part = Part(stream, 1, 1, events[0].id, 0, ("Measured",), chunk_heads(chunks))
    return NewAppend(Append((part,)), tuple(chunk.data for chunk in chunks))


def measure_storage(dsn: str, rounds: int) -> list[Figure]:
    storage = PostgresStorage(
        node_target(with_schema(dsn, "bench_node"), "n1"), cluster_id="bench", node_id="n1"
    )
    index, position, figures = 0, 1, []

    def call(act: Callable[[], Any]) -> float:
        begin = time.perf_counter()
        act()
        return (time.perf_counter() - begin) * 1e6

    def entries(count: int, appends: int) -> PartitionWrite:
        nonlocal index, position
        made = []
        for _ in range(count):
            index += 1
            made.append(
                make_entry(
                    partition=0,
                    index=index,
                    term=1,
                    kind=EVENTS,
                    first_position=position,
                    timestamp_us=index,
                    appends=[new_append(f"stream-{position + number}") for number in range(appends)],
                )
            )
            position += appends
        return PartitionWrite(0, HardState(1, "n1", index - count), None, made)

    for name, count, appends in (
        ("an append", 1, 1),
        ("64 appends", 64, 1),
        ("64 appends in one entry", 1, 64),
    ):
        writes, syncs = [], []
        for _ in range(rounds):
            write = entries(count, appends)
            writes.append(call(lambda: storage.write([write])))  # noqa: B023
            syncs.append(call(storage.sync))
        figures.append(Figure(f"node: write {name}", median(writes)))
        figures.append(Figure(f"node: sync of {name}", median(syncs)))
    asks: dict[str, Callable[[], Any]] = {
        "node: is this id new? (yes)": lambda: storage.place_of_append(0, os.urandom(16)),
        "node: head, remembered": lambda: storage.head(0, f"stream-{position - 1}"),
        "node: head, from the database": lambda: storage._session.ask(storage_head, storage),
        "node: read 10 entries, remembered": lambda: storage.entries_at(0, range(index - 10, index)),
    }
    while storage._session.seen.may_hold(0, b"not complete"):
        pass
    figures += [Figure(name, median(call(ask) for _ in range(rounds * 5))) for name, ask in asks.items()]
    storage.close()
    return figures


async def storage_head(connection: Any, storage: PostgresStorage) -> Any:
    from allsource.storage.postgres import log_indexes

    return await log_indexes.head(connection, 0, "stream-1", 1 << 60)


async def drop(dsn: str) -> None:
    connection = await asyncpg.connect(dsn)
    for schema in ("bench_ours", "bench_bare", "bench_node_n1"):
        await connection.execute(f"DROP SCHEMA IF EXISTS {quoted(schema)} CASCADE")
    await connection.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--dsn", help=f"a database to measure in; not the one with your schema {SCHEMA}")
    parser.add_argument("--rounds", type=int, default=200, help="calls of each kind (default 200)")
    parser.add_argument("--json", action="store_true", help="figures for programs")
    chosen = parser.parse_args()
    server, dsn = None, chosen.dsn
    if dsn is None:
        from tests.storage.postgres_server import PostgresServer

        server = PostgresServer(fsync="on", full_page_writes="on", shared_buffers="256MB")
        server.start()
        dsn = server.dsn
    try:
        asyncio.run(drop(dsn))
        figures = [
            *asyncio.run(measure_repository(dsn, chosen.rounds)),
            *measure_storage(dsn, chosen.rounds),
        ]
        asyncio.run(drop(dsn))
    finally:
        if server is not None:
            server.remove()
    if chosen.json:
        print(json.dumps([figure._asdict() for figure in figures]))
        return 0
    print(f"{'':36} {'us':>9} {'bare us':>9} {'ratio':>6}")
    for name, us, bare in figures:
        print(f"{name:36} {us:9.1f}" + (f" {bare:9.1f} {us / bare:6.2f}" if bare else ""))
    return 0


if __name__ == "__main__":
    sys.exit(main())
