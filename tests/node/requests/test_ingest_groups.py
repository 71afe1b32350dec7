"""Appends that share an entry: each is decided, answered and refused for itself."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from allsource.cluster.budgets.turns import Turns
from allsource.cluster.consensus.messages import Role, RoleChange
from allsource.cluster.protocol.requests import AppendPart, AppendRequest, AppendResult
from allsource.node.observe import metrics as names
from allsource.node.requests.answering import ANSWERED_AT_ONCE
from allsource.node.requests.lanes import GROUP_APPENDS_MAX, GROUP_BYTES_MAX
from allsource.storage.model.chunks import pack_events
from allsource.storage.model.entry import Mark
from allsource.storage.model.errors import (
    AllsourceError,
    Corrupt,
    EventIdConflict,
    InvalidRequest,
    MarkRefused,
    NoMajority,
    Overloaded,
    WrongExpectedTag,
    WrongExpectedVersion,
)
from allsource.storage.model.events import NewEvent
from allsource.storage.model.expected import ANY, NO_STREAM
from tests.node.appends import append, events, marks_alone
from tests.node.requests.desk import Desk, P
from tests.storage.model.pure_log import PureLog

Answers = list[Any]


def several(desk: Desk, count: int, prefix: str = "s") -> list[tuple[AppendRequest, Answers]]:
    """So many appends of one turn, to a stream each, of one to three events."""
    asked = []
    for number in range(count):
        request = append((f"{prefix}-{number}", events(1 + number % 3)))
        asked.append((request, desk.ask(request)[1]))
    return asked


# -- one entry, and each append for itself


def test_all_appends_of_a_turn_are_one_entry_and_each_has_its_own_answer() -> None:
    desk = Desk()
    asked = several(desk, 100)
    desk.turn()
    assert desk.proposed() == [100]
    assert desk.ingest.under_way() == 100
    desk.commit(1)
    position = 1
    for number, (request, (answer,)) in enumerate(asked):
        count = 1 + number % 3
        assert answer == AppendResult(
            P, 1, position, position + count - 1, ((request.parts[0].stream, 1, count),), False
        )
        position += count
    assert desk.ingest.under_way() == 0


def test_a_lone_append_is_proposed_in_the_turn_in_which_it_came() -> None:
    desk = Desk()
    _, answers = desk.ask(append(("a", events())))
    desk.turn()
    assert desk.proposed() == [1]
    desk.commit(1)
    assert len(answers) == 1


def test_two_appends_to_one_stream_in_one_turn_line_up() -> None:
    desk = Desk()
    answers = [desk.ask(append(("a", events(2)), expected=2 * n))[1] for n in range(50)]
    desk.turn()
    assert desk.proposed() == [50]
    desk.commit(1)
    assert [one.streams[0].first_version for (one,) in answers] == list(range(1, 101, 2))


def test_a_conflict_in_the_middle_costs_none_of_the_others() -> None:
    desk = Desk()
    before = several(desk, 3, "before")
    _, conflict = desk.ask(append(("before-1", events()), expected=NO_STREAM))
    _, wrong = desk.ask(AppendRequest((AppendPart("wrong", ANY, pack_events(events() * 2)),)))
    after = several(desk, 3, "after")
    desk.settle()
    assert type(conflict[0]) is WrongExpectedVersion
    assert type(wrong[0]) is InvalidRequest
    assert all(type(answer) is AppendResult for _, (answer,) in before + after)
    positions = [answer.first_position for _, (answer,) in before + after]
    assert positions == [1, 2, 4, 7, 8, 10], "each after the other, without gaps"


def test_the_measures_count_appends_events_and_bytes() -> None:
    desk = Desk()
    several(desk, 100)
    desk.settle()
    (entry,) = desk.core.log
    assert desk.counted(names.APPENDS) == 100
    assert desk.counted(names.BYTES) == len(entry.record)
    assert desk.counted(names.EVENTS) == entry.count


# -- retries


def test_a_retry_is_answered_for_its_own_append_of_a_shared_entry() -> None:
    desk = Desk()
    asked = several(desk, 40)
    desk.settle()
    for request, (first,) in asked:
        _, again = desk.ask(request)
        desk.turn()
        assert again == [first._replace(duplicate=True)]
    assert desk.proposed() == [40], "nothing is stored again"


def test_a_retry_in_the_same_turn_rests_on_the_open_group_which_is_proposed_for_it() -> None:
    desk = Desk()
    before = several(desk, 3)
    request, (_, again) = before[1][0], desk.ask(before[1][0])
    after = several(desk, 3, "after")
    desk.turn()
    assert desk.proposed() == [3, 3]
    assert again == []
    desk.commit(2)
    (first,) = before[1][1]
    assert again == [first._replace(duplicate=True)]
    assert again[0].streams[0].stream == request.parts[0].stream
    assert all(len(answers) == 1 for _, answers in before + after)


def test_ids_of_one_append_of_an_entry_with_other_content_are_a_conflict_with_it_alone() -> None:
    desk = Desk()
    asked = several(desk, 5)
    desk.settle()
    request = asked[3][0]
    (part,) = request.parts
    other = AppendRequest((part._replace(stream="elsewhere"),))
    _, answers = desk.ask(other)
    desk.turn()
    (error,) = answers
    assert type(error) is EventIdConflict
    assert error.details["first_position"] == asked[3][1][0].first_position


def test_retries_of_one_entry_fetch_it_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A new owner is asked for all that were in doubt: each of a thousand would decode the thousand."""
    desk = Desk()
    asked = several(desk, 100)
    desk.turn()
    desk.depose()
    desk.lead_again()
    fetched = []
    entries_at = desk.storage.entries_at
    monkeypatch.setattr(
        desk.storage, "entries_at", lambda *asked: fetched.append(asked) or entries_at(*asked)
    )
    again = [desk.ask(request)[1] for request, _ in asked]
    desk.turn()
    desk.commit(1)
    assert [one.streams[0].stream for (one,) in again] == [f"s-{number}" for number in range(100)]
    assert len(fetched) == 1


