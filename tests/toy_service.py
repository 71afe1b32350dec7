"""An event store in a few dictionaries that answers like the real service, for tests of the doors.

One process, no disk, no replication: what it keeps of the contract is what a door or a client can
see (versions, positions, expected versions, idempotency, pages). Several fake nodes may share one
`ToyStore`, as replicas share a log; each has a `ToyService` of its own that may refuse, delay or
swallow requests.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from allsource.cluster.protocol.requests import (
    AppendRequest,
    AppendResult,
    Chunk,
    ClusterView,
    DescribeCluster,
    PartitionPage,
    ReadPartition,
    ReadStream,
    Request,
    Result,
    StreamPage,
    parse_token,
)
from allsource.storage.model.append import partition_of_append
from allsource.storage.model.errors import AllsourceError, NotFound
from allsource.storage.model.partition import partition_of
from tests.storage.model.pure_log import PureLog

Reply = Callable[[Result | AllsourceError], None]

START_US = 1_700_000_000_000_000


class ToyStore:
    """The committed log of every partition."""

    def __init__(self, partitions: int = 32) -> None:
        self.partitions = partitions
        self.chunks: dict[int, list[Chunk]] = {p: [] for p in range(partitions)}
        self.logs = [PureLog(p) for p in range(partitions)]
        self.view: dict[str, Any] = {"nodes": [], "partitions": []}

    def answer(self, request: Request) -> Result:
        """The result, or an `AllsourceError` raised."""
        match request:
            case AppendRequest():
                return self.append(request)
            case ReadStream():
                return self.read_stream(request)
            case ReadPartition():
                return self.read_partition(request)
            case DescribeCluster():
                return ClusterView(self.view)

    def append(self, request: AppendRequest) -> AppendResult:
        partition = partition_of_append(request.parts, self.partitions)
        log, chunks = self.logs[partition], self.chunks[partition]
        result = log.append(request.parts)
        if not result.duplicate:
            position, time_us = result.first_position, START_US + len(chunks)
            for part in log.entries[-1].parts:
                chunks.append(
                    Chunk(part.stream, part.first_version, position, time_us, 0, part.count, part.blob)
                )
                position += part.count
        return result

    def last_position(self, partition: int) -> int:
        log = self.chunks[partition]
        return log[-1].first_position + log[-1].take - 1 if log else 0

    def of_stream(self, stream: str) -> list[Chunk]:
        return [c for c in self.chunks[partition_of(stream, self.partitions)] if c.stream == stream]

    def version(self, stream: str) -> int:
        chunks = self.of_stream(stream)
        return chunks[-1].first_version + chunks[-1].take - 1 if chunks else 0

    def read_stream(self, request: ReadStream) -> StreamPage:
        chunks = self.of_stream(request.stream)
        partition = partition_of(request.stream, self.partitions)
        parse_token(request.token, partition)
        if not chunks:
            raise NotFound(f"no stream {request.stream!r}", stream=request.stream)
        head = self.version(request.stream)
        versions = self._versions(request, head)
        step = 1 if request.forward else -1
        rest = versions[-1] + step if versions else 0
        next_from = rest if 1 <= rest <= head else 0
        return StreamPage(
            request.stream,
            partition,
            head,
            chunks[0].timestamp_us,
            chunks[-1].timestamp_us,
            next_from,
            request.forward,
            tuple(self._single(chunks, version) for version in versions),
        )

    def _versions(self, request: ReadStream, head: int) -> list[int]:
        if request.forward:
            start = max(1, request.from_version)
            return list(range(start, head + 1))[: request.limit]
        start = min(head, request.from_version or head)
        return list(range(start, 0, -1))[: request.limit]

    @staticmethod
    def _single(chunks: list[Chunk], version: int) -> Chunk:
        """One event as a chunk of its own, its neighbours in the blob skipped."""
        chunk = next(c for c in chunks if c.first_version <= version < c.first_version + c.take)
        return chunk._replace(skip=version - chunk.first_version, take=1)

    def read_partition(self, request: ReadPartition) -> PartitionPage:
        found: list[Chunk] = []
        left = request.limit
        for chunk in self.chunks[request.partition]:
            skip = max(0, request.from_position - chunk.first_position)
            if skip < chunk.take and left:
                found.append(chunk._replace(skip=skip, take=min(chunk.take - skip, left)))
                left -= found[-1].take
        last = self.last_position(request.partition)
        next_from = found[-1].first_position + found[-1].skip + found[-1].take if found else last + 1
        return PartitionPage(request.partition, last, next_from, tuple(found))


class ToyService:
    """Answers at once from a `ToyStore`, unless `meet` does something else with a request.

    `meet(request, reply)` is called first with every request: it returns an answer (a result or an
    error) to give instead, `PASS` to let the store answer, or `SWALLOW` when it replies later or never.
    """

    PASS = object()
    SWALLOW = object()

    def __init__(self, store: ToyStore | None = None) -> None:
        self.store = store or ToyStore()
        self.seen: list[Request] = []
        self.timeouts_ms: list[int] = []
        self.meet: Callable[[Request, Reply], Any] = lambda request, reply: self.PASS

    def submit(self, request: Request, *, timeout_ms: int, forwarded: bool, reply: Reply) -> None:
        self.seen.append(request)
        self.timeouts_ms.append(timeout_ms)
        answer = self.meet(request, reply)
        if answer is self.SWALLOW:
            return
        if answer is self.PASS:
            try:
                answer = self.store.answer(request)
            except AllsourceError as error:
                answer = error
        reply(answer)
