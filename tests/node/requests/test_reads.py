"""Reads against a log that a test wrote itself: what may be shown, and every way to page through it."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from allsource.cluster.budgets.turns import AtOnce, Turns
from allsource.cluster.protocol.requests import (
    PartitionPage,
    ReadMark,
    ReadPartition,
    ReadStream,
    ReadTag,
    StreamPage,
    TagPage,
    parse_token,
)
from allsource.config.schema import Limits
from allsource.node.observe.measures import Measures
from allsource.node.observe.metrics import LockFreeMetrics
from allsource.node.requests import reads as reads_module
from allsource.node.requests import runs as runs_module
from allsource.node.requests.entries import RecentEntries
from allsource.node.requests.pages import Pages
from allsource.node.requests.reads import Barrier, Reads
from allsource.node.requests.tickets import Ticket
from allsource.storage.memory import MemoryStorage
from allsource.storage.model.chunks import pack_events
from allsource.storage.model.entry import EVENTS, NOOP, Entry, Mark, NewAppend, make_entry
from allsource.storage.model.errors import InvalidRequest, NoOwner, NotFound, Overloaded, Unavailable
from allsource.storage.model.events import Event, NewEvent
from allsource.storage.model.log import HardState, PartitionWrite, StreamSlice
from allsource.storage.model.partition import tag_of
from tests.storage.logs import new_append


class Core:
    """A core that knows a commit index and answers read barriers when it is told to."""

    def __init__(self) -> None:
        self.commit = 0
        self.barriers: list[tuple[Barrier, int]] = []

    def read(self, partition: int, ticket: Any, min_index: int) -> None:
        self.barriers.append((ticket, min_index))

    def commit_index(self, partition: int) -> int:
        return self.commit


class Log:
    """One partition's log being written, the events that are in it, and the reads over it."""

    def __init__(self, limits: Limits | None = None, turns: AtOnce | None = None) -> None:
        self.storage = MemoryStorage(partition_count=1)
        self.core = Core()
        self.retried: list[Ticket] = []
        self.metrics = LockFreeMetrics()
        self.entries = RecentEntries(self.storage)
        self.pages = Pages(self.storage, self.entries, limits or Limits())
        self.reads = Reads(
            self.core,
            self.pages,
            Measures(self.metrics),
            retry=self.retried.append,
            now_us=lambda: 0,
            turns=turns or AtOnce(),
        )
        self.events: list[Event] = []
        self.index = 0
        self.versions: dict[str, int] = {}
        self.numbers: dict[str, int] = {}

    def append(self, *parts: tuple[str, int], size: int = 5, type: str = "T") -> None:
        """An entry with one append, of so many events to each stream; without parts, one without events."""
        self.write(*([self.made(*parts, size=size, type=type)] if parts else []))

    def made(
        self, *parts: tuple[str, int], size: int = 5, type: str = "T", marks: Sequence[Mark] = ()
    ) -> NewAppend:
        """An append that goes on behind those that were made before."""
        made = []
        for stream, count in parts:
            first = self.versions.get(stream, 0) + 1
            self.versions[stream] = first + count - 1
            first_number = 0
            if tag := tag_of(stream):
                first_number = self.numbers.get(tag, 0) + 1
                self.numbers[tag] = first_number + count - 1
            news = [NewEvent(type, b"x" * size, encoding=1) for _ in range(count)]
            made.append((stream, first, first_number, pack_events(news, compress=False)))
        return new_append(*made, marks=marks)

    def write(self, *appends: NewAppend) -> None:
        """An entry with these appends."""
        self.index += 1
        entry = make_entry(
            partition=0,
            index=self.index,
            term=1,
            kind=EVENTS if appends else NOOP,
            first_position=len(self.events) + 1,
            timestamp_us=1000 * self.index,
            appends=appends,
        )
        self.storage.write([PartitionWrite(0, HardState(1, "", 0), None, [entry])])
        self.events += entry.events()

    def stream(self, bound: int, **request: Any) -> StreamPage:
        return self.pages.read_stream(ReadStream(**request), 0, bound)

    def tag(self, bound: int, **request: Any) -> TagPage:
        return self.pages.read_tag(ReadTag(**request), 0, bound)

    def partition(self, bound: int, **request: Any) -> PartitionPage:
        return self.pages.read_partition(ReadPartition(0, **request), bound)

    def ask(self, request: ReadStream | ReadPartition | ReadTag | ReadMark, *, local: bool) -> list[Any]:
        answers: list[Any] = []
        ticket = Ticket(request, 0, 0, 0, False, answers.append, parse_token(request.token, 0))
        (self.reads.local if local else self.reads.linearizable)(ticket)
        return answers


