"""What an owner knows of its log when it decides: uncommitted appends too, in bounded memory."""

from __future__ import annotations

import pytest

from allsource.cluster.protocol.requests import AppendRequest
from allsource.config.schema import Limits
from allsource.node.requests.log_view import HEADS_MAX, LogView
from allsource.storage.model.append import Known, Unmet, check_append, decide
from allsource.storage.model.entry import EVENTS, Entry, Mark, NewAppend, Place, make_entry
from allsource.storage.model.errors import MarkRefused, WrongExpectedTag
from allsource.storage.model.expected import NO_STREAM
from allsource.storage.model.log import MarkAt, StreamHead, TagHead
from allsource.storage.model.partition import tag_of
from tests.node.appends import append, events, marks_alone


class Indexes:
    """Storage's indexes, as dictionaries; counts how often it is asked."""

    def __init__(self) -> None:
        self.heads: dict[str, StreamHead] = {}
        self.ids: dict[bytes, Place] = {}
        self.tags: dict[str, TagHead] = {}
        self.marks: dict[str, MarkAt] = {}
        self.asked = 0

    def head(self, partition: int, stream: str) -> StreamHead | None:
        self.asked += 1
        return self.heads.get(stream)

    def place_of_append(self, partition: int, first_event_id: bytes) -> Place | None:
        return self.ids.get(first_event_id)

    def tag_head(self, partition: int, tag: str) -> TagHead | None:
        self.asked += 1
        return self.tags.get(tag)

    def mark(self, partition: int, name: str) -> MarkAt | None:
        self.asked += 1
        return self.marks.get(name)


class Owner:
    """An owner of partition 0: decides, and groups what was decided until it is proposed."""

    def __init__(self) -> None:
        self.indexes = Indexes()
        self.view = LogView(self.indexes, 0)
        self.group: list[NewAppend] = []
        self.log: list[Entry] = []

    def decide(self, request: AppendRequest) -> object:
        """A turn decides this; what is decided joins the group."""
        decision = decide(request, check_append(request, Limits()), self.view)
        if type(decision) is NewAppend:
            self.view.decided(decision, Place(len(self.log) + 1, len(self.group)))
            self.group.append(decision)
        return decision

    def propose(self) -> Entry:
        """The group becomes an entry."""
        entry = make_entry(
            partition=0,
            index=len(self.log) + 1,
            term=1,
            kind=EVENTS,
            first_position=sum(e.count for e in self.log) + 1,
            timestamp_us=7,
            appends=self.group,
        )
        self.group = []
        self.log.append(entry)
        return entry

    def write(self) -> None:
        """The turn's write: storage knows the log now."""
        if self.group:
            self.propose()
        for entry in self.log:
            for ordinal, one in enumerate(entry.appends):
                place = Place(entry.index, ordinal)
                for part in one.parts:
                    self.indexes.heads[part.stream] = StreamHead(part.last_version, entry.index, 7, 7)
                    self.indexes.ids[part.first_id] = place
                    if tag := tag_of(part.stream):
                        number = part.first_tag_number + part.count - 1
                        self.indexes.tags[tag] = TagHead(number, entry.index)
                for name, position, generation in one.marks:
                    self.indexes.marks[name] = MarkAt(position, generation, *place)
        self.view.written()

    def passes(self, how: str) -> None:
        """Time passes between two appends."""
        if how != "same group":
            self.propose()
        if how == "after the write":
            self.write()
            self.view.forget()


WAYS = pytest.mark.parametrize("how", ["same group", "same turn", "after the write"])
"""Where the append is on which the next one rests: decided alone, proposed, written."""


@WAYS
def test_appends_line_up_behind_uncommitted_ones(how: str) -> None:
    owner = Owner()
    first = owner.decide(append(("a", events(3)), expected=NO_STREAM))
    owner.passes(how)
    second = owner.decide(append(("a", events(2)), expected=3))
    assert isinstance(first, NewAppend)
    assert isinstance(second, NewAppend)
    assert [one.append.parts[0].first_version for one in (first, second)] == [1, 4]


@WAYS
def test_known_ids_are_found_before_the_version_is_looked_at(how: str) -> None:
    owner = Owner()
    owner.decide(append(("other", events())))
    request = append(("a", events()), expected=NO_STREAM)
    owner.decide(request)
    owner.passes(how)
    assert owner.decide(request) == Known(Place(1, 1)), "it is the second of its entry"


@WAYS
def test_tag_numbers_go_on_over_all_streams_of_the_tag(how: str) -> None:
    owner = Owner()
    owner.decide(append(("a{t}", events(2)), ("b{t}", events(3)), expected_tag=0))
    owner.passes(how)
    refused = owner.decide(append(("c{t}", events()), expected_tag=4))
    assert isinstance(refused, Unmet)
    assert isinstance(refused.error, WrongExpectedTag)
    assert (refused.error.details["actual"], refused.index) == (5, 1)
    third = owner.decide(append(("c{t}", events()), expected_tag=5))
    assert isinstance(third, NewAppend)
    assert third.append.parts[0].first_tag_number == 6


@WAYS
def test_marks_are_fenced_by_what_is_not_committed(how: str) -> None:
    owner = Owner()
    owner.decide(append(("a", events())))
    owner.decide(marks_alone(Mark("m", 5, 2)))
    owner.passes(how)
    refused = owner.decide(append(("a", events()), marks=[Mark("m", 9, 1)]))
    assert isinstance(refused, Unmet)
    assert isinstance(refused.error, MarkRefused)
    assert (refused.error.details["position"], refused.index) == (5, 1)
    assert owner.decide(marks_alone(Mark("m", 5, 2))) == Known(Place(1, 1))
    assert isinstance(owner.decide(marks_alone(Mark("m", 1, 3))), NewAppend)


def test_a_mark_that_storage_does_not_have_yet_is_not_aged_away() -> None:
    owner = Owner()
    owner.decide(marks_alone(Mark("m", 5, 2)))
    for number in range(3 * HEADS_MAX):
        owner.view.head(str(number))
        owner.view.mark(str(number))
        owner.view.tag(str(number))
    assert owner.view.mark("m") == MarkAt(5, 2, 1, 0)


def test_what_was_proposed_can_be_told_again_after_forgetting() -> None:
    owner = Owner()
    request = append(("a{t}", events(2)), marks=[Mark("m", 1, 0)])
    owner.decide(append(("b", events())))
    owner.decide(request)
    entry = owner.propose()
    owner.view.forget()
    assert owner.view.head("a{t}") == (0, 0)
    owner.view.forget()
    owner.view.proposed(entry)
    assert (owner.view.head("a{t}"), owner.view.tag("t")) == ((2, 1), (2, 1))
    assert owner.view.mark("m") == MarkAt(1, 0, 1, 1)
    assert owner.decide(request) == Known(Place(1, 1))


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
    owner.decide(append(("a", events())))
    for number in range(3 * HEADS_MAX):
        owner.view.head(str(number))
    assert owner.view.head("a") == (1, 1)


def test_ids_that_storage_has_are_not_kept_in_memory() -> None:
    owner = Owner()
    for _ in range(100):
        owner.decide(append(("a", events())))
        owner.write()
    assert not owner.view._ids


def test_the_memory_is_bounded_where_every_append_is_refused() -> None:
    owner = Owner()
    for number in range(3 * HEADS_MAX):
        owner.view.head(str(number))
        owner.view.tag(str(number))
        assert len(owner.view._heads) <= HEADS_MAX
        assert len(owner.view._tags) <= HEADS_MAX
