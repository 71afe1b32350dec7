"""The write path against a core that a test plays: who is answered when, and never too early."""

from __future__ import annotations

from typing import Any

import pytest

from allsource.cluster.budgets.turns import Turns
from allsource.cluster.consensus.messages import Role, RoleChange
from allsource.cluster.protocol.requests import AppendPart, AppendRequest, AppendResult
from allsource.node.requests import ingest as ingest_module
from allsource.node.requests import lanes as lanes_module
from allsource.node.requests.answering import ANSWERED_AT_ONCE
from allsource.node.requests.ingest import DRAIN_AT_ONCE, PUMP_US
from allsource.node.requests.tickets import Ticket
from allsource.storage.model.chunks import pack_events
from allsource.storage.model.errors import (
    Corrupt,
    InvalidRequest,
    NoMajority,
    Overloaded,
    QueueFull,
    WrongExpectedVersion,
)
from allsource.storage.model.expected import NO_STREAM
from tests.node.appends import append, events
from tests.node.requests.desk import Desk, P


@pytest.fixture
def one_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """An entry for each append."""
    monkeypatch.setattr(lanes_module, "GROUP_APPENDS_MAX", 1)


def test_nothing_is_answered_before_it_is_committed() -> None:
    desk = Desk()
    _, first = desk.ask(append(("a", events())))
    desk.turn()
    _, second = desk.ask(append(("a", events(2))))
    desk.turn()
    assert (first, second) == ([], [])
    assert desk.ingest.under_way() == 2
    desk.commit(1)
    assert isinstance(first[0], AppendResult)
    assert second == []
    desk.commit(2)
    assert second[0].streams == (("a", 2, 3),)


def test_a_retry_in_the_same_turn_waits_for_the_first() -> None:
    desk = Desk()
    request = append(("a", events()), expected=NO_STREAM)
    _, first = desk.ask(request)
    _, second = desk.ask(request)
    desk.turn()
    assert len(desk.core.log) == 1
    assert (first, second) == ([], [])
    desk.commit(1)
    assert (first[0].duplicate, second[0].duplicate) == (False, True)


def test_a_retry_of_an_entry_of_an_older_owner_waits_for_its_commit() -> None:
    desk = Desk()
    request = append(("a", events()))
    desk.ask(request)
    desk.turn()
    desk.depose()
    desk.lead_again()
    _, again = desk.ask(request)
    desk.turn()
    assert again == []
    assert len(desk.core.log) == 1
    desk.commit(1)
    assert again[0].duplicate


def test_a_lost_leadership_puts_everything_in_doubt() -> None:
    desk = Desk()
    request = append(("a", events()))
    first, first_answers = desk.ask(request)
    second, second_answers = desk.ask(request)
    desk.turn()
    desk.depose()
    assert desk.retried == [first, second]
    assert first.in_doubt
    assert second.in_doubt
    desk.commit(1)  # of another owner's entry at the same index
    assert (first_answers, second_answers) == ([], [])


def test_a_new_term_of_the_same_leader_flushes_the_older_ones() -> None:
    desk = Desk()
    first, answers = desk.ask(append(("a", events())))
    desk.turn()
    desk.lead_again()
    assert desk.retried == [first]
    desk.commit(1)
    assert answers == []


def test_an_entry_of_another_term_at_the_same_index_confirms_nothing() -> None:
    """Whether or not the news of the lost leadership ever came (RULES.md rule 32)."""
    desk = Desk()
    request = append(("a", events()))
    first, answers = desk.ask(request)
    retry, again = desk.ask(request)
    desk.turn()
    desk.truncate(1)
    desk.core.term = 2
    desk.overwritten("b")
    desk.turn()
    desk.commit(1)
    assert (answers, again) == ([], [])
    assert desk.retried == [first, retry]
    assert first.in_doubt
    assert retry.in_doubt


def test_what_was_proposed_before_the_news_of_a_new_term_does_not_save_what_is_older() -> None:
    desk = Desk()
    old, old_answers = desk.ask(append(("a", events())))
    desk.turn()
    desk.core.term = 3
    desk.truncate(1)
    new, new_answers = desk.ask(append(("b", events())))
    desk.turn()
    desk.ingest.changed(RoleChange(P, 3, Role.LEADER, "n1"))
    assert desk.retried == [old]
    desk.commit(1)
    assert old_answers == []
    assert len(new_answers) == 1
    assert not new.in_doubt


def test_a_door_that_fails_to_answer_one_caller_keeps_no_other_from_its_answer() -> None:
    desk = Desk()

    def broken_door(_: Any) -> None:
        raise ValueError("no such connection")

    ticket = Ticket(append(("a", events())), P, 0, 0, False, broken_door)
    desk.ingest.submit(ticket)
    _, answers = desk.ask(append(("b", events())))
    desk.turn()
    desk.commit(1)
    assert len(answers) == 1


