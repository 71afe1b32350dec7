"""The one decision about an append, over a log that is a few dictionaries."""

from __future__ import annotations

from typing import Any

import pytest

from allsource.config.schema import Limits
from allsource.storage.model.append import (
    STREAMS_MAX,
    AppendPart,
    AppendRequest,
    Known,
    Unmet,
    answer_again,
    append_part,
    check_append,
    partition_of_append,
    result_of,
)
from allsource.storage.model.chunks import Chunk, pack_events
from allsource.storage.model.entry import Mark, NewAppend, Place
from allsource.storage.model.errors import (
    Corrupt,
    EventIdConflict,
    InvalidRequest,
    MarkRefused,
    TooLarge,
    WrongExpectedTag,
    WrongExpectedVersion,
)
from allsource.storage.model.events import BINARY, NewEvent
from allsource.storage.model.expected import ANY
from tests.storage.model.pure_log import (
    PureLog,
    ask,
    events,
    log_with,
    parts,
    refusal,
    request,
)

M = Mark("m", 5, 1)


# -- the order of the questions, and the versions


def test_versions_go_on_behind_the_head() -> None:
    wanted = request(("b", events()), ("a", events(2), 3), marks=[Mark("m", 1, 0)])
    decided = ask(log_with(request(("a", events(3)))), wanted)
    assert isinstance(decided, NewAppend)
    assert [(part.stream, part.first_version, part.last_version) for part in decided.append.parts] == [
        ("b", 1, 1),
        ("a", 4, 5),
    ]
    assert decided.append.marks == (Mark("m", 1, 0),)
    assert decided.event_count == 3
    assert decided.data == tuple(chunk.data for part in wanted.parts for chunk in part.chunks)


def test_a_part_has_what_is_known_of_its_events() -> None:
    sent = [NewEvent("B", b"1"), NewEvent("A", b"2"), NewEvent("B", b"3"), *events(300)]
    decided = ask(PureLog(0), request(("a", sent)))
    assert isinstance(decided, NewAppend)
    (part,) = decided.append.parts
    assert (part.count, part.first_id, part.types) == (303, sent[0].id, ("B", "A", "Tested"))
    assert [head.count for head in part.chunks] == [256, 47]
    assert [head.stored_size for head in part.chunks] == [len(data) for data in decided.data]


def test_the_questions_come_in_their_order() -> None:
    """Each of these fails at one question more than the next: form, ids, marks, tag, version."""
    known = events()
    log = log_with(request(("a{t}", known), marks=[M]))
    wanted = request(("a{t}", known, 99), marks=[M], expected_tag=99)
    with pytest.raises(InvalidRequest):
        check_append(AppendRequest(wanted.parts, 99, (Mark("m", -1, 1),)), Limits())
    assert ask(log, wanted) == Known(Place(1, 0))
    fresh = parts(("a{t}", events(), 99))
    assert isinstance(refusal(log, AppendRequest(fresh, 99, (M,))).error, MarkRefused)
    further = Mark("m", 6, 1)
    assert isinstance(refusal(log, AppendRequest(fresh, 99, (further,))).error, WrongExpectedTag)
    assert isinstance(refusal(log, AppendRequest(fresh, 1, (further,))).error, WrongExpectedVersion)
    done = AppendRequest(parts(("a{t}", events(), 1)), 1, (further,))
    assert isinstance(ask(log, done), NewAppend)


def test_ids_of_any_part_are_known() -> None:
    one, two = events(2)
    log = log_with(request(("z", events())), request(("a", [one]), ("b", [two])))
    assert ask(log, request(("b", [two]))) == Known(Place(2, 0))


def test_of_several_appends_with_these_ids_the_oldest_is_named() -> None:
    one, two = events(2)
    log = log_with(request(("a", [one])), request(("b", [two])))
    assert ask(log, request(("a", [one]), ("b", [two]))) == Known(Place(1, 0))
    assert ask(log, request(("b", [two]), ("a", [one]))) == Known(Place(1, 0))


def test_events_behind_the_first_are_not_known_by_their_ids() -> None:
    one, two = events(2)
    assert isinstance(ask(log_with(request(("a", [one, two]))), request(("a", [two]))), NewAppend)


@pytest.mark.parametrize(
    ("expected", "stands"),
    [("any", True), ("exists", True), (2, True), ("no_stream", False), (0, False), (1, False), (3, False)],
)
def test_expectations_of_a_stream_at_version_2(expected: str | int, stands: bool) -> None:
    log = log_with(request(("z", events())), request(("a", events(2))))
    decision = ask(log, request(("a", events(), expected)))
    if stands:
        assert isinstance(decision, NewAppend)
    else:
        assert isinstance(decision, Unmet)
        assert decision.index == 2
        assert decision.error.details["actual"] == 2


@pytest.mark.parametrize(
    ("expected", "stands"), [("any", True), ("no_stream", True), (0, True), ("exists", False), (1, False)]
)
def test_expectations_of_no_stream(expected: str | int, stands: bool) -> None:
    decision = ask(PureLog(0), request(("a", events(), expected)))
    assert isinstance(decision, NewAppend if stands else Unmet)
    if isinstance(decision, Unmet):
        assert decision.index == 0


