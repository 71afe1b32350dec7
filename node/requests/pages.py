"""Pages of committed events: how they are found, without decoding what is shown.

Each page is bounded by a log index up to which everything is known to be committed. Storage shows
uncommitted entries too, so a stream's head may be an append that is never confirmed, and then the newest
committed slice before it counts.

What a page costs is bounded by its limits (events and bytes), whatever is asked for and whatever the
entries hold beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from allsource.cluster.protocol.requests import Chunk, PartitionPage, ReadPartition, ReadStream, StreamPage
from allsource.config.schema import Limits
from allsource.storage.model.entry import Entry
from allsource.storage.model.errors import Corrupt, NotFound
from allsource.storage.model.log import StreamHead, StreamSlice

_SLICES_AT_FIRST = 4
_SLICES_AT_ONCE = 64


class Log(Protocol):
    """The part of `Storage` that reads need."""

    def head(self, partition: int, stream: str) -> StreamHead | None: ...

    def slices(
        self, partition: int, stream: str, from_version: int, *, forward: bool, slices_max: int
    ) -> list[StreamSlice]: ...

    def entries_at(self, partition: int, indexes: Sequence[int]) -> list[Entry]: ...

    def entries(self, partition: int, first: int, last: int, bytes_max: int) -> list[Entry]: ...

    def index_of_position(self, partition: int, position: int) -> int | None: ...


class _Facts(NamedTuple):
    """A stream as of a bound."""

    version: int
    created_us: int
    updated_us: int


class Pages:
    """See the module's page. `limits` bound a page whatever its caller asks for."""

    def __init__(self, log: Log, limits: Limits) -> None:
        self._log = log
        self._limits = limits
        self._last_positions: dict[int, tuple[int, int]] = {}

    # -- a stream

    def read_stream(self, request: ReadStream, partition: int, bound: int) -> StreamPage:
        """The stream's facts and a page of its events; raises `NotFound`."""
        stream = request.stream
        facts = self._facts(partition, stream, bound)
        if facts is None:
            raise NotFound(f"no stream {stream!r}: nothing was appended to it yet", stream=stream)
        limit = min(request.limit, self._limits.read_events_max)
        chunks: list[Chunk] = []
        next_from = 0
        if limit > 0:
            if request.forward:
                start = max(request.from_version, 1)
                if start <= facts.version:
                    chunks, next_from = self._forward(partition, stream, start, facts.version, limit)
            else:
                start = min(request.from_version or facts.version, facts.version)
                chunks, next_from = self._backward(partition, stream, start, limit)
        return StreamPage(
            stream,
            partition,
            facts.version,
            facts.created_us,
            facts.updated_us,
            next_from,
            request.forward,
            tuple(chunks),
        )

    def _facts(self, partition: int, stream: str, bound: int) -> _Facts | None:
        head = self._log.head(partition, stream)
        if head is None:
            return None
        if head.index <= bound:
            return _Facts(head.version, head.created_us, head.updated_us)
        return self._facts_before(partition, stream, bound, head)

    def _facts_before(self, partition: int, stream: str, bound: int, head: StreamHead) -> _Facts | None:
        """The facts as of `bound` of a stream whose newest appends are not committed.

        Indexes grow with versions, so the newest committed version is found by halving: there may be a
        hundred thousand appends of the stream behind it.
        """
        newest: StreamSlice | None = None
        low, high = 0, head.version
        while low < high:
            middle = (low + high + 1) // 2
            found = self._log.slices(partition, stream, middle, forward=False, slices_max=1)
            if found and found[0].index <= bound:
                newest = found[0]
                low = newest.first_version + newest.count - 1
            else:
                high = found[0].first_version - 1 if found else middle - 1
        if newest is None:
            return None
        entry = self._log.entries_at(partition, [newest.index])[0]
        return _Facts(low, head.created_us, entry.timestamp_us)

    def _forward(
        self, partition: int, stream: str, start: int, last: int, limit: int
    ) -> tuple[list[Chunk], int]:
        """Events `start..last`, as far as the limits allow, and where to read on (0: nowhere)."""
        chunks: list[Chunk] = []
        left = min(limit, last - start + 1)
        stop = start + left - 1
        bytes_left = self._limits.read_bytes_max
        fetch = _Fetch(self._log, partition)
        version = start
        while version <= stop and bytes_left > 0:
            wanted = min(stop - version + 1, fetch.count(bytes_left))
            slices = self._log.slices(partition, stream, version, forward=True, slices_max=wanted)
            slices = [found for found in slices if found.first_version <= stop]
            for entry, found in fetch(slices):
                skip = version - found.first_version
                take = min(found.count - skip, stop - version + 1)
                chunk = _chunk(entry, stream, found.first_version, skip, take)
                if chunks and len(chunk.blob) > bytes_left:
                    return chunks, version
                chunks.append(chunk)
                bytes_left -= len(chunk.blob)
                version += take
        return chunks, version if version <= last else 0

    def _backward(self, partition: int, stream: str, start: int, limit: int) -> tuple[list[Chunk], int]:
        """Events `start` and older, newest chunk first, and where to read on (0: nowhere)."""
        chunks: list[Chunk] = []
        stop = max(1, start - limit + 1)
        bytes_left = self._limits.read_bytes_max
        fetch = _Fetch(self._log, partition)
        version = start
        while version >= stop and bytes_left > 0:
            wanted = min(version - stop + 1, fetch.count(bytes_left))
            slices = self._log.slices(partition, stream, version, forward=False, slices_max=wanted)
            slices = [found for found in slices if found.first_version + found.count > stop]
            for entry, found in fetch(slices):
                skip = max(0, stop - found.first_version)
                take = version - found.first_version - skip + 1
                chunk = _chunk(entry, stream, found.first_version, skip, take)
                if chunks and len(chunk.blob) > bytes_left:
                    return chunks, version
                chunks.append(chunk)
                bytes_left -= len(chunk.blob)
                version = found.first_version + skip - 1
        return chunks, version

    # -- a partition

    def read_partition(self, request: ReadPartition, bound: int) -> PartitionPage:
        """Committed events from a position on, in order of position."""
        partition = request.partition
        last = self.last_position(partition, bound)
        start = max(request.from_position, 1)
        limit = min(request.limit, self._limits.read_events_max)
        index = self._log.index_of_position(partition, start) if start <= last else None
        if index is None or limit <= 0:
            return PartitionPage(partition, last, min(start, last + 1), ())
        chunks: list[Chunk] = []
        bytes_left = self._limits.read_bytes_max
        position, stop = start, min(last, start + limit - 1)
        while position <= stop and bytes_left > 0 and index <= bound:
            entries = self._log.entries(partition, index, bound, bytes_left)
            for entry in entries:
                position, bytes_left = _take_entry(entry, position, stop, bytes_left, chunks)
                if position > stop or bytes_left <= 0:
                    break
            index = entries[-1].index + 1
        return PartitionPage(partition, last, position, tuple(chunks))

    def last_position(self, partition: int, bound: int) -> int:
        """Position of the newest event up to log index `bound`; 0 if there is none."""
        if bound == 0:
            return 0
        known = self._last_positions.get(partition)
        if known is not None and known[0] == bound:
            return known[1]
        position = self._log.entries_at(partition, [bound])[0].next_position - 1
        self._last_positions[partition] = (bound, position)
        return position


