"""`LogView`: a partition's log as its owner must see it to decide about the next append.

The decision is `storage.model.append`'s. It is put to the log *with what is not committed yet*, and with
what was decided in this turn and is not even proposed, because a second append must line up behind the
first before the first is confirmed.
"""

from __future__ import annotations

from typing import Protocol

from allsource.storage.model.entry import Entry, NewAppend, Place
from allsource.storage.model.log import MarkAt, StreamHead, TagHead
from allsource.storage.model.partition import tag_of
from allsource.storage.model.recent import Recent

HEADS_MAX = 4096
"""Stream heads remembered for each partition, in each of two generations; and as many tags and marks."""


class Indexes(Protocol):
    """The part of `Storage` that a view reads."""

    def head(self, partition: int, stream: str) -> StreamHead | None: ...

    def place_of_append(self, partition: int, first_event_id: bytes) -> Place | None: ...

    def tag_head(self, partition: int, tag: str) -> TagHead | None: ...

    def mark(self, partition: int, name: str) -> MarkAt | None: ...


class LogView:
    """The newest stream heads, tag numbers, marks and event ids of one partition at its owner, uncommitted
    ones included: the `append.Log` of the owner.

    Invariant: what it says equals a replay of the log in the core's memory, and of what was `decided` and
    is about to be proposed. Storage has the log up to the last turn's write; what came since is kept here
    until `written`. What it remembers beyond that saves a look into storage.
    """

    __slots__ = ("_heads", "_ids", "_indexes", "_is_ahead", "_marks", "_tags", "partition")

    def __init__(self, indexes: Indexes, partition: int) -> None:
        self.partition = partition
        self._indexes = indexes
        self._heads: Recent[str, tuple[int, int]] = Recent(HEADS_MAX)
        self._tags: Recent[str, tuple[int, int]] = Recent(HEADS_MAX)
        self._marks: Recent[str, MarkAt] = Recent(HEADS_MAX)
        self._ids: dict[bytes, Place] = {}
        self._is_ahead = False
        """Something is here alone, which storage does not have."""

    def head(self, stream: str) -> tuple[int, int]:
        """`(version, index of the entry that holds it)`; zeros if there is no such stream."""
        found = self._heads[stream]
        if found is None:
            head = self._indexes.head(self.partition, stream)
            if not self._is_ahead:  # appends that are all refused bring no `written`
                self._heads.age()
            found = self._heads[stream] = (head.version, head.index) if head is not None else (0, 0)
        return found

    def tag(self, tag: str) -> tuple[int, int]:
        """`(newest number, index of the entry that holds it)`; zeros if the tag has no event."""
        found = self._tags[tag]
        if found is None:
            head = self._indexes.tag_head(self.partition, tag)
            if not self._is_ahead:
                self._tags.age()
            found = self._tags[tag] = (head.number, head.index) if head is not None else (0, 0)
        return found

    def mark(self, name: str) -> MarkAt | None:
        """The mark as the newest append left it, None if none ever moved it."""
        found = self._marks[name]
        if found is None:
            found = self._indexes.mark(self.partition, name)
            if not self._is_ahead:
                self._marks.age()
            if found is not None:
                self._marks[name] = found
        return found

    def place_of_append(self, first_event_id: bytes) -> Place | None:
        """Where the append is one of whose parts has this first event id."""
        found = self._ids.get(first_event_id)
        if found is None:
            found = self._indexes.place_of_append(self.partition, first_event_id)
        return found

    def decided(self, new: NewAppend, place: Place) -> None:
        """This append will be at that place; storage gets it with this turn's write."""
        index = place.index
        (parts, marks), heads, ids = new.append, self._heads, self._ids
        self._is_ahead = True
        for stream, first_version, count, first_id, first_number, _, _ in parts:
            heads[stream] = (first_version + count - 1, index)
            ids[first_id] = place
            if first_number:
                self._tags[tag_of(stream)] = (first_number + count - 1, index)
        for name, position, generation in marks:
            self._marks[name] = MarkAt(position, generation, index, place.ordinal)

    def proposed(self, entry: Entry) -> None:
        """All that an entry holds which storage does not have."""
        for ordinal, append in enumerate(entry.appends):
            self.decided(NewAppend(append, ()), Place(entry.index, ordinal))

    def written(self) -> None:
        """Storage has everything that was decided before."""
        self._ids.clear()
        self._is_ahead = False
        self._heads.age()
        if self._tags:
            self._tags.age()
        if self._marks:
            self._marks.age()

    def forget(self) -> None:
        """Leadership changed: others may have truncated or appended."""
        self._heads.clear()
        self._tags.clear()
        self._marks.clear()
        self._ids.clear()
        self._is_ahead = False
