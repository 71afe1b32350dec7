"""Mistakes in what a node does around its core, put into the model of it on purpose (see `mutants`)."""

from __future__ import annotations

from typing import Any

from allsource.cluster.consensus.messages import RoleChange
from allsource.storage.model.entry import Mark, NewAppend, Place
from allsource.storage.model.log import MarkAt
from allsource.storage.model.partition import tag_of
from tests.simulation.disk import Index
from tests.simulation.draft import Draft
from tests.simulation.history import AppendOperation, Placed
from tests.simulation.node import Tools
from tests.simulation.service import Answer, Reply, Service

# -- rules 6 and 27: answers


class _AnswersWhateverIsThere(Service):
    """Answers although there is no such append at its place, as by an entry of its own."""

    def _placed(self, partition: int, place: Place) -> Placed:
        entry = self._entry(partition, place.index)
        if place.ordinal < len(entry.appends):
            return super()._placed(partition, place)
        return Placed(entry.index, entry.term, entry.first_position, ())


class _AnswersByIndex(_AnswersWhateverIsThere):
    """KurrentDB #3472: what waits on a lost leadership is answered by whatever commits there."""

    def role_changed(self, change: RoleChange) -> None:
        pass


class _KnowsNoIds(Draft):
    def find(self, first_id: bytes) -> Place | None:
        return None


class _StoresRetriesAgain(Service):
    drafts = _KnowsNoIds


class _RejectsAtOnce(Service):
    """Rejects against its own heads without asking whether it still leads."""

    def _after_barrier(self, partition: int, index: int, waiting: Any) -> None:
        if hasattr(waiting, "conflict"):
            waiting.reply(waiting.conflict)
        else:
            super()._after_barrier(partition, index, waiting)


# -- grouping: each append of an entry is one of its own


class _AnswersForTheNeighbour(Service):
    def _placed(self, partition: int, place: Place) -> Placed:
        appends = self._entry(partition, place.index).appends
        return super()._placed(partition, Place(place.index, (place.ordinal + 1) % len(appends)))


class _AnswersRetriesForAll(Service):
    """A retry is known by its entry, and answered for the whole of that."""

    def _answer_again(self, operation: AppendOperation, place: Place, reply: Reply) -> None:
        def answer_for_all(answer: Answer) -> None:
            if isinstance(answer, Placed):
                entry = self._entry(operation.partition, place.index)
                versions = tuple([part.first_version for part in entry.parts])
                answer = Placed(entry.index, entry.term, entry.first_position, versions)
            reply(answer)

        super()._answer_again(operation, place, answer_for_all)


class _DropsWhatFollowsAConflict(Service):
    """Whoever comes behind a refused append in its turn is forgotten with it."""

    def _take(self, operation: AppendOperation, reply: Reply) -> None:
        if operation.partition not in [refused[0] for refused in self._refused]:
            super()._take(operation, reply)


class _DropsWhatPrecedesAConflict(_AnswersWhateverIsThere):
    """A refused append takes those with it that the entry has already."""

    def _take(self, operation: AppendOperation, reply: Reply) -> None:
        before = len(self._refused)
        super()._take(operation, reply)
        if len(self._refused) > before:
            draft = self._drafts[operation.partition]
            while draft.group:
                draft.take_back()


# -- tag numbers and marks


class _RemembersNumbers(Draft):
    """Goes on behind the last number that it gave, whatever became of that."""

    def __init__(self, index: Index) -> None:
        super().__init__(index)
        self._given: dict[str, int] = {}

    def tag(self, tag: str) -> tuple[int, int]:
        number, index = super().tag(tag)
        return self._given.get(tag, number), index

    def _new(self, operation: AppendOperation) -> NewAppend:
        new = super()._new(operation)
        for part in new.append.parts:
            self._given[tag_of(part.stream)] = part.first_tag_number + part.count - 1
        return new


class _NumbersFromMemory(Service):
    drafts = _RemembersNumbers


class _HeedsPositionsAlone(Draft):
    def moves(self, before: MarkAt, mark: Mark) -> bool:
        return mark.position > before.position


class _ObeysTheFenced(Service):
    drafts = _HeedsPositionsAlone


def _tools(around: type[Service]) -> type[Tools]:
    return type(around.__name__, (Tools,), {"service": around})


SERVICE_MUTANTS: dict[str, tuple[str, type[Tools], str]] = {
    "rule-6-by-index": ("Answers survive the leadership that they wait on", _tools(_AnswersByIndex), ""),
    "rule-27-no-ids": ("A retry is stored again", _tools(_StoresRetriesAgain), ""),
    "rejection-without-barrier": ("A deposed leader rejects", _tools(_RejectsAtOnce), ""),
    "grouping-neighbour": (
        "An append is answered for its neighbour in the entry",
        _tools(_AnswersForTheNeighbour),
        "grouped",
    ),
    "grouping-whole-entry": (
        "A retry is answered for the whole entry",
        _tools(_AnswersRetriesForAll),
        "grouped",
    ),
    "grouping-conflict-forgets": (
        "A conflict drops what follows it in the turn",
        _tools(_DropsWhatFollowsAConflict),
        "grouped",
    ),
    "grouping-conflict-undoes": (
        "A conflict drops what the entry has already",
        _tools(_DropsWhatPrecedesAConflict),
        "grouped",
    ),
    "tag-number-kept": (
        "A tag's numbers go on behind what was truncated",
        _tools(_NumbersFromMemory),
        "grouped",
    ),
    "mark-unfenced": ("A mark obeys an older generation", _tools(_ObeysTheFenced), "grouped"),
}
"""By name: what is broken, the tools that are, and the theme that is after it."""
