"""`EventStream`: the aggregate's invariants, and the defects of the original that it must not have."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from allsource.storage.model.errors import InvalidRequest, WrongExpectedVersion
from allsource.storage.model.events import JSON, Event, NewEvent
from allsource.storage.model.expected import show_expected
from allsource.storage.model.streams import EventStream


def stored(new: NewEvent, version: int, stream: str = "order-1") -> Event:
    return Event(
        stream,
        version,
        15,
        100 + version,
        1_000_000 + version,
        new.id,
        new.type,
        new.data,
        new.metadata,
        JSON,
    )


def events(count: int, stream: str = "order-1") -> list[Event]:
    return [stored(NewEvent("t", b"%d" % version), version, stream) for version in range(1, count + 1)]


def rebuilt(count: int, **changed: object) -> EventStream:
    wanted: dict = {"current_version": count, "watermark": count}
    return EventStream.reconstruct("order-1", events(count), **{**wanted, **changed})


def test_versions_begin_at_1() -> None:
    stream = EventStream("order-1")
    assert (stream.current_version, stream.watermark, len(stream)) == (0, 0, 0)
    assert str(stream.partition_key) == "partition-15/32"
    assert [stream.append_event(NewEvent("t")) for _ in range(3)] == [1, 2, 3]
    assert (stream.current_version, stream.watermark) == (3, 0)


def test_a_bad_id_is_refused() -> None:
    with pytest.raises(InvalidRequest):
        EventStream(" order")


def test_a_wrong_expectation_is_refused_and_kept() -> None:
    stream = rebuilt(3)
    stream.expect_version(2)
    with pytest.raises(WrongExpectedVersion, match="expected 2, got 3"):
        stream.append_event(NewEvent("t"))
    assert stream.current_version == 3
    assert stream.expected_version == 2
    stream.clear_expected_version()
    assert stream.append_event(NewEvent("t")) == 4


def test_a_met_expectation_is_used_up() -> None:
    stream = rebuilt(3, expected_version=3)
    assert stream.expected_version == 3
    assert stream.append_event(NewEvent("t")) == 4
    assert stream.expected_version is None
    assert stream.append_event(NewEvent("t")) == 5


@pytest.mark.parametrize(
    ("expected", "empty_takes", "filled_takes"),
    [
        ("any", True, True),
        ("no_stream", True, False),
        (0, True, False),
        ("exists", False, True),
        (1, False, True),
    ],
)
def test_every_kind_of_expectation(expected: str | int, empty_takes: bool, filled_takes: bool) -> None:
    for stream, takes in ((EventStream("order-1"), empty_takes), (rebuilt(1), filled_takes)):
        stream.expect_version(expected)
        if takes:
            stream.append_event(NewEvent("t"))
        else:
            with pytest.raises(WrongExpectedVersion):
                stream.append_event(NewEvent("t"))


@pytest.mark.parametrize("expected", [-1, "sometimes", None, True])
def test_an_impossible_expectation_is_refused(expected: object) -> None:
    with pytest.raises(InvalidRequest):
        rebuilt(1).expect_version(expected)  # type: ignore[arg-type]


def test_events_from_a_version() -> None:
    stream = rebuilt(3)
    stream.append_event(NewEvent("new"))
    assert [item.version for item in stream.events_from(1)] == [1, 2, 3, 4]
    assert [item.version for item in stream.events_from(3)] == [3, 4]
    assert [item.event.type for item in stream.events_from(4)] == ["new"]
    assert stream.events_from(4)[0].stored is None
    assert stream.events_from(2)[0].stored == stored(stream.events_from(2)[0].event, 2)
    for outside in (0, -1, 5, 99):
        assert stream.events_from(outside) == []


def test_the_watermark_lags_until_events_are_stored() -> None:
    stream = rebuilt(2)
    new = [NewEvent("t", b"%d" % i) for i in range(3)]
    for event in new:
        stream.append_event(event)
    assert (stream.current_version, stream.watermark, stream.pending) == (5, 2, new)
    stream.committed([stored(new[0], 3), stored(new[1], 4)])
    assert (stream.current_version, stream.watermark, stream.pending) == (5, 4, new[2:])
    assert stream.is_gapless()
    assert stream.events_from(4)[0].stored == stored(new[1], 4)


def test_only_the_oldest_pending_events_can_be_committed() -> None:
    stream = rebuilt(2)
    new = [NewEvent("t") for _ in range(2)]
    for event in new:
        stream.append_event(event)
    for wrong in (
        [stored(new[1], 4)],
        [stored(new[1], 3)],
        [stored(new[0], 3), stored(new[1], 4), stored(NewEvent("t"), 5)],
        [stored(new[0], 3), stored(new[1], 5)],
    ):
        with pytest.raises(InvalidRequest):
            stream.committed(wrong)
        assert (stream.watermark, stream.pending) == (2, new)


def test_reconstruction_keeps_everything() -> None:
    found = events(4)
    stream = EventStream.reconstruct("order-1", found, current_version=4, watermark=3)
    assert (stream.current_version, stream.watermark) == (4, 3)
    assert [item.event.id for item in stream.events_from(1)] == [event.id for event in found]
    assert [event.id for event in stream.pending] == [found[3].id]
    assert stream.is_gapless()


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"watermark": 4}, "watermark 4 is not between"),
        ({"watermark": -1}, "watermark -1 is not between"),
        ({"current_version": 4}, "3 events for a stream at version 4"),
        ({"current_version": 2, "watermark": 2}, "3 events for a stream at version 2"),
        ({"expected_version": -5}, "expected_version must be"),
    ],
)
def test_reconstruction_believes_nothing(changed: dict, says: str) -> None:
    with pytest.raises(InvalidRequest, match=says):
        rebuilt(3, **changed)


def test_reconstruction_refuses_gaps_disorder_and_strangers() -> None:
    one, two, three = events(3)
    for wrong in ([one, three], [two, one], [one, one], [one, *events(2, "order-2")[1:]]):
        with pytest.raises(InvalidRequest, match="claims to be"):
            EventStream.reconstruct("order-1", wrong, current_version=2, watermark=0)


class StreamMachine(RuleBasedStateMachine):
    """Appends, expectations and commits in any order against two plain lists."""

    def __init__(self) -> None:
        super().__init__()
        self.stream = EventStream("order-1")
        self.appended: list[NewEvent] = []
        self.watermark = 0
        self.expected: int | None = None

    @rule(version=st.integers(0, 6))
    def expect(self, version: int) -> None:
        self.stream.expect_version(version)
        self.expected = version

    @rule()
    def clear(self) -> None:
        self.stream.clear_expected_version()
        self.expected = None

    @rule()
    def append(self) -> None:
        event = NewEvent("t")
        if self.expected not in (None, len(self.appended)):
            with pytest.raises(WrongExpectedVersion):
                self.stream.append_event(event)
            return
        assert self.stream.append_event(event) == len(self.appended) + 1
        self.appended.append(event)
        self.expected = None

    @rule(count=st.integers(0, 3))
    def commit(self, count: int) -> None:
        some = self.appended[self.watermark : self.watermark + count]
        self.stream.committed(stored(event, self.watermark + i) for i, event in enumerate(some, 1))
        self.watermark += len(some)

    @invariant()
    def equals_the_lists(self) -> None:
        assert self.stream.current_version == len(self.appended)
        assert self.stream.watermark == self.watermark
        assert self.stream.pending == self.appended[self.watermark :]
        assert self.stream.is_gapless()
        shown = None if self.expected is None else show_expected(self.expected)
        assert self.stream.expected_version == shown


TestStreamMachine = StreamMachine.TestCase
