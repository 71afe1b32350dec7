"""What a node keeps in memory of each partition's log: where it ends, and its few marks.

Terms and configurations are a handful for a whole log, and a start wants them all; so they are read once,
and kept in step with every write.
"""

from __future__ import annotations

from allsource.storage.model.entry import CONFIG, Configuration, Entry
from allsource.storage.postgres.log_tables import Loaded


class PartitionLog:
    """What is kept in memory of one partition: its end, and its few marks."""

    __slots__ = (
        "configurations",
        "hard",
        "last_index",
        "last_term",
        "next_position",
        "terms",
        "timestamp_us",
    )

    def __init__(self, loaded: Loaded, last: Entry | None) -> None:
        """`last` is what `loaded.last_record` holds, verified."""
        self.hard = loaded.hard
        self.terms = loaded.terms
        self.configurations = loaded.configurations
        self.end(last)

    def end(self, last: Entry | None) -> None:
        """This is the last entry now."""
        self.last_index = last.index if last else 0
        self.last_term = last.term if last else 0
        self.next_position = last.next_position if last else 1
        self.timestamp_us = last.timestamp_us if last else 0

    def append(self, entry: Entry) -> bool:
        """Whether the entry opens a term."""
        opens_term = not self.terms or entry.term != self.terms[-1][1]
        if opens_term:
            self.terms.append((entry.index, entry.term))
        if entry.kind == CONFIG:
            self.configurations.append((entry.index, Configuration.decode(entry.payload())))
        self.end(entry)
        return opens_term

    def truncate(self, first: int, last: Entry | None) -> None:
        """Everything from `first` on is gone; `last` is the end."""
        while self.terms and self.terms[-1][0] >= first:
            self.terms.pop()
        while self.configurations and self.configurations[-1][0] >= first:
            self.configurations.pop()
        self.end(last)
