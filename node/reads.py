"""Reads: what may be shown, and how it is found without decoding what is shown.

Every read is served from this node's storage and bounded by a log index up to which everything is
known to be committed; that bound is what distinguishes the three kinds:

* linearizable, at the owner: the index that a read barrier confirmed (CONSENSUS.md rule 14); all
  reads that wait at the same time share one round of messages,
* local, at any replica: this replica's commit index, which may lag and is never uncommitted,
* local with a token: as local, after waiting until this replica has committed the token's entry.

Storage shows uncommitted entries too, so each answer is cut at the bound: a stream's head may be an
append that is never confirmed, and then the newest committed slice before it counts.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from allsource.cluster.requests import (
    Chunk,
    PartitionPage,
    ReadPartition,
    ReadStream,
    StreamPage,
)
from allsource.config.schema import Limits
from allsource.node.faults import OnFault, not_expected
from allsource.node.measures import Measures
from allsource.node.tickets import Stage, Ticket
from allsource.storage.entry import Entry
from allsource.storage.errors import AllsourceError, InvalidRequest, NotFound, Overloaded
from allsource.storage.interface import StreamHead, StreamSlice

_SLICES_AT_ONCE = 64

BEHIND_MAX = 8192
"""Local reads of a node that may wait at once for entries which it has not received."""


class Log(Protocol):
    """The part of `Storage` that reads need."""

    def head(self, partition: int, stream: str) -> StreamHead | None: ...

    def slices(
        self, partition: int, stream: str, from_version: int, *, forward: bool, slices_max: int
    ) -> list[StreamSlice]: ...

    def entries_at(self, partition: int, indexes: Sequence[int]) -> list[Entry]: ...

    def entries(self, partition: int, first: int, last: int, bytes_max: int) -> list[Entry]: ...

    def index_of_position(self, partition: int, position: int) -> int | None: ...


class Confirmer(Protocol):
    """The part of the core that reads use."""

    def read(self, partition: int, ticket: object, min_index: int) -> None: ...

    def commit_index(self, partition: int) -> int: ...


class Barrier(Protocol):
    """What the core's `ReadResult.ticket` is at this node: somebody who waits for a read barrier."""

    def confirmed(self, index: int, *, ok: bool) -> None:
        """Everything up to `index` is committed and this node led until then; or (not `ok`) it did not."""


class _Facts(NamedTuple):
    """A stream as of a bound."""

    version: int
    created_us: int
    updated_us: int


