"""The client for scripts and threads: the same calls, each waiting for its answer.

One thread runs an event loop for all callers, so that calls of many threads still share connections
and writes. A call that is interrupted (Ctrl-C) is given up; an append may still happen.

Each call repeats the signature of `Client`'s, and a test compares the pairs. They could be made from one
another (`ParamSpec`), but then an editor shows a wrapper where it shows a signature and a docstring now.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Coroutine, Iterable, Iterator
from types import TracebackType
from typing import Any, TypeVar

from allsource.client.arguments import Consistency
from allsource.client.client import PAGE_EVENTS, Client
from allsource.client.loop_thread import LoopThread
from allsource.client.pages import PartitionEvents, StreamEvents, TagEvents
from allsource.cluster.protocol.requests import AppendResult, MarkState, PartitionPage
from allsource.storage.model.answers import StreamInfo
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
        compression: bool = True,
    ) -> None:
        self._client = Client(
            addresses,
            secret=secret,
            cluster_id=cluster_id,
            name=name,
            timeout_s=timeout_s,
            inflight_max=inflight_max,
            inflight_bytes_max=inflight_bytes_max,
            compression=compression,
        )
        self._thread = LoopThread()

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
        compression: bool = True,
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
            compression=compression,
        )

    def open(self) -> None:
        """Start the thread and connect; raises as `Client.open` does."""
        self._thread.start()
        try:
            self._wait(self._client.open())
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close every connection and end the thread. May be called twice, and while other threads wait for
        answers: their calls end as `Client.close` says."""
        self._thread.stop(self._client.close)

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
        expected_tag: int | None = None,
        marks: Iterable[tuple[str, int, int]] = (),
        timeout_s: float | None = None,
    ) -> AppendResult:
        """See `Client.append`."""
        return self._wait(
            self._client.append(
                stream,
                events,
                expected_version,
                expected_tag=expected_tag,
                marks=marks,
                timeout_s=timeout_s,
            )
        )

    def append_many(
        self,
        parts: Iterable[tuple[str, Events, Expectation]],
        *,
        expected_tag: int | None = None,
        marks: Iterable[tuple[str, int, int]] = (),
        timeout_s: float | None = None,
    ) -> AppendResult:
        """See `Client.append_many`."""
        return self._wait(
            self._client.append_many(parts, expected_tag=expected_tag, marks=marks, timeout_s=timeout_s)
        )

    def move_marks(
        self,
        partition: int,
        marks: Iterable[tuple[str, int, int]],
        *,
        timeout_s: float | None = None,
    ) -> AppendResult:
        """See `Client.move_marks`."""
        return self._wait(self._client.move_marks(partition, marks, timeout_s=timeout_s))

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

    def read_tag(
        self,
        tag: str,
        *,
        from_number: int | None = None,
        limit: int = 100,
        backward: bool = False,
        types: Iterable[str] = (),
        consistency: Consistency = "linearizable",
        token: str = "",
        timeout_s: float | None = None,
    ) -> TagEvents:
        """See `Client.read_tag`."""
        return self._wait(
            self._client.read_tag(
                tag,
                from_number=from_number,
                limit=limit,
                backward=backward,
                types=types,
                consistency=consistency,
                token=token,
                timeout_s=timeout_s,
            )
        )

    def read_mark(
        self,
        partition: int,
        name: str,
        *,
        consistency: Consistency = "linearizable",
        token: str = "",
        timeout_s: float | None = None,
    ) -> MarkState:
        """See `Client.read_mark`."""
        return self._wait(
            self._client.read_mark(
                partition, name, consistency=consistency, token=token, timeout_s=timeout_s
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
        return self._thread.wait(call)

    def _each(self, found: AsyncGenerator[_T, None], at_once: int = _AT_ONCE) -> Iterator[_T]:
        return self._thread.each(found, at_once)
