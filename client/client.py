"""The client: what users call. Asynchronous; `blocking` has the same for scripts.

::

    async with Client.connect(["127.0.0.1:7101"], secret=secret) as client:
        result = await client.append("account-1", NewEvent.json("Opened", {"owner": "Ada"}), "no_stream")
        async for event in client.stream("account-1"):
            print(event.version, event.type, event.json())

It talks to every node over the msgpack port, many calls at a time over one connection each, and sends
each call to the node that leads its partition. When a node goes away its calls go elsewhere at once,
with the same event ids, until their deadline. `errors` says how a call can end.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable, Mapping
from types import TracebackType
from typing import Any

from allsource.client import arguments, paging
from allsource.client.arguments import Consistency
from allsource.client.calls import Call
from allsource.client.cluster_map import Address
from allsource.client.dialler import Dialler
from allsource.client.dispatch import Dispatcher
from allsource.client.gate import Gate
from allsource.client.opening import connect_to_one
from allsource.client.pages import PartitionEvents, StreamEvents
from allsource.cluster.protocol.handshake import DiallerConfig
from allsource.cluster.protocol.requests import (
    AppendPart,
    AppendRequest,
    AppendResult,
    ClusterView,
    DescribeCluster,
    PartitionPage,
    ReadPartition,
    ReadStream,
    Request,
)
from allsource.storage.model.answers import StreamInfo
from allsource.storage.model.append import append_part
from allsource.storage.model.arguments import seconds, whole_number
from allsource.storage.model.errors import InvalidRequest, Unavailable
from allsource.storage.model.events import Event, Events
from allsource.storage.model.expected import Expectation
from allsource.storage.model.partition import partition_of

PAGE_EVENTS = 1000
"""Events that the iterators ask for at a time."""

_READ_ROOM = 16_384
_REQUEST_ROOM = 256


class Client:
    """A connection to a cluster, for one event loop. Use it as an async context manager.

    `addresses`: one or more nodes as `"host:port"` (the peer port); the others are learned. `secret`: what
    the cluster's file calls its client secret. `cluster_id`: refuse any other cluster; empty takes any that
    knows the secret. `name`: for the nodes' logs. `timeout_s`: how long a call may take unless it says
    otherwise. `inflight_max` and `inflight_bytes_max` bound the calls on their way; further ones wait their
    turn (and raise `QueueFull` if it does not come in time).

    Every call checks its arguments before anything is sent; `InvalidRequest` names the wrong one.
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
        self._seeds = arguments.seeds(addresses)
        self._config = DiallerConfig.client(
            arguments.secret_of(secret),
            cluster_id=arguments.name_of("cluster_id", cluster_id),
            name=arguments.name_of("name", name),
        )
        self._timeout_s = seconds("timeout_s", timeout_s, arguments.TIMEOUT_S_MAX)
        self._gate = Gate(
            whole_number("inflight_max", inflight_max),
            whole_number("inflight_bytes_max", inflight_bytes_max),
        )
        self._dispatcher: Dispatcher | None = None
        self._dialler: Dialler | None = None

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
    ) -> Client:
        """The same as `Client(...)`, to be read aloud: `async with Client.connect([...]) as client`."""
        return cls(
            addresses,
            secret=secret,
            cluster_id=cluster_id,
            name=name,
            timeout_s=timeout_s,
            inflight_max=inflight_max,
            inflight_bytes_max=inflight_bytes_max,
        )

    # -- life

    async def open(self) -> None:
        """Connect to at least one node; once in a client's life.

        Raises `ConnectionRefused` (wrong secret, wrong cluster) at once, and `Unavailable` with each
        address's reason when none can be reached within the timeout.
        """
        if self._dispatcher is not None:
            raise InvalidRequest("a client is opened once; make a new one to connect again")
        news = asyncio.Event()

        def learned(members: Mapping[str, Address]) -> None:
            dialler.dial_members(members)
            news.set()

        dispatcher = Dispatcher(self._gate, learned)
        dialler = Dialler(self._config, dispatcher, news.set)
        self._dispatcher, self._dialler = dispatcher, dialler
        try:
            await connect_to_one(self._seeds, dialler, dispatcher.connected, news, self._timeout_s)
        except BaseException:  # cancelled too: nobody will call `close`
            await self.close()
            raise

    async def close(self) -> None:
        """Close every connection. Calls under way end as refused, or as unknown if they were sent."""
        if self._dispatcher is not None:
            self._dispatcher.close()
        if self._dialler is not None:
            await self._dialler.close()

    async def __aenter__(self) -> Client:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    # -- appending

    async def append(
        self,
        stream: str,
        events: Events,
        expected_version: Expectation = "any",
        *,
        timeout_s: float | None = None,
    ) -> AppendResult:
        """Append one event or several to a stream, all or nothing.

        `expected_version`: `"any"`, `"no_stream"`, `"exists"` or the stream's exact version, else
        `WrongExpectedVersion`. Appending the same events (with the same ids) again is safe: the result
        is the first one's, with `duplicate` set. Raises `Rejected` or `OutcomeUnknown`.
        """
        wait_s = arguments.timeout(timeout_s, self._timeout_s)
        return await self._append((append_part(stream, events, expected_version),), wait_s)

    async def append_many(
        self, parts: Iterable[tuple[str, Events, Expectation]], *, timeout_s: float | None = None
    ) -> AppendResult:
        """Append to several streams of one partition (same `{tag}`), all or nothing.

        `parts`: a `StreamAppend`, or `(stream, events, expected_version)`, for each stream.
        """
        wait_s = arguments.timeout(timeout_s, self._timeout_s)
        packed = arguments.packed_parts(parts, self._open_dispatcher().map.partitions)
        return await self._append(packed, wait_s)

    async def _append(self, parts: tuple[AppendPart, ...], wait_s: float) -> AppendResult:
        dispatcher = self._open_dispatcher()
        partition = partition_of(parts[0].stream, dispatcher.map.partitions)
        size = sum([len(part.blob) + _REQUEST_ROOM for part in parts])
        if not self._gate.try_enter(size):
            wait_s = await self._wait_for_room(size, wait_s)
        call = dispatcher.start(AppendRequest(parts), partition, timeout_s=wait_s, size=size)
        result: AppendResult = await call.future
        return result

    # -- reading

    async def read_stream(
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
        """A page of a stream: at most `limit` events, or fewer; `next_from` says where to read on.

        Without `from_version` it begins at the natural end: with the first event, or backward the newest.
        `consistency`: `"linearizable"` sees every append acknowledged before; `"local"` asks any replica
        and may be a little behind, unless `token` (of an append's result) says what it must have seen.
        Raises `NotFound` if there is no such stream.
        """
        request = arguments.stream_read(
            stream, from_version, limit, backward=backward, consistency=consistency, token=token
        )
        call = await self._start_stream(request, arguments.timeout(timeout_s, self._timeout_s))
        return paging.stream_events(await call.future, call)

    async def stream_info(
        self,
        stream: str,
        *,
        consistency: Consistency = "linearizable",
        token: str = "",
        timeout_s: float | None = None,
    ) -> StreamInfo:
        """A stream's facts without its events; raises `NotFound` if there is no such stream."""
        request = arguments.stream_facts(stream, consistency=consistency, token=token)
        call = await self._start_stream(request, arguments.timeout(timeout_s, self._timeout_s))
        return paging.info_of(await call.future)

    def stream(
        self,
        stream: str,
        *,
        from_version: int | None = None,
        backward: bool = False,
        consistency: Consistency = "linearizable",
        token: str = "",
        page: int = PAGE_EVENTS,
    ) -> AsyncGenerator[Event, None]:
        """Every event of a stream, page after page; the next page is fetched while one is read."""
        first = arguments.stream_read(
            stream,
            from_version,
            page,
            backward=backward,
            consistency=consistency,
            token=token,
            limit_name="page",
        )
        return paging.whole_stream(first, lambda read: self._start_stream(read, self._timeout_s))

    async def read_partition(
        self,
        partition: int,
        *,
        from_position: int = 1,
        limit: int = PAGE_EVENTS,
        consistency: Consistency = "linearizable",
        token: str = "",
        timeout_s: float | None = None,
    ) -> PartitionEvents:
        """A page of a partition's committed events, by position."""
        request = arguments.partition_read(
            partition, from_position, limit, consistency=consistency, token=token
        )
        call = await self._start_partition(request, arguments.timeout(timeout_s, self._timeout_s))
        return paging.partition_events(await call.future, call)

    def scan(
        self,
        partitions: Iterable[int] | None = None,
        *,
        consistency: Consistency = "linearizable",
        page: int = PAGE_EVENTS,
    ) -> AsyncGenerator[Event, None]:
        """Every committed event of these partitions (all of them by default) up to where each ends.

        Each partition's events come in order of position; events of several partitions mix.
        """
        return paging.events_of(self._scan(partitions, consistency, page))

    def scan_pages(
        self,
        partitions: Iterable[int] | None = None,
        *,
        consistency: Consistency = "linearizable",
        page: int = PAGE_EVENTS,
    ) -> AsyncGenerator[PartitionPage, None]:
        """As `scan`, but pages of events still packed; `.events()` unpacks one's."""
        return paging.without_calls(self._scan(partitions, consistency, page))

    def _scan(
        self, partitions: Iterable[int] | None, consistency: Consistency, page: int
    ) -> AsyncGenerator[paging.Brought, None]:
        first = arguments.partition_read(0, 1, page, consistency=consistency, limit_name="page")
        chosen = arguments.partition_numbers(partitions)
        return paging.scan(
            lambda: range(self._open_dispatcher().map.partitions) if chosen is None else chosen,
            first,
            lambda read: self._start_partition(read, self._timeout_s),
        )

    async def cluster(self, *, timeout_s: float | None = None) -> dict[str, Any]:
        """Nodes, partitions, owners and durability, as one of the nodes sees them."""
        call = await self._start(
            DescribeCluster(), -1, arguments.timeout(timeout_s, self._timeout_s), local=False
        )
        view: ClusterView = await call.future
        return view.value

    # -- within

    async def _start_stream(self, request: ReadStream, wait_s: float) -> Call:
        partition = partition_of(request.stream, self._open_dispatcher().map.partitions)
        arguments.check_token(request.token, partition)
        return await self._start(request, partition, wait_s, local=request.local)

    async def _start_partition(self, request: ReadPartition, wait_s: float) -> Call:
        arguments.check_partition(request.partition, self._open_dispatcher().map.partitions)
        arguments.check_token(request.token, request.partition)
        return await self._start(request, request.partition, wait_s, local=request.local)

    async def _start(self, request: Request, partition: int, wait_s: float, *, local: bool) -> Call:
        dispatcher = self._open_dispatcher()
        if not self._gate.try_enter(_READ_ROOM):
            wait_s = await self._wait_for_room(_READ_ROOM, wait_s)
        return dispatcher.start(request, partition, timeout_s=wait_s, size=_READ_ROOM, local=local)

    async def _wait_for_room(self, size: int, wait_s: float) -> float:
        """Wait at the gate; what is left of `wait_s`, in seconds."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait_s
        await self._gate.enter(size, deadline)
        return max(0.0, deadline - loop.time())

    def _open_dispatcher(self) -> Dispatcher:
        if self._dispatcher is None:
            raise Unavailable("this client is not open: use `async with`, or `await client.open()`")
        self._dispatcher.check_usable()
        return self._dispatcher
