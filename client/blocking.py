"""The client for scripts and threads: the same calls, each waiting for its answer.

One thread runs an event loop for all callers, so that calls of many threads still share connections
and writes. A call that is interrupted (Ctrl-C) is given up; an append may still happen.

Each call repeats the signature of `Client`'s, and a test compares the pairs. They could be made from one
another (`ParamSpec`), but then an editor shows a wrapper where it shows a signature and a docstring now.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Coroutine, Iterable, Iterator
from concurrent.futures import CancelledError
from types import TracebackType
from typing import Any, TypeVar

from allsource.client.arguments import Consistency
from allsource.client.client import PAGE_EVENTS, Client
from allsource.client.pages import PartitionEvents, StreamEvents
from allsource.cluster.protocol.requests import AppendResult, PartitionPage
from allsource.storage.model.answers import StreamInfo
from allsource.storage.model.errors import InvalidRequest, Unavailable
from allsource.storage.model.events import Event, Events
from allsource.storage.model.expected import Expectation

_T = TypeVar("_T")

_AT_ONCE = 1000


class BlockingClient:
    """`Client` without `await`; takes the same arguments, and may be used from many threads.

    Use it as a context manager::

        with BlockingClient("127.0.0.1:7101", secret=secret) as client:
            client.append("account-1", NewEvent.json("Opened", {"owner": "Ada"}))
    """

    def __init__(
        self,
        addresses: str | Iterable[str],
        *,
        secret: str,
        cluster_id: str = "",
        name: str = "",
        timeout_s: float = 5.0,
        inflight_max: int = 4096,
        inflight_bytes_max: int = 64 << 20,
    ) -> None:
        self._client = Client(
            addresses,
            secret=secret,
            cluster_id=cluster_id,
            name=name,
            timeout_s=timeout_s,
            inflight_max=inflight_max,
            inflight_bytes_max=inflight_bytes_max,
        )
        self._life = threading.Lock()
        """Held to hand the loop a call and to take the loop away, so that no call is handed to a loop that
        will not run any more."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    @classmethod
    def connect(
        cls,
        addresses: str | Iterable[str],
        *,
        secret: str,
        cluster_id: str = "",
        name: str = "",
        timeout_s: float = 5.0,
        inflight_max: int = 4096,
        inflight_bytes_max: int = 64 << 20,
    ) -> BlockingClient:
        """The same as `BlockingClient(...)`."""
        return cls(
            addresses,
            secret=secret,
            cluster_id=cluster_id,
            name=name,
            timeout_s=timeout_s,
            inflight_max=inflight_max,
            inflight_bytes_max=inflight_bytes_max,
        )

    def open(self) -> None:
        """Start the thread and connect; raises as `Client.open` does."""
        with self._life:
            if self._thread is not None:
                raise InvalidRequest("a client is opened once; make a new one to connect again")
            loop = self._loop = asyncio.new_event_loop()
            self._thread = threading.Thread(target=_run, args=(loop,), name="allsource-client", daemon=True)
            self._thread.start()
        try:
            self._wait(self._client.open())
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close every connection and end the thread. May be called twice, and while other threads wait for
        answers: their calls end as `Client.close` says."""
        with self._life:
            loop, self._loop = self._loop, None
        if loop is None or self._thread is None:
            return
        asyncio.run_coroutine_threadsafe(self._client.close(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        self._thread.join()

    def __enter__(self) -> BlockingClient:
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def append(
        self,
        stream: str,
        events: Events,
        expected_version: Expectation = "any",
        *,
        timeout_s: float | None = None,
    ) -> AppendResult:
        """See `Client.append`."""
        return self._wait(self._client.append(stream, events, expected_version, timeout_s=timeout_s))

    def append_many(
        self, parts: Iterable[tuple[str, Events, Expectation]], *, timeout_s: float | None = None
    ) -> AppendResult:
        """See `Client.append_many`."""
        return self._wait(self._client.append_many(parts, timeout_s=timeout_s))

    def read_stream(
        self,
        stream: str,
        *,
        from_version: int | None = None,
        limit: int = 100,
        backward: bool = False,
        consistency: Consistency = "linearizable",
        token: str = "",
        timeout_s: float | None = None,
    ) -> StreamEvents:
        """See `Client.read_stream`."""
        return self._wait(
            self._client.read_stream(
                stream,
                from_version=from_version,
                limit=limit,
                backward=backward,
                consistency=consistency,
                token=token,
                timeout_s=timeout_s,
            )
        )

    def stream_info(
        self,
        stream: str,
        *,
        consistency: Consistency = "linearizable",
        token: str = "",
        timeout_s: float | None = None,
    ) -> StreamInfo:
        """See `Client.stream_info`."""
        return self._wait(
            self._client.stream_info(stream, consistency=consistency, token=token, timeout_s=timeout_s)
        )

    def stream(
        self,
        stream: str,
        *,
        from_version: int | None = None,
        backward: bool = False,
        consistency: Consistency = "linearizable",
        token: str = "",
        page: int = PAGE_EVENTS,
    ) -> Iterator[Event]:
        """See `Client.stream`."""
        return self._each(
            self._client.stream(
                stream,
                from_version=from_version,
                backward=backward,
                consistency=consistency,
                token=token,
                page=page,
            )
        )

    def read_partition(
        self,
        partition: int,
        *,
        from_position: int = 1,
        limit: int = PAGE_EVENTS,
        consistency: Consistency = "linearizable",
        token: str = "",
        timeout_s: float | None = None,
    ) -> PartitionEvents:
        """See `Client.read_partition`."""
        return self._wait(
            self._client.read_partition(
                partition,
                from_position=from_position,
                limit=limit,
                consistency=consistency,
                token=token,
                timeout_s=timeout_s,
            )
        )

    def scan(
        self,
        partitions: Iterable[int] | None = None,
        *,
        consistency: Consistency = "linearizable",
        page: int = PAGE_EVENTS,
    ) -> Iterator[Event]:
        """See `Client.scan`."""
        return self._each(self._client.scan(partitions, consistency=consistency, page=page))

    def scan_pages(
        self,
        partitions: Iterable[int] | None = None,
        *,
        consistency: Consistency = "linearizable",
        page: int = PAGE_EVENTS,
    ) -> Iterator[PartitionPage]:
        """See `Client.scan_pages`."""
        return self._each(self._client.scan_pages(partitions, consistency=consistency, page=page), 1)

    def cluster(self, *, timeout_s: float | None = None) -> dict[str, Any]:
        """See `Client.cluster`."""
        return self._wait(self._client.cluster(timeout_s=timeout_s))

    def _wait(self, call: Coroutine[Any, Any, _T]) -> _T:
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

    def _each(self, found: AsyncGenerator[_T, None], at_once: int = _AT_ONCE) -> Iterator[_T]:
        """Hand over what is found in handfuls: a switch of threads costs more than an event."""
        try:
            while handful := self._wait(_handful(found, at_once)):
                yield from handful
        finally:
            if self._loop is not None:
                self._wait(found.aclose())


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
