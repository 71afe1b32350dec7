#!/usr/bin/env python3
"""Measure the storage room: microseconds per operation, beside bare rocksdict doing the least it could.

    scripts/bench_storage.py [--entries N] [--dir DIR] [--json]

Run it on an idle machine. Each figure is the best of a few rounds, of the repository's the median of
calls made in turn with the bare ones; a ratio compares with bare rocksdict in the same run, which writes
or reads the same number of keys without any meaning.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import msgpack
from rocksdict import Options, Rdict, WriteBatch

from allsource.storage.interface import Storage
from allsource.storage.memory import MemoryStorage
from allsource.storage.model.chunks import pack_events
from allsource.storage.model.entry import (
    EVENTS,
    Append,
    Entry,
    NewAppend,
    Part,
    chunk_heads,
    make_entry,
)
from allsource.storage.model.events import NewEvent
from allsource.storage.model.log import HardState, PartitionWrite
from allsource.storage.open import open_storage
from allsource.storage.repository import RocksDBEventStreamRepository

ROUNDS = 5
STREAMS = 1000
PARTITION = 1


@dataclass
class Figure:
    """One line of the table."""

    name: str
    us: float
    bare_us: float | None = None


def best_us(times: int, act: Callable[[int], object]) -> float:
    """The best round's microseconds for one call; `act` gets a number that grows over all rounds."""
    figures = []
    for round_ in range(ROUNDS):
        begin = time.perf_counter()
        for i in range(round_ * times, (round_ + 1) * times):
            act(i)
        figures.append((time.perf_counter() - begin) / times * 1e6)
    return min(figures)


class Log:
    """Entries of one event of about 200 bytes each, for a thousand streams."""

    def __init__(self) -> None:
        self._last = 0
        self._versions: dict[str, int] = {}
        self._data = b'{"amount":' + b"7" * 140 + b"}"
        self.ids: list[bytes] = []

    def next(self, count: int) -> list[Entry]:
        return [self._one() for _ in range(count)]

    def _one(self) -> Entry:
        self._last += 1
        stream = f"account-{self._last * 7919 % STREAMS}"
        version = self._versions[stream] = self._versions.get(stream, 0) + 1
        event = NewEvent("AccountCredited", self._data)
        self.ids.append(event.id)
        chunks = pack_events([event])
        part = Part(stream, version, 1, event.id, 0, (event.type,), chunk_heads(chunks))
        return make_entry(
            partition=PARTITION,
            index=self._last,
            term=1,
            kind=EVENTS,
            first_position=self._last,
            timestamp_us=1_700_000_000_000_000 + self._last,
            appends=[NewAppend(Append((part,)), tuple(chunk.data for chunk in chunks))],
        )


class Bare:
    """rocksdict with its defaults, one column family, keys without meaning."""

    def __init__(self, path: Path) -> None:
        options = Options(raw_mode=True)
        options.create_if_missing(True)
        self.db = Rdict(str(path), options)
        self._value = os.urandom(260)

    def write(self, at: int, entries: int, keys_each: int = 4) -> None:
        """What an entry takes: its record, and three small keys elsewhere."""
        batch = WriteBatch(raw_mode=True)
        for i in range(entries):
            number = (at * entries + i).to_bytes(8, "big")
            batch.put(b"e" + number, self._value)
            for family in range(1, keys_each):
                batch.put(b"%d%b" % (family, number), self._value[:24])
        self.db.write(batch)

    def get(self, number: int) -> object:
        return self.db.get(b"e" + number.to_bytes(8, "big"))

    def get_many(self, numbers: list[int]) -> object:
        return self.db.get([b"e" + number.to_bytes(8, "big") for number in numbers])

    def scan(self, number: int, count: int) -> list[object]:
        cursor = self.db.iter()
        cursor.seek(b"e" + number.to_bytes(8, "big"))
        found = []
        for _ in range(count):
            found.append(cursor.value())
            cursor.next()
        return found


