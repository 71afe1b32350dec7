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
from collections import deque
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing
from types import TracebackType
from typing import Any, TypeAlias

from allsource.client.addresses import read_address
from allsource.client.calls import Call
from allsource.client.cluster_map import Address
from allsource.client.dialler import Dialler
from allsource.client.dispatch import Dispatcher
from allsource.client.errors import ConnectionRefused, UnreadableAnswer
from allsource.client.gate import Gate
from allsource.client.pages import PartitionEvents, StreamEvents, StreamInfo
from allsource.cluster.frames import ProtocolError
from allsource.cluster.handshake import DiallerConfig
from allsource.cluster.requests import (
    AppendPart,
    AppendRequest,
    AppendResult,
    ClusterView,
    DescribeCluster,
    PartitionPage,
    ReadPartition,
    ReadStream,
    Request,
    StreamPage,
)
from allsource.storage.errors import AllsourceError, InvalidRequest, Unavailable
from allsource.storage.events import Event, NewEvent, encode_blob
from allsource.storage.expected import parse_expected
from allsource.storage.partition import PartitionKey, check_stream_id, partition_of

PAGE_EVENTS = 1000
"""Events that the iterators ask for at a time."""
PAGES_AHEAD = 16
"""Partitions that `scan` reads at the same time."""

_READ_ROOM = 16_384
_REQUEST_ROOM = 256

Events: TypeAlias = NewEvent | Sequence[NewEvent]
Expected: TypeAlias = str | int


