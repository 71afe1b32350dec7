"""The one thread that may block on the disk: of a node, and of an embedded store.

The event loop writes (microseconds) and never syncs (a fifth of a millisecond on a good day, seconds on a
bad one). It numbers its writes and posts the numbers here. The thread takes all numbers that are there,
syncs once for all of them, and tells the loop the highest. What is written during a sync goes with the next
one: group commit without a timer.

A failed sync is never tried again (RULES.md rule 16): a kernel may report a failed write-back once and then
forget it, so nothing that a retry says could be believed. Whatever else ends the thread is no better, since
nothing would be durable any more: it is told as a failed sync too.
"""

from __future__ import annotations

import threading
from asyncio import AbstractEventLoop
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue


class SyncThread:
    """Runs `sync` in a thread of its own, which `start` begins and `stop` ends."""

    def __init__(
        self,
        loop: AbstractEventLoop,
        sync: Callable[[], None],
        *,
        clock: Callable[[], int],
        done: Callable[[int, int], None],
        failed: Callable[[BaseException], None],
    ) -> None:
        """`clock` gives microseconds. After each sync the loop calls `done(number, microseconds)`: every
        write up to that number is durable. `failed(error)` is called once, *in the thread*, which ends with
        it: no later number is ever done, and `running_for` grows for ever."""
        self._loop = loop
        self._sync = sync
        self._clock = clock
        self._done = done
        self._failed = failed
        self._numbers: SimpleQueue[int] = SimpleQueue()
        self._began_us = 0
        self._thread = threading.Thread(target=self._run, name="allsource-sync", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def request(self, number: int) -> None:
        """Sync everything written up to `number` (1 and above), soon. Never blocks."""
        self._numbers.put(number)

    def running_for(self, now: int) -> int:
        """Microseconds for which the present sync has been running; 0 if none is."""
        began = self._began_us
        return now - began if began else 0

    def stop(self) -> None:
        """Let the thread finish what it was asked for, and end. Blocks for one sync at most."""
        self._numbers.put(_STOP)
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        try:
            self._serve()
        except BaseException as error:  # whatever it was, the data may not be on the disk
            self._began_us = self._began_us or 1
            self._failed(error)

    def _serve(self) -> None:
        while True:
            numbers = [self._numbers.get()]
            with suppress(Empty):
                while True:
                    numbers.append(self._numbers.get_nowait())
            highest = max(numbers)
            if highest > 0:
                self._sync_once(highest)
            if _STOP in numbers:
                return

    def _sync_once(self, number: int) -> None:
        began = self._began_us = self._clock()
        self._sync()
        took_us = self._clock() - began
        self._began_us = 0
        with suppress(RuntimeError):  # the loop is closed: nobody waits for this any more
            self._loop.call_soon_threadsafe(self._done, number, took_us)


_STOP = -1
