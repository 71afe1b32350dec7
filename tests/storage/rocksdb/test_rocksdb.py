"""The RocksDB backend against the contract, and against what only a disk can suffer."""

from __future__ import annotations

import gc
import os
import shutil
import subprocess
import sys
from contextlib import suppress
from itertools import count
from pathlib import Path
from random import Random
from time import monotonic

import pytest

from allsource.storage.files.directory import claim_existing
from allsource.storage.model.entry import EVENTS, NOOP, Entry, make_entry
from allsource.storage.model.errors import (
    Corrupt,
    DirectoryInUse,
    DiskFull,
    ForeignDirectory,
    Overloaded,
    StorageFault,
)
from allsource.storage.model.log import HardState, PartitionWrite
from allsource.storage.open import open_storage
from allsource.storage.rocksdb import keys
from allsource.storage.rocksdb.options import RocksOptions
from allsource.storage.rocksdb.pressure import Pressure, Room
from allsource.storage.rocksdb.storage import RocksStorage, claim_and_open
from tests.storage.contract import PARTITIONS, Backend, StorageContract, check_equal
from tests.storage.logs import LogModel, part

SMALL = RocksOptions(write_buffer_bytes=4 << 20, block_cache_bytes=4 << 20, background_jobs=1)


def open_rocks(path: Path, **changed: object) -> RocksStorage:
    wanted: dict = {
        "cluster_id": "c",
        "node_id": "n1",
        "partition_count": PARTITIONS,
        "options": SMALL,
        **changed,
    }
    return claim_and_open(path, partitions=wanted.pop("partition_count"), **wanted)


def wal_sizes(path: Path) -> dict[str, int]:
    sizes = {}
    for log in (path / "db").glob("*.log"):
        with suppress(FileNotFoundError):  # RocksDB removes old ones in the background
            sizes[log.name] = log.stat().st_size
    return sizes


def wait_until_idle(storage: RocksStorage) -> None:
    """Until nothing is being flushed or compacted: the files can be copied only while they stand still."""
    deadline = monotonic() + 60
    flushing = ("mem-table-flush-pending", "num-running-flushes")
    compacting = ("compaction-pending", "num-running-compactions")
    while any(
        family.property_int_value(f"rocksdb.{name}")
        for family in storage._database.families.values()
        for name in (*flushing, *compacting)
    ):
        assert monotonic() < deadline, "RocksDB's background work does not end"


def copy_while_open(storage: RocksStorage, source: Path, target: Path) -> None:
    """The files of an open database as they are. RocksDB deletes files that it no longer needs when it
    likes; a copy that lost one under its hands is made again."""
    deadline = monotonic() + 60
    while True:
        wait_until_idle(storage)
        try:
            shutil.copytree(source, target)
        except shutil.Error:
            assert monotonic() < deadline, "the files never stand still"
            shutil.rmtree(target)
        else:
            return


class RocksBackend:
    """A crash is a copy of the files as they are, its log cut anywhere behind what was synced."""

    def __init__(self, root: Path) -> None:
        self._paths = (root / f"data{n}" for n in count())
        self._path = next(self._paths)
        self._synced: dict[str, int] = {}

    def open(self) -> RocksStorage:
        storage = open_rocks(self._path)
        self._watch(storage)
        return storage

    def crash(self, storage: RocksStorage, random: Random) -> RocksStorage:
        left = next(self._paths)
        copy_while_open(storage, self._path, left)
        storage.close()
        for name, size in wal_sizes(left).items():
            os.truncate(left / "db" / name, random.randint(self._synced.get(name, 0), size))
        self._path = left
        return self.open()

    def reopens(self) -> bool:
        return True

    def _watch(self, storage: RocksStorage) -> None:
        """Note the size of the log at each sync, as a disk would know what it was told to keep."""
        path, sync = self._path, storage.sync

        def watched() -> None:
            sync()
            self._synced = wal_sizes(path)

        self._synced = wal_sizes(path)
        storage.sync = watched  # type: ignore[method-assign]


