"""Every door's one way in: serve here, or at the node that can, or say why not.

Doors call `submit` and get exactly one answer, by callback. For each attempt the `RequestRouter` decides,
and its word is final; this module obeys. All of it ends by the deadline:

    Here         this node serves it: the write path (`ingest`) or the `reads`
    Forward      a peer has it (`forwarding`), and it is taken back when another node is to be asked
    SendBack     it came from a peer, which is told to route it anew
    Unroutable   wait for an owner (`parking`), if there may be one soon; what is parked is tried again when
                 leadership changes and every few milliseconds. Else refuse: at once, definitely, and why

Appends carry event ids, so an append whose attempt ended without an answer may be sent again, to the
same owner or the next. Only when the deadline comes is the caller told that the outcome is unknown.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from allsource.cluster.budgets.turns import AtOnce
from allsource.cluster.consensus.messages import ReadResult, RoleChange
from allsource.cluster.membership.router import HERE, SEND_BACK, Forward, RequestRouter, Unroutable
from allsource.cluster.protocol.requests import (
    TYPES_MAX,
    AppendRequest,
    ClusterView,
    DescribeCluster,
    PassOn,
    ReadMark,
    ReadRequest,
    ReadStream,
    ReadTag,
    Request,
    parse_token,
)
from allsource.node.observe.measures import Measures
from allsource.node.requests.again import Again
from allsource.node.requests.forwarding import Forwarding
from allsource.node.requests.ingest import Ingest
from allsource.node.requests.parking import Parking, leaving
from allsource.node.requests.reads import Barrier, Reads
from allsource.node.requests.tickets import Deadlines, Reply, Source, Ticket
from allsource.storage.model.append import partition_of_append
from allsource.storage.model.errors import AllsourceError, InvalidRequest, Overloaded, QueueFull
from allsource.storage.model.events import check_event_type
from allsource.storage.model.partition import (
    check_name,
    check_stream_id,
    check_tag,
    partition_of,
    partition_of_tag,
)

SWEEP_S = 0.010
"""How often parked requests are tried again and deadlines looked at, while there are any."""

TIMEOUT_MS_MAX = 600_000
"""Longest deadline that is honoured; what asks for more gets this."""


class Service:
    """See the module's page."""

    def __init__(
        self,
        router: RequestRouter,
        ingest: Ingest,
        reads: Reads,
        forwarding: Forwarding,
        parking: Parking,
        *,
        loop: asyncio.AbstractEventLoop,
        now_us: Callable[[], int],
        partition_count: int,
        describe: Callable[[], dict[str, Any]],
        measures: Measures,
        turns: AtOnce,
        under_way_max: int,
        held_bytes_max: int,
    ) -> None:
        """`describe` builds what `GET /v1/cluster` shows. `turns`: the budget for what is begun anew in one
        turn of the loop. `under_way_max` requests may be without an answer, and they may have
        `held_bytes_max` bytes."""
        self._router = router
        self._decide = router.decide
        self._ingest = ingest
        self._reads = reads
        self._forwarding = forwarding
        self._parking = parking
        self._measures = measures
        self._again = Again(turns, self._start)
        self._under_way_max = under_way_max
        self._held_bytes_max = held_bytes_max
        self._loop = loop
        self._now_us = now_us
        self._partition_count = partition_count
        self._describe = describe
        self._deadlines = Deadlines()
        self._timer: asyncio.TimerHandle | None = None

    # -- in

    def submit(
        self,
        request: Request,
        *,
        timeout_ms: int,
        forwarded: bool,
        reply: Reply,
        source: Source | None = None,
    ) -> None:
        """Take a request; `reply` is called exactly once, perhaps before this returns.

        `forwarded`: it came from a peer, which did the routing and will do it again. `source`: the
        connection that it came on, among whose like it is served fairly.
        """
        if isinstance(request, DescribeCluster):
            reply(ClusterView(self._describe()))
            return
        if self._parking.is_closed:
            self._refuse_at_once(leaving(), reply)
            return
        passes_on = False
        if isinstance(request, PassOn):
            if not forwarded:
                self._refuse_at_once(
                    InvalidRequest("only nodes ask each other to pass a request on"), reply
                )
                return
            passes_on, request = True, request.request
        try:
            min_index = 0
            if isinstance(request, AppendRequest):
                partition = partition_of_append(request, self._partition_count)
            else:
                partition = partition_of_read(request, self._partition_count)
                min_index = parse_token(request.token, partition)
        except InvalidRequest as error:
            self._refuse_at_once(error, reply)
            return
        if self._is_full(request, reply):
            return
        now = self._now_us()
        deadline = now + min(timeout_ms, TIMEOUT_MS_MAX) * 1000
        ticket = Ticket(request, partition, now, deadline, forwarded, reply, min_index, source, passes_on)
        self._deadlines.add(ticket)
        if self._timer is None:
            self._timer = self._loop.call_later(SWEEP_S, self._sweep)
        self._start(ticket)

    def _is_full(self, request: AppendRequest | ReadRequest, reply: Reply) -> bool:
        """Refuse what would be too much, before anything is done for it."""
        deadlines = self._deadlines
        if deadlines.count >= self._under_way_max:
            kind = QueueFull if isinstance(request, AppendRequest) else Overloaded
            reason = f"this node has {deadlines.count} requests under way"
        elif deadlines.size >= self._held_bytes_max:
            kind = Overloaded
            reason = f"this node holds {deadlines.size} bytes of requests"
        elif not isinstance(request, AppendRequest) and self._reads.is_full:
            kind = Overloaded
            reason = "too many reads wait for their turn at this node"
        else:
            return False
        self._refuse_at_once(kind(f"{reason}; nothing was done, try again shortly"), reply)
        return True

    # -- attempts

    def _start(self, ticket: Ticket) -> None:
        """Begin an attempt: do what the router says."""
        decision = self._decide(ticket)
        if decision is HERE:
            if ticket.local:
                self._reads.local(ticket)
            elif isinstance(ticket.request, AppendRequest):
                self._ingest.submit(ticket)
            else:
                self._reads.linearizable(ticket)
        elif isinstance(decision, Forward):
            self._forwarding.send(ticket, decision)
        elif decision is SEND_BACK:
            self._parking.send_back(ticket)
        else:
            assert isinstance(decision, Unroutable)
            if decision.is_worth_a_wait or ticket.in_doubt:
                self._parking.retry(ticket)
            else:
                self._measures.refused(decision.error)
                ticket.refuse(decision.error)

    def eased(self, source: Source) -> None:
        """A connection takes answers again, or has ended."""
        self._reads.eased(source)

    def _try_parked(self) -> None:
        """Try what is parked again, where the answer may be another one by now.

        One look for each partition: thousands may wait for the same election, and asking for each of
        them every few milliseconds would take the time that the election needs.
        """
        parking = self._parking
        self._again.add(parking.take_local())
        for partition in parking.partitions():
            decision = self._router.route_again(partition)
            if not isinstance(decision, Unroutable):
                self._again.add(parking.take(partition))
            elif not decision.is_worth_a_wait:
                parking.refuse(partition, decision.error)

    def _refuse_at_once(self, error: AllsourceError, reply: Reply) -> None:
        self._measures.refused(error)
        reply(error)

    def _sweep(self) -> None:
        """Every few milliseconds while anything is under way: deadlines, and another try for the parked."""
        self._timer = None
        try:
            self._expire()
            self._try_parked()
            self._again.add(self._forwarding.take_back())
        finally:  # one sweep that fails must not be the last
            if self._deadlines:
                self._timer = self._loop.call_later(SWEEP_S, self._sweep)

    def _expire(self) -> None:
        late = self._deadlines.expire(self._now_us())
        if late:
            self._reads.forget_finished()
            for error in late:
                self._measures.refused(error)

    # -- what came of the replica's turns (`Member.act`)

    def changed(self, change: RoleChange) -> None:
        """A group's role, term or leader changed."""
        self._ingest.changed(change)
        if change.leader is not None:
            self._again.add(self._parking.take(change.partition))

    def committed(self, partition: int, commit: int) -> None:
        """Everything up to `commit` is committed."""
        self._ingest.committed(partition, commit)
        self._reads.committed(partition, commit)

    def damaged(self, partition: int) -> None:
        """This node takes no part in the partition any more."""
        self._reads.damaged(partition)

    def read_ended(self, result: ReadResult) -> None:
        """A read barrier ended."""
        waiting: Barrier = result.ticket  # type: ignore[assignment]  # the core hands back what it was given
        waiting.confirmed(result.index, ok=result.ok)

    # -- leaving

    def close_intake(self) -> None:
        """From now on every new request is refused (definite), and so is what is parked."""
        self._parking.close()

    def under_way(self) -> int:
        """How many requests have no answer yet."""
        return len(self._deadlines)

    def close(self) -> None:
        """Answer whatever is left: nothing more will happen here."""
        self._parking.close()
        if self._timer is not None:
            self._timer.cancel()
        for ticket in self._deadlines.tickets():
            ticket.lost()
            ticket.refuse(leaving())


def partition_of_read(request: ReadRequest, partition_count: int) -> int:
    """The partition that a read is for; raises `InvalidRequest`."""
    if isinstance(request, ReadStream):
        check_stream_id(request.stream)
        return partition_of(request.stream, partition_count)
    if isinstance(request, ReadTag):
        check_tag(request.tag)
        if len(request.types) > TYPES_MAX:
            raise InvalidRequest(f"a read names at most {TYPES_MAX} event types")
        for type_ in request.types:
            check_event_type(type_)
        return partition_of_tag(request.tag, partition_count)
    if isinstance(request, ReadMark):
        check_name(request.name, "a mark")
    if not 0 <= request.partition < partition_count:
        raise InvalidRequest(f"partition {request.partition} is out of range: 0 to {partition_count - 1}")
    return request.partition