# -- what rests on the open group


def test_a_refusal_that_rests_on_the_open_group_asks_for_an_index_that_exists() -> None:
    desk = Desk()
    desk.ask(append(("a", events())))
    _, answers = desk.ask(append(("a", events()), expected=NO_STREAM))
    in_log: list[int] = []
    read = desk.core.read
    desk.core.read = lambda *asked: in_log.append(len(desk.core.log)) or read(*asked)  # type: ignore[method-assign,func-returns-value]
    desk.turn()
    ((barrier, min_index),) = desk.core.reads
    assert (min_index, in_log) == (1, [1]), "it was proposed before the barrier was asked for"
    barrier.confirmed(1, ok=True)
    assert type(answers[0]) is WrongExpectedVersion


def test_a_refusal_that_rests_on_older_entries_leaves_the_group_open() -> None:
    desk = Desk()
    several(desk, 1)
    desk.turn()
    desk.ask(append(("b", events())))
    desk.ask(append(("s-0", events()), expected=NO_STREAM))
    desk.ask(append(("c", events())))
    desk.turn()
    assert desk.proposed() == [1, 2]


# -- limits


def test_a_group_has_a_bounded_number_of_appends() -> None:
    desk = Desk()
    for number in range(GROUP_APPENDS_MAX + 5):
        desk.ask(append((f"s-{number}", events())))
    while desk.turn():
        pass
    assert max(desk.proposed()) <= GROUP_APPENDS_MAX
    assert sum(desk.proposed()) == GROUP_APPENDS_MAX + 5


def test_a_group_has_a_bounded_number_of_bytes() -> None:
    desk = Desk()
    random = Random(1)
    for number in range(20):
        desk.ask(append((f"s-{number}", [NewEvent("T", random.randbytes(60_000), encoding=1)])))
    desk.ask(append(("large", [NewEvent("T", random.randbytes(900_000), encoding=1)])))
    desk.ask(append(("small", events())))
    while desk.turn():
        pass
    assert desk.proposed() == [4, 4, 4, 4, 4, 1, 1], "what is larger has an entry of its own"
    assert all(len(entry.record) <= GROUP_BYTES_MAX for entry in desk.core.log[:5])


def test_heads_count_as_bytes_of_a_group() -> None:
    """A thousand marks or types are no bytes of any chunk."""
    desk = Desk()
    for append_ in range(8):
        desk.ask(
            append(
                ("s", events()),
                marks=[Mark(f"{number:0>100}", append_ + 1, 0) for number in range(1000)],
            )
        )
    while desk.turn():
        pass
    assert desk.proposed() == [1] * 8


# -- a leadership that ends


def test_after_a_change_of_leadership_each_append_of_an_entry_is_in_doubt() -> None:
    desk = Desk()
    tickets = [desk.ask(append((f"s-{number}", events())))[0] for number in range(3)]
    desk.turn()
    desk.depose()
    assert desk.retried == tickets
    assert all(ticket.in_doubt for ticket in tickets)
    assert desk.ingest.under_way() == 0