def versions(page: StreamPage) -> list[int]:
    return [event.version for event in page.events()]


@pytest.fixture
def log() -> Log:
    """Indexes 1-6: a has 1-2 | 3 | (no event) | 4-6 with b's 1 between two of a | b 2 | a 7."""
    log = Log()
    log.append(("a", 2))
    log.append(("a", 1))
    log.append()
    log.append(("b", 1), ("a", 3))
    log.append(("b", 1))
    log.append(("a", 1))
    return log


def test_a_stream_from_its_beginning_to_its_end(log: Log) -> None:
    page = log.stream(6, stream="a")
    assert page.events() == [event for event in log.events if event.stream == "a"]
    assert (page.current_version, page.next_from) == (7, 0)
    assert (page.created_us, page.updated_us) == (1000, 6000)


def test_forward_pages_cut_through_appends(log: Log) -> None:
    page = log.stream(6, stream="a", from_version=2, limit=3)
    assert (versions(page), page.next_from) == ([2, 3, 4], 5)
    page = log.stream(6, stream="a", from_version=5, limit=3)
    assert (versions(page), page.next_from) == ([5, 6, 7], 0)


def test_backward_pages(log: Log) -> None:
    page = log.stream(6, stream="a", forward=False, limit=3)
    assert (versions(page), page.next_from) == ([7, 6, 5], 4)
    page = log.stream(6, stream="a", forward=False, from_version=4, limit=9)
    assert (versions(page), page.next_from) == ([4, 3, 2, 1], 0)
    page = log.stream(6, stream="a", forward=False, from_version=99, limit=1)
    assert versions(page) == [7]


def test_past_the_end_is_empty_and_over(log: Log) -> None:
    page = log.stream(6, stream="a", from_version=8)
    assert (versions(page), page.next_from, page.current_version) == ([], 0, 7)


def test_facts_alone(log: Log) -> None:
    page = log.stream(6, stream="b", limit=0)
    assert (page.current_version, page.runs, page.next_from) == (2, (), 0)
    assert (page.created_us, page.updated_us) == (4000, 5000)


def test_what_is_not_committed_is_not_shown(log: Log) -> None:
    page = log.stream(3, stream="a")
    assert (versions(page), page.current_version) == ([1, 2, 3], 3)
    assert (page.created_us, page.updated_us) == (1000, 2000)
    assert versions(log.stream(5, stream="a", forward=False)) == [6, 5, 4, 3, 2, 1]
    with pytest.raises(NotFound):
        log.stream(3, stream="b")
    assert log.partition(3).last_position == 3
    assert [event.position for event in log.partition(3).events()] == [1, 2, 3]
    with pytest.raises(NotFound):
        log.stream(0, stream="a")


def test_a_long_uncommitted_tail_is_walked_back_over() -> None:
    log = Log()
    log.append(("a", 1))
    for _ in range(200):
        log.append(("a", 1))
    assert log.stream(1, stream="a").current_version == 1
    assert log.stream(2, stream="a").current_version == 2


def test_an_unknown_stream_is_not_found(log: Log) -> None:
    with pytest.raises(NotFound, match="nope"):
        log.stream(6, stream="nope")


