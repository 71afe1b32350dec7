"""A partition's log as values: what a write changes of it, what a start reads of it, what its indexes say.

Consensus makes these, a `Storage` (`storage.interface`) keeps them, and neither knows the other.

Positions, versions and indexes count from 1; 0 means "none yet". Partitions count from 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from allsource.storage.model.entry import CONFIG, Configuration, Entry


class HardState(NamedTuple):
    """What a Raft group must remember over a restart (Raft §5.1, figure 2), and its commit index."""

    term: int = 0
    vote: str = ""
    """Node id that got this node's vote in `term`; empty: nobody."""
    commit: int = 0


class TermStart(NamedTuple):
    """From `index` on, entries are of `term`."""

    index: int  # type: ignore[assignment]  # a field, not tuple.index
    term: int


class ConfigurationAt(NamedTuple):
    """The CONFIG entry at `index`."""

    index: int  # type: ignore[assignment]
    configuration: Configuration


@dataclass(slots=True)
class LogMarks:
    """What a start wants to know of a whole log, however long: a handful of entries. A backend that keeps
    them in memory keeps them in step with every write."""

    terms: list[TermStart] = field(default_factory=list)
    configurations: list[ConfigurationAt] = field(default_factory=list)

    def append(self, entry: Entry) -> bool:
        """The log has a further entry. Whether it opens a term."""
        opens_term = not self.terms or entry.term != self.terms[-1].term
        if opens_term:
            self.terms.append(TermStart(entry.index, entry.term))
        if entry.kind == CONFIG:
            self.configurations.append(ConfigurationAt(entry.index, Configuration.decode(entry.payload())))
        return opens_term

    def truncate(self, first: int) -> None:
        """The entries from `first` on are gone."""
        while self.terms and self.terms[-1].index >= first:
            self.terms.pop()
        while self.configurations and self.configurations[-1].index >= first:
            self.configurations.pop()


@dataclass(slots=True)
class PartitionState:
    """All that consensus needs to know of a partition's log when a node starts."""

    partition: int
    hard: HardState = field(default_factory=HardState)
    last_index: int = 0
    last_term: int = 0
    terms: list[TermStart] = field(default_factory=list)
    """Every run of entries of one term, ascending."""
    next_position: int = 1
    """The position that the next event would get."""
    last_timestamp_us: int = 0
    configurations: list[ConfigurationAt] = field(default_factory=list)
    """Every CONFIG entry in the log, ascending."""


@dataclass(slots=True)
class PartitionWrite:
    """One partition's share of an atomic write. Truncation comes first, then the entries."""

    partition: int
    hard: HardState | None = None
    truncate_from: int | None = None
    """Drop this index and all behind it, with what the indexes hold of them."""
    entries: Sequence[Entry] = ()


class StreamHead(NamedTuple):
    """A stream's newest state in the log (it may not be committed yet)."""

    version: int
    index: int  # type: ignore[assignment]  # a field, not tuple.index
    """Log index of the entry that holds this version."""
    created_us: int
    updated_us: int


class StreamSlice(NamedTuple):
    """Where events of a stream are: part `part` of the entry at `index` (counting the parts of all its
    appends from 0) holds `count` events from `first_version`."""

    first_version: int
    count: int  # type: ignore[assignment]  # fields, not tuple's methods
    index: int  # type: ignore[assignment]
    part: int
    timestamp_us: int


class TagHead(NamedTuple):
    """A tag's newest event in the log (it may not be committed yet)."""

    number: int
    """The tag's numbers go from 1 to this."""
    index: int  # type: ignore[assignment]
    """Log index of the entry that holds it."""


class TagSlice(NamedTuple):
    """Where events of a tag are: part `part` of the entry at `index` holds `count` from `first_number`."""

    first_number: int
    count: int  # type: ignore[assignment]
    index: int  # type: ignore[assignment]
    part: int


class MarkAt(NamedTuple):
    """A mark as an append left it. `index` and `ordinal` name that append (`entry.Place`)."""

    position: int
    generation: int
    index: int  # type: ignore[assignment]
    ordinal: int
