"""Virtual time: the one heap that every event of a simulated cluster goes through.

A schedule can only be replayed if nothing but its seed decides what happens next. So there is one
clock (microseconds, from 0), one heap ordered by (time, number of the event), and one random number
generator; nobody iterates over a set, and nobody looks at the real clock.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from random import Random
from typing import Any


class World:
    """The clock, the heap of what is to happen, and the dice."""

    __slots__ = ("_heap", "_sequence", "now", "random", "trace")

    def __init__(self, seed: int, trace: Callable[[str], None] | None = None) -> None:
        self.now = 0
        self.random = Random(seed)
        self.trace = trace
        self._heap: list[tuple[int, int, Callable[..., None], tuple[Any, ...]]] = []
        self._sequence = 0

    def at(self, time: int, action: Callable[..., None], *arguments: Any) -> None:
        """Let `action` happen at `time`; equal times keep the order of these calls."""
        self._sequence += 1
        heapq.heappush(self._heap, (max(time, self.now), self._sequence, action, arguments))

    def after(self, delay: int, action: Callable[..., None], *arguments: Any) -> None:
        """Let `action` happen in `delay` microseconds."""
        self.at(self.now + delay, action, *arguments)

    def run_until(self, end: int, done: Callable[[], bool] | None = None) -> bool:
        """Run all events up to `end`; stop early (and say True) when `done` holds after an event."""
        heap = self._heap
        while heap and heap[0][0] <= end:
            time, _, action, arguments = heapq.heappop(heap)
            self.now = time
            action(*arguments)
            if done is not None and done():
                return True
        self.now = max(self.now, end)
        return done is not None and done()

    def fingerprint(self) -> tuple[int, int, int]:
        """Equal for two runs only if they took the same course: any other draw or event shows here."""
        return (self.now, self._sequence, hash(self.random.getstate()[1]))

    def tell(self, line: str) -> None:
        """Write a line of the trace; callers test `trace` first where building the line costs."""
        if self.trace is not None:
            self.trace(f"{self.now:>10} {line}")
