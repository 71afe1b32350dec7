"""What was written and is not in the database yet, as layers above it.

`Storage.write` must be visible at once and may not wait for a server. So a write goes into the newest
layer, in memory; a sync freezes that layer, puts an empty one above it, and carries the frozen one into
the database in a single transaction. A read consults the layers from the newest down, then the database.

A truncation is one number, the layer's *floor*: whatever lies below the layer, in older layers or in the
database, holds only for indexes less than the floor. Every index row names its log index, so this single
rule undoes the places of streams, tags and event ids and the moves of marks alike; heads follow from them.
(For a layer that only appended, the floor is where it began: nothing below reaches so far, and the rule
costs nothing.)

Pure: no I/O, no threads. `storage` says which thread may change which layer, and when.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from allsource.storage.interface import INDEX_MAX
from allsource.storage.model.entry import Entry, Part, Place
from allsource.storage.model.log import HardState, MarkAt, StreamSlice, TagHead, TagSlice
from allsource.storage.model.partition import tag_of

Slice = TypeVar("Slice", bound="StreamSlice | TagSlice")
Row = TypeVar("Row", bound="StreamSlice | TagSlice | MarkAt")


@dataclass(slots=True)
class PartitionLayer:
    """One partition's share of a layer. `entries[i]` has the index `floor + i`."""

    floor: int = INDEX_MAX
    cuts: bool = False
    """Whether something below was truncated, so that the database must delete from `floor` on."""
    entries: list[Entry] = field(default_factory=list)
    opens_term: list[bool] = field(default_factory=list)
    """For each entry, whether it is the first of its term."""
    slices: dict[str, list[StreamSlice]] = field(default_factory=dict)
    ids: dict[bytes, Place] = field(default_factory=dict)
    tags: dict[str, list[TagSlice]] = field(default_factory=dict)
    marks: dict[str, list[MarkAt]] = field(default_factory=dict)
    hard: HardState | None = None

    def truncate(self, first: int) -> None:
        """Drop `first` and all behind it, here and below."""
        kept = self.entries[: max(first - self.floor, 0)] if self.entries else []
        opens_term = self.opens_term
        if first < self.floor:
            self.floor, self.cuts = first, True
        self.entries, self.opens_term = [], []
        self.slices, self.ids, self.tags, self.marks = {}, {}, {}, {}
        for entry, opens in zip(kept, opens_term, strict=False):
            self.append(entry, opens_term=opens)

    def append(self, entry: Entry, *, opens_term: bool) -> None:
        """Add the next entry."""
        if not self.entries:
            self.floor = min(self.floor, entry.index)
        assert entry.index == self.floor + len(self.entries)
        self.entries.append(entry)
        self.opens_term.append(opens_term)
        number = 0
        for ordinal, (parts, marks) in enumerate(entry.appends):
            place = Place(entry.index, ordinal)
            for part in parts:
                self._add(entry, place, number, part)
                number += 1
            for name, position, generation in marks:
                moved = MarkAt(position, generation, entry.index, ordinal)
                self.marks.setdefault(name, []).append(moved)

    def _add(self, entry: Entry, place: Place, number: int, part: Part) -> None:
        stream, first_version, count, first_id, first_tag_number, _, _ = part
        index = entry.index
        self.slices.setdefault(stream, []).append(
            StreamSlice(first_version, count, index, number, entry.timestamp_us)
        )
        self.ids[first_id] = place
        if first_tag_number:
            piece = TagSlice(first_tag_number, count, index, number)
            self.tags.setdefault(tag_of(stream), []).append(piece)

    def entry(self, index: int) -> Entry | None:
        """The entry at `index`, None if it is not in this layer."""
        at = index - self.floor
        return self.entries[at] if 0 <= at < len(self.entries) else None


@dataclass(slots=True)
class Layer:
    """All that was written between two syncs."""

    partitions: dict[int, PartitionLayer] = field(default_factory=dict)
    meta: dict[str, bytes] = field(default_factory=dict)
    size: int = 0
    """Bytes of the records that were added."""

    def __bool__(self) -> bool:
        return bool(self.partitions or self.meta)

    def of(self, partition: int) -> PartitionLayer:
        """The partition's share, to be changed."""
        found = self.partitions.get(partition)
        if found is None:
            found = self.partitions[partition] = PartitionLayer()
        return found


