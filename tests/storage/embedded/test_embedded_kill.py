"""SIGKILL of a program that uses a repository, or a PostgreSQL storage, again and again.

Whatever it was told is stored must be there afterwards, once, without gaps; what it was not told of may be
there whole. The program says what it begins (`>`) and what it was told is done (`<`), so each kill shows
what it interrupted; a kill that interrupts nothing proves nothing, and fails the test. The kills come at
random times; the seed and the tally are printed, and the rounds build on each other.

A kill takes nothing from the operating system, so what a missing sync would lose is not seen here; that is
tried where a storage can be made to crash as in a power cut (`contract`, `test_repository`).

A hundred rounds each: `scripts/test --all tests/storage/embedded/test_embedded_kill.py -rP`
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import closing
from pathlib import Path
from random import Random

import pytest

from allsource.storage.model.partition import PARTITION_COUNT, partition_of
from allsource.storage.open import open_storage
from allsource.storage.repository import open_repository
from tests.storage.postgres.test_postgres_storage import open_postgres

STREAMS = ("a{kill}", "b{kill}", "c")

APPENDER = """
import asyncio, sys
from allsource.storage.model.answers import StreamAppend
from allsource.storage.model.events import NewEvent
from allsource.storage.repository import open_repository

async def main():
    async with open_repository(sys.argv[1]) as events:
        async def append(number, *streams):
            parts = [StreamAppend(s, [NewEvent.json("Kept", number) for _ in range(2)]) for s in streams]
            ids = [event.id.hex() for part in parts for event in part.events]
            print(">", *ids, flush=True)
            await events.append(*parts)
            print("<", *ids, flush=True)

        async def writer(number):
            while True:
                await append(number, "a{kill}", "b{kill}")
                await append(number, "c")

        await asyncio.gather(*(writer(number) for number in range(4)))

asyncio.run(main())
"""

WRITER = """
import sys
from collections import Counter
from tests.storage.logs import LogModel, part
from tests.storage.postgres.test_postgres_storage import open_postgres
from allsource.storage.model.entry import EVENTS
from allsource.storage.model.log import HardState, PartitionWrite

storage = open_postgres(sys.argv[1])
log = LogModel(0, storage.entries(0, 1, 1 << 30, 1 << 30), storage.load(0).hard)
other = LogModel(1, storage.entries(1, 1, 1 << 30, 1 << 30), storage.load(1).hard)
versions = Counter(p.stream for entry in log.entries for p in entry.parts)

def next_write():
    made = []
    for _ in range(3):
        stream = f"s{len(log.entries) % 5}"
        versions[stream] += 1
        made.append(log._add(EVENTS, 1, appends=[part(stream, versions[stream], data=b"x" * 200)]))
    hard = HardState(1, "n1", len(log.entries) - 3)
    return len(log.entries), [PartitionWrite(0, hard, None, made), other.write(other.noop(1))]

while True:
    for last, write in [next_write() for _ in range(300)]:  # ahead, so that most kills find one under way
        print(">", last, flush=True)
        storage.write(write)
        storage.sync()
        print("<", last, flush=True)
"""

ROUNDS = [4, pytest.param(100, marks=[pytest.mark.slow, pytest.mark.timeout(1200)])]

LATER_S = 0.01
"""At most so long after a report the kill comes: several appends, so that it may hit any part of one."""

Append = tuple[str, ...]
"""What one line names: the ids of an append's events, or the last index of a write."""


def run_and_kill(program: str, address: str, random: Random) -> tuple[set[Append], set[Append]]:
    """Let it report a few times, then kill it: what it reported done, and what it had begun only."""
    writer = subprocess.Popen(
        [sys.executable, "-c", program, address], stdout=subprocess.PIPE, text=True, cwd=Path.cwd()
    )
    assert writer.stdout is not None
    with writer:
        lines: list[str] = []
        reports = random.randint(1, 60)
        while reports:
            lines.append(writer.stdout.readline())
            assert lines[-1], "the writer ended by itself"
            reports -= lines[-1].startswith("<")
        time.sleep(random.uniform(0, LATER_S))
        writer.send_signal(signal.SIGKILL)
        lines += writer.stdout.read().splitlines(keepends=True)
    whole = [line.split() for line in lines if line.endswith("\n")]
    begun, done = ({tuple(rest) for kind, *rest in whole if kind == sign} for sign in "><")
    assert done <= begun
    return done, begun - done


