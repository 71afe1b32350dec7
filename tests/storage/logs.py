"""Building valid entries for tests: a partition's log that grows and is cut like a leader's would be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random

from allsource.storage.model.chunks import Chunk, pack_events, unpack_chunks
from allsource.storage.model.entry import (
    CONFIG,
    EVENTS,
    NOOP,
    Append,
    Configuration,
    Entry,
    Mark,
    NewAppend,
    Part,
    chunk_heads,
    make_entry,
)
from allsource.storage.model.log import (
    HardState,
    MarkAt,
    PartitionWrite,
    StreamHead,
    StreamSlice,
    TagHead,
    TagSlice,
)
from allsource.storage.model.partition import tag_of
from tests.foreign import foreign_event


def part(
    stream: str,
    first_version: int,
    count: int = 1,
    *,
    seed: int = 0,
    data: bytes = b"1",
    first_tag_number: int = 0,
) -> NewAppend:
    """An append of `count` events to one stream, with ids that follow from their place and the seed."""
    random = Random(f"{stream}/{first_version}/{seed}")
    events = [foreign_event("tested", data, id=random.randbytes(16)) for _ in range(count)]
    return new_append((stream, first_version, first_tag_number, pack_events(events)))


def new_append(*wanted: tuple[str, int, int, Sequence[Chunk]], marks: Sequence[Mark] = ()) -> NewAppend:
    """An append of `(stream, first version, first tag number, chunks)`s."""
    parts, data = [], []
    for stream, first_version, first_tag_number, chunks in wanted:
        events = unpack_chunks(chunks)
        types = tuple(dict.fromkeys(event[1] for event in events))
        heads = chunk_heads(chunks)
        parts.append(Part(stream, first_version, len(events), events[0][0], first_tag_number, types, heads))
        data += [chunk.data for chunk in chunks]
    return NewAppend(Append(tuple(parts), tuple(marks)), tuple(data))


def together(*appends: NewAppend) -> NewAppend:
    """One append that does what these do."""
    return NewAppend(
        Append(
            tuple(part for one in appends for part in one.append.parts),
            tuple(mark for one in appends for mark in one.append.marks),
        ),
        tuple(data for one in appends for data in one.data),
    )


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

    def number(self, tag: str) -> int:
        return sum(p.count for e in self.entries for p in e.parts if tag_of(p.stream) == tag)

    def events(
        self,
        *sizes: tuple[str, int],
        term: int = 1,
        seed: int = 0,
        data: bytes = b"1",
        marks: Sequence[Mark] = (),
    ) -> Entry:
        """Append an entry with one append of `(stream, count)` events and of `marks`, and return it."""
        return self.appends((sizes, marks), term=term, seed=seed, data=data)

    def appends(
        self,
        *wanted: tuple[Sequence[tuple[str, int]], Sequence[Mark]],
        term: int = 1,
        seed: int = 0,
        data: bytes = b"1",
    ) -> Entry:
        """Append an entry with an append for each of `(sizes, marks)`, and return it."""
        versions: dict[str, int] = {}
        numbers: dict[str, int] = {}
        made = []
        for sizes, marks in wanted:
            parts = []
            for stream, count in sizes:
                version = versions.get(stream, self.version(stream))
                versions[stream] = version + count
                first_number = 0
                if tag := tag_of(stream):
                    first_number = numbers.get(tag, self.number(tag)) + 1
                    numbers[tag] = first_number + count - 1
                parts.append(
                    part(
                        stream,
                        version + 1,
                        count,
                        seed=seed,
                        data=data,
                        first_tag_number=first_number,
                    )
                )
            made.append(together(*parts, NewAppend(Append((), tuple(marks)), ())))
        return self._add(EVENTS, term, appends=made)

    def noop(self, term: int = 1) -> Entry:
        return self._add(NOOP, term)

    def configuration(self, *voters: str, term: int = 1) -> Entry:
        return self._add(CONFIG, term, payload=Configuration(voters).encode())

    def _add(
        self, kind: int, term: int, *, appends: Sequence[NewAppend] = (), payload: bytes = b""
    ) -> Entry:
        index = len(self.entries) + 1
        entry = make_entry(
            partition=self.partition,
            index=index,
            term=term,
            kind=kind,
            first_position=self.next_position,
            timestamp_us=1_700_000_000_000_000 + 1000 * index + term,
            appends=appends,
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
            StreamSlice(p.first_version, p.count, entry.index, number, entry.timestamp_us)
            for entry in self.entries
            for number, p in enumerate(entry.parts)
            if p.stream == stream
        ]

    def tag_head(self, tag: str) -> TagHead | None:
        mine = self.tag_slices(tag)
        return TagHead(mine[-1].first_number + mine[-1].count - 1, mine[-1].index) if mine else None

    def tag_slices(self, tag: str) -> list[TagSlice]:
        return [
            TagSlice(p.first_tag_number, p.count, entry.index, number)
            for entry in self.entries
            for number, p in enumerate(entry.parts)
            if tag_of(p.stream) == tag
        ]

    def mark(self, name: str, index_max: int) -> MarkAt | None:
        found = [
            MarkAt(mark.position, mark.generation, entry.index, ordinal)
            for entry in self.entries[:index_max]
            for ordinal, append in enumerate(entry.appends)
            for mark in append.marks
            if mark.name == name
        ]
        return found[-1] if found else None

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
