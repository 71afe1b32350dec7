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

from collections.abc import AsyncGenerator, Iterable
from typing import Any

from allsource.client import arguments, paging, unpacking
from allsource.client.arguments import Consistency
from allsource.client.calls import Call
from allsource.client.dispatch import Dispatcher
from allsource.client.life import ClientLife
from allsource.client.pages import PartitionEvents, StreamEvents, TagEvents
from allsource.cluster.protocol.requests import (
    AppendRequest,
    AppendResult,
    ClusterView,
    DescribeCluster,
    MarkState,
    PartitionPage,
    ReadPartition,
    ReadRequest,
    ReadStream,
)
from allsource.storage.model.answers import StreamInfo
from allsource.storage.model.append import append_part, partition_of_append
from allsource.storage.model.events import Event, Events
from allsource.storage.model.expected import Expectation
from allsource.storage.model.partition import partition_of, partition_of_tag

PAGE_EVENTS = 1000
"""Events that the iterators ask for at a time."""

_REQUEST_ROOM = 256


class Client(ClientLife):
    """A connection to a cluster, for one event loop. Use it as an async context manager.

    `addresses`: one or more nodes as `"host:port"` (the peer port); the others are learned. `secret`: what
    the cluster's file calls its client secret. `cluster_id`: refuse any other cluster; empty takes any that
    knows the secret. `name`: for the nodes' logs. `timeout_s`: how long a call may take unless it says
    otherwise. `inflight_max` and `inflight_bytes_max` bound the calls on their way; further ones wait their
    turn (and raise `QueueFull` if it does not come in time). `compression`: pack events with zstd where
    that makes them smaller; it saves the network and the nodes' disks for some of this process's CPU.

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
        compression: bool = True,
    ) -> None:
        super().__init__(
            addresses,
            secret=secret,
            cluster_id=cluster_id,
            name=name,
            timeout_s=timeout_s,
            inflight_max=inflight_max,
            inflight_bytes_max=inflight_bytes_max,
            compression=compression,
        )

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
            compression=compression,
        )

    # -- appending

    async def append(
        self,
        stream: str,
        events: Events,
        expected_version: Expectation = "any",
        *,
        expected_tag: int | None = None,
        marks: Iterable[tuple[str, int, int]] = (),
        timeout_s: float | None = None,
    ) -> AppendResult:
        """Append one event or several to a stream, all or nothing.

        `expected_version`: `"any"`, `"no_stream"`, `"exists"` or the stream's exact version, else
        `WrongExpectedVersion`. `expected_tag`: the number of the newest event of the stream's `{tag}`
        (0: none yet), else `WrongExpectedTag`. `marks`: each a `Mark` (or `(name, position, generation)`)
        of the stream's partition that moves forward with the events, else `MarkRefused`.

        Appending the same events (with the same ids) again is safe: the result is the first one's, with
        `duplicate` set. Raises `Rejected` or `OutcomeUnknown`.
        """
        wait_s = arguments.timeout(timeout_s, self._timeout_s)
        part = append_part(stream, events, expected_version, compress=self._compress)
        request = arguments.append_of((part,), expected_tag, marks)
        dispatcher = self._open_dispatcher()
        partition = partition_of(stream, dispatcher.map.partitions)
        return await self._append(dispatcher, request, partition, wait_s)

    async def append_many(
        self,
        parts: Iterable[tuple[str, Events, Expectation]],
        *,
        expected_tag: int | None = None,
        marks: Iterable[tuple[str, int, int]] = (),
        timeout_s: float | None = None,
    ) -> AppendResult:
        """Append to several streams of one partition (same `{tag}`), all or nothing.

        `parts`: a `StreamAppend`, or `(stream, events, expected_version)`, for each stream. The others as
        in `append`.
        """
        wait_s = arguments.timeout(timeout_s, self._timeout_s)
        packed = arguments.packed_parts(parts, compress=self._compress)
        request = arguments.append_of(packed, expected_tag, marks)
        dispatcher = self._open_dispatcher()
        partition = partition_of_append(request, dispatcher.map.partitions)
        return await self._append(dispatcher, request, partition, wait_s)

    async def move_marks(
        self,
        partition: int,
        marks: Iterable[tuple[str, int, int]],
        *,
        timeout_s: float | None = None,
    ) -> AppendResult:
        """Move marks of a partition, all or none, without appending an event.

        A mark moves if its generation is higher than the stored one's, or the same and its position is
        higher; else `MarkRefused` says where it is. `duplicate`: they were all just there.
        """
        wait_s = arguments.timeout(timeout_s, self._timeout_s)
        dispatcher = self._open_dispatcher()
        request = arguments.marks_alone(partition, marks, dispatcher.map.partitions)
        return await self._append(dispatcher, request, partition, wait_s)

    async def _append(
        self, dispatcher: Dispatcher, request: AppendRequest, partition: int, wait_s: float
    ) -> AppendResult:
        size = _REQUEST_ROOM
        for _, _, chunks in request.parts:
            for chunk in chunks:
                size += len(chunk.data) + _REQUEST_ROOM
        if not self._gate.try_enter(size):
            wait_s = await self._wait_for_room(size, wait_s)
        call = dispatcher.start(request, partition, timeout_s=wait_s, size=size)
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
        return unpacking.stream_events(await call.future, call)

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
        return unpacking.info_of(await call.future)

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
        return unpacking.partition_events(await call.future, call)

    async def read_tag(
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
        """A page of the events of all streams with this `{tag}` (`"order-7"`, without braces), in the order
        of their tag numbers.

        `from_number`: the `tag_number` to begin with; without it the first one, or backward the newest.
        `types`: only events of these types; a page may then be short, or empty, and still lead on. The
        others as in `read_stream`. A tag that nobody has used has no events, and 0 for its last number.
        """
        request = arguments.tag_read(
            tag,
            from_number,
            limit,
            backward=backward,
            types=types,
            consistency=consistency,
            token=token,
        )
        partition = partition_of_tag(tag, self._open_dispatcher().map.partitions)
        call = await self._start_read(request, partition, arguments.timeout(timeout_s, self._timeout_s))
        return unpacking.tag_events(await call.future, call, request.types)

    async def read_mark(
        self,
        partition: int,
        name: str,
        *,
        consistency: Consistency = "linearizable",
        token: str = "",
        timeout_s: float | None = None,
    ) -> MarkState:
        """Where a mark of a partition is; position and generation 0 if it was never set."""
        request = arguments.mark_read(partition, name, consistency=consistency, token=token)
        arguments.check_partition(partition, self._open_dispatcher().map.partitions)
        call = await self._start_read(request, partition, arguments.timeout(timeout_s, self._timeout_s))
        state: MarkState = await call.future
        return state

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
        return await self._start_read(request, partition, wait_s)

    async def _start_partition(self, request: ReadPartition, wait_s: float) -> Call:
        arguments.check_partition(request.partition, self._open_dispatcher().map.partitions)
        return await self._start_read(request, request.partition, wait_s)

    async def _start_read(self, request: ReadRequest, partition: int, wait_s: float) -> Call:
        arguments.check_token(request.token, partition)
        return await self._start(request, partition, wait_s, local=request.local)
