"""Requests that nobody can serve just now: an election, a lost connection, a hand-over.

They wait here by partition, a bounded number of them, until somebody can be asked or their deadline comes.
A request that came from a peer does not wait: the peer routes it anew.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from allsource.node.observe.measures import Measures
from allsource.node.requests.tickets import Ticket
from allsource.storage.model.errors import AllsourceError, NotOwner, Overloaded, ShuttingDown


class Parking:
    """See the module's page."""

    def __init__(self, leader_of: Callable[[int], str | None], measures: Measures, most: int) -> None:
        """`leader_of`: who leads a partition, as far as this node knows; a peer is told when its request is
        sent back. `most`: how many requests may wait."""
        self._leader_of = leader_of
        self._measures = measures
        self._most = most
        self._tickets: dict[int, list[Ticket]] = {}
        self._count = 0
        self.is_closed = False
        """Whether nothing may wait any more: the node is leaving."""

    def retry(self, ticket: Ticket) -> None:
        """Take a ticket whose attempt at this node has ended without an answer."""
        if ticket.reply is None:
            return
        if ticket.forwarded:
            self.send_back(ticket)
        elif self.is_closed:
            self._refuse(ticket, leaving())
        elif self._count >= self._most:
            full = Overloaded(
                f"partition {ticket.partition} has no owner just now, and too many requests wait for one",
                partition=ticket.partition,
            )
            self._refuse(ticket, full)
        else:
            self._count += 1
            self._tickets.setdefault(_key(ticket), []).append(ticket)

    def send_back(self, ticket: Ticket) -> None:
        """It came from a peer, and this node is not the one to ask: let the peer route it anew."""
        partition = ticket.partition
        ticket.refuse(
            NotOwner(
                f"this node does not lead partition {partition}",
                partition=partition,
                owner=self._leader_of(partition),
            )
        )

    def partitions(self) -> list[int]:
        """The partitions whose owner is waited for."""
        return [key for key in self._tickets if key >= 0]

    def take(self, partition: int) -> Sequence[Ticket]:
        """Let all go that wait for the partition's owner."""
        return self._take(partition)

    def take_local(self) -> list[Ticket]:
        """Let all local reads go, of any partition."""
        return [ticket for key in list(self._tickets) if key < 0 for ticket in self._take(key)]

    def refuse(self, partition: int, error: AllsourceError) -> None:
        """Refuse, definitely, all that wait for the partition's owner, except those in doubt: an earlier
        attempt may have been stored."""
        for ticket in self._take(partition):
            if ticket.reply is None:
                continue
            if ticket.in_doubt:
                self.retry(ticket)
            else:
                self._refuse(ticket, error)

    def close(self) -> None:
        """Refuse all that wait, and whatever comes."""
        self.is_closed = True
        for key in list(self._tickets):
            for ticket in self._take(key):
                self.retry(ticket)

    def _take(self, key: int) -> Sequence[Ticket]:
        tickets = self._tickets.pop(key, ())
        self._count -= len(tickets)
        return tickets

    def _refuse(self, ticket: Ticket, error: AllsourceError) -> None:
        self._measures.refused(error)
        ticket.refuse(error)


def leaving() -> ShuttingDown:
    """What a node that shuts down says to whatever it is asked."""
    return ShuttingDown("this node is shutting down; ask another one")


def _key(ticket: Ticket) -> int:
    """Local reads, which any replica can serve, are kept apart."""
    return ~ticket.partition if ticket.local else ticket.partition
