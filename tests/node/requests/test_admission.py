"""What the owner decides about one append, without any node around it."""

from __future__ import annotations

import pytest

from allsource.cluster.protocol.requests import AppendPart, AppendRequest
from allsource.config.schema import Limits
from allsource.node.requests.admission import (
    HEADS_MAX,
    Known,
    LogView,
    Unmet,
    admit,
    answer_again,
    check_append,
    partition_of_append,
    result_of,
)
from allsource.storage.model.entry import EVENTS, Entry, make_entry
from allsource.storage.model.errors import EventIdConflict, InvalidRequest, TooLarge
from allsource.storage.model.events import NewEvent, encode_blob
from allsource.storage.model.expected import ANY, EXISTS, NO_STREAM
from allsource.storage.model.log import StreamHead
from tests.node.members import append, events


class Indexes:
    """Storage's indexes, as dictionaries; counts how often it is asked."""

    def __init__(self) -> None:
        self.heads: dict[str, StreamHead] = {}
        self.ids: dict[bytes, int] = {}
        self.asked = 0

    def head(self, partition: int, stream: str) -> StreamHead | None:
        self.asked += 1
        return self.heads.get(stream)

    def index_of_append(self, partition: int, first_event_id: bytes) -> int | None:
        return self.ids.get(first_event_id)


class Owner:
    """An owner of partition 0: admits, and puts into its log what was admitted."""

    def __init__(self) -> None:
        self.indexes = Indexes()
        self.view = LogView(self.indexes, 0)
        self.log: list[Entry] = []

    def ask(self, request: AppendRequest) -> object:
        decision = admit(request, check_append(request, Limits()), self.view)
        if isinstance(decision, tuple):
            entry = make_entry(
                partition=0,
                index=len(self.log) + 1,
                term=1,
                kind=EVENTS,
                first_position=sum(e.count for e in self.log) + 1,
                timestamp_us=7,
                parts=decision,
            )
            self.log.append(entry)
            self.view.proposed(entry)
            return entry
        return decision

    def write(self) -> None:
        """The turn's write: storage knows the log now."""
        for entry in self.log:
            for part in entry.parts:
                self.indexes.heads[part.stream] = StreamHead(part.last_version, entry.index, 7, 7)
                self.indexes.ids[part.first_id] = entry.index
        self.view.written()


@pytest.mark.parametrize("written", [False, True], ids=["same turn", "after the write"])
def test_appends_line_up_behind_uncommitted_ones(written: bool) -> None:
    owner = Owner()
    first = owner.ask(append(("a", events(3)), expected=NO_STREAM))
    if written:
        owner.write()
        owner.view.forget()
    second = owner.ask(append(("a", events(2)), expected=3))
    assert isinstance(first, Entry)
    assert isinstance(second, Entry)
    assert (first.parts[0].first_version, second.parts[0].first_version) == (1, 4)


@pytest.mark.parametrize("written", [False, True], ids=["same turn", "after the write"])
def test_known_ids_are_found_before_the_version_is_looked_at(written: bool) -> None:
    owner = Owner()
    request = append(("a", events()), expected=NO_STREAM)
    owner.ask(request)
    if written:
        owner.write()
        owner.view.forget()
    assert owner.ask(request) == Known(1)
    assert len(owner.log) == 1


def test_ids_of_any_part_are_known() -> None:
    owner = Owner()
    batch = events(2)
    owner.ask(append(("a", batch[:1]), ("b", batch[1:])))
    assert owner.ask(append(("b", batch[1:]))) == Known(1)


@pytest.mark.parametrize(
    ("expected", "stands"),
    [(ANY, True), (EXISTS, True), (2, True), (NO_STREAM, False), (1, False), (3, False)],
)
def test_expectations_of_a_stream_at_version_2(expected: int, stands: bool) -> None:
    owner = Owner()
    owner.ask(append(("a", events(2))))
    decision = owner.ask(append(("a", events()), expected=expected))
    if stands:
        assert isinstance(decision, Entry)
    else:
        assert isinstance(decision, Unmet)
        assert decision.index == 1
        assert decision.error.details["actual"] == 2


@pytest.mark.parametrize(
    ("expected", "stands"), [(ANY, True), (NO_STREAM, True), (EXISTS, False), (1, False)]
)
def test_expectations_of_no_stream(expected: int, stands: bool) -> None:
    decision = Owner().ask(append(("a", events()), expected=expected))
    assert isinstance(decision, Entry if stands else Unmet)
    if isinstance(decision, Unmet):
        assert decision.index == 0


def test_one_failed_expectation_of_several_streams_admits_nothing() -> None:
    owner = Owner()
    decision = owner.ask(append(("a", events()), ("b", events(), 5)))
    assert isinstance(decision, Unmet)
    assert owner.view.head("a") == (0, 0)


