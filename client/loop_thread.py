"""A thread that runs an event loop for all other threads, and ends without leaving one of them waiting."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from concurrent.futures import CancelledError
from typing import Any, TypeVar

from allsource.storage.model.errors import InvalidRequest, Unavailable

_T = TypeVar("_T")


class LoopThread:
    """The thread of one client: started once, stopped once."""

    def __init__(self) -> None:
        self._life = threading.Lock()
        """Held to hand the loop a call and to take the loop away, so that no call is handed to a loop that
        will not run any more."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Raises `InvalidRequest` the second time."""
        with self._life:
            if self._thread is not None:
                raise InvalidRequest("a client is opened once; make a new one to connect again")
            loop = self._loop = asyncio.new_event_loop()
            self._thread = threading.Thread(target=_run, args=(loop,), name="allsource-client", daemon=True)
            self._thread.start()

    def stop(self, last: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run `last`, then end the thread, unless that has been done. Other threads may wait meanwhile."""
        with self._life:
            loop, self._loop = self._loop, None
        if loop is None or self._thread is None:
            return
        asyncio.run_coroutine_threadsafe(last(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        self._thread.join()

    def wait(self, call: Coroutine[Any, Any, _T]) -> _T:
        """What the call returns or raises; `Unavailable` before `start` and after `stop`."""
        with self._life:
            if self._loop is None:
                call.close()
                raise Unavailable(
                    "this client is closed"
                    if self._thread is not None
                    else "this client is not open: use `with`, or `client.open()`"
                )
            future = asyncio.run_coroutine_threadsafe(call, self._loop)
        try:
            return future.result()
        except CancelledError:
            raise Unavailable("this client was closed") from None
        except BaseException:
            future.cancel()
            raise

    def each(self, found: AsyncGenerator[_T, None], at_once: int) -> Iterator[_T]:
        """Hand over what is found in handfuls: a switch of threads costs more than an event."""
        try:
            while handful := self.wait(_handful(found, at_once)):
                yield from handful
        finally:
            if self._loop is not None:
                self.wait(found.aclose())


async def _handful(found: AsyncGenerator[_T, None], at_once: int) -> list[_T]:
    handful: list[_T] = []
    async for one in found:
        handful.append(one)
        if len(handful) == at_once:
            break
    return handful


def _run(loop: asyncio.AbstractEventLoop) -> None:
    try:
        loop.run_forever()
        tasks = asyncio.all_tasks(loop)
        for task in tasks:  # calls that came in as the client was closed: their threads wait for an end
            task.cancel()
        if tasks:
            loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
    finally:
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()
