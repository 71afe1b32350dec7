"""SIGKILL, for real: a process writes, syncs and reports what it may call durable; then it is killed.

Whatever it reported must be there afterwards, in durability "fsync" what was synced and in "os" what was
written, and the indexes must fit. The time of the kill is random; the seed is printed.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from allsource.storage.rocksdb.storage import RocksStorage
from tests.storage.rocksdb.test_rocksdb import open_rocks

WRITER = """
import sys
from pathlib import Path
from tests.storage.logs import LogModel
from tests.storage.rocksdb.test_rocksdb import open_rocks
from allsource.storage.model.log import HardState, PartitionWrite

path, durability = Path(sys.argv[1]), sys.argv[2]
storage = open_rocks(path, durability=durability)
log = LogModel(0, storage.entries(0, 1, 1 << 30, 1 << 30), storage.load(0).hard)
other = LogModel(1, storage.entries(1, 1, 1 << 30, 1 << 30), storage.load(1).hard)
while True:
    made = [log.events((f"s{len(log.entries) % 5}", 1), data=b"x" * 200) for _ in range(3)]
    hard = HardState(1, "n1", len(log.entries) - 3)
    storage.write([PartitionWrite(0, hard, None, made), other.write(other.noop(1))])
    if durability == "fsync":
        storage.sync()
    print(len(log.entries), flush=True)
"""


@pytest.mark.parametrize("durability", ["fsync", "os"])
def test_what_was_acknowledged_survives_kill_9(tmp_path: Path, durability: str) -> None:
    seed = int.from_bytes(os.urandom(4), "big")
    print(f"seed {seed}")
    random = Random(seed)
    acknowledged = 0
    for round_ in range(1, 6):
        acknowledged = max(acknowledged, run_and_kill(tmp_path, durability, random.randint(1, 120)))
        storage = open_rocks(tmp_path, durability=durability)
        assert storage.identity.incarnation == 2 * round_
        acknowledged = check(storage, acknowledged)
        storage.close()


def run_and_kill(path: Path, durability: str, reports: int) -> int:
    """Let a writer acknowledge so many times, then kill it; the last index that it acknowledged."""
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path), durability], stdout=subprocess.PIPE, cwd=Path.cwd()
    )
    assert writer.stdout is not None
    with writer:
        for _ in range(reports):
            line = writer.stdout.readline()
            assert line, "the writer ended by itself"
        writer.send_signal(signal.SIGKILL)
        lines = [line, *writer.stdout.read().splitlines(keepends=True)]
    return max(int(line) for line in lines if line.endswith(b"\n"))


def check(storage: RocksStorage, acknowledged: int) -> int:
    """All that was acknowledged is there, whole batches only; returns the last index."""
    last = storage.load(0).last_index
    assert last >= acknowledged
    assert last % 3 == 0, "half a batch survived"
    assert storage.load(1).last_index == last // 3, "the partitions of one write were torn apart"
    assert storage.load(0).hard.commit == last - 3
    assert list(storage.verify(0)) == []
    assert list(storage.verify(1)) == []
    return last
