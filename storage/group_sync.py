"""Many waiting writers, one fsync: group commit without a timer.

Whoever wrote something awaits `durable()`. The first one starts a sync in a thread of its own; all who
come while it runs wait together for the next one, which begins when it ends and covers them all. So a
lone writer waits for one sync, and a thousand writers share each.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from allsource.storage.errors import OutcomeUnknown


class Syncable(Protocol):
    """What can be synced; `Storage` is."""

    def sync(self) -> None: ...


class GroupSync:
    """Belongs to one event loop."""

    def __init__(self, storage: Syncable) -> None:
        self._storage = storage
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="allsource-sync")
        self._next: asyncio.Future[None] | None = None
        """The sync that begins when the present one ends; None if nobody waits for one."""
        self._running: asyncio.Task[None] | None = None
        self.failure: Exception | None = None
        """The first sync that failed, if any: nothing may be written after it (CONSENSUS.md rule 16)."""

    async def durable(self) -> None:
        """Return when everything written before this call is durable.

        Raises `OutcomeUnknown` if the sync failed: what was written may or may not survive.
        """
        if self._next is None:
            self._next = asyncio.get_running_loop().create_future()
            if self._running is None:
                self._running = asyncio.create_task(self._run())
        # One writer that is cancelled must not cancel what the others wait for.
        await asyncio.shield(self._next)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while (waiters := self._next) is not None:
            self._next = None
            try:
                if self.failure is None:
                    await loop.run_in_executor(self._thread, self._storage.sync)
            except Exception as error:
                self.failure = error
            if self.failure is None:
                waiters.set_result(None)
            else:
                waiters.set_exception(OutcomeUnknown(f"a sync failed, so this may be lost: {self.failure}"))
                waiters.exception()  # they may all have been cancelled: then nobody asks for it
        self._running = None

    async def close(self) -> None:
        """Wait for the syncs that are asked for, then end the thread."""
        if self._running is not None:
            await self._running
        self._thread.shutdown()
