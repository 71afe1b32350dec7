"""How a `Storage.write` becomes one RocksDB batch, truncation and indexes included.

Everything is worked out against the database as it is, plus an overlay of what this batch has already
decided (tails and heads), because a batch cannot be read back. The caller applies the overlays to its
caches only when RocksDB has taken the batch: a refused write changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, TypeAlias

from rocksdict import WriteBatch

from allsource.storage.model.entry import CONFIG, Entry, Part, decode_entry
from allsource.storage.model.errors import Corrupt
from allsource.storage.model.log import PartitionWrite, StreamHead
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
        """The new heads by key; None: the stream is gone."""
        self.has_entries = False
        self._database = database
        self._cache = cache
        self._tail_of = tail_of
        handles = database.handles
        self._events, self._streams = handles[keys.EVENTS], handles[keys.STREAMS]
        self._slices, self._ids = handles[keys.PARTITION_INDEX], handles[keys.IDS]
        self._meta = handles[keys.META]

    def add_all(self, writes: Iterable[PartitionWrite]) -> bool:
        """Add them all, then the heads that resulted. True if anything was truncated."""
        truncated = False
        for write in writes:
            try:
                truncated |= self._add(write)
            except Exception as error:
                raise of_partition(error, write.partition, self._database.path) from error
        for key, head in self.heads.items():
            if head is None:
                self.batch.delete(key, self._streams)
            else:
                self.batch.put(key, keys.pack_head(*head), self._streams)
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
            for part in entry.parts:
                self._append_part(prefix, entry, part)
            last_index, last_term, position = index, entry.term, position + entry.count
        return Tail(last_index, last_term, position, entries[-1].timestamp_us)

    def _append_part(self, prefix: bytes, entry: Entry, part: Part) -> None:
        # The hottest lines of the room: the keys are spelled out, a function call each would add 1 us.
        stream, first_version, count, first_id, _ = part
        index, put = entry.index, self.batch.put
        key = prefix + stream.encode()
        created_us = updated_us = entry.timestamp_us
        if first_version > 1:
            head = self._head(key)
            assert head is not None, f"stream {stream!r} begins at version {first_version}"
            assert head.version == first_version - 1, f"{stream!r} at {head} goes on at {first_version}"
            created_us = head.created_us
        self.heads[key] = StreamHead(first_version + count - 1, index, created_us, updated_us)
        put(key + b"\0" + keys.pack_u64(first_version), keys.pack_slice(index, count), self._slices)
        put(prefix + first_id, keys.pack_u64(index), self._ids)

    def _head(self, key: bytes) -> StreamHead | None:
        """The stream's head as this batch has it so far."""
        if key in self.heads:
            return self.heads[key]
        head = self._cache[key]
        if head is None and (stored := self._database.streams.get(key)) is not None:
            head = keys.unpack_head(stored)
        return head

    def _truncate(self, partition: int, first: int, tail: Tail) -> Tail:
        delete = self.batch.delete
        lowest: dict[str, int] = {}
        for index in range(tail.last_index, first - 1, -1):
            entry = self._entry(partition, index)
            delete(keys.entry_key(partition, index), self._events)
            delete(keys.term_key(partition, index), self._meta)
            delete(keys.configuration_key(partition, index), self._meta)
            for part in entry.parts:
                prefix = keys.version_prefix(partition, part.stream)
                delete(prefix + keys.pack_u64(part.first_version), self._slices)
                delete(keys.id_key(partition, part.first_id), self._ids)
                lowest[part.stream] = part.first_version
        for stream, version in lowest.items():
            self._restore_head(partition, stream, version - 1)
        if first == 1:
            return Tail()
        last = self._entry(partition, first - 1)
        return Tail(last.index, last.term, last.next_position, last.timestamp_us)

    def _restore_head(self, partition: int, stream: str, version: int) -> None:
        key = keys.stream_key(partition, stream)
        if version == 0:
            self.heads[key] = None
            return
        head = self._head(key)
        cursor = self._database.partition_index.iter()
        prefix = keys.version_prefix(partition, stream)
        cursor.seek_for_prev(prefix + keys.pack_u64(version))
        if head is None or not cursor.valid() or not cursor.key().startswith(prefix):
            cursor.status()
            raise Corrupt(f"{self._database.path}: stream {stream!r} is not indexed at version {version}")
        index, _ = keys.unpack_slice(cursor.value())
        updated_us = self._entry(partition, index).timestamp_us
        self.heads[key] = StreamHead(version, index, head.created_us, updated_us)

    def _entry(self, partition: int, index: int) -> Entry:
        record = self._database.events.get(keys.entry_key(partition, index))
        if record is None:
            raise Corrupt(f"{self._database.path}: partition {partition} has no entry {index}")
        return decode_entry(record)