class Tally(Counter[str]):
    """What the kills interrupted, and what became of it."""

    def kill(self, interrupted: set[Append], stored: int) -> None:
        self.update(
            kills=1,
            kills_within_an_append=bool(interrupted),
            interrupted=len(interrupted),
            interrupted_and_stored=stored,
        )

    def check(self) -> None:
        print(dict(self))
        # The programs do little but append, yet some kills fall between two; of four, luck may have three.
        assert self["kills_within_an_append"] >= max(1, 0.8 * self["kills"] - 3)


@pytest.fixture
def random() -> Random:
    seed = int.from_bytes(os.urandom(4), "big")
    print(f"seed {seed}")
    return Random(seed)


async def check_repository(address: str, done: set[Append], interrupted: set[Append]) -> int:
    """Returns how many of the interrupted appends are stored."""
    async with open_repository(address) as events:
        found = [event for stream in STREAMS for event in await events.read_stream(stream, limit=None)]
        ids = {event.id.hex() for event in found}
        assert len(ids) == len(found)
        assert all(ids.issuperset(append) for append in done)
        halves = [
            append for append in interrupted if not (ids.issuperset(append) or ids.isdisjoint(append))
        ]
        assert halves == []
        for stream in STREAMS:
            assert await events.verify_gapless(stream)
        both = await events.read_partition(partition_of("a{kill}"), limit=None)
        assert [event.position for event in both] == list(range(1, len(both) + 1))
        pairs = [event.stream for event in both if event.stream != "c"]
        assert pairs == ["a{kill}", "a{kill}", "b{kill}", "b{kill}"] * (len(pairs) // 4), "half an append"
    return sum(ids.issuperset(append) for append in interrupted)


@pytest.mark.parametrize("rounds", ROUNDS)
@pytest.mark.parametrize("backend", ["rocksdb", "postgres"])
def test_a_repository_keeps_what_it_acknowledged(
    backend: str, rounds: int, random: Random, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    path = tmp_path / "data"
    address = f"rocksdb://{path}" if backend == "rocksdb" else request.getfixturevalue("postgres_url")
    acknowledged: set[Append] = set()
    tally = Tally()
    for _ in range(rounds):
        done, interrupted = run_and_kill(APPENDER, address, random)
        acknowledged |= done
        tally.kill(interrupted, asyncio.run(check_repository(address, acknowledged, interrupted)))
        if backend == "rocksdb":
            verify_rocksdb(path)
    tally.check()


def verify_rocksdb(path: Path) -> None:
    storage = open_storage(backend="rocksdb", data_dir=path, cluster_id="standalone", node_id="standalone")
    with closing(storage):
        assert [fault for p in range(PARTITION_COUNT) for fault in storage.verify(p)] == []


@pytest.mark.parametrize("rounds", ROUNDS)
def test_a_postgres_storage_keeps_what_it_synced(postgres_url: str, rounds: int, random: Random) -> None:
    acknowledged = 0
    tally = Tally()
    for round_ in range(1, rounds + 1):
        done, interrupted = run_and_kill(WRITER, postgres_url, random)
        acknowledged = max(acknowledged, *(int(last) for (last,) in done))
        with closing(open_postgres(postgres_url)) as storage:
            last = storage.load(0).last_index
            assert last >= acknowledged
            assert last % 3 == 0, "half a write survived"
            assert storage.load(1).last_index == last // 3, "the partitions of one write were torn apart"
            assert storage.load(0).hard.commit == last - 3
            assert storage.identity.incarnation == 2 * round_
            assert [fault for p in (0, 1) for fault in storage.verify(p)] == []
            tally.kill(interrupted, sum(last >= int(index) for (index,) in interrupted))
    tally.check()
