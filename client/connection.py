"""One connection to one node: bytes in, answers out; calls in, one write per turn of the loop.

A thin asyncio shell around `ClientSession`, which knows the protocol. It keeps no promises of its own:
when it ends, for whatever reason, it hands back the calls that were not answered.
"""

from __future__ import annotations

import asyncio
import os
from typing import Protocol, cast

from allsource.client.calls import Call
from allsource.cluster.protocol.frames import ProtocolError
from allsource.cluster.protocol.handshake import DiallerConfig, Welcome
from allsource.cluster.protocol.requests import Result
from allsource.cluster.protocol.session import ClientSession, DiallerEvent, Established, Results
from allsource.storage.model.errors import AllsourceError, InvalidRequest

HANDSHAKE_TIMEOUT_S = 5.0


class AlreadyConnected(Exception):
    """This address leads to a node that is connected under another one."""


_WRITE_BUFFER_BYTES = 1 << 20
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
        """The connection has ended. Its `pending` calls are whoever takes them over's now."""
        ...


class NodeConnection(asyncio.Protocol):
    """See the module's page. `pending` are the calls that wait for an answer here, oldest first."""

    def __init__(self, config: DiallerConfig, listener: Listener) -> None:
        self._listener = listener
        self._loop = asyncio.get_running_loop()
        self._session = ClientSession(config, nonce=os.urandom(32))
        self._transport: asyncio.Transport | None = None
        self._outgoing: list[Call] = []
        self._flush_is_due = False
        self._paused = False
        self._why: Exception | None = None
        self._handshake_timer = self._loop.call_later(HANDSHAKE_TIMEOUT_S, self._handshake_is_late)
        self.welcome: Welcome | None = None
        self.pending: dict[int, Call] = {}
        self._owed_since = 0.0
        self._owes = False
        self.closed: asyncio.Future[Exception] = self._loop.create_future()
        """Done when the connection has ended, with the reason."""

    @property
    def node_id(self) -> str:
        """The node at the other end; empty before the handshake is done."""
        return self.welcome.node_id if self.welcome else ""

    def silence_s(self, now: float) -> float:
        """For how long the node has owed an answer and said nothing at all."""
        return now - self._owed_since if self._owes else 0.0

    def send(self, call: Call) -> None:
        """Send a call with whatever else is sent in this turn of the loop."""
        if not self._owes:
            self._owes, self._owed_since = True, self._loop.time()
        self.pending[call.id] = call
        self._outgoing.append(call)
        if not self._flush_is_due:
            self._flush_is_due = True
            self._loop.call_soon(self._flush)

    def withdraw(self, call: Call) -> None:
        """The call is no longer this connection's; an answer that still comes is dropped."""
        self.pending.pop(call.id, None)
        if not call.sent_at and call in self._outgoing:
            self._outgoing.remove(call)

    def close(self, why: Exception | None = None) -> None:
        """End the connection. `why` is what `lost` will be told."""
        if self._why is None:
            self._why = why or ConnectionAbortedError("closed by this client")
        self._handshake_timer.cancel()
        if self._transport is None:
            if not self.closed.done():
                self.closed.set_result(self._why)
        else:
            self._transport.abort()

    # -- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=_WRITE_BUFFER_BYTES)
        if self._why is not None:
            self._transport.abort()
            return
        self._write()

    def data_received(self, data: bytes) -> None:
        if self._why is not None:
            return
        self._owed_since = self._loop.time()
        try:
            for event in self._session.receive(data):
                self._meet(event)
            self._owes = bool(self.pending)
        except ProtocolError as error:
            self._session.refuse(error)
            self._write()
            self.close(error)
            return
        self._write()

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._flush()

    def connection_lost(self, exc: Exception | None) -> None:
        self._handshake_timer.cancel()
        why = self._why or exc
        self._why = why or ConnectionResetError("the node closed the connection")
        if not self.closed.done():
            self.closed.set_result(self._why)
        self._listener.lost(self, self._why)

    # -- within

    def _meet(self, event: DiallerEvent) -> None:
        match event:
            case Results(items=items):
                self._listener.answered(self, items)
            case Established(by=Welcome() as welcome):
                self._handshake_timer.cancel()
                self.welcome = welcome
                self._listener.established(self, welcome)

    def _flush(self) -> None:
        self._flush_is_due = False
        if self._paused or self._why is not None:
            return
        calls, self._outgoing = self._outgoing, []
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
        self._write()

    def _write(self) -> None:
        frames = self._session.take()
        if frames and self._transport is not None:
            # Not `writelines`: asyncio's own never pauses its writer in some Pythons (CVE-2024-12254).
            self._transport.write(b"".join(frames))

    def _handshake_is_late(self) -> None:
        self.close(TimeoutError(f"no handshake within {HANDSHAKE_TIMEOUT_S:g} s"))


def _refusal(error: Exception) -> AllsourceError:
    if isinstance(error, AllsourceError):
        return error
    return InvalidRequest(f"this request cannot be sent: {error!r}")
