"""What RocksDB says of itself, for /metrics.

Only properties that RocksDB has at hand: none of them makes it walk a file or a log. Statistics (hit rates,
bytes read) are not switched on: they would cost every read and write a little.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from allsource.storage.rocksdb.database import Database

_OF_A_FAMILY = {
    "memtable_bytes": "rocksdb.cur-size-all-mem-tables",
    "immutable_memtables": "rocksdb.num-immutable-mem-table",
    "sst_bytes": "rocksdb.total-sst-files-size",
    "live_sst_bytes": "rocksdb.live-sst-files-size",
    "blob_bytes": "rocksdb.live-blob-file-size",
    "pending_compaction_bytes": "rocksdb.estimate-pending-compaction-bytes",
    "level0_files": "rocksdb.num-files-at-level0",
    "estimated_keys": "rocksdb.estimate-num-keys",
}
_OF_THE_DATABASE = {
    "write_stopped": "rocksdb.is-write-stopped",
    "delayed_write_bytes_per_second": "rocksdb.actual-delayed-write-rate",
    "running_compactions": "rocksdb.num-running-compactions",
    "running_flushes": "rocksdb.num-running-flushes",
    "background_errors": "rocksdb.background-errors",
}
_OF_THE_CACHE = {
    "block_cache_usage_bytes": "rocksdb.block-cache-usage",
    "block_cache_capacity_bytes": "rocksdb.block-cache-capacity",
}


def figures(database: Database) -> dict[str, int]:
    """By name. A figure of one column family names the family in a label, in Prometheus' notation."""
    found = {
        f'rocksdb_{name}{{family="{family}"}}': int(handle.property_value(property) or 0)
        for name, property in _OF_A_FAMILY.items()
        for family, handle in database.families.items()
    }
    # The families share one block cache (not with RocksDB's own, unused default family).
    for handle, properties in ((database.db, _OF_THE_DATABASE), (database.events, _OF_THE_CACHE)):
        for name, property in properties.items():
            found[f"rocksdb_{name}"] = int(handle.property_value(property) or 0)
    found["rocksdb_wal_bytes"] = _wal_bytes(database.path)
    return found


def _wal_bytes(path: Path) -> int:
    """The size of the write-ahead logs; one that RocksDB removes meanwhile counts as gone."""
    size = 0
    with os.scandir(path) as files:
        for file in files:
            if file.name.endswith(".log"):
                with suppress(FileNotFoundError):
                    size += file.stat().st_size
    return size
