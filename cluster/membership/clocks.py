"""What time it is, as a majority of the cluster sees it: for the labels on events, and for nothing else.

An event's timestamp says when its owner took it, and never decreases in a partition. So one owner whose
clock jumps a year ahead, for a moment, would date every later event of its partitions a year ahead too. No
clock is trusted alone where there are others to ask: each beat tells its sender's time, and an owner whose
own clock differs from the median by more than some seconds dates events by the median. (Between two, the
earlier one counts: a date that is too early is overtaken by itself, one that is too late stays.)

A peer's time is kept as its distance from our monotonic clock, which does not jump, so that a jump of our
own is seen at once and not with the next beat. How long a beat was under way makes a peer look behind by as
much, which the bound allows for. Safety and order never rest on any of this (RULES.md rule 19).
"""

from __future__ import annotations

from typing import NamedTuple

DIFFERENCE_MAX_US = 5_000_000
"""How far the own clock may be from the median and still be taken: clocks that are kept by NTP differ by
milliseconds, and moving between two clocks within the bound would only make dates less exact."""
FRESH_US = 30_000_000
"""How long a peer's word counts. Longer than a clock takes to be set back, shorter than a drift matters."""


class _Told(NamedTuple):
    """What a peer told of its time."""

    base_us: int
    """Its wall clock less our monotonic one."""
    heard_us: int


class ClusterClock:
    """See the module's page. Times in microseconds: `wall_us` since 1970, `now` of a monotonic clock."""

    def __init__(self) -> None:
        self._peers: dict[str, _Told] = {}

    def heard(self, peer: str, told_us: int, now: int) -> None:
        """A beat told its sender's time."""
        self._peers[peer] = _Told(told_us - now, now)

    def difference(self, wall_us: int, now: int) -> int:
        """How far this node's clock is ahead of the median of those heard lately, itself included."""
        own = wall_us - now
        fresh = [told.base_us for told in self._peers.values() if now - told.heard_us <= FRESH_US]
        bases = sorted([own, *fresh])
        return own - bases[(len(bases) - 1) // 2]

    def time(self, wall_us: int, now: int) -> int:
        """The time that events get now: this node's, or the median where the two disagree."""
        difference = self.difference(wall_us, now)
        return wall_us if abs(difference) <= DIFFERENCE_MAX_US else wall_us - difference
