"""Each checker against a history that is right, and against that history made wrong in one way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from allsource.storage.model.entry import EVENTS, NOOP, Append, Entry, Mark, NewAppend, make_entry
from tests.simulation.checkers import judge
from tests.simulation.disk import chunks_of
from tests.simulation.evidence import Evidence
from tests.simulation.history import (
    A_MARK,
    LOCAL,
    OK,
    REJECTED,
    TAKEN,
    TOKEN,
    WHOLE_PARTITION,
    AppendOperation,
    Conflict,
    Election,
    History,
    Intent,
    Placed,
    ReadOperation,
    Unmoved,
)
from tests.storage.logs import new_append

A, B, C, D = (bytes([n]) * 16 for n in range(1, 5))


S, T = "s{x}", "t"
"""Streams: with a tag and without."""


class Story:
    """Four appends and two reads of one partition, everything as it should be; tests spoil it.

    Client 1 appends A and B to `s` (times 10-20). Client 2 appends C to `s` and D to `t` at once (30-40).
    Client 4 moves mark `m` alone (32-42), in the entry of client 2's append, and is refused a move of an
    older generation (44-48). Client 3 is rejected (50-60), also for its tag (62-64), reads `s` (70-80) and
    the mark (82-84).
    """

    def __init__(self) -> None:
        self.first = AppendOperation(1, 0, (Intent(S, 0, (A, B)),), 10, 20, OK, Placed(2, 1, 1, (1,)))
        self.second = AppendOperation(
            2, 0, (Intent(S, 2, (C,)), Intent(T, -1, (D,))), 30, 40, OK, Placed(3, 1, 3, (3, 1))
        )
        self.moved = AppendOperation(4, 0, (), 32, 42, OK, Placed(3, 1, 5, ()), marks=(Mark("m", 7, 2),))
        self.unmoved = AppendOperation(
            4, 0, (), 44, 48, REJECTED, None, Unmoved("m", 7, 2), marks=(Mark("m", 9, 1),)
        )
        self.rejected = AppendOperation(
            3, 0, (Intent(S, 2, (b"r" * 16,)),), 50, 60, REJECTED, None, Conflict(S, 2, 3)
        )
        self.tagged = AppendOperation(
            3, 0, (Intent(S, -1, (b"q" * 16,)),), 62, 64, REJECTED, None, Conflict("{x}", 2, 3), 2
        )
        self.read = ReadOperation(3, 0, S, 70, 80, OK, (A, B, C), (1, 2, 3))
        self.looked = ReadOperation(3, 0, A_MARK + "m", 82, 84, OK, mark=(2, 7))
        self.elections = [Election(0, 1, "n1", 1), Election(0, 2, "n2", 1)]
        self.log = [_noop(1), _entry(2, 1, FIRST), _entry(3, 3, SECOND, MOVED)]
        self.replica = list(self.log)

    def complaints(self) -> list[str]:
        appends = [self.first, self.second, self.moved, self.unmoved, self.rejected, self.tagged]
        history = History(appends, [self.read, self.looked], self.elections)
        return judge(Evidence(history, {0: self.log}, {("n2", 0): self.replica}))

    def without_the_last_entry(self) -> None:
        """What the others saw and were told, had it never been."""
        del self.log[2]
        self.replica = list(self.log)
        self.read.ids, self.read.numbers = (A, B), (1, 2)
        self.unmoved.outcome = self.rejected.outcome = self.tagged.outcome = "unknown"
        self.looked.mark = (0, 0)


def _noop(index: int, term: int = 1) -> Entry:
    return make_entry(partition=0, index=index, term=term, kind=NOOP, first_position=1, timestamp_us=0)


def _append(*parts: tuple[str, int, int, tuple[bytes, ...]]) -> NewAppend:
    """Of `(stream, first version, first tag number, ids)`s."""
    return new_append(*[(stream, first, number, chunks_of(ids)) for stream, first, number, ids in parts])


def _move(mark: Mark) -> NewAppend:
    return NewAppend(Append((), (mark,)), ())


def _entry(index: int, position: int, *appends: NewAppend) -> Entry:
    return make_entry(
        partition=0,
        index=index,
        term=1,
        kind=EVENTS,
        first_position=position,
        timestamp_us=0,
        appends=appends,
    )


FIRST = _append((S, 1, 1, (A, B)))
SECOND = _append((S, 3, 3, (C,)), (T, 1, 0, (D,)))
MOVED = _move(Mark("m", 7, 2))


def test_nobody_complains_of_a_history_that_is_right() -> None:
    assert Story().complaints() == []


def lose_an_acknowledged_append(story: Story) -> None:
    story.without_the_last_entry()


def store_an_event_twice(story: Story) -> None:
    story.log.append(_entry(4, 5, _append((S, 4, 4, (A, B)))))


def store_what_nobody_sent(story: Story) -> None:
    story.log.append(_entry(4, 5, _append(("u", 1, 0, (b"x" * 16,)))))


def store_a_rejected_append(story: Story) -> None:
    story.log.append(_entry(4, 5, _append((S, 4, 4, (b"r" * 16,)))))


def acknowledge_at_another_place(story: Story) -> None:
    story.first.placed = Placed(2, 1, 1, (2,))


def answer_for_the_neighbour(story: Story) -> None:
    story.moved.placed = Placed(3, 1, 3, ())


def answer_for_the_whole_entry(story: Story) -> None:
    story.first.placed = Placed(2, 1, 1, (1, 1))


def let_two_win_one_version(story: Story) -> None:
    story.second.intents = (Intent(S, 1, (C,)), Intent(T, -1, (D,)))


def let_two_win_one_number(story: Story) -> None:
    story.second.intents, story.second.expected_tag = (Intent(S, 2, (C,)), Intent(T, -1, (D,))), 1


def reject_what_was_as_expected(story: Story) -> None:
    story.rejected.conflict = Conflict(S, 2, 2)


def reject_for_what_another_expected(story: Story) -> None:
    story.rejected.conflict = Conflict(S, 1, 3)


def reject_with_a_version_from_the_past(story: Story) -> None:
    story.rejected.intents = (Intent(S, 5, (b"r" * 16,)),)
    story.rejected.conflict = Conflict(S, 5, 2)


def reject_with_a_number_from_the_past(story: Story) -> None:
    story.tagged.expected_tag, story.tagged.conflict = 5, Conflict("{x}", 5, 2)


def reject_with_a_number_that_never_was(story: Story) -> None:
    story.tagged.conflict = Conflict("{x}", 2, 4)


def reject_with_a_version_that_never_was(story: Story) -> None:
    story.rejected.conflict = Conflict(S, 2, 9)


def reject_with_a_version_from_the_future(story: Story) -> None:
    story.rejected.invoked, story.rejected.returned = 22, 25


def put_a_later_append_before_an_earlier_one(story: Story) -> None:
    story.first.invoked, story.first.returned = 50, 60


def put_a_later_move_before_an_earlier_append_of_its_entry(story: Story) -> None:
    story.log[2] = _entry(3, 3, MOVED, SECOND)
    story.replica = list(story.log)
    story.moved.placed = Placed(3, 1, 3, ())
    story.moved.invoked = 41


def leave_a_gap_in_the_versions(story: Story) -> None:
    story.log[2] = _entry(3, 3, _append((S, 4, 3, (C,)), (T, 1, 0, (D,))), MOVED)


def leave_a_gap_in_the_numbers(story: Story) -> None:
    story.log[2] = _entry(3, 3, _append((S, 3, 4, (C,)), (T, 1, 0, (D,))), MOVED)


def give_a_number_twice(story: Story) -> None:
    story.log[2] = _entry(3, 3, _append((S, 3, 2, (C,)), (T, 1, 0, (D,))), MOVED)


def number_a_stream_without_a_tag(story: Story) -> None:
    story.log[2] = _entry(3, 3, _append((S, 3, 3, (C,)), (T, 1, 4, (D,))), MOVED)


def leave_a_gap_in_the_positions(story: Story) -> None:
    story.log[2] = _entry(3, 4, SECOND, MOVED)


def leave_a_gap_in_the_indexes(story: Story) -> None:
    story.log[2] = _entry(4, 3, SECOND, MOVED)


def let_a_replica_differ(story: Story) -> None:
    story.replica[2] = _entry(3, 3, MOVED, SECOND)


def let_a_replica_commit_more(story: Story) -> None:
    story.replica.append(_noop(4))


def read_what_is_no_prefix(story: Story) -> None:
    story.read.ids = (A, C)


def read_too_little(story: Story) -> None:
    story.read.ids, story.read.numbers = (A, B), (1, 2)


def read_another_number(story: Story) -> None:
    story.read.numbers = (1, 2, 4)


def read_too_little_of_a_tag(story: Story) -> None:
    story.read = ReadOperation(3, 0, "{x}", 70, 80, OK, (A, B), (1, 2))


def read_less_of_a_tag_than_the_token(story: Story) -> None:
    story.read = ReadOperation(3, 0, "{x}", 70, 80, OK, (A, B), (1, 2), kind=TOKEN, token=3)


def read_the_future(story: Story) -> None:
    story.read.invoked, story.read.returned = 22, 25


def read_less_than_the_token(story: Story) -> None:
    story.read = ReadOperation(3, 0, S, 70, 80, OK, (A, B), (1, 2), kind=TOKEN, token=3)


def read_a_partition_out_of_order(story: Story) -> None:
    story.read = ReadOperation(3, 0, WHOLE_PARTITION, 70, 80, OK, (A, B, D, C), (1, 2, 0, 3))


def read_a_stale_partition(story: Story) -> None:
    story.read = ReadOperation(3, 0, WHOLE_PARTITION, 70, 80, OK, (A, B), (1, 2))


def read_uncommitted_events_locally(story: Story) -> None:
    story.read = ReadOperation(3, 0, S, 70, 80, OK, (A, B, C, b"u" * 16), (1, 2, 3, 4), kind=LOCAL)


def store_what_was_taken(story: Story) -> None:
    story.second.outcome, story.second.placed = TAKEN, None


def refuse_ids_that_nobody_has(story: Story) -> None:
    story.rejected.outcome = TAKEN


def tear_an_append_apart(story: Story) -> None:
    story.log[2] = _entry(3, 3, _append((S, 3, 3, (C,))), _append((T, 1, 0, (D,))), MOVED)


def join_two_appends(story: Story) -> None:
    whole = SECOND.append._replace(marks=MOVED.append.marks)
    story.log[2] = _entry(3, 3, SECOND._replace(append=whole))


def elect_two_in_one_term(story: Story) -> None:
    story.elections.append(Election(0, 2, "n3", 1))


def elect_one_anew_in_its_old_term(story: Story) -> None:
    story.elections.append(Election(0, 2, "n2", 2))


def acknowledge_an_older_term_later(story: Story) -> None:
    assert story.first.placed is not None
    story.first.placed = story.first.placed._replace(term=2)


def move_a_mark_back(story: Story) -> None:
    story.log.append(_entry(4, 5, _move(Mark("m", 6, 2))))


def let_a_fenced_consumer_move_a_mark(story: Story) -> None:
    story.log.append(_entry(4, 5, _move(Mark("m", 9, 1))))


def lose_a_move(story: Story) -> None:
    story.log[2] = _entry(3, 3, SECOND)


def refuse_a_move_that_goes_on(story: Story) -> None:
    story.unmoved.marks = (Mark("m", 9, 2),)


def refuse_a_move_for_what_never_was(story: Story) -> None:
    story.unmoved.conflict = Unmoved("m", 8, 2)


def refuse_a_move_for_what_was_before(story: Story) -> None:
    story.log[1] = _entry(2, 1, FIRST, _move(Mark("m", 7, 1)))
    story.unmoved.marks, story.unmoved.conflict = (Mark("m", 5, 1),), Unmoved("m", 7, 1)


def refuse_a_move_for_one_of_the_future(story: Story) -> None:
    story.unmoved.invoked, story.unmoved.returned = 22, 25


def read_a_stale_mark(story: Story) -> None:
    story.looked.mark = (0, 0)


def read_a_mark_that_never_was(story: Story) -> None:
    story.looked.mark = (2, 8)


def read_a_mark_of_before_the_token(story: Story) -> None:
    story.looked = replace(story.looked, kind=TOKEN, token=3, mark=(0, 0))


@pytest.mark.parametrize(
    ("spoil", "checker"),
    [
        (lose_an_acknowledged_append, "final_read"),
        (store_an_event_twice, "no_event_twice"),
        (store_what_nobody_sent, "final_read"),
        (store_a_rejected_append, "final_read"),
        (acknowledge_at_another_place, "final_read"),
        (answer_for_the_neighbour, "final_read"),
        (answer_for_the_whole_entry, "final_read"),
        (let_two_win_one_version, "expected_versions"),
        (let_two_win_one_number, "expected_versions"),
        (reject_what_was_as_expected, "expected_versions"),
        (reject_for_what_another_expected, "expected_versions"),
        (reject_with_a_number_from_the_past, "expected_versions"),
        (reject_with_a_number_that_never_was, "expected_versions"),
        (reject_with_a_version_from_the_past, "expected_versions"),
        (reject_with_a_version_that_never_was, "expected_versions"),
        (reject_with_a_version_from_the_future, "expected_versions"),
        (put_a_later_append_before_an_earlier_one, "expected_versions"),
        (put_a_later_move_before_an_earlier_append_of_its_entry, "expected_versions"),
        (leave_a_gap_in_the_versions, "gapless"),
        (leave_a_gap_in_the_numbers, "gapless"),
        (give_a_number_twice, "gapless"),
        (number_a_stream_without_a_tag, "gapless"),
        (leave_a_gap_in_the_positions, "gapless"),
        (leave_a_gap_in_the_indexes, "gapless"),
        (let_a_replica_differ, "gapless"),
        (let_a_replica_commit_more, "gapless"),
        (read_what_is_no_prefix, "reads"),
        (read_too_little, "reads"),
        (read_another_number, "reads"),
        (read_too_little_of_a_tag, "reads"),
        (read_less_of_a_tag_than_the_token, "reads"),
        (read_the_future, "reads"),
        (read_less_than_the_token, "reads"),
        (read_a_partition_out_of_order, "reads"),
        (read_a_stale_partition, "reads"),
        (read_uncommitted_events_locally, "reads"),
        (store_what_was_taken, "final_read"),
        (refuse_ids_that_nobody_has, "final_read"),
        (tear_an_append_apart, "atomic_appends"),
        (join_two_appends, "atomic_appends"),
        (elect_two_in_one_term, "terms"),
        (elect_one_anew_in_its_old_term, "terms"),
        (acknowledge_an_older_term_later, "terms"),
        (move_a_mark_back, "marks"),
        (let_a_fenced_consumer_move_a_mark, "marks"),
        (lose_a_move, "marks"),
        (refuse_a_move_that_goes_on, "marks"),
        (refuse_a_move_for_what_never_was, "marks"),
        (refuse_a_move_for_what_was_before, "marks"),
        (refuse_a_move_for_one_of_the_future, "marks"),
        (read_a_stale_mark, "marks"),
        (read_a_mark_that_never_was, "marks"),
        (read_a_mark_of_before_the_token, "marks"),
    ],
    ids=lambda value: value.__name__ if callable(value) else value,
)
def test_a_checker_complains(spoil: Callable[[Story], None], checker: str) -> None:
    story = Story()
    spoil(story)
    assert [c for c in story.complaints() if c.startswith(checker + ":")], story.complaints()


def test_a_local_read_may_be_stale_and_other_company_may_be_refused() -> None:
    story = Story()
    story.read = ReadOperation(3, 0, S, 70, 80, OK, (A, B), (1, 2), kind=LOCAL)
    story.looked = replace(story.looked, kind=LOCAL, mark=(0, 0))
    story.rejected = AppendOperation(3, 0, (Intent(S, -1, (A, b"r" * 16)),), 50, 60, TAKEN)
    assert story.complaints() == []


def test_an_unknown_append_may_be_stored_or_not() -> None:
    for stored in (True, False):
        story = Story()
        for operation in (story.second, story.moved):
            operation.outcome, operation.placed = "unknown", None
        if not stored:
            story.without_the_last_entry()
        assert story.complaints() == []
