"""A node's default storage: one RocksDB for the logs of all its partitions and their indexes.

One `write` call is one `WriteBatch`, so log, indexes and hard states change together or not at all.
RocksDB hands each batch to the operating system before `write` returns (rocksdict does not offer
`manual_wal_flush`): a killed process loses nothing that it wrote, a power cut loses what was not
synced. `sync` fsyncs the write-ahead log; with durability "os" there is nothing left for it to do.

What a start needs is never found by a scan: the end of a log by one reverse seek, terms and
configurations by small marks in `meta`.

`keys` has the layout, `rocksdb_batch` how a write becomes a batch, `rocksdb_opening` and
`rocksdb_database` opening and faults, `rocksdb_pressure` the refusals, `rocksdb_checkpoint` copies,
`rocksdb_options` the tuning, `rocksdb_figures` what /metrics shows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from threading import Lock

from rocksdict import RdictIter

from allsource.storage.files.directory import DataDirectory, claim_directory
from allsource.storage.files.room import disk_ran_full, means_full
from allsource.storage.interface import Refusal
from allsource.storage.model.audit import IndexCounts, audit
from allsource.storage.model.entry import Configuration, Entry, check_record, decode_entry, span_of
from allsource.storage.model.errors import (
    PEERS_GO_ON,
    Corrupt,
    DiskFull,
    DiskRanFull,
    Overloaded,
    StorageFault,
)
from allsource.storage.model.log import HardState, PartitionState, PartitionWrite, StreamHead, StreamSlice
from allsource.storage.model.partition import PARTITION_COUNT
from allsource.storage.model.recent import Recent
from allsource.storage.model.writes import combined
from allsource.storage.rocksdb import keys
from allsource.storage.rocksdb.batch import CACHED_HEADS, BatchBuilder, HeadCache, Tail
from allsource.storage.rocksdb.checkpoint import take_checkpoint
from allsource.storage.rocksdb.database import fault_of, named_faults
from allsource.storage.rocksdb.figures import figures
from allsource.storage.rocksdb.opening import open_database
from allsource.storage.rocksdb.options import RocksOptions
from allsource.storage.rocksdb.pressure import Pressure, free_bytes

FSYNC = "fsync"


class RocksStorage:
    """See the module's page, and `storage.interface` for what the methods promise."""

    def __init__(
        self,
        data_dir: Path,
        *,
        cluster_id: str,
        node_id: str,
        partition_count: int = PARTITION_COUNT,
        durability: str = FSYNC,
        options: RocksOptions | None = None,
        disk_free_bytes_min: int = 256 << 20,
    ) -> None:
        """Claim and open `data_dir`, making it if need be; raises `StorageFault` and its kinds."""
        directory = claim_directory(
            data_dir, cluster_id=cluster_id, node_id=node_id, partitions=partition_count
        )
        self._begin(directory, options or RocksOptions(), durability, disk_free_bytes_min)

    @classmethod
    def of_claimed(cls, directory: DataDirectory, *, read_only: bool = False) -> RocksStorage:
        """The storage in a directory that was claimed already, whosever it is; it is released if this
        fails. `read_only`: nothing is written, and recovery changes no file."""
        storage = cls.__new__(cls)
        storage._begin(directory, RocksOptions(), FSYNC, 0, read_only=read_only)
        return storage

    def _begin(
        self,
        directory: DataDirectory,
        options: RocksOptions,
        durability: str,
        disk_free_bytes_min: int,
        *,
        read_only: bool = False,
    ) -> None:
        self.path = directory.path
        self.partition_count = directory.format.partitions
        self._fsync = durability == FSYNC
        self._fault: StorageFault | None = None  # why nothing may be written any more
        self._closed = False
        self._tails: dict[int, Tail] = {}
        self._found: dict[int, tuple[int, int, int]] = {}
        self._heads: HeadCache = Recent(CACHED_HEADS)
        self._directory = directory
        self._disk_free_bytes_min = disk_free_bytes_min
        self._checkpointing = Lock()
        self._noted_damage = True  # not before it is open
        try:
            self._open(replace(options, compacts=not directory.is_suspect), read_only=read_only)
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
        self._database, self._mark, self.identity = self._opened

    # -- writing

    @named_faults
    def load(self, partition: int) -> PartitionState:
        tail = self._tail(partition)
        stored = self._database.meta.get(keys.hard_key(partition))
        hard = keys.unpack_hard(stored) if stored else HardState()
        if hard.commit > tail.last_index:
            raise Corrupt(
                f"{self.path}: partition {partition} was committed up to index {hard.commit}, but its log"
                f" ends at {tail.last_index}; {PEERS_GO_ON}",
                partition=partition,
            )
        marks = list(self._database.scan(keys.META, keys.term_key(partition, 0)[:3]))
        return PartitionState(
            partition=partition,
            hard=hard,
            last_index=tail.last_index,
            last_term=tail.last_term,
            terms=[(keys.index_of(key), keys.unpack_u64(term)) for key, term in marks],
            next_position=tail.next_position,
            last_timestamp_us=tail.last_timestamp_us,
            configurations=self._configurations(partition),
        )

    def _configurations(self, partition: int) -> list[tuple[int, Configuration]]:
        prefix = keys.configuration_key(partition, 0)[:3]
        indexes = [keys.index_of(key) for key, _ in self._database.scan(keys.META, prefix)]
        entries = self._entries_at(partition, indexes)
        return [(entry.index, Configuration.decode(entry.payload())) for entry in entries]

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
        self._heads.update(builder.heads)
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

    # -- the log

    @named_faults
    def entries(self, partition: int, first: int, last: int, bytes_max: int) -> list[Entry]:
        records = self._raw(partition, first, last, bytes_max)
        found = [self._decoded(partition, index, record) for index, record in enumerate(records, first)]
        if found:
            self._found[partition] = (found[-1].index, found[-1].first_position, found[-1].next_position)
        return found

    @named_faults
    def records(self, partition: int, first: int, last: int, bytes_max: int) -> list[bytes]:
        found = self._raw(partition, first, last, bytes_max)
        for index, record in enumerate(found, first):
            check_record(record, partition, index)
        return found

    def _raw(self, partition: int, first: int, last: int, bytes_max: int) -> list[bytes]:
        last = min(last, self._tail(partition).last_index)
        found: list[bytes] = []
        if first > last:
            return found
        # The keys need not be read: each record says, under its CRC, which entry it is.
        cursor = self._database.events.iter()
        cursor.seek(keys.entry_key(partition, first))
        size = 0
        for index in range(first, last + 1):
            if not cursor.valid():
                cursor.status()
                raise self._missing(partition, index)
            record = cursor.value()
            size += len(record)
            if found and size > bytes_max:
                break
            found.append(record)
            cursor.next()
        return found

    @named_faults
    def entries_at(self, partition: int, indexes: Sequence[int]) -> list[Entry]:
        return self._entries_at(partition, indexes)

    def _entries_at(self, partition: int, indexes: Sequence[int]) -> list[Entry]:
        get = self._database.events.get
        records: list[bytes | None]
        if len(indexes) == 1:
            records = [get(keys.entry_key(partition, indexes[0]))]
        else:
            records = get([keys.entry_key(partition, index) for index in indexes]) or []
        return [
            self._decoded(partition, index, record) for index, record in zip(indexes, records, strict=True)
        ]

    def _decoded(self, partition: int, index: int, record: bytes | None) -> Entry:
        if record is None:
            raise self._missing(partition, index)
        entry = decode_entry(record)
        if entry.index != index or entry.partition != partition:
            raise Corrupt(
                f"{self.path}: at {partition}/{index} lies the entry {entry.partition}/{entry.index};"
                f" {PEERS_GO_ON}"
            )
        return entry

    def _missing(self, partition: int, index: int) -> Corrupt:
        return Corrupt(
            f"{self.path}: partition {partition} has no entry {index}, its log ends at"
            f" {self._tail(partition).last_index}; {PEERS_GO_ON}"
        )

    @named_faults
    def index_of_position(self, partition: int, position: int) -> int | None:
        """Interpolation search: with one event an entry, the first guess is right.

        Every other step halves the range, so that no log, however uneven, takes more than twice the
        steps of a binary search. What was found last narrows the range: readers go on where they were.
        """
        tail = self._tail(partition)
        if not 1 <= position < tail.next_position:
            return None
        low, low_position = 1, 1
        high, high_position = tail.last_index, tail.next_position
        guess, halve = 0, False
        if known := self._found.get(partition):
            guess, first, behind = known
        while True:
            if guess:
                if position < first:
                    high, high_position = guess - 1, first
                elif position < behind:
                    self._found[partition] = (guess, first, behind)
                    return guess
                else:
                    low, low_position = guess + 1, behind
            if low > high:
                raise self._missing(partition, low)
            if halve:
                guess = (low + high) // 2
            else:
                ahead, span = position - low_position, high_position - low_position
                guess = low + ahead * (high - low + 1) // span
            halve = not halve
            first, behind = self._span(partition, guess)

    def _span(self, partition: int, index: int) -> tuple[int, int]:
        record = self._database.events.get(keys.entry_key(partition, index))
        if record is None:
            raise self._missing(partition, index)
        first, count = span_of(record)
        return first, first + count

    # -- the indexes

    @named_faults
    def head(self, partition: int, stream: str) -> StreamHead | None:
        key = keys.stream_key(partition, stream)
        head = self._heads[key]
        if head is None:
            stored = self._database.streams.get(key)
            if stored is None:
                return None
            head = keys.unpack_head(stored)
            self._heads.put(key, head)
        return head

    @named_faults
    def index_of_append(self, partition: int, first_event_id: bytes) -> int | None:
        stored = self._database.ids.get(keys.id_key(partition, first_event_id))
        return None if stored is None else keys.unpack_u64(stored)

    @named_faults
    def slices(
        self, partition: int, stream: str, from_version: int, *, forward: bool, slices_max: int
    ) -> list[StreamSlice]:
        prefix = keys.version_prefix(partition, stream)
        from_version = min(max(from_version, 0), keys.INDEX_MAX)
        cursor = self._database.partition_index.iter()
        cursor.seek_for_prev(prefix + keys.pack_u64(from_version))
        found: list[StreamSlice] = []
        if forward and not _holds(cursor, prefix, from_version):
            cursor.seek(prefix + keys.pack_u64(from_version))
        step = cursor.next if forward else cursor.prev
        while len(found) < slices_max and cursor.valid():
            key = cursor.key()
            if not key.startswith(prefix):
                return found
            index, count = keys.unpack_slice(cursor.value())
            found.append(StreamSlice(keys.index_of(key), count, index))
            step()
        cursor.status()
        return found

    @named_faults
    def slice_at(self, partition: int, stream: str, first_version: int) -> StreamSlice | None:
        """The slice that begins with exactly this version."""
        stored = self._database.partition_index.get(
            keys.version_prefix(partition, stream) + keys.pack_u64(first_version)
        )
        if stored is None:
            return None
        index, count = keys.unpack_slice(stored)
        return StreamSlice(first_version, count, index)

    @named_faults
    def streams(
        self, partition: int, *, prefix: str = "", after: str = "", limit: int = 1000
    ) -> list[tuple[str, StreamHead]]:
        begin = keys.stream_key(partition, prefix)
        cursor = self._database.streams.iter()
        # 0x00 sorts behind the stream itself and before every other one that begins with it.
        cursor.seek(max(begin, keys.stream_key(partition, after) + b"\0" if after else begin))
        found: list[tuple[str, StreamHead]] = []
        while len(found) < limit and cursor.valid():
            key = cursor.key()
            if not key.startswith(begin):
                return found
            found.append((keys.stream_of(key), keys.unpack_head(cursor.value())))
            cursor.next()
        cursor.status()
        return found

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

    def verify(self, partition: int) -> Iterator[str]:
        try:
            state = self.load(partition)
            yield from audit(state, self._records(partition), self)
        except StorageFault as fault:
            yield f"partition {partition}: {fault.message}"

    def _records(self, partition: int) -> Iterator[tuple[int, bytes]]:
        try:
            for key, record in self._database.scan(keys.EVENTS, keys.partition_prefix(partition)):
                yield keys.index_of(key), record
        except Exception as error:
            fault = fault_of(error, self.path)
            if isinstance(fault, Corrupt):
                self.note_damage(fault)
            raise fault from error

    @named_faults
    def count_indexes(self, partition: int) -> IndexCounts:
        """How many rows each index holds (by walking them)."""
        prefix = keys.partition_prefix(partition)
        scan = self._database.scan
        return IndexCounts(
            sum(1 for _ in scan(keys.STREAMS, prefix)),
            sum(1 for _ in scan(keys.PARTITION_INDEX, prefix)),
            sum(1 for _ in scan(keys.IDS, prefix)),
        )

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

    def _tail(self, partition: int) -> Tail:
        """The end of a partition's log; the first time, it is looked up and its last record verified."""
        tail = self._tails.get(partition)
        if tail is None:
            cursor = self._database.events.iter()
            cursor.seek_for_prev(keys.entry_key(partition, keys.INDEX_MAX))
            if cursor.valid() and cursor.key().startswith(keys.partition_prefix(partition)):
                entry = self._decoded(partition, keys.index_of(cursor.key()), cursor.value())
                tail = Tail(entry.index, entry.term, entry.next_position, entry.timestamp_us)
            else:
                cursor.status()
                tail = Tail()
            self._tails[partition] = tail
        return tail


def _holds(cursor: RdictIter, prefix: bytes, version: int) -> bool:
    """Whether the cursor stands on the slice (of the stream with this prefix) that holds the version."""
    if not cursor.valid() or not (key := cursor.key()).startswith(prefix):
        return False
    _, count = keys.unpack_slice(cursor.value())
    return version < int(keys.index_of(key)) + int(count)
