"""The memory backend against the contract."""

from __future__ import annotations

from random import Random

import pytest

from allsource.storage.memory import MemoryStorage
from allsource.storage.model.entry import Mark, Place
from allsource.storage.model.log import PartitionWrite
from tests.storage.contract import PARTITIONS, Backend, StorageContract
from tests.storage.logs import LogModel


class MemoryBackend:
    def open(self) -> MemoryStorage:
        return MemoryStorage(cluster_id="c", node_id="n1", partition_count=PARTITIONS)

    def crash(self, storage: MemoryStorage, random: Random) -> MemoryStorage:
        storage.crash()
        return storage

    def reopens(self) -> bool:
        return False


class TestMemoryContract(StorageContract):
    @pytest.fixture
    def backend(self) -> Backend:
        return MemoryBackend()


def test_a_crash_forgets_exactly_what_was_not_synced() -> None:
    storage = MemoryBackend().open()
    log = LogModel(0)
    storage.write([log.write(log.events(("a", 1)), log.events(("a", 2)))])
    storage.sync()
    before = storage.load(0)
    cut = log.copy()
    cut.cut(2)
    storage.write([cut.write(cut.noop(2), truncate_from=2)])
    storage.write([cut.write(cut.events(("b", 1), term=2))])
    storage.crash()
    assert storage.load(0) == before
    assert storage.entries(0, 1, 9, 1 << 20) == log.entries
    assert storage.head(0, "b") is None
    assert list(storage.verify(0)) == []


def test_each_one_is_a_new_replica() -> None:
    one, other = MemoryBackend().open(), MemoryBackend().open()
    assert one.identity.node_id == other.identity.node_id
    assert one.identity.replica_id != other.identity.replica_id


def test_a_crash_raises_the_incarnation() -> None:
    storage = MemoryBackend().open()
    storage.crash()
    assert storage.identity.incarnation == 2


def test_verify_finds_what_was_tampered_with() -> None:
    log = LogModel(0)
    log.events(("a", 1), ("b{t}", 2), marks=[Mark("m", 1, 0)])
    log.noop()
    log.events(("a", 2))

    def faults(break_it) -> list[str]:  # type: ignore[no-untyped-def]
        storage = MemoryBackend().open()
        storage.write([PartitionWrite(0, None, None, log.entries)])
        assert list(storage.verify(0)) == []
        break_it(storage._logs[0])
        return list(storage.verify(0))

    def flip(inner) -> None:  # type: ignore[no-untyped-def]
        entry = inner.entries[0]
        entry.record = entry.record[:60] + bytes([entry.record[60] ^ 1]) + entry.record[61:]

    intact = log.entries[0].record
    assert "CRC" in faults(flip)[0]
    log.entries[0].record = intact
    assert "its head" in faults(lambda inner: inner.heads.pop("a"))[0]
    assert "indexed at None" in faults(lambda inner: inner.ids.pop(log.entries[0].parts[0].first_id))[0]
    assert "version index" in faults(lambda inner: inner.slices["a"].pop())[0]
    assert "the indexes hold" in faults(lambda inner: inner.ids.update({bytes(16): Place(1, 0)}))[0]
    assert "tag index" in faults(lambda inner: inner.tags["t"].pop())[0]
    assert "mark 'm' is stored" in faults(lambda inner: inner.moved["m"].pop())[0]
    assert "the indexes hold" in faults(lambda inner: inner.moved.update(x=inner.moved["m"]))[0]
    assert "term starts" in faults(lambda inner: inner.marks.terms.clear())[0]
    assert "entries are missing" in " ".join(faults(lambda inner: inner.entries.pop(1)))
