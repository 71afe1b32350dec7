"""Pages of committed events, and marks: how they are found, without unpacking what is shown.

Each answer is bounded by a log index up to which everything is known to be committed. Storage shows
uncommitted entries too, so a stream's head may be an append that is never confirmed, and then the newest
committed slice before it counts; the same goes for tags and marks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from allsource.cluster.protocol.requests import (
    MarkState,
    PartitionPage,
    ReadMark,
    ReadPartition,
    ReadStream,
    ReadTag,
    StreamPage,
    TagPage,
)
from allsource.config.schema import Limits
from allsource.node.requests.entries import RecentEntries
from allsource.node.requests.runs import Axis, RunsOfPage, Slices, StreamAxis, TagAxis
from allsource.storage.model.entry import Entry
from allsource.storage.model.errors import NotFound
from allsource.storage.model.log import MarkAt, StreamHead, StreamSlice, TagHead, TagSlice

_BYTES_AT_FIRST = 128 << 10
"""Of records that a page of a partition begins with: it may want ten events."""


class Log(Slices, Protocol):
    """The part of `Storage` that reads need."""

    def head(self, partition: int, stream: str) -> StreamHead | None: ...

    def tag_head(self, partition: int, tag: str) -> TagHead | None: ...

    def mark(self, partition: int, name: str, *, index_max: int) -> MarkAt | None: ...

    def entries_at(self, partition: int, indexes: Sequence[int]) -> list[Entry]: ...

    def entries(self, partition: int, first: int, last: int, bytes_max: int) -> list[Entry]: ...

    def index_of_position(self, partition: int, position: int) -> int | None: ...


class _Facts(NamedTuple):
    """A stream as of a bound."""

    version: int
    created_us: int
    updated_us: int


class Pages:
    """See the module's page. `limits` bound a page whatever its caller asks for; `entries` are those of
    `log`."""

    def __init__(self, log: Log, entries: RecentEntries, limits: Limits) -> None:
        self._log = log
        self._entries = entries
        self._limits = limits
        self._last_positions: dict[int, tuple[int, int]] = {}

    # -- a stream

    def read_stream(self, request: ReadStream, partition: int, bound: int) -> StreamPage:
        """The stream's facts and a page of its events; raises `NotFound`."""
        stream = request.stream
        axis = StreamAxis(self._log, partition, stream)
        facts = self._facts(axis, partition, bound)
        if facts is None:
            raise NotFound(f"no stream {stream!r}: nothing was appended to it yet", stream=stream)
        page = RunsOfPage(self._entries, partition, self._limits, request.limit)
        next_from = _collect(page, axis, request.forward, request.from_version, facts.version)
        return StreamPage(
            stream,
            partition,
            facts.version,
            facts.created_us,
            facts.updated_us,
            next_from,
            request.forward,
            tuple(page.runs),
        )

    def _facts(self, axis: StreamAxis, partition: int, bound: int) -> _Facts | None:
        head = self._log.head(partition, axis.name)
        if head is None:
            return None
        if head.index <= bound:
            return _Facts(head.version, head.created_us, head.updated_us)
        newest = _newest(axis, head.version, bound)
        if not isinstance(newest, StreamSlice):
            return None
        return _Facts(newest.first_version + newest.count - 1, head.created_us, newest.timestamp_us)

    # -- a tag

    def read_tag(self, request: ReadTag, partition: int, bound: int) -> TagPage:
        """A page of a tag's events; an empty one if there are none."""
        axis = TagAxis(self._log, partition, request.tag)
        head = self._log.tag_head(partition, request.tag)
        last = 0 if head is None else head.number
        if head is not None and head.index > bound:
            newest = _newest(axis, head.number, bound)
            last = 0 if newest is None else newest[0] + newest[1] - 1
        page = RunsOfPage(self._entries, partition, self._limits, request.limit, request.types)
        next_from = _collect(page, axis, request.forward, request.from_number, last)
        return TagPage(request.tag, partition, last, next_from, request.forward, tuple(page.runs))

    # -- a mark

    def read_mark(self, request: ReadMark, bound: int) -> MarkState:
        """Where a mark is."""
        partition, name = request.partition, request.name
        found = self._log.mark(partition, name, index_max=bound)
        if found is None:
            return MarkState(partition, name, 0, 0, 0)
        return MarkState(partition, name, found.position, found.generation, found.index)

    # -- a partition

    def read_partition(self, request: ReadPartition, bound: int) -> PartitionPage:
        """Committed events from a position on, in order of position."""
        partition = request.partition
        last = self.last_position(partition, bound)
        position = max(request.from_position, 1)
        index = self._log.index_of_position(partition, position) if position <= last else None
        if index is None:
            return PartitionPage(partition, last, min(position, last + 1), ())
        page = RunsOfPage(self._entries, partition, self._limits, request.limit)
        bytes_max = _BYTES_AT_FIRST
        while position <= last and index <= bound and not page.is_full:
            until = min(bound, index + page.events_left - 1)
            entries = self._log.entries(partition, index, until, min(bytes_max, page.bytes_left))
            bytes_max = page.bytes_left
            for entry in entries:
                page.looked_at(entry)
                position = _add_entry(page, entry, position)
                if page.is_full:
                    break
            index = entries[-1].index + 1
        return PartitionPage(partition, last, position, tuple(page.runs))

    def last_position(self, partition: int, bound: int) -> int:
        """Position of the newest event up to log index `bound`; 0 if there is none."""
        if bound == 0:
            return 0
        known = self._last_positions.get(partition)
        if known is not None and known[0] == bound:
            return known[1]
        position = self._entries.at(partition, [bound])[0].next_position - 1
        self._last_positions[partition] = (bound, position)
        return position


def _collect(page: RunsOfPage, axis: Axis, forward: bool, wanted: int, last: int) -> int:
    """Collect a page's events from number `wanted` on (0: the natural end); where to read on."""
    if page.is_full:  # the facts alone are asked for
        return 0
    if forward:
        return page.forward(axis, max(wanted, 1), last)
    return page.backward(axis, min(wanted or last, last))


def _newest(axis: Axis, last: int, bound: int) -> StreamSlice | TagSlice | None:
    """The newest slice up to log index `bound` of what has `last` events, the newest of them behind it.

    Indexes grow with numbers, so it is found by halving: there may be a hundred thousand appends behind it.
    """
    newest: StreamSlice | TagSlice | None = None
    low, high = 0, last
    while low < high:
        middle = (low + high + 1) // 2
        found = axis.slices(middle, forward=False, slices_max=1)
        if found and found[0].index <= bound:
            newest = found[0]
            low = newest[0] + newest[1] - 1
        else:
            high = found[0][0] - 1 if found else middle - 1
    return newest


def _add_entry(page: RunsOfPage, entry: Entry, position: int) -> int:
    """Add what an entry holds from `position` on to the page; the next position."""
    for placed in entry.placed():
        behind = placed.first_position + placed.part.count
        if behind > position:
            position += page.add(entry, placed, position - placed.first_position, placed.part.count - 1)
            if position < behind:
                break
    return position