class _Fetch:
    """Entries of one page, as many at a time as are likely to fit into it: an entry may have 50 bytes or
    eight megabytes, and what is read is not all shown."""

    def __init__(self, log: Log, partition: int) -> None:
        self._log = log
        self._partition = partition
        self._fetched = 0
        self._size = 0
        self._newest: list[Entry] = []
        """Not counted in `_size` yet: most pages need no second look."""

    def count(self, bytes_left: int) -> int:
        """How many slices to fetch next."""
        if not self._newest:
            return _SLICES_AT_FIRST
        self._fetched += len(self._newest)
        self._size += sum([len(entry.record) for entry in self._newest])
        return max(1, min(_SLICES_AT_ONCE, bytes_left * self._fetched // self._size))

    def __call__(self, slices: list[StreamSlice]) -> list[tuple[Entry, StreamSlice]]:
        """The slices with the entries that hold them."""
        self._newest = self._log.entries_at(self._partition, [found.index for found in slices])
        return list(zip(self._newest, slices, strict=True))


def _chunk(entry: Entry, stream: str, first_version: int, skip: int, take: int) -> Chunk:
    """The run of events that one entry holds of a stream."""
    position = entry.first_position
    for part in entry.parts:
        if part.stream == stream and part.first_version == first_version:
            return Chunk(stream, first_version, position, entry.timestamp_us, skip, take, part.blob)
        position += part.count
    raise Corrupt(
        f"partition {entry.partition}: the index says that entry {entry.index} holds {stream!r} from"
        f" version {first_version}, and it does not",
        partition=entry.partition,
    )


def _take_entry(
    entry: Entry, position: int, stop: int, bytes_left: int, chunks: list[Chunk]
) -> tuple[int, int]:
    """Add what `entry` holds of `position..stop` to `chunks`: the next position, and bytes left."""
    first = entry.first_position
    for part in entry.parts:
        end = first + part.count
        if first <= stop and end > position:
            if chunks and len(part.blob) > bytes_left:
                return position, 0
            skip = position - first
            take = min(end, stop + 1) - position
            chunks.append(
                Chunk(part.stream, part.first_version, first, entry.timestamp_us, skip, take, part.blob)
            )
            position += take
            bytes_left -= len(part.blob)
        first = end
    return position, bytes_left