class Reads:
    """See the module's page. `limits` bound a page whatever its caller asks for."""

    def __init__(
        self,
        core: Confirmer,
        log: Log,
        limits: Limits,
        measures: Measures,
        *,
        retry: Callable[[Ticket], None],
        now_us: Callable[[], int],
        on_fault: OnFault = not_expected,
    ) -> None:
        self._measures = measures
        self._on_fault = on_fault
        self._now_us = now_us
        self._core = core
        self._log = log
        self._limits = limits
        self._retry = retry
        self._waiting: dict[int, list[tuple[int, int, Ticket]]] = {}
        self._waiting_count = 0
        self._order = 0
        self._last_positions: dict[int, tuple[int, int]] = {}

    # -- in

    def linearizable(self, ticket: Ticket) -> None:
        """Serve a read at the owner, once its leadership is confirmed."""
        self._core.read(ticket.partition, _Read(self, ticket), ticket.min_index)

    def local(self, ticket: Ticket) -> None:
        """Serve a read from what this replica has, perhaps after waiting for the token's entry.

        An entry that never comes costs nothing until the deadline: a replica cannot tell it from one
        that is on its way.
        """
        partition = ticket.partition
        commit = self._core.commit_index(partition)
        if ticket.min_index <= commit:
            self.serve(ticket, commit)
        elif self._waiting_count >= BEHIND_MAX:
            error = Overloaded(
                f"{BEHIND_MAX} reads wait for entries that this replica has not received; ask another one",
                partition=partition,
            )
            self._measures.refused(error)
            ticket.finish(error)
        else:
            self._order += 1
            self._waiting_count += 1
            ticket.stage = Stage.TOKEN
            waiting = self._waiting.setdefault(partition, [])
            heapq.heappush(waiting, (ticket.min_index, self._order, ticket))

    def committed(self, partition: int, commit: int) -> None:
        """This replica's commit index moved: serve the local reads that waited for it."""
        waiting = self._waiting.get(partition)
        if waiting is None:
            return
        while waiting and waiting[0][0] <= commit:
            self._waiting_count -= 1
            self.serve(heapq.heappop(waiting)[2], commit)
        if not waiting:
            del self._waiting[partition]

    def forget_finished(self) -> None:
        """Drop waiting reads whose deadline has passed."""
        for partition, waiting in list(self._waiting.items()):
            kept = [item for item in waiting if item[2].reply is not None]
            self._waiting_count -= len(waiting) - len(kept)
            if kept:
                heapq.heapify(kept)
                self._waiting[partition] = kept
            else:
                del self._waiting[partition]

    # -- out

    def barrier_ended(self, ticket: Ticket, index: int, *, ok: bool) -> None:
        """The read barrier of a linearizable read ended."""
        if not ok:
            self._retry(ticket)
        elif index < ticket.min_index:
            error = _from_the_future(ticket)
            self._measures.refused(error)
            ticket.finish(error)
        else:
            self.serve(ticket, index)

    def serve(self, ticket: Ticket, bound: int) -> None:
        """Answer a read with what is committed up to log index `bound`."""
        request = ticket.request
        if ticket.reply is None:
            return
        answer: StreamPage | PartitionPage | AllsourceError
        try:
            if isinstance(request, ReadStream):
                answer = self.read_stream(request, ticket.partition, bound)
            else:
                assert isinstance(request, ReadPartition)
                answer = self.read_partition(request, bound)
        except AllsourceError as error:
            answer = error
            self._measures.refused(error)
        except Exception as error:  # a read changes nothing, so a bug in it is its own affair
            answer = self._on_fault(error)
        self._measures.read_took(self._now_us() - ticket.started_us)
        ticket.finish(answer)

    # -- a stream

    def read_stream(self, request: ReadStream, partition: int, bound: int) -> StreamPage:
        """The stream's facts and a page of its events; raises `NotFound`."""
        stream = request.stream
        facts = self._facts(partition, stream, bound)
        if facts is None:
            raise NotFound(f"no stream {stream!r}: nothing was appended to it yet", stream=stream)
        limit = min(request.limit, self._limits.read_events_max)
        chunks: list[Chunk] = []
        next_from = 0
        if limit > 0:
            if request.forward:
                start = max(request.from_version, 1)
                if start <= facts.version:
                    chunks, next_from = self._forward(partition, stream, start, facts.version, limit)
            else:
                start = min(request.from_version or facts.version, facts.version)
                chunks, next_from = self._backward(partition, stream, start, limit)
        return StreamPage(
            stream,
            partition,
            facts.version,
            facts.created_us,
            facts.updated_us,
            next_from,
            request.forward,
            tuple(chunks),
        )

    def _facts(self, partition: int, stream: str, bound: int) -> _Facts | None:
        head = self._log.head(partition, stream)
        if head is None:
            return None
        if head.index <= bound:
            return _Facts(head.version, head.created_us, head.updated_us)
        version = head.version
        while version > 0:
            slices = self._log.slices(partition, stream, version, forward=False, slices_max=_SLICES_AT_ONCE)
            for found in slices:
                if found.index <= bound:
                    entry = self._log.entries_at(partition, [found.index])[0]
                    last = found.first_version + found.count - 1
                    return _Facts(last, head.created_us, entry.timestamp_us)
            if not slices:
                break
            version = slices[-1].first_version - 1
        return None

    def _forward(
        self, partition: int, stream: str, start: int, last: int, limit: int
    ) -> tuple[list[Chunk], int]:
        """Events `start..last`, as far as the limits allow, and where to read on (0: nowhere)."""
        chunks: list[Chunk] = []
        left = min(limit, last - start + 1)
        stop = start + left - 1
        bytes_left = self._limits.read_bytes_max
        version = start
        while version <= stop and bytes_left > 0:
            wanted = min(stop - version + 1, _SLICES_AT_ONCE)
            slices = self._log.slices(partition, stream, version, forward=True, slices_max=wanted)
            slices = [found for found in slices if found.first_version <= stop]
            for entry, found in self._fetch(partition, slices):
                skip = version - found.first_version
                take = min(found.count - skip, stop - version + 1)
                chunk = _chunk(entry, stream, found.first_version, skip, take)
                if chunks and len(chunk.blob) > bytes_left:
                    return chunks, version
                chunks.append(chunk)
                bytes_left -= len(chunk.blob)
                version += take
        return chunks, version if version <= last else 0

    def _backward(self, partition: int, stream: str, start: int, limit: int) -> tuple[list[Chunk], int]:
        """Events `start` and older, newest chunk first, and where to read on (0: nowhere)."""
        chunks: list[Chunk] = []
        stop = max(1, start - limit + 1)
        bytes_left = self._limits.read_bytes_max
        version = start
        while version >= stop and bytes_left > 0:
            wanted = min(version - stop + 1, _SLICES_AT_ONCE)
            slices = self._log.slices(partition, stream, version, forward=False, slices_max=wanted)
            slices = [found for found in slices if found.first_version + found.count > stop]
            for entry, found in self._fetch(partition, slices):
                skip = max(0, stop - found.first_version)
                take = version - found.first_version - skip + 1
                chunk = _chunk(entry, stream, found.first_version, skip, take)
                if chunks and len(chunk.blob) > bytes_left:
                    return chunks, version
                chunks.append(chunk)
                bytes_left -= len(chunk.blob)
                version = found.first_version + skip - 1
        return chunks, version

    def _fetch(self, partition: int, slices: list[StreamSlice]) -> list[tuple[Entry, StreamSlice]]:
        entries = self._log.entries_at(partition, [found.index for found in slices])
        return list(zip(entries, slices, strict=True))

    # -- a partition

    def read_partition(self, request: ReadPartition, bound: int) -> PartitionPage:
        """Committed events from a position on, in order of position."""
        partition = request.partition
        last = self.last_position(partition, bound)
        start = max(request.from_position, 1)
        limit = min(request.limit, self._limits.read_events_max)
        index = self._log.index_of_position(partition, start) if start <= last else None
        if index is None or limit <= 0:
            return PartitionPage(partition, last, min(start, last + 1), ())
        chunks: list[Chunk] = []
        bytes_left = self._limits.read_bytes_max
        position, stop = start, min(last, start + limit - 1)
        while position <= stop and bytes_left > 0 and index <= bound:
            entries = self._log.entries(partition, index, bound, bytes_left)
            for entry in entries:
                position, bytes_left = _take_entry(entry, position, stop, bytes_left, chunks)
                if position > stop or bytes_left <= 0:
                    break
            index = entries[-1].index + 1
        return PartitionPage(partition, last, position, tuple(chunks))

    def last_position(self, partition: int, bound: int) -> int:
        """Position of the newest event up to log index `bound`; 0 if there is none."""
        if bound == 0:
            return 0
        known = self._last_positions.get(partition)
        if known is not None and known[0] == bound:
            return known[1]
        position = self._log.entries_at(partition, [bound])[0].next_position - 1
        self._last_positions[partition] = (bound, position)
        return position


