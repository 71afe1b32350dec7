"""RocksDB's own figures: every property is one that it knows, and they follow what is written."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from allsource.storage.open import open_storage
from allsource.storage.rocksdb import figures as rocksdb_figures
from allsource.storage.rocksdb.keys import COLUMN_FAMILIES
from allsource.storage.rocksdb.storage import RocksStorage
from tests.storage.logs import LogModel


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[RocksStorage]:
    storage = open_storage(backend="rocksdb", data_dir=tmp_path / "data", block_cache_bytes=3 << 20)
    assert isinstance(storage, RocksStorage)
    yield storage
    storage.close()


def test_rocksdb_knows_every_property(storage: RocksStorage) -> None:
    """It says nothing of one that it does not know, and that would be exported as 0."""
    asked = [
        *rocksdb_figures._OF_A_FAMILY.values(),
        *rocksdb_figures._OF_THE_DATABASE.values(),
        *rocksdb_figures._OF_THE_CACHE.values(),
    ]
    assert [name for name in asked if storage._database.events.property_value(name) is None] == []
    assert storage._database.events.property_value("rocksdb.no-such-thing") is None


def test_figures_follow_what_is_written(storage: RocksStorage) -> None:
    def shown(name: str) -> int:
        return storage.properties()[f"rocksdb_{name}"]

    log, before = LogModel(1), storage.properties()
    storage.write([log.write(log.events(("a", 1), data=Random(1).randbytes(8000)), log.events(("b", 3)))])
    storage.sync()
    assert shown("wal_bytes") >= before["rocksdb_wal_bytes"] + 8000
    assert shown('memtable_bytes{family="events"}') > before['rocksdb_memtable_bytes{family="events"}']
    assert shown('estimated_keys{family="events"}') == 2
    assert shown('live_sst_bytes{family="events"}') == 0
    storage._database.events.flush()
    assert shown('live_sst_bytes{family="events"}') > 8000 // 300, "there, and perhaps compressed"
    assert shown('level0_files{family="events"}') == 1
    assert shown('level0_files{family="streams"}') == 0
    assert shown("block_cache_capacity_bytes") == 3 << 20
    assert storage.properties()["disk_free_bytes"] > 0


def test_each_family_has_its_own_series(storage: RocksStorage) -> None:
    names = [name for name in storage.properties() if name.startswith("rocksdb_live_sst_bytes")]
    assert names == [f'rocksdb_live_sst_bytes{{family="{family}"}}' for family in COLUMN_FAMILIES]
