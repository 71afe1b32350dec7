"""A share of each loop turn for work that others may ask for without bound, dealt fairly.

What one caller can put into one frame is more than a suspicion time of work (rule 37): 4000 reads of a
page, a thousand connections' frames at once. Nothing of that may keep the loop from its beats. So
workers (a connection with requests, a caller with reads to be served) do their work in small steps,
and all steps of one turn of the loop together take about `budget_us`: then the loop goes round, with
beats, peers and timers, and the rest follows, one step of each worker in turn.

A worker whose work finds budget left and nobody waiting works at once: a node that is not busy adds no
turn to any request. It costs a look at the clock, and one callback for each turn with any work.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class Worker(Protocol):
    """Somebody with work to do in steps. When nothing is left, or it cannot go on, it has to be added
    again."""

    def step(self) -> bool:
        """Do one small piece. True if there is more to do at once."""
        ...


class AtOnce:
    """Stands in for `Turns` where no time passes within a turn: in simulations, and in some tests."""

    def add(self, worker: Worker) -> None:
        """Let the worker do all that it has."""
        while worker.step():
            pass

    def charge(self, cost_us: int) -> None:
        """Nothing costs anything."""


class Turns(AtOnce):
    """See the module's page. `call_soon` is the loop's; `now_us` must not be the loop's own time, which
    stands still within a turn."""

    def __init__(
        self,
        call_soon: Callable[[Callable[[], None]], object],
        now_us: Callable[[], int],
        budget_us: int,
    ) -> None:
        self._call_soon = call_soon
        self.now_us = now_us
        self._budget_us = budget_us
        self._waiting: dict[Worker, None] = {}
        self._is_open = False
        """A turn has begun, and `_next` will be called."""
        self._is_working = False
        self._end_us = 0

    def add(self, worker: Worker) -> None:
        """The worker has work: let it begin now, if there is time in this turn, or wait its turn."""
        if worker in self._waiting:
            return
        if not self._is_open:
            self._open()
        if self._waiting or self._is_working or self.now_us() >= self._end_us:
            self._waiting[worker] = None
            return
        while self._step(worker):
            if self.now_us() >= self._end_us:
                self._waiting[worker] = None
                return

    def charge(self, cost_us: int) -> None:
        """Work was caused that will be done later, out of sight: count it as done in this turn."""
        self._end_us -= cost_us

    def _open(self) -> None:
        self._is_open = True
        self._end_us = self.now_us() + self._budget_us
        self._call_soon(self._next)

    def _next(self) -> None:
        """The loop has gone round."""
        self._is_open = False
        if not self._waiting:
            return
        self._open()
        waiting = self._waiting
        while waiting:
            worker = next(iter(waiting))
            del waiting[worker]
            if self._step(worker):
                waiting[worker] = None
            if self.now_us() >= self._end_us:
                return

    def _step(self, worker: Worker) -> bool:
        self._is_working = True
        try:
            return worker.step()
        finally:
            self._is_working = False
