"""A partition's log as consensus sees it: what it must know at once in memory, the rest by reading.

In memory are the runs of terms (a few numbers for the whole log), the newest entries, and what the
next write has to store. Everything older is read through a `LogReader`. The log is the event log: it
is never compacted, so any follower can be served from it, however far behind it is.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Sequence
from typing import Protocol

from allsource.storage.model.entry import CONFIG, Configuration, Entry
from allsource.storage.model.log import ConfigurationAt, PartitionState

TAIL_BYTES_MAX = 1 << 20
"""Newest entries kept in memory for each partition, so that replication does not read the disk. In bytes of
their records: with their heads as objects, entries take 2.5 times as much where an event has 150 bytes, and
6.5 times where it has one (80 and 208 MiB over 32 partitions), however many appends share one."""


class LogReader(Protocol):
    """The part of `Storage` that consensus reads: entries that are no longer in its memory."""

    def entries(self, partition: int, first: int, last: int, bytes_max: int) -> list[Entry]: ...

    def records(self, partition: int, first: int, last: int, bytes_max: int) -> list[bytes]: ...


class RaftLog:
    """The log of one partition; the unwritten changes gather in it until `take_write`.

    Invariant: storage, after the last taken write, plus the unwritten changes, is this log.
    """

    def __init__(self, state: PartitionState, reader: LogReader) -> None:
        self.partition = state.partition
        self.last_index = state.last_index
        self.last_term = state.last_term
        self.next_position = state.next_position
        self.last_timestamp_us = state.last_timestamp_us
        self._reader = reader
        self._run_starts = [first for first, _ in state.terms]
        self._run_terms = [term for _, term in state.terms]
        self._configurations = list(state.configurations)
        self._tail: deque[Entry] = deque()
        self._tail_bytes = 0
        self._stored_last = state.last_index
        self._truncate_from: int | None = None
        self._unwritten: list[Entry] = []

    # -- reading

    def term_at(self, index: int) -> int | None:
        """The term of the entry at `index`; 0 for index 0; None past the end."""
        if index == self.last_index:
            return self.last_term
        if not 0 <= index < self.last_index:
            return None
        run = bisect_right(self._run_starts, index) - 1
        return self._run_terms[run] if run >= 0 else 0

    def newest_not_above(self, index: int, term: int) -> tuple[int, int]:
        """The newest `(index, term)` at or before `index` whose term is at most `term`.

        Both sides of a refused append use it to skip a whole term at a time (rule 22).
        """
        index = min(index, self.last_index)
        while index > 0:
            run = bisect_right(self._run_starts, index) - 1
            if run < 0:
                break
            if self._run_terms[run] <= term:
                return index, self._run_terms[run]
            index = self._run_starts[run] - 1
        return 0, 0

    def is_current(self, last_index: int, last_term: int) -> bool:
        """Whether a candidate's log is at least as new as this one (Raft §5.4.1)."""
        return (last_term, last_index) >= (self.last_term, self.last_index)

    def in_memory(self, index: int) -> bool:
        """Whether entries from `index` on can be had without reading the disk."""
        return bool(self._tail) and index >= self._tail[0].index

    def records(self, first: int, last: int, bytes_max: int) -> list[bytes]:
        """The records of entries `first..last`, the first of which is no longer in memory: at least one,
        then up to `bytes_max` bytes, as far as they must be read from the disk."""
        stop = self._tail[0].index - 1 if self._tail else self.last_index  # the disk may hold more still
        return self._reader.records(self.partition, first, min(last, stop), bytes_max)

    def slice(self, first: int, last: int, bytes_max: int) -> list[Entry]:
        """Entries `first..last`, which are in memory: at least one, then up to `bytes_max` bytes."""
        last = min(last, self.last_index)
        if first > last:
            return []
        found: list[Entry] = []
        size = 0
        start = first - self._tail[0].index
        for i in range(start, last - self._tail[0].index + 1):
            entry = self._tail[i]
            size += len(entry.record)
            if found and size > bytes_max:
                break
            found.append(entry)
        return found

    @property
    def configuration_index(self) -> int:
        """Index of the configuration entry in force."""
        return self._configurations[-1][0] if self._configurations else 0

    @property
    def configuration(self) -> Configuration:
        """The newest configuration in the log, committed or not (rule 8)."""
        return self._configurations[-1].configuration if self._configurations else Configuration(())

    # -- changing

    def append(self, entry: Entry) -> None:
        """Add the next entry."""
        assert entry.index == self.last_index + 1, (entry.index, self.last_index)
        assert entry.term >= self.last_term, "terms never go down along a log"
        if entry.term != self.last_term or not self._run_starts:
            self._run_starts.append(entry.index)
            self._run_terms.append(entry.term)
        if entry.kind == CONFIG:
            self._configurations.append(ConfigurationAt(entry.index, Configuration.decode(entry.payload())))
        self._tail.append(entry)
        self._tail_bytes += len(entry.record)
        self._unwritten.append(entry)
        self._set_last(entry)

    def truncate(self, first: int) -> None:
        """Drop the entry at `first` and all behind it."""
        while self._tail and self._tail[-1].index >= first:
            self._tail_bytes -= len(self._tail.pop().record)
        while self._unwritten and self._unwritten[-1].index >= first:
            self._unwritten.pop()
        while self._run_starts and self._run_starts[-1] >= first:
            self._run_starts.pop()
            self._run_terms.pop()
        while self._configurations and self._configurations[-1].index >= first:
            self._configurations.pop()
        if first <= self._stored_last:
            self._stored_last = first - 1
            self._truncate_from = first  # lower than an earlier one: that had lowered _stored_last
        self.last_index = first - 1
        self.last_term = self._run_terms[-1] if self._run_terms else 0
        if self.last_index:
            self._set_last(self._entry_at(self.last_index))
        else:
            self.next_position, self.last_timestamp_us = 1, 0

    def _entry_at(self, index: int) -> Entry:
        if self.in_memory(index):
            return self._tail[index - self._tail[0].index]
        return self._reader.entries(self.partition, index, index, 0)[0]

    def _set_last(self, entry: Entry) -> None:
        self.last_index = entry.index
        self.last_term = entry.term
        self.next_position = entry.next_position
        self.last_timestamp_us = entry.timestamp_us

    # -- storing

    @property
    def has_unwritten(self) -> bool:
        return bool(self._unwritten) or self._truncate_from is not None

    def take_write(self) -> tuple[int | None, Sequence[Entry]]:
        """`(truncate_from, entries)` for the next atomic write; the caller stores them before it
        reads again. Old entries leave memory here, since from now on storage has them."""
        taken = self._truncate_from, self._unwritten
        self._truncate_from, self._unwritten = None, []
        self._stored_last = self.last_index
        while self._tail_bytes > TAIL_BYTES_MAX and len(self._tail) > 1:
            self._tail_bytes -= len(self._tail.popleft().record)
        return taken
