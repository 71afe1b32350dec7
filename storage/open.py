"""Opening a storage by the name of its backend.

One table, so that a further backend is one more line in it. Each opener gets the same `Wanted`, takes
what it needs and imports its driver itself: a backend that is not used costs nothing, and one that is
not installed says what to install.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from allsource.storage.interface import Storage
from allsource.storage.memory import MemoryStorage
from allsource.storage.model.errors import StorageFault
from allsource.storage.model.partition import PARTITION_COUNT


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a storage is opened for. Numbers of 0 mean the backend's own default."""

    cluster_id: str
    node_id: str
    data_dir: Path | None
    partitions: int
    durability: str
    disk_free_bytes_min: int
    write_buffer_bytes: int
    block_cache_bytes: int
    background_jobs: int
    dsn: str


def open_storage(
    *,
    backend: str,
    data_dir: Path | str | None = None,
    cluster_id: str = "",
    node_id: str = "",
    partitions: int = PARTITION_COUNT,
    durability: str = "fsync",
    disk_free_bytes_min: int = 256 << 20,
    write_buffer_bytes: int = 0,
    block_cache_bytes: int = 0,
    background_jobs: int = 0,
    dsn: str = "",
) -> Storage:
    """Open the storage of a node; raises `StorageFault` (and its kinds) with what to do.

    `durability` is "fsync" (what was written is durable after `sync`) or "os" (the operating system has it
    when `write` returns: it survives the end of the process, but not a power cut). `dsn` is for PostgreSQL.
    The sizes and `background_jobs` are for RocksDB.
    """
    opener = BACKENDS.get(backend)
    if opener is None:
        known = ", ".join(sorted(BACKENDS))
        raise StorageFault(f"unknown storage backend {backend!r}; choose one of: {known}", backend=backend)
    if durability not in ("fsync", "os"):
        raise StorageFault(f'unknown durability {durability!r}; choose "fsync" or "os"')
    return opener(
        Wanted(
            cluster_id=cluster_id,
            node_id=node_id,
            data_dir=None if data_dir is None else Path(data_dir),
            partitions=partitions,
            durability=durability,
            disk_free_bytes_min=disk_free_bytes_min,
            write_buffer_bytes=write_buffer_bytes,
            block_cache_bytes=block_cache_bytes,
            background_jobs=background_jobs,
            dsn=dsn,
        )
    )


def _open_memory(wanted: Wanted) -> Storage:
    return MemoryStorage(
        cluster_id=wanted.cluster_id, node_id=wanted.node_id, partition_count=wanted.partitions
    )


def _open_rocksdb(wanted: Wanted) -> Storage:
    from allsource.storage.rocksdb.options import RocksOptions
    from allsource.storage.rocksdb.storage import claim_and_open

    if wanted.data_dir is None:
        raise StorageFault("the rocksdb backend needs a data_dir; set one for this node")
    default = RocksOptions()
    return claim_and_open(
        wanted.data_dir,
        cluster_id=wanted.cluster_id,
        node_id=wanted.node_id,
        partitions=wanted.partitions,
        durability=wanted.durability,
        disk_free_bytes_min=wanted.disk_free_bytes_min,
        options=RocksOptions(
            write_buffer_bytes=wanted.write_buffer_bytes or default.write_buffer_bytes,
            block_cache_bytes=wanted.block_cache_bytes or default.block_cache_bytes,
            background_jobs=wanted.background_jobs or default.background_jobs,
        ),
    )


def _open_postgres(wanted: Wanted) -> Storage:
    from allsource.storage.postgres.driver import node_target
    from allsource.storage.postgres.storage import PostgresStorage

    if not wanted.dsn:
        raise StorageFault("the postgres backend needs to know its server; set storage.dsn")
    return PostgresStorage(
        node_target(wanted.dsn, wanted.node_id),
        cluster_id=wanted.cluster_id,
        node_id=wanted.node_id,
        partition_count=wanted.partitions,
        durability=wanted.durability,
    )


BACKENDS: dict[str, Callable[[Wanted], Storage]] = {
    "memory": _open_memory,
    "postgres": _open_postgres,
    "rocksdb": _open_rocksdb,
}
"""Name in the configuration -> how to open it."""
