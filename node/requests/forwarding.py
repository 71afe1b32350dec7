"""Requests that another node has: how many, for how long, and when they are taken back.

A request is taken back when another node is to be asked by now: a peer that was paused or cut off closes no
connection and says nothing. It may have stored an append before it lost the leadership, so the append is in
doubt from then on.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Protocol

from allsource.cluster.membership.router import HERE, Decision, Forward
from allsource.cluster.protocol.requests import PassOn, Request, Result
from allsource.node.observe.measures import Measures
from allsource.node.requests.pace import Pace
from allsource.node.requests.tickets import Ticket
from allsource.storage.model.errors import (
    AllsourceError,
    NoOwner,
    NotOwner,
    OutcomeUnknown,
    Overloaded,
    ShuttingDown,
    Unavailable,
)

FORWARDED_MAX = 16_384
"""Requests under way to one peer. Beyond it, or beyond what the peer answers in half of the time that a
request has, it is refused here: what is sent and not answered in time ends as unknown."""
ANSWER_SHARE = 10
ANSWER_MS_MAX = 500
"""A peer gets a tenth less time than is left, at most half a second: it knows what became of the request,
and its answer must be here before this node has to say that it does not know."""

_TRY_ANOTHER = frozenset((NotOwner, NoOwner, ShuttingDown, Unavailable))
"""Answers of a peer (or, the last one, of the link to it) that say no more than "not here, not now"."""


class Peers(Protocol):
    """The part of `PeerLinks` that forwarding needs."""

    def request(
        self,
        peer: str,
        request: Request,
        timeout_ms: int,
        reply: Callable[[Result | AllsourceError], None],
    ) -> None: ...


class Router(Protocol):
    """The part of `RequestRouter` that forwarding asks, and tells."""

    def route(self, partition: int) -> Decision: ...

    def could_not_pass_on(self, partition: int, peer: str) -> None: ...


class Forwarding:
    """See the module's page. `retry` is given tickets whose attempt has ended without an answer."""

    def __init__(
        self,
        peers: Peers,
        router: Router,
        measures: Measures,
        now_us: Callable[[], int],
        retry: Callable[[Ticket], None],
    ) -> None:
        self._peers = peers
        self._router = router
        self._measures = measures
        self._now_us = now_us
        self._retry = retry
        self._tickets: dict[tuple[int, str], dict[Ticket, None]] = {}
        """Requests for a partition's leader, by partition and the peer that has them."""
        self._ways: dict[str, _Way] = {}

    def send(self, ticket: Ticket, decision: Forward) -> None:
        """Have that peer serve it, or pass it on; refuse it if the peer has too many to answer in time."""
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
            error = _too_many(ticket, peer, way.under_way)
            self._measures.refused(error)
            ticket.refuse(error)
            return
        way.under_way += 1
        ticket.out = True
        self._measures.forwarded()
        if not ticket.local:
            self._tickets.setdefault((ticket.partition, peer), {})[ticket] = None
        self._peers.request(
            peer,
            PassOn(request) if decision.passes_on else request,
            left_ms,
            partial(self._answered, ticket, decision),
        )

    def take_back(self) -> list[Ticket]:
        """The requests for which another node is to be asked by now; they are in doubt."""
        found: list[Ticket] = []
        for key in list(self._tickets):
            partition, peer = key
            decision = self._router.route(partition)
            if decision is HERE or (isinstance(decision, Forward) and decision.node_id != peer):
                found += self._tickets.pop(key)
        for ticket in found:
            ticket.lost()
        return found

    def _answered(self, ticket: Ticket, decision: Forward, result: Result | AllsourceError) -> None:
        way = self._ways[decision.node_id]
        way.under_way -= 1
        way.pace.served(1, way.under_way, self._now_us())
        waits_for_it = ticket.local or self._forget((ticket.partition, decision.node_id), ticket)
        if not isinstance(result, AllsourceError):
            ticket.finish(result)  # also from a peer that it was taken back from: done is done
        elif not waits_for_it:
            return  # another attempt is under way and will answer
        elif isinstance(result, OutcomeUnknown):
            ticket.lost()
            self._retry(ticket)
        elif type(result) in _TRY_ANOTHER:
            ticket.out = False
            if decision.passes_on:
                self._router.could_not_pass_on(ticket.partition, decision.node_id)
            self._retry(ticket)
        else:
            ticket.refuse(result)

    def _forget(self, key: tuple[int, str], ticket: Ticket) -> bool:
        """The peer has answered; False if the ticket had been taken back from it."""
        tickets = self._tickets.get(key)
        if tickets is None or ticket not in tickets:
            return False
        del tickets[ticket]
        if not tickets:
            del self._tickets[key]
        return True


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
