"""Each checker against a history that is right, and against that history made wrong in one way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from allsource.storage.model.entry import EVENTS, NOOP, Entry, Part, make_entry
from tests.simulation.checkers import Evidence, judge
from tests.simulation.disk import blob_of
from tests.simulation.history import (
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
)

A, B, C, D = (bytes([n]) * 16 for n in range(1, 5))


class Story:
    """Three appends and a read of one partition, everything as it should be; tests spoil it.

    Client 1 appends A and B to `s` (times 10-20), client 2 C to `s` and D to `t` at once (30-40), client 3
    is rejected (50-60) and reads `s` (70-80).
    """

    def __init__(self) -> None:
        self.first = AppendOperation(1, 0, (Intent("s", 0, (A, B)),), 10, 20, OK, Placed(2, 1, 1, (1,)))
        self.second = AppendOperation(
            2, 0, (Intent("s", 2, (C,)), Intent("t", -1, (D,))), 30, 40, OK, Placed(3, 1, 3, (3, 1))
        )
        self.rejected = AppendOperation(
            3, 0, (Intent("s", 2, (b"r" * 16,)),), 50, 60, REJECTED, None, Conflict("s", 2, 3)
        )
        self.read = ReadOperation(3, 0, "s", 70, 80, OK, (A, B, C))
        self.elections = [Election(0, 1, "n1", 1), Election(0, 2, "n2", 1)]
        self.log = [
            _noop(1),
            _entry(2, 1, (("s", 1, (A, B)),)),
            _entry(3, 3, (("s", 3, (C,)), ("t", 1, (D,)))),
        ]
        self.replica = list(self.log)

    def complaints(self) -> list[str]:
        history = History([self.first, self.second, self.rejected], [self.read], self.elections)
        return judge(Evidence(history, {0: self.log}, {("n2", 0): self.replica}))


def _noop(index: int, term: int = 1) -> Entry:
    return make_entry(partition=0, index=index, term=term, kind=NOOP, first_position=1, timestamp_us=0)


def _entry(index: int, position: int, parts: tuple[tuple[str, int, tuple[bytes, ...]], ...]) -> Entry:
    made = tuple(Part(stream, first, len(ids), ids[0], blob_of(ids)) for stream, first, ids in parts)
    return make_entry(
        partition=0, index=index, term=1, kind=EVENTS, first_position=position, timestamp_us=0, parts=made
    )


def test_nobody_complains_of_a_history_that_is_right() -> None:
    assert Story().complaints() == []


def lose_an_acknowledged_append(story: Story) -> None:
    del story.log[2]
    story.replica = list(story.log)
    story.read.ids = (A, B)


def store_an_event_twice(story: Story) -> None:
    story.log.append(_entry(4, 5, (("s", 4, (A, B)),)))


def store_what_nobody_sent(story: Story) -> None:
    story.log.append(_entry(4, 5, (("u", 1, (b"x" * 16,)),)))


def store_a_rejected_append(story: Story) -> None:
    story.log.append(_entry(4, 5, (("s", 4, (b"r" * 16,)),)))


def acknowledge_at_another_place(story: Story) -> None:
    story.first.placed = Placed(2, 1, 1, (2,))


def let_two_win_one_version(story: Story) -> None:
    story.second.intents = (Intent("s", 1, (C,)), Intent("t", -1, (D,)))


def reject_what_was_as_expected(story: Story) -> None:
    story.rejected.conflict = Conflict("s", 2, 2)


def reject_with_a_version_from_the_past(story: Story) -> None:
    story.rejected.intents = (Intent("s", 5, (b"r" * 16,)),)
    story.rejected.conflict = Conflict("s", 5, 2)


def reject_with_a_version_that_never_was(story: Story) -> None:
    story.rejected.conflict = Conflict("s", 2, 9)


def reject_with_a_version_from_the_future(story: Story) -> None:
    story.rejected.invoked, story.rejected.returned = 22, 25


def put_a_later_append_before_an_earlier_one(story: Story) -> None:
    story.first.invoked, story.first.returned = 50, 60


def leave_a_gap_in_the_versions(story: Story) -> None:
    story.log[2] = _entry(3, 3, (("s", 4, (C,)), ("t", 1, (D,))))


def leave_a_gap_in_the_positions(story: Story) -> None:
    story.log[2] = _entry(3, 4, (("s", 3, (C,)), ("t", 1, (D,))))


def leave_a_gap_in_the_indexes(story: Story) -> None:
    story.log[2] = _entry(4, 3, (("s", 3, (C,)), ("t", 1, (D,))))


def let_a_replica_differ(story: Story) -> None:
    story.replica[2] = _entry(3, 3, (("s", 3, (D,)), ("t", 1, (C,))))


def let_a_replica_commit_more(story: Story) -> None:
    story.replica.append(_noop(4))


def read_what_is_no_prefix(story: Story) -> None:
    story.read.ids = (A, C)


def read_too_little(story: Story) -> None:
    story.read.ids = (A, B)


def read_the_future(story: Story) -> None:
    story.read.invoked, story.read.returned = 22, 25


def read_less_than_the_token(story: Story) -> None:
    story.read = ReadOperation(3, 0, "s", 70, 80, OK, (A, B), kind=TOKEN, token=3)


def read_a_partition_out_of_order(story: Story) -> None:
    story.read = ReadOperation(3, 0, WHOLE_PARTITION, 70, 80, OK, (A, B, D, C))


def read_a_stale_partition(story: Story) -> None:
    story.read = ReadOperation(3, 0, WHOLE_PARTITION, 70, 80, OK, (A, B))


def read_uncommitted_events_locally(story: Story) -> None:
    story.read = ReadOperation(3, 0, "s", 70, 80, OK, (A, B, C, b"u" * 16), kind=LOCAL)


def store_what_was_taken(story: Story) -> None:
    story.second.outcome, story.second.placed = TAKEN, None


def refuse_ids_that_nobody_has(story: Story) -> None:
    story.rejected.outcome = TAKEN


def tear_an_append_apart(story: Story) -> None:
    story.log[2] = _entry(3, 3, (("s", 3, (C,)),))
    story.log.append(_entry(4, 4, (("t", 1, (D,)),)))


def elect_two_in_one_term(story: Story) -> None:
    story.elections.append(Election(0, 2, "n3", 1))


def elect_one_anew_in_its_old_term(story: Story) -> None:
    story.elections.append(Election(0, 2, "n2", 2))


def acknowledge_an_older_term_later(story: Story) -> None:
    assert story.first.placed is not None
    story.first.placed = story.first.placed._replace(term=2)


@pytest.mark.parametrize(
    ("spoil", "checker"),
    [
        (lose_an_acknowledged_append, "final_read"),
        (store_an_event_twice, "no_event_twice"),
        (store_what_nobody_sent, "final_read"),
        (store_a_rejected_append, "final_read"),
        (acknowledge_at_another_place, "final_read"),
        (let_two_win_one_version, "expected_versions"),
        (reject_what_was_as_expected, "expected_versions"),
        (reject_with_a_version_from_the_past, "expected_versions"),
        (reject_with_a_version_that_never_was, "expected_versions"),
        (reject_with_a_version_from_the_future, "expected_versions"),
        (put_a_later_append_before_an_earlier_one, "expected_versions"),
        (leave_a_gap_in_the_versions, "gapless"),
        (leave_a_gap_in_the_positions, "gapless"),
        (leave_a_gap_in_the_indexes, "gapless"),
        (let_a_replica_differ, "gapless"),
        (let_a_replica_commit_more, "gapless"),
        (read_what_is_no_prefix, "reads"),
        (read_too_little, "reads"),
        (read_the_future, "reads"),
        (read_less_than_the_token, "reads"),
        (read_a_partition_out_of_order, "reads"),
        (read_a_stale_partition, "reads"),
        (read_uncommitted_events_locally, "reads"),
        (store_what_was_taken, "final_read"),
        (refuse_ids_that_nobody_has, "final_read"),
        (tear_an_append_apart, "atomic_appends"),
        (elect_two_in_one_term, "terms"),
        (elect_one_anew_in_its_old_term, "terms"),
        (acknowledge_an_older_term_later, "terms"),
    ],
    ids=lambda value: value.__name__ if callable(value) else value,
)
def test_a_checker_complains(spoil: Callable[[Story], None], checker: str) -> None:
    story = Story()
    spoil(story)
    assert [c for c in story.complaints() if c.startswith(checker + ":")], story.complaints()


def test_a_local_read_may_be_stale_and_other_company_may_be_refused() -> None:
    story = Story()
    story.read = ReadOperation(3, 0, "s", 70, 80, OK, (A,), kind=LOCAL)
    story.rejected = AppendOperation(3, 0, (Intent("s", -1, (A, b"r" * 16)),), 50, 60, TAKEN)
    assert story.complaints() == []


def test_an_unknown_append_may_be_stored_or_not() -> None:
    for stored in (True, False):
        story = Story()
        story.second = replace(story.second, outcome="unknown", placed=None)
        if not stored:
            del story.log[2]
            story.replica = list(story.log)
            story.read.ids = (A, B)
            story.rejected.outcome = "unknown"
        assert story.complaints() == []
