"""The pure decision over a log that is a few dictionaries: what every user of the decision must equal."""

from __future__ import annotations

from allsource.config.schema import Limits
from allsource.storage.model.answers import AppendResult
from allsource.storage.model.append import (
    AppendLimits,
    AppendRequest,
    Known,
    Unmet,
    answer_again,
    check_append,
    decide,
    result_of,
)
from allsource.storage.model.entry import EVENTS, Entry, Place, make_entry
from allsource.storage.model.errors import EventIdConflict
from allsource.storage.model.log import MarkAt
from allsource.storage.model.partition import tag_of


class PureLog:
    """One partition's log, everything in it safe at once."""

    def __init__(self, partition: int) -> None:
        self.partition = partition
        self.entries: list[Entry] = []
        self._heads: dict[str, tuple[int, int]] = {}
        self._ids: dict[bytes, Place] = {}
        self._tags: dict[str, tuple[int, int]] = {}
        self._marks: dict[str, MarkAt] = {}

    def place_of_append(self, first_event_id: bytes) -> Place | None:
        return self._ids.get(first_event_id)

    def tag(self, tag: str) -> tuple[int, int]:
        return self._tags.get(tag, (0, 0))

    def mark(self, name: str) -> MarkAt | None:
        return self._marks.get(name)

    def head(self, stream: str) -> tuple[int, int]:
        return self._heads.get(stream, (0, 0))

    def append(self, request: AppendRequest, limits: AppendLimits | None = None) -> AppendResult:
        """Do what is decided; raises what an append raises."""
        decision = decide(request, check_append(request, limits or Limits()), self)
        if isinstance(decision, Unmet):
            raise decision.error
        if isinstance(decision, Known):
            index, ordinal = decision.place
            entry = self.entries[index - 1]
            answer = answer_again(request, entry.stored(ordinal), entry.content(ordinal))
            if isinstance(answer, EventIdConflict):
                raise answer
            return answer
        entry = make_entry(
            partition=self.partition,
            index=len(self.entries) + 1,
            term=1,
            kind=EVENTS,
            first_position=self.entries[-1].next_position if self.entries else 1,
            timestamp_us=7,
            appends=[decision],
        )
        self.entries.append(entry)
        for part in entry.parts:
            self._heads[part.stream] = (part.last_version, entry.index)
            self._ids[part.first_id] = Place(entry.index, 0)
            if tag := tag_of(part.stream):
                self._tags[tag] = (part.first_tag_number + part.count - 1, entry.index)
        for mark in decision.append.marks:
            self._marks[mark.name] = MarkAt(mark.position, mark.generation, entry.index, 0)
        return result_of(entry.stored(0), duplicate=False)
