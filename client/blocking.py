"""The client for scripts and threads: the same calls, each waiting for its answer.

One thread runs an event loop for all callers, so that calls of many threads still share connections
and writes. A call that is interrupted (Ctrl-C) is given up; an append may still happen.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Coroutine, Iterable, Iterator
from concurrent.futures import CancelledError
from types import TracebackType
from typing import Any, TypeVar

from allsource.client.client import PAGE_EVENTS, Client, Events, Expected
from allsource.client.pages import PartitionEvents, StreamEvents, StreamInfo
from allsource.cluster.requests import AppendResult
from allsource.storage.errors import Unavailable
from allsource.storage.events import Event

_T = TypeVar("_T")

_EVENTS_AT_ONCE = 1000


class BlockingClient:
    """`Client` without `await`; takes the same arguments, and may be used from many threads.

    Use it as a context manager::

        with BlockingClient("127.0.0.1:7101", secret=secret) as client:
            client.append("account-1", NewEvent.json("Opened", {"owner": "Ada"}))
    """

    def __init__(self, addresses: str | Iterable[str], **options: Any) -> None:
        self._client = Client(addresses, **options)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    @classmethod
    def connect(cls, addresses: str | Iterable[str], **options: Any) -> BlockingClient:
        """The same as `BlockingClient(...)`."""
        return cls(addresses, **options)

    def open(self) -> None:
        """Start the thread and connect; raises as `Client.open` does."""
        loop = asyncio.new_event_loop()
        self._loop = loop
        self._thread = threading.Thread(target=_run, args=(loop,), name="allsource-client", daemon=True)
        self._thread.start()
        try:
            self._wait(self._client.open())
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close every connection and end the thread. May be called twice."""
        loop, thread = self._loop, self._thread
        if loop is None or thread is None:
            return
        asyncio.run_coroutine_threadsafe(self._client.close(), loop).result()
        self._loop = None
        loop.call_soon_threadsafe(loop.stop)
        thread.join()

    def __enter__(self) -> BlockingClient:
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def append(
        self, stream: str, events: Events, expected: Expected = "any", *, timeout_s: float | None = None
    ) -> AppendResult:
        """See `Client.append`."""
        return self._wait(self._client.append(stream, events, expected, timeout_s=timeout_s))

    def append_many(
        self, parts: Iterable[tuple[str, Events, Expected]], *, timeout_s: float | None = None
    ) -> AppendResult:
        """See `Client.append_many`."""
        return self._wait(self._client.append_many(parts, timeout_s=timeout_s))

    def read_stream(self, stream: str, **options: Any) -> StreamEvents:
        """See `Client.read_stream`."""
        return self._wait(self._client.read_stream(stream, **options))

    def stream_info(self, stream: str, **options: Any) -> StreamInfo:
        """See `Client.stream_info`."""
        return self._wait(self._client.stream_info(stream, **options))

    def stream(self, stream: str, **options: Any) -> Iterator[Event]:
        """See `Client.stream`."""
        return self._each(self._client.stream(stream, **options))

    def read_partition(self, partition: int, **options: Any) -> PartitionEvents:
        """See `Client.read_partition`."""
        return self._wait(self._client.read_partition(partition, **options))

    def scan(
        self,
        partitions: Iterable[int] | None = None,
        *,
        consistency: str = "linearizable",
        page: int = PAGE_EVENTS,
    ) -> Iterator[Event]:
        """See `Client.scan`."""
        return self._each(self._client.scan(partitions, consistency=consistency, page=page))

    def cluster(self, *, timeout_s: float | None = None) -> dict[str, Any]:
        """See `Client.cluster`."""
        return self._wait(self._client.cluster(timeout_s=timeout_s))

    def _wait(self, call: Coroutine[Any, Any, _T]) -> _T:
        if self._loop is None:
            call.close()
            raise Unavailable("this client is not open: use `with`, or `client.open()`")
        future = asyncio.run_coroutine_threadsafe(call, self._loop)
        try:
            return future.result()
        except CancelledError:
            raise Unavailable("this client was closed") from None
        except BaseException:
            future.cancel()
            raise

    def _each(self, events: AsyncGenerator[Event, None]) -> Iterator[Event]:
        """Hand over events in handfuls: a switch of threads for each would cost more than the event."""
        try:
            while handful := self._wait(_handful(events)):
                yield from handful
        finally:
            if self._loop is not None:
                self._wait(events.aclose())


async def _handful(events: AsyncGenerator[Event, None]) -> list[Event]:
    found: list[Event] = []
    async for event in events:
        found.append(event)
        if len(found) == _EVENTS_AT_ONCE:
            break
    return found


def _run(loop: asyncio.AbstractEventLoop) -> None:
    try:
        loop.run_forever()
    finally:
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()
