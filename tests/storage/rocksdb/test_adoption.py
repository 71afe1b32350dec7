"""A checkpoint that is opened as a repository: it becomes a store of its own, with what was committed."""

from __future__ import annotations

import asyncio
import errno
import json
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from allsource.storage.files.directory import claim_existing
from allsource.storage.files.format import read_format
from allsource.storage.model.errors import ForeignDirectory, NotFound, StorageFault
from allsource.storage.model.events import NewEvent
from allsource.storage.model.log import HardState, PartitionWrite
from allsource.storage.model.partition import partition_of
from allsource.storage.repository import RocksDBEventStreamRepository
from allsource.storage.rocksdb import adoption as rocksdb_adoption
from allsource.storage.rocksdb.storage import RocksStorage
from tests.storage.contract import PARTITIONS
from tests.storage.logs import LogModel
from tests.storage.rocksdb.test_rocksdb import open_rocks

KEPT, LOST, LATE = (
    next(f"{name}-{i}" for i in range(100) if partition_of(f"{name}-{i}", PARTITIONS) == 2)
    for name in ("kept", "lost", "late")
)


def checkpoint_of_a_node(path: Path) -> None:
    """A checkpoint of a node that knows of more than was committed: in one stream, and a stream alone."""
    with closing(open_rocks(path.parent / "node")) as storage:
        log = LogModel(2)
        entries = [
            log.configuration("n1", "n2", "n3", term=0),
            log.noop(3),
            log.events((KEPT, 2), term=3),
            log.noop(5),
            log.events((KEPT, 1), term=5),
            log.events((KEPT, 1), (LOST, 2), term=5),
            log.events((LATE, 1), term=5),
        ]
        other = LogModel(1)
        uncommitted = [other.noop(4), other.noop(4)]
        storage.write(
            [
                PartitionWrite(2, HardState(7, "n2", 5), None, entries),
                PartitionWrite(1, HardState(4, "n1", 0), None, uncommitted),
            ]
        )
        storage.put_meta({"formed": b"yes"})
        storage.checkpoint(path)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    path = tmp_path / "copy"
    checkpoint_of_a_node(path)
    return path


def verified(path: Path) -> RocksStorage:
    storage = RocksStorage(claim_existing(path), read_only=True)
    assert [fault for p in range(PARTITIONS) for fault in storage.verify(p)] == []
    return storage


async def test_what_was_committed_is_there_and_no_more(copy: Path) -> None:
    for _ in range(2):
        async with RocksDBEventStreamRepository(copy) as events:
            assert events.partition_count == PARTITIONS
            assert [event.version for event in await events.read_stream(KEPT)] == [1, 2, 3]
            for stream in (LOST, LATE):
                with pytest.raises(NotFound):
                    await events.read_stream(stream)
            assert [event.position for event in await events.read_partition(2)] == [1, 2, 3]
            assert await events.count_streams() == 1


async def test_it_goes_on_as_a_store(copy: Path) -> None:
    for number in (1, 2):
        async with RocksDBEventStreamRepository(copy) as events:
            await events.append_to_stream(KEPT, [NewEvent.json("T", number)], 2 + number)
            await events.append_to_stream(LOST, [NewEvent.json("T", number)], number - 1 or "no_stream")
    async with RocksDBEventStreamRepository(copy) as events:
        assert [event.version for event in await events.read_stream(KEPT)] == [1, 2, 3, 4, 5]
        assert [event.json() for event in await events.read_stream(LOST)] == [1, 2]
        await events.checkpoint(copy.with_name("again"))
    with closing(verified(copy)) as storage:
        assert storage.load(2).hard == HardState(5, "", 9)
        assert storage.load(1).last_index == 0
    async with RocksDBEventStreamRepository(copy.with_name("again")) as events:
        assert len(await events.read_stream(KEPT)) == 5


async def test_it_is_somebody_else_from_then_on(copy: Path) -> None:
    source = json.loads((copy / "FORMAT").read_bytes())
    async with RocksDBEventStreamRepository(copy):
        pass
    found = json.loads((copy / "FORMAT").read_bytes())
    assert (found["format"], found["cluster_id"], found["node_id"]) == (3, "standalone", "standalone")
    assert found["replica_id"] == source["checkpoint"]["id"] != source["replica_id"]
    with pytest.raises(ForeignDirectory, match="belongs to cluster 'standalone'"):
        open_rocks(copy)
    with closing(open_rocks(copy.parent / "node")) as node:  # and the source is what it was
        assert node.load(2).last_index == 7
        assert node.identity.replica_id == source["replica_id"]


async def test_a_nodes_own_directory_is_not_taken(copy: Path) -> None:
    with pytest.raises(ForeignDirectory, match="belongs to cluster 'c'"):
        async with RocksDBEventStreamRepository(copy.parent / "node"):
            pass
    with closing(open_rocks(copy.parent / "node")) as node:
        assert node.load(2).last_index == 7


async def test_a_full_disk_is_said_and_loses_nothing(copy: Path) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rocksdb_adoption, "write_format", full)
        with pytest.raises(StorageFault, match="could not become a store: No space left"):
            async with RocksDBEventStreamRepository(copy):
                pass
    await test_what_was_committed_is_there_and_no_more(copy)


KILLED = """
import os, sys
from pathlib import Path
from allsource.storage.rocksdb import adoption as rocksdb_adoption
from allsource.storage.rocksdb.storage import RocksStorage

place, when = {
    "write": (RocksStorage, "write"),
    "become": (RocksStorage, "become"),
    "write_format": (rocksdb_adoption, "write_format"),
    "close": (RocksStorage, "close"),
}[sys.argv[2]], sys.argv[3]
original = getattr(*place)

def dies(*arguments, **keywords):
    if when == "after":
        original(*arguments, **keywords)
    os._exit(9)

setattr(*place, dies)
rocksdb_adoption.prepare_repository(Path(sys.argv[1]), cluster_id="standalone", node_id="standalone")
"""


@pytest.mark.parametrize(
    ("step", "when"),
    [
        ("write", "before"),
        ("write", "after"),
        ("become", "after"),
        ("write_format", "after"),
        ("close", "after"),
    ],
)
async def test_it_is_begun_anew_wherever_it_was_interrupted(copy: Path, step: str, when: str) -> None:
    for _ in range(2):
        command = [sys.executable, "-c", KILLED, str(copy), step, when]
        died = await asyncio.to_thread(subprocess.run, command, check=False, capture_output=True)
        found = read_format(copy)
        assert found is not None
        if found.checkpoint is None:
            break
        assert died.returncode == 9, died.stderr
        with closing(verified(copy)):
            pass
        with pytest.raises(ForeignDirectory, match="is a checkpoint"):
            open_rocks(copy)
    await test_what_was_committed_is_there_and_no_more(copy)
    await test_it_goes_on_as_a_store(copy)
