"""Leaderships gained and lost, told in one line for many partitions.

A start or a failover moves a third of all partitions within milliseconds; a line for each would be the
longest part of the log and the least read. So changes wait a moment for others of their kind and then share
a line, which is that much late. A change in the other direction ends the wait at once, so that the lines
keep the order of what happened.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

WINDOW_S = 0.1
"""How long the first of several changes waits for the others."""


class _Say(Protocol):
    def __call__(self, event: str, /, *, partitions: list[int], terms: str) -> object: ...


class LeadershipNews:
    """See the module's page. `say` writes a line; `later` calls back after some seconds."""

    def __init__(self, say: _Say, later: Callable[[float, Callable[[], None]], object]) -> None:
        self._say = say
        self._later = later
        self._gained = True
        self._terms: dict[int, int] = {}
        """What waits to be told: the partitions with their terms."""
        self._timers = 0

    def changed(self, partition: int, term: int, *, gained: bool) -> None:
        """This node has begun to lead the partition (`gained`), or has ceased to."""
        if gained != self._gained:
            self.tell()
        self._gained = gained
        if not self._terms:
            self._timers += 1
            self._later(WINDOW_S, self._window_is_over)
        self._terms[partition] = term

    def _window_is_over(self) -> None:
        self._timers -= 1
        if not self._timers:  # else the window of newer changes is still open
            self.tell()

    def tell(self) -> None:
        """Say now what waits, if anything does."""
        if not self._terms:
            return
        terms, self._terms = self._terms, {}
        lowest, highest = min(terms.values()), max(terms.values())
        what = "leads" if self._gained else "leads no more"
        self._say(
            f"{what} {len(terms)} partition{'s' if len(terms) > 1 else ''}",
            partitions=sorted(terms),
            terms=str(lowest) if lowest == highest else f"{lowest}-{highest}",
        )