def measure_writes(storage: Storage, bare: Bare, log: Log, entries: int) -> list[Figure]:
    """One entry with a hard state, and batches of a hundred."""
    each = entries // ROUNDS // 2
    singles = iter(log.next(each * ROUNDS))

    def one(_: int) -> None:
        entry = next(singles)
        storage.write([PartitionWrite(PARTITION, HardState(1, "n1", entry.index - 1), None, [entry])])

    hundreds = iter([log.next(100) for _ in range(each * ROUNDS // 100)])
    batches = each // 100
    return [
        Figure("write, 1 entry", best_us(each, one), best_us(each, lambda i: bare.write(i, 1, 5))),
        Figure(
            "write, 100 entries",
            best_us(batches, lambda _: storage.write([PartitionWrite(PARTITION, entries=next(hundreds))])),
            best_us(batches, lambda i: bare.write(each * ROUNDS + i, 100)),
        ),
    ]


def measure_reads(storage: Storage, bare: Bare, log: Log) -> list[Figure]:
    last = len(log.ids)
    unknown = [os.urandom(16) for _ in range(4096)]
    scattered = [[(i * 31 + j * 977) % last + 1 for j in range(10)] for i in range(512)]
    get_us = best_us(4000, lambda i: bare.get(i * 7919 % last))
    return [
        Figure("head", best_us(4000, lambda i: storage.head(PARTITION, f"account-{i % STREAMS}")), get_us),
        Figure(
            "place_of_append, known",
            best_us(4000, lambda i: storage.place_of_append(PARTITION, log.ids[i * 7919 % last])),
            get_us,
        ),
        Figure(
            "place_of_append, new",
            best_us(4000, lambda i: storage.place_of_append(PARTITION, unknown[i % 4096])),
            get_us,
        ),
        Figure(
            "entries_at, 10 scattered",
            best_us(500, lambda i: storage.entries_at(PARTITION, scattered[i % 512])),
            best_us(500, lambda i: bare.get_many(scattered[i % 512])),
        ),
        Figure(
            "entries, 10 in a row",
            best_us(500, lambda i: storage.entries(PARTITION, i % last + 1, i % last + 10, 1 << 20)),
            best_us(500, lambda i: bare.scan(i % last, 10)),
        ),
        Figure(
            "slices, 10",
            best_us(
                500,
                lambda i: storage.slices(
                    PARTITION, f"account-{i % STREAMS}", 1, forward=True, slices_max=10
                ),
            ),
            best_us(500, lambda i: bare.scan(i * 7919 % last, 10)),
        ),
        Figure(
            "index_of_position",
            best_us(2000, lambda i: storage.index_of_position(PARTITION, i * 7919 % last + 1)),
            get_us,
        ),
        Figure("pressure", best_us(4000, lambda _: storage.pressure())),
    ]


def measure_sync(storage: Storage, bare: Bare, log: Log) -> Figure:
    written = iter(log.next(50 * ROUNDS))

    def synced(_: int) -> None:
        storage.write([PartitionWrite(PARTITION, entries=[next(written)])])
        storage.sync()

    def bare_synced(i: int) -> None:
        bare.write(1_000_000 + i, 1)
        bare.db.flush_wal(True)

    return Figure("write, 1 entry, and sync", best_us(50, synced), best_us(50, bare_synced))


BATCH = 100


async def measure_repository(path: Path, bare: Bare) -> list[Figure]:
    """The stand-alone event store, a hundred events an append, beside the least that could work: each
    event packed under a key of its own and one sync, or a scan that unpacks them."""
    data, appends = b'{"amount":' + b"7" * 140 + b"}", 100 * ROUNDS
    made = [[NewEvent("AccountCredited", data) for _ in range(BATCH)] for _ in range(appends)]
    async with RocksDBEventStreamRepository(path) as events:

        async def append(i: int) -> None:
            await events.append_to_stream(f"account-{i}", made[i])

        async def read(i: int) -> None:
            await events.read_stream(f"account-{i % 100}", limit=BATCH)

        def bare_append(i: int) -> None:
            batch = WriteBatch(raw_mode=True)
            for version, event in enumerate(made[i]):
                packed = msgpack.packb([event.id, event.type, event.data, event.metadata, event.encoding])
                batch.put(b"r%08d%08d" % (i, version), packed)
            bare.db.write(batch)
            bare.db.flush_wal(True)

        def bare_read(i: int) -> list[object]:
            cursor = bare.db.iter()
            cursor.seek(b"r%08d" % (i % 100))
            found = []
            for _ in range(BATCH):
                found.append(msgpack.unpackb(cursor.value()))
                cursor.next()
            return found

        return [
            Figure("append 100 events, durable", *await by_turns_us(appends, append, bare_append)),
            Figure("read 100 events", *await by_turns_us(1000, read, bare_read)),
        ]


async def by_turns_us(
    times: int, ours: Callable[[int], Awaitable[None]], bare: Callable[[int], object]
) -> tuple[float, float]:
    """The medians of single calls, one of each in turn, so that both meet the same machine and disk."""
    took: tuple[list[float], list[float]] = ([], [])
    for i in range(times):
        begin = time.perf_counter()
        await ours(i)
        middle = time.perf_counter()
        bare(i)
        took[0].append(middle - begin)
        took[1].append(time.perf_counter() - middle)
    return median(took[0]) * 1e6, median(took[1]) * 1e6


def flush(storage: Storage, bare: Bare) -> None:
    """Move everything from memory to files, where most of a real log is."""
    if not isinstance(storage, MemoryStorage):
        for family in storage._database.families.values():  # type: ignore[attr-defined]
            family.flush()
    bare.db.flush()


def show(title: str, figures: list[Figure]) -> None:
    print(f"\n{title:32} {'us':>9} {'bare us':>9} {'ratio':>6}")
    for figure in figures:
        bare = f"{figure.bare_us:9.2f} {figure.us / figure.bare_us:6.2f}" if figure.bare_us else ""
        print(f"{figure.name:32} {figure.us:9.2f} {bare}")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--backend", default="rocksdb", choices=("rocksdb", "memory"))
    parser.add_argument("--entries", type=int, default=20_000, help="entries to write (default 20000)")
    parser.add_argument("--dir", type=Path, default=None, help="where to write (default: a temporary one)")
    parser.add_argument("--json", action="store_true", help="figures for programs")
    chosen = parser.parse_args()
    root = Path(tempfile.mkdtemp(prefix="bench-storage-", dir=chosen.dir))
    try:
        storage = open_storage(backend=chosen.backend, data_dir=root / "data")
        bare, log = Bare(root / "bare"), Log()
        tables = {"writing": measure_writes(storage, bare, log, max(chosen.entries, 2000))}
        tables["reading, in memory"] = measure_reads(storage, bare, log)
        flush(storage, bare)
        tables["reading, from files"] = measure_reads(storage, bare, log)
        tables["durable"] = [measure_sync(storage, bare, log)]
        storage.close()
        tables["on its own"] = asyncio.run(measure_repository(root / "repository", bare))
        bare.db.close()
    finally:
        shutil.rmtree(root)
    if chosen.json:
        json.dump({title: [vars(f) for f in figures] for title, figures in tables.items()}, sys.stdout)
        print()
    else:
        for title, figures in tables.items():
            show(title, figures)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