def test_of_an_entry_that_is_answered_in_part_only_the_rest_is_lost() -> None:
    soon = list[Any]()
    desk = Desk(Turns(soon.append, lambda: 0, 0))
    asked = [desk.ask(append((f"s-{number}", events())))[1] for number in range(ANSWERED_AT_ONCE + 10)]
    desk.turn()
    desk.commit(1)
    callbacks, soon[:] = soon[:], []
    for callback in callbacks:
        callback()
    assert sum(map(len, asked)) == ANSWERED_AT_ONCE
    desk.truncate(1)  # of what is committed nothing is: here, so that the rest can only be lost
    desk.core.term += 1
    desk.overwritten("other")
    desk.ingest.changed(RoleChange(P, desk.core.term, Role.FOLLOWER, "n2"))
    assert sum(map(len, asked)) == ANSWERED_AT_ONCE
    assert len(desk.retried) == 10


def test_an_entry_of_another_term_at_the_same_index_answers_none_of_a_group() -> None:
    desk = Desk()
    asked = several(desk, 3)
    _, again = desk.ask(asked[1][0])
    desk.turn()
    desk.truncate(1)
    desk.core.term = 2
    desk.overwritten("other", 3)
    desk.turn()
    desk.commit(1)
    assert [answers for _, answers in asked] == [[], [], []]
    assert again == []
    assert len(desk.retried) == 4
    assert all(ticket.in_doubt for ticket in desk.retried)


# -- a group that is given up


