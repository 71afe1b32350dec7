"""SIGKILL of a program that uses a repository, or a PostgreSQL storage, again and again.

Whatever it was told is stored must be there afterwards, once, without gaps; what it was not told of may be
there whole. The kills come at random times; the seed is printed, and the rounds build on each other.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from random import Random

import pytest

from allsource.storage.open import open_storage
from allsource.storage.partition import PARTITION_COUNT, partition_of
from allsource.storage.repository import open_repository
from tests.storage.test_postgres_storage import open_postgres

STREAMS = ("a{kill}", "b{kill}", "c")

APPENDER = """
import asyncio, sys
from allsource.storage.answers import StreamAppend
from allsource.storage.events import NewEvent
from allsource.storage.repository import open_repository

async def main():
    async with open_repository(sys.argv[1]) as events:
        async def writer(number):
            while True:
                made = [[NewEvent.json("Kept", number) for _ in range(2)] for _ in range(2)]
                await events.append(StreamAppend("a{kill}", made[0]), StreamAppend("b{kill}", made[1]))
                alone = [NewEvent.json("Kept", number)]
                await events.append_to_stream("c", alone)
                print(*(event.id.hex() for part in (*made, alone) for event in part), flush=True)
        await asyncio.gather(*(writer(number) for number in range(4)))

asyncio.run(main())
"""

WRITER = """
import sys
from tests.storage.logs import LogModel
from tests.storage.test_postgres_storage import open_postgres
from allsource.storage.interface import HardState, PartitionWrite

storage = open_postgres(sys.argv[1])
log = LogModel(0, storage.entries(0, 1, 1 << 30, 1 << 30), storage.load(0).hard)
other = LogModel(1, storage.entries(1, 1, 1 << 30, 1 << 30), storage.load(1).hard)
while True:
    made = [log.events((f"s{len(log.entries) % 5}", 1), data=b"x" * 200) for _ in range(3)]
    hard = HardState(1, "n1", len(log.entries) - 3)
    storage.write([PartitionWrite(0, hard, None, made), other.write(other.noop(1))])
    storage.sync()
    print(len(log.entries), flush=True)
"""

ROUNDS = [4, pytest.param(100, marks=[pytest.mark.slow, pytest.mark.timeout(1200)])]


def run_and_kill(program: str, address: str, random: Random) -> list[str]:
    """Let it report a few times, then kill it; everything that it reported."""
    writer = subprocess.Popen(
        [sys.executable, "-c", program, address], stdout=subprocess.PIPE, text=True, cwd=Path.cwd()
    )
    assert writer.stdout is not None
    with writer:
        lines = []
        for _ in range(random.randint(1, 60)):
            lines.append(writer.stdout.readline())
            assert lines[-1], "the writer ended by itself"
        writer.send_signal(signal.SIGKILL)
        lines += writer.stdout.read().splitlines(keepends=True)
    return [line for line in lines if line.endswith("\n")]


@pytest.fixture
def random() -> Random:
    seed = int.from_bytes(os.urandom(4), "big")
    print(f"seed {seed}")
    return Random(seed)


async def check_repository(address: str, acknowledged: set[str]) -> None:
    async with open_repository(address) as events:
        found = [event for stream in STREAMS for event in await events.read_stream(stream, limit=0)]
        ids = [event.id.hex() for event in found]
        assert len(ids) == len(set(ids))
        assert acknowledged <= set(ids)
        for stream in STREAMS:
            assert await events.verify_gapless(stream)
        both = await events.read_partition(partition_of("a{kill}"), limit=0)
        assert [event.position for event in both] == list(range(1, len(both) + 1))
        pairs = [event.stream for event in both if event.stream != "c"]
        assert pairs == ["a{kill}", "a{kill}", "b{kill}", "b{kill}"] * (len(pairs) // 4), "half an append"


@pytest.mark.parametrize("rounds", ROUNDS)
@pytest.mark.parametrize("backend", ["rocksdb", "postgres"])
def test_a_repository_keeps_what_it_acknowledged(
    backend: str, rounds: int, random: Random, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    path = tmp_path / "data"
    address = f"rocksdb://{path}" if backend == "rocksdb" else request.getfixturevalue("postgres_url")
    acknowledged: set[str] = set()
    for _ in range(rounds):
        for line in run_and_kill(APPENDER, address, random):
            acknowledged.update(line.split())
        asyncio.run(check_repository(address, acknowledged))
        if backend == "rocksdb":
            verify_rocksdb(path)


def verify_rocksdb(path: Path) -> None:
    storage = open_storage(backend="rocksdb", data_dir=path, cluster_id="standalone", node_id="standalone")
    with closing(storage):
        assert [fault for p in range(PARTITION_COUNT) for fault in storage.verify(p)] == []


@pytest.mark.parametrize("rounds", ROUNDS)
def test_a_postgres_storage_keeps_what_it_synced(postgres_url: str, rounds: int, random: Random) -> None:
    acknowledged = 0
    for round_ in range(1, rounds + 1):
        acknowledged = max(int(line) for line in run_and_kill(WRITER, postgres_url, random))
        with closing(open_postgres(postgres_url)) as storage:
            last = storage.load(0).last_index
            assert last >= acknowledged
            assert last % 3 == 0, "half a write survived"
            assert storage.load(1).last_index == last // 3, "the partitions of one write were torn apart"
            assert storage.load(0).hard.commit == last - 3
            assert storage.identity.incarnation == 2 * round_
            assert [fault for p in (0, 1) for fault in storage.verify(p)] == []
