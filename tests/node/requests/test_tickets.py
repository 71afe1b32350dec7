"""Three outcomes and no fourth, and deadlines that are kept for all."""

from __future__ import annotations

from typing import Any

import pytest

from allsource.cluster.protocol.requests import AppendedStream, AppendRequest, AppendResult, ReadStream
from allsource.node.requests.tickets import MARK_BYTES, REQUEST_OVERHEAD_BYTES, Deadlines, Ticket
from allsource.storage.model.entry import Mark
from allsource.storage.model.errors import (
    AllsourceError,
    EventIdConflict,
    MarkRefused,
    NoMajority,
    NoOwner,
    OutcomeUnknown,
    WrongExpectedTag,
    WrongExpectedVersion,
)
from tests.node.appends import append, events, marks_alone


def ticket(
    request: AppendRequest | ReadStream | None = None, deadline_us: int = 0
) -> tuple[Ticket, list[Any]]:
    answers: list[Any] = []
    return Ticket(request or append(("a", events())), 3, 0, deadline_us, False, answers.append), answers


def test_a_ticket_is_answered_once() -> None:
    one, answers = ticket()
    one.finish(NoMajority("first"))
    one.finish(NoMajority("second"))
    one.expire()
    assert [error.message for error in answers] == ["first"]


def test_an_append_that_is_out_at_its_deadline_is_unknown() -> None:
    one, answers = ticket()
    one.out = True
    one.expire()
    assert type(answers[0]) is OutcomeUnknown
    assert not answers[0].definite


def test_an_append_that_never_left_is_definite_at_its_deadline() -> None:
    one, answers = ticket()
    one.expire()
    assert type(answers[0]) is NoOwner
    assert answers[0].definite


def test_a_lost_attempt_stays_in_doubt() -> None:
    one, answers = ticket()
    one.out = True
    one.lost()
    one.expire()
    assert type(answers[0]) is OutcomeUnknown


@pytest.mark.parametrize("sent_twice", [False, True])
def test_an_append_that_meets_its_own_first_attempt_is_no_duplicate(sent_twice: bool) -> None:
    one, answers = ticket()
    one.out = True
    if sent_twice:
        one.lost()
    one.finish(AppendResult(3, 7, 1, 1, (AppendedStream("a", 1, 1),), True))
    assert answers[0].duplicate is not sent_twice


def test_a_read_is_never_in_doubt() -> None:
    one, answers = ticket(ReadStream("a"))
    one.out = True
    one.lost()
    one.out = True
    one.expire()
    assert type(answers[0]) is NoOwner


@pytest.mark.parametrize(
    ("error", "settles"),
    [
        (WrongExpectedVersion("a", 3, 5), True),
        (WrongExpectedVersion("a", "no_stream", 1), True),
        (WrongExpectedVersion("a", 9, 5), False),  # a late duplicate could still find version 9
        (WrongExpectedVersion("a", "exists", 0), False),
        (WrongExpectedTag("t", 3, 5), True),
        (WrongExpectedTag("t", 9, 5), False),
        (MarkRefused("m", 7, 0), True),  # marks only go forward, and its ids were not known
        (EventIdConflict("other content"), True),
        (NoMajority("two of three are down"), False),
    ],
)
def test_what_a_refusal_says_about_an_earlier_attempt(error: AllsourceError, settles: bool) -> None:
    one, answers = ticket()
    one.out = True
    one.lost()
    one.refuse(error)
    assert (answers[0] is error) == settles
    assert answers[0].definite == settles


def test_a_refused_mark_says_nothing_about_an_earlier_attempt_of_marks_alone() -> None:
    """It may have happened, and what came after it is why the mark is refused now."""
    one, answers = ticket(marks_alone(Mark("m", 3, 0)))
    one.out = True
    one.lost()
    one.refuse(MarkRefused("m", 7, 0))
    assert type(answers[0]) is OutcomeUnknown
    assert not answers[0].definite


def test_the_size_of_a_request_is_that_of_what_it_holds() -> None:
    small, _ = ticket()
    large, _ = ticket(append(("a", events(size=900))))
    marks, _ = ticket(marks_alone(*[Mark(f"m{number}", 1, 0) for number in range(10)]))
    assert large.size > small.size + 850
    assert marks.size >= REQUEST_OVERHEAD_BYTES + 10 * MARK_BYTES


def test_without_an_earlier_attempt_a_refusal_is_what_it_says() -> None:
    one, answers = ticket()
    one.out = True
    error = NoMajority("two of three are down")
    one.refuse(error)
    assert answers == [error]


def test_deadlines_expire_in_their_time_and_only_once() -> None:
    deadlines = Deadlines()
    held = [ticket(deadline_us=deadline) for deadline in (10_000, 500_000, 10_000_000)]
    for one, _ in held:
        deadlines.add(one)
    assert deadlines.expire(9_000) == []
    assert len(deadlines.expire(40_000)) == 1
    assert len(deadlines.expire(530_000)) == 1
    assert deadlines.expire(531_000) == []
    assert [len(answers) for _, answers in held] == [1, 1, 0]
    assert len(deadlines) == 1


def test_a_finished_ticket_is_no_longer_watched() -> None:
    deadlines = Deadlines()
    one, answers = ticket(deadline_us=10_000)
    deadlines.add(one)
    assert deadlines
    one.finish(NoMajority("done"))
    assert not deadlines
    assert deadlines.expire(1_000_000) == []
    assert len(answers) == 1


def test_nothing_is_kept_of_what_is_over() -> None:
    deadlines = Deadlines()
    for deadline in range(0, 60_000_000, 10_000):
        deadlines.expire(deadline)
        one, _ = ticket(deadline_us=deadline + 50_000)
        deadlines.add(one)
        one.finish(NoMajority("done"))
    assert len(deadlines._buckets) < 10
