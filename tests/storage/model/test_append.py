"""The one decision about an append, over a log that is a few dictionaries."""

from __future__ import annotations

import pytest

from allsource.config.schema import Limits
from allsource.storage.model.append import (
    STREAMS_MAX,
    AppendPart,
    Known,
    Unmet,
    answer_again,
    append_part,
    check_append,
    decide,
    partition_of_append,
    result_of,
)
from allsource.storage.model.entry import Part
from allsource.storage.model.errors import EventIdConflict, InvalidRequest, TooLarge
from allsource.storage.model.events import NewEvent, encode_blob
from allsource.storage.model.expected import ANY
from tests.storage.model.pure_log import PureLog


def events(count: int = 1, size: int = 10) -> list[NewEvent]:
    return [NewEvent("Tested", b'"' + b"x" * size + b'"') for _ in range(count)]


def parts(
    *wanted: tuple[str, list[NewEvent]] | tuple[str, list[NewEvent], str | int],
) -> tuple[AppendPart, ...]:
    return tuple(append_part(one[0], one[1], one[2] if len(one) > 2 else "any") for one in wanted)


def log_with(*appends: tuple[AppendPart, ...]) -> PureLog:
    log = PureLog(0)
    for one in appends:
        log.append(one)
    return log


def ask(log: PureLog, wanted: tuple[AppendPart, ...]) -> tuple[Part, ...] | Known | Unmet:
    return decide(wanted, check_append(wanted, Limits()), log)


# -- the order of the questions, and the versions


def test_versions_go_on_behind_the_head() -> None:
    decided = ask(log_with(parts(("a", events(3)))), parts(("b", events()), ("a", events(2), 3)))
    assert isinstance(decided, tuple)
    assert [(part.stream, part.first_version, part.last_version) for part in decided] == [
        ("b", 1, 1),
        ("a", 4, 5),
    ]


def test_known_ids_are_found_before_the_version_is_looked_at() -> None:
    wanted = parts(("a", events(), "no_stream"))
    assert ask(log_with(wanted), wanted) == Known(1)


def test_ids_of_any_part_are_known() -> None:
    one, two = events(2)
    log = log_with(parts(("z", events())), parts(("a", [one]), ("b", [two])))
    assert ask(log, parts(("b", [two]))) == Known(2)


def test_of_several_appends_with_these_ids_the_oldest_is_named() -> None:
    one, two = events(2)
    log = log_with(parts(("a", [one])), parts(("b", [two])))
    assert ask(log, parts(("a", [one]), ("b", [two]))) == Known(1)
    assert ask(log, parts(("b", [two]), ("a", [one]))) == Known(1)


def test_events_behind_the_first_are_not_known_by_their_ids() -> None:
    one, two = events(2)
    assert isinstance(ask(log_with(parts(("a", [one, two]))), parts(("a", [two]))), tuple)


@pytest.mark.parametrize(
    ("expected", "stands"),
    [("any", True), ("exists", True), (2, True), ("no_stream", False), (0, False), (1, False), (3, False)],
)
def test_expectations_of_a_stream_at_version_2(expected: str | int, stands: bool) -> None:
    log = log_with(parts(("z", events())), parts(("a", events(2))))
    decision = ask(log, parts(("a", events(), expected)))
    if stands:
        assert isinstance(decision, tuple)
    else:
        assert isinstance(decision, Unmet)
        assert decision.index == 2
        assert decision.error.details["actual"] == 2


@pytest.mark.parametrize(
    ("expected", "stands"), [("any", True), ("no_stream", True), (0, True), ("exists", False), (1, False)]
)
def test_expectations_of_no_stream(expected: str | int, stands: bool) -> None:
    decision = ask(PureLog(0), parts(("a", events(), expected)))
    assert isinstance(decision, tuple if stands else Unmet)
    if isinstance(decision, Unmet):
        assert decision.index == 0


def test_of_several_failed_expectations_the_first_is_named() -> None:
    decision = ask(PureLog(0), parts(("a", events()), ("b", events(), 5), ("c", events(), 6)))
    assert isinstance(decision, Unmet)
    assert decision.error.details == {"stream": "b", "expected": 5, "actual": 0}


