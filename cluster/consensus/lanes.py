"""Whether what this node sends its peers arrives: one lane, the data connection, to each.

A peer that is heard may still not be reached. Beats and data have connections of their own, and one can
hang while the other passes (a full buffer behind a lost route, a black hole for large packets). So the
data lane is judged by what it moved: an acknowledgement that is news, of any group, an answer to a read
round, or a beat that shows a longer log. It is asked only about peers to which something is under way.

A lane may carry megabytes before the next sign of life can come back. Until a lane has had time for what
is under way on it, at a rate below which nobody would run a cluster, it is not called dead.
"""

from __future__ import annotations

LANE_BYTES_PER_S_MIN = 4 << 20
"""The slowest link that is taken for a working one."""


class Lanes:
    """When each lane last moved; times are microseconds of the node's clock."""

    def __init__(self, patience_us: int) -> None:
        """`patience_us`: how long a lane with nothing but small things under way may stand still."""
        self._patience_us = patience_us
        self._moved_us: dict[str, int] = {}

    def moved(self, peer: str, now: int) -> None:
        """Something arrived there, or the connection is new."""
        self._moved_us[peer] = now

    def moves(self, peer: str, inflight_bytes: int, now: int) -> bool:
        """Whether the lane has moved within the time that `inflight_bytes` under way may need."""
        moved_us = self._moved_us.get(peer)
        patience_us = self._patience_us + inflight_bytes * 1_000_000 // LANE_BYTES_PER_S_MIN
        return moved_us is not None and now - moved_us < patience_us

    def forgive(self, gap: int, now: int) -> None:
        """This process slept for `gap` (rule 26)."""
        for peer, moved_us in self._moved_us.items():
            self._moved_us[peer] = min(now, moved_us + gap)
