"""The drill's judge against histories that are right, and against each way in which they can be wrong."""

from __future__ import annotations

from itertools import count

import pytest

from allsource.node.cli.drill.checks import KINDS, compare, judge
from allsource.node.cli.drill.history import (
    ACKNOWLEDGED,
    CONFLICT,
    REJECTED,
    UNKNOWN,
    Attempt,
    History,
    Place,
    Written,
    longest_silence,
)
from allsource.storage.model.events import JSON, Event

PARTITION = 3


class Story:
    """A drill in one partition that went well, told step by step; tests then spoil it."""

    def __init__(self) -> None:
        self.history = History()
        self.log: list[Event] = []
        self._versions: dict[str, int] = {}
        self._ids = count(1)
        self._now = 0.0

    def append(self, *streams: str, expected: int | None = None, outcome: str = ACKNOWLEDGED) -> Attempt:
        """An append that is stored, and acknowledged unless `outcome` says otherwise."""
        attempt = self._attempt(streams, expected, outcome)
        places = []
        for written in attempt.events:
            version = self._versions[written.stream] = self._versions.get(written.stream, 0) + 1
            places.append(Place(version, len(self.log) + 1))
            self.log.append(stored(written, places[-1]))
        if outcome == ACKNOWLEDGED:
            attempt.places = tuple(places)
        self.history.add(attempt)
        return attempt

    def refuse(self, stream: str, expected: int | None, outcome: str, actual: int = 0) -> Attempt:
        """An append that is not stored."""
        attempt = self._attempt((stream,), expected, outcome)
        attempt.actual = actual
        self.history.add(attempt)
        return attempt

    def kinds(self) -> set[str]:
        """The kinds of faults that the judge finds."""
        return {fault.kind for fault in judge(self.history, {PARTITION: self.log})}

    def _attempt(self, streams: tuple[str, ...], expected: int | None, outcome: str) -> Attempt:
        written = tuple(self._written(stream) for stream in streams)
        self._now += 1.0
        return Attempt(
            f"writer-{streams[0]}", PARTITION, expected, written, self._now, self._now + 0.5, outcome
        )

    def _written(self, stream: str) -> Written:
        number = next(self._ids)
        return Written(stream, number.to_bytes(16, "big"), b"data %d" % number)


def stored(written: Written, place: Place) -> Event:
    return Event(
        written.stream,
        place.version,
        PARTITION,
        place.position,
        0,
        written.id,
        "t",
        written.data,
        b"",
        JSON,
    )


@pytest.fixture
def story() -> Story:
    """Two plain appends, one to two streams, two compare-and-set writes, a loser, one of each other end."""
    told = Story()
    told.append("plain")
    told.append("plain", "plain", "plain")
    told.append("plain", "other")
    told.append("cas", expected=0)
    told.append("cas", expected=1)
    told.refuse("cas", 1, CONFLICT, actual=2)
    told.refuse("plain", None, REJECTED)
    told.refuse("plain", None, UNKNOWN)
    told.append("plain", outcome=UNKNOWN)
    told.append("cas", expected=2)
    return told


def test_a_good_history_has_no_fault(story: Story) -> None:
    assert judge(story.history, {PARTITION: story.log}) == []


def test_every_kind_of_fault_has_a_description(story: Story) -> None:
    story.log.pop(0)
    assert story.kinds() <= KINDS.keys()


def test_an_acknowledged_event_that_is_not_stored_is_missing(story: Story) -> None:
    lost = story.log.pop()
    faults = judge(story.history, {PARTITION: story.log})
    assert [fault.kind for fault in faults] == ["missing"]
    assert lost.id.hex() in faults[0].detail
    assert "position 10" in faults[0].detail


def test_a_whole_partition_that_is_gone_is_missing(story: Story) -> None:
    story.log.clear()
    assert story.kinds() == {"missing"}


def test_an_event_at_another_place_than_acknowledged_has_moved(story: Story) -> None:
    attempt = story.history.attempts[-1]
    attempt.places = (Place(3, 8),)
    assert story.kinds() == {"moved"}


def test_other_content_than_was_sent_is_a_change(story: Story) -> None:
    story.log[0] = story.log[0]._replace(data=b"tampered with")
    assert story.kinds() == {"changed"}


def test_an_event_stored_twice_is_duplicated(story: Story) -> None:
    last = story.log[-1]
    story.log.append(last._replace(version=last.version + 1, position=last.position + 1))
    assert "duplicated" in story.kinds()


@pytest.mark.parametrize("outcome", [CONFLICT, REJECTED])
def test_a_refused_event_that_is_stored_is_resurrected(story: Story, outcome: str) -> None:
    attempt = story.append("plain", expected=None, outcome=outcome)
    attempt.actual = 1
    assert "resurrected" in story.kinds()


def test_an_unknown_outcome_may_be_stored_or_not() -> None:
    told = Story()
    told.append("plain", outcome=UNKNOWN)
    told.refuse("plain", None, UNKNOWN)
    assert told.kinds() == set()