class TestRocksContract(StorageContract):
    @pytest.fixture
    def backend(self, tmp_path: Path) -> Backend:
        return RocksBackend(tmp_path)


# -- a torn tail, and corruption


def filled(path: Path, entries: int = 60, *, unsynced: int = 0) -> LogModel:
    """A data directory as a power cut leaves it: `entries` synced, `unsynced` more only written."""
    storage = open_rocks(path.with_name("live"))
    log = LogModel(0)
    for _ in range(entries):
        storage.write([log.write(log.events(("a", 1), data=b"x" * 700))])
    storage.sync()
    for _ in range(unsynced):
        storage.write([log.write(log.events(("a", 1), data=b"x" * 700))])
    copy_while_open(storage, path.with_name("live"), path)
    storage.close()
    return log


def wal(path: Path) -> Path:
    return max((path / "db").glob("*.log"), key=lambda log: log.stat().st_size)


def flip(file: Path, at: int) -> None:
    raw = bytearray(file.read_bytes())
    raw[at] ^= 0x40
    file.write_bytes(raw)


@pytest.mark.parametrize("lost", [1, 7, 100, 800])
def test_a_torn_tail_that_nobody_acknowledged_is_cut(tmp_path: Path, lost: int) -> None:
    path = tmp_path / "data"
    log = filled(path, 60, unsynced=3)
    os.truncate(wal(path), wal(path).stat().st_size - lost)
    storage = open_rocks(path)
    log.cut(storage.load(0).last_index + 1)
    assert 60 <= len(log.entries) < 63
    check_equal(storage, [log])
    storage.write([log.write(log.events(("a", 1)))])
    storage.close()
    again = open_rocks(path)
    check_equal(again, [log])
    again.close()


def test_garbage_behind_what_was_synced_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "data"
    log = filled(path)
    with wal(path).open("ab") as file:
        file.write(Random(1).randbytes(5000))
    storage = open_rocks(path)
    check_equal(storage, [log])
    storage.close()


def test_a_damaged_record_that_nobody_acknowledged_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "data"
    log = filled(path, unsynced=1)
    flip(wal(path), wal(path).stat().st_size - 30)
    storage = open_rocks(path)
    log.cut(61)
    check_equal(storage, [log])
    storage.close()


@pytest.mark.parametrize("where", [0.05, 0.4, 0.9, 0.999])
def test_a_flipped_bit_in_what_was_synced_is_corruption(tmp_path: Path, where: float) -> None:
    path = tmp_path / "data"
    filled(path)
    log_file = wal(path)
    flip(log_file, int(log_file.stat().st_size * where))
    damaged = log_file.read_bytes()
    for _ in range(2):  # it stays refused, and the evidence stays
        with pytest.raises(Corrupt, match=r"synced up to .* leave the node stopped"):
            open_rocks(path)
        assert (path / "wal-before-recovery" / log_file.name).read_bytes() == damaged


@pytest.mark.parametrize("left", [0, 300, 30_000])
def test_a_log_that_was_cut_short_is_corruption(tmp_path: Path, left: int) -> None:
    path = tmp_path / "data"
    filled(path)
    os.truncate(wal(path), left)
    with pytest.raises(Corrupt, match="damaged or removed"):
        open_rocks(path)


def test_a_removed_log_is_corruption(tmp_path: Path) -> None:
    path = tmp_path / "data"
    filled(path)
    wal(path).unlink()
    with pytest.raises(Corrupt, match="damaged or removed"):
        open_rocks(path)


@pytest.mark.parametrize("read_only", [False, True])
def test_a_removed_mark_is_corruption_and_not_made_anew(tmp_path: Path, read_only: bool) -> None:
    path = tmp_path / "data"
    filled(path)
    (path / "SYNCED").unlink()
    for _ in range(2):
        with pytest.raises(Corrupt, match="SYNCED is missing"):
            RocksStorage(claim_existing(path), read_only=read_only)
    assert not (path / "SYNCED").exists()


