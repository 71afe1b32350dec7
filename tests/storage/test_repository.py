"""The repositories against their contract; addresses; what a failed disk does to an open one."""

from __future__ import annotations

import asyncio
import inspect
import textwrap
import threading
from collections.abc import Sequence
from itertools import count
from pathlib import Path

import pytest

from allsource.config.schema import Limits
from allsource.storage import repository
from allsource.storage.embedded.group_sync import GroupSync
from allsource.storage.embedded.log_repository import LogRepository
from allsource.storage.interface import Refusal
from allsource.storage.memory import MemoryStorage
from allsource.storage.model.entry import Entry
from allsource.storage.model.errors import (
    CheckpointsUnsupported,
    DirectoryInUse,
    DiskFull,
    ForeignDirectory,
    InvalidRequest,
    OutcomeUnknown,
    Overloaded,
    StorageFault,
)
from allsource.storage.model.events import NewEvent
from allsource.storage.model.partition import partition_of
from allsource.storage.open import open_storage
from allsource.storage.repository import (
    EventStreamRepository,
    InMemoryEventStreamRepository,
    RocksDBEventStreamRepository,
    open_repository,
)
from allsource.storage.rocksdb import checkpoint as rocksdb_checkpoint
from allsource.storage.rocksdb.storage import RocksStorage
from tests.examples import literal, replaced
from tests.storage.repository_contract import Clock, RepositoryBackend, RepositoryContract, new
from tests.storage.rocksdb.test_rocksdb import copy_while_open, open_rocks
from tests.waiting import DEADLINE_S, held_up, until


class MemoryRepositoryBackend:
    def make(self, *, limits: Limits | None = None, clock: Clock | None = None) -> EventStreamRepository:
        made = InMemoryEventStreamRepository(limits=limits)
        made._clock_us = clock or made._clock_us
        return made

    async def kill(self, events: EventStreamRepository) -> EventStreamRepository | None:
        return None

    def reopens(self) -> bool:
        return False


class RocksRepositoryBackend:
    def __init__(self, root: Path) -> None:
        self._paths = (root / f"data{n}" for n in count())
        self._path = next(self._paths)

    def make(self, *, limits: Limits | None = None, clock: Clock | None = None) -> EventStreamRepository:
        made = LogRepository(lambda: open_rocks(self._path, partition_count=32), limits=limits)
        made._clock_us = clock or made._clock_us
        return made

    async def kill(self, events: EventStreamRepository) -> EventStreamRepository | None:
        left = next(self._paths)
        assert isinstance(events, LogRepository)
        assert isinstance(events._opened, RocksStorage)
        copy_while_open(events._opened, self._path, left)
        self._path = left
        return self.make()

    def reopens(self) -> bool:
        return True


class TestMemoryRepository(RepositoryContract):
    @pytest.fixture
    def backend(self) -> RepositoryBackend:
        return MemoryRepositoryBackend()


class TestRocksRepository(RepositoryContract):
    @pytest.fixture
    def backend(self, tmp_path: Path) -> RepositoryBackend:
        return RocksRepositoryBackend(tmp_path)


# -- addresses


async def test_an_address_opens_its_repository(tmp_path: Path) -> None:
    assert isinstance(open_repository("memory://"), InMemoryEventStreamRepository)
    address = f"rocksdb://{tmp_path}/with%20space?durability=os"
    for version in (0, 1):
        async with open_repository(address) as events:
            assert isinstance(events, RocksDBEventStreamRepository)
            await events.append_to_stream("order-1", new(), version)
    assert (tmp_path / "with space" / "FORMAT").exists()


@pytest.mark.parametrize(
    "address",
    ["", "nowhere", "floppy:///a", "rocksdb://relative/path", "rocksdb://", "rocksdb:///a?durability=maybe",
     "rocksdb:///a?unheard=of", "memory:///somewhere", "memory://host"],
)  # fmt: skip
def test_other_addresses_are_refused_with_the_right_form(address: str) -> None:
    with pytest.raises(InvalidRequest, match=r"begins with|write (memory|rocksdb)"):
        open_repository(address)


async def test_one_process_at_a_time(tmp_path: Path) -> None:
    async with RocksDBEventStreamRepository(tmp_path):
        with pytest.raises(DirectoryInUse):
            await RocksDBEventStreamRepository(tmp_path).__aenter__()


async def test_a_nodes_directory_is_not_a_repository(tmp_path: Path) -> None:
    open_storage(backend="rocksdb", data_dir=tmp_path, cluster_id="c", node_id="n1").close()
    with pytest.raises(ForeignDirectory):
        await RocksDBEventStreamRepository(tmp_path).__aenter__()


async def test_the_example_on_the_page_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (example,) = literal(inspect.getdoc(repository) or "")
    example = replaced(example, {"/var/lib/shop": str(tmp_path)})
    scope = {"open_repository": open_repository, "NewEvent": NewEvent}
    exec("async def example():\n" + textwrap.indent(example, "    "), scope)
    await scope["example"]()  # type: ignore[operator]
    assert capsys.readouterr().out == "1 {'total': 5}\n"


# -- a disk that fails


