"""How fast a queue is served just now, and so how long a newcomer would wait.

A queue that its deadline cannot serve is too long: what waits in it costs memory and work, ends as
"unknown", and keeps the loop from its beats. So a newcomer is told at once, definitely, that it would
not be served in time.

The pace is how much was served in the last window. It is believed only if more was left over at the
window's end than was served in it: then the node did all that it could. A node that served all there was
could have done more, nobody knows how much, so it refuses nothing.
"""

from __future__ import annotations

WINDOW_US = 50_000
"""Over how long it is measured. Waits shorter than this are of no interest."""


class Pace:
    """See the module's page. Times in microseconds of one monotonic clock."""

    __slots__ = ("_began_us", "_served", "per_us")

    def __init__(self) -> None:
        self.per_us: float | None = None
        """Served in a microsecond; None while nothing has to wait for long."""
        self._began_us = -1
        self._served = 0

    def served(self, count: int, left: int, now_us: int) -> None:
        """So many were served since the last call, and so many are left."""
        if not left:
            self._began_us = -1
            self.per_us = None
            return
        if self._began_us < 0:
            self._began_us, self._served = now_us, 0
            return
        self._served += count
        took = now_us - self._began_us
        if took < WINDOW_US or not self._served:
            return
        measured = self._served / took
        if left < self._served:
            self.per_us = None
        else:
            self.per_us = measured if self.per_us is None else (measured + self.per_us) / 2
        self._began_us, self._served = now_us, 0

    def wait_us(self, length: int) -> int:
        """How long the last of so many waits, about."""
        return 0 if self.per_us is None else int(length / self.per_us)