def test_a_partition_by_position(log: Log) -> None:
    page = log.partition(6)
    assert page.events() == log.events
    assert (page.last_position, page.next_from) == (9, 10)
    page = log.partition(6, from_position=3, limit=3)
    assert (page.events(), page.next_from) == (log.events[2:5], 6)
    page = log.partition(6, from_position=10)
    assert (page.events(), page.next_from) == ([], 10)
    page = log.partition(6, from_position=500)
    assert (page.events(), page.next_from) == ([], 10)


def test_an_empty_partition() -> None:
    log = Log()
    assert log.partition(0) == PartitionPage(0, 0, 1, ())
    log.append()
    assert log.partition(1) == PartitionPage(0, 0, 1, ())


def test_pages_are_bounded_by_bytes_but_hold_one_append_at_least() -> None:
    log = Log(Limits(read_bytes_max=1000))
    for _ in range(10):
        log.append(("a", 1), size=400)
    log.append(("a", 1), size=5000)
    assert versions(log.stream(11, stream="a")) == [1, 2]
    assert versions(log.stream(11, stream="a", from_version=11)) == [11]
    assert versions(log.stream(11, stream="a", from_version=10, forward=False)) == [10, 9]
    assert len(log.partition(11).events()) == 2
    assert len(log.partition(11, from_position=11).events()) == 1


def test_the_nodes_own_limit_bounds_the_callers() -> None:
    log = Log(Limits(read_events_max=3))
    log.append(("a", 10))
    assert versions(log.stream(1, stream="a", limit=100)) == [1, 2, 3]
    assert len(log.partition(1, limit=100).events()) == 3


# -- barriers and tokens


def test_a_linearizable_read_waits_for_its_barrier(log: Log) -> None:
    answers = log.ask(ReadStream("a"), local=False)
    assert answers == []
    ((barrier, min_index),) = log.core.barriers
    assert min_index == 0
    barrier.confirmed(2, ok=True)
    assert answers[0].current_version == 3
    assert log.metrics.snapshot().queries == 1


def test_a_refused_barrier_sends_the_read_elsewhere(log: Log) -> None:
    answers = log.ask(ReadStream("a"), local=False)
    log.core.barriers[0][0].confirmed(0, ok=False)
    assert answers == []
    assert len(log.retried) == 1


def test_a_token_is_part_of_the_barrier(log: Log) -> None:
    log.ask(ReadStream("a", token="0:5"), local=False)
    assert log.core.barriers[0][1] == 5


def test_a_local_read_shows_what_is_committed_here(log: Log) -> None:
    log.core.commit = 2
    answers = log.ask(ReadStream("a", local=True), local=True)
    assert answers[0].current_version == 3


def test_a_local_read_waits_for_its_token(log: Log) -> None:
    log.core.commit = 2
    late = log.ask(ReadStream("a", local=True, token="0:6"), local=True)
    soon = log.ask(ReadStream("a", local=True, token="0:4"), local=True)
    log.core.commit = 4
    log.reads.committed(0, 4)
    assert [len(late), len(soon)] == [0, 1]
    assert soon[0].current_version == 6
    log.reads.committed(0, 6)
    assert late[0].current_version == 7


def test_a_token_beyond_the_proved_log_is_refused_definitely(log: Log) -> None:
    answers = log.ask(ReadStream("a", token="0:99"), local=False)
    log.core.barriers[0][0].confirmed(6, ok=True)
    (error,) = answers
    assert type(error) is InvalidRequest
    assert error.details["reason"] == "token_from_the_future"
    assert log.metrics.snapshot().queries == 0


def test_reads_that_were_answered_otherwise_are_forgotten(log: Log) -> None:
    answers: list[Any] = []
    ticket = Ticket(ReadStream("a", local=True, token="0:99"), 0, 0, 0, False, answers.append, 99)
    log.reads.local(ticket)
    ticket.expire()
    log.reads.forget_finished()
    log.reads.committed(0, 99)
    (error,) = answers
    assert type(error) is Unavailable
    assert error.details["reason"] == "behind"
    assert "owner" not in error.message


