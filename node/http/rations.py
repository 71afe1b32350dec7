"""What the HTTP door may do in one turn of the event loop, and what it may hold.

The loop carries heartbeats and consensus too. Whatever arrives in one moment (a thousand requests, a
hundred large bodies that are complete at the same time), the door takes so much of a turn and leaves
the rest to the following ones, in order.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable


class Ration:
    """So much of something in each turn of the loop."""

    def __init__(self, most: int, loop: asyncio.AbstractEventLoop) -> None:
        self._most = most
        self._left = most
        self._loop = loop
        self._waiting: deque[tuple[int, Callable[[], None]]] = deque()
        self._is_scheduled = False

    def take(self, cost: int) -> bool:
        """Take it now, if this turn has some left and nobody waits. The last may cost more than is left."""
        if self._waiting or self._left <= 0:
            return False
        self._left -= cost
        self._schedule()
        return True

    def call(self, cost: int, run: Callable[[], None]) -> None:
        """Call `run` now or in a later turn, behind those who wait already."""
        if self.take(cost):
            run()
        else:
            self._waiting.append((cost, run))
            self._schedule()

    async def turn(self, cost: int) -> None:
        """Return when it is one's turn to do something of this cost."""
        if self.take(cost):
            return
        mine: asyncio.Future[None] = self._loop.create_future()
        self.call(cost, lambda: None if mine.done() else mine.set_result(None))
        await mine

    def _schedule(self) -> None:
        if not self._is_scheduled:
            self._is_scheduled = True
            self._loop.call_soon(self._next_turn)

    def _next_turn(self) -> None:
        self._is_scheduled = False
        self._left = self._most
        while self._waiting and self._left > 0:
            cost, run = self._waiting.popleft()
            self._left -= cost
            run()
        if self._left < self._most:
            self._schedule()


class ByteBudget:
    """Bytes that may be held at one time, by all together."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.held = 0

    def room(self) -> int:
        """How many more may be held."""
        return max(0, self.most - self.held)

    def change(self, by: int) -> None:
        """Hold so many more, or fewer: whether there is room is asked before."""
        self.held += by
