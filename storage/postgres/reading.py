"""The half of `PostgresStorage` that only reads: what was written, wherever it is by now.

An answer comes from the caches, else from the layers in memory (`overlay`), else from the database, which
costs a round trip (`session`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from allsource.storage.interface import INDEX_MAX
from allsource.storage.model.audit import IndexCounts, audit
from allsource.storage.model.entry import Entry, Place, decode_entry
from allsource.storage.model.errors import PEERS_GO_ON, AllsourceError, Corrupt, StorageFault
from allsource.storage.model.log import (
    MarkAt,
    PartitionState,
    StreamHead,
    StreamSlice,
    TagHead,
    TagSlice,
)
from allsource.storage.model.recent import Recent
from allsource.storage.postgres import log_indexes, log_tables
from allsource.storage.postgres.driver import Target
from allsource.storage.postgres.overlay import Layer, Overlay, page
from allsource.storage.postgres.partition_log import PartitionLog
from allsource.storage.postgres.session import Session

CACHED_HEADS = 1 << 15
CACHED_TAGS = CACHED_MARKS = 1 << 13
CACHED_BYTES = 24 << 20
CACHED_READ_BYTES = 8 << 20
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
        self._tag_heads: Recent[tuple[int, str], TagHead] = Recent(CACHED_TAGS)
        self._marks: Recent[tuple[int, str], MarkAt] = Recent(CACHED_MARKS)
        self._recent: Recent[tuple[int, int], Entry] = Recent(CACHED_BYTES, lambda e: len(e.record))
        """Entries that were written here or verified."""
        self._read: Recent[tuple[int, int], Entry] = Recent(CACHED_READ_BYTES, lambda e: len(e.record))
        """Entries whose chunks are verified by those who read them."""

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
            if (entry := overlay.entry(index) or self._recent[key := (partition, index)] or self._read[key])
            is not None
        }
        asked = [index for index in indexes if index not in found]
        if asked:
            records = self._session.ask(log_tables.entries_at, partition, asked)
            for index in asked:
                if index not in records:
                    raise self._missing(partition, index)
                found[index] = self._decoded(partition, index, records[index], whole=False)
        return [found[index] for index in indexes]

    def _decoded(self, partition: int, index: int, record: bytes, *, whole: bool = True) -> Entry:
        entry = decode_entry(record, whole=whole)
        if entry.index != index or entry.partition != partition:
            raise Corrupt(
                f"{self.target.shown}: at {partition}/{index} lies the entry"
                f" {entry.partition}/{entry.index}; {PEERS_GO_ON}"
            )
        (self._recent if whole else self._read).put((partition, index), entry)
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
            newest = overlay.newest(stream)
            if newest is not None:
                (first,) = self.slices(partition, stream, 1, forward=True, slices_max=1)
                version = newest.first_version + newest.count - 1
                head = StreamHead(version, newest.index, first.timestamp_us, newest.timestamp_us)
            elif self._seen.may_hold(partition, stream):
                head = self._session.ask(log_indexes.head, partition, stream, overlay.bound)
            if head is not None:
                self._heads.put((partition, stream), head)
        return head

    def place_of_append(self, partition: int, first_event_id: bytes) -> Place | None:
        self._check_open()
        if not self._seen.may_hold(partition, first_event_id):
            return None
        overlay = self._overlay(partition)
        place = overlay.place_of_append(first_event_id)
        if place is None:
            place = self._session.ask(log_indexes.place_of_append, partition, first_event_id, overlay.bound)
        return place

    def slices(
        self, partition: int, stream: str, from_version: int, *, forward: bool, slices_max: int
    ) -> list[StreamSlice]:
        self._check_open()
        start = min(max(from_version, 0), INDEX_MAX)
        overlay = self._overlay(partition)

        def stored(most: int) -> list[StreamSlice]:
            if not self._seen.may_hold(partition, stream):
                return []
            return self._session.ask(
                log_indexes.slices, partition, stream, start, overlay.bound, forward=forward, most=most
            )

        above = overlay.slices(stream)
        return page(above, start, forward=forward, slices_max=slices_max, stored=stored)

    def slice_at(self, partition: int, stream: str, first_version: int) -> StreamSlice | None:
        """The slice that begins with exactly this version."""
        found = self.slices(partition, stream, first_version, forward=True, slices_max=1)
        return found[0] if found and found[0].first_version == first_version else None

    def tag_head(self, partition: int, tag: str) -> TagHead | None:
        self._check_open()
        head = self._tag_heads[partition, tag]
        if head is None:
            overlay = self._overlay(partition)
            head = overlay.tag_head(tag)
            if head is None and self._seen.may_hold_tag(partition, tag):
                head = self._session.ask(log_indexes.tag_head, partition, tag, overlay.bound)
            if head is not None:
                self._tag_heads.put((partition, tag), head)
        return head

    def tag_slices(
        self, partition: int, tag: str, from_number: int, *, forward: bool, slices_max: int
    ) -> list[TagSlice]:
        self._check_open()
        start = min(max(from_number, 0), INDEX_MAX)
        overlay = self._overlay(partition)

        def stored(most: int) -> list[TagSlice]:
            if not self._seen.may_hold_tag(partition, tag):
                return []
            return self._session.ask(
                log_indexes.tag_slices, partition, tag, start, overlay.bound, forward=forward, most=most
            )

        above = overlay.tag_slices(tag)
        return page(above, start, forward=forward, slices_max=slices_max, stored=stored)

    def tag_slice_at(self, partition: int, tag: str, first_number: int) -> TagSlice | None:
        """The slice that begins with exactly this number."""
        found = self.tag_slices(partition, tag, first_number, forward=True, slices_max=1)
        return found[0] if found and found[0].first_number == first_number else None

    def mark(self, partition: int, name: str, *, index_max: int = INDEX_MAX) -> MarkAt | None:
        self._check_open()
        newest = self._marks[partition, name]
        if newest is not None and newest.index <= index_max:
            return newest
        overlay = self._overlay(partition)
        found = overlay.mark(name, index_max)
        if found is None:
            # One that was never set is asked for once: whoever asks is about to set it.
            bound = min(overlay.bound, index_max + 1)
            found = self._session.ask(log_indexes.mark, partition, name, bound)
        if found is not None and index_max == INDEX_MAX:
            self._marks.put((partition, name), found)
        return found

    def streams(
        self, partition: int, *, prefix: str = "", after: str = "", limit: int = 1000
    ) -> list[tuple[str, StreamHead]]:
        self._check_open()
        overlay = self._overlay(partition)
        found = dict(self._session.ask(log_indexes.streams, partition, prefix, after, overlay.bound, limit))
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
        stored, known = self._session.ask(log_indexes.counts, partition, overlay.bound, list(above))
        appends = [append for entry in overlay.entries() for append in entry.appends]
        parts = [part for append in appends for part in append.parts]
        return IndexCounts(
            streams=stored.streams + len(above) - known,
            slices=stored.slices + len(parts),
            ids=stored.ids + len(parts),
            tag_slices=stored.tag_slices + sum(part.first_tag_number > 0 for part in parts),
            marks=stored.marks + sum(len(append.marks) for append in appends),
        )

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