class _Read:
    """The ticket that a linearizable read takes through the core."""

    __slots__ = ("_reads", "_ticket")

    def __init__(self, reads: Reads, ticket: Ticket) -> None:
        self._reads = reads
        self._ticket = ticket

    def confirmed(self, index: int, *, ok: bool) -> None:
        """The core's answer."""
        self._reads.barrier_ended(self._ticket, index, ok=ok)


def _from_the_future(ticket: Ticket) -> InvalidRequest:
    request = ticket.request
    assert isinstance(request, ReadStream | ReadPartition)
    return InvalidRequest(
        f"token {request.token!r} names an entry that partition {ticket.partition} does not have: no "
        "append to this cluster returned it",
        partition=ticket.partition,
        reason="token_from_the_future",
    )


def _chunk(entry: Entry, stream: str, first_version: int, skip: int, take: int) -> Chunk:
    """The run of events that one entry holds of a stream."""
    position = entry.first_position
    for part in entry.parts:
        if part.stream == stream and part.first_version == first_version:
            return Chunk(stream, first_version, position, entry.timestamp_us, skip, take, part.blob)
        position += part.count
    raise AssertionError(f"the index says that entry {entry.index} holds {stream!r} from {first_version}")


def _take_entry(
    entry: Entry, position: int, stop: int, bytes_left: int, chunks: list[Chunk]
) -> tuple[int, int]:
    """Add what `entry` holds of `position..stop` to `chunks`: the next position, and bytes left."""
    first = entry.first_position
    for part in entry.parts:
        end = first + part.count
        if first <= stop and end > position:
            if chunks and len(part.blob) > bytes_left:
                return position, 0
            skip = position - first
            take = min(end, stop + 1) - position
            chunks.append(
                Chunk(part.stream, part.first_version, first, entry.timestamp_us, skip, take, part.blob)
            )
            position += take
            bytes_left -= len(part.blob)
        first = end
    return position, bytes_left
