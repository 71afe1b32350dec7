"""Reads: when one may be served, and up to where it may see.

Every read is served from this node's storage and bounded by a log index up to which everything is
known to be committed; that bound is what distinguishes the three kinds:

* linearizable, at the owner: the index that a read barrier confirmed (RULES.md rule 14); all
  reads that wait at the same time share one round of messages,
* local, at any replica: this replica's commit index, which may lag and is never uncommitted,
* local with a token: as local, after waiting until this replica has committed the token's entry.

Reads are served in turns: so many milliseconds of them in each turn of the loop, every caller's in turn,
and none for a caller that does not take its answers (RULES.md rule 37).
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable
from typing import NamedTuple, Protocol

from allsource.cluster.budgets.turns import AtOnce
from allsource.cluster.protocol.requests import (
    AppendRequest,
    MarkState,
    PartitionPage,
    ReadMark,
    ReadPartition,
    ReadRequest,
    ReadStream,
    ReadTag,
    StreamPage,
    TagPage,
)
from allsource.node.observe.measures import Measures
from allsource.node.requests.faults import OnFault, not_expected
from allsource.node.requests.pages import Pages
from allsource.node.requests.tickets import Source, Stage, Ticket
from allsource.storage.model.errors import AllsourceError, Corrupt, InvalidRequest, Overloaded, ShuttingDown

Page = StreamPage | PartitionPage | TagPage

READY_MAX = 16_384
"""Reads that may wait for their turn to be served; beyond it they are refused before any work."""
RENDERING_US_PER_EVENT = 8
"""About what the HTTP door takes to make one event of a page into text, later in the same turn."""
BEHIND_MAX = 8192
"""Local reads of a node that may wait at once for entries which it has not received."""


class Confirmer(Protocol):
    """The part of the core that reads use."""

    def read(self, partition: int, ticket: object, min_index: int) -> None: ...

    def commit_index(self, partition: int) -> int: ...

    def quarantine(self, partition: int, error: Corrupt) -> None: ...


class Barrier(Protocol):
    """What the core's `ReadResult.ticket` is at this node: somebody who waits for a read barrier."""

    def confirmed(self, index: int, *, ok: bool) -> None:
        """`ok`: everything up to `index` is committed, and this node led when it was asked. Else it did
        not."""


class _Behind(NamedTuple):
    """A local read that waits for an entry, in a heap: the smallest index comes first."""

    log_index: int
    order: int
    """Of its arrival: tickets are not compared."""
    ticket: Ticket


