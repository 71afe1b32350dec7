"""What an owner knows of its log when it decides: uncommitted appends too, in bounded memory."""

from __future__ import annotations

import pytest

from allsource.cluster.protocol.requests import AppendRequest
from allsource.config.schema import Limits
from allsource.node.requests.log_view import HEADS_MAX, LogView
from allsource.storage.model.append import Known, check_append, decide
from allsource.storage.model.entry import EVENTS, Entry, make_entry
from allsource.storage.model.expected import NO_STREAM
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
        decision = decide(request.parts, check_append(request.parts, Limits()), self.view)
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


def test_the_memory_is_bounded_where_every_append_is_refused() -> None:
    owner = Owner()
    for number in range(3 * HEADS_MAX):
        owner.view.head(str(number))
        assert len(owner.view._heads) <= HEADS_MAX
