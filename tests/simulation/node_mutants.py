"""Mistakes in what `node/` has around the core, put in on purpose (see `mutants`)."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any
from unittest import mock

from allsource.cluster.consensus.messages import RoleChange
from allsource.cluster.protocol.requests import ReadRequest
from allsource.node.member.driver import Driver
from allsource.node.requests import tickets
from allsource.node.requests.answering import Answering
from allsource.node.requests.ingest import Ingest, _Rejection
from allsource.node.requests.lanes import Lane, Proposed
from allsource.node.requests.log_view import LogView
from allsource.node.requests.reads import Barrier, Reads, _Read
from allsource.node.requests.tickets import Ticket
from allsource.storage.model import append
from allsource.storage.model.append import AppendRequest, answer_again, result_of
from allsource.storage.model.entry import Place, StoredAppend
from allsource.storage.model.errors import (
    AllsourceError,
    EventIdConflict,
    MarkRefused,
    WrongExpectedTag,
    WrongExpectedVersion,
)
from allsource.storage.model.log import MarkAt

_read = Driver.read
_serve = Reads.serve


def _reject_at_once(self: Driver[Any], partition: int, ticket: Barrier, min_index: int) -> None:
    if isinstance(ticket, _Rejection):
        ticket.confirmed(min_index, ok=True)
    else:
        _read(self, partition, ticket, min_index)


def _read_at_once(self: Driver[Any], partition: int, ticket: Barrier, min_index: int) -> None:
    if isinstance(ticket, _Read):
        ticket.confirmed(self.commit_index(partition), ok=True)
    else:
        _read(self, partition, ticket, min_index)


def _serve_everything(self: Reads, ticket: Ticket, bound: int) -> None:
    _serve(self, ticket, 1 << 60)


def _keep_answers(self: Ingest, change: RoleChange) -> None:
    lane = self._lanes.get(change.partition)
    if lane is not None:
        lane.view.forget()
    # ... and are matched by the index alone: each of the two would save the other (rule 32).
    self._core.entry_term = lambda partition, index: mock.ANY  # type: ignore[method-assign]


def _forget_nothing(self: LogView) -> None:
    pass


def _forget_all_but_numbers(self: LogView) -> None:
    tags = self._tags
    self._tags = type(tags)(0)
    _forget(self)
    self._tags = tags


_forget = LogView.forget


def _know_no_ids(self: LogView, first_event_id: bytes) -> None:
    return None


def _every_conflict_settles(error: AllsourceError, _request: AppendRequest | ReadRequest) -> bool:
    return isinstance(error, WrongExpectedVersion | WrongExpectedTag | EventIdConflict)


def _every_mark_settles(error: AllsourceError, request: AppendRequest | ReadRequest) -> bool:
    return isinstance(error, MarkRefused) or _settles(error, request)


_settles = tickets._settles


# -- grouping: each append of an entry is one of its own


def _answer_neighbours(self: Proposed, most: int) -> Any:
    if not self._answered:
        self._tickets = self._tickets[1:] + self._tickets[:1]
    return _answers(self, most)


_answers = Proposed.answers


def _answer_again_for_all(self: Answering, place: Place, ticket: Ticket) -> None:
    (entry,) = self._entries.at(ticket.partition, [place.index])
    assert isinstance(ticket.request, AppendRequest)
    answer = answer_again(ticket.request, entry.stored(place.ordinal), entry.content(place.ordinal))
    if isinstance(answer, EventIdConflict):
        self.refuse(ticket, answer)
    else:
        whole = StoredAppend(entry.partition, entry.index, entry.first_position, entry.parts)
        ticket.finish(result_of(whole, duplicate=True))


def _drop_the_group(self: Ingest, lane: Lane, index: int) -> bool:
    """Who met a conflict in the open group takes the rest of it with him."""
    if lane.is_open and index >= lane.index:
        lane.close()
    return True


def _heed_positions_alone(before: MarkAt, position: int, generation: int) -> bool:
    return position > before.position


def _never_in_doubt(self: Ticket) -> None:
    self.out = False


def _patched(owner: type, name: str, replacement: object) -> AbstractContextManager[object]:
    return mock.patch.object(owner, name, replacement)


def _tell_and_go_on(self: Driver[Any], error: Exception) -> None:
    self.work.broken(error)


NODE_MUTANTS = {
    "node-rejects-at-once": ("A deposed owner rejects", lambda: _patched(Driver, "read", _reject_at_once)),
    "node-reads-at-once": (
        "An owner reads without asking whether it still leads",
        lambda: _patched(Driver, "read", _read_at_once),
    ),
    "node-reads-uncommitted": (
        "A read shows what is not committed",
        lambda: _patched(Reads, "serve", _serve_everything),
    ),
    "node-keeps-answers": (
        "Answers survive the leadership that they wait on, and go to whatever is committed in their place",
        lambda: _patched(Ingest, "changed", _keep_answers),
    ),
    "node-stale-heads": (
        "Heads are remembered over a change of leadership",
        lambda: _patched(LogView, "forget", _forget_nothing),
    ),
    "node-stale-numbers": (
        "A tag's numbers are remembered over a change of leadership",
        lambda: _patched(LogView, "forget", _forget_all_but_numbers),
    ),
    "node-no-ids": ("A retry is stored again", lambda: _patched(LogView, "place_of_append", _know_no_ids)),
    "node-answers-neighbours": (
        "An append is answered for its neighbour in the entry",
        lambda: _patched(Proposed, "answers", _answer_neighbours),
    ),
    "node-answers-for-all": (
        "A retry is answered for the whole entry",
        lambda: _patched(Answering, "_answer_again", _answer_again_for_all),
    ),
    "node-conflict-drops": (
        "A conflict drops the rest of the entry",
        lambda: _patched(Ingest, "_is_proposed", _drop_the_group),
    ),
    "node-unfenced": (
        "A mark obeys an older generation",
        lambda: mock.patch.object(append, "moves", _heed_positions_alone),
    ),
    "node-goes-on": (
        "A driver whose turn broke goes on",
        lambda: _patched(Driver, "_break", _tell_and_go_on),
    ),
    "node-conflicts-settle": (
        "Any version conflict of a retry rules out its earlier attempts",
        lambda: mock.patch.object(tickets, "_settles", _every_conflict_settles),
    ),
    "node-marks-settle": (
        "A mark that has moved on is taken for a proof that a retry never moved it",
        lambda: mock.patch.object(tickets, "_settles", _every_mark_settles),
    ),
    "node-never-in-doubt": (
        "An attempt that may have happened is forgotten",
        lambda: _patched(Ticket, "lost", _never_in_doubt),
    ),
}
"""By name: what is broken, and how to break it for a while."""

NODE_THEMES = {
    "node-conflicts-settle": "late_requests",
    "node-goes-on": "shell",
    "node-marks-settle": "late_requests",
    "node-answers-neighbours": "node_grouped",
    "node-answers-for-all": "node_grouped",
    "node-conflict-drops": "node_grouped",
    "node-stale-numbers": "node_grouped",
    "node-unfenced": "node_grouped",
}
"""The theme that is after a mistake, where it is not `node_code`."""
