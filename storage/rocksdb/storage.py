"""A node's default storage: one RocksDB for the logs of all its partitions and their indexes.

One `write` call is one `WriteBatch`, so log, indexes and hard states change together or not at all.
RocksDB hands each batch to the operating system before `write` returns (rocksdict does not offer
`manual_wal_flush`): a killed process loses nothing that it wrote, a power cut loses what was not
synced. `sync` fsyncs the write-ahead log; with durability "os" there is nothing left for it to do.

What only reads is in `reading`. `keys` has the layout, `batch` how a write becomes a batch, `opening` and
`database` opening and faults, `pressure` the refusals, `checkpoint` copies, `options` the tuning, and
`figures` what /metrics shows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from threading import Lock

from allsource.storage.files.directory import DataDirectory, claim_directory
from allsource.storage.files.room import disk_ran_full, means_full
from allsource.storage.interface import Refusal
from allsource.storage.model.errors import (
    Corrupt,
    DiskFull,
    DiskRanFull,
    Overloaded,
    StorageFault,
)
from allsource.storage.model.log import PartitionWrite
from allsource.storage.model.writes import combined
from allsource.storage.rocksdb import keys
from allsource.storage.rocksdb.batch import BatchBuilder
from allsource.storage.rocksdb.checkpoint import take_checkpoint
from allsource.storage.rocksdb.database import fault_of, named_faults
from allsource.storage.rocksdb.figures import figures
from allsource.storage.rocksdb.opening import open_database
from allsource.storage.rocksdb.options import RocksOptions
from allsource.storage.rocksdb.pressure import Pressure, free_bytes
from allsource.storage.rocksdb.reading import RocksReads

FSYNC = "fsync"


class RocksStorage(RocksReads):
    """See the module's page, and `storage.interface` for what the methods promise."""

    def __init__(
        self,
        directory: DataDirectory,
        *,
        durability: str = FSYNC,
        options: RocksOptions | None = None,
        disk_free_bytes_min: int = 0,
        read_only: bool = False,
    ) -> None:
        """Open the database in a directory that was claimed, making it if the directory is new.

        `read_only`: nothing is written, and recovery changes no file. Raises `StorageFault` and its kinds;
        then the directory is released.
        """
        super().__init__()
        self.path = directory.path
        self.partition_count = directory.format.partitions
        self._fsync = durability == FSYNC
        self._fault: StorageFault | None = None  # why nothing may be written any more
        self._closed = False
        self._directory = directory
        self._disk_free_bytes_min = disk_free_bytes_min
        self._checkpointing = Lock()
        self._noted_damage = True  # not before it is open
        options = replace(options or RocksOptions(), compacts=not directory.is_suspect)
        try:
            self._open(options, read_only=read_only)
        except BaseException:
            directory.release()
            raise
        self._noted_damage = read_only
        self._pressure = Pressure(self._database, disk_free_bytes_min)
        if read_only:
            self._fault = StorageFault("this storage was opened to be checked; nothing is written")

    @named_faults
    def _open(self, options: RocksOptions, *, read_only: bool) -> None:
        self._opened = open_database(self._directory, options, read_only=read_only)
        self._database, _, self.identity = self._opened

    # -- writing

    @named_faults
    def write(self, writes: Sequence[PartitionWrite]) -> None:
        if self._fault is not None:
            raise self._fault
        builder = BatchBuilder(self._database, self._heads, self._tail)
        truncated = builder.add_all(combined(writes))
        if builder.has_entries and (full := self._pressure.refuses(builder.size())):
            raise DiskFull(f"{full}: nothing was written; free some space", path=str(self.path))
        try:
            self._database.db.write(builder.batch)
        except Exception as error:
            if means_full(error):  # RocksDB takes no write any more, and does not say how much it took
                self._fault = disk_ran_full(self.path)
                raise self._fault from error
            raise
        self._tails.update(builder.tails)
        if truncated:
            self._heads.clear()
            self._found.clear()
        self._heads.update(builder.heads)  # None hides what a truncation made untrue
        self._heads.age()

    @property
    def sync_is_short(self) -> bool:
        return not self._fsync

    @named_faults
    def sync(self) -> None:
        if self._fault is not None:
            raise self._fault
        if self._fsync:
            self._sync()

    def _sync(self) -> None:
        try:
            self._opened.sync()
        except Exception as error:
            if isinstance(fault := fault_of(error, self.path), Corrupt):
                self.note_damage(fault)
            # The kernel may report a failed write-back once and forget it: nothing may go on after it.
            self._fault = (
                disk_ran_full(self.path)
                if means_full(error)
                else StorageFault(
                    f"{self.path}: a sync failed ({error}); the process must exit", path=str(self.path)
                )
            )
            raise self._fault from error

    # -- damage

    @property
    def is_suspect(self) -> bool:
        """Whether a damaged block was met, now or earlier: somebody should look what else is damaged."""
        return self._directory.is_suspect

    def clear_suspicion(self) -> None:
        """Everything was verified and is whole: compact again, from the next start on."""
        self._directory.clear()

    def note_damage(self, fault: Corrupt) -> None:
        """A block fails its checksum. A compaction that meets it makes RocksDB take no write any more, of
        any partition; so it compacts no more, now and after a restart (rule 17)."""
        if self._noted_damage:
            return
        self._noted_damage = True
        with suppress(Exception):  # it may have met it already
            for family in self._database.families.values():
                family.set_options({"disable_auto_compactions": "true"})
        with suppress(OSError):
            self._directory.suspect(fault.message)

    def pressure(self) -> Refusal | None:
        return self._pressure.refusal()

    # -- the rest

    @named_faults
    def get_meta(self, key: str) -> bytes | None:
        value: bytes | None = self._database.meta.get(keys.named_key(key))
        return value

    @named_faults
    def put_meta(self, values: Mapping[str, bytes]) -> None:
        if self._fault is not None:
            raise self._fault
        self._database.put_meta({keys.named_key(name): value for name, value in values.items()})
        self._sync()

    @named_faults
    def properties(self) -> Mapping[str, int]:
        found = figures(self._database)
        with suppress(OSError):  # the disk does not say; the other figures are still of interest
            found = {**found, "disk_free_bytes": free_bytes(self.path)}
        return found

    # -- copies

    @property
    def no_checkpoints(self) -> str:
        return ""

    def checkpoint(self, target: Path) -> None:
        if not self._checkpointing.acquire(blocking=False):
            raise Overloaded("another checkpoint is being made; nothing was done, try again later")
        try:
            if self._fault is not None:
                raise self._fault
            take_checkpoint(
                self._database,
                self._directory.format,
                self.identity.incarnation,
                target,
                self._disk_free_bytes_min,
            )
        finally:
            self._checkpointing.release()

    def become(self, replica_id: str) -> None:
        """Have another replica id from now on, in the database, durably (FORMAT is for the caller)."""
        self.identity = self._opened.start_incarnation(replica_id, 1).identity

    # -- the end

    @named_faults
    def close(self) -> None:
        with self._checkpointing:  # one that is being made needs the database to its end
            self._close()

    def _close(self) -> None:
        if self._closed:
            return
        try:
            if self._fault is None:
                self._sync()
        finally:
            try:
                self._close_database()
            finally:
                self._directory.release()

    def _close_database(self) -> None:
        self._closed = True
        ran_full = isinstance(self._fault, DiskRanFull)
        self._fault = StorageFault("this storage was closed", path=str(self.path))
        try:
            self._opened.close()
        except Exception:
            if not ran_full:  # else it says again what was said
                raise


def claim_and_open(
    data_dir: Path,
    *,
    cluster_id: str,
    node_id: str,
    partitions: int,
    durability: str = FSYNC,
    options: RocksOptions | None = None,
    disk_free_bytes_min: int = 0,
) -> RocksStorage:
    """The storage in a directory of this node, made if need be; raises `StorageFault` and its kinds."""
    return RocksStorage(
        claim_directory(data_dir, cluster_id=cluster_id, node_id=node_id, partitions=partitions),
        durability=durability,
        options=options,
        disk_free_bytes_min=disk_free_bytes_min,
    )
