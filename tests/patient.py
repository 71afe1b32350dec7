"""An event loop whose clock stands still while the machine does something else.

A test with real timeouts and real sockets in one process says "within 0.2 s", and means "without waiting
for a timer that it should not wait for". On a machine whose cores are busy that takes seconds of everybody
else's time. So the clock of this loop counts what the loop itself did: the processor time of its thread,
and the time that it waited for events, never more than it wanted to wait. A thread or process that the loop
waits for is late on a busy machine, and that does count: bounds on them must be generous, or rest on
something else than time.
"""

from __future__ import annotations

import asyncio
import selectors
import threading
import time
from typing import Any


class _Waiting(selectors.DefaultSelector):
    """A selector that adds up how long it waited."""

    waited_s = 0.0

    def select(self, timeout: float | None = None) -> Any:
        begun = time.monotonic()
        events = super().select(timeout)
        waited_s = time.monotonic() - begun
        if timeout is not None:
            longest = max(0.0, timeout)
            waited_s = min(waited_s, longest) if events else longest
        self.waited_s += waited_s
        return events


class PatientLoop(asyncio.SelectorEventLoop):
    """See the module's page."""

    def __init__(self) -> None:
        self._waiting = _Waiting()
        self._processor = time.pthread_getcpuclockid(threading.get_ident())
        self._begun = time.monotonic() - time.clock_gettime(self._processor)
        super().__init__(self._waiting)

    def time(self) -> float:
        """Seconds, of the thread that made the loop; any thread may ask."""
        return self._begun + time.clock_gettime(self._processor) + self._waiting.waited_s
