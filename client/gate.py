"""Back-pressure: how many calls, and how many bytes of them, may be on their way at once.

Without a bound, a fast producer would fill its own memory with calls that wait for a slow cluster, and each
of them would time out before it was sent.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import NamedTuple

from allsource.storage.model.errors import QueueFull


class _Place(NamedTuple):
    """One who waits for room."""

    turn: asyncio.Future[None]
    size: int
    deadline: float


class Gate:
    """Lets calls in while there is room, then in the order in which they came."""

    def __init__(self, calls_max: int, bytes_max: int) -> None:
        self.calls = 0
        self.bytes = 0
        self._calls_max = calls_max
        self._bytes_max = bytes_max
        self._waiting: deque[_Place] = deque()

    def try_enter(self, size: int) -> bool:
        """Enter at once if there is room and nobody waits."""
        if self._waiting or not self._has_room(size):
            return False
        self.calls += 1
        self.bytes += size
        return True

    async def enter(self, size: int, deadline: float) -> None:
        """Wait for room; raises `QueueFull` at `deadline` (see `expire`)."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Place(turn, size, deadline))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self.leave(size)  # let in and cancelled in the same turn of the loop
            raise

    def leave(self, size: int) -> None:
        """A call has ended."""
        self.calls -= 1
        self.bytes -= size
        while self._waiting:
            turn, wanted, _ = self._waiting[0]
            if not turn.done() and not self._has_room(wanted):
                return
            self._waiting.popleft()
            if not turn.done():
                self.calls += 1
                self.bytes += wanted
                turn.set_result(None)

    def expire(self, now: float) -> None:
        """Refuse those who have waited until their deadline."""
        late = [place.turn for place in self._waiting if place.deadline <= now and not place.turn.done()]
        for turn in late:
            turn.set_exception(
                QueueFull("too many calls of this client are on their way; this one was never sent")
            )

    def _has_room(self, size: int) -> bool:
        return self.calls < self._calls_max and (self.bytes + size <= self._bytes_max or not self.calls)
