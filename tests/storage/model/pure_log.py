"""The pure decision over a log that is a few dictionaries: what every user of the decision must equal."""

from __future__ import annotations

from collections.abc import Sequence

from allsource.config.schema import Limits
from allsource.storage.model.answers import AppendResult
from allsource.storage.model.append import (
    AppendLimits,
    AppendPart,
    Known,
    Unmet,
    answer_again,
    check_append,
    decide,
    result_of,
)
from allsource.storage.model.entry import EVENTS, Entry, make_entry
from allsource.storage.model.errors import EventIdConflict


class PureLog:
    """One partition's log, everything in it safe at once."""

    def __init__(self, partition: int) -> None:
        self.partition = partition
        self.entries: list[Entry] = []
        self._heads: dict[str, tuple[int, int]] = {}
        self._ids: dict[bytes, int] = {}

    def index_of_append(self, first_event_id: bytes) -> int | None:
        return self._ids.get(first_event_id)

    def head(self, stream: str) -> tuple[int, int]:
        return self._heads.get(stream, (0, 0))

    def append(self, parts: Sequence[AppendPart], limits: AppendLimits | None = None) -> AppendResult:
        """Do what is decided; raises what an append raises."""
        decision = decide(parts, check_append(parts, limits or Limits()), self)
        if isinstance(decision, Unmet):
            raise decision.error
        if isinstance(decision, Known):
            answer = answer_again(parts, self.entries[decision.index - 1])
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
            parts=decision,
        )
        self.entries.append(entry)
        for part in decision:
            self._heads[part.stream] = (part.last_version, entry.index)
            self._ids[part.first_id] = entry.index
        return result_of(entry, duplicate=False)
