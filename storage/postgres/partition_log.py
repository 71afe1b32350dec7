"""What a node keeps in memory of each partition's log: where it ends, and its few marks."""

from __future__ import annotations

from allsource.storage.model.entry import Entry
from allsource.storage.postgres.log_tables import Loaded


class PartitionLog:
    """What is kept in memory of one partition, in step with every write."""

    __slots__ = ("hard", "last_index", "last_term", "marks", "next_position", "timestamp_us")

    def __init__(self, loaded: Loaded, last: Entry | None) -> None:
        """`last` is what `loaded.last_record` holds, verified."""
        self.hard = loaded.hard
        self.marks = loaded.marks
        self._end(last)

    def _end(self, last: Entry | None) -> None:
        self.last_index = last.index if last else 0
        self.last_term = last.term if last else 0
        self.next_position = last.next_position if last else 1
        self.timestamp_us = last.timestamp_us if last else 0

    def append(self, entry: Entry) -> bool:
        """The log has a further entry. Whether it opens a term."""
        self._end(entry)
        return self.marks.append(entry)

    def truncate(self, first: int, last: Entry | None) -> None:
        """Everything from `first` on is gone; `last` is the end."""
        self.marks.truncate(first)
        self._end(last)
