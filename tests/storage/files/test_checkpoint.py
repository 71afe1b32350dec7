"""Checkpoints of an open store: whole, consistent, complete up to the call, or not there at all."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from random import Random

import pytest

from allsource.storage.files import checkpoint, directory
from allsource.storage.files.checkpoint import (
    CheckpointExists,
    CheckpointFailed,
    check_name,
    list_checkpoints,
)
from allsource.storage.files.directory import CHECKPOINTS, claim_existing
from allsource.storage.model.errors import (
    AllsourceError,
    DiskFull,
    ForeignDirectory,
    FormatTooNew,
    InvalidRequest,
    Overloaded,
    StorageFault,
)
from allsource.storage.rocksdb import checkpoint as rocksdb_checkpoint
from allsource.storage.rocksdb.storage import RocksStorage
from tests.storage.contract import PARTITIONS
from tests.storage.logs import LogModel
from tests.storage.rocksdb.test_rocksdb import open_rocks
from tests.waiting import DEADLINE_S, held_up


class Writing:
    """Two partitions that always change together, in one write each time."""

    def __init__(self, storage: RocksStorage) -> None:
        self.storage = storage
        self.logs = [LogModel(0), LogModel(1)]
        self.written = 0

    def write(self, size: int = 200) -> None:
        stream = f"s{self.written % 7}"
        made = [log.write(log.events((stream, 1), data=b"x" * size)) for log in self.logs]
        self.storage.write(made)
        self.written += 1


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[RocksStorage]:
    with closing(open_rocks(tmp_path / "store")) as opened:
        yield opened


@pytest.fixture
def writing(storage: RocksStorage) -> Writing:
    writing = Writing(storage)
    for _ in range(20):
        writing.write()
    return writing


def check(path: Path, writing: Writing, at_least: int, at_most: int) -> int:
    """The checkpoint is a prefix of what was written, of so many writes; how many."""
    with closing(RocksStorage(claim_existing(path), read_only=True)) as copy:
        assert [fault for p in range(PARTITIONS) for fault in copy.verify(p)] == []
        counts = {copy.load(partition).last_index for partition in (0, 1)}
        assert len(counts) == 1, "the partitions of one write were torn apart"
        (count,) = counts
        assert at_least <= count <= at_most
        for log in writing.logs:
            found = copy.entries(log.partition, 1, count, 1 << 40) if count else []
            assert [entry.record for entry in found] == [entry.record for entry in log.entries[:count]]
    return count


def test_under_steady_writes_it_is_a_prefix_with_all_from_before(
    storage: RocksStorage, tmp_path: Path
) -> None:
    seed = int.from_bytes(os.urandom(4), "big")
    print(f"seed {seed}")
    random, writing, stop = Random(seed), Writing(storage), threading.Event()

    def write() -> None:
        while not stop.is_set():
            # Above 16 KiB it is a blob's own file.
            writing.write(random.choice((10, 1_000, 20_000)))

    with ThreadPoolExecutor(1) as pool:
        writer = pool.submit(write)
        bounds = []
        try:
            for number in range(6):
                goal = writing.written + random.randint(1, 100)
                while writing.written < goal and not writer.done():
                    stop.wait(0.001)
                before = writing.written
                storage.checkpoint(tmp_path / f"copy{number}")
                # One write may be done and not yet counted.
                bounds.append((before, writing.written + 1))
        finally:
            stop.set()
        writer.result()
    counts = [check(tmp_path / f"copy{n}", writing, *bound) for n, bound in enumerate(bounds)]
    assert counts == sorted(counts)
    assert counts[0] > 0
    assert [fault for p in range(PARTITIONS) for fault in storage.verify(p)] == []


def test_the_copy_does_not_change_with_the_store(
    storage: RocksStorage, writing: Writing, tmp_path: Path
) -> None:
    storage.checkpoint(tmp_path / "copy")
    for _ in range(300):
        writing.write(20_000)
    for family in storage._database.families.values():
        family.flush()
        family.compact_range(None, None)
    check(tmp_path / "copy", writing, 20, 20)


def test_one_of_an_empty_store(storage: RocksStorage, tmp_path: Path) -> None:
    storage.checkpoint(tmp_path / "copy")
    check(tmp_path / "copy", Writing(storage), 0, 0)


def test_taking_it_twice(storage: RocksStorage, writing: Writing, tmp_path: Path) -> None:
    storage.checkpoint(tmp_path / "copy")
    with pytest.raises(CheckpointExists, match="choose another name"):
        storage.checkpoint(tmp_path / "copy")
    writing.write()
    storage.checkpoint(tmp_path / "other")
    check(tmp_path / "copy", writing, 20, 20)
    check(tmp_path / "other", writing, 21, 21)


def test_whatever_has_the_name_is_left_alone(
    storage: RocksStorage, writing: Writing, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to("nowhere")
    before = sorted(tmp_path.iterdir())
    for name in ("empty", "file", "link"):
        with pytest.raises(CheckpointExists):
            storage.checkpoint(tmp_path / name)
    assert sorted(tmp_path.iterdir()) == before


def test_places_where_none_can_be(storage: RocksStorage, writing: Writing, tmp_path: Path) -> None:
    with pytest.raises(CheckpointFailed, match=r"missing is not a directory; make it first"):
        storage.checkpoint(tmp_path / "missing" / "copy")
    with pytest.raises(InvalidRequest, match="inside the database"):
        storage.checkpoint(storage.path / "db" / "copy")
    (tmp_path / "by").symlink_to(storage.path)
    for roundabout in (tmp_path / "by" / "db" / "copy", storage.path / "db" / ".." / "db" / "copy"):
        with pytest.raises(InvalidRequest, match="inside the database"):
            storage.checkpoint(roundabout)
    (tmp_path / "by").unlink()
    with pytest.raises(InvalidRequest, match=r"ends with \.unfinished is never opened"):
        storage.checkpoint(tmp_path / "copy.unfinished")
    with pytest.raises(CheckpointFailed, match="name too long"):
        storage.checkpoint(tmp_path / ("n" * 250))
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


def test_what_a_symbolic_link_leads_to_is_left_alone(
    storage: RocksStorage, writing: Writing, tmp_path: Path
) -> None:
    (tmp_path / "others").mkdir()
    (tmp_path / "others" / "precious").write_text("x")
    for place in (tmp_path / ".copy.unfinished", storage.path / ".copy.unfinished"):
        place.symlink_to(tmp_path / "others")
    with pytest.raises(CheckpointFailed, match="is a symbolic link"):
        storage.checkpoint(tmp_path / "copy")
    storage.close()
    open_rocks(storage.path).close()
    assert [path.name for path in (tmp_path / "others").iterdir()] == ["precious"]


def _raises(error: Exception) -> object:
    def function(*_: object, **__: object) -> None:
        raise error

    return function


FAULTS = [
    pytest.param(
        directory.os, "pwrite", OSError(errno.ENOSPC, "no room"), DiskFull, id="no room for a pid"
    ),
    pytest.param(checkpoint.os, "link", OSError(errno.EACCES, "denied"), CheckpointFailed, id="permission"),
    pytest.param(checkpoint, "fsync_directory", OSError(errno.EIO, "bad"), CheckpointFailed, id="sync"),
    pytest.param(checkpoint.os, "rename", OSError(errno.EDQUOT, "quota"), DiskFull, id="quota"),
    pytest.param(
        rocksdb_checkpoint, "sync_files", OSError(errno.ENOSPC, "no room"), DiskFull, id="no space"
    ),
    pytest.param(
        rocksdb_checkpoint,
        "Checkpoint",
        Exception("IO error: No space left on device: While appending"),
        DiskFull,
        id="no space in RocksDB",
    ),
    pytest.param(
        rocksdb_checkpoint,
        "Checkpoint",
        Exception("IO error: whatever"),
        CheckpointFailed,
        id="fault in RocksDB",
    ),
    pytest.param(
        rocksdb_checkpoint, "marked", ZeroDivisionError("a defect"), ZeroDivisionError, id="defect"
    ),
]


@pytest.mark.parametrize(("where", "what", "error", "becomes"), FAULTS)
def test_a_fault_leaves_nothing_and_the_store_goes_on(
    storage: RocksStorage,
    writing: Writing,
    tmp_path: Path,
    where: object,
    what: str,
    error: Exception,
    becomes: type[Exception],
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(where, what, _raises(error))
        with pytest.raises(becomes) as caught:
            storage.checkpoint(tmp_path / "copy")
    if isinstance(caught.value, AllsourceError):
        assert "copy" in caught.value.message
        assert "\n" not in caught.value.message
    assert [path.name for path in tmp_path.iterdir()] == ["store"]
    writing.write()
    storage.sync()
    storage.checkpoint(tmp_path / "copy")
    check(tmp_path / "copy", writing, 21, 21)


def test_no_room_is_said_before_anything_is_done(
    storage: RocksStorage, writing: Writing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage._disk_free_bytes_min = 256 << 20
    monkeypatch.setattr(rocksdb_checkpoint, "free_bytes", lambda path: 200 << 20)
    with pytest.raises(DiskFull, match="nearly full: 200 MiB free, 256 MiB must stay free"):
        storage.checkpoint(tmp_path / "copy")
    storage._disk_free_bytes_min = 0
    room = {storage.path / "db": 1 << 40}
    monkeypatch.setattr(rocksdb_checkpoint, "free_bytes", lambda path: room.get(path, 1000))
    monkeypatch.setattr(rocksdb_checkpoint, "can_link", lambda file, directory: False)
    with pytest.raises(DiskFull, match="not enough room for the checkpoint"):
        storage.checkpoint(tmp_path / "copy")
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


def test_on_another_file_system_it_is_copied(
    storage: RocksStorage, writing: Writing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = os.link

    def only_near(source: Path, target: Path) -> None:
        if target.parent.name == ".copy.unfinished":
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        link(source, target)

    monkeypatch.setattr(checkpoint.os, "link", only_near)
    storage.checkpoint(tmp_path / "copy")
    check(tmp_path / "copy", writing, 20, 20)
    files = list((tmp_path / "copy" / "db").iterdir())
    assert {file.stat().st_nlink for file in files} == {1}
    assert not (storage.path / CHECKPOINTS).exists()


def test_its_own_directory_of_checkpoints_may_be_on_another_file_system(
    storage: RocksStorage, writing: Writing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "big-disk").mkdir()
    (storage.path / CHECKPOINTS).symlink_to(tmp_path / "big-disk")
    link = os.link

    def only_near(source: Path, target: Path) -> None:
        if CHECKPOINTS in target.parts:
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        link(source, target)

    monkeypatch.setattr(checkpoint.os, "link", only_near)
    storage.checkpoint(storage.path / CHECKPOINTS / "copy")
    check(tmp_path / "big-disk" / "copy", writing, 20, 20)
    assert not list(storage.path.glob(".*"))


def test_a_file_that_rocksdb_removes_meanwhile_takes_no_room(
    storage: RocksStorage, writing: Writing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is listed, and gone when it is asked for its size."""
    (storage.path / "db" / "000000.sst").symlink_to("gone")
    monkeypatch.setattr(
        rocksdb_checkpoint, "can_link", lambda file, directory: directory.parent == storage.path
    )
    storage.checkpoint(tmp_path / "copy")
    check(tmp_path / "copy", writing, 20, 20)