# -- what is well formed


def test_streams_of_two_partitions_are_refused() -> None:
    with pytest.raises(InvalidRequest, match=r"common \{tag\}") as caught:
        partition_of_append(parts(("a", events()), ("b", events())), 32)
    assert caught.value.details["reason"] == "cross_partition"
    assert sorted(caught.value.details["partitions"]) == ["a", "b"]
    shared = parts(("{t}a", events()), ("{t}b", events()))
    assert partition_of_append(shared, 32) == partition_of_append(parts(("t", events())), 32)


@pytest.mark.parametrize(
    ("wanted", "why"),
    [
        ((), "at least one stream"),
        (parts(("{t}a", events()), ("{t}a", events())), "each stream once"),
        ((AppendPart("", ANY, b""),), "must not be empty"),
        ((*parts(("{t}a", events())), AppendPart("{t}" + "x" * 128, ANY, b"")), "at most 128 bytes"),
        ((AppendPart("a\udc80", ANY, b""),), "Unicode"),
        (tuple(AppendPart(f"{{t}}{n}", ANY, b"") for n in range(STREAMS_MAX + 1)), "at most 1024 streams"),
    ],
)
def test_streams_are_checked(wanted: tuple[AppendPart, ...], why: str) -> None:
    with pytest.raises(InvalidRequest, match=why):
        partition_of_append(wanted, 32)


TWICE = events(1)


@pytest.mark.parametrize(
    ("wanted", "limits", "error"),
    [
        (parts(("a", events(3))), Limits(append_events_max=2), TooLarge),
        (parts(("{a}", events(2)), ("{a}b", events(1))), Limits(append_events_max=2), TooLarge),
        (parts(("a", events(1, size=100))), Limits(append_bytes_max=100), TooLarge),
        (parts(("{a}", events(1)), ("{a}b", events(1))), Limits(append_bytes_max=60), TooLarge),
        (parts(("a", events(1, size=100))), Limits(event_bytes_max=50), TooLarge),
        (parts(("{a}", TWICE), ("{a}b", TWICE)), Limits(), InvalidRequest),
        ((AppendPart("a", -3, encode_blob(events())),), Limits(), InvalidRequest),
        ((AppendPart("a", ANY, b"junk"),), Limits(), InvalidRequest),
        ((AppendPart("a", ANY, b"\x90"),), Limits(), InvalidRequest),
    ],
)
def test_content_is_checked(wanted: tuple[AppendPart, ...], limits: Limits, error: type[Exception]) -> None:
    with pytest.raises(error):
        check_append(wanted, limits)


# -- retries


def test_a_retry_gets_the_first_answer() -> None:
    log = log_with(parts(("z", events(4))))
    wanted = parts(("a", events(2)), ("b", events(1)))
    first = log.append(wanted)
    again = log.append(tuple(reversed(wanted)))
    assert (first.first_position, first.last_position) == (5, 7)
    assert first.streams == (("a", 1, 2), ("b", 1, 1))
    assert again == first._replace(duplicate=True)
    assert result_of(log.entries[1], duplicate=False) == first


def test_part_of_an_append_is_no_retry_of_it() -> None:
    whole = parts(("a", events(2)), ("b", events(1)))
    log = log_with(whole)
    for part in whole:
        assert isinstance(answer_again([part], log.entries[0]), EventIdConflict)


def test_known_ids_with_other_content_are_a_conflict() -> None:
    event = NewEvent("T", b"1")
    log = log_with(parts(("z", events(4))), parts(("a", [event])))
    for other in (
        parts(("a", [NewEvent("T", b"2", id=event.id)])),
        parts(("a", [NewEvent("U", b"1", id=event.id)])),
        parts(("b", [event])),
        parts(("a", [event, NewEvent("T", b"3")])),
        parts(("a", [event]), ("c", events())),
    ):
        conflict = answer_again(other, log.entries[1])
        assert isinstance(conflict, EventIdConflict)
        assert conflict.message.startswith(
            "the event ids of this append are already stored in partition 0, position 5, with other content"
        )
