"""How often the log tells of a condition that lasts: at once, and then ever more seldom.

A condition that holds for hours, or comes and goes four times a second, is worth a line when it begins and
a reminder now and then; a line each time would fill the disk whose lack of room it reports.
"""

from __future__ import annotations

from collections.abc import Callable

FIRST_US = 1_000_000
LONGEST_US = 600_000_000
CALM_US = 60_000_000
"""A condition that was over for so long is news when it holds again."""


class Reminder:
    """One condition. `now_us`: microseconds of a monotonic clock."""

    def __init__(self, now_us: Callable[[], int]) -> None:
        self._now_us = now_us
        self._wait_us = FIRST_US
        self._due_us: int | None = None
        self._held_us = 0

    def holds(self) -> bool:
        """The condition holds, still or again. True if that is worth a line now."""
        now = self._now_us()
        if self._due_us is None or now - self._held_us >= CALM_US:
            self._wait_us, self._due_us = FIRST_US, now
        self._held_us = now
        if now < self._due_us:
            return False
        self._due_us = now + self._wait_us
        self._wait_us = min(2 * self._wait_us, LONGEST_US)
        return True