class Overlay:
    """One partition as the layers have it, newest first."""

    def __init__(self, layers: Sequence[Layer], partition: int) -> None:
        self._shares: list[tuple[PartitionLayer, int]] = []
        bound = INDEX_MAX
        for layer in layers:
            share = layer.partitions.get(partition)
            if share is not None:
                self._shares.append((share, bound))
                bound = min(bound, share.floor)
        self.bound = bound
        """Of the database only indexes less than this count."""

    def entry(self, index: int) -> Entry | None:
        """The entry at `index`, None if only the database can have it."""
        for share, bound in self._shares:
            if index < bound and (entry := share.entry(index)) is not None:
                return entry
        return None

    def entries(self) -> list[Entry]:
        """All entries that lie above the database, ascending."""
        return [e for share, bound in reversed(self._shares) for e in share.entries if e.index < bound]

    def place_of_append(self, first_event_id: bytes) -> Place | None:
        """Where the append with this first event id is, None if only the database can know."""
        for share, bound in self._shares:
            place = share.ids.get(first_event_id)
            if place is not None and place.index < bound:
                return place
        return None

    def slices(self, stream: str) -> list[StreamSlice]:
        """The stream's slices above the database, ascending."""
        return list(_ascending([(share.slices.get(stream, ()), bound) for share, bound in self._shares]))

    def tag_slices(self, tag: str) -> list[TagSlice]:
        """The tag's slices above the database, ascending."""
        return list(_ascending([(share.tags.get(tag, ()), bound) for share, bound in self._shares]))

    def newest(self, stream: str) -> StreamSlice | None:
        """The stream's newest slice, None if that is in the database (or there is none)."""
        for share, bound in self._shares:
            piece = _newest(share.slices.get(stream, ()), bound)
            if piece is not None:
                return piece
        return None

    def tag_head(self, tag: str) -> TagHead | None:
        """The tag's newest event, None if it is in the database (or there is none)."""
        for share, bound in self._shares:
            piece = _newest(share.tags.get(tag, ()), bound)
            if piece is not None:
                return TagHead(piece.first_number + piece.count - 1, piece.index)
        return None

    def mark(self, name: str, index_max: int) -> MarkAt | None:
        """The mark as the appends up to `index_max` left it, None if only the database can know."""
        for share, bound in self._shares:
            moved = _newest(share.marks.get(name, ()), min(bound, index_max + 1))
            if moved is not None:
                return moved
        return None

    def streams(self) -> set[str]:
        """The streams with events above the database."""
        return {stream for share, _ in self._shares for stream in share.slices if self.slices(stream)}


def _ascending(layers: Sequence[tuple[Sequence[Row], int]]) -> Iterator[Row]:
    """The rows of all layers, given newest first with their bounds."""
    for rows, bound in reversed(layers):
        for row in rows:
            if row.index < bound:
                yield row


def _newest(rows: Sequence[Row], bound: int) -> Row | None:
    """The last row of a layer that counts."""
    return next((row for row in reversed(rows) if row.index < bound), None)


def page(
    above: Sequence[Slice],
    start: int,
    *,
    forward: bool,
    slices_max: int,
    stored: Callable[[int], Sequence[Slice]],
) -> list[Slice]:
    """Slices from the one that holds version (or number) `start`, as `Storage.slices` wants them.

    `above` are those above the database, ascending; `stored(most)` asks the database for its own.
    """
    if forward:
        newer = [piece for piece in above if piece[0] + piece.count > start]
        older = [] if above and above[0][0] <= start else stored(slices_max)
        return [*older, *newer][:slices_max]
    newer = [piece for piece in reversed(above) if piece[0] <= start]
    left = slices_max - len(newer)
    return [*newer, *(stored(left) if left > 0 else ())][:slices_max]
