"""The requests of the `/v1` table: read one strictly, ask the service once, answer.

Each method of `Streams` is one route, and `Streams.routes` lists them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol, TypeVar

from aiohttp import web

from allsource.cluster.protocol.requests import (
    AppendRequest,
    AppendResult,
    ClusterView,
    DescribeCluster,
    MarkState,
    PartitionPage,
    ReadMark,
    ReadPartition,
    ReadStream,
    ReadTag,
    Request,
    Result,
    StreamPage,
    TagPage,
    parse_token,
)
from allsource.config.schema import Limits
from allsource.node.http import answers, json_bodies, msgpack_bodies
from allsource.node.http.appends import request_of
from allsource.node.http.bodies import body_bytes_max, read_body
from allsource.node.http.holder import holder_of
from allsource.node.http.queries import Query, mark_in, partition_in, stream_of, tag_in
from allsource.storage.model.errors import AllsourceError, Overloaded
from allsource.storage.model.partition import partition_of, partition_of_tag

DEFAULT_LIMIT = 100

EVENT_ROOM = 300
"""Bytes of an answer that each event takes besides its data."""

Page = StreamPage | PartitionPage | TagPage

_R = TypeVar("_R", AppendResult, StreamPage, PartitionPage, TagPage, MarkState, ClusterView)


class Service(Protocol):
    """What a door needs of the node: put a question, get exactly one answer."""

    def submit(
        self,
        request: Request,
        *,
        timeout_ms: int,
        forwarded: bool,
        reply: Callable[[Result | AllsourceError], None],
    ) -> None:
        """Answer `request` by calling `reply` exactly once, within `timeout_ms`, on the event loop;
        perhaps before `submit` returns. `forwarded`: it came from a peer and goes no further."""
        ...


class Streams:
    """The handlers. `partitions` is the cluster's number of partitions."""

    def __init__(self, service: Service, limits: Limits, partitions: int) -> None:
        self._service = service
        self._limits = limits
        self._partitions = partitions

    def routes(self) -> list[web.RouteDef]:
        """The table."""
        stream = "/v1/streams/{stream:[^/]+}"
        return [
            web.post(f"{stream}/events", self.append),
            web.post("/v1/append", self.append_several),
            web.get(f"{stream}/events", self.read_stream),
            web.get(stream, self.stream),
            web.get("/v1/partitions/{partition:[^/]+}/events", self.read_partition),
            web.get("/v1/partitions/{partition:[^/]+}/marks/{name:[^/]+}", self.mark),
            web.get("/v1/tags/{tag:[^/]+}/events", self.read_tag),
            web.get("/v1/cluster", self.cluster),
        ]

    async def append(self, request: web.Request) -> web.Response:
        """Append to one stream: 201, or 200 when these events had been committed before."""
        query = Query(request)
        stream = stream_of(request)
        asked = await self._read_append(request, stream)
        return await self._append(request, asked, query, several=False)

    async def append_several(self, request: web.Request) -> web.Response:
        """Append to several streams of one partition, all or nothing."""
        query = Query(request)
        asked = await self._read_append(request, None)
        return await self._append(request, asked, query, several=True)

    async def _read_append(self, request: web.Request, stream: str | None) -> AppendRequest:
        """The append in the body; to one stream if the URL names it, else to several."""
        limits = self._limits
        body = await read_body(request, body_bytes_max(limits))
        bodies = msgpack_bodies if body.is_msgpack else json_bodies

        def read() -> AppendRequest:
            reader = bodies.one_stream if stream is not None else bodies.several_streams
            drafts = reader(body.data, limits.append_events_max)
            return request_of(drafts, limits, self._partitions, stream)

        return await holder_of(request).work(len(body.data), read)

    async def _append(
        self, request: web.Request, asked: Request, query: Query, *, several: bool
    ) -> web.Response:
        result = await self._ask(request, asked, query, AppendResult)
        body = answers.appended(result, several=several)
        return answers.respond(request, body, 200 if result.duplicate else 201)

    async def read_stream(self, request: web.Request) -> web.Response:
        """A page of a stream's events, forward or backward."""
        query = Query(request, "from", "limit", "direction", "consistency", "token")
        stream = stream_of(request)
        asked = ReadStream(
            stream,
            from_version=query.number("from", 0),
            limit=min(query.number("limit", DEFAULT_LIMIT), self._limits.read_events_max),
            forward=query.choice("direction", "forward", "backward"),
            local=not query.choice("consistency", "linearizable", "local"),
            token=self._token(query, partition_of(stream, self._partitions)),
        )
        form = answers.form_of(request)
        page = await self._ask(request, asked, query, StreamPage)
        body = await holder_of(request).work(_effort(page), lambda: answers.stream_page(form, page))
        return answers.answer(body, form)

    async def stream(self, request: web.Request) -> web.Response:
        """A stream's facts without its events."""
        query = Query(request, "consistency", "token")
        stream = stream_of(request)
        asked = ReadStream(
            stream,
            limit=0,
            local=not query.choice("consistency", "linearizable", "local"),
            token=self._token(query, partition_of(stream, self._partitions)),
        )
        return answers.respond(
            request, answers.stream_facts(await self._ask(request, asked, query, StreamPage))
        )

    async def read_partition(self, request: web.Request) -> web.Response:
        """A page of a partition's committed events, by position."""
        query = Query(request, "from", "limit", "consistency", "token")
        partition = partition_in(request, self._partitions)
        asked = ReadPartition(
            partition,
            from_position=query.number("from", 1),
            limit=min(query.number("limit", DEFAULT_LIMIT), self._limits.read_events_max),
            local=not query.choice("consistency", "linearizable", "local"),
            token=self._token(query, partition),
        )
        form = answers.form_of(request)
        page = await self._ask(request, asked, query, PartitionPage)
        body = await holder_of(request).work(_effort(page), lambda: answers.partition_page(form, page))
        return answers.answer(body, form)

    async def read_tag(self, request: web.Request) -> web.Response:
        """A page of the events of all streams with a tag, by their numbers under it."""
        query = Query(request, "from", "limit", "direction", "consistency", "token", repeated="type")
        tag, types = tag_in(request), query.types("type")
        asked = ReadTag(
            tag,
            from_number=query.number("from", 0),
            limit=min(query.number("limit", DEFAULT_LIMIT), self._limits.read_events_max),
            forward=query.choice("direction", "forward", "backward"),
            types=types,
            local=not query.choice("consistency", "linearizable", "local"),
            token=self._token(query, partition_of_tag(tag, self._partitions)),
        )
        form = answers.form_of(request)
        page = await self._ask(request, asked, query, TagPage)
        body = await holder_of(request).work(_effort(page), lambda: answers.tag_page(form, page, types))
        return answers.answer(body, form)

    async def mark(self, request: web.Request) -> web.Response:
        """Where a mark of a partition is."""
        query = Query(request, "consistency", "token")
        partition = partition_in(request, self._partitions)
        asked = ReadMark(
            partition,
            mark_in(request),
            local=not query.choice("consistency", "linearizable", "local"),
            token=self._token(query, partition),
        )
        return answers.respond(request, answers.mark(await self._ask(request, asked, query, MarkState)))

    async def cluster(self, request: web.Request) -> web.Response:
        """Nodes, partitions and durability, as this node sees them."""
        view = await self._ask(request, DescribeCluster(), Query(request), ClusterView)
        return answers.respond(request, view.value)

    def _token(self, query: Query, partition: int) -> str:
        token = query.text("token")
        parse_token(token, partition)
        return token

    async def _ask(self, request: web.Request, asked: Request, query: Query, kind: type[_R]) -> _R:
        answer: asyncio.Future[Result | AllsourceError] = asyncio.get_running_loop().create_future()

        holder = holder_of(request)

        def reply(outcome: Result | AllsourceError) -> None:
            if isinstance(outcome, Page) and not holder.hold_page(_size(outcome)):
                outcome = Overloaded("too many answers wait to be read; try again later")
            if not answer.done():  # the handler may have been cancelled: the node is going down
                answer.set_result(outcome)

        timeout_ms = query.timeout_ms(self._limits)
        self._service.submit(asked, timeout_ms=timeout_ms, forwarded=False, reply=reply)
        outcome = await answer
        if isinstance(outcome, AllsourceError):
            raise outcome
        assert isinstance(outcome, kind), (
            f"a {type(asked).__name__} was answered by a {type(outcome).__name__}"
        )
        return outcome


def _effort(page: Page) -> int:
    """How many bytes of a body would take as long to parse as it takes to make an answer of the page."""
    return _size(page) // 4


def _size(page: Page) -> int:
    """About what a page and its answer hold: each chunk unpacked and once more as JSON, and around each
    event its facts."""
    size = 0
    for run in page.runs:
        size += 2 * max(run.chunk.raw_size, len(run.chunk.data)) + EVENT_ROOM * run.take
    return size