def test_an_event_that_nobody_sent_is_invented(story: Story) -> None:
    story.log.append(story.log[-1]._replace(id=b"\xff" * 16, version=4, position=len(story.log) + 1))
    assert story.kinds() == {"invented"}


def test_events_of_other_streams_are_none_of_the_drill(story: Story) -> None:
    stranger = story.log[-1]._replace(stream="x", id=b"\xff" * 16, version=1, position=len(story.log) + 1)
    story.log.append(stranger)
    assert story.kinds() == set()


def test_an_append_of_which_half_is_stored_is_torn() -> None:
    told = Story()
    told.append("one", "two", outcome=UNKNOWN)
    told.log.pop()
    assert told.kinds() == {"torn"}


def test_an_append_whose_events_are_apart_is_torn() -> None:
    told = Story()
    first = told.append("one", "two", outcome=UNKNOWN)
    told.append("three", outcome=UNKNOWN)
    told.log[1], told.log[2] = told.log[2]._replace(position=2), told.log[1]._replace(position=3)
    assert len(first.events) == 2
    assert told.kinds() == {"torn"}


def test_a_position_left_out_is_a_gap(story: Story) -> None:
    story.log[4:] = [event._replace(position=event.position + 1) for event in story.log[4:]]
    assert "gap" in story.kinds()


def test_a_version_left_out_is_a_gap(story: Story) -> None:
    story.log[-1] = story.log[-1]._replace(version=7)
    assert "gap" in story.kinds()


def test_two_winners_of_one_version_are_found(story: Story) -> None:
    winner = story.history.attempts[4]
    second = story.refuse("cas", 1, ACKNOWLEDGED)
    second.places = winner.places
    assert "two_winners" in story.kinds()


def test_a_winner_of_another_version_than_it_expected_is_found() -> None:
    told = Story()
    told.append("cas", expected=0)
    told.append("cas", expected=0)
    assert told.kinds() == {"two_winners"}


def test_a_write_before_an_earlier_acknowledged_one_is_out_of_order() -> None:
    told = Story()
    one, two = told.append("plain"), told.append("plain")
    one.started, one.ended, two.started, two.ended = 10.0, 11.0, 5.0, 6.0
    assert told.kinds() == {"out_of_order"}


def test_writes_that_overlap_may_stand_in_either_order() -> None:
    told = Story()
    one, two = told.append("plain"), told.append("plain")
    one.started, one.ended, two.started, two.ended = 5.0, 8.0, 5.0, 6.0
    assert told.kinds() == set()


@pytest.mark.parametrize(
    ("actual", "why"), [(1, "expected"), (0, "acknowledged before"), (40, "nobody had written")]
)
def test_a_conflict_that_cannot_be_true_is_found(story: Story, actual: int, why: str) -> None:
    story.refuse("cas", 1, CONFLICT, actual=actual)
    faults = judge(story.history, {PARTITION: story.log})
    assert [fault.kind for fault in faults] == ["false_conflict"]
    assert why in faults[0].detail


def test_replicas_that_hold_the_same_do_not_differ(story: Story) -> None:
    assert compare(PARTITION, {"n1": story.log, "n2": list(story.log), "n3": list(story.log)}) == []


def test_a_replica_that_ends_early_differs(story: Story) -> None:
    (fault,) = compare(PARTITION, {"n1": story.log, "n2": story.log[:-1]})
    assert fault.kind == "differ"
    assert "n1 has 10 events, n2 has 9" in fault.detail


def test_a_replica_with_one_other_byte_differs(story: Story) -> None:
    other = [*story.log[:-1], story.log[-1]._replace(metadata=b"\0")]
    (fault,) = compare(PARTITION, {"n1": story.log, "n2": story.log, "n3": other})
    assert "position 10" in fault.detail
    assert "n3" in fault.detail


def test_the_longest_silence_starts_with_the_injury() -> None:
    assert longest_silence([1.0, 1.1, 1.9, 2.0], 1.0, 2.1) == pytest.approx(0.8)
    assert longest_silence([1.7, 1.8], 1.0, 2.0) == pytest.approx(0.7)


def test_silence_until_the_end_counts() -> None:
    assert longest_silence([1.1], 1.0, 3.0) == pytest.approx(1.9)
    assert longest_silence([], 1.0, 3.0) == 2.0


def test_acknowledgements_outside_the_interval_do_not_count() -> None:
    assert longest_silence([0.5, 1.5, 9.0], 1.0, 2.0) == pytest.approx(0.5)


def test_history_finds_the_acknowledgements_from_a_moment_on(story: Story) -> None:
    ended = [attempt.ended for attempt in story.history.attempts if attempt.outcome == ACKNOWLEDGED]
    assert story.history.since(PARTITION, ended[2]) == ended[2:]
    assert story.history.since(PARTITION + 1, 0.0) == []
