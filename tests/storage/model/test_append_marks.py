"""What an append does to the tags and marks of its partition, and what they refuse."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from allsource.config.schema import Limits
from allsource.storage.model.append import (
    MARKS_MAX,
    AppendPart,
    AppendRequest,
    Known,
    Unmet,
    append_request,
    check_append,
    decide,
    moves,
)
from allsource.storage.model.chunks import pack_events
from allsource.storage.model.entry import Mark, NewAppend, Place
from allsource.storage.model.errors import (
    InvalidRequest,
    MarkRefused,
    TooLarge,
    WrongExpectedTag,
)
from allsource.storage.model.expected import ANY
from allsource.storage.model.log import MarkAt
from allsource.storage.model.partition import tag_of
from tests.storage.model.pure_log import (
    PureLog,
    ask,
    events,
    log_with,
    moving,
    parts,
    refusal,
    request,
)

M = Mark("m", 5, 1)


# -- tags


def numbers(decision: object) -> list[int]:
    assert isinstance(decision, NewAppend)
    return [part.first_tag_number for part in decision.append.parts]


def test_a_tag_counts_over_all_its_streams_and_a_stream_without_one_does_not() -> None:
    log = log_with(request(("a{t}", events(3))), request(("b{t}", events(2))), request(("t", events(9))))
    decision = ask(
        log, request(("c{t}", events(2)), ("t", events()), ("a{t}", events(4)), ("b{t}", events()))
    )
    assert numbers(decision) == [6, 0, 8, 12]


def test_tags_of_one_partition_count_apart() -> None:
    """Two tags may share a partition; a crc does not tell them apart."""
    log = log_with(request(("a{t}", events(3))), request(("a{u}", events(1))))
    assert numbers(ask(log, request(("b{u}", events(2)), ("b{t}", events()), ("c{u}", events())))) == [
        2,
        4,
        4,
    ]


def test_events_of_the_stores_own_streams_do_not_count() -> None:
    """Nobody else appends to them; `check_append` refuses, so the decision is asked directly."""
    log = log_with(request(("a{t}", events(3))))
    own = AppendPart("$own{t}", ANY, pack_events(events(5)))
    wanted = AppendRequest((own, *parts(("b{t}", events(2)))))
    checked = check_append(AppendRequest(parts(("own{t}", events(5)), ("b{t}", events(2)))), Limits())
    assert numbers(decide(wanted, checked, log)) == [0, 4]


@given(st.lists(st.tuples(st.sampled_from(("a{t}", "b{t}", "{u}", "x{u}y", "plain")), st.integers(1, 4))))
def test_numbers_of_a_tag_are_gapless_however_its_streams_take_turns(
    turns: list[tuple[str, int]],
) -> None:
    log = PureLog(0)
    while turns:  # up to three streams in one append
        names = [stream for stream, _ in turns[:3]]
        size = 3 if len(set(names)) == len(names) else 1
        log.append(request(*((stream, events(count)) for stream, count in turns[:size])))
        turns = turns[size:]
    for tag in ("t", "u"):
        found = [
            event.tag_number
            for entry in log.entries
            for event in entry.events()
            if tag_of(event.stream) == tag
        ]
        assert found == list(range(1, len(found) + 1))
    assert {e.tag_number for entry in log.entries for e in entry.events("plain")} <= {0}


@pytest.mark.parametrize(
    ("expected", "stands"), [(5, True), (ANY, True), (0, False), (4, False), (6, False)]
)
def test_an_append_may_expect_its_tags_number(expected: int, stands: bool) -> None:
    log = log_with(request(("z", events())), request(("a{t}", events(2))), request(("b{t}", events(3))))
    decision = ask(log, request(("c{t}", events()), ("a{t}", events()), expected_tag=expected))
    if stands:
        assert numbers(decision) == [6, 7]
    else:
        assert isinstance(decision, Unmet)
        assert isinstance(decision.error, WrongExpectedTag)
        assert decision.error.details == {"tag": "t", "expected": expected, "actual": 5}
        assert decision.index == 3


def test_a_tag_without_events_is_expected_to_have_none() -> None:
    assert numbers(ask(PureLog(0), request(("a{t}", events()), expected_tag=0))) == [1]
    assert refusal(PureLog(0), request(("a{t}", events()), expected_tag=1)).index == 0


@pytest.mark.parametrize(
    ("streams", "expected"),
    [
        (["a"], 0),
        (["a{t}", "b"], 0),
        (["a{t}", "a{u}"], 0),
        ([], 0),
        (["a{t}"], -2),
        (["a{t}"], 2**63),
        (["a{t}"], True),
        (["a{t}"], "0"),
        (["a{t}"], None),
        (["a{t}"], 1.0),
    ],
)
def test_a_tags_number_is_expected_of_one_tag(streams: list[str], expected: Any) -> None:
    wanted = request(*((stream, events()) for stream in streams), marks=[M], expected_tag=expected)
    with pytest.raises(InvalidRequest, match="expected_tag is"):
        check_append(wanted, Limits())


# -- marks


@pytest.mark.parametrize(
    ("position", "generation", "stands"),
    [
        (6, 1, True),
        (5, 1, False),  # where it is
        (4, 1, False),  # back
        (0, 2, True),  # a new generation begins where it likes
        (5, 2, True),
        (99, 0, False),  # fenced
        (2**63 - 1, 2**63 - 1, True),
    ],
)
@pytest.mark.parametrize("with_events", [True, False])
def test_where_a_mark_may_move(position: int, generation: int, stands: bool, with_events: bool) -> None:
    log = log_with(request(("z", events())), request(("a", events()), marks=[M]))
    assert moves(MarkAt(5, 1, 2, 0), position, generation) is stands
    mark = Mark("m", position, generation)
    wanted = request(("b", events()), marks=[mark]) if with_events else moving(mark)
    decision = ask(log, wanted)
    if stands:
        assert isinstance(decision, NewAppend)
        assert decision.append.marks == (mark,)
    elif not with_events and mark == M:
        assert decision == Known(Place(2, 0)), "it is as this append would leave it"
    else:
        assert isinstance(decision, Unmet)
        assert decision.index == 2
        assert isinstance(decision.error, MarkRefused)
        assert decision.error.details == {"name": "m", "position": 5, "generation": 1}


def test_a_mark_that_was_never_set_may_be_set_anywhere() -> None:
    for mark in (Mark("n", 0, 0), Mark("n", 7, 3)):
        assert isinstance(ask(log_with(moving(M)), moving(mark)), NewAppend)


def test_a_mark_never_moves_back_whatever_comes() -> None:
    log = PureLog(0)
    for step, (position, generation) in enumerate([(3, 1), (2, 1), (5, 1), (1, 2), (9, 1), (4, 2), (4, 2)]):
        wanted = request((f"s{step}", events()), marks=[Mark("m", position, generation)])
        if isinstance(ask(log, wanted), NewAppend):
            log.append(wanted)
    moved = [mark for entry in log.entries for append in entry.appends for mark in append.marks]
    assert [mark[1:] for mark in moved] == [(3, 1), (5, 1), (1, 2), (4, 2)]
    assert all((a.generation, a.position) < (b.generation, b.position) for a, b in pairwise(moved))


def test_one_refused_mark_refuses_everything() -> None:
    log = log_with(moving(M))
    unmet = refusal(
        log, request(("a", events()), marks=[Mark("n", 1, 1), Mark("m", 4, 1), Mark("m2", 1, 1)])
    )
    assert unmet.error.details["name"] == "m"
    with pytest.raises(MarkRefused):
        log.append(moving(Mark("n", 1, 1), M))
    assert log.mark("n") is None


def test_marks_alone_are_known_by_what_they_left() -> None:
    log = log_with(request(("z", events(4))))
    wanted = moving(M, Mark("n", 1, 1))
    first = log.append(wanted)
    assert (first.index, first.first_position, first.last_position, first.streams) == (2, 5, 4, ())
    assert log.append(wanted) == first._replace(duplicate=True)
    assert len(log.entries) == 2
    # As events left them, too; and the newest of several appends is named.
    log.append(request(("a", events()), marks=[Mark("n", 2, 1)]))
    again = log.append(moving(M, Mark("n", 2, 1)))
    assert (again.index, again.streams, again.duplicate) == (3, (), True)
    # Moved on since, it is no retry any more.
    log.append(moving(Mark("m", 6, 1)))
    with pytest.raises(MarkRefused, match="position 6 of generation 1"):
        log.append(wanted)


def test_events_with_marks_are_known_by_their_ids_alone() -> None:
    log = PureLog(0)
    sent = events(2)
    first = log.append(request(("a", sent), marks=[M]))
    log.append(moving(Mark("m", 9, 4)))
    for marks in ([M], [], [Mark("m", 1, 0)], [Mark("other", 1, 1)]):
        assert log.append(request(("a", sent), marks=marks)) == first._replace(duplicate=True)
    assert log.mark("m") == MarkAt(9, 4, 2, 0)
    assert log.mark("other") is None


@pytest.mark.parametrize(
    ("marks", "says"),
    [
        ([Mark("", 1, 1)], "a mark must not be empty"),
        ([Mark("m" * 129, 1, 1)], "a mark has at most 128 bytes"),
        ([Mark("a\0", 1, 1)], "control"),
        ([Mark(" m", 1, 1)], "mark ' m' must not begin"),
        ([Mark(b"m", 1, 1)], "a mark is a string, not bytes"),
        ([Mark("m", -1, 1)], "its position is a number from 0, not -1"),
        ([Mark("m", 2**63, 1)], "its position"),
        ([Mark("m", True, 1)], "its position"),
        ([Mark("m", 1.0, 1)], "its position"),
        ([Mark("m", 1, -1)], "its generation is a number from 0, not -1"),
        ([Mark("m", 1, None)], "its generation"),
        ([Mark("m", 1, 2**63)], "its generation"),
        ([Mark("m", 1, 1), Mark("m", 2, 1)], "each mark once"),
    ],
)
def test_marks_are_checked(marks: list[Any], says: str) -> None:
    for wanted in (request(("a", events()), marks=marks), moving(*marks)):
        with pytest.raises(InvalidRequest, match=says):
            check_append(wanted, Limits())


def test_an_append_moves_up_to_1024_marks() -> None:
    marks = [Mark(f"m{n}", 1, 1) for n in range(MARKS_MAX + 1)]
    assert check_append(moving(*marks[:-1]), Limits()) == []
    with pytest.raises(TooLarge) as caught:
        check_append(moving(*marks), Limits())
    assert caught.value.details == {"limit": MARKS_MAX, "actual": MARKS_MAX + 1}


def test_a_callers_marks_are_read() -> None:
    made = append_request("appends", [("a{t}", events(), "any")], 7, [("m", 1, 2), Mark("n", 3, 4)])
    assert (made.expected_tag, made.marks) == (7, (Mark("m", 1, 2), Mark("n", 3, 4)))
    assert append_request("appends", [], None, [M], 3).expected_tag == ANY
    for odd in ("abc", ("m", 1), None, {"name": "m"}):
        with pytest.raises(InvalidRequest, match=r"marks\[1\] must be a Mark"):
            append_request("appends", [], None, [M, odd], 3)
    with pytest.raises(InvalidRequest, match=r"appends\[0\] must be a StreamAppend"):
        append_request("appends", [("a", events())], None, [])
