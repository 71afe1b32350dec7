"""Many waiting writers, one fsync: `SyncThread` for tasks that await it.

Whoever wrote something awaits `durable()`. All who do so in one turn of the loop make a group, which has
one number for the sync thread; the groups that come while a sync runs share the next one. So a lone writer
waits for one sync, and a thousand writers share each.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from time import monotonic_ns
from typing import Protocol

from allsource.storage.files.sync_thread import SyncThread
from allsource.storage.model.errors import OutcomeUnknown


class Syncable(Protocol):
    """What can be synced; `Storage` is."""

    def sync(self) -> None: ...


class GroupSync:
    """Belongs to the event loop that runs when it is made. `close` it at the end."""

    def __init__(self, storage: Syncable) -> None:
        self._loop = asyncio.get_running_loop()
        self._number = 0
        """Of the newest group."""
        self._waiting: dict[int, asyncio.Future[None]] = {}
        """What the groups wait on whose writes are not durable yet, by their numbers, which rise."""
        self._is_open = False
        """Whether the newest group still takes writers: until the end of this turn."""
        self.failure: BaseException | None = None
        """The sync that failed, if any: nothing may be written after it (RULES.md rule 16)."""
        self._thread = SyncThread(
            self._loop,
            storage.sync,
            clock=lambda: monotonic_ns() // 1000,
            done=self._done,
            failed=self._failed,
        )
        self._thread.start()

    async def durable(self) -> None:
        """Return when everything written before this call is durable.

        Raises `OutcomeUnknown` if the sync failed: what was written may or may not survive.
        """
        if self.failure is not None:
            raise _lost(self.failure)
        if not self._is_open:
            self._is_open = True
            self._number += 1
            self._waiting[self._number] = self._loop.create_future()
            self._loop.call_soon(self._request)
        # One writer that is cancelled must not cancel what the others wait for.
        await asyncio.shield(self._waiting[self._number])

    def _request(self) -> None:
        self._is_open = False
        self._thread.request(self._number)

    def _done(self, number: int, _took_us: int) -> None:
        for group in [group for group in self._waiting if group <= number]:
            self._waiting.pop(group).set_result(None)

    def _failed(self, error: BaseException) -> None:
        """In the thread."""
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(self._give_up, error)

    def _give_up(self, error: BaseException) -> None:
        self.failure = error
        waiting, self._waiting = self._waiting, {}
        for group in waiting.values():
            group.set_exception(_lost(error))
            group.exception()  # all its writers may have been cancelled: then nobody asks for it

    async def close(self) -> None:
        """Wait for the syncs that are asked for, then end the thread."""
        while self._waiting:
            await asyncio.wait(self._waiting.values())
        self._thread.stop()


def _lost(failure: BaseException) -> OutcomeUnknown:
    return OutcomeUnknown(f"a sync failed, so this may be lost: {failure}")