def test_the_news_of_an_own_leadership_keeps_what_was_proposed_in_it() -> None:
    """The pump may propose in the turn in which the core won, before the change is told."""
    desk = Desk()
    _, answers = desk.ask(append(("a", events())))
    desk.turn()
    desk.ingest.changed(RoleChange(P, 1, Role.LEADER, "n1"))
    desk.commit(1)
    assert len(answers) == 1


def test_heads_are_read_anew_after_a_truncation() -> None:
    desk = Desk()
    desk.ask(append(("a", events(5))))
    desk.turn()
    desk.depose()
    desk.truncate(1)
    desk.lead_again()
    _, answers = desk.ask(append(("a", events()), expected=NO_STREAM))
    desk.turn()
    desk.commit(1)
    assert answers[0].streams == (("a", 1, 1),)


def test_a_conflict_is_told_only_after_a_read_barrier() -> None:
    desk = Desk()
    desk.ask(append(("a", events())))
    _, answers = desk.ask(append(("a", events()), expected=NO_STREAM))
    desk.turn()
    ((barrier, min_index),) = desk.core.reads
    assert min_index == 1, "the version that it fails on is not committed yet"
    assert answers == []
    barrier.confirmed(1, ok=True)
    assert isinstance(answers[0], WrongExpectedVersion)


def test_a_conflict_of_a_deposed_owner_is_not_told() -> None:
    desk = Desk()
    ticket, answers = desk.ask(append(("a", events()), expected=7))
    desk.turn()
    desk.core.reads[0][0].confirmed(0, ok=False)
    assert answers == []
    assert desk.retried == [ticket]
    assert not ticket.in_doubt


def test_what_cannot_be_appended_now_says_why() -> None:
    desk = Desk()
    desk.core.quorum = False
    _, answers = desk.ask(append(("a", events())))
    desk.turn()
    assert type(answers[0]) is NoMajority
    desk.core.quorum, desk.core.room = True, False
    _, answers = desk.ask(append(("a", events())))
    desk.turn()
    assert type(answers[0]) is Overloaded
    desk.core.moving = True
    ticket, answers = desk.ask(append(("a", events())))
    desk.turn()
    assert answers == []
    assert desk.retried == [ticket]
    assert desk.core.log == []


def test_an_obstacle_does_not_keep_a_retry_from_its_answer() -> None:
    desk = Desk()
    request = append(("a", events()))
    desk.ask(request)
    desk.turn()
    desk.commit(1)
    desk.core.quorum = False
    _, answers = desk.ask(request)
    desk.turn()
    assert answers[0].duplicate


def test_an_expired_append_is_not_proposed() -> None:
    desk = Desk()
    ticket, answers = desk.ask(append(("a", events())))
    ticket.expire()
    desk.turn()
    assert desk.core.log == []
    assert answers[0].definite


def test_a_burst_is_taken_in_one_turn_if_it_is_quick() -> None:
    desk = Desk()
    for _ in range(10 * DRAIN_AT_ONCE):
        desk.ask(append(("a", events())))
    assert not desk.turn()
    assert desk.proposed() == [10 * DRAIN_AT_ONCE]


def test_a_burst_that_takes_long_lets_the_loop_turn() -> None:
    desk = Desk()
    for _ in range(3 * DRAIN_AT_ONCE):
        desk.ask(append(("a", events())))
    clock = iter(range(0, 100 * PUMP_US, PUMP_US))
    desk.ingest._now_us = lambda: next(clock)
    assert desk.turn()
    assert desk.turn()
    assert not desk.turn()
    assert desk.proposed() == 3 * [DRAIN_AT_ONCE]


# -- no more than can be served in time


