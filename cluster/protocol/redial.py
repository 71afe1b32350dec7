"""When to try again: after how many failures of which kind, how long to wait. Pure.

The first attempt comes at once, because the common reason is a process that restarts, or a path that
blinked. Who stays away is asked less and less often, and who refused us is left alone for the longest time
at once: what was wrong will not be right within milliseconds.
"""

from __future__ import annotations

from allsource.cluster.protocol.frames import ProtocolError

FIRST_S = 0.01
LONGEST_S = 0.5
"""Between two attempts to reach an address."""
STEADY_AFTER_S = 1.0
"""A connection that lasted so long is dialled again at once when it is lost, else after a moment: no hot
loop."""
_ENOUGH = 10
"""Failures after which the wait is the longest in any case."""


def backoff_s(failures: int, jitter: float, longest_s: float) -> float:
    """Seconds to wait after so many failures in a row: none at first, then 10 ms, doubling to `longest_s`.

    `jitter`, from 0 to 1, leaves between half and all of that, so that many callers do not come at once.
    """
    if not failures:
        return 0.0
    doubled: float = FIRST_S * 2 ** (min(failures, _ENOUGH) - 1)
    return min(doubled, longest_s) * (0.5 + 0.5 * jitter)


def is_refusal(error: Exception | None) -> bool:
    """Whether somebody was there and would not have us."""
    return isinstance(error, ProtocolError) and error.code != "timeout"


class Redial:
    """What is remembered of one address between attempts: how often it failed."""

    def __init__(self) -> None:
        self._failures = 0

    def begin_anew(self) -> None:
        """Something has happened that makes an attempt worth while: the next one comes at once."""
        self._failures = 0

    def lost(self, lasted_s: float, error: Exception | None) -> None:
        """A connection that stood for so long has ended, for that reason if it had one."""
        self._failures = 0 if lasted_s >= STEADY_AFTER_S else 1
        if isinstance(error, ProtocolError) and error.by_peer:
            self._failures = _ENOUGH  # what it was ended for, we should not say again at once

    def failed(self, error: Exception) -> None:
        """An attempt came to nothing."""
        if is_refusal(error):
            self._failures = _ENOUGH

    def next_wait_s(self, jitter: float, *, at_once: bool = False) -> float:
        """Seconds until the next attempt, which is counted. `at_once`: the last one has taken its time."""
        failures = min(self._failures, 1) if at_once else self._failures
        self._failures = min(self._failures + 1, _ENOUGH)
        return backoff_s(failures, jitter, LONGEST_S)
