"""Building valid entries for tests: a partition's log that grows and is cut like a leader's would be."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

from allsource.storage.model.entry import CONFIG, EVENTS, NOOP, Configuration, Entry, Part, make_entry
from allsource.storage.model.events import encode_blob
from allsource.storage.model.log import HardState, PartitionWrite, StreamHead, StreamSlice
from tests.foreign import foreign_event


def part(stream: str, first_version: int, count: int = 1, *, seed: int = 0, data: bytes = b"1") -> Part:
    """`count` events for a stream, with ids that follow from their place and the seed."""
    random = Random(f"{stream}/{first_version}/{seed}")
    events = [foreign_event("tested", data, id=random.randbytes(16)) for _ in range(count)]
    return Part(stream, first_version, count, events[0].id, encode_blob(events))


@dataclass
class LogModel:
    """A partition's log as a plain list, and every index recomputed from it by brute force."""

    partition: int
    entries: list[Entry] = field(default_factory=list)
    hard: HardState = field(default_factory=HardState)

    # -- making what comes next

    @property
    def next_position(self) -> int:
        return self.entries[-1].next_position if self.entries else 1

    def version(self, stream: str) -> int:
        return sum(p.count for e in self.entries for p in e.parts if p.stream == stream)

    def events(self, *sizes: tuple[str, int], term: int = 1, seed: int = 0, data: bytes = b"1") -> Entry:
        """Append an entry with `(stream, count)` events, and return it."""
        parts = tuple(part(s, self.version(s) + 1, count, seed=seed, data=data) for s, count in sizes)
        return self._add(EVENTS, term, parts=parts)

    def noop(self, term: int = 1) -> Entry:
        return self._add(NOOP, term)

    def configuration(self, *voters: str, term: int = 1) -> Entry:
        return self._add(CONFIG, term, payload=Configuration(voters).encode())

    def _add(self, kind: int, term: int, *, parts: tuple[Part, ...] = (), payload: bytes = b"") -> Entry:
        index = len(self.entries) + 1
        entry = make_entry(
            partition=self.partition,
            index=index,
            term=term,
            kind=kind,
            first_position=self.next_position,
            timestamp_us=1_700_000_000_000_000 + 1000 * index + term,
            parts=parts,
            payload=payload,
        )
        self.entries.append(entry)
        return entry

    def cut(self, index: int) -> None:
        """Drop `index` and everything behind it."""
        del self.entries[index - 1 :]

    def write(self, *entries: Entry, truncate_from: int | None = None) -> PartitionWrite:
        return PartitionWrite(self.partition, None, truncate_from, entries)

    def copy(self) -> LogModel:
        return LogModel(self.partition, list(self.entries), self.hard)

    # -- what the indexes must say

    def head(self, stream: str) -> StreamHead | None:
        mine = [entry for entry in self.entries if any(p.stream == stream for p in entry.parts)]
        if not mine:
            return None
        return StreamHead(self.version(stream), mine[-1].index, mine[0].timestamp_us, mine[-1].timestamp_us)

    def slices(self, stream: str) -> list[StreamSlice]:
        return [
            StreamSlice(p.first_version, p.count, entry.index)
            for entry in self.entries
            for p in entry.parts
            if p.stream == stream
        ]

    def streams(self) -> list[str]:
        return sorted({p.stream for e in self.entries for p in e.parts}, key=lambda s: s.encode())

    def index_of_position(self, position: int) -> int | None:
        for entry in self.entries:
            if entry.first_position <= position < entry.next_position:
                return entry.index
        return None

    def terms(self) -> list[tuple[int, int]]:
        runs: list[tuple[int, int]] = []
        for entry in self.entries:
            if not runs or runs[-1][1] != entry.term:
                runs.append((entry.index, entry.term))
        return runs