def test_reads_that_wait_for_their_token_are_bounded(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reads_module, "BEHIND_MAX", 2)
    tickets, answers = [], list[Any]()
    for _ in range(3):
        tickets.append(Ticket(ReadStream("a", local=True), 0, 0, 0, False, answers.append, 99))
        log.reads.local(tickets[-1])
    assert [type(answer) for answer in answers] == [Overloaded]
    tickets[0].expire()
    log.reads.forget_finished()
    answers.clear()
    assert log.ask(ReadStream("a", local=True, token="0:99"), local=True) == []
    log.core.commit = 6
    log.reads.committed(0, 99)
    assert [type(answer) for answer in answers] == [StreamPage], "the one whose deadline had not passed"
    assert log.ask(ReadStream("a", local=True, token="0:6"), local=True)[0].current_version == 7


# -- turns


class Caller:
    """A connection that takes answers, or does not."""

    def __init__(self) -> None:
        self.closing = False
        self.takes = True
        self.answers: list[Any] = []

    def may_be_given_answers(self) -> bool:
        return self.takes or self.closing


class SlowLog:
    """Reads of which each takes 6 of the turn's 10 ms, and a loop that a test turns."""

    def __init__(self) -> None:
        self.now = 0
        self.soon: list[Callable[[], None]] = []
        self.log = Log(turns=Turns(self.soon.append, lambda: self.now, 10_000))
        self.log.append(("a", 1))
        self.log.core.commit = 1
        self.served = 0
        find = self.log.pages.read_stream

        def slowly(*arguments: Any) -> StreamPage:
            self.now += 6_000
            self.served += 1
            return find(*arguments)

        self.log.pages.read_stream = slowly  # type: ignore[method-assign]

    def ask(self, caller: Caller, count: int) -> list[Ticket]:
        tickets = [
            Ticket(ReadStream("a", local=True), 0, 0, 0, False, caller.answers.append, 0, caller)
            for _ in range(count)
        ]
        for ticket in tickets:
            self.log.reads.local(ticket)
        return tickets

    def goes_round(self) -> None:
        callbacks, self.soon[:] = self.soon[:], []
        for callback in callbacks:
            callback()


def test_reads_take_a_share_of_each_turn_and_no_more() -> None:
    slow, caller = SlowLog(), Caller()
    slow.ask(caller, 100)
    assert slow.served == 2
    for turn in range(1, 5):
        slow.goes_round()
        assert slow.served == 2 + 2 * turn


def test_reads_that_a_barrier_sets_free_together_take_turns_as_well() -> None:
    slow, caller = SlowLog(), Caller()
    for _ in range(100):
        ticket = Ticket(ReadStream("a"), 0, 0, 0, False, caller.answers.append, 0, caller)
        slow.log.reads.linearizable(ticket)
    for barrier, _ in slow.log.core.barriers:
        barrier.confirmed(1, ok=True)
    assert slow.served == 2


def test_a_caller_with_one_read_does_not_wait_for_anothers_thousand() -> None:
    slow, greedy, modest = SlowLog(), Caller(), Caller()
    slow.ask(greedy, 1000)
    slow.ask(modest, 1)
    slow.goes_round()
    assert len(modest.answers) == 1


def test_no_read_is_served_to_a_caller_that_does_not_take_its_answers() -> None:
    slow, deaf, other = SlowLog(), Caller(), Caller()
    deaf.takes = False
    tickets = slow.ask(deaf, 3)
    slow.ask(other, 1)
    slow.goes_round()
    assert (len(deaf.answers), len(other.answers), slow.served) == (0, 1, 1)
    tickets[0].expire()
    slow.log.reads.forget_finished()
    deaf.takes = True
    slow.log.reads.eased(deaf)
    slow.goes_round()
    assert [type(answer) for answer in deaf.answers] == [NoOwner, StreamPage, StreamPage]


