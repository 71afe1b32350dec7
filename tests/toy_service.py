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
    Run,
    StreamPage,
    TagPage,
    parse_token,
)
from allsource.storage.model.append import partition_of_append
from allsource.storage.model.errors import AllsourceError, NotFound
from allsource.storage.model.partition import partition_of, partition_of_tag, tag_of
from tests.storage.model.pure_log import PureLog

Reply = Callable[[Result | AllsourceError], None]

START_US = 1_700_000_000_000_000


class ToyStore:
    """The committed log of every partition."""

    def __init__(self, partitions: int = 32) -> None:
        self.partitions = partitions
        self.runs: dict[int, list[Run]] = {p: [] for p in range(partitions)}
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
            case ReadTag():
                return self.read_tag(request)
            case ReadMark():
                return self.read_mark(request)
            case DescribeCluster():
                return ClusterView(self.view)

    def append(self, request: AppendRequest) -> AppendResult:
        partition = partition_of_append(request, self.partitions)
        log, runs = self.logs[partition], self.runs[partition]
        result = log.append(request)
        if not result.duplicate:
            entry, time_us = log.entries[-1], START_US + len(log.entries) - 1
            for placed in entry.placed():
                version, position, number = (
                    placed.part.first_version,
                    placed.first_position,
                    placed.part.first_tag_number,
                )
                for chunk in entry.chunks(placed):
                    run = Run(placed.part.stream, version, position, number, time_us, 0, chunk.count, chunk)
                    runs.append(run)
                    version, position = version + chunk.count, position + chunk.count
                    number = number and number + chunk.count
        return result

    def event_count(self) -> int:
        return sum(run.take for runs in self.runs.values() for run in runs)

    def last_position(self, partition: int) -> int:
        log = self.runs[partition]
        return log[-1].first_position + log[-1].take - 1 if log else 0

    def of_stream(self, stream: str) -> list[Run]:
        return [r for r in self.runs[partition_of(stream, self.partitions)] if r.stream == stream]

    def version(self, stream: str) -> int:
        runs = self.of_stream(stream)
        return runs[-1].first_version + runs[-1].take - 1 if runs else 0

    def read_stream(self, request: ReadStream) -> StreamPage:
        runs = self.of_stream(request.stream)
        partition = partition_of(request.stream, self.partitions)
        parse_token(request.token, partition)
        if not runs:
            raise NotFound(f"no stream {request.stream!r}", stream=request.stream)
        head = self.version(request.stream)
        versions, next_from = _page(head, request.from_version, request.limit, request.forward)
        return StreamPage(
            request.stream,
            partition,
            head,
            runs[0].timestamp_us,
            runs[-1].timestamp_us,
            next_from,
            request.forward,
            tuple(_single(runs, version, Run._fields.index("first_version")) for version in versions),
        )

    def read_tag(self, request: ReadTag) -> TagPage:
        """Its runs hold events of other types too, as a real node's may."""
        partition = partition_of_tag(request.tag, self.partitions)
        parse_token(request.token, partition)
        runs = [run for run in self.runs[partition] if tag_of(run.stream) == request.tag]
        last = runs[-1].first_tag_number + runs[-1].take - 1 if runs else 0
        numbers, next_from = _page(last, request.from_number, request.limit, request.forward)
        return TagPage(
            request.tag,
            partition,
            last,
            next_from,
            request.forward,
            tuple(_single(runs, number, Run._fields.index("first_tag_number")) for number in numbers),
        )

    def read_mark(self, request: ReadMark) -> MarkState:
        parse_token(request.token, request.partition)
        found = self.logs[request.partition].mark(request.name)
        position, generation, index = found[:3] if found else (0, 0, 0)
        return MarkState(request.partition, request.name, position, generation, index)

    def read_partition(self, request: ReadPartition) -> PartitionPage:
        found: list[Run] = []
        left = request.limit
        for run in self.runs[request.partition]:
            skip = max(0, request.from_position - run.first_position)
            if skip < run.take and left:
                found.append(run._replace(skip=skip, take=min(run.take - skip, left)))
                left -= found[-1].take
        last = self.last_position(request.partition)
        next_from = found[-1].first_position + found[-1].skip + found[-1].take if found else last + 1
        return PartitionPage(request.partition, last, next_from, tuple(found))


def _page(newest: int, wanted: int, limit: int, forward: bool) -> tuple[list[int], int]:
    """The numbers of a page in reading order, and where to read on."""
    if forward:
        numbers = list(range(max(1, wanted), newest + 1))[:limit]
    else:
        numbers = list(range(min(newest, wanted or newest), 0, -1))[:limit]
    rest = numbers[-1] + (1 if forward else -1) if numbers else 0
    return numbers, rest if 1 <= rest <= newest else 0


def _single(runs: list[Run], number: int, field: int) -> Run:
    """One event as a run of its own, its neighbours in the chunk skipped; `field` counts its events."""
    run = next(r for r in runs if r[field] <= number < r[field] + r.take)  # type: ignore[operator]
    return run._replace(skip=number - run[field], take=1)  # type: ignore[operator]


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
