"""How a `Storage.write` becomes one RocksDB batch, truncation and indexes included.

Everything is worked out against the database as it is, plus an overlay of what this batch has already
decided (tails and heads), because a batch cannot be read back. The caller applies the overlays to its
caches only when RocksDB has taken the batch: a refused write changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, TypeAlias

from rocksdict import WriteBatch

from allsource.storage.model.entry import CONFIG, Entry, decode_entry
from allsource.storage.model.errors import Corrupt
from allsource.storage.model.log import PartitionWrite, StreamHead
from allsource.storage.model.partition import tag_of
from allsource.storage.model.recent import Recent
from allsource.storage.rocksdb import keys
from allsource.storage.rocksdb.database import Database, of_partition

HeadCache: TypeAlias = Recent[bytes, StreamHead]
"""The heads that were used last, by key."""
CACHED_HEADS = 1 << 15


class Tail(NamedTuple):
    """How a partition's log ends."""

    last_index: int = 0
    last_term: int = 0
    next_position: int = 1
    last_timestamp_us: int = 0


class BatchBuilder:
    """Builds the batch of one `write`."""

    def __init__(self, database: Database, cache: HeadCache, tail_of: Callable[[int], Tail]) -> None:
        self.batch = WriteBatch(raw_mode=True)
        self.tails: dict[int, Tail] = {}
        """The new tails."""
        self.heads: dict[bytes, StreamHead | None] = {}
        """The new heads by key, as far as they are known without asking; None: no longer known."""
        self.has_entries = False
        self._database = database
        self._cache = cache
        self._tail_of = tail_of
        handles = database.handles
        self._events, self._streams = handles[keys.EVENTS], handles[keys.STREAMS]
        self._slices, self._ids = handles[keys.PARTITION_INDEX], handles[keys.IDS]
        self._tags, self._marks = handles[keys.TAGS], handles[keys.MARKS]
        self._meta = handles[keys.META]

    def add_all(self, writes: Iterable[PartitionWrite]) -> bool:
        """Add them all. True if anything was truncated."""
        truncated = False
        for write in writes:
            try:
                truncated |= self._add(write)
            except Exception as error:
                raise of_partition(error, write.partition, self._database.path) from error
        return truncated

    def _add(self, write: PartitionWrite) -> bool:
        partition, tail = write.partition, self._tail_of(write.partition)
        truncates = write.truncate_from is not None and write.truncate_from <= tail.last_index
        if write.hard is not None:
            self.batch.put(keys.hard_key(partition), keys.pack_hard(write.hard), self._meta)
        if truncates:
            assert write.truncate_from is not None
            tail = self._truncate(partition, write.truncate_from, tail)
        if write.entries:
            tail = self._append(partition, write.entries, tail)
            self.has_entries = True
        self.tails[partition] = tail
        return truncates

    def size(self) -> int:
        """Bytes that the batch adds."""
        size: int = self.batch.size_in_bytes()
        return size

    def _append(self, partition: int, entries: Sequence[Entry], tail: Tail) -> Tail:
        last_index, last_term, position, _ = tail
        put, prefix = self.batch.put, keys.partition_prefix(partition)
        for entry in entries:
            index = entry.index
            assert index == last_index + 1, f"entry {partition}/{index} behind {last_index}"
            assert entry.partition == partition, f"entry of partition {entry.partition}"
            assert entry.first_position == position, f"position {entry.first_position}, not {position}"
            put(keys.entry_key(partition, index), entry.record, self._events)
            if entry.term != last_term or last_index == 0:
                put(keys.term_key(partition, index), keys.pack_u64(entry.term), self._meta)
            if entry.kind == CONFIG:
                put(keys.configuration_key(partition, index), b"", self._meta)
            if entry.appends:
                self._index(prefix, entry)
            last_index, last_term, position = index, entry.term, position + entry.count
        return Tail(last_index, last_term, position, entries[-1].timestamp_us)

    def _index(self, prefix: bytes, entry: Entry) -> None:
        # The hottest lines of the room: the keys are spelled out, a function call each would add 1 us.
        put, heads, index, timestamp_us = self.batch.put, self.heads, entry.index, entry.timestamp_us
        number = 0
        for ordinal, (parts, marks) in enumerate(entry.appends):
            place = keys.pack_place(index, ordinal)
            for stream, first_version, count, first_id, first_tag_number, _, _ in parts:
                key = prefix + stream.encode()
                if first_version == 1:
                    created_us = timestamp_us
                    put(key, keys.pack_u64(timestamp_us), self._streams)
                    heads[key] = StreamHead(count, index, created_us, timestamp_us)
                else:
                    head = heads[key] if key in heads else self._cache[key]
                    if head is not None:
                        assert head.version == first_version - 1, (
                            f"{stream!r}: {first_version} behind {head}"
                        )
                        heads[key] = StreamHead(
                            first_version + count - 1, index, head.created_us, timestamp_us
                        )
                value = keys.pack_slice(index, number, count, timestamp_us)
                put(key + b"\0" + keys.pack_u64(first_version), value, self._slices)
                put(prefix + first_id, place, self._ids)
                if first_tag_number:
                    tag = prefix + tag_of(stream).encode() + b"\0" + keys.pack_u64(first_tag_number)
                    put(tag, keys.pack_tag_slice(index, number, count), self._tags)
                number += 1
            for name, position, generation in marks:
                put(
                    prefix + name.encode() + b"\0" + place,
                    keys.pack_move(position, generation),
                    self._marks,
                )

    def _truncate(self, partition: int, first: int, tail: Tail) -> Tail:
        delete, prefix = self.batch.delete, keys.partition_prefix(partition)
        for index in range(tail.last_index, first - 1, -1):
            entry = self._entry(partition, index)
            delete(keys.entry_key(partition, index), self._events)
            delete(keys.term_key(partition, index), self._meta)
            delete(keys.configuration_key(partition, index), self._meta)
            for ordinal, (parts, marks) in enumerate(entry.appends):
                for part in parts:
                    key = prefix + part.stream.encode()
                    self.heads[key] = None  # what the cache says of it is of the time before
                    if part.first_version == 1:
                        delete(key, self._streams)
                    delete(key + b"\0" + keys.pack_u64(part.first_version), self._slices)
                    delete(prefix + part.first_id, self._ids)
                    if part.first_tag_number:
                        tag = prefix + tag_of(part.stream).encode() + b"\0"
                        delete(tag + keys.pack_u64(part.first_tag_number), self._tags)
                for mark in marks:
                    place = keys.pack_place(index, ordinal)
                    delete(prefix + mark.name.encode() + b"\0" + place, self._marks)
        if first == 1:
            return Tail()
        last = self._entry(partition, first - 1)
        return Tail(last.index, last.term, last.next_position, last.timestamp_us)

    def _entry(self, partition: int, index: int) -> Entry:
        record = self._database.events.get(keys.entry_key(partition, index))
        if record is None:
            raise Corrupt(f"{self._database.path}: partition {partition} has no entry {index}")
        return decode_entry(record, whole=False)
