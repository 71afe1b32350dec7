"""What the drill's writers tried and what they were told: the evidence that `checks` judges.

Times are seconds of the drill's one monotonic clock. An attempt that was answered says so by its
outcome; the four outcomes are the contract's three (committed, rejected, unknown), with the rejection
that matters most, a version conflict, told apart.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

ACKNOWLEDGED, CONFLICT, REJECTED, UNKNOWN = "acknowledged", "conflict", "rejected", "unknown"


class Written(NamedTuple):
    """One event that was sent: its id and data, and the stream that it was for."""

    stream: str
    id: bytes
    data: bytes


class Place(NamedTuple):
    """Where an acknowledgement says that an event is."""

    version: int
    position: int


@dataclass(slots=True)
class Attempt:
    """One append. `expected` holds the exact version asked for, or None if the writer did not care."""

    writer: str
    partition: int
    expected: int | None
    events: tuple[Written, ...]
    """In the order sent: all of one stream, or one each of several."""
    started: float
    ended: float = 0.0
    outcome: str = UNKNOWN
    places: tuple[Place, ...] = ()
    """Of an acknowledged append: where each event is."""
    actual: int = 0
    """Of a conflict: the version that the owner named."""
    code: str = ""
    """Of a rejection or an unknown outcome: the error's code."""

    @property
    def stream(self) -> str:
        """The stream of its first event."""
        return self.events[0].stream

    @property
    def last_version(self) -> int:
        """Of an acknowledged append: the newest version that it gave to `stream`."""
        pairs = zip(self.events, self.places, strict=True)
        return max(place.version for written, place in pairs if written.stream == self.stream)


@dataclass(slots=True)
class History:
    """All attempts of a drill, in the order in which they ended."""

    attempts: list[Attempt] = field(default_factory=list)
    acknowledged_at: dict[int, list[float]] = field(default_factory=dict)
    """By partition: when each acknowledgement came, ascending."""

    def add(self, attempt: Attempt) -> None:
        """Record a finished attempt; it must be the latest to end."""
        self.attempts.append(attempt)
        if attempt.outcome == ACKNOWLEDGED:
            self.acknowledged_at.setdefault(attempt.partition, []).append(attempt.ended)

    def since(self, partition: int, start: float) -> list[float]:
        """When the partition's acknowledgements from `start` on came."""
        moments = self.acknowledged_at.get(partition, [])
        return moments[bisect_left(moments, start) :]

    def count(self, outcome: str) -> int:
        """How many attempts ended so."""
        return sum(attempt.outcome == outcome for attempt in self.attempts)

    def streams(self) -> set[str]:
        """Every stream that was written to."""
        return {event.stream for attempt in self.attempts for event in attempt.events}


def longest_silence(acknowledged: Iterable[float], start: float, end: float) -> float:
    """The longest time within `start..end` in which nothing was acknowledged, in seconds.

    The interval before the first acknowledgement counts, so the moment of a kill as `start` gives
    the time from the kill to the first write that was acknowledged after it.
    """
    longest, last = 0.0, start
    for moment in acknowledged:
        if moment > end:
            break
        if moment > last:
            longest, last = max(longest, moment - last), moment
    return max(longest, end - last)