def test_the_reads_of_a_connection_that_has_ended_cost_nothing() -> None:
    slow, gone = SlowLog(), Caller()
    gone.takes = False
    tickets = slow.ask(gone, 50)
    gone.closing = True
    slow.log.reads.eased(gone)
    assert slow.served == 0
    assert all(ticket.reply is None for ticket in tickets)
    assert not slow.log.reads._lanes


def test_too_many_reads_that_wait_are_seen_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reads_module, "READY_MAX", 5)
    slow, caller = SlowLog(), Caller()
    slow.ask(caller, 6)
    assert not slow.log.reads.is_full
    slow.ask(caller, 1)
    assert slow.log.reads.is_full


# -- what a page costs


class Costs:
    """How many bytes of entries a page had read, and how many looks into the index it took."""

    def __init__(self, log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
        self.bytes = self.looks = 0
        entries_at, slices = log.storage.entries_at, log.storage.slices

        def read(partition: int, indexes: Sequence[int]) -> list[Entry]:
            found = entries_at(partition, indexes)
            self.bytes += sum(len(entry.record) for entry in found)
            return found

        def look(*arguments: Any, **named: Any) -> list[StreamSlice]:
            self.looks += 1
            return slices(*arguments, **named)

        monkeypatch.setattr(log.storage, "entries_at", read)
        monkeypatch.setattr(log.storage, "slices", look)


@pytest.mark.parametrize("forward", [True, False])
def test_a_page_reads_hardly_more_bytes_than_it_shows(
    forward: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """64 entries were fetched at a time, of which each may have eight megabytes."""
    log = Log(Limits(read_bytes_max=100_000))
    for _ in range(100):
        log.append(("a", 1), size=30_000)
    costs = Costs(log, monkeypatch)
    page = log.stream(100, stream="a", forward=forward, limit=100)
    assert len(page.runs) == 3
    assert costs.bytes < 250_000


def test_a_stream_with_many_uncommitted_appends_is_read_without_walking_over_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log = Log()
    for _ in range(2000):
        log.append(("a", 1))
    costs = Costs(log, monkeypatch)
    assert log.stream(7, stream="a", limit=0).current_version == 7
    assert costs.looks < 15


def test_a_page_that_shows_few_of_many_is_not_made_of_all_the_bytes_before_its_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A partition's page of ten events read four megabytes of entries."""
    log = Log()
    for _ in range(100):
        log.append(("a", 1), size=20_000)
    read: list[Entry] = []
    entries = log.storage.entries

    def kept(*asked: Any) -> list[Entry]:
        found = entries(*asked)
        read.extend(found)
        return found

    monkeypatch.setattr(log.storage, "entries", kept)
    assert len(log.partition(100, limit=3).events()) == 3
    assert len(read) == 3


@pytest.mark.parametrize("forward", [True, False])
def test_a_page_is_bounded_by_what_its_entries_hold_beside_it(
    forward: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An entry has a thousand appends of others. What is not shown costs too: the page ends early."""
    monkeypatch.setattr(runs_module, "WORK_BYTES_MAX", 2_000_000)
    log = Log()
    for number in range(60):
        others = [log.made((f"s-{number}-{other}", 1)) for other in range(100)]
        log.write(log.made(("a", 1)), *others)
    costs = Costs(log, monkeypatch)
    page = log.stream(60, stream="a", limit=60, forward=forward)
    assert 10 < len(page.runs) < 40
    assert costs.bytes < 1_000_000
    assert page.next_from == (len(page.runs) + 1 if forward else 60 - len(page.runs))
    assert whole_stream(log, 60, "a", random.Random(1), forward=forward) == [
        event for event in log.events[:: 1 if forward else -1] if event.stream == "a"
    ]


def test_a_page_of_a_partition_is_bounded_where_most_entries_hold_no_events(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Marks take no position: a hundred thousand of them may lie between two events."""
    monkeypatch.setattr(runs_module, "WORK_BYTES_MAX", 100_000)
    log = Log()
    log.append(("a", 1))
    for position in range(300):
        log.write(new_append(marks=[Mark("m", position + 1, 0)]))
    log.append(("a", 1))
    page = log.partition(302)
    assert ([event.position for event in page.events()], page.next_from) == ([1], 2)
    page = log.partition(302, from_position=2)
    assert ([event.position for event in page.events()], page.next_from) == ([2], 3)


# -- chunks


def test_ten_of_a_thousand_events_touch_one_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    log = Log()
    log.append(("a", 1000))
    touched = []
    chunk = Entry.chunk
    monkeypatch.setattr(Entry, "chunk", lambda *asked: touched.append(asked) or chunk(*asked))
    for request in ({}, {"from_version": 300}, {"from_version": 999}, {"forward": False}):
        touched.clear()
        page = log.stream(1, stream="a", limit=10, **request)
        assert len(touched) == 1
        (run,) = page.runs
        assert run.chunk.count <= 256
    touched.clear()
    assert [event.position for event in log.partition(1, from_position=500, limit=3).events()] == [
        500,
        501,
        502,
    ]
    assert len(touched) == 1


def test_each_run_says_where_its_chunk_is(monkeypatch: pytest.MonkeyPatch) -> None:
    log = Log()
    log.append(("other", 3))
    log.append(("b{t}", 2), ("a{t}", 600))
    page = log.stream(2, stream="a{t}", from_version=250, limit=20)
    assert [(r.first_version, r.first_position, r.first_tag_number, r.skip, r.take) for r in page.runs] == [
        (1, 6, 3, 249, 7),
        (257, 262, 259, 0, 13),
    ]
    page = log.stream(2, stream="a{t}", from_version=270, limit=20, forward=False)
    assert [(run.first_version, run.skip, run.take) for run in page.runs] == [(257, 0, 14), (1, 250, 6)]
    assert versions(page) == list(range(270, 250, -1))


def test_bytes_of_a_page_are_those_that_its_reader_will_hold() -> None:
    """A chunk that was compressed counts as what it becomes."""
    log = Log(Limits(read_bytes_max=100_000))
    for number in range(1, 11):
        news = [NewEvent("T", b"x" * 30_000, encoding=1)]
        log.write(new_append(("a", number, 0, pack_events(news))))
    page = log.stream(10, stream="a")
    assert len(page.runs) == 3
    assert sum(len(run.chunk.data) for run in page.runs) < 1000
    assert len(log.partition(10).runs) == 3


# -- entries near the end of the log


def test_what_was_read_is_not_fetched_again(monkeypatch: pytest.MonkeyPatch) -> None:
    log = Log()
    for _ in range(10):
        log.append(("a", 1), ("b", 1))
    costs = Costs(log, monkeypatch)
    assert versions(log.stream(10, stream="a")) == list(range(1, 11))
    once = costs.bytes
    assert once > 0
    assert versions(log.stream(10, stream="b", forward=False)) == list(range(10, 0, -1))
    assert costs.bytes == once


# -- tags


@pytest.fixture
def tagged() -> Log:
    """Under t: a 1-2, b 3 | (no event) | a 4, c 5-7 (of another type) | b 8; an append of another tag among
    them."""
    log = Log()
    log.write(log.made(("a{t}", 2), ("b{t}", 1)), log.made(("x{u}", 2)))
    log.append()
    log.write(log.made(("a{t}", 1)), log.made(("c{t}", 3), type="Other"))
    log.append(("b{t}", 1))
    return log


def numbers(page: TagPage) -> list[int]:
    found = [event.tag_number for run in page.runs for event in run.events(0)]
    return found if page.forward else sorted(found, reverse=True)


def test_a_tag_by_number(tagged: Log) -> None:
    page = tagged.tag(4, tag="t")
    assert [event for run in page.runs for event in run.events(0)] == [
        event for event in tagged.events if event.stream.endswith("{t}")
    ]
    assert (numbers(page), page.last_number, page.next_from) == (list(range(1, 9)), 8, 0)
    page = tagged.tag(4, tag="t", from_number=2, limit=3)
    assert (numbers(page), page.next_from) == ([2, 3, 4], 5)
    page = tagged.tag(4, tag="t", from_number=9)
    assert (numbers(page), page.next_from, page.last_number) == ([], 0, 8)
    assert numbers(tagged.tag(4, tag="u")) == [1, 2]


def test_a_tag_backward(tagged: Log) -> None:
    page = tagged.tag(4, tag="t", forward=False, limit=3)
    assert (numbers(page), page.next_from) == ([8, 7, 6], 5)
    page = tagged.tag(4, tag="t", forward=False, from_number=5, limit=9)
    assert (numbers(page), page.next_from) == ([5, 4, 3, 2, 1], 0)


def test_of_a_tag_nothing_is_shown_that_is_not_committed(tagged: Log) -> None:
    for bound, last in ((4, 8), (3, 7), (2, 3), (1, 3), (0, 0)):
        page = tagged.tag(bound, tag="t")
        assert (page.last_number, numbers(page)) == (last, list(range(1, last + 1)))
        page = tagged.tag(bound, tag="t", forward=False)
        assert numbers(page) == list(range(last, 0, -1))


def test_a_tag_without_events_is_empty(tagged: Log) -> None:
    for forward in (True, False):
        assert tagged.tag(4, tag="nothing", forward=forward) == TagPage("nothing", 0, 0, 0, forward, ())


def test_parts_without_a_wanted_type_are_passed_over_without_touching_their_chunks(
    tagged: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    touched = []
    chunk = Entry.chunk
    monkeypatch.setattr(Entry, "chunk", lambda *asked: touched.append(asked) or chunk(*asked))
    page = tagged.tag(4, tag="t", types=("Other", "Nothing"))
    assert (numbers(page), page.next_from, page.last_number) == ([5, 6, 7], 0, 8)
    assert len(touched) == 1
    page = tagged.tag(4, tag="t", types=("Other",), limit=2)
    assert (numbers(page), page.next_from) == ([5, 6], 7)
    page = tagged.tag(4, tag="t", types=("Other",), limit=2, forward=False)
    assert (numbers(page), page.next_from) == ([7, 6], 5)
    touched.clear()
    page = tagged.tag(4, tag="t", types=("Nothing",), forward=False)
    assert (numbers(page), page.next_from) == ([], 0)
    assert touched == []


@pytest.mark.parametrize("forward", [True, False])
def test_looking_for_a_type_that_is_rare_is_bounded(forward: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs_module, "WORK_BYTES_MAX", 200_000)
    log = Log()
    rare = 40 if forward else 360
    for number in range(1, 401):
        log.append(("a{t}", 1), type="Rare" if number in (rare, 200) else "T")
    found, start, pages = [], 0, 0
    while True:
        page = log.tag(400, tag="t", types=("Rare",), from_number=start, forward=forward)
        found += numbers(page)
        pages += 1
        start = page.next_from
        if not start:
            break
    assert found == [rare, 200]
    assert pages > 2


# -- marks


def test_a_mark_is_where_the_newest_committed_append_left_it() -> None:
    log = Log()
    log.write(log.made(("a", 1), marks=[Mark("m", 5, 1)]))
    log.write(log.made(marks=[Mark("m", 7, 1)]), log.made(marks=[Mark("m", 2, 2)]))
    answers = []
    for bound in (0, 1, 2):
        found = log.pages.read_mark(ReadMark(0, "m"), bound)
        answers.append((found.position, found.generation, found.index))
    assert answers == [(0, 0, 0), (5, 1, 1), (2, 2, 2)]
    assert log.pages.read_mark(ReadMark(0, "other"), 2).index == 0


def test_tags_and_marks_are_read_as_everything_else_is() -> None:
    log = Log()
    log.write(log.made(("a{t}", 1), marks=[Mark("m", 5, 1)]))
    log.core.commit = 1
    (page,) = log.ask(ReadTag("t", local=True), local=True)
    assert page.last_number == 1
    (mark,) = log.ask(ReadMark(0, "m", local=True), local=True)
    assert mark.position == 5
    for request in (ReadTag("t"), ReadMark(0, "m")):
        answers = log.ask(request, local=False)
        assert answers == []
        log.core.barriers.pop()[0].confirmed(0, ok=True)
        assert len(answers) == 1
    answers = log.ask(ReadMark(0, "m", token="0:99"), local=False)
    log.core.barriers[0][0].confirmed(1, ok=True)
    assert answers[0].details["reason"] == "token_from_the_future"


# -- any log, any page

STREAMS = ("a", "b{t}", "c{t}")


@dataclass
class Draw:
    """A random log: few streams, entries of one or several parts, some without events."""

    seed: int

    def log(self) -> tuple[Log, random.Random]:
        rng = random.Random(self.seed)
        log = Log(
            Limits(
                read_bytes_max=rng.choice([200, 2000, 1 << 20]), read_events_max=rng.choice([3, 50, 300])
            )
        )
        for _ in range(rng.randint(1, 40)):
            made = []
            for _ in range(rng.choice([0, 1, 1, 2, 5])):
                streams = rng.sample(STREAMS, rng.choice([0, 1, 1, 1, 2, 3]))
                marks = [Mark("m", 1, 0)] if not streams else []
                parts = [
                    (stream, rng.choice([1, 1, 2, 7]) if rng.random() < 0.98 else 300) for stream in streams
                ]
                made.append(log.made(*parts, marks=marks))
            log.write(*made)
        return log, rng


@pytest.mark.parametrize("seed", range(60))
def test_pages_put_together_are_the_log(seed: int) -> None:
    print(
        f"replay: pytest 'tests/node/requests/test_reads.py::test_pages_put_together_are_the_log[{seed}]'"
    )
    log, rng = Draw(seed).log()
    bound = rng.randint(1, log.index)
    shown = [event for event in log.events if event.timestamp_us <= 1000 * bound]
    assert whole_partition(log, bound, rng) == shown
    of_tag = [event for event in shown if event.stream.endswith("{t}")]
    assert whole_tag(log, bound, rng, forward=True) == of_tag
    assert whole_tag(log, bound, rng, forward=False) == of_tag[::-1]
    assert [event.tag_number for event in of_tag] == list(range(1, len(of_tag) + 1))
    for stream in STREAMS:
        expected = [event for event in shown if event.stream == stream]
        if not expected:
            with pytest.raises(NotFound):
                log.stream(bound, stream=stream)
            continue
        assert whole_stream(log, bound, stream, rng, forward=True) == expected
        assert whole_stream(log, bound, stream, rng, forward=False) == expected[::-1]


def whole_stream(log: Log, bound: int, stream: str, rng: random.Random, *, forward: bool) -> list[Event]:
    found: list[Event] = []
    start = 0
    while True:
        page = log.stream(
            bound, stream=stream, from_version=start, limit=rng.choice([1, 7, 20, 20, 300]), forward=forward
        )
        found += page.events()
        if not page.next_from:
            return found
        assert page.runs, "a page that leads on holds something"
        start = page.next_from


def whole_tag(log: Log, bound: int, rng: random.Random, *, forward: bool) -> list[Event]:
    found: list[Event] = []
    start = 0
    while True:
        page = log.tag(
            bound, tag="t", from_number=start, limit=rng.choice([1, 7, 20, 20, 300]), forward=forward
        )
        for run in page.runs:
            found += run.events(0)[:: 1 if forward else -1]
        if not page.next_from:
            return found
        assert page.runs, "a page that leads on holds something"
        start = page.next_from


def whole_partition(log: Log, bound: int, rng: random.Random) -> list[Event]:
    found: list[Event] = []
    start = 1
    while True:
        page = log.partition(bound, from_position=start, limit=rng.choice([1, 7, 20, 20, 300]))
        found += page.events()
        if page.next_from > page.last_position:
            return found
        assert page.next_from > start
        start = page.next_from
