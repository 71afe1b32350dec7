"""Many waiting writers, one fsync: group commit without a timer.

Whoever wrote something awaits `durable()`. The first one starts a sync in a thread of its own; all who
come while it runs wait together for the next one, which begins when it ends and covers them all. So a
lone writer waits for one sync, and a thousand writers share each.
"""

from __future__ import annotations

import asyncio
from queue import SimpleQueue
from threading import Thread
from typing import Protocol

from allsource.storage.model.errors import OutcomeUnknown


class Syncable(Protocol):
    """What can be synced; `Storage` is."""

    def sync(self) -> None: ...


class GroupSync:
    """Belongs to the event loop that runs when it is made."""

    def __init__(self, storage: Syncable) -> None:
        self._storage = storage
        self._loop = asyncio.get_running_loop()
        self._running: asyncio.Future[None] | None = None
        """Who waits for the sync that runs now, or that begins in this turn of the loop."""
        self._next: asyncio.Future[None] | None = None
        """Who waits for the one behind it."""
        self.failure: BaseException | None = None
        """The first sync that failed, if any: nothing may be written after it (RULES.md rule 16)."""
        self._orders: SimpleQueue[bool] = SimpleQueue()
        self._thread = Thread(target=self._work, name="allsource-sync", daemon=True)
        self._thread.start()

    async def durable(self) -> None:
        """Return when everything written before this call is durable.

        Raises `OutcomeUnknown` if the sync failed: what was written may or may not survive.
        """
        if self._next is None:
            self._next = self._loop.create_future()
            if self._running is None:
                # At the end of this turn, so that all who write in it go together.
                self._running = self._next
                self._loop.call_soon(self._begin)
        # One writer that is cancelled must not cancel what the others wait for.
        await asyncio.shield(self._next)

    def _begin(self) -> None:
        self._running, self._next = self._next, None
        if self._running is not None:
            self._orders.put(True)

    def _work(self) -> None:
        """The thread: one sync for each order."""
        while self._orders.get():
            failure = self.failure
            if failure is None:  # a failed sync is never tried again
                try:
                    self._storage.sync()
                except BaseException as error:  # else this thread would end, and its waiters wait for ever
                    failure = error
            self._loop.call_soon_threadsafe(self._ended, failure)

    def _ended(self, failure: BaseException | None) -> None:
        waiters = self._running
        assert waiters is not None, "a sync ended that nobody asked for"
        self.failure = failure
        if failure is None:
            waiters.set_result(None)
        else:
            waiters.set_exception(OutcomeUnknown(f"a sync failed, so this may be lost: {failure}"))
            waiters.exception()  # they may all have been cancelled: then nobody asks for it
        self._begin()

    async def close(self) -> None:
        """Wait for the syncs that are asked for, then end the thread."""
        while self._running is not None:
            await asyncio.wait([self._running])
        self._orders.put(False)
        self._thread.join()
