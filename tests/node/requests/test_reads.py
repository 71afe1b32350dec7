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
    ReadPartition,
    ReadStream,
    StreamPage,
    parse_token,
)
from allsource.config.schema import Limits
from allsource.node.observe.measures import Measures
from allsource.node.observe.metrics import LockFreeMetrics
from allsource.node.requests import reads as reads_module
from allsource.node.requests.pages import Pages
from allsource.node.requests.reads import Barrier, Reads
from allsource.node.requests.tickets import Ticket
from allsource.storage.memory import MemoryStorage
from allsource.storage.model.entry import EVENTS, NOOP, Entry, Part, make_entry
from allsource.storage.model.errors import InvalidRequest, NoOwner, NotFound, Overloaded, Unavailable
from allsource.storage.model.events import Event, NewEvent, encode_blob
from allsource.storage.model.log import HardState, PartitionWrite, StreamSlice


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
        self.pages = Pages(self.storage, limits or Limits())
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

    def append(self, *parts: tuple[str, int], size: int = 5) -> None:
        """An entry that adds so many events to each stream; without parts, one that adds none."""
        self.index += 1
        made = []
        for stream, count in parts:
            first = self.versions.get(stream, 0) + 1
            news = [NewEvent("T", b"x" * size, encoding=1) for _ in range(count)]
            made.append(Part(stream, first, count, news[0].id, encode_blob(news)))
            self.versions[stream] = first + count - 1
        entry = make_entry(
            partition=0,
            index=self.index,
            term=1,
            kind=EVENTS if parts else NOOP,
            first_position=len(self.events) + 1,
            timestamp_us=1000 * self.index,
            parts=tuple(made),
        )
        self.storage.write([PartitionWrite(0, HardState(1, "", 0), None, [entry])])
        self.events += entry.events()

    def stream(self, bound: int, **request: Any) -> StreamPage:
        return self.pages.read_stream(ReadStream(**request), 0, bound)

    def partition(self, bound: int, **request: Any) -> PartitionPage:
        return self.pages.read_partition(ReadPartition(0, **request), bound)

    def ask(self, request: ReadStream | ReadPartition, *, local: bool) -> list[Any]:
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
    assert (page.current_version, page.chunks, page.next_from) == (2, (), 0)
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
    assert 3 <= len(page.chunks) <= 4
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


# -- any log, any page


@dataclass
class Draw:
    """A random log: few streams, entries of one or several parts, some without events."""

    seed: int

    def log(self) -> tuple[Log, random.Random]:
        rng = random.Random(self.seed)
        log = Log(
            Limits(read_bytes_max=rng.choice([200, 2000, 1 << 20]), read_events_max=rng.choice([3, 50]))
        )
        for _ in range(rng.randint(1, 40)):
            streams = rng.sample("abc", rng.choice([0, 1, 1, 1, 2, 3]))
            log.append(*[(stream, rng.choice([1, 1, 2, 7])) for stream in streams])
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
    for stream in "abc":
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
            bound, stream=stream, from_version=start, limit=rng.randint(1, 20), forward=forward
        )
        found += page.events()
        if not page.next_from:
            return found
        assert page.chunks, "a page that leads on holds something"
        start = page.next_from


def whole_partition(log: Log, bound: int, rng: random.Random) -> list[Event]:
    found: list[Event] = []
    start = 1
    while True:
        page = log.partition(bound, from_position=start, limit=rng.randint(1, 20))
        found += page.events()
        if page.next_from > page.last_position:
            return found
        assert page.next_from > start
        start = page.next_from
