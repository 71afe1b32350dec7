"""What was written and is not in the database yet, as layers above it.

`Storage.write` must be visible at once and may not wait for a server. So a write goes into the newest
layer, in memory; a sync freezes that layer, puts an empty one above it, and carries the frozen one into
the database in a single transaction. A read consults the layers from the newest down, then the database.

A truncation is one number, the layer's *floor*: whatever lies below the layer, in older layers or in the
database, holds only for indexes less than the floor. Every index row names its log index, so this single
rule undoes stream slices, heads and event ids alike. (For a layer that only appended, the floor is where
it began: nothing below reaches so far, and the rule costs nothing.)

Pure: no I/O, no threads. `storage` says which thread may change which layer, and when.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from allsource.storage.model.entry import Entry, Part
from allsource.storage.model.log import HardState, StreamHead, StreamSlice

INDEX_MAX = 2**63 - 1
"""More than any log index (and the largest number that PostgreSQL's bigint holds)."""


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
    created_us: dict[str, int] = field(default_factory=dict)
    ids: dict[bytes, int] = field(default_factory=dict)
    hard: HardState | None = None

    def truncate(self, first: int) -> None:
        """Drop `first` and all behind it, here and below."""
        kept = self.entries[: max(first - self.floor, 0)] if self.entries else []
        created, opens_term = self.created_us, self.opens_term
        if first < self.floor:
            self.floor, self.cuts = first, True
        self.entries, self.opens_term, self.slices, self.created_us, self.ids = [], [], {}, {}, {}
        for entry, opens in zip(kept, opens_term, strict=False):
            self.append(entry, created, opens_term=opens)

    def append(self, entry: Entry, created_us: dict[str, int], *, opens_term: bool) -> None:
        """Add the next entry; `created_us` knows when each of its streams began."""
        if not self.entries:
            self.floor = min(self.floor, entry.index)
        assert entry.index == self.floor + len(self.entries)
        self.entries.append(entry)
        self.opens_term.append(opens_term)
        for part in entry.parts:
            self._add(part, entry.index)
            self.created_us[part.stream] = created_us[part.stream]

    def _add(self, part: Part, index: int) -> None:
        piece = StreamSlice(part.first_version, part.count, index)
        self.slices.setdefault(part.stream, []).append(piece)
        self.ids[part.first_id] = index

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

    def index_of_append(self, first_event_id: bytes) -> int | None:
        """The index of the append with this first event id, None if only the database can know."""
        for share, bound in self._shares:
            index = share.ids.get(first_event_id)
            if index is not None and index < bound:
                return index
        return None

    def slices(self, stream: str) -> list[StreamSlice]:
        """The stream's slices above the database, ascending."""
        return list(self._slices(stream))

    def _slices(self, stream: str) -> Iterator[StreamSlice]:
        for share, bound in reversed(self._shares):
            for piece in share.slices.get(stream, ()):
                if piece.index < bound:
                    yield piece

    def head(self, stream: str) -> StreamHead | None:
        """The stream's head, None if its newest events are in the database (or nowhere)."""
        for share, bound in self._shares:
            for piece in reversed(share.slices.get(stream, ())):
                if piece.index < bound:
                    entry = share.entry(piece.index)
                    assert entry is not None
                    version = piece.first_version + piece.count - 1
                    return StreamHead(version, piece.index, share.created_us[stream], entry.timestamp_us)
        return None

    def streams(self) -> set[str]:
        """The streams with events above the database."""
        return {stream for share, _ in self._shares for stream in share.slices if self.slices(stream)}