class FailingStorage(MemoryStorage):
    """Its sync fails when told to; its disk is under whatever pressure it is told."""

    failing = False
    trouble: Refusal | None = None
    syncs = 0

    def sync(self) -> None:
        self.syncs += 1
        if self.failing:
            raise StorageFault("Input/output error")
        super().sync()

    def pressure(self) -> Refusal | None:
        return self.trouble


async def test_after_a_failed_sync_the_outcome_is_unknown_and_nothing_goes_on() -> None:
    storage = FailingStorage()
    async with LogRepository(lambda: storage) as events:
        await events.append_to_stream("order-1", new())
        storage.failing = True
        outcomes = await asyncio.gather(
            *(events.append_to_stream("order-1", new()) for _ in range(3)),
            events.read_stream("order-1"),
            return_exceptions=True,
        )
        assert all(isinstance(outcome, OutcomeUnknown) for outcome in outcomes[:3])
        storage.failing = False
        before = storage.syncs
        with pytest.raises(StorageFault, match="reopen"):
            await events.append_to_stream("order-1", new())
        with pytest.raises(StorageFault, match="reopen"):
            await events.read_stream("order-1")
        assert storage.syncs == before, "a failed sync must never be tried again"


async def test_pressure_refuses_appends_and_lets_reads_go_on() -> None:
    storage = FailingStorage()
    async with LogRepository(lambda: storage) as events:
        await events.append_to_stream("order-1", new())
        for error in (DiskFull, Overloaded):
            storage.trouble = Refusal(error, "1 MiB free")
            with pytest.raises(error, match="1 MiB free; nothing was written"):
                await events.append_to_stream("order-1", new())
        assert len(await events.read_stream("order-1")) == 1
        storage.trouble = None
        await events.append_to_stream("order-1", new(), 1)


async def test_a_read_waits_for_the_sync_of_what_it_saw() -> None:
    storage = FailingStorage()
    async with LogRepository(lambda: storage) as events:
        await events.append_to_stream("order-1", new())
        syncs = storage.syncs
        appending = asyncio.create_task(events.append_to_stream("order-1", new()))
        await asyncio.sleep(0)
        assert len(await events.read_stream("order-1")) == 2
        assert storage.syncs > syncs
        await appending


# -- group commit


class SlowDisk:
    """Counts its syncs and what each of them covered; ends one when it is told to."""

    def __init__(self) -> None:
        self.written = 0
        self.covered: list[int] = []

    def sync(self) -> None:
        self.covered.append(self.written)


async def test_many_writers_share_few_syncs_and_each_is_covered() -> None:
    disk = SlowDisk()
    group = GroupSync(disk)

    async def write() -> None:
        for _ in range(5):
            disk.written += 1
            mine = disk.written
            await group.durable()
            assert disk.covered[-1] >= mine

    await asyncio.gather(*(write() for _ in range(100)))
    assert len(disk.covered) <= 12, "a hundred writers must share their syncs"
    await group.close()


async def test_leaving_waits_for_a_checkpoint_and_the_loop_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on = held_up(monkeypatch, rocksdb_checkpoint, "_flush_the_bulk")
    async with RocksDBEventStreamRepository(tmp_path / "store") as events:
        await events.append_to_stream("a", new())
        making = asyncio.create_task(events.checkpoint(tmp_path / "copy"))
        assert await asyncio.to_thread(begun.wait, DEADLINE_S)
        making.cancel()  # stops nobody but the one who waits
        with pytest.raises(asyncio.CancelledError):
            await making
        # From the loop, which leaving must not hold up.
        asyncio.get_running_loop().call_later(0.01, go_on.set)
    async with RocksDBEventStreamRepository(tmp_path / "copy") as copy:
        assert len(await copy.read_stream("a")) == 1


async def test_who_gives_up_opening_leaves_it_to_others() -> None:
    go_on, opened = threading.Event(), []

    def slowly() -> MemoryStorage:
        assert go_on.wait(DEADLINE_S)
        opened.append(MemoryStorage(cluster_id="c", node_id="n"))
        return opened[0]

    opening = asyncio.create_task(LogRepository(slowly).__aenter__())
    await asyncio.sleep(0)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    go_on.set()
    await until(lambda: bool(opened) and opened[0]._closed)


class Counting(MemoryStorage):
    """Counts the entries that are read."""

    count = 0

    def entries(self, partition: int, first: int, last: int, bytes_max: int) -> list[Entry]:
        found = super().entries(partition, first, last, bytes_max)
        self.count += len(found)
        return found

    def entries_at(self, partition: int, indexes: Sequence[int]) -> list[Entry]:
        self.count += len(indexes)
        return super().entries_at(partition, indexes)


@pytest.mark.parametrize("backward", [False, True])
async def test_a_short_read_of_a_long_stream_reads_little(backward: bool) -> None:
    storage = Counting(cluster_id="c", node_id="n")
    async with LogRepository(lambda: storage) as events:
        for _ in range(100):
            await events.append_to_stream("a", new())
        for read in (
            events.read_stream("a", limit=3, backward=backward),
            events.read_partition(partition_of("a"), limit=3, backward=backward),
        ):
            storage.count = 0
            assert len(await read) == 3
            assert storage.count == 3


async def test_who_makes_no_checkpoints_says_so(tmp_path: Path) -> None:
    async with open_repository("memory://") as events:
        with pytest.raises(CheckpointsUnsupported, match="makes no checkpoints"):
            await events.checkpoint(tmp_path / "copy")
