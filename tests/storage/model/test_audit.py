"""The audit of a log and its indexes: each row that is wrong, missing or left over is told; and of records
that are whole, but were never right."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pytest

from allsource.storage.model.audit import IndexCounts, audit
from allsource.storage.model.chunks import ZSTD, Chunk, pack_events
from allsource.storage.model.entry import (
    CONFIG,
    EVENTS,
    NOOP,
    Append,
    Entry,
    Mark,
    NewAppend,
    Place,
    chunk_heads,
    make_entry,
)
from allsource.storage.model.events import BINARY, NewEvent
from allsource.storage.model.log import (
    HardState,
    LogMarks,
    MarkAt,
    PartitionState,
    StreamHead,
    StreamSlice,
    TagSlice,
)
from tests.storage.logs import LogModel, new_append


def a_log() -> LogModel:
    """Two streams of one tag and one without, in entries of one and of several appends, with marks."""
    log = LogModel(0)
    log.noop()
    log.events(("a{t}", 2), ("plain", 1), marks=[Mark("m", 3, 1)])
    log.appends(
        ([("b{t}", 3)], []),
        ([("a{t}", 1), ("plain", 2)], [Mark("m", 4, 1), Mark("n", 1, 1)]),
        ([], [Mark("m", 5, 1)]),
    )
    log.configuration("n1", term=2)
    log.events(("a{t}", 300), term=2, marks=[Mark("m", 0, 2)])
    return log


NOTHING = IndexCounts(0, 0, 0, 0, 0)


@dataclass
class Rows:
    """The indexes of a log as they should be, but for what a test puts into them."""

    log: LogModel
    heads: dict[str, StreamHead | None] = field(default_factory=dict)
    ids: dict[bytes, Place | None] = field(default_factory=dict)
    slices: dict[tuple[str, int], StreamSlice | None] = field(default_factory=dict)
    tag_slices: dict[tuple[str, int], TagSlice | None] = field(default_factory=dict)
    marks: dict[tuple[str, int], MarkAt | None] = field(default_factory=dict)
    left_over: IndexCounts = NOTHING
    asked: list[int] = field(default_factory=list)

    def head(self, partition: int, stream: str) -> StreamHead | None:
        return self.heads[stream] if stream in self.heads else self.log.head(stream)

    def place_of_append(self, partition: int, first_event_id: bytes) -> Place | None:
        if first_event_id in self.ids:
            return self.ids[first_event_id]
        return self.right_places()[first_event_id]

    def right_places(self) -> dict[bytes, Place]:
        return {
            part.first_id: Place(entry.index, ordinal)
            for entry in self.log.entries
            for ordinal, append in enumerate(entry.appends)
            for part in append.parts
        }

    def slice_at(self, partition: int, stream: str, first_version: int) -> StreamSlice | None:
        right = {found.first_version: found for found in self.log.slices(stream)}
        return self.slices.get((stream, first_version), right.get(first_version))

    def tag_slice_at(self, partition: int, tag: str, first_number: int) -> TagSlice | None:
        right = {found.first_number: found for found in self.log.tag_slices(tag)}
        return self.tag_slices.get((tag, first_number), right.get(first_number))

    def mark(self, partition: int, name: str, *, index_max: int) -> MarkAt | None:
        self.asked.append(index_max)
        return self.marks.get((name, index_max), self.log.mark(name, index_max))

    def count_indexes(self, partition: int) -> IndexCounts:
        streams = self.log.streams()
        right = IndexCounts(
            len(streams),
            sum(len(self.log.slices(stream)) for stream in streams),
            len(self.right_places()),
            len(self.log.tag_slices("t")),
            sum(len(append.marks) for entry in self.log.entries for append in entry.appends),
        )
        return IndexCounts(*(mine + more for mine, more in zip(right, self.left_over, strict=True)))


def state_of(entries: Sequence[Entry], commit: int = 0) -> PartitionState:
    marks = LogMarks()
    for entry in entries:
        marks.append(entry)
    last = entries[-1]
    return PartitionState(
        partition=0,
        hard=HardState(last.term, "", commit),
        last_index=last.index,
        last_term=last.term,
        terms=marks.terms,
        next_position=last.next_position,
        last_timestamp_us=last.timestamp_us,
        configurations=marks.configurations,
    )


def faults_of(rows: Rows) -> list[str]:
    log = rows.log
    return list(audit(state_of(log.entries), [(e.index, e.record) for e in log.entries], rows))


# -- the indexes


def test_what_is_right() -> None:
    rows = Rows(a_log())
    assert faults_of(rows) == []
    assert rows.count_indexes(0) == IndexCounts(3, 6, 6, 4, 5)
    assert rows.asked == [2, 3, 3, 5], "each mark as each entry left it"


A2 = next(part.first_id for part in a_log().entries[1].parts)
AT_3 = "index 3, stream 'a{t}'"
TIME_3 = a_log().entries[2].timestamp_us

WRONG: dict[str, tuple[Callable[[Rows], object], str]] = {
    "a head": (
        lambda rows: rows.heads.update({"plain": StreamHead(2, 3, 0, 0)}),
        "stream 'plain': its head is stored as StreamHead(version=2",
    ),
    "a head's time of creation": (
        lambda rows: rows.heads.update({"plain": rows.log.head("plain")._replace(created_us=7)}),  # type: ignore[union-attr]
        "stream 'plain': its head is stored as",
    ),
    "no head": (
        lambda rows: rows.heads.update({"plain": None}),
        "stream 'plain': its head is stored as None",
    ),
    "an id at a neighbour": (
        lambda rows: rows.ids.update({A2: Place(2, 1)}),
        f"index 2, stream 'a{{t}}': event id {A2.hex()} is indexed at Place(index=2, ordinal=1)",
    ),
    "no id": (
        lambda rows: rows.ids.update({A2: None}),
        f"index 2, stream 'a{{t}}': event id {A2.hex()} is",
    ),
    "a slice of a neighbour": (
        lambda rows: rows.slices.update({("a{t}", 3): StreamSlice(3, 1, 3, 0, TIME_3)}),
        f"{AT_3}: the version index holds StreamSlice(first_version=3, count=1, index=3, part=0",
    ),
    "a slice of another time": (
        lambda rows: rows.slices.update({("a{t}", 3): StreamSlice(3, 1, 3, 1, TIME_3 + 1)}),
        f"{AT_3}: the version index holds",
    ),
    "no slice": (
        lambda rows: rows.slices.update({("a{t}", 3): None}),
        f"{AT_3}: the version index holds None",
    ),
    "a tag's slice of a neighbour": (
        lambda rows: rows.tag_slices.update({("t", 6): TagSlice(6, 1, 3, 0)}),
        f"{AT_3}: the tag index holds TagSlice(first_number=6, count=1, index=3, part=0)",
    ),
    "a tag's slice of another length": (
        lambda rows: rows.tag_slices.update({("t", 6): TagSlice(6, 2, 3, 1)}),
        f"{AT_3}: the tag index holds",
    ),
    "no tag's slice": (
        lambda rows: rows.tag_slices.update({("t", 6): None}),
        f"{AT_3}: the tag index holds None, the log TagSlice(first_number=6, count=1, index=3, part=1)",
    ),
    "a mark": (
        lambda rows: rows.marks.update({("m", 3): MarkAt(4, 1, 3, 1)}),
        "index 3: mark 'm' is stored as MarkAt(position=4, generation=1, index=3, ordinal=1), the log says "
        "MarkAt(position=5, generation=1, index=3, ordinal=2)",
    ),
    "a mark of another append": (
        lambda rows: rows.marks.update({("m", 5): MarkAt(0, 2, 5, 1)}),
        "index 5: mark 'm' is stored as",
    ),
    "no mark": (lambda rows: rows.marks.update({("n", 3): None}), "index 3: mark 'n' is stored as None"),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_row_that_is_wrong_or_missing_is_told(what: str) -> None:
    rows = Rows(a_log())
    spoil, says = WRONG[what]
    spoil(rows)
    (fault,) = faults_of(rows)
    assert fault.startswith(f"partition 0: {says}")


@pytest.mark.parametrize("more", [1, -1])
@pytest.mark.parametrize("kind", IndexCounts._fields)
def test_a_row_that_is_left_over_or_missing_is_counted(kind: str, more: int) -> None:
    rows = Rows(a_log(), left_over=NOTHING._replace(**{kind: more}))
    right = Rows(rows.log).count_indexes(0)
    (fault,) = faults_of(rows)
    wrong = right._replace(**{kind: getattr(right, kind) + more})
    assert fault == f"partition 0: the indexes hold {wrong}, the log says {right}"


@pytest.mark.parametrize(
    "field_name", ["last_index", "last_term", "next_position", "terms", "configurations"]
)
def test_what_a_start_loads_is_the_logs(field_name: str) -> None:
    log = a_log()
    state = state_of(log.entries)
    right = getattr(state, field_name)
    setattr(state, field_name, right[:-1] if isinstance(right, list) else right + 1)
    (fault,) = audit(state, [(e.index, e.record) for e in log.entries], Rows(log))
    assert f"{field_name.replace('_', ' ')}" in fault.replace("term starts", "terms")


def test_behind_an_unreadable_record_only_what_is_sure_is_told() -> None:
    log = a_log()
    records = [(e.index, e.record) for e in log.entries]
    records[2] = (3, records[2][1][:-1])
    (fault,) = audit(state_of(log.entries), records, Rows(log))
    assert fault.startswith("partition 0: index 3: log record")


# -- records that are whole, but were never right

EVENT = NewEvent("T", b"1")
SENT = pack_events([EVENT])


def claiming(entries: Sequence[Entry]) -> list[str]:
    """The faults of a log whose indexes fit it."""
    log = LogModel(0, list(entries))
    return faults_of(Rows(log))


def of(append: NewAppend, index: int = 1, first_position: int = 1, **changed: int) -> Entry:
    return make_entry(
        **{
            "partition": 0, "index": index, "term": 1, "kind": EVENTS, "first_position": first_position,
            "timestamp_us": 5, **changed,
        },  # type: ignore[arg-type]
        appends=[append],
    )  # fmt: skip


def changed(append: NewAppend, **fields: object) -> NewAppend:
    (part,) = append.append.parts
    return NewAppend(Append((part._replace(**fields),)), append.data)


RIGHT = new_append(("s", 1, 0, SENT))


def test_what_is_changed_below_is_right() -> None:
    assert claiming([of(RIGHT)]) == []


def test_another_first_id_than_claimed() -> None:
    (fault,) = claiming([of(changed(RIGHT, first_id=bytes(16)))])
    assert fault.startswith(
        f"partition 0: index 1, stream 's': 1 events ('T',) from {'0' * 32} are claimed"
    )
    assert EVENT.id.hex() in fault


@pytest.mark.parametrize("types", [("U",), ("T", "U"), ("T", "T")])
def test_other_types_than_claimed(types: tuple[str, ...]) -> None:
    (fault,) = claiming([of(changed(RIGHT, types=types))])
    assert f"1 events {types} from" in fault
    assert "its chunks hold 1 ('T',)" in fault


@pytest.mark.parametrize(
    ("chunk", "says"),
    [
        (Chunk(1, 2, 0, b"\x91\x01"), "an event is an array"),
        (Chunk(2, len(SENT[0].data), 0, SENT[0].data), "does not hold the 2 events"),
        (Chunk(1, 9, ZSTD, b"no frame!"), "cannot be unpacked"),
    ],
)
def test_events_that_cannot_be_read(chunk: Chunk, says: str) -> None:
    wrong = changed(RIGHT, count=chunk.count, chunks=chunk_heads([chunk]))
    (fault,) = claiming([of(wrong._replace(data=(chunk.data,)))])
    assert fault.startswith("partition 0: index 1, stream 's': ")
    assert says in fault


def test_events_are_read_however_large_they_are() -> None:
    large = pack_events([NewEvent("T", bytes(5_000_000), encoding=BINARY)])
    assert claiming([of(new_append(("s", 1, 0, large)))]) == []


def test_versions_numbers_and_marks_that_do_not_go_on() -> None:
    def some(stream: str, version: int, number: int, *marks: Mark) -> NewAppend:
        return new_append((stream, version, number, pack_events([NewEvent("T")])), marks=marks)

    entries = [
        of(some("a{t}", 1, 1, Mark("m", 5, 1))),
        of(some("a{t}", 3, 2, Mark("m", 5, 1)), 2, 2),
        of(some("b{t}", 1, 4, Mark("m", 6, 0)), 3, 3),
        of(some("c{t}", 1, 5, Mark("m", 4, 2)), 4, 4),
    ]
    found = claiming(entries)
    assert [fault.partition(": ")[2] for fault in found[:4]] == [
        "index 2, stream 'a{t}': it goes on at version 3 behind 1",
        "index 2: Mark(name='m', position=5, generation=1) moves back what was "
        "MarkAt(position=5, generation=1, index=1, ordinal=0)",
        "index 3, stream 'b{t}': its tag goes on at number 4 behind 2",
        "index 3: Mark(name='m', position=6, generation=0) moves back what was "
        "MarkAt(position=5, generation=1, index=2, ordinal=0)",
    ]


def noop(index: int, term: int = 1, timestamp_us: int = 5, first_position: int = 1) -> Entry:
    return make_entry(
        partition=0,
        index=index,
        term=term,
        kind=NOOP,
        first_position=first_position,
        timestamp_us=timestamp_us,
    )


@pytest.mark.parametrize(
    ("entries", "commit", "fault"),
    [
        ([noop(1), noop(2)], 2, ""),
        ([noop(1), noop(2)], 3, "committed up to 3, but the log ends at 2"),
        ([noop(1), noop(3)], 0, "index 3 follows 1: entries are missing"),
        ([noop(1, term=2), noop(2, term=1)], 0, "index 2 has term 1 behind term 2"),
        ([noop(1), noop(2, timestamp_us=4)], 0, "index 2 has an earlier timestamp"),
        ([noop(1), noop(2, first_position=3)], 0, "index 2 starts at position 3, expected 1"),
        ([of(RIGHT), noop(2)], 0, "index 2 starts at position 1, expected 2"),
    ],
)
def test_what_contradicts_itself_along_a_log(entries: list[Entry], commit: int, fault: str) -> None:
    log = LogModel(0, entries)
    records = [(entry.index, entry.record) for entry in entries]
    found = list(audit(state_of(entries, commit), records, Rows(log)))
    assert [one for one in found if one.startswith(f"partition 0: {fault}")] if fault else found == []


def test_an_unreadable_configuration_is_told() -> None:
    wrong = make_entry(
        partition=0, index=1, term=1, kind=CONFIG, first_position=1, timestamp_us=5, payload=b"\xc1"
    )
    state = state_of([noop(1)])
    (fault,) = audit(state, [(1, wrong.record)], Rows(LogModel(0, [noop(1)])))
    assert fault.startswith("partition 0: index 1: unreadable configuration entry")


def test_an_entry_that_lies_where_another_belongs() -> None:
    entries = [noop(1), noop(2)]
    records = [(1, entries[0].record), (3, entries[1].record)]
    found = list(audit(state_of(entries), records, Rows(LogModel(0, entries))))
    assert found == ["partition 0: index 3 holds the entry 0/2"]