def test_without_hard_links_there_is_none(
    storage: RocksStorage, writing: Writing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RocksDB would copy the whole store, and nothing else would run meanwhile."""
    monkeypatch.setattr(checkpoint.os, "link", _raises(OSError(errno.EPERM, "Operation not permitted")))
    with pytest.raises(CheckpointFailed, match="has no hard links"):
        storage.checkpoint(tmp_path / "copy")
    assert [path.name for path in tmp_path.iterdir()] == ["store"]
    assert not (storage.path / CHECKPOINTS).exists()


SHARED_MEMORY = Path("/dev/shm")


@pytest.mark.skipif(not os.access(SHARED_MEMORY, os.W_OK), reason="there is no other file system here")
def test_on_a_real_other_file_system(storage: RocksStorage, writing: Writing, tmp_path: Path) -> None:
    if SHARED_MEMORY.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("the tests run on that file system")
    place = SHARED_MEMORY / f"allsource-test-{os.getpid()}"
    try:
        storage.checkpoint(place)
        check(place, writing, 20, 20)
    finally:
        shutil.rmtree(place, ignore_errors=True)
    assert not list(SHARED_MEMORY.glob(f".{place.name}*"))


def test_files_are_shared_on_the_same_file_system(
    storage: RocksStorage, writing: Writing, tmp_path: Path
) -> None:
    storage.checkpoint(tmp_path / "copy")
    tables = list((tmp_path / "copy" / "db").glob("*.sst"))
    assert tables
    assert {table.stat().st_nlink for table in tables} == {2}


class ToldLock:
    """A lock that says when somebody comes to wait for it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.acquire, self.release = self._lock.acquire, self._lock.release
        self.awaited = threading.Event()

    def __enter__(self) -> None:
        self.awaited.set()
        self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()


def test_one_at_a_time_and_close_waits_for_it(
    storage: RocksStorage, writing: Writing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on = held_up(monkeypatch, rocksdb_checkpoint, "_flush_the_bulk")
    lock = ToldLock()
    monkeypatch.setattr(storage, "_checkpointing", lock)
    with ThreadPoolExecutor(2) as pool:
        making = pool.submit(storage.checkpoint, tmp_path / "copy")
        assert begun.wait(DEADLINE_S)
        with pytest.raises(Overloaded, match="another checkpoint is being made"):
            storage.checkpoint(tmp_path / "other")
        writing.write()  # meanwhile the store takes writes
        storage.sync()
        closing_ = pool.submit(storage.close)
        waited = lock.awaited.wait(DEADLINE_S)
        assert not closing_.done()
        go_on.set()
        making.result(DEADLINE_S)
        closing_.result(DEADLINE_S)
    assert waited
    check(tmp_path / "copy", writing, 21, 21)
    with pytest.raises(StorageFault, match="was closed"):
        storage.checkpoint(tmp_path / "other")


def test_another_process_making_it_is_waited_for(
    storage: RocksStorage, writing: Writing, tmp_path: Path
) -> None:
    place = tmp_path / ".copy.unfinished"
    place.mkdir()
    lock = checkpoint.take_lock(place)
    with pytest.raises(CheckpointFailed, match=f"process {os.getpid()} is making"):
        storage.checkpoint(tmp_path / "copy")
    assert place.exists()
    os.close(lock)
    storage.checkpoint(tmp_path / "copy")
    assert not place.exists()


def test_no_node_starts_from_it(storage: RocksStorage, writing: Writing, tmp_path: Path) -> None:
    storage.checkpoint(tmp_path / "copy")
    for changed in ({}, {"node_id": "n2"}, {"cluster_id": "standalone", "node_id": "standalone"}):
        with pytest.raises(
            ForeignDirectory, match=r"is a checkpoint of node 'n1'.*lose acknowledged events"
        ):
            open_rocks(tmp_path / "copy", **changed)
    check(tmp_path / "copy", writing, 20, 20)


def test_a_version_that_knows_no_checkpoints_refuses_it(
    storage: RocksStorage, writing: Writing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage.checkpoint(tmp_path / "copy")
    monkeypatch.setattr("allsource.storage.files.format.FORMAT_VERSION", 3)
    with pytest.raises(FormatTooNew):
        open_rocks(tmp_path / "copy")


def test_looking_changes_no_file(storage: RocksStorage, writing: Writing, tmp_path: Path) -> None:
    storage.checkpoint(tmp_path / "copy")

    def contents() -> dict[str, bytes]:
        found = {p for p in (tmp_path / "copy").rglob("*") if p.is_file() and not p.name.startswith("LO")}
        return {str(path): path.read_bytes() for path in found}

    before = contents()
    check(tmp_path / "copy", writing, 20, 20)
    assert contents() == before
    with closing(RocksStorage(claim_existing(tmp_path / "copy"), read_only=True)) as copy:
        for change in (lambda: copy.write([]), copy.sync, lambda: copy.put_meta({"a": b"b"})):
            with pytest.raises(StorageFault, match="nothing is written"):
                change()
    assert contents() == before


def test_the_list(storage: RocksStorage, writing: Writing, tmp_path: Path) -> None:
    place = tmp_path / "all"
    assert list_checkpoints(place) == []
    place.mkdir()
    for name in ("b", "a"):
        storage.checkpoint(place / name)
    (place / "notes").mkdir()
    (place / ".c.unfinished").mkdir()
    (place / "torn").mkdir()
    (place / "torn" / "FORMAT").write_text("{")
    found = list_checkpoints(place)
    assert [one.name for one in found] == ["a", "b"]
    assert all(one.taken and one.size_bytes > 10_000 for one in found)


@pytest.mark.parametrize("name", ["a", "A-1_b.c", "2026-01-31T12.00", "x" * 64, "-"])
def test_names(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize(
    "name", ["", ".", "..", ".a", "a/b", "/a", "a b", "x" * 65, "ä", "a\n", "a\0", "٣"]
)
def test_names_that_are_none(name: str) -> None:
    with pytest.raises(InvalidRequest, match="1 to 64 letters"):
        check_name(name)


def test_a_name_that_would_never_be_opened_is_none() -> None:
    with pytest.raises(InvalidRequest, match="is never opened"):
        check_name("a.unfinished")


# -- kill -9

KILLED = """
import sys, time
from pathlib import Path
from allsource.storage.files import checkpoint
from allsource.storage.rocksdb import checkpoint as rocksdb_checkpoint
from tests.storage.files.test_checkpoint import Writing
from tests.storage.rocksdb.test_rocksdb import open_rocks

path, target, where, what, far = Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:]
storage = open_rocks(path)
writing = Writing(storage)
for _ in range(20):
    writing.write()
storage.sync()
module = {"checkpoint": checkpoint, "rocksdb": rocksdb_checkpoint, "os": checkpoint.os}[where]

def hang(*_, **__):
    print("now", flush=True)
    time.sleep(600)

setattr(module, what, hang)
if far == "far":
    rocksdb_checkpoint.can_link = lambda file, directory: ".copy." not in directory.name
storage.checkpoint(target)
"""

POINTS = [
    ("rocksdb", "can_link", "near"),
    ("rocksdb", "Checkpoint", "near"),
    ("rocksdb", "copy_files", "far"),
    ("rocksdb", "sync_files", "near"),
    ("rocksdb", "write_format", "near"),
    ("checkpoint", "fsync_directory", "near"),
    ("os", "rename", "near"),
]


@pytest.mark.parametrize("point", POINTS, ids=lambda point: point[1])
def test_kill_9_leaves_nothing_that_opens(tmp_path: Path, point: tuple[str, str, str]) -> None:
    store = tmp_path / "store"
    target = store / CHECKPOINTS / "copy"
    target.parent.mkdir(parents=True)
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(store), str(target), *point],
        stdout=subprocess.PIPE,
        cwd=Path.cwd(),
    )
    assert process.stdout is not None
    with process:
        assert process.stdout.readline() == b"now\n"
        process.send_signal(signal.SIGKILL)
    assert not target.exists()
    left = list(target.parent.iterdir())
    assert left, "the kill came too late"
    for unfinished in left:
        with pytest.raises(StorageFault, match="never finished"):
            claim_existing(unfinished)
        with pytest.raises(StorageFault, match="never finished"):
            open_rocks(unfinished, cluster_id="standalone", node_id="standalone")
    assert list_checkpoints(target.parent) == []
    with closing(open_rocks(store)) as storage:
        assert list(target.parent.iterdir()) == []
        assert list(store.glob(".*")) == []
        assert storage.load(0).last_index == 20
        storage.checkpoint(target)
    check(target, _same_writing(), 20, 20)


def _same_writing() -> Writing:
    """What the killed process wrote."""

    class Nowhere:
        def write(self, writes: object) -> None:
            pass

    writing = Writing(Nowhere())  # type: ignore[arg-type]
    for _ in range(20):
        writing.write()
    return writing