class Reads:
    """See the module's page. `turns`: the budget of each loop turn for serving; `retry` is given tickets
    whose leadership was not confirmed."""

    def __init__(
        self,
        core: Confirmer,
        pages: Pages,
        measures: Measures,
        *,
        retry: Callable[[Ticket], None],
        now_us: Callable[[], int],
        turns: AtOnce,
        on_fault: OnFault = not_expected,
    ) -> None:
        self._measures = measures
        self._on_fault = on_fault
        self._now_us = now_us
        self._core = core
        self._pages = pages
        self._retry = retry
        self._turns = turns
        self._lanes: dict[Source | None, _Lane] = {}
        self._ready_count = 0
        self._waiting: dict[int, list[_Behind]] = {}
        self._waiting_count = 0
        self._order = 0

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
            self._ready(ticket, commit)
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
            heapq.heappush(waiting, _Behind(ticket.min_index, self._order, ticket))

    def committed(self, partition: int, commit: int) -> None:
        """This replica's commit index moved: serve the local reads that waited for it."""
        waiting = self._waiting.get(partition)
        if waiting is None:
            return
        while waiting and waiting[0].log_index <= commit:
            self._waiting_count -= 1
            self._ready(heapq.heappop(waiting).ticket, commit)
        if not waiting:
            del self._waiting[partition]

    def damaged(self, partition: int) -> None:
        """This replica will never have what these wait for: have them served elsewhere."""
        waiting = self._waiting.pop(partition, [])
        self._waiting_count -= len(waiting)
        for behind in waiting:
            self._retry(behind.ticket)

    def forget_finished(self) -> None:
        """Drop waiting reads whose deadline has passed."""
        for source, lane in list(self._lanes.items()):
            self._ready_count -= lane.forget_finished()
            if not lane.tickets:
                del self._lanes[source]
        for partition, waiting in list(self._waiting.items()):
            kept = [behind for behind in waiting if behind.ticket.reply is not None]
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
            self._ready(ticket, index)

    @property
    def is_full(self) -> bool:
        """Whether so many reads wait for their turn that a new one is to be refused."""
        return self._ready_count >= READY_MAX

    def _ready(self, ticket: Ticket, bound: int) -> None:
        """The read may be served with what is committed up to `bound`, when it is its turn."""
        source = ticket.source
        lane = self._lanes.get(source)
        if lane is None:
            lane = self._lanes[source] = _Lane(self, source)
        lane.tickets.append((ticket, bound))
        self._ready_count += 1
        self._turns.add(lane)

    def eased(self, source: Source) -> None:
        """A connection takes answers again, or has ended."""
        lane = self._lanes.get(source)
        if lane is not None:
            self._turns.add(lane)

    def serve_next(self, lane: _Lane) -> bool:
        """Serve the first read of a lane, if its caller takes answers. True if more can be served."""
        source, tickets = lane.source, lane.tickets
        if tickets and source is not None and not source.may_be_given_answers():
            return False
        if tickets:
            self._ready_count -= 1
            self.serve(*tickets.popleft())
        if not tickets and self._lanes.get(source) is lane:
            del self._lanes[source]
        return bool(tickets)

    def serve(self, ticket: Ticket, bound: int) -> None:
        """Answer a read with what is committed up to log index `bound`."""
        request = ticket.request
        if ticket.source is not None and ticket.source.closing:
            ticket.finish(ShuttingDown("the connection has ended"))  # nobody hears it
        if ticket.reply is None:
            return
        assert not isinstance(request, AppendRequest)
        answer: Page | MarkState | AllsourceError
        try:
            answer = self._read(request, ticket.partition, bound)
        except Corrupt as error:  # another replica has it whole
            self._core.quarantine(ticket.partition, error)
            self._retry(ticket)
            return
        except AllsourceError as error:
            answer = error
            self._measures.refused(error)
        except Exception as error:  # a read changes nothing, so a bug in it costs this read alone
            answer = self._on_fault(error)
        self._measures.read_took(self._now_us() - ticket.started_us)
        if ticket.source is None and isinstance(answer, StreamPage | PartitionPage | TagPage):
            self._turns.charge(RENDERING_US_PER_EVENT * sum(run.take for run in answer.runs))
        ticket.finish(answer)

    def _read(self, request: ReadRequest, partition: int, bound: int) -> Page | MarkState:
        if isinstance(request, ReadStream):
            return self._pages.read_stream(request, partition, bound)
        if isinstance(request, ReadPartition):
            return self._pages.read_partition(request, bound)
        if isinstance(request, ReadTag):
            return self._pages.read_tag(request, partition, bound)
        assert isinstance(request, ReadMark)
        return self._pages.read_mark(request, bound)


class _Lane:
    """The reads of one caller that may be served, in order: it has one place in each round of turns."""

    __slots__ = ("_reads", "source", "tickets")

    def __init__(self, reads: Reads, source: Source | None) -> None:
        self._reads = reads
        self.source = source
        self.tickets: deque[tuple[Ticket, int]] = deque()

    def step(self) -> bool:
        """Serve one (`turns.Worker`)."""
        return self._reads.serve_next(self)

    def forget_finished(self) -> int:
        """Drop those whose deadline has passed; how many they were."""
        before = len(self.tickets)
        self.tickets = deque([item for item in self.tickets if item[0].reply is not None])
        return before - len(self.tickets)


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
    assert not isinstance(request, AppendRequest)
    return InvalidRequest(
        f"token {request.token!r} names an entry that partition {ticket.partition} does not have: no "
        "append to this cluster returned it",
        partition=ticket.partition,
        reason="token_from_the_future",
    )
