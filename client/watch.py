"""Keeps the client's picture of the cluster fresh: asks who leads what, and notices silent nodes.

A process that is killed closes its connections. One that is merely stopped, or behind a cut cable, does
not: calls that were sent to it would wait until their deadlines while another node has long taken over. So
a node that owes answers and says nothing is asked a question. While it stays silent, the others are asked
who leads now, and reads that any replica can answer go to them.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Protocol

from allsource.client.calls import Call
from allsource.client.connection import NodeConnection
from allsource.client.routes import Routes
from allsource.cluster.protocol.requests import ClusterView, DescribeCluster, Request

SILENT_S = 0.25
"""How long a node may owe answers and say nothing before it counts as silent."""
DEAD_S = 3.0
"""A connection that is silent for this long is closed and dialled again."""

_LOOK_EVERY_S = 2.0
_LOOK_SOON_S = 0.05
_LOOK_TIMEOUT_S = 0.5


class Desk(Protocol):
    """What the watch needs of the dispatcher."""

    def ask(self, connection: NodeConnection, request: Request, timeout_s: float) -> Call: ...
    def leave_silent(self) -> None: ...
    def learn_view(self, view: ClusterView) -> None: ...


class Watch:
    """See the module's page. `tick` comes every few hundredths of a second while calls are under way."""

    def __init__(self, routes: Routes, desk: Desk) -> None:
        self._routes = routes
        self._desk = desk
        self._loop = asyncio.get_running_loop()
        self._looked_at = 0.0
        self._look_at = 0.0
        self._asked: set[str] = set()

    def look_now(self) -> None:
        """Ask for the map at once, unless that has been done."""
        self._look_at = 0.0
        if not self._asked:
            self._look(self._loop.time())

    def look_soon(self) -> None:
        """Something has changed: ask for the map within a few hundredths of a second."""
        self._look_at = min(self._look_at, self._looked_at + _LOOK_SOON_S)

    def tick(self, now: float) -> None:
        """Let time pass."""
        self._watch_silence(now)
        if now >= self._look_at and not (self._asked - self._routes.silent):
            self._look(now)

    def _look(self, now: float) -> None:
        connection = self._routes.other()
        if connection is not None and connection.node_id not in self._asked:
            self._looked_at, self._look_at = now, now + _LOOK_EVERY_S
            self._ask(connection)

    def _ask(self, connection: NodeConnection) -> None:
        node_id = connection.node_id
        self._asked.add(node_id)
        call = self._desk.ask(connection, DescribeCluster(), _LOOK_TIMEOUT_S)
        call.future.add_done_callback(partial(self._told, node_id))

    def _told(self, node_id: str, answer: asyncio.Future[ClusterView]) -> None:
        self._asked.discard(node_id)
        if answer.cancelled() or answer.exception() is not None:
            self.look_soon()
            return
        self._desk.learn_view(answer.result())
        if not self._routes.all_owners_are_connected():
            self.look_soon()

    def _watch_silence(self, now: float) -> None:
        silences = {node: c.silence_s(now) for node, c in self._routes.open.items()}
        silent = {node for node, silence_s in silences.items() if silence_s > SILENT_S}
        fresh = silent - self._routes.silent
        if silent != self._routes.silent:
            self._routes.silent = silent
            self._routes.relink()
        for node in fresh - self._asked:
            self._ask(self._routes.open[node])  # a sign of life is enough
        if silent:
            self.look_soon()
            self._desk.leave_silent()
        for node, silence_s in silences.items():
            if silence_s > DEAD_S:
                self._routes.open[node].drop(TimeoutError(f"node {node} has been silent for {DEAD_S:g} s"))
