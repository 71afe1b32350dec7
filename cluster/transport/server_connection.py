"""The accepting side of one connection: requests in their turn, answers as far as they are read.

`Handler` is what a node does with what arrives, `Host` what the connection needs of the server that
accepted it. What each caller may cost, and how that is kept, `server` says.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from allsource.cluster.budgets.deliveries import Deliveries
from allsource.cluster.budgets.holdings import Holdings
from allsource.cluster.budgets.intake import Intake, Payload
from allsource.cluster.budgets.strangers import origin_of
from allsource.cluster.budgets.turns import Turns
from allsource.cluster.consensus.messages import Beat, Message
from allsource.cluster.consensus.sense import PeerNonsense
from allsource.cluster.protocol.codec import RequestItem
from allsource.cluster.protocol.frames import ProtocolError
from allsource.cluster.protocol.handshake import AcceptorConfig, Hello
from allsource.cluster.protocol.kinds import PEER
from allsource.cluster.protocol.node_session import (
    BeatArrived,
    Messages,
    Requests,
    ServerEvent,
    ServerSession,
)
from allsource.cluster.protocol.payload import malformed
from allsource.cluster.protocol.requests import PartitionPage, Request, Result, StreamPage
from allsource.cluster.protocol.session import Established
from allsource.cluster.sockets.connection import WRITE_HIGH_WATER_BYTES, Connection
from allsource.storage.model.errors import AllsourceError, InvalidRequest, Overloaded

HELD_BYTES_COUNTED = 16 << 10
"""Less than this is on its way through, and not counted."""
STALLED_S = 30.0
"""A client that for so long neither takes what waits for it nor completes a frame is let go."""


class Handler(Protocol):
    """What a node does with what arrives."""

    def request(
        self,
        connection: ServerConnection,
        request_id: int,
        timeout_ms: int,
        request: Request,
        forwarded: bool,
    ) -> None:
        """Answer with `connection.reply(request_id, ...)`, once, now or later. `forwarded`: from a peer."""
        ...

    def messages(self, peer: str, messages: list[Message]) -> None:
        """Consensus messages, in the order in which the peer sent them. Raises `PeerNonsense`."""
        ...

    def beat(self, peer: str, beat: Beat) -> None:
        """A heartbeat. Raises `PeerNonsense`."""
        ...

    def eased(self, connection: ServerConnection) -> None:
        """A connection that `may_be_given_answers` said no for takes them now, or has ended."""
        ...

    def lost(self, peer: str) -> None:
        """A connection that the peer had dialled has ended: a hint that it died (rule 29)."""
        ...


class Host(Protocol):
    """What a connection needs of its server."""

    handler: Handler
    acceptor: AcceptorConfig
    turns: Turns
    holdings: Holdings
    outgoing_bytes_max: int
    client_idle_s: float
    on_fault: Callable[[Exception], AllsourceError]
    """Hears of an error of ours that the handler raised, and says what to answer."""

    def opened(self, connection: ServerConnection) -> None:
        """A socket was accepted; who it is, the handshake will tell."""
        ...

    def admitted(self, connection: ServerConnection, hello: Hello) -> None:
        """A handshake ended well."""
        ...

    def ended(self, connection: ServerConnection) -> None:
        """It is gone."""
        ...

    def note_held(self, connection: ServerConnection, size: int) -> None:
        """So many bytes wait for a client to read them, or to complete a frame."""
        ...


class ServerConnection(Connection[ServerEvent]):
    """The accepting side of one connection."""

    def __init__(self, server: Host, loop: asyncio.AbstractEventLoop, session: ServerSession) -> None:
        super().__init__(loop, session)
        self._session = session
        self._server = server
        self._handler = server.handler
        self._deliveries = Deliveries(self, loop)
        self.decode = session.receive
        self._intake = Intake(self, server.turns, server.acceptor.limits.inflight_requests_max)
        self._reading = True
        self._waits_for_ease = False
        self._held = 0
        self._held_since = 0.0
        self._is_peer = False
        self._peer = ""
        self._heard = 0.0
        self._idle_timer: asyncio.TimerHandle | None = None

    origin = ""
    """Where it comes from, once it is connected."""

    @property
    def hello(self) -> Hello | None:
        """Who it is, proved; None before the end of the handshake."""
        return self._session.hello

    def reply(self, request_id: int, result: Result | AllsourceError) -> None:
        """Answer a request. Of no effect if the connection has ended."""
        if self.closing:
            return
        self._intake.answered()
        if isinstance(result, StreamPage | PartitionPage) and self._is_behind(2):
            result = Overloaded(
                "too many answers wait for this connection to read them; read, then ask again"
            )
        self._session.reply(request_id, result)
        self.schedule_flush()

    def may_be_given_answers(self) -> bool:
        """Whether the caller reads what is sent to it. If not, work whose answer may be large is to wait.

        The handler is told (`eased`) when the caller reads again, or when the connection has ended.
        """
        if self.closing:
            return True
        waits = self.write_paused or self._session.queued_bytes > WRITE_HIGH_WATER_BYTES
        if not waits and self._server.holdings.is_tight:
            waits = self.outgoing_bytes() > 0
        self._waits_for_ease = waits
        return not waits

    # -- from Connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.origin = origin_of(transport.get_extra_info("peername"))
        super().connection_made(transport)
        self._server.opened(self)

    def on_event(self, event: ServerEvent) -> None:
        if isinstance(event, Requests):
            self._intake.take_requests(event.items)
            return
        try:
            if isinstance(event, Messages):
                self._handler.messages(self._peer, event.items)
            elif isinstance(event, BeatArrived):
                self._handler.beat(self._peer, event.beat)
            else:
                assert isinstance(event, Established)
                self._admitted()
        except PeerNonsense as error:
            raise ProtocolError(error.code, error.message) from error

    def data_received(self, data: bytes) -> None:
        if self.closing or not self.established:
            super().data_received(data)
            return
        if self._is_peer:
            self._deliveries.take(data)
            return
        self._heard = self._loop.time()
        try:
            frames = self._session.cut(data)
        except ProtocolError as error:
            self.fail(error)
            return
        if frames:
            self._intake.take_frames(frames)
        self._note_held()

    def on_flushed(self) -> None:
        if self.write_paused:
            if self._is_behind(1):
                unread = f"{self.outgoing_bytes()} bytes of answers were not read"
                self.drop(ProtocolError("slow_reader", unread))
        elif self._waits_for_ease:
            self._ease()
        self._note_held()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._ease()
        self._note_held()

    def on_lost(self, error: Exception | None) -> None:
        self._intake.forget()
        self._deliveries.forget()
        if self._idle_timer is not None:
            self._idle_timer.cancel()
        self._server.ended(self)
        self._handler.eased(self)

    # -- requests (`intake.Connection`)

    def requests_in(self, payload: Payload) -> list[RequestItem]:
        """The requests in a client's frame; raises `ProtocolError`."""
        event = self._session.open(payload)
        if not isinstance(event, Requests):
            raise malformed("a client sends requests")
        return event.items

    def hand_over(self, item: RequestItem, waited_ms: int) -> None:
        """Have one request answered. Whatever is wrong with it fails it alone, and not the connection:
        a peer's link carries the requests of many callers."""
        request_id, timeout_ms, request = item
        if isinstance(request, InvalidRequest):
            self.reply(request_id, request)
            return
        if waited_ms > timeout_ms:
            self.reply(request_id, Overloaded("its time was over before its turn; nothing was done"))
            return
        try:
            self._handler.request(self, request_id, timeout_ms - waited_ms, request, self._is_peer)
        except Exception as error:
            self.reply(request_id, self._server.on_fault(error))

    def read(self, reads: bool) -> None:
        """Read the socket, or do not."""
        if self._reading != reads and self._transport is not None and not self.closing:
            self._reading = reads
            if reads:
                self._transport.resume_reading()
            else:
                self._transport.pause_reading()

    def _ease(self) -> None:
        self._waits_for_ease = False
        self._intake.go_on()
        self._handler.eased(self)

    # -- what is held for it (`holdings.Holder`)

    def held_bytes(self) -> int:
        """Unread answers and unfinished frames, exactly."""
        return self.outgoing_bytes() + self._session.partial_bytes + self._intake.held_bytes

    def drop_as_worst(self, total: int) -> None:
        """End it: too much is held for all clients together, and most of that is held for this one."""
        self.drop(ProtocolError("slow_reader", f"{total} bytes are held for clients, most of them for it"))

    def look_if_stalled(self, now: float) -> None:
        """Called now and then while anything is held: end the connection if nothing has moved for long."""
        held = self.held_bytes()
        if not held and self._waits_for_ease:  # it waited because much was held for all, not for itself
            self._ease()
        if held != self._held:
            self._held, self._held_since = held, now
        elif held and now - self._held_since >= STALLED_S:
            self.drop(ProtocolError("slow_reader", f"{held} bytes did not move for {STALLED_S:g} s"))

    def _note_held(self) -> None:
        if self._is_peer or self.closing:
            return
        held = self.held_bytes()
        if held < HELD_BYTES_COUNTED:
            held = 0
        if held != self._held:
            self._held, self._held_since = held, self._loop.time()
            self._server.note_held(self, held)

    def _is_behind(self, divisor: int) -> bool:
        return self.outgoing_bytes() > self._server.outgoing_bytes_max // divisor

    # -- admission and idleness

    def _admitted(self) -> None:
        hello = self._session.hello
        assert hello is not None
        self._is_peer = hello.role == PEER
        if self._is_peer:
            self._peer = hello.node_id
            self._intake.under_way_max = None
        else:
            self._heard = self._loop.time()
            self._idle_timer = self._loop.call_later(self._server.client_idle_s, self._look_idle)
        self._server.admitted(self, hello)

    def _look_idle(self) -> None:
        quiet = self._loop.time() - self._heard
        if self._intake.under_way == 0 and quiet >= self._server.client_idle_s:
            self.fail(
                ProtocolError("idle", f"no request for {quiet:.0f} s; connect again when there is one")
            )
        else:
            wait = max(self._server.client_idle_s - quiet, 1.0)
            self._idle_timer = self._loop.call_later(wait, self._look_idle)