def test_what_is_decided_when_the_partition_is_given_up_is_tried_elsewhere_and_not_in_doubt(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    desk = Desk()
    head = desk.storage.head

    def damaged(partition: int, stream: str) -> Any:
        if stream == "damaged":
            raise Corrupt("a head that cannot be read")
        return head(partition, stream)

    monkeypatch.setattr(desk.storage, "head", damaged)
    asked = [desk.ask(append((name, events()))) for name in ("a", "b", "damaged", "c")]
    desk.turn()
    assert desk.core.log == []
    assert sorted(map(id, desk.retried)) == sorted(id(ticket) for ticket, _ in asked)
    assert not any(ticket.in_doubt or ticket.out for ticket, _ in asked)
    assert desk.ingest.under_way() == desk.ingest._answers.pending_count == 0


def test_a_group_that_was_given_up_leaves_nothing_behind_in_the_owners_mind() -> None:
    """The hand-over began in the middle of a turn, and then did not come off."""
    desk = Desk()
    proposed = desk.ask(append(("a{t}", events(2)), marks=[Mark("m", 1, 0)]))
    conflict = desk.ask(append(("a{t}", events()), expected=NO_STREAM))  # has the first proposed
    dropped = desk.ask(append(("a{t}", events(3)), ("b{t}", events()), marks=[Mark("m", 2, 0)]))
    last = desk.ask(append(("z", events()), expected=7))
    rests = desk.ask(append(("a{t}", events()), expected=2))  # on the group, and it cannot be proposed
    meets = desk.ask(append(("a{t}", events()), expected=2))  # what is true without the group

    def moves(*asked: Any) -> None:
        desk.core.reads.append(asked[1:])
        desk.core.moving = len(desk.core.reads) == 2

    desk.core.read = moves  # type: ignore[method-assign]
    desk.turn()
    assert desk.proposed() == [1]
    assert desk.retried == [dropped[0], rests[0], meets[0]]
    assert not dropped[0].in_doubt
    desk.core.moving = False
    desk.retried.clear()
    again = desk.ask(
        append(
            ("a{t}", events(), 2), ("b{t}", events(), NO_STREAM), expected_tag=2, marks=[Mark("m", 2, 0)]
        )
    )
    desk.settle()
    assert again[1][0].streams == (("a{t}", 3, 3), ("b{t}", 1, 1))
    assert type(proposed[1][0]) is AppendResult
    assert [type(one[1][0]) for one in (conflict, last)] == [WrongExpectedVersion] * 2


def test_what_cannot_be_appended_now_leaves_what_was_decided_before() -> None:
    desk = Desk()
    _, first = desk.ask(append(("a", events())))
    _, second = desk.ask(append(("b", events())))
    asked = iter([True, False, False])
    desk.core.quorum_is_up = lambda partition: next(asked)  # type: ignore[method-assign]
    desk.turn()
    desk.commit(1)
    assert type(first[0]) is AppendResult
    assert type(second[0]) is NoMajority


def test_a_group_that_fills_up_what_may_be_uncommitted_has_the_next_refused() -> None:
    desk = Desk()
    propose = desk.core.propose

    def fills(*asked: Any) -> Any:
        entry = propose(*asked)
        desk.core.room = False
        return entry

    desk.core.propose = fills  # type: ignore[method-assign]
    random = Random(1)
    answers = [
        desk.ask(append((f"s-{n}", [NewEvent("T", random.randbytes(60_000), encoding=1)])))[1]
        for n in range(5)
    ]
    desk.turn()
    assert desk.proposed() == [4]
    assert type(answers[4][0]) is Overloaded
    assert desk.retried == []


# -- tags and marks


def test_tag_numbers_have_no_gap_over_a_mixed_turn() -> None:
    desk = Desk()
    asked = [
        append(("a{t}", events(2)), ("b{t}", events(1))),
        append(("a{t}", events(1)), expected=NO_STREAM),  # refused, and takes no number
        append(("a{t}", events(3)), expected_tag=3),
        append(("c{t}", events(1)), expected_tag=3),  # refused
        append(("c{other}", events(1))),
        append(("b{t}", events(2)), marks=[Mark("m", 1, 0)]),
        append(("c{t}", events(1)), marks=[Mark("m", 1, 0)]),  # refused
        append(("c{t}", events(1)), expected_tag=8),
    ]
    answers = [desk.ask(request)[1] for request in asked]
    desk.settle()
    kinds = [type(answer) for (answer,) in answers]
    assert kinds == [
        AppendResult,
        WrongExpectedVersion,
        AppendResult,
        WrongExpectedTag,
        AppendResult,
        AppendResult,
        MarkRefused,
        AppendResult,
    ]
    numbers = [
        event.tag_number for entry in desk.core.log for event in entry.events() if "{t}" in event.stream
    ]
    assert numbers == list(range(1, 10))
    assert [e.tag_number for entry in desk.core.log for e in entry.events("c{other}")] == [1]


def test_marks_alone_are_appended_answered_and_fenced() -> None:
    desk = Desk()
    request = marks_alone(Mark("m", 5, 1))
    _, first = desk.ask(request)
    _, behind = desk.ask(marks_alone(Mark("m", 4, 1)))
    _, older = desk.ask(marks_alone(Mark("m", 9, 0)))
    _, newer = desk.ask(marks_alone(Mark("m", 0, 2)))
    desk.settle()
    assert type(first[0]) is AppendResult
    assert (first[0].streams, first[0].duplicate) == ((), False)
    assert [type(answer) for answer in behind + older] == [MarkRefused, MarkRefused]
    assert type(newer[0]) is AppendResult
    assert desk.storage.mark(P, "m").position == 0  # type: ignore[union-attr]
    _, again = desk.ask(request)
    desk.settle()
    assert type(again[0]) is MarkRefused, "what came later hides that it had happened"
    _, last = desk.ask(marks_alone(Mark("m", 0, 2)))
    desk.settle()
    assert last[0].duplicate


def test_names_of_the_stores_own_are_refused() -> None:
    desk = Desk()
    _, answers = desk.ask(append(("$all", events())))
    _, mixed = desk.ask(append(("{t}", events()), ("$x{t}", events())))
    desk.settle()
    assert [type(answer) for answer in answers + mixed] == [InvalidRequest, InvalidRequest]
    assert desk.core.log == []


# -- any turn is what it would be one by one


@pytest.mark.parametrize("seed", range(8))
def test_any_turns_are_what_their_appends_would_be_one_by_one(seed: int) -> None:
    random, desk, log = Random(seed), Desk(), PureLog(P)
    asked: list[tuple[Any, Answers]] = []
    sent: list[AppendRequest] = []
    for _ in range(400):
        request = random.choice(sent[-20:]) if sent and random.random() < 0.2 else drawn(random)
        sent.append(request)
        try:
            wanted: Any = log.append(request, desk.limits)
        except AllsourceError as error:
            wanted = error
        asked.append((wanted, desk.ask(request)[1]))
        if random.random() < 0.1:
            desk.turn()
        if random.random() < 0.05:
            desk.settle()
    desk.settle()
    for wanted, (answer,) in asked:
        if isinstance(wanted, AllsourceError):
            assert (type(answer), answer.details) == (type(wanted), wanted.details)
        else:
            assert answer._replace(index=0) == wanted._replace(index=0)
    assert len(desk.core.log) < len(log.entries)
    assert [event for entry in desk.core.log for event in entry.events()] == [
        event._replace(timestamp_us=1000) for entry in log.entries for event in entry.events()
    ]


def drawn(random: Random) -> AppendRequest:
    """An append to some streams of two tags and of none, with expectations that may hold, and marks."""
    marks = [
        Mark(name, random.randint(0, 9), random.randint(0, 2))
        for name in random.sample("mno", random.choice([0, 0, 0, 1, 2]))
    ]
    if marks and random.random() < 0.3:
        return marks_alone(*marks)
    tag = random.choice(["{t}", "{u}", ""])
    streams = random.sample([f"{name}{tag}" for name in "abc"], random.choice([1, 1, 2, 3]))
    wishes = [ANY, ANY, ANY, NO_STREAM, random.randint(0, 20)]
    return append(
        *[(stream, events(random.choice([1, 1, 2])), random.choice(wishes)) for stream in streams],
        expected_tag=random.choice([ANY, ANY, random.randint(0, 60)]) if tag else ANY,
        marks=marks,
    )
