"""Every door's one way in: serve here, or at the node that can, or say why not.

Doors call `submit` and get exactly one answer, by callback. What happens in between is one of few
things, and all of them end by the deadline:

    here       this node leads the partition (or the read is local): the write path or the reads
    forward    to the leader; or, if it cannot be reached from here, to a peer that passes it on to the
               leader (`PassOn`). Any other request that came from a peer is never forwarded again, but
               answered with `NotOwner`, so that no request can go in circles. Taken back when another
               node is to be asked: one that was paused or cut off closes no connection and says nothing
    park       nobody can be asked just now: an election, a lost connection, a hand-over. Parked
               requests are tried again when leadership changes and every few milliseconds
    refuse     no majority is up, or too much is parked: at once, definitely, with the reason

Appends carry event ids, so an append whose attempt ended without an answer may be sent again, to the
same owner or the next. Only when the deadline comes is the caller told that the outcome is unknown.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from allsource.cluster.budgets.turns import AtOnce
from allsource.cluster.consensus.messages import ReadResult, RoleChange
from allsource.cluster.membership.router import Forward, Here, RequestRouter, Unroutable
from allsource.cluster.protocol.requests import (
    AppendRequest,
    ClusterView,
    DescribeCluster,
    PassOn,
    ReadPartition,
    ReadStream,
    Request,
    Result,
    parse_token,
)
from allsource.node.observe.measures import Measures
from allsource.node.requests.again import Again
from allsource.node.requests.ingest import Ingest
from allsource.node.requests.pace import Pace
from allsource.node.requests.reads import Barrier, Reads
from allsource.node.requests.tickets import Deadlines, Reply, Source, Ticket
from allsource.storage.model.append import partition_of_append
from allsource.storage.model.errors import (
    AllsourceError,
    InvalidRequest,
    NoMajority,
    NoOwner,
    NotOwner,
    OutcomeUnknown,
    Overloaded,
    QueueFull,
    ShuttingDown,
    Unavailable,
)
from allsource.storage.model.partition import check_stream_id, partition_of

SWEEP_S = 0.010
"""How often parked requests are tried again and deadlines looked at, while there are any."""

TIMEOUT_MS_MAX = 600_000
"""Longest deadline that is honoured; what asks for more gets this."""


FORWARDED_MAX = 16_384
"""Requests under way to one peer. Beyond it, or beyond what the peer answers in half of the time that a
request has, it is refused here: what is sent and not answered in time ends as unknown."""
ANSWER_SHARE = 10
ANSWER_MS_MAX = 500
"""A peer gets a tenth less time than is left, at most half a second: it knows what became of the request,
and its answer must be here before this node has to say that it does not know."""


_TRY_ANOTHER = frozenset((NotOwner, NoOwner, ShuttingDown, Unavailable))
"""Answers of a peer (or, the last one, of the link to it) that say no more than "not here, not now"."""


class Replica(Protocol):
    """The part of `cluster.shell.replica.Replica` that routing needs."""

    def is_leader(self, partition: int) -> bool: ...

    def hosts(self, partition: int) -> bool: ...

    def is_handing_over(self, partition: int) -> bool: ...

    def leader_of(self, partition: int) -> str | None: ...

    def schedule(self) -> None: ...


class Peers(Protocol):
    """The part of `PeerLinks` that forwarding needs."""

    def request(
        self,
        peer: str,
        request: Request,
        timeout_ms: int,
        reply: Callable[[Result | AllsourceError], None],
    ) -> None: ...


class Service:
    """See the module's page. `describe` builds what `GET /v1/cluster` shows; `connect` must be called
    with the write path and the reads before the first request."""

    def __init__(
        self,
        replica: Replica,
        router: RequestRouter,
        peers: Peers,
        *,
        loop: asyncio.AbstractEventLoop,
        now_us: Callable[[], int],
        partition_count: int,
        parked_max: int,
        describe: Callable[[], dict[str, Any]],
        measures: Measures,
        turns: AtOnce,
        under_way_max: int,
        held_bytes_max: int,
    ) -> None:
        """`turns`: the budget for what is begun anew in one turn of the loop. `under_way_max` requests may
        be without an answer, and they may have `held_bytes_max` bytes."""
        self._measures = measures
        self._again = Again(turns, self._start)
        self._under_way_max = under_way_max
        self._held_bytes_max = held_bytes_max
        self._replica = replica
        self._router = router
        self._peers = peers
        self._loop = loop
        self._now_us = now_us
        self._partition_count = partition_count
        self._parked_max = parked_max
        self._describe = describe
        self._deadlines = Deadlines()
        self._parked: dict[int, list[Ticket]] = {}
        """By partition; local reads, which any replica can serve, under `~partition`."""
        self._parked_count = 0
        self._forwarded: dict[tuple[int, str], dict[Ticket, None]] = {}
        """Requests for a partition's leader, by partition and the peer that has them."""
        self._ways: dict[str, _Way] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._closing = False
        self._spread = 0

    def connect(self, ingest: Ingest, reads: Reads) -> None:
        """Where requests that are served here go."""
        self._ingest = ingest
        self._reads = reads

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
        if self._closing:
            self._refuse_at_once(_leaving(), reply)
            return
        passes_on = isinstance(request, PassOn)
        if isinstance(request, PassOn):
            if not forwarded:
                self._refuse_at_once(
                    InvalidRequest("only nodes ask each other to pass a request on"), reply
                )
                return
            request = request.request
        try:
            min_index = 0
            if isinstance(request, AppendRequest):
                partition = partition_of_append(request.parts, self._partition_count)
            else:
                partition = self._partition_of_read(request)
                min_index = parse_token(request.token, partition)
        except InvalidRequest as error:
            self._refuse_at_once(error, reply)
            return
        if self._is_full(request, reply):
            return
        now = self._now_us()
        deadline = now + min(timeout_ms, TIMEOUT_MS_MAX) * 1000
        ticket = Ticket(request, partition, now, deadline, forwarded, reply, min_index, source)
        ticket.passes_on = passes_on
        self._deadlines.add(ticket)
        if self._timer is None:
            self._timer = self._loop.call_later(SWEEP_S, self._sweep)
        self._start(ticket)

    def _is_full(self, request: AppendRequest | ReadStream | ReadPartition, reply: Reply) -> bool:
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

    def _partition_of_read(self, request: ReadStream | ReadPartition) -> int:
        if isinstance(request, ReadStream):
            check_stream_id(request.stream)
            return partition_of(request.stream, self._partition_count)
        if not 0 <= request.partition < self._partition_count:
            raise InvalidRequest(
                f"partition {request.partition} is out of range: 0 to {self._partition_count - 1}"
            )
        return request.partition

    # -- routing

    def _start(self, ticket: Ticket) -> None:
        """Begin an attempt."""
        if ticket.local:
            self._start_local(ticket)
        elif self._replica.is_leader(ticket.partition):
            self._start_here(ticket)
        else:
            self._start_elsewhere(ticket)

    def _start_here(self, ticket: Ticket) -> None:
        if isinstance(ticket.request, AppendRequest):
            self._ingest.submit(ticket)
            self._replica.schedule()
        else:
            self._reads.linearizable(ticket)

    def _start_local(self, ticket: Ticket) -> None:
        if self._replica.hosts(ticket.partition):
            self._reads.local(ticket)
            return
        self._spread += 1
        self._go(
            ticket,
            self._router.route_read(ticket.partition, local=True, spread=self._spread, elsewhere=True),
        )

    def _start_elsewhere(self, ticket: Ticket) -> None:
        self._go(ticket, self._router.route(ticket.partition))

    def _go(self, ticket: Ticket, decision: Here | Forward | Unroutable) -> None:
        if ticket.forwarded:
            if ticket.passes_on and isinstance(decision, Forward) and not decision.passes_on:
                self._forward(ticket, decision)
            else:
                self._send_back(ticket)
        elif isinstance(decision, Forward):
            self._forward(ticket, decision)
        elif (
            isinstance(decision, Unroutable)
            and isinstance(decision.error, NoMajority)
            and not ticket.in_doubt
        ):
            self._refuse(ticket, decision.error)
        else:
            self._park(ticket)

    def _send_back(self, ticket: Ticket) -> None:
        """It came from a peer, and this node is not the one to ask: let the peer route it anew."""
        owner = self._replica.leader_of(ticket.partition)
        error = NotOwner(
            f"this node does not lead partition {ticket.partition}", partition=ticket.partition, owner=owner
        )
        ticket.refuse(error)

    # -- forwarding

    def _forward(self, ticket: Ticket, decision: Forward) -> None:
        peer, request = decision.node_id, ticket.request
        left_ms = (ticket.deadline_us - self._now_us()) // 1000
        left_ms -= min(left_ms // ANSWER_SHARE, ANSWER_MS_MAX)
        if left_ms <= 0:
            ticket.expire()
            return
        way = self._ways.get(peer)
        if way is None:
            way = self._ways[peer] = _Way()
        wait_us = way.pace.wait_us(way.under_way)
        if way.under_way >= FORWARDED_MAX or wait_us > left_ms * 500:
            self._refuse(ticket, _too_many(ticket, peer, way.under_way))
            return
        way.under_way += 1
        ticket.out = True
        self._measures.forwarded()
        if not ticket.local:
            self._forwarded.setdefault((ticket.partition, peer), {})[ticket] = None
        self._peers.request(
            peer,
            PassOn(request) if decision.passes_on else request,
            left_ms,
            partial(self._on_answer, ticket, decision),
        )

    def _on_answer(self, ticket: Ticket, decision: Forward, result: Result | AllsourceError) -> None:
        way = self._ways[decision.node_id]
        way.under_way -= 1
        way.pace.served(1, way.under_way, self._now_us())
        key = (ticket.partition, decision.node_id)
        waits_for_it = ticket.local or self._forget_forwarded(key, ticket)
        if not isinstance(result, AllsourceError):
            ticket.finish(result)  # also from a peer that it was taken back from: done is done
        elif not waits_for_it:
            return  # another attempt is under way and will answer
        elif isinstance(result, OutcomeUnknown):
            ticket.lost()
            self.retry(ticket)
        elif type(result) in _TRY_ANOTHER:
            ticket.out = False
            if decision.passes_on:
                self._router.could_not_pass_on(ticket.partition, decision.node_id)
            self.retry(ticket)
        else:
            ticket.refuse(result)

    def _forget_forwarded(self, key: tuple[int, str], ticket: Ticket) -> bool:
        """The peer has answered; False if the ticket had been taken back from it."""
        tickets = self._forwarded.get(key)
        if tickets is None or ticket not in tickets:
            return False
        del tickets[ticket]
        if not tickets:
            del self._forwarded[key]
        return True

    def eased(self, source: Source) -> None:
        """A connection takes answers again, or has ended."""
        self._reads.eased(source)

    def _take_back(self) -> None:
        """Try anew what was forwarded to a peer, if another node is to be asked by now. The peer may have
        done it before it lost the leadership, so an append is in doubt from now on."""
        for key in list(self._forwarded):
            if not self._another_is_to_be_asked(*key):
                continue
            tickets = self._forwarded.pop(key)
            for ticket in tickets:
                ticket.lost()
            self._again.add(tickets)

    def _another_is_to_be_asked(self, partition: int, peer: str) -> bool:
        if self._replica.is_leader(partition):
            return True
        decision = self._router.route(partition)
        return isinstance(decision, Forward) and decision.node_id != peer

    # -- parking

    def retry(self, ticket: Ticket) -> None:
        """Take back a ticket whose attempt at this node has ended without an answer."""
        if ticket.reply is None:
            return
        if ticket.forwarded:
            self._send_back(ticket)
        else:
            self._park(ticket)

    def _park(self, ticket: Ticket) -> None:
        if ticket.reply is None:
            return
        if self._closing:
            self._refuse(ticket, _leaving())
        elif self._parked_count >= self._parked_max:
            full = Overloaded(
                f"partition {ticket.partition} has no owner just now, and too many requests wait for one",
                partition=ticket.partition,
            )
            self._refuse(ticket, full)
        else:
            key = ~ticket.partition if ticket.local else ticket.partition
            self._parked_count += 1
            self._parked.setdefault(key, []).append(ticket)

    def _refuse_at_once(self, error: AllsourceError, reply: Reply) -> None:
        self._measures.refused(error)
        reply(error)

    def _refuse(self, ticket: Ticket, error: AllsourceError) -> None:
        self._measures.refused(error)
        ticket.refuse(error)

    def _try_parked(self) -> None:
        """Try what is parked again, where the answer may be another one by now.

        One look for each partition: thousands may wait for the same election, and asking for each of
        them every few milliseconds would take the time that the election needs.
        """
        for key in list(self._parked):
            if key < 0:
                self._unpark(key)
            elif self._replica.is_leader(key):
                if not self._replica.is_handing_over(key):
                    self._unpark(key)
            else:
                decision = self._router.route(key)
                if isinstance(decision, Forward):
                    self._unpark(key)
                elif isinstance(decision, Unroutable) and isinstance(decision.error, NoMajority):
                    self._refuse_parked(key, decision.error)

    def _refuse_parked(self, partition: int, error: NoMajority) -> None:
        """No majority is left: a definite answer for all but those whose outcome is in doubt."""
        tickets = self._parked.pop(partition, [])
        kept = [ticket for ticket in tickets if ticket.in_doubt and ticket.reply is not None]
        self._parked_count -= len(tickets) - len(kept)
        if kept:
            self._parked[partition] = kept
        for ticket in tickets:
            if not ticket.in_doubt and ticket.reply is not None:
                self._refuse(ticket, error)

    def _unpark(self, key: int) -> None:
        tickets = self._parked.pop(key, ())
        self._parked_count -= len(tickets)
        self._again.add(tickets)

    def _sweep(self) -> None:
        """Every few milliseconds while anything is under way: deadlines, and another try for the parked."""
        self._timer = None
        try:
            self._expire()
            self._try_parked()
            self._take_back()
        finally:  # one sweep that fails must not be the last
            if self._deadlines:
                self._timer = self._loop.call_later(SWEEP_S, self._sweep)

    def _expire(self) -> None:
        late = self._deadlines.expire(self._now_us())
        if late:
            self._reads.forget_finished()
            for error in late:
                self._measures.refused(error)

    # -- what the replica tells (`cluster.shell.replica.Owner`)

    def pump(self) -> bool:
        """Propose what waits in the queue."""
        return self._ingest.pump()

    def changed(self, change: RoleChange) -> None:
        """A group's role, term or leader changed."""
        self._ingest.changed(change)
        if change.leader is not None:
            self._unpark(change.partition)

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
        self._closing = True
        for key in list(self._parked):
            tickets = self._parked.pop(key)
            self._parked_count -= len(tickets)
            for ticket in tickets:
                if ticket.reply is not None:
                    self._refuse(ticket, _leaving())

    def under_way(self) -> int:
        """How many requests have no answer yet."""
        return len(self._deadlines)

    def close(self) -> None:
        """Answer whatever is left: nothing more will happen here."""
        self._closing = True
        if self._timer is not None:
            self._timer.cancel()
        for ticket in self._deadlines.tickets():
            ticket.lost()
            ticket.refuse(_leaving())


class _Way:
    """What is under way to one peer, and how fast it answers."""

    __slots__ = ("pace", "under_way")

    def __init__(self) -> None:
        self.under_way = 0
        self.pace = Pace()


def _too_many(ticket: Ticket, peer: str, under_way: int) -> Overloaded:
    return Overloaded(
        f"{under_way} requests are under way to node {peer}, more than it answers in the time that this "
        "one has; it was not sent, try again later or wait longer",
        partition=ticket.partition,
        node=peer,
    )


def _leaving() -> ShuttingDown:
    return ShuttingDown("this node is shutting down; ask another one")
