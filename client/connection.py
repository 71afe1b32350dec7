"""One connection to one node: bytes in, answers out; calls in, one write per turn of the loop.

A thin shell around `ClientSession`, which knows the protocol. A connection promises nothing: when it ends,
for whatever reason, it hands back the calls that were not answered.
"""

from __future__ import annotations

import asyncio
import os
from typing import Protocol

from allsource.client.calls import Call
from allsource.cluster.protocol.frames import ProtocolError
from allsource.cluster.protocol.handshake import DiallerConfig, Welcome
from allsource.cluster.protocol.requests import Result
from allsource.cluster.protocol.session import ClientSession, DiallerEvent, Results
from allsource.cluster.sockets.connection import Connection
from allsource.storage.model.errors import AllsourceError, InvalidRequest


class AlreadyConnected(Exception):
    """This address leads to a node that is connected under another one."""


_GRACE_MS = 50


class Listener(Protocol):
    """Who is told what happens on a connection."""

    def established(self, connection: NodeConnection, welcome: Welcome) -> None:
        """The handshake is done; calls may be sent."""
        ...

    def answered(
        self, connection: NodeConnection, results: list[tuple[int, Result | AllsourceError]]
    ) -> None:
        """Answers, by the id of their call."""
        ...

    def refused(self, connection: NodeConnection, call: Call, error: AllsourceError) -> None:
        """A call could not even be sent (it breaks a limit of this node); nothing happened."""
        ...

    def lost(self, connection: NodeConnection, why: Exception) -> None:
        """The connection has ended. The listener now answers for its `pending` calls."""
        ...


class Life(Protocol):
    """Who keeps the connection, and dials again when it has ended."""

    def opened(self, connection: NodeConnection) -> None:
        """The socket is connected; the handshake begins."""
        ...

    def ended(self, connection: NodeConnection, why: Exception) -> None:
        """It is over, whatever it came to."""
        ...


class NodeConnection(Connection[DiallerEvent]):
    """See the module's page. `pending` are the calls that wait for an answer here, oldest first."""

    def __init__(self, config: DiallerConfig, listener: Listener, life: Life) -> None:
        session = ClientSession(config, os.urandom(32))
        super().__init__(asyncio.get_running_loop(), session)
        self._session = session
        self._listener = listener
        self._life = life
        self._outgoing: list[Call] = []
        self._why: Exception | None = None
        self.pending: dict[int, Call] = {}
        self._owed_since = 0.0
        self._owes = False

    @property
    def welcome(self) -> Welcome | None:
        """What the node said of itself; None before the handshake is done."""
        return self._session.welcome

    @property
    def node_id(self) -> str:
        """The node at the other end; empty before the handshake is done."""
        welcome = self._session.welcome
        return welcome.node_id if welcome else ""

    def silence_s(self, now: float) -> float:
        """For how long the node has owed an answer and said nothing at all."""
        return now - self._owed_since if self._owes else 0.0

    def send(self, call: Call) -> None:
        """Send a call with whatever else is sent in this turn of the loop."""
        if not self._owes:
            self._owes, self._owed_since = True, self._loop.time()
        self.pending[call.id] = call
        self._outgoing.append(call)
        if not self._flush_scheduled:
            self.schedule_flush()

    def withdraw(self, call: Call) -> None:
        """The call is no longer this connection's; an answer that still comes is dropped."""
        self.pending.pop(call.id, None)
        if not call.sent_at and call in self._outgoing:
            self._outgoing.remove(call)

    def drop(self, error: Exception | None = None) -> None:
        """End the connection at once. `error` is what `lost` will be told."""
        self._why = self._why or error or ConnectionAbortedError("closed by this client")
        super().drop()

    # -- from Connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._life.opened(self)
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        if self.closing:
            return
        self._owed_since = self._loop.time()
        super().data_received(data)
        self._owes = bool(self.pending)

    def on_event(self, event: DiallerEvent) -> None:
        if isinstance(event, Results):
            self._listener.answered(self, event.items)
        else:
            assert isinstance(event.by, Welcome)
            self._listener.established(self, event.by)

    def resume_writing(self) -> None:
        super().resume_writing()
        self.flush()

    def flush(self) -> None:
        if self._outgoing and not self.write_paused and not self.closing:
            self._queue(self._outgoing)
        super().flush()

    def fail(self, error: ProtocolError) -> None:
        """Tell the node why, and end the connection at once: its calls do not wait for that to arrive."""
        if not self.closing:
            self._session.refuse(error)
            super().flush()
            self.drop(error)

    def on_lost(self, error: Exception | None) -> None:
        why = self._why or error or ConnectionResetError("the node closed the connection")
        self._life.ended(self, why)
        self._listener.lost(self, why)

    # -- within

    def _queue(self, calls: list[Call]) -> None:
        """Hand these calls to the session."""
        self._outgoing = []
        now = self._loop.time()
        request = self._session.request
        for call in calls:
            if call.future.done():
                continue  # its caller was cancelled: what was not sent does not happen
            left_ms = int((call.deadline - now) * 1000)
            try:
                # The node answers a little before our own deadline: it knows better what happened.
                request(call.id, max(1, left_ms - min(_GRACE_MS, left_ms // 10)), call.request)
                call.sent_at = now
            except Exception as error:  # whatever is wrong with one call, the others are sent
                del self.pending[call.id]
                self._listener.refused(self, call, _refusal(error))


def _refusal(error: Exception) -> AllsourceError:
    if isinstance(error, AllsourceError):
        return error
    return InvalidRequest(f"this request cannot be sent: {error!r}")
