"""The half of `PostgresStorage` that only reads: what was written, wherever it is by now.

An answer comes from the caches, else from the layers in memory (`overlay`), else from the database, which
costs a round trip (`session`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from allsource.storage.model.audit import IndexCounts, audit
from allsource.storage.model.entry import Entry, decode_entry
from allsource.storage.model.errors import PEERS_GO_ON, AllsourceError, Corrupt, StorageFault
from allsource.storage.model.log import PartitionState, StreamHead, StreamSlice
from allsource.storage.model.recent import Recent
from allsource.storage.postgres import log_tables
from allsource.storage.postgres.driver import Target
from allsource.storage.postgres.overlay import INDEX_MAX, Layer, Overlay
from allsource.storage.postgres.partition_log import PartitionLog
from allsource.storage.postgres.session import Session

CACHED_HEADS = 1 << 15
CACHED_BYTES = 32 << 20
_AUDIT_BYTES = 8 << 20


class PostgresReads:
    """See `storage.interface` for what the methods promise. `PostgresStorage` keeps `_layers` and the
    caches in step with every write."""

    def __init__(self, target: Target, session: Session) -> None:
        self.target = target
        self._session = session
        self._seen = session.seen
        self._closed = False
        self._layers: tuple[Layer, ...] = (Layer(),)
        """What is not in the database yet, newest first."""
        self._logs: dict[int, PartitionLog] = {}
        self._heads: Recent[tuple[int, str], StreamHead] = Recent(CACHED_HEADS)
        self._recent: Recent[tuple[int, int], Entry] = Recent(CACHED_BYTES, lambda e: len(e.record))

    # -- the start

    def load(self, partition: int) -> PartitionState:
        log = self._log(partition)
        if log.hard.commit > log.last_index:
            raise Corrupt(
                f"{self.target.shown}: partition {partition} was committed up to index {log.hard.commit},"
                f" but its log ends at {log.last_index}; {PEERS_GO_ON}",
                partition=partition,
            )
        return PartitionState(
            partition=partition,
            hard=log.hard,
            last_index=log.last_index,
            last_term=log.last_term,
            terms=list(log.marks.terms),
            next_position=log.next_position,
            last_timestamp_us=log.timestamp_us,
            configurations=list(log.marks.configurations),
        )

    # -- the log

    def entries(self, partition: int, first: int, last: int, bytes_max: int) -> list[Entry]:
        last = min(last, self._log(partition).last_index)
        found: list[Entry] = []
        size = 0
        for entry in self._ascending(partition, first, last, bytes_max):
            size += len(entry.record)
            if found and size > bytes_max:
                break
            found.append(entry)
        return found

    def _ascending(self, partition: int, first: int, last: int, bytes_max: int) -> Iterator[Entry]:
        overlay, recent, index = self._overlay(partition), self._recent, first
        while index <= last:
            entry = overlay.entry(index) or recent[partition, index]
            if entry is not None:
                yield entry
                index += 1
            else:
                stored = self._stored(partition, index, min(last, overlay.bound - 1), bytes_max)
                yield from stored
                index += len(stored)

    def _stored(self, partition: int, first: int, last: int, bytes_max: int) -> list[Entry]:
        """At least one entry from the database."""
        rows = self._session.ask(log_tables.entries, partition, first, last, bytes_max)
        for due, (index, _) in enumerate(rows or [(0, b"")], first):
            if index != due:
                raise self._missing(partition, due)
        return [self._decoded(partition, index, record) for index, record in rows]

    def records(self, partition: int, first: int, last: int, bytes_max: int) -> list[bytes]:
        # The newest are kept decoded; older ones cost a round trip, beside which decoding is little.
        return [entry.record for entry in self.entries(partition, first, last, bytes_max)]

    def entries_at(self, partition: int, indexes: Sequence[int]) -> list[Entry]:
        last = self._log(partition).last_index
        for index in indexes:
            if not 0 < index <= last:
                raise self._missing(partition, index)
        return self._entries_at(partition, indexes)

    def _entries_at(self, partition: int, indexes: Sequence[int]) -> list[Entry]:
        overlay = self._overlay(partition)
        found = {
            index: entry
            for index in indexes
            if (entry := overlay.entry(index) or self._recent[partition, index]) is not None
        }
        asked = [index for index in indexes if index not in found]
        if asked:
            records = self._session.ask(log_tables.entries_at, partition, asked)
            for index in asked:
                if index not in records:
                    raise self._missing(partition, index)
                found[index] = self._decoded(partition, index, records[index])
        return [found[index] for index in indexes]

    def _decoded(self, partition: int, index: int, record: bytes) -> Entry:
        entry = decode_entry(record)
        if entry.index != index or entry.partition != partition:
            raise Corrupt(
                f"{self.target.shown}: at {partition}/{index} lies the entry"
                f" {entry.partition}/{entry.index}; {PEERS_GO_ON}"
            )
        self._recent.put((partition, index), entry)
        return entry

    def _missing(self, partition: int, index: int) -> Corrupt:
        return Corrupt(
            f"{self.target.shown}: partition {partition} has no entry {index}, its log ends at"
            f" {self._log(partition).last_index}; {PEERS_GO_ON}"
        )

    def index_of_position(self, partition: int, position: int) -> int | None:
        if not 1 <= position < self._log(partition).next_position:
            return None
        overlay = self._overlay(partition)
        for entry in reversed(overlay.entries()):
            if entry.first_position <= position < entry.next_position:
                return entry.index
        return self._session.ask(log_tables.index_of_position, partition, position, overlay.bound)

    # -- the indexes

    def head(self, partition: int, stream: str) -> StreamHead | None:
        self._check_open()
        return self._head(partition, stream)

    def _head(self, partition: int, stream: str) -> StreamHead | None:
        head = self._heads[partition, stream]
        if head is None:
            overlay = self._overlay(partition)
            head = overlay.head(stream)
            if head is None and self._seen.may_hold(partition, stream):
                head = self._session.ask(log_tables.head, partition, stream, overlay.bound)
            if head is not None:
                self._heads.put((partition, stream), head)
        return head

    def index_of_append(self, partition: int, first_event_id: bytes) -> int | None:
        self._check_open()
        if not self._seen.may_hold(partition, first_event_id):
            return None
        overlay = self._overlay(partition)
        index = overlay.index_of_append(first_event_id)
        if index is None:
            index = self._session.ask(log_tables.index_of_append, partition, first_event_id, overlay.bound)
        return index

    def slices(
        self, partition: int, stream: str, from_version: int, *, forward: bool, slices_max: int
    ) -> list[StreamSlice]:
        self._check_open()
        version = min(max(from_version, 0), INDEX_MAX)
        overlay = self._overlay(partition)
        above = overlay.slices(stream)
        if forward:
            wanted = [piece for piece in above if piece.first_version + piece.count > version]
            below_ends = not above or above[0].first_version > version
        else:
            wanted = [piece for piece in reversed(above) if piece.first_version <= version]
            below_ends = True
        below: list[StreamSlice] = []
        left = slices_max if forward else slices_max - len(wanted)
        if below_ends and left > 0 and self._seen.may_hold(partition, stream):
            below = self._session.ask(
                log_tables.slices,
                partition,
                stream,
                version,
                overlay.bound,
                forward=forward,
                slices_max=left,
            )
        return ([*below, *wanted] if forward else [*wanted, *below])[:slices_max]

    def slice_at(self, partition: int, stream: str, first_version: int) -> StreamSlice | None:
        """The slice that begins with exactly this version."""
        found = self.slices(partition, stream, first_version, forward=True, slices_max=1)
        return found[0] if found and found[0].first_version == first_version else None

    def streams(
        self, partition: int, *, prefix: str = "", after: str = "", limit: int = 1000
    ) -> list[tuple[str, StreamHead]]:
        self._check_open()
        overlay = self._overlay(partition)
        found = dict(self._session.ask(log_tables.streams, partition, prefix, after, overlay.bound, limit))
        start = after.encode()
        for stream in overlay.streams():
            if stream.startswith(prefix) and stream.encode() > start:
                head = self._head(partition, stream)
                assert head is not None
                found[stream] = head
        return sorted(found.items(), key=lambda item: item[0].encode())[:limit]

    # -- the rest

    def get_meta(self, key: str) -> bytes | None:
        self._check_open()
        for layer in self._layers:
            if key in layer.meta:
                return layer.meta[key]
        return self._session.ask(log_tables.meta, key)

    def verify(self, partition: int) -> Iterator[str]:
        try:
            state = self.load(partition)
            yield from audit(state, self._records(partition), self)
        except AllsourceError as fault:
            yield f"partition {partition}: {fault.message}"

    def _records(self, partition: int) -> Iterator[tuple[int, bytes]]:
        overlay = self._overlay(partition)
        index, stop = 1, overlay.bound - 1
        while rows := self._session.ask(log_tables.entries, partition, index, stop, _AUDIT_BYTES):
            yield from rows
            index = rows[-1][0] + 1
        for entry in overlay.entries():
            yield entry.index, entry.record

    def count_indexes(self, partition: int) -> IndexCounts:
        """How many rows each index holds."""
        overlay = self._overlay(partition)
        above = overlay.streams()
        streams, slices, ids, known = self._session.ask(
            log_tables.counts, partition, overlay.bound, list(above)
        )
        parts = [part for entry in overlay.entries() for part in entry.parts]
        return IndexCounts(streams + len(above) - known, slices + len(parts), ids + len(parts))

    # -- within

    def _log(self, partition: int) -> PartitionLog:
        self._check_open()
        log = self._logs.get(partition)
        if log is None:
            loaded = self._session.ask(log_tables.load, partition)
            last = loaded.last_record and self._decoded(partition, loaded.last_index, loaded.last_record)
            log = self._logs[partition] = PartitionLog(loaded, last or None)
        return log

    def _overlay(self, partition: int) -> Overlay:
        # The layers first, the database after: what is carried over in between is found twice, not never.
        return Overlay(self._layers, partition)

    def _check_open(self) -> None:
        if self._closed:
            raise StorageFault("this storage was closed")
