"""Requests that are to be tried anew: all of them soon, but not all in one turn of the loop.

An election that ends, a link that breaks and a leadership that moves may each set free every request
that waited for it. To route, encode or refuse one takes microseconds, and there may be tens of
thousands; so they are begun in order, as many in each turn as its budget allows (`cluster.budgets.turns`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable

from allsource.cluster.budgets.turns import AtOnce
from allsource.node.requests.tickets import Ticket

_AT_ONCE = 32


class Again:
    """See the module's page. `start` begins an attempt of one ticket."""

    def __init__(self, turns: AtOnce, start: Callable[[Ticket], None]) -> None:
        self._turns = turns
        self._start = start
        self._tickets: deque[Ticket] = deque()

    def add(self, tickets: Iterable[Ticket]) -> None:
        """Have attempts of these begin when it is their turn; at once, if there is time."""
        self._tickets.extend(tickets)
        if self._tickets:
            self._turns.add(self)

    def step(self) -> bool:
        """Begin a few (`turns.Worker`)."""
        tickets = self._tickets
        for _ in range(min(len(tickets), _AT_ONCE)):
            ticket = tickets.popleft()
            if ticket.reply is not None:
                self._start(ticket)
        return bool(tickets)
