"""How many entries a node sends its followers: in one turn of its loop, and from its disk in a second.

What a follower lacks may be gigabytes, for sixteen groups at once, and what is collected in one turn holds
up everything else: beats, votes, other people's appends. So each turn has a budget over all groups
(rule 37), and the rest goes with the next turns; catch-up from the disk has one for each second too, for it
shares the disk with those who are not behind (rule 23).

What a turn is, the core cannot know; it knows the time. A budget is filled up again when `TURN_US` have
passed, which is before the loop can come back from a turn that used it up.
"""

from __future__ import annotations

TURN_US = 1_000
TURN_BYTES_MAX = 4 << 20
"""Entries handed to the connections in one turn, wherever from: some milliseconds of copying."""
TURN_DISK_BYTES_MAX = 256 << 10
"""Of these, read from the disk: two thousand records of a small event take some five milliseconds."""


class SendBudget:
    """See the module's page. Sizes are charged when they are known, so a level may fall below zero and is
    waited for."""

    def __init__(self, disk_bytes_per_s: int, now: int) -> None:
        self._disk_bytes_per_s = disk_bytes_per_s
        self._level = disk_bytes_per_s
        """A second's worth of the disk at most at once."""
        self._filled = now
        self._turn_began = now
        self._turn_bytes = 0
        self._turn_disk_bytes = 0

    def opens_at(self, now: int, *, from_disk: bool) -> int:
        """When something may be sent: now, or not before the time that is returned."""
        if now - self._turn_began >= TURN_US:
            self._turn_began, self._turn_bytes, self._turn_disk_bytes = now, 0, 0
        if self._turn_bytes >= TURN_BYTES_MAX:
            return self._turn_began + TURN_US
        if not from_disk:
            return now
        if self._turn_disk_bytes >= TURN_DISK_BYTES_MAX:
            return self._turn_began + TURN_US
        dripped = (now - self._filled) * self._disk_bytes_per_s // 1_000_000
        if dripped:
            self._level = min(self._disk_bytes_per_s, self._level + dripped)
            self._filled = now
        if self._level > 0:
            return now
        return now + 1 + -self._level * 1_000_000 // self._disk_bytes_per_s

    def sent(self, size: int, *, from_disk: bool) -> None:
        """So many bytes of entries are on their way."""
        self._turn_bytes += size
        if from_disk:
            self._turn_disk_bytes += size
            self._level -= size
