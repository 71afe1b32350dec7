"""`RecentEntries`: decoded entries near the end of the log, in front of the storage.

What is read most was appended last. To fetch an entry and decode its heads costs more than everything else
that a short read does, and an entry carries all appends of a turn, so that ten single events of a stream
may be ten entries with a thousand appends.

Invariant: only entries that are *committed* come in here (`remember`, `at`). Those never change, so nothing
is ever to be taken out but for room: no truncation and no change of leadership concerns them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from allsource.storage.model.entry import Entry
from allsource.storage.model.recent import Recent

ENTRIES_BYTES_MAX = 16 << 20
"""Of memory that entries take, in each of two generations, for all partitions of a node."""
_ENTRY_SHARE = 16
"""One entry that would take more than this part of it is not kept."""


class Store(Protocol):
    """The part of `Storage` that it fetches from."""

    def entries_at(self, partition: int, indexes: Sequence[int]) -> list[Entry]: ...


class RecentEntries:
    """See the module's page."""

    def __init__(self, store: Store, bytes_max: int = ENTRIES_BYTES_MAX) -> None:
        self._store = store
        self.fetched_bytes = 0
        """Memory of all entries that were fetched from the storage, ever."""
        self._entry_bytes_max = bytes_max // _ENTRY_SHARE
        self._recent: Recent[tuple[int, int], Entry] = Recent(bytes_max, _size_of)

    def remember(self, entry: Entry) -> None:
        """This node has the entry at hand, and it is committed."""
        if _size_of(entry) <= self._entry_bytes_max:
            self._recent.put((entry.partition, entry.index), entry)

    def get(self, partition: int, index: int) -> Entry | None:
        """The entry, if it is here."""
        return self._recent[partition, index]

    def at(self, partition: int, indexes: Sequence[int]) -> list[Entry]:
        """The entries at these indexes, which are committed, in the order asked for. Raises `Corrupt`."""
        recent = self._recent
        known = [recent[partition, index] for index in indexes]
        missing = [index for index, entry in zip(indexes, known, strict=True) if entry is None]
        if not missing:
            return known  # type: ignore[return-value]  # None is not among them
        fetched = {}
        for index, entry in zip(missing, self._store.entries_at(partition, missing), strict=True):
            if index not in fetched:
                fetched[index] = entry
                self.fetched_bytes += entry.memory_bytes
                self.remember(entry)
        return [
            fetched[index] if entry is None else entry for index, entry in zip(indexes, known, strict=True)
        ]


def _size_of(entry: Entry) -> int:
    return entry.memory_bytes