class Client:
    """A connection to a cluster, for one event loop. Use it as an async context manager.

    `addresses`: one or more nodes as `"host:port"` (the msgpack port); the others are learned.
    `cluster_id`: refuse any other cluster; empty takes any that knows the secret. `timeout_s`: how long
    a call may take unless it says otherwise. `inflight_max` and `inflight_bytes_max` bound the calls on
    their way; further ones wait their turn (and raise `QueueFull` if it does not come in time).
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
        given = [addresses] if isinstance(addresses, str) else list(addresses)
        if not given:
            raise InvalidRequest("a client needs the address of at least one node, as host:port")
        self._seeds: list[Address] = [read_address(address) for address in given]
        self._config = DiallerConfig.client(secret, cluster_id=cluster_id, name=name)
        self._timeout_s = timeout_s
        self._gate = Gate(inflight_max, inflight_bytes_max)
        self._dispatcher: Dispatcher | None = None
        self._dialler: Dialler | None = None

    @classmethod
    def connect(cls, addresses: str | Iterable[str], **options: Any) -> Client:
        """The same as `Client(...)`, to be read aloud: `async with Client.connect([...]) as client`."""
        return cls(addresses, **options)

    # -- life

    async def open(self) -> None:
        """Connect to at least one node.

        Raises `ConnectionRefused` (wrong secret, wrong cluster) at once, and `Unavailable` with each
        address's reason when none can be reached within the timeout.
        """
        assert self._dispatcher is None, "a client is opened once"
        refused = asyncio.Event()
        self._dispatcher = Dispatcher(self._gate, lambda members: dialler.dial_members(members))
        dialler = Dialler(self._config, self._dispatcher, lambda _: self._note_refusals(dialler, refused))
        self._dialler = dialler
        dialler.dial(self._seeds)
        waits = {asyncio.ensure_future(event.wait()) for event in (self._dispatcher.connected, refused)}
        try:
            await asyncio.wait(waits, timeout=self._timeout_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        if not self._dispatcher.connected.is_set():
            await self.close()
            raise self._why_not(dialler)

    def _note_refusals(self, dialler: Dialler, refused: asyncio.Event) -> None:
        if all(isinstance(dialler.failures.get(seed), ProtocolError) for seed in self._seeds):
            refused.set()

    def _why_not(self, dialler: Dialler) -> AllsourceError:
        failures = [dialler.failures.get(seed) for seed in self._seeds]
        first = failures[0]
        if isinstance(first, ProtocolError) and all(isinstance(one, ProtocolError) for one in failures):
            return ConnectionRefused(first.message, reason=first.code)
        reasons = "; ".join(
            f"{host}:{port}: {error or 'no answer'}"
            for (host, port), error in zip(self._seeds, failures, strict=True)
        )
        return Unavailable(f"no node could be reached within {self._timeout_s:g} s ({reasons})")

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
        self, stream: str, events: Events, expected: Expected = "any", *, timeout_s: float | None = None
    ) -> AppendResult:
        """Append events to a stream, all or nothing.

        `expected`: `"any"`, `"no_stream"`, `"exists"` or the stream's exact version, else
        `WrongExpectedVersion`. Appending the same events (with the same ids) again is safe: the result
        is the first one's, with `duplicate` set. Raises `Rejected` or `OutcomeUnknown`.
        """
        part = _part(stream, events, expected)
        return await self._append((part,), timeout_s)

    async def append_many(
        self, parts: Iterable[tuple[str, Events, Expected]], *, timeout_s: float | None = None
    ) -> AppendResult:
        """Append to several streams of one partition (same `{tag}`), all or nothing.

        `parts`: `(stream, events, expected)` for each stream.
        """
        packed = tuple([_part(*part) for part in parts])
        if not packed:
            raise InvalidRequest("an append needs at least one stream")
        return await self._append(packed, timeout_s)

    async def _append(self, parts: tuple[AppendPart, ...], timeout_s: float | None) -> AppendResult:
        dispatcher = self._open_dispatcher()
        partition = partition_of(parts[0].stream, dispatcher.map.partitions)
        size = len(parts[0].blob) + _REQUEST_ROOM
        if len(parts) > 1:
            _check_one_partition(parts, dispatcher.map.partitions)
            size = sum(len(part.blob) + _REQUEST_ROOM for part in parts)
        wait_s = self._timeout_s if timeout_s is None else timeout_s
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
        from_version: int = 0,
        limit: int = 100,
        backward: bool = False,
        consistency: str = "linearizable",
        token: str = "",
        timeout_s: float | None = None,
    ) -> StreamEvents:
        """A page of a stream; raises `NotFound` if there is no such stream.

        `from_version` 0 is the natural end: the first event, or backward the newest. `consistency`:
        `"linearizable"` sees every append acknowledged before, `"local"` asks any replica and may be
        a little behind, unless `token` (of an append's result) says what it must have seen.
        """
        if limit < 1:
            raise InvalidRequest("limit must be at least 1")
        local = _is_local(consistency)
        request = ReadStream(stream, from_version, limit, not backward, local, token)
        call = await self._start_stream(request, timeout_s)
        return self._stream_events(await call.future, call)

    async def stream_info(
        self,
        stream: str,
        *,
        consistency: str = "linearizable",
        token: str = "",
        timeout_s: float | None = None,
    ) -> StreamInfo:
        """A stream's facts without its events; raises `NotFound` if there is no such stream."""
        request = ReadStream(stream, limit=0, local=_is_local(consistency), token=token)
        call = await self._start_stream(request, timeout_s)
        return _info(await call.future)

    async def stream(
        self,
        stream: str,
        *,
        from_version: int = 0,
        backward: bool = False,
        consistency: str = "linearizable",
        token: str = "",
        page: int = PAGE_EVENTS,
    ) -> AsyncGenerator[Event, None]:
        """Every event of a stream, page after page; the next page is fetched while one is read."""
        local = _is_local(consistency)
        ahead: deque[Call] = deque()

        async def ask(start: int) -> None:
            request = ReadStream(stream, start, page, not backward, local, token)
            ahead.append(await self._start_stream(request, None))

        await ask(from_version)
        try:
            while ahead:
                call = ahead.popleft()
                found = self._stream_events(await call.future, call)
                if found.next_from:
                    last = found.events[-1].version if found.events else 0
                    _check_advance(*((found.next_from, last) if backward else (last, found.next_from)))
                    await ask(found.next_from)
                for event in found.events:
                    yield event
        finally:
            _abandon(ahead)

    async def read_partition(
        self,
        partition: int,
        *,
        from_position: int = 1,
        limit: int = PAGE_EVENTS,
        consistency: str = "linearizable",
        token: str = "",
        timeout_s: float | None = None,
    ) -> PartitionEvents:
        """A page of a partition's committed events, by position."""
        if limit < 1:
            raise InvalidRequest("limit must be at least 1")
        request = ReadPartition(partition, from_position, limit, _is_local(consistency), token)
        call = await self._start_partition(request, timeout_s)
        page: PartitionPage = await call.future
        return PartitionEvents(partition, self._decode(page, call), page.last_position, page.next_from)

    async def scan(
        self,
        partitions: Iterable[int] | None = None,
        *,
        consistency: str = "linearizable",
        page: int = PAGE_EVENTS,
    ) -> AsyncGenerator[Event, None]:
        """Every committed event of these partitions (all of them by default) up to where each ends.

        Each partition's events come in order of position; events of several partitions mix.
        """
        async with aclosing(self._scan_pages(partitions, consistency, page)) as pages:
            async for call, found in pages:
                for event in self._decode(found, call):
                    yield event

    async def scan_pages(
        self,
        partitions: Iterable[int] | None = None,
        *,
        consistency: str = "linearizable",
        page: int = PAGE_EVENTS,
    ) -> AsyncGenerator[PartitionPage, None]:
        """As `scan`, but pages of events still packed; `.events()` unpacks one's."""
        async with aclosing(self._scan_pages(partitions, consistency, page)) as pages:
            async for _, found in pages:
                yield found

    async def _scan_pages(
        self, partitions: Iterable[int] | None, consistency: str, page: int
    ) -> AsyncGenerator[tuple[Call, PartitionPage], None]:
        local = _is_local(consistency)
        count = self._open_dispatcher().map.partitions
        todo = deque((p, 1) for p in (range(count) if partitions is None else partitions))
        ahead: deque[tuple[Call, int]] = deque()
        try:
            while todo or ahead:
                while todo and len(ahead) < PAGES_AHEAD:
                    partition, start = todo.popleft()
                    request = ReadPartition(partition, start, page, local)
                    ahead.append((await self._start_partition(request, None), start))
                call, start = ahead.popleft()
                found: PartitionPage = await call.future
                if found.chunks and found.next_from <= found.last_position:
                    _check_advance(start, found.next_from)
                    todo.appendleft((found.partition, found.next_from))
                yield call, found
        finally:
            _abandon(call for call, _ in ahead)

    async def cluster(self, *, timeout_s: float | None = None) -> dict[str, Any]:
        """Nodes, partitions, owners and durability, as one of the nodes sees them."""
        call = await self._start(DescribeCluster(), -1, timeout_s)
        view: ClusterView = await call.future
        return view.value

    # -- within

    async def _start_stream(self, request: ReadStream, timeout_s: float | None) -> Call:
        check_stream_id(request.stream)
        partition = partition_of(request.stream, self._open_dispatcher().map.partitions)
        return await self._start(request, partition, timeout_s, request.local)

    async def _start_partition(self, request: ReadPartition, timeout_s: float | None) -> Call:
        PartitionKey(request.partition, self._open_dispatcher().map.partitions)
        return await self._start(request, request.partition, timeout_s, request.local)

    async def _start(
        self, request: Request, partition: int, timeout_s: float | None, local: bool = False
    ) -> Call:
        dispatcher = self._open_dispatcher()
        wait_s = self._timeout_s if timeout_s is None else timeout_s
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
        return self._dispatcher

    def _stream_events(self, page: StreamPage, call: Call) -> StreamEvents:
        return StreamEvents(_info(page), self._decode(page, call), page.next_from)

    def _decode(self, page: StreamPage | PartitionPage, call: Call) -> list[Event]:
        try:
            return page.events()
        except Exception as error:  # the bytes are a node's word: anything may be wrong with them
            message = f"a node answered a read with unreadable events: {error!r}"
            if call.connection is not None:
                call.connection.close(ProtocolError("malformed", message))
            raise UnreadableAnswer(f"{message}; its connection is closed") from error


def _part(stream: str, events: Events, expected: Expected) -> AppendPart:
    check_stream_id(stream)
    if isinstance(events, NewEvent):
        events = (events,)
    try:
        blob = encode_blob(events)
    except (TypeError, ValueError, AttributeError, OverflowError) as error:
        raise InvalidRequest(f"events for {stream!r} that cannot be packed: {error}") from error
    return AppendPart(stream, -1 if expected == "any" else parse_expected(expected), blob)


def _check_one_partition(parts: tuple[AppendPart, ...], partitions: int) -> None:
    found = {part.stream: partition_of(part.stream, partitions) for part in parts}
    if len(found) != len(parts):
        raise InvalidRequest("a stream stands twice in one append; put its events in one list")
    if len(set(found.values())) > 1:
        raise InvalidRequest(
            "an append goes to one partition, and these streams are of several; "
            "ids that share a {tag} share a partition",
            partitions=found,
        )


def _is_local(consistency: str) -> bool:
    if consistency not in ("linearizable", "local"):
        raise InvalidRequest(f'consistency is "linearizable" or "local", not {consistency!r}')
    return consistency == "local"


def _info(page: StreamPage) -> StreamInfo:
    return StreamInfo(page.stream, page.partition, page.current_version, page.created_us, page.updated_us)


def _check_advance(low: int, high: int) -> None:
    """A page that leads back would be read for ever."""
    if low >= high:
        raise UnreadableAnswer("a node answered a read with a page that does not lead on")


def _abandon(calls: Iterable[Call]) -> None:
    """Nobody will look at these answers any more."""
    for call in calls:
        if not call.future.cancel() and not call.future.cancelled():
            call.future.exception()