def busy(desk: Desk, *, waiting: int, a_second: int) -> None:
    """Let so many appends wait at a node that commits so many a second, all that it can."""
    for _ in range(waiting):
        desk.ask(append(("a", events())))
    while desk.turn():
        pass
    for _ in range(10):  # half a second
        desk.now += 50_000
        desk.commit(min(desk.core.commit + a_second // 20, len(desk.core.log)))


@pytest.mark.usefixtures("one_each")
def test_an_append_that_those_before_it_leave_no_time_is_refused_at_once_and_definitely() -> None:
    desk = Desk()
    busy(desk, waiting=900, a_second=200)  # 800 are left: four seconds
    _, patient = desk.ask(append(("a", events())), within_us=60_000_000)
    _, hasty = desk.ask(append(("a", events())), within_us=5_000_000)
    assert patient == []
    (error,) = hasty
    assert type(error) is QueueFull
    assert error.definite
    assert 3_000 < error.details["wait_ms"] < 5_000


@pytest.mark.usefixtures("one_each")
def test_what_would_end_as_unknown_is_refused_before_it_is_proposed() -> None:
    desk = Desk()
    _, answers = desk.ask(append(("b", events())), within_us=1_000_000)
    desk.ingest._queue.drain()  # it waits while the others fill the way to the majority
    busy(desk, waiting=900, a_second=200)
    ticket = Ticket(append(("b", events())), P, 0, desk.now + 1_000_000, False, answers.append)
    desk.ingest._queue.try_push(ticket)
    desk.turn()
    (error,) = answers
    assert type(error) is QueueFull
    assert not ticket.out


@pytest.mark.usefixtures("one_each")
def test_so_many_wait_for_a_majority_and_the_rest_in_the_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest_module, "PENDING_MAX", 100)
    desk = Desk()
    answers = [desk.ask(append(("a", events())))[1] for _ in range(250)]
    while desk.turn():
        pass
    assert len(desk.core.log) == 100
    assert not desk.turn(), "a turn is asked for when there is room again, not before"
    asked = desk.core.scheduled
    desk.commit(60)
    assert desk.core.scheduled > asked
    while desk.turn():
        pass
    assert len(desk.core.log) == 160
    desk.depose()
    assert len(desk.retried) == 100
    assert desk.ingest.under_way() == 90
    assert sum(map(len, answers)) == 60


def test_a_node_that_serves_all_there_is_refuses_nothing() -> None:
    """However slow its callers are: it was never asked for more."""
    desk = Desk()
    for _ in range(100):
        desk.now += 100_000
        desk.ask(append(("a", events())))
        desk.turn()
        desk.commit(len(desk.core.log))
    burst = [desk.ask(append(("a", events())), within_us=100_000)[1] for _ in range(900)]
    assert not any(burst)


@pytest.mark.parametrize("appends", [1, 100, 1024], ids=["each alone", "in groups", "all together"])
def test_the_answers_of_one_great_commit_are_given_in_steps(
    appends: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lanes_module, "GROUP_APPENDS_MAX", appends)
    now, soon = [0], list[Any]()
    desk = Desk(Turns(soon.append, lambda: now[0], 100))
    answers = [desk.ask(append(("a", events())))[1] for _ in range(500)]
    while desk.turn():
        pass

    def told(ticket: Ticket) -> Any:
        reply = ticket.reply
        assert reply is not None

        def late(result: Any) -> None:
            now[0] += 2
            reply(result)

        return late

    for proposed in desk.ingest._lanes[P].pending:
        for ticket in proposed.unanswered():
            ticket.reply = told(ticket)
    desk.commit(len(desk.core.log))
    assert sum(map(len, answers)) == ANSWERED_AT_ONCE
    while soon:
        callbacks, soon[:] = soon[:], []
        before = sum(map(len, answers))
        for callback in callbacks:
            callback()
        assert sum(map(len, answers)) - before <= ANSWERED_AT_ONCE
    assert sum(map(len, answers)) == 500
    versions = [answer[0].streams[0].first_version for answer in answers]
    assert versions == list(range(1, 501))


@pytest.mark.usefixtures("one_each")
def test_what_was_committed_is_answered_so_even_if_the_leadership_ends_before_its_turn() -> None:
    soon = list[Any]()
    desk = Desk(Turns(soon.append, lambda: 0, 0))
    answers = [desk.ask(append(("a", events())))[1] for _ in range(200)]
    while desk.turn():
        pass
    desk.commit(150)
    desk.depose()
    assert all(isinstance(answer[0], AppendResult) for answer in answers[:150])
    assert len(desk.retried) == 50
    assert desk.ingest.under_way() == 0


def test_a_damaged_record_that_an_append_meets_costs_the_partition_and_not_the_append(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    desk = Desk()

    def damaged(partition: int, stream: str) -> None:
        raise Corrupt("a head that cannot be read")

    monkeypatch.setattr(desk.storage, "head", damaged)
    ticket, answers = desk.ask(append(("s", events())))
    desk.turn()
    assert [(partition, error.message) for partition, error in desk.core.quarantined] == [
        (P, "a head that cannot be read")
    ]
    assert (desk.retried, answers, desk.core.log) == ([ticket], [], [])


def test_what_a_client_sends_wrong_is_refused_before_anything_is_decided() -> None:
    desk = Desk()
    (event,) = events()
    wrong = AppendRequest((AppendPart("s", NO_STREAM, pack_events([event, event])),))
    _, answers = desk.ask(wrong)
    desk.turn()
    assert [type(answer) for answer in answers] == [InvalidRequest]
    assert desk.core.log == []
