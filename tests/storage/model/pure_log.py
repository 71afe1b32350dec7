"""The pure decision over a log that is a few dictionaries: what every user of the decision must equal."""

from __future__ import annotations

from collections.abc import Sequence

from allsource.config.schema import Limits
from allsource.storage.model.answers import AppendResult
from allsource.storage.model.append import (
    AppendLimits,
    AppendPart,
    AppendRequest,
    Known,
    Unmet,
    answer_again,
    append_part,
    check_append,
    decide,
    result_of,
)
from allsource.storage.model.entry import EVENTS, Entry, Mark, NewAppend, Place, make_entry
from allsource.storage.model.errors import EventIdConflict
from allsource.storage.model.events import NewEvent
from allsource.storage.model.expected import ANY
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
        return result_of(self._add(decision).stored(0), duplicate=False)

    def turn(self, *requests: AppendRequest) -> Entry:
        """Do all of these, which must be independent of one another, in one entry."""
        decided = [decide(request, check_append(request, Limits()), self) for request in requests]
        return self._add(*(one for one in decided if isinstance(one, NewAppend)))

    def _add(self, *appends: NewAppend) -> Entry:
        entry = make_entry(
            partition=self.partition,
            index=len(self.entries) + 1,
            term=1,
            kind=EVENTS,
            first_position=self.entries[-1].next_position if self.entries else 1,
            timestamp_us=7,
            appends=appends,
        )
        self.entries.append(entry)
        for ordinal, (parts, marks) in enumerate(entry.appends):
            for part in parts:
                self._heads[part.stream] = (part.last_version, entry.index)
                self._ids[part.first_id] = Place(entry.index, ordinal)
                if tag := tag_of(part.stream):
                    self._tags[tag] = (part.first_tag_number + part.count - 1, entry.index)
            for name, position, generation in marks:
                self._marks[name] = MarkAt(position, generation, entry.index, ordinal)
        return entry


# -- asking it

Wanted = tuple[str, list[NewEvent]] | tuple[str, list[NewEvent], str | int]


def events(count: int = 1, size: int = 10) -> list[NewEvent]:
    return [NewEvent("Tested", b'"' + b"x" * size + b'"') for _ in range(count)]


def parts(*wanted: Wanted) -> tuple[AppendPart, ...]:
    return tuple(append_part(one[0], one[1], one[2] if len(one) > 2 else "any") for one in wanted)


def request(*wanted: Wanted, marks: Sequence[Mark] = (), expected_tag: int = ANY) -> AppendRequest:
    return AppendRequest(parts(*wanted), expected_tag, tuple(marks))


def moving(*marks: Mark) -> AppendRequest:
    return AppendRequest((), ANY, marks, 0)


def log_with(*requests: AppendRequest) -> PureLog:
    log = PureLog(0)
    for one in requests:
        log.append(one)
    return log


def ask(log: PureLog, wanted: AppendRequest) -> NewAppend | Known | Unmet:
    return decide(wanted, check_append(wanted, Limits()), log)


def refusal(log: PureLog, wanted: AppendRequest) -> Unmet:
    decision = ask(log, wanted)
    assert isinstance(decision, Unmet)
    return decision