def test_of_several_failed_expectations_the_first_is_named() -> None:
    unmet = refusal(PureLog(0), request(("a", events()), ("b", events(), 5), ("c", events(), 6)))
    assert unmet.error.details == {"stream": "b", "expected": 5, "actual": 0}


# -- what is well formed


def test_streams_of_two_partitions_are_refused() -> None:
    with pytest.raises(InvalidRequest, match=r"common \{tag\}") as caught:
        partition_of_append(request(("a", events()), ("b", events())), 32)
    assert caught.value.details["reason"] == "cross_partition"
    assert sorted(caught.value.details["partitions"]) == ["a", "b"]
    shared = request(("{t}a", events()), ("{t}b", events()))
    assert partition_of_append(shared, 32) == partition_of_append(request(("t", events())), 32)


NONE = (Chunk(1, 0, 0, b""),)


@pytest.mark.parametrize(
    ("wanted", "why"),
    [
        ((), "at least one stream"),
        (parts(("{t}a", events()), ("{t}a", events())), "each stream once"),
        ((AppendPart("", ANY, NONE),), "must not be empty"),
        ((*parts(("{t}a", events())), AppendPart("{t}" + "x" * 128, ANY, NONE)), "at most 128 bytes"),
        ((AppendPart("a\udc80", ANY, NONE),), "Unicode"),
        (tuple(AppendPart(f"{{t}}{n}", ANY, NONE) for n in range(STREAMS_MAX + 1)), "at most 1024 streams"),
    ],
)
def test_streams_are_checked(wanted: tuple[AppendPart, ...], why: str) -> None:
    with pytest.raises(InvalidRequest, match=why):
        partition_of_append(AppendRequest(wanted), 32)


@pytest.mark.parametrize("stream", ["$", "$own", "${t}"])
def test_a_stream_of_the_stores_own_is_refused(stream: str) -> None:
    own = AppendPart(stream, ANY, pack_events(events()))
    for wanted in ((own,), (*parts(("a", events())), own)):
        with pytest.raises(InvalidRequest, match=r"names that begin with \$ are the store's own"):
            check_append(AppendRequest(wanted), Limits())
    with pytest.raises(InvalidRequest, match="the store's own"):
        append_part(stream, events(), "any")
    check_append(request(("a$", events())), Limits())


@pytest.mark.parametrize("said", [-1, 0, 1, 31])
def test_a_partition_that_is_said_is_the_streams(said: int) -> None:
    wanted = parts(("order-1", events()))
    if said == -1:
        assert partition_of_append(AppendRequest(wanted, partition=-1), 32) == 15
        assert partition_of_append(AppendRequest(wanted, partition=15), 32) == 15
    else:
        with pytest.raises(InvalidRequest, match=f"in partition 15, not {said}") as caught:
            partition_of_append(AppendRequest(wanted, partition=said), 32)
        assert caught.value.details["reason"] == "cross_partition"


@pytest.mark.parametrize("said", [-1, -2, 32, 2**40])
def test_marks_alone_say_their_partition(said: int) -> None:
    assert partition_of_append(AppendRequest((), ANY, (M,), 31), 32) == 31
    with pytest.raises(InvalidRequest, match="marks alone says its partition: 0 to 31"):
        partition_of_append(AppendRequest((), ANY, (M,), said), 32)
    with pytest.raises(InvalidRequest, match="at least one stream"):
        partition_of_append(AppendRequest((), ANY, (), 1), 32)


TWICE = events(1)


@pytest.mark.parametrize(
    ("wanted", "limits", "error"),
    [
        (parts(("a", events(3))), Limits(append_events_max=2), TooLarge),
        (parts(("a", events(300))), Limits(append_events_max=299), TooLarge),
        (parts(("{a}", events(2)), ("{a}b", events(1))), Limits(append_events_max=2), TooLarge),
        (parts(("a", events(1, size=100))), Limits(append_bytes_max=100), TooLarge),
        (parts(("{a}", events(1)), ("{a}b", events(1))), Limits(append_bytes_max=60), TooLarge),
        (parts(("a", events(1, size=100))), Limits(event_bytes_max=50), TooLarge),
        (parts(("{a}", TWICE), ("{a}b", TWICE)), Limits(), InvalidRequest),
        ((AppendPart("a", ANY, ()),), Limits(), InvalidRequest),
        ((AppendPart("a", ANY, (Chunk(1, 4, 0, b"junk"),)),), Limits(), InvalidRequest),
        ((AppendPart("a", ANY, (Chunk(1, 1, 0, b"\x90"),)),), Limits(), InvalidRequest),
    ],
)
def test_content_is_checked(wanted: tuple[AppendPart, ...], limits: Limits, error: type[Exception]) -> None:
    with pytest.raises(error) as caught:
        check_append(AppendRequest(wanted), limits)
    assert type(caught.value) is error


