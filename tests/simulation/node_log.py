"""What the node's real code reads of its storage, told from the simulated disk's own indexes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar

from allsource.storage.interface import INDEX_MAX, Refusal
from allsource.storage.model.entry import Entry, Place
from allsource.storage.model.errors import DiskFull
from allsource.storage.model.log import MarkAt, StreamHead, StreamSlice, TagHead, TagSlice
from allsource.storage.model.partition import tag_of
from tests.simulation.disk import Held

if TYPE_CHECKING:
    from tests.simulation.node import SimNode

S = TypeVar("S", StreamSlice, TagSlice)


class NodeLog:
    """One process's part of `Storage`."""

    def __init__(self, node: SimNode) -> None:
        self._node = node

    def pressure(self) -> Refusal | None:
        return Refusal(DiskFull, "no room") if self._node.is_full else None

    def head(self, partition: int, stream: str) -> StreamHead | None:
        events = self._node.disk.index[partition].streams.get(stream)
        if not events:
            return None
        first, last = self.entries_at(partition, [events[0].index, events[-1].index])
        return StreamHead(len(events), last.index, first.timestamp_us, last.timestamp_us)

    def tag_head(self, partition: int, tag: str) -> TagHead | None:
        number, index = self._node.disk.index[partition].tag(tag)
        return TagHead(number, index) if number else None

    def mark(self, partition: int, name: str, *, index_max: int = INDEX_MAX) -> MarkAt | None:
        return self._node.disk.index[partition].mark(name, index_max)

    def place_of_append(self, partition: int, first_event_id: bytes) -> Place | None:
        return self._node.disk.index[partition].appends.get(first_event_id)

    def entries_at(self, partition: int, indexes: Sequence[int]) -> list[Entry]:
        return [self._node.disk.view[partition].entries[index - 1] for index in indexes]

    def entries(self, partition: int, first: int, last: int, bytes_max: int) -> list[Entry]:
        return self._node.disk.entries(partition, first, last, bytes_max)

    def index_of_position(self, partition: int, position: int) -> int | None:
        entries = self._node.disk.view[partition].entries
        return next((e.index for e in entries if e.first_position <= position < e.next_position), None)

    def slices(
        self, partition: int, stream: str, from_version: int, *, forward: bool, slices_max: int
    ) -> list[StreamSlice]:
        events = self._node.disk.index[partition].streams.get(stream, [])
        found = [
            StreamSlice(part.first_version, part.count, entry.index, number, entry.timestamp_us)
            for entry in self._holding(partition, events)
            for number, part in enumerate(entry.parts)
            if part.stream == stream
        ]
        return _wanted(found, from_version, forward)[:slices_max]

    def tag_slices(
        self, partition: int, tag: str, from_number: int, *, forward: bool, slices_max: int
    ) -> list[TagSlice]:
        events = self._node.disk.index[partition].tags.get(tag, [])
        found = [
            TagSlice(part.first_tag_number, part.count, entry.index, number)
            for entry in self._holding(partition, events)
            for number, part in enumerate(entry.parts)
            if tag_of(part.stream) == tag
        ]
        return _wanted(found, from_number, forward)[:slices_max]

    def _holding(self, partition: int, events: Sequence[Held]) -> list[Entry]:
        return self.entries_at(partition, list(dict.fromkeys(event.index for event in events)))


def _wanted(slices: Sequence[S], number: int, forward: bool) -> list[S]:
    """Those from the slice on that holds the number."""
    if forward:
        return [piece for piece in slices if piece[0] + piece[1] > number]
    return [piece for piece in reversed(slices) if piece[0] <= number]
