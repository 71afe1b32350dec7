"""`LogView`: a partition's log as its owner must see it to decide about the next append.

The decision is `storage.model.append`'s. It is put to the log *with what is not committed yet*, because a
second append must line up behind the first before the first is confirmed.
"""

from __future__ import annotations

from typing import Protocol

from allsource.storage.model.entry import Entry
from allsource.storage.model.log import StreamHead
from allsource.storage.model.recent import Recent

HEADS_MAX = 4096
"""Stream heads remembered for each partition, in each of two generations."""


class Indexes(Protocol):
    """The part of `Storage` that a view reads."""

    def head(self, partition: int, stream: str) -> StreamHead | None: ...

    def index_of_append(self, partition: int, first_event_id: bytes) -> int | None: ...


class LogView:
    """The newest stream heads and event ids of one partition at its owner, uncommitted ones included: the
    `append.Log` of the owner.

    Invariant: what it says equals a replay of the log in the core's memory. Storage has the log up
    to the last turn's write; what was proposed since is kept here until `written`. The heads that
    it remembers beyond that save a look into storage.
    """

    __slots__ = ("_heads", "_ids", "_indexes", "partition")

    def __init__(self, indexes: Indexes, partition: int) -> None:
        self.partition = partition
        self._indexes = indexes
        self._heads: Recent[str, tuple[int, int]] = Recent(HEADS_MAX)
        self._ids: dict[bytes, int] = {}

    def head(self, stream: str) -> tuple[int, int]:
        """`(version, index of the entry that holds it)`; zeros if there is no such stream."""
        found = self._heads[stream]
        if found is None:
            head = self._indexes.head(self.partition, stream)
            if not self._ids:  # nothing is here alone, and appends that are all refused bring no `written`
                self._heads.age()
            found = self._heads[stream] = (head.version, head.index) if head is not None else (0, 0)
        return found

    def index_of_append(self, first_event_id: bytes) -> int | None:
        """Index of the entry whose append has this first event id."""
        found = self._ids.get(first_event_id)
        if found is None:
            found = self._indexes.index_of_append(self.partition, first_event_id)
        return found

    def proposed(self, entry: Entry) -> None:
        """The core took this entry; storage gets it with this turn's write."""
        index = entry.index
        for part in entry.parts:
            self._heads[part.stream] = (part.first_version + part.count - 1, index)
            self._ids[part.first_id] = index

    def written(self) -> None:
        """Storage has everything that was proposed before."""
        self._ids.clear()
        self._heads.age()

    def forget(self) -> None:
        """Leadership changed: others may have truncated or appended."""
        self._heads.clear()
        self._ids.clear()
