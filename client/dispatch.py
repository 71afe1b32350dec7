"""Carries calls to the nodes that can answer them, again and again until the deadline.

Everything happens in callbacks of one event loop: a call costs a future and a place in two
dictionaries, no task and no timer of its own. One timer for all (`_sweep`) ends what is late, sends
again what waits, and asks who leads what (`watch`).
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable, Mapping

from allsource.client.calls import Call, Next, error_at_deadline, judge
from allsource.client.cluster_map import Address, ClusterMap
from allsource.client.connection import AlreadyConnected, NodeConnection
from allsource.client.gate import Gate
from allsource.client.routes import Routes
from allsource.client.watch import Watch
from allsource.cluster.protocol.frames import ProtocolError
from allsource.cluster.protocol.handshake import Welcome
from allsource.cluster.protocol.requests import ClusterView, Request, Result
from allsource.storage.model.errors import AllsourceError, InvalidRequest, NotOwner, Unavailable

SWEEP_S = 0.02
"""How exact deadlines and waits are."""

_PARTITIONS_MAX = 65_536
_HINTS_MAX = 3


class Dispatcher:
    """See the module's page. `on_members` is told the addresses of all members when a node tells them."""

    def __init__(self, gate: Gate, on_members: Callable[[Mapping[str, Address]], None]) -> None:
        self.map = ClusterMap()
        self.routes = Routes(self.map)
        self.gate = gate
        self.connected = asyncio.Event()
        """Set while at least one node is connected."""
        self._on_members = on_members
        self._watch = Watch(self.routes, self)
        self._loop = asyncio.get_running_loop()
        self._waiting: list[Call] = []
        self._ids = 0
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    # -- calls

    def check_usable(self) -> None:
        """Raise if the client is closed, or if the caller runs in another event loop."""
        if self._closed:
            raise Unavailable("this client is closed")
        if self._loop is not asyncio.get_running_loop():
            raise InvalidRequest(
                "this client was opened in another event loop; open one in each loop, or use BlockingClient"
            )

    def start(
        self, request: Request, partition: int, *, timeout_s: float, size: int, local: bool = False
    ) -> Call:
        """Send a call that has entered the gate. Its `future` gets the result or an `AllsourceError`."""
        call = self._new_call(request, partition, timeout_s, size, local)
        if self._closed:
            self._settle(call, Unavailable("this client is closed"))
        else:
            self._send(call)
        return call

    def ask(self, connection: NodeConnection, request: Request, timeout_s: float) -> Call:
        """Ask this very node a question of our own. It is sent nowhere else and waits for no room."""
        self.gate.calls += 1
        call = self._new_call(request, -1, timeout_s, 0, False)
        call.pinned = True
        self._hand_to(connection, call)
        return call

    def _new_call(self, request: Request, partition: int, timeout_s: float, size: int, local: bool) -> Call:
        self._ids += 1
        loop = self._loop
        if self._timer is None and not self._closed:
            self._timer = loop.call_later(SWEEP_S, self._sweep)
        deadline = loop.time() + timeout_s
        return Call(self._ids, request, partition, local, size, deadline, loop.create_future())

    def _send(self, call: Call) -> None:
        if call.local:
            connection = self.routes.keeper(call.partition)
        else:
            connection = self.routes.leader(call.partition) or self.routes.keeper(call.partition)
        if connection is None:
            self._wait(call)
        else:
            self._hand_to(connection, call)

    @staticmethod
    def _hand_to(connection: NodeConnection, call: Call) -> None:
        call.connection = connection
        connection.send(call)

    def _send_elsewhere(self, call: Call, avoid: str) -> None:
        connection = self.routes.other({avoid} if call.refused_by is None else {avoid, *call.refused_by})
        call.attempts += 1
        if connection is None or call.attempts > 2 * len(self.routes.open):
            self._wait(call)  # everybody passes it on: an election is under way
        else:
            self._hand_to(connection, call)

    def _wait(self, call: Call) -> None:
        call.attempts += 1
        call.connection = None
        call.retry_at = self._loop.time() + call.backoff_s(random.random())
        self._waiting.append(call)

    def _settle(self, call: Call, outcome: Result | AllsourceError) -> None:
        self.gate.leave(call.size)
        future = call.future
        if future.done():  # the caller was cancelled
            return
        if isinstance(outcome, AllsourceError):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)

    # -- what connections tell (see `connection.Listener`)

    def established(self, connection: NodeConnection, welcome: Welcome) -> None:
        if not 0 < welcome.partition_count <= _PARTITIONS_MAX:
            raise ProtocolError("malformed", f"a cluster of {welcome.partition_count} partitions")
        if welcome.node_id in self.routes.open:
            connection.drop(AlreadyConnected(welcome.node_id))
            return
        self.map.learn_cluster(welcome.partition_count, welcome.addresses)
        self.routes.open[welcome.node_id] = connection
        self.routes.relink()
        self.connected.set()
        self._retry_all()
        self._watch.look_now()
        self._on_members(welcome.addresses)

    def answered(
        self, connection: NodeConnection, results: list[tuple[int, Result | AllsourceError]]
    ) -> None:
        pending = connection.pending
        for id_, outcome in results:
            call = pending.pop(id_, None)
            if call is None:
                continue  # its deadline has ended it, or it was sent elsewhere meanwhile
            if type(outcome) is call.answer:
                self._settle(call, call.own(outcome))
            elif isinstance(outcome, AllsourceError):
                self._failed(call, outcome, connection)
            else:
                pending[id_] = call  # goes with the connection, as unanswered
                name = type(call.request).__name__
                raise ProtocolError("malformed", f"a {name} was answered by a {type(outcome).__name__}")

    def refused(self, connection: NodeConnection, call: Call, error: AllsourceError) -> None:
        call.connection = None
        self._settle(call, error)

    def lost(self, connection: NodeConnection, why: Exception) -> None:
        routes, node_id = self.routes, connection.node_id
        if routes.open.get(node_id) is connection:
            del routes.open[node_id]
            routes.silent.discard(node_id)
            routes.relink()
            self._watch.look_soon()
        if not routes.open:
            self.connected.clear()
        self.take_over(connection, connection.pending.values())

    # -- what becomes of calls

    def _failed(self, call: Call, error: AllsourceError, connection: NodeConnection) -> None:
        call.connection = None
        call.sent_at = 0.0
        if call.future.done() or call.pinned:
            self._settle(call, error)
            return
        match judge(call, error, connection.node_id):
            case Next.SETTLE:
                self._settle(call, error)
            case Next.LATER:
                self._watch.look_soon()
                self._wait(call)
            case Next.ELSEWHERE:
                self._watch.look_soon()
                self._pass_on(call, error, connection.node_id)

    def _pass_on(self, call: Call, error: AllsourceError, node_id: str) -> None:
        owner = error.details.get("owner") if isinstance(error, NotOwner) else None
        if isinstance(owner, str) and owner in self.routes.open and owner != node_id:
            self.map.learn_hint(call.partition, owner)
            self.routes.relink()
            if call.attempts < _HINTS_MAX:
                call.attempts += 1
                self._send(call)
                return
        if call.refused_by and call.refused_by >= self.routes.open.keys() and not call.may_have_happened:
            self._settle(call, error)  # no node sees a majority: waiting would not change it soon
            return
        self._send_elsewhere(call, node_id)

    def take_over(self, connection: NodeConnection, calls: Iterable[Call]) -> None:
        """These calls will get no answer from this connection: send them elsewhere, same ids."""
        for call in list(calls):
            connection.withdraw(call)
            call.lose_attempt()
            if call.future.done() or call.pinned or self._closed:
                self._settle(call, error_at_deadline(call))
            else:
                self._send_elsewhere(call, connection.node_id)

    def learn_view(self, view: ClusterView) -> None:
        """A node says who leads what. Calls that a former owner has not answered go to the new one.

        Calls at other nodes stay: a node that never led the partition has passed the call on and will
        answer it. And a first owner is not a new one: to learn of it is no reason to send anything twice.
        """
        changed = self.map.learn_view(view.value)
        self.routes.relink()
        if not changed:
            return
        for node_id, connection in self.routes.open.items():
            for call in list(connection.pending.values()):
                if changed.get(call.partition) == node_id and not call.local:
                    self._move(call, connection)
        self._retry_all()

    def leave_silent(self) -> None:
        """Take away from silent nodes what others can do: local reads, and calls whose owner answers (they
        were sent to the silent node to be passed on, before the owner was known or connected)."""
        routes = self.routes
        answering = len(routes.open) > len(routes.silent)
        for node_id in routes.silent:
            connection = routes.open[node_id]
            calls = [call for call in connection.pending.values() if not call.pinned]
            if answering:
                self.take_over(connection, [call for call in calls if call.local])
            for call in calls:
                if not call.local:
                    self._move(call, connection)

    def _move(self, call: Call, connection: NodeConnection) -> None:
        leader = self.routes.leader(call.partition)
        if leader is not None and leader is not connection and leader.node_id not in self.routes.silent:
            connection.withdraw(call)
            call.lose_attempt()
            self._hand_to(leader, call)

    def _retry_all(self) -> None:
        waiting, self._waiting = self._waiting, []
        for call in waiting:
            self._send(call)

    # -- time

    def _sweep(self) -> None:
        now = self._loop.time()
        self._timer = None
        self.gate.expire(now)
        self._end_late_calls(now)
        self._retry_due_calls(now)
        self._watch.tick(now)
        if self.gate.calls and not self._closed and self._timer is None:
            self._timer = self._loop.call_later(SWEEP_S, self._sweep)

    def _end_late_calls(self, now: float) -> None:
        for connection in self.routes.open.values():
            late = [call for call in connection.pending.values() if _is_over(call, now)]
            for call in late:
                connection.withdraw(call)
                self._settle(call, error_at_deadline(call))
        late = [call for call in self._waiting if _is_over(call, now)]
        if late:
            self._waiting = [call for call in self._waiting if not _is_over(call, now)]
        for call in late:
            self._settle(call, error_at_deadline(call))

    def _retry_due_calls(self, now: float) -> None:
        if self._waiting:
            due = [call for call in self._waiting if call.retry_at <= now]
            self._waiting = [call for call in self._waiting if call.retry_at > now]
            for call in due:
                self._send(call)

    def close(self) -> None:
        """End every call: unknown if it may have happened, else refused."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.gate.expire(float("inf"))
        for connection in list(self.routes.open.values()):
            self.take_over(connection, connection.pending.values())
        waiting, self._waiting = self._waiting, []
        for call in waiting:
            self._settle(call, error_at_deadline(call))


def _is_over(call: Call, now: float) -> bool:
    return call.deadline <= now or call.future.done()