def test_heads_are_remembered_and_forgotten() -> None:
    owner = Owner()
    owner.indexes.heads["a"] = StreamHead(4, 9, 0, 0)
    assert [owner.view.head("a"), owner.view.head("a")] == [(4, 9), (4, 9)]
    assert owner.indexes.asked == 1
    owner.view.forget()
    owner.view.head("a")
    assert owner.indexes.asked == 2


def test_the_memory_of_heads_is_bounded_and_keeps_what_is_used() -> None:
    owner = Owner()
    for turn in range(4):
        for number in range(HEADS_MAX + 1):
            owner.view.head(f"{turn}/{number}")
        owner.view.head("hot")
        owner.view.written()
    asked = owner.indexes.asked
    owner.view.head("hot")
    assert owner.indexes.asked == asked
    owner.view.head("0/0")
    assert owner.indexes.asked == asked + 1


def test_rotating_the_memory_loses_nothing_that_is_only_in_memory() -> None:
    owner = Owner()
    owner.ask(append(("a", events())))
    for number in range(3 * HEADS_MAX):
        owner.view.head(str(number))
    assert owner.view.head("a") == (1, 1)


def test_ids_that_storage_has_are_not_kept_in_memory() -> None:
    owner = Owner()
    for _ in range(100):
        owner.ask(append(("a", events())))
        owner.write()
    assert not owner.view._ids


def test_streams_of_two_partitions_are_refused() -> None:
    with pytest.raises(InvalidRequest, match=r"common \{tag\}") as caught:
        partition_of_append(append(("a", events()), ("b", events())), 32)
    assert caught.value.details["reason"] == "cross_partition"
    assert partition_of_append(append(("{t}a", events()), ("{t}b", events())), 32) == partition_of_append(
        append(("t", events())), 32
    )


@pytest.mark.parametrize(
    ("request_", "why"),
    [
        (AppendRequest(()), "at least one stream"),
        (append(("{t}a", events()), ("{t}a", events())), "each stream once"),
        (append(("", events())), "must not be empty"),
        (append(("{t}a", events()), ("{t}" + "x" * 128, events())), "at most 128 bytes"),
        (append(("a\udc80", events())), "Unicode"),
    ],
)
def test_streams_are_checked(request_: AppendRequest, why: str) -> None:
    with pytest.raises(InvalidRequest, match=why):
        partition_of_append(request_, 32)


TWICE = events(1)


@pytest.mark.parametrize(
    ("request_", "limits", "error"),
    [
        (append(("a", events(3))), Limits(append_events_max=2), TooLarge),
        (append(("{a}", events(2)), ("{a}b", events(1))), Limits(append_events_max=2), TooLarge),
        (append(("a", events(1, size=100))), Limits(append_bytes_max=100), TooLarge),
        (append(("{a}", events(1)), ("{a}b", events(1))), Limits(append_bytes_max=60), TooLarge),
        (append(("a", events(1, size=100))), Limits(event_bytes_max=50), TooLarge),
        (append(("{a}", TWICE), ("{a}b", TWICE)), Limits(), InvalidRequest),
        (AppendRequest((AppendPart("a", -3, encode_blob(events())),)), Limits(), InvalidRequest),
        (AppendRequest((AppendPart("a", ANY, b"junk"),)), Limits(), InvalidRequest),
        (AppendRequest((AppendPart("a", ANY, b"\x90"),)), Limits(), InvalidRequest),
    ],
)
def test_content_is_checked(request_: AppendRequest, limits: Limits, error: type[Exception]) -> None:
    with pytest.raises(error):
        check_append(request_, limits)


def test_a_retry_gets_the_first_answer() -> None:
    owner = Owner()
    owner.ask(append(("z", events(4))))
    request = append(("a", events(2)), ("b", events(1)))
    entry = owner.ask(request)
    assert isinstance(entry, Entry)
    first = result_of(entry, duplicate=False)
    again = answer_again(AppendRequest(tuple(reversed(request.parts))), entry)
    assert not isinstance(again, EventIdConflict)
    assert (first.first_position, first.last_position) == (5, 7)
    assert first.streams == (("a", 1, 2), ("b", 1, 1))
    assert again.duplicate
    assert (again.index, again.streams) == (first.index, first.streams)


def test_known_ids_with_other_content_are_a_conflict() -> None:
    owner = Owner()
    event = NewEvent("T", b"1")
    entry = owner.ask(append(("a", [event])))
    assert isinstance(entry, Entry)
    for other in (
        append(("a", [NewEvent("T", b"2", id=event.id)])),
        append(("b", [event])),
        append(("a", [event, NewEvent("T", b"3")])),
        append(("a", [event]), ("c", events())),
    ):
        assert isinstance(answer_again(other, entry), EventIdConflict)