def flushed(path: Path) -> LogModel:
    """A data directory whose events are in a table file."""
    storage = open_rocks(path)
    log = LogModel(0)
    storage.write([log.write(*[log.events(("a", 1), data=Random(i).randbytes(900)) for i in range(200)])])
    storage._database.events.flush()
    storage.close()
    return log


def biggest_table(path: Path) -> Path:
    return max((path / "db").glob("*.sst"), key=lambda table: table.stat().st_size)


def test_a_flipped_bit_in_a_table_is_corruption_when_it_is_read(tmp_path: Path) -> None:
    log = flushed(tmp_path)
    table = biggest_table(tmp_path)
    flip(table, table.stat().st_size // 2)
    storage = open_rocks(tmp_path)
    assert storage.entries(0, 1, 1, 1) == log.entries[:1]
    for read in (
        lambda: storage.entries(0, 1, 200, 1 << 30),
        lambda: storage.entries_at(0, range(1, 201)),
        lambda: [storage.entries_at(0, [index]) for index in range(1, 201)],
    ):
        with pytest.raises(Corrupt, match=r"checksum mismatch.*leave the node stopped"):
            read()
    assert any("checksum mismatch" in fault for fault in storage.verify(0))
    assert list(storage.verify(1)) == []
    storage.close()


@pytest.mark.parametrize("file", ["table", "manifest", "removed table"])
def test_damaged_files_are_corruption_at_start(tmp_path: Path, file: str) -> None:
    flushed(tmp_path)
    table = biggest_table(tmp_path)
    manifest = next((tmp_path / "db").glob("MANIFEST-*"))
    if file == "table":
        flip(table, table.stat().st_size - 20)
    elif file == "manifest":
        flip(manifest, manifest.stat().st_size // 2)
    else:
        table.unlink()
    with pytest.raises(Corrupt, match="leave the node stopped"):
        open_and_load(tmp_path)


def open_and_load(path: Path) -> None:
    storage = open_rocks(path)
    try:
        storage.load(0)  # a table is opened when it is first needed
    finally:
        storage.close()


def test_a_bad_last_record_is_found_by_load(tmp_path: Path) -> None:
    storage = open_rocks(tmp_path)
    log = LogModel(0)
    entry = log.events(("a", 1))
    entry.record = entry.record[:-1] + b"?"
    storage.write([log.write(entry)])
    storage.close()
    storage = open_rocks(tmp_path)
    with pytest.raises(Corrupt, match="CRC"):
        storage.load(0)
    assert any("CRC" in fault for fault in storage.verify(0))
    storage.close()


def test_another_directorys_database_is_refused(tmp_path: Path) -> None:
    for name in ("one", "other"):
        open_rocks(tmp_path / name).close()
    shutil.rmtree(tmp_path / "one" / "db")
    with pytest.raises(Corrupt, match="missing"):
        open_rocks(tmp_path / "one")
    shutil.copytree(tmp_path / "other" / "db", tmp_path / "one" / "db")
    with pytest.raises(Corrupt, match="not the database"):
        open_rocks(tmp_path / "one")


# -- who may open it


def test_a_crash_while_the_directory_is_made_is_repaired(tmp_path: Path) -> None:
    open_rocks(tmp_path).close()
    (tmp_path / "FORMAT").rename(tmp_path / "FORMAT.new")
    storage = open_rocks(tmp_path)
    assert storage.identity.incarnation == 1
    storage.close()
    assert {"FORMAT", "LOCK", "SYNCED", "db"} == {entry.name for entry in tmp_path.iterdir()}


def test_it_opens_once_at_a_time(tmp_path: Path) -> None:
    storage = open_rocks(tmp_path)
    with pytest.raises(DirectoryInUse, match=str(os.getpid())):
        open_rocks(tmp_path)
    storage.close()
    open_rocks(tmp_path).close()


def test_a_refused_open_releases_the_directory(tmp_path: Path) -> None:
    open_rocks(tmp_path).close()
    with pytest.raises(ForeignDirectory):
        open_rocks(tmp_path, node_id="n2")
    open_rocks(tmp_path).close()


# -- a sync that fails, a disk that fills


def test_after_a_failed_sync_nothing_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = open_rocks(tmp_path)
    log = LogModel(0)

    def refuse(sequence: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(storage._opened.mark, "advance", refuse)
    storage.write([log.write(log.noop())])
    with pytest.raises(StorageFault, match="must exit"):
        storage.sync()
    monkeypatch.undo()
    for act in (storage.sync, lambda: storage.write([log.write(log.noop())]), lambda: storage.put_meta({})):
        with pytest.raises(StorageFault, match="must exit"):
            act()
    storage.close()


def test_pressure_comes_before_refusal(tmp_path: Path) -> None:
    storage = open_rocks(tmp_path)
    now, free = 0.0, 1000 << 20
    storage._pressure = Pressure(
        storage._database, 256 << 20, clock=lambda: now, measure=lambda path: Room(free, 10**6)
    )
    log = LogModel(0)
    assert storage.pressure() is None

    now, free = 1.0, 255 << 20
    error, reason = storage.pressure() or (None, "")
    assert (error, "nearly full" in reason) == (DiskFull, True)
    storage.write([log.write(log.noop())])  # what a leader elsewhere has sent still goes in

    now, free = 2.0, 63 << 20
    before = log.copy()
    with pytest.raises(DiskFull, match="nothing was written"):
        storage.write([log.write(log.noop())])
    storage.write([PartitionWrite(0, HardState(9, "n2", 1))])  # a vote does, too
    before.hard = HardState(9, "n2", 1)
    check_equal(storage, [before])

    now, free = 3.0, 1000 << 20
    assert storage.pressure() is None
    storage.close()


def test_pressure_is_looked_up_seldom(tmp_path: Path) -> None:
    storage = open_rocks(tmp_path)
    looks = []
    now = 0.0
    pressure = Pressure(
        storage._database,
        1,
        clock=lambda: now,
        measure=lambda path: looks.append(path) or Room(1 << 40, 10**6),
    )
    for _ in range(100):
        pressure.refusal()
    assert len(looks) == 1
    now = 0.05
    pressure.refusal()
    assert len(looks) == 1
    now = 0.2
    pressure.refusal()
    assert len(looks) == 2
    storage.close()


def test_waiting_write_buffers_are_pressure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = open_rocks(tmp_path)

    class Waiting:
        def property_int_value(self, name: str) -> int:
            return 4 if name.endswith("num-immutable-mem-table") else 0

        def property_value(self, name: str) -> str:
            return "0"

    monkeypatch.setitem(storage._database.families, "ids", Waiting())
    error, reason = storage.pressure() or (None, "")
    assert (error, "4 write buffers of ids" in reason) == (Overloaded, True)
    monkeypatch.undo()
    storage.close()


# -- durability, tuning


def test_durability_os_does_not_sync_each_time(tmp_path: Path) -> None:
    storage = open_rocks(tmp_path, durability="os")
    log = LogModel(0)
    synced = storage._opened.mark.sequence
    storage.write([log.write(log.noop())])
    storage.sync()
    assert storage._opened.mark.sequence == synced
    storage.put_meta({"a": b"1"})
    assert storage._opened.mark.sequence > synced
    storage.close()


def test_open_storage_knows_its_backends(tmp_path: Path) -> None:
    memory = open_storage(backend="memory", node_id="n1")
    assert memory.identity.node_id == "n1"
    memory.close()
    rocks = open_storage(backend="rocksdb", data_dir=tmp_path / "d", partitions=4, node_id="n1")
    assert rocks.partition_count == 4
    rocks.close()
    with pytest.raises(StorageFault, match="choose one of: memory"):
        open_storage(backend="floppy")
    with pytest.raises(StorageFault, match="durability"):
        open_storage(backend="memory", durability="maybe")
    with pytest.raises(StorageFault, match="data_dir"):
        open_storage(backend="rocksdb")


def test_everything_survives_flushes_and_compactions(tmp_path: Path) -> None:
    storage = open_rocks(tmp_path)
    logs = [LogModel(p) for p in range(3)]
    for round_ in range(4):
        for log in logs:
            storage.write([log.write(*[log.events((f"s{i % 7}", 2), data=b"y" * 50) for i in range(20)])])
            log.cut(len(log.entries) - 2)
            storage.write([log.write(truncate_from=len(log.entries) + 1)])
        for family in storage._database.families.values():
            family.flush()
        if round_ == 2:
            for family in storage._database.families.values():
                family.compact_range(None, None)
    check_equal(storage, logs)
    storage.close()
    again = open_rocks(tmp_path)
    check_equal(again, logs)
    again.close()


def test_a_disk_that_does_not_say_how_full_it_is_counts_as_it_was(tmp_path: Path) -> None:
    storage, now, answers = open_rocks(tmp_path), [0.0], [10]

    def measure(_: Path) -> Room:
        if not answers:
            raise OSError(5, "Input/output error")
        return Room(answers.pop(), 10**6)

    pressure = Pressure(storage._database, 1, clock=lambda: now[0], measure=measure)
    assert pressure.refusal() is None
    now[0] += 1
    assert pressure.refusal() is None
    assert pressure.refuses(20) is not None
    storage.close()


def test_damage_that_a_write_meets_names_its_partition(tmp_path: Path) -> None:
    storage = open_rocks(tmp_path)
    for partition in (1, 2):
        entries = [entry_of(partition, index) for index in (1, 2)]
        storage.write([PartitionWrite(partition, entries=entries)])
    storage._database.events[keys.entry_key(2, 2)] = b"no record"
    writes = [PartitionWrite(1, entries=[entry_of(1, 3)]), PartitionWrite(2, truncate_from=2)]
    with pytest.raises(Corrupt) as caught:
        storage.write(writes)
    assert caught.value.details["partition"] == 2
    assert storage.load(1).last_index == 2
    storage.write(writes[:1])
    assert storage.load(1).last_index == 3
    storage.close()


def entry_of(partition: int, index: int) -> Entry:
    return make_entry(
        partition=partition,
        index=index,
        term=1,
        kind=NOOP,
        first_position=1,
        timestamp_us=0,
    )


def test_a_disk_without_inodes_is_full_too(tmp_path: Path) -> None:
    storage, inodes = open_rocks(tmp_path), [100]
    now = count()
    storage._pressure = Pressure(
        storage._database, 0, clock=lambda: float(next(now)), measure=lambda _: Room(1 << 40, inodes[0])
    )
    refusal = storage.pressure()
    assert refusal is not None
    assert refusal.error is DiskFull
    assert "100 inodes" in refusal.reason
    storage.write([PartitionWrite(1, entries=[entry_of(1, 1)])])  # what others lead goes on
    inodes[0] = 10
    with pytest.raises(DiskFull, match="10 inodes"):
        storage.write([PartitionWrite(1, entries=[entry_of(1, 2)])])
    assert storage.load(1).last_index == 1
    storage.close()


RUN_FULL = """
import resource, sys
from pathlib import Path
from allsource.storage.model.errors import AllsourceError
from allsource.storage.model.log import HardState, PartitionWrite
from allsource.storage.rocksdb.storage import claim_and_open

def opened():
    return claim_and_open(Path(sys.argv[1]), cluster_id="c", node_id="n", partitions=2)

def limit(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

if sys.argv[2] == "again":
    storage = opened()
    print(storage.load(0).hard.term)
    storage.close()
    limit(0)
    try:
        opened()
    except AllsourceError as error:
        print(type(error).__name__, error.message)
    raise SystemExit
storage = opened()
limit(200_000)  # no file may grow beyond it: the system says so as it does of a full disk
synced = 0
try:
    while True:
        storage.write([PartitionWrite(0, hard=HardState(synced + 1, "n" * 4000, 0))])
        storage.sync()
        synced += 1
except AllsourceError as error:
    print(type(error).__name__, synced, error.message)
limit(resource.RLIM_INFINITY)
for method in (lambda: storage.write([PartitionWrite(0, hard=HardState(9, "", 0))]), storage.sync):
    try:
        method()
    except AllsourceError as error:
        print(type(error).__name__)
storage.close()
"""


def test_a_disk_that_runs_full_under_a_write_is_named_and_loses_nothing(tmp_path: Path) -> None:
    first, write, sync = _run_full(tmp_path, "once")
    term, start = _run_full(tmp_path, "again")
    name, synced, message = first.split(maxsplit=2)
    assert name == write == sync == "DiskRanFull"
    assert "the disk is full" in message
    assert int(term) >= int(synced) > 0
    assert start.startswith("DiskFull cannot use the data directory")


def _run_full(directory: Path, time: str) -> list[str]:
    ran = subprocess.run(
        [sys.executable, "-c", RUN_FULL, str(directory / "data"), time],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.splitlines()


# -- damaged blocks


def with_a_damaged_block(path: Path) -> None:
    """Four partitions in table files that a compaction would merge; a block of one is damaged."""
    storage = open_rocks(path, options=RocksOptions(write_buffer_bytes=1 << 20))
    random, logs = Random(7), [LogModel(p) for p in range(4)]
    for _ in range(2):
        for _ in range(50):
            storage.write([log.write(log.events(("s", 1), data=random.randbytes(2000))) for log in logs])
        storage._database.events.flush(wait=True)
    storage.close()
    table = max((path / "db").glob("*.sst"), key=lambda file: file.stat().st_size)
    flip(table, table.stat().st_size // 3)


def damaged_partitions(storage: RocksStorage) -> list[int]:
    return [p for p in range(4) if any(storage.verify(p))]


def takes_no_write(storage: RocksStorage) -> bool:
    try:
        storage.write([PartitionWrite(0, hard=HardState(1, "", 0))])
    except Corrupt as error:  # of no partition in particular
        return "partition" not in error.details
    return False


def compact(storage: RocksStorage) -> None:
    with suppress(Exception):
        storage._database.events.compact_range(None, None)


@pytest.mark.parametrize("met_by", ["read", "compaction"])
def test_a_damaged_block_costs_only_the_partitions_that_have_it(tmp_path: Path, met_by: str) -> None:
    """RocksDB takes no write any more once a compaction has met it: that ended the node again and again."""
    with_a_damaged_block(tmp_path)
    storage = open_rocks(tmp_path, options=RocksOptions(write_buffer_bytes=1 << 20))
    assert not storage.is_suspect
    if met_by == "read":
        assert damaged_partitions(storage)
    else:
        compact(storage)
        assert takes_no_write(storage)
    assert storage.is_suspect
    with suppress(Exception):
        storage.close()
    del storage
    gc.collect()

    storage = open_rocks(tmp_path, options=RocksOptions(write_buffer_bytes=1 << 20))
    assert storage.is_suspect
    damaged = damaged_partitions(storage)
    assert 1 <= len(damaged) <= 2
    whole = next(p for p in range(4) if p not in damaged)
    log = LogModel(whole, storage.entries(whole, 1, 100, 1 << 30))
    for _ in range(1200):  # more than the write buffers hold: it flushes, and would compact
        version = len(log.entries) + 1
        new = part("s", version, data=b"y" * 4000)
        storage.write([log.write(log._add(EVENTS, 1, appends=[new]))])
    for family in storage._database.families.values():
        family.flush(wait=True)
    storage.sync()
    assert storage.entries(whole, 1300, 1300, 0)[0].index == 1300
    storage.close()


def test_a_suspicion_that_was_cleared_is_gone(tmp_path: Path) -> None:
    storage = open_rocks(tmp_path)
    storage.note_damage(Corrupt("a block"))
    assert storage.is_suspect
    storage.clear_suspicion()
    storage.close()
    storage = open_rocks(tmp_path)
    assert not storage.is_suspect
    storage.close()