def test_an_append_is_as_large_as_what_it_becomes() -> None:
    """Compressed or not: what it costs to unpack is counted, and what it costs to keep."""
    sent = [NewEvent("T", b" " * 50_000, encoding=BINARY) for _ in range(3)]
    wanted = request(("a", sent))
    (part,) = wanted.parts
    assert sum(len(chunk.data) for chunk in part.chunks) < 1000
    assert part.size == sum(chunk.raw_size for chunk in part.chunks) > 150_000
    check_append(wanted, Limits(append_bytes_max=part.size))
    with pytest.raises(TooLarge) as caught:
        check_append(wanted, Limits(append_bytes_max=part.size - 1))
    assert caught.value.details == {"limit": part.size - 1, "actual": part.size}
    # A chunk that claims little is as large as it is.
    assert AppendPart("a", ANY, (Chunk(1, 1, 1, b"x" * 70),)).size == 70


@pytest.mark.parametrize("expected", [-3, -(2**70), 2**63, 2**70, True, 1.0, None, "1"])
def test_an_expectation_is_a_number_that_means_something(expected: Any) -> None:
    (right,) = parts(("a", events()))
    with pytest.raises(InvalidRequest, match="an expected version is"):
        check_append(AppendRequest((right._replace(expected=expected),)), Limits())


# -- retries


def test_a_retry_gets_the_first_answer() -> None:
    log = log_with(request(("z", events(4))))
    wanted = request(("a", events(2)), ("b", events(1)))
    first = log.append(wanted)
    again = log.append(AppendRequest(wanted.parts[::-1]))
    assert (first.first_position, first.last_position) == (5, 7)
    assert first.streams == (("a", 1, 2), ("b", 1, 1))
    assert again == first._replace(duplicate=True)
    assert result_of(log.entries[1].stored(0), duplicate=False) == first


def test_a_retry_is_answered_for_its_own_append_of_an_entry() -> None:
    log = log_with(request(("z", events(4))))
    one, two, three = (
        request((name, events(n)), (f"{name}2", events())) for n, name in enumerate("abc", 1)
    )
    entry = log.turn(one, two, three)
    for ordinal, (sent, span) in enumerate(((one, (5, 6)), (two, (7, 9)), (three, (10, 13)))):
        assert ask(log, sent) == Known(Place(2, ordinal))
        answer = answer_again(sent, entry.stored(ordinal), entry.content(ordinal))
        assert not isinstance(answer, EventIdConflict)
        assert (answer.index, answer.first_position, answer.last_position) == (2, *span)
        assert [stream.stream for stream in answer.streams] == [part.stream for part in sent.parts]
        assert answer.duplicate
    # A neighbour's events are other content; the conflict names the append that has the oldest ids.
    both = AppendRequest((two.parts[0], three.parts[0]))
    with pytest.raises(EventIdConflict, match="position 7, with other content"):
        log.append(both)


def test_a_retry_may_be_cut_and_packed_otherwise() -> None:
    sent = [NewEvent("T", b" " * 2000, encoding=BINARY) for _ in range(3)]
    log = log_with(request(("a", sent)))
    plain = AppendPart("a", ANY, pack_events(sent, compress=False))
    pieces = AppendPart("a", ANY, tuple(chunk for event in sent for chunk in pack_events([event])))
    for part in (plain, pieces):
        assert log.append(AppendRequest((part,))).duplicate


def test_part_of_an_append_is_no_retry_of_it() -> None:
    whole = request(("a", events(2)), ("b", events(1)))
    entry = log_with(whole).entries[0]
    for part in whole.parts:
        answer = answer_again(AppendRequest((part,)), entry.stored(0), entry.content(0))
        assert isinstance(answer, EventIdConflict)


def test_known_ids_with_other_content_are_a_conflict() -> None:
    event = NewEvent("T", b"1")
    log = log_with(request(("z", events(4))), request(("a", [event])))
    entry = log.entries[1]
    for other in (
        request(("a", [NewEvent("T", b"2", id=event.id)])),
        request(("a", [NewEvent("U", b"1", id=event.id)])),
        request(("a", [NewEvent("T", b"1", b"1", id=event.id)])),
        request(("b", [event])),
        request(("a", [event, NewEvent("T", b"3")])),
        request(("a", [event]), ("c", events())),
    ):
        conflict = answer_again(other, entry.stored(0), entry.content(0))
        assert isinstance(conflict, EventIdConflict)
        assert conflict.details == {"partition": 0, "first_position": 5}
        assert conflict.message.startswith(
            "the event ids of this append are already stored in partition 0, position 5, with other content"
        )


def test_a_retry_of_what_went_bad_is_not_answered() -> None:
    wanted = request(("a", events(2)))
    (chunk,) = wanted.parts[0].chunks
    entry = log_with(wanted).entries[0]
    with pytest.raises(Corrupt):
        answer_again(wanted, entry.stored(0), [[chunk._replace(data=b"\xc1" * len(chunk.data))]])
