"""The half of `RocksStorage` that only reads: the log, its indexes, and whether they agree.

What a start needs is never found by a scan: the end of a log by one reverse seek, terms and configurations
by small marks in `meta`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from rocksdict import RdictIter

from allsource.storage.model.audit import IndexCounts, audit
from allsource.storage.model.entry import (
    Configuration,
    Entry,
    Place,
    check_record,
    decode_entry,
    span_of,
)
from allsource.storage.model.errors import PEERS_GO_ON, Corrupt, StorageFault
from allsource.storage.model.log import (
    ConfigurationAt,
    HardState,
    MarkAt,
    PartitionState,
    StreamHead,
    StreamSlice,
    TagHead,
    TagSlice,
    TermStart,
)
from allsource.storage.model.recent import Recent
from allsource.storage.rocksdb import keys
from allsource.storage.rocksdb.batch import CACHED_HEADS, HeadCache, Tail
from allsource.storage.rocksdb.database import Database, fault_of, named_faults


class RocksReads(ABC):
    """Reads what the database holds. See `storage.interface` for what the methods promise.

    Three things are kept in memory, and `RocksStorage.write` keeps them in step with the database:
    `_tails`, `_heads`, and `_found`, for each partition the entry in which its last reader was (index,
    first position, and the position behind it).
    """

    path: Path
    _database: Database

    def __init__(self) -> None:
        self._tails: dict[int, Tail] = {}
        self._heads: HeadCache = Recent(CACHED_HEADS)
        self._found: dict[int, tuple[int, int, int]] = {}

    @abstractmethod
    def note_damage(self, fault: Corrupt) -> None:
        """A block fails its checksum."""

    # -- the start

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
            terms=[TermStart(keys.index_of(key), keys.unpack_u64(term)) for key, term in marks],
            next_position=tail.next_position,
            last_timestamp_us=tail.last_timestamp_us,
            configurations=self._configurations(partition),
        )

    def _configurations(self, partition: int) -> list[ConfigurationAt]:
        prefix = keys.configuration_key(partition, 0)[:3]
        indexes = [keys.index_of(key) for key, _ in self._database.scan(keys.META, prefix)]
        entries = self._entries_at(partition, indexes)
        return [ConfigurationAt(entry.index, Configuration.decode(entry.payload())) for entry in entries]

    # -- the log

    @named_faults
    def entries(self, partition: int, first: int, last: int, bytes_max: int) -> list[Entry]:
        records = self._raw(partition, first, last, bytes_max)
        found = [
            self._decoded(partition, index, record, whole=False)
            for index, record in enumerate(records, first)
        ]
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
            self._decoded(partition, index, record, whole=False)
            for index, record in zip(indexes, records, strict=True)
        ]

    def _decoded(self, partition: int, index: int, record: bytes | None, *, whole: bool) -> Entry:
        if record is None:
            raise self._missing(partition, index)
        entry = decode_entry(record, whole=whole)
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
            created = self._database.streams.get(key)
            if created is None:
                return None
            head = self._head_of(self._database.partition_index.iter(), key, created)
            self._heads.put(key, head)
        return head

    def _head_of(self, cursor: RdictIter, key: bytes, created: bytes) -> StreamHead:
        """The head of the stream with this key, of its creation and of its last slice."""
        prefix = key + b"\0"
        cursor.seek_for_prev(prefix + keys.LAST)
        if not cursor.valid() or not cursor.key().startswith(prefix):
            cursor.status()
            raise Corrupt(
                f"{self.path}: stream {keys.stream_of(key)!r} was created, but nothing of it is indexed;"
                f" {PEERS_GO_ON}"
            )
        last = keys.slice_of(cursor.key(), cursor.value())
        version = last.first_version + last.count - 1
        return StreamHead(version, last.index, keys.unpack_u64(created), last.timestamp_us)

    @named_faults
    def place_of_append(self, partition: int, first_event_id: bytes) -> Place | None:
        stored = self._database.ids.get(keys.id_key(partition, first_event_id))
        return None if stored is None else keys.place_of(stored)

    @named_faults
    def slices(
        self, partition: int, stream: str, from_version: int, *, forward: bool, slices_max: int
    ) -> list[StreamSlice]:
        rows = _rows(
            self._database.partition_index.iter(),
            keys.prefix_of(partition, stream),
            from_version,
            forward=forward,
        )
        return _page(rows, keys.slice_of, from_version, forward=forward, slices_max=slices_max)

    @named_faults
    def tag_slices(
        self, partition: int, tag: str, from_number: int, *, forward: bool, slices_max: int
    ) -> list[TagSlice]:
        rows = _rows(
            self._database.tags.iter(), keys.prefix_of(partition, tag), from_number, forward=forward
        )
        return _page(rows, keys.tag_slice_of, from_number, forward=forward, slices_max=slices_max)

    @named_faults
    def tag_head(self, partition: int, tag: str) -> TagHead | None:
        for last in self.tag_slices(partition, tag, keys.INDEX_MAX, forward=False, slices_max=1):
            return TagHead(last.first_number + last.count - 1, last.index)
        return None

    @named_faults
    def mark(self, partition: int, name: str, *, index_max: int = keys.INDEX_MAX) -> MarkAt | None:
        prefix = keys.prefix_of(partition, name)
        cursor = self._database.marks.iter()
        cursor.seek_for_prev(prefix + keys.pack_u64(index_max) + keys.LAST)
        if cursor.valid() and (key := cursor.key()).startswith(prefix):
            return keys.move_of(key, cursor.value())
        cursor.status()
        return None

    @named_faults
    def slice_at(self, partition: int, stream: str, first_version: int) -> StreamSlice | None:
        """The slice that begins with exactly this version."""
        key = keys.prefix_of(partition, stream) + keys.pack_u64(first_version)
        stored = self._database.partition_index.get(key)
        return None if stored is None else keys.slice_of(key, stored)

    @named_faults
    def tag_slice_at(self, partition: int, tag: str, first_number: int) -> TagSlice | None:
        """The tag's slice that begins with exactly this number."""
        key = keys.prefix_of(partition, tag) + keys.pack_u64(first_number)
        stored = self._database.tags.get(key)
        return None if stored is None else keys.tag_slice_of(key, stored)

    @named_faults
    def streams(
        self, partition: int, *, prefix: str = "", after: str = "", limit: int = 1000
    ) -> list[tuple[str, StreamHead]]:
        begin = keys.stream_key(partition, prefix)
        cursor = self._database.streams.iter()
        # 0x00 sorts behind the stream itself and before every other one that begins with it.
        cursor.seek(max(begin, keys.stream_key(partition, after) + b"\0" if after else begin))
        slices = self._database.partition_index.iter()
        found: list[tuple[str, StreamHead]] = []
        while len(found) < limit and cursor.valid():
            key = cursor.key()
            if not key.startswith(begin):
                return found
            found.append((keys.stream_of(key), self._head_of(slices, key, cursor.value())))
            cursor.next()
        cursor.status()
        return found

    # -- whether they agree

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
        families = (keys.STREAMS, keys.PARTITION_INDEX, keys.IDS, keys.TAGS, keys.MARKS)
        return IndexCounts(*(sum(1 for _ in scan(family, prefix)) for family in families))

    # -- within

    def _tail(self, partition: int) -> Tail:
        """The end of a partition's log; the first time, it is looked up and its last record verified."""
        tail = self._tails.get(partition)
        if tail is None:
            cursor = self._database.events.iter()
            cursor.seek_for_prev(keys.entry_key(partition, keys.INDEX_MAX))
            if cursor.valid() and cursor.key().startswith(keys.partition_prefix(partition)):
                index = keys.index_of(cursor.key())
                entry = self._decoded(partition, index, cursor.value(), whole=True)
                tail = Tail(entry.index, entry.term, entry.next_position, entry.timestamp_us)
            else:
                cursor.status()
                tail = Tail()
            self._tails[partition] = tail
        return tail


_Row = TypeVar("_Row", StreamSlice, TagSlice)


def _rows(cursor: RdictIter, prefix: bytes, start: int, *, forward: bool) -> Iterator[tuple[bytes, bytes]]:
    """The rows under a prefix from the newest at or before `start` on; forward, from the first if there is
    none."""
    cursor.seek_for_prev(prefix + keys.pack_u64(min(max(start, 0), keys.INDEX_MAX)))
    if forward and not (cursor.valid() and cursor.key().startswith(prefix)):
        cursor.seek(prefix)
    step = cursor.next if forward else cursor.prev
    while cursor.valid():
        key = cursor.key()
        if not key.startswith(prefix):
            return
        yield key, cursor.value()
        step()
    cursor.status()


def _page(
    rows: Iterable[tuple[bytes, bytes]],
    row_of: Callable[[bytes, bytes], _Row],
    start: int,
    *,
    forward: bool,
    slices_max: int,
) -> list[_Row]:
    """Up to `slices_max` slices; forward without the first if it ends before `start`."""
    found: list[_Row] = []
    for key, value in rows:
        row = row_of(key, value)
        if forward and not found and row[0] + row.count <= start:
            continue
        found.append(row)
        if len(found) == slices_max:
            break
    return found
