"""`PostgresStorage`: a node's share of the replicated log in a PostgreSQL server, in a schema of its own.

How the promises of `storage.interface` are kept by a server that is a round trip away:

* A write goes into a layer in memory (`overlay`) and is visible at once.
* A sync carries the whole layer into the database with one statement (`write_log`), so in one
  transaction: all of it is there after a crash, or nothing, and never something later without something
  earlier. With durability "os" the server answers before its own disk has it.
* A sync that fails is fatal: whether it was committed is unknown, so this object takes no write any more
  and the process must exit; at the next start the log tells. Two exceptions, because the server says that
  it rolled back: serialization failures are tried again, and while its disk is full the sync goes on
  trying (so that the node's heartbeats stop, RULES.md rule 25) and `pressure` refuses new appends.

`session` has the connections and the rule that one process at a time has the schema.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from allsource.storage.interface import Refusal
from allsource.storage.model.entry import Entry, Part
from allsource.storage.model.errors import (
    CheckpointsUnsupported,
    DiskFull,
    Overloaded,
    StorageFault,
)
from allsource.storage.model.log import MarkAt, PartitionWrite, StreamHead, TagHead
from allsource.storage.model.partition import PARTITION_COUNT, tag_of
from allsource.storage.model.writes import check_continues, combined
from allsource.storage.postgres.driver import NO_CHECKPOINTS, Target
from allsource.storage.postgres.migrate import NODE, Wanted
from allsource.storage.postgres.overlay import Layer
from allsource.storage.postgres.partition_log import PartitionLog
from allsource.storage.postgres.reading import PostgresReads
from allsource.storage.postgres.session import LOCK_PATIENCE_S, Session

UNSYNCED_BYTES_MAX = 64 << 20
"""Beyond this much that waits for a sync, new appends are refused."""


class PostgresStorage(PostgresReads):
    """See the module's page, and `storage.interface` for what the methods promise.

    Threads, beyond the interface's rules: `_layers` is replaced as a whole, under `_lock`, and its newest
    layer is changed by the writing thread alone, under the same lock. `_flushing` keeps syncs apart.
    """

    def __init__(
        self,
        target: Target,
        *,
        cluster_id: str,
        node_id: str,
        partition_count: int = PARTITION_COUNT,
        durability: str = "fsync",
        lock_patience_s: float = LOCK_PATIENCE_S,
    ) -> None:
        """Connect, make or update the schema and take it; raises `StorageFault` and its kinds."""
        session = Session(
            target,
            Wanted(NODE, partition_count, cluster_id, node_id),
            fsync=durability == "fsync",
            lock_patience_s=lock_patience_s,
        )
        super().__init__(target, session)
        self.partition_count = partition_count
        self.identity = session.identity
        self._fault: StorageFault | None = None
        self._lock = threading.Lock()
        self._flushing = threading.Lock()

    # -- writing

    def write(self, writes: Sequence[PartitionWrite]) -> None:
        self._check_writable()
        writes = combined(writes)
        for write in writes:
            check_continues(write, self._log(write.partition).last_index)
        with self._lock:
            for write in writes:
                self._apply(write)

    def _apply(self, write: PartitionWrite) -> None:
        partition, log, layer = write.partition, self._logs[write.partition], self._layers[0]
        share = layer.of(partition)
        if write.hard is not None:
            share.hard = log.hard = write.hard
        if write.truncate_from is not None and write.truncate_from <= log.last_index:
            self._truncate(partition, write.truncate_from, log)
        for entry in write.entries:
            share.append(entry, opens_term=log.append(entry))
            self._note(entry)
            self._recent.put((partition, entry.index), entry)
            layer.size += len(entry.record)

    def _note(self, entry: Entry) -> None:
        """Note an entry in what is kept in memory."""
        partition, seen = entry.partition, self._seen
        for ordinal, (parts, marks) in enumerate(entry.appends):
            for part in parts:
                seen.add(partition, part.first_id)
                self._note_head(entry, part)
                if part.first_tag_number:
                    self._note_tag(entry, part)
            for name, position, generation in marks:
                moved = MarkAt(position, generation, entry.index, ordinal)
                self._marks.put((partition, name), moved)

    def _note_head(self, entry: Entry, part: Part) -> None:
        """A head that is not remembered is not asked for: a replica reads fewer streams than it writes."""
        partition, stream = entry.partition, part.stream
        created_us = entry.timestamp_us
        if part.first_version == 1:
            self._seen.add(partition, stream)
        else:
            head = self._heads[partition, stream]
            if head is None:
                return
            assert head.version == part.first_version - 1, f"{stream!r}: {part.first_version} after {head}"
            created_us = head.created_us
        head = StreamHead(part.last_version, entry.index, created_us, entry.timestamp_us)
        self._heads.put((partition, stream), head)

    def _note_tag(self, entry: Entry, part: Part) -> None:
        partition, tag = entry.partition, tag_of(part.stream)
        if part.first_tag_number == 1:
            self._seen.add_tag(partition, tag)
        head = TagHead(part.first_tag_number + part.count - 1, entry.index)
        self._tag_heads.put((partition, tag), head)

    def _truncate(self, partition: int, first: int, log: PartitionLog) -> None:
        for cache in (self._heads, self._tag_heads, self._marks):
            cache.clear()
        gone = [(partition, index) for index in range(first, log.last_index + 1)]
        self._recent.drop(gone)
        self._read.drop(gone)
        self._layers[0].of(partition).truncate(first)
        log.truncate(first, self._entries_at(partition, [first - 1])[0] if first > 1 else None)

    def sync(self) -> None:
        with self._flushing:
            self._check_writable()
            with self._lock:
                layer = self._layers[0]
                if not layer:
                    return
                self._layers = (Layer(), layer)
            try:
                self._session.flush(layer)
            except Exception as error:
                self._fault = StorageFault(
                    f"{self.target.shown}: a sync failed ({error}), and whether it was committed is"
                    " unknown; the process must exit"
                )
                raise self._fault from error
            with self._lock:
                self._layers = self._layers[:1]

    @property
    def sync_is_short(self) -> bool:
        return False

    @property
    def no_checkpoints(self) -> str:
        return NO_CHECKPOINTS

    def checkpoint(self, target: Path) -> None:
        raise CheckpointsUnsupported(f"storage in PostgreSQL makes no checkpoints: {NO_CHECKPOINTS}")

    def pressure(self) -> Refusal | None:
        if self._session.full is not None:
            return Refusal(DiskFull, self._session.full)
        unsynced = sum(layer.size for layer in self._layers)
        if unsynced > UNSYNCED_BYTES_MAX:
            return Refusal(
                Overloaded, f"the PostgreSQL server falls behind: {unsynced >> 20} MiB wait for it"
            )
        return None

    # -- the rest

    def put_meta(self, values: Mapping[str, bytes]) -> None:
        self._check_writable()
        with self._lock:
            self._layers[0].meta.update(values)
        self.sync()

    def properties(self) -> Mapping[str, int]:
        session = self._session
        return {
            "postgres_syncs": session.flushes,
            "postgres_reads": session.reads,
            "postgres_unsynced_bytes": sum(layer.size for layer in self._layers),
            "postgres_view_lag_entries": session.projection.lag,
            "postgres_view_failures": session.projection.failures,
        }

    def close(self) -> None:
        if self._closed:
            return
        try:
            if self._fault is None:
                self.sync()
                self._session.catch_up()
        finally:
            self._closed = True
            self._session.close()

    def _check_writable(self) -> None:
        self._check_open()
        if self._fault is not None:
            raise self._fault
