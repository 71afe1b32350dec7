"""The one port of a node: peers and clients knock, prove who they are, and are served.

`Server` listens; each `ServerConnection` hands what arrives to a `Handler` and takes the answers, at any
later time. A connection that breaks the protocol, or reads too slowly, costs itself and nobody else:

* requests are decoded and handed over in small steps, all connections in turn, within a budget for each
  turn of the loop (`intake`, `turns`);
* a **client** has so many requests answered at a time (`inflight_requests_max`); further ones wait, and its
  socket is not read. The same when it does not read its answers. What waits for clients to read it, or to
  be completed, is bounded for all of them together (`holdings`), and not for longer than `STALLED_S`;
* a **peer**'s socket is read whatever its requests wait for, since consensus messages share it, but only
  for a few milliseconds in each turn of the loop (`deliveries`). If it does not read its answers until
  `outgoing_bytes_max` wait for it, it is dropped (so is a client).
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from allsource.cluster.budgets.deliveries import Deliveries
from allsource.cluster.budgets.holdings import Holdings
from allsource.cluster.budgets.intake import Intake, Payload
from allsource.cluster.budgets.strangers import STRANGERS_MAX, Strangers, origin_of
from allsource.cluster.budgets.turns import Turns
from allsource.cluster.consensus.messages import Beat, Message
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

OUTGOING_BYTES_MAX = 64 << 20
CONNECTIONS_MAX = 8_192
"""Clients that are served at a time; further ones are refused. Peers always get in."""
BACKLOG = 512
"""Connections that the kernel completes before they are accepted. All of them are accepted in one turn of
the loop, so this bounds how long a flood can hold it up."""
NONSENSE = frozenset(("nonsense", "malformed", "corrupt_entry", "frame_too_large"))
"""Codes of what a peer in order never says."""
CLIENT_IDLE_S = 900.0
HELD_BYTES_MAX = 256 << 20
"""Default of `limits.held_bytes_max`."""
HELD_BYTES_COUNTED = 16 << 10
"""Less than this is on its way through, and not counted."""
STALLED_S = 30.0
"""A client that for so long neither takes what waits for it nor completes a frame is let go."""
LOOK_S = 0.25
"""How often stalled clients are looked for, while anything is held."""
TURN_US = 10_000
"""About how long the requests of one loop turn may take to decode and hand over (`turns`)."""


class CannotListen(AllsourceError):
    """The node's port cannot be opened."""

    code = "cannot_listen"


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
        """Consensus messages, in the order in which the peer sent them."""
        ...

    def beat(self, peer: str, beat: Beat) -> None:
        """A heartbeat."""
        ...

    def eased(self, connection: ServerConnection) -> None:
        """A connection that `may_be_given_answers` said no for takes them now, or has ended."""
        ...

    def lost(self, peer: str) -> None:
        """A connection that the peer had dialled has ended: a hint that it died (rule 29)."""
        ...


class ServerConnection(Connection[ServerEvent]):
    """The accepting side of one connection."""

    def __init__(self, server: Server, loop: asyncio.AbstractEventLoop, session: ServerSession) -> None:
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
        """Whether it takes what is sent to it: the moment to do work whose answer may be large.

        If not, the handler is told (`eased`) when it does, or when the connection has ended.
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
        kind = type(event)
        if isinstance(event, Requests):
            self._intake.take_requests(event.items)
        elif isinstance(event, Messages):
            self._handler.messages(self._peer, event.items)
        elif isinstance(event, BeatArrived):
            self._handler.beat(self._peer, event.beat)
        else:
            assert kind is Established
            self._admitted()

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
        """Have one request answered. Whatever is wrong with it is its own failure, not the connection's:
        a peer's link carries everybody's requests."""
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
        """Of all clients' unread answers and unfinished frames, which are too many, most are this one's."""
        self.drop(ProtocolError("slow_reader", f"{total} bytes are held for clients, most of them for it"))

    def look_if_stalled(self, now: float) -> None:
        """Called now and then while anything is held: end it if nothing has moved for long."""
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


def _monotonic_us() -> int:
    return time.monotonic_ns() // 1000


def _unexpected(error: Exception) -> AllsourceError:
    return AllsourceError(f"an unexpected {type(error).__name__}; it may have happened")


class Server:
    """Accepts peers and clients. `start`, then `port` is the real one; `close` ends everything."""

    def __init__(
        self,
        handler: Handler,
        acceptor: AcceptorConfig,
        host: str,
        port: int,
        *,
        outgoing_bytes_max: int = OUTGOING_BYTES_MAX,
        connections_max: int = CONNECTIONS_MAX,
        strangers_max: int = STRANGERS_MAX,
        client_idle_s: float = CLIENT_IDLE_S,
        held_bytes_max: int = HELD_BYTES_MAX,
        now_us: Callable[[], int] = _monotonic_us,
        on_peer: Callable[[Hello, bool], None] = lambda _hello, _again: None,
        on_fault: Callable[[Exception], AllsourceError] = _unexpected,
        on_refusal: Callable[[str, ProtocolError], None] = lambda _peer, _error: None,
        on_nonsense: Callable[[str, ProtocolError], None] = lambda _peer, _error: None,
    ) -> None:
        """`port` 0 lets the system choose. `on_peer` hears of every peer that has proved who it is, and
        whether it had a connection: `PeerLinks.nudge` dials it back at once. `on_fault` hears of every
        error of ours that the handler raised in place of taking a request, and says what to answer.
        `on_refusal` hears why a proved peer ended its connection, if it said so; `on_nonsense` of every
        peer whose connection was ended for what it said."""
        self.handler = handler
        self.acceptor = acceptor
        self.host = host
        self.port = port
        self.outgoing_bytes_max = outgoing_bytes_max
        self.client_idle_s = client_idle_s
        self.holdings = Holdings(held_bytes_max)
        self.turns = Turns(self._call_soon, now_us, TURN_US)
        self._stall_timer: asyncio.TimerHandle | None = None
        self._on_peer = on_peer
        self.on_fault = on_fault
        self._on_refusal = on_refusal
        self._on_nonsense = on_nonsense
        self._connections_max = connections_max
        self._clients: set[ServerConnection] = set()
        self._strangers: Strangers[ServerConnection] = Strangers(strangers_max)
        self._connections: set[ServerConnection] = set()
        self._peers: dict[tuple[str, str], ServerConnection] = {}
        self._server: asyncio.Server | None = None
        self._empty = asyncio.Event()

    async def start(self) -> None:
        """Listen. Raises `CannotListen` with what to do."""
        loop = asyncio.get_running_loop()

        def accept() -> ServerConnection:
            return ServerConnection(self, loop, ServerSession(self.acceptor, os.urandom(32)))

        try:
            self._server = await loop.create_server(accept, self.host, self.port, backlog=BACKLOG)
        except OSError as error:
            raise _cannot_listen(self.host, self.port, error) from error
        self.port = self._server.sockets[0].getsockname()[1]

    @property
    def connections(self) -> Sequence[ServerConnection]:
        """The open connections."""
        return tuple(self._connections)

    def stop_accepting(self) -> None:
        """Close the door; who is inside stays."""
        if self._server is not None:
            self._server.close()

    async def close(self) -> None:
        """Close the door and all connections; what was answered is still written, for a second at most."""
        self.stop_accepting()
        for connection in self.connections:
            connection.close()
        if self._connections:
            self._empty.clear()
            await self._empty.wait()

    # -- called by connections

    def _call_soon(self, callback: Callable[[], None]) -> None:
        asyncio.get_running_loop().call_soon(callback)

    def note_held(self, connection: ServerConnection, size: int) -> None:
        """So many bytes wait for a client to read them, or to complete a frame."""
        self.holdings.note(connection, size)
        if self._stall_timer is None and size:
            self._stall_timer = asyncio.get_running_loop().call_later(LOOK_S, self._look_for_stalled)

    def _look_for_stalled(self) -> None:
        self._stall_timer = None
        loop = asyncio.get_running_loop()
        for holder in self.holdings.holders():
            assert isinstance(holder, ServerConnection)
            holder.look_if_stalled(loop.time())
        self.holdings.recount()
        if self.holdings.total:
            self._stall_timer = loop.call_later(LOOK_S, self._look_for_stalled)

    def opened(self, connection: ServerConnection) -> None:
        """A socket was accepted; who it is, the handshake will tell."""
        self._connections.add(connection)
        if self._server is None or not self._server.is_serving():
            connection.drop()  # it was accepted in the very turn in which the door was closed
            return
        put_out = self._strangers.add(connection, connection.origin)
        if put_out is not None:
            put_out.drop(ProtocolError("too_many_connections", "too many at a time showed nothing yet"))

    def admitted(self, connection: ServerConnection, hello: Hello) -> None:
        """A handshake ended well. A peer's new connection takes the place of its old one."""
        self._strangers.remove(connection)
        if hello.role != PEER:
            if len(self._clients) >= self._connections_max:
                connection.fail(self._too_many())
            else:
                self._clients.add(connection)
            return
        key = (hello.node_id, hello.channel)
        old = self._peers.pop(key, None)
        self._peers[key] = connection
        if old is not None:
            old.fail(ProtocolError("superseded", f"node {hello.node_id} has connected again"))
        self._end_earlier_starts(hello)
        self._on_peer(hello, old is not None)

    def _end_earlier_starts(self, hello: Hello) -> None:
        """What an earlier process of a peer still had under way is not delivered after its successor."""
        for key, other in list(self._peers.items()):
            if key[0] == hello.node_id and other.hello is not None and other.hello.start != hello.start:
                del self._peers[key]  # its end is no news: the peer is there
                other.fail(ProtocolError("superseded", f"node {hello.node_id} has started again"))

    def _too_many(self) -> ProtocolError:
        limit = self._connections_max
        return ProtocolError("too_many_connections", f"this node serves {limit} clients at a time")

    def ended(self, connection: ServerConnection) -> None:
        """A connection is gone."""
        self._connections.discard(connection)
        self._clients.discard(connection)
        self._strangers.remove(connection)
        self.holdings.forget(connection)
        if not self._connections:
            if self._stall_timer is not None:
                self._stall_timer.cancel()
                self._stall_timer = None
            self._empty.set()
        hello = connection.hello
        if hello is None or hello.role != PEER:
            return
        key = (hello.node_id, hello.channel)
        error = connection.error
        if error is not None and not error.by_peer and error.code in NONSENSE:
            self._on_nonsense(hello.node_id, error)
        if self._peers.get(key) is connection:
            del self._peers[key]
            self.handler.lost(hello.node_id)
        if connection.error is not None and connection.error.by_peer:
            self._on_refusal(hello.node_id, connection.error)


def _cannot_listen(host: str, port: int, error: OSError) -> CannotListen:
    if isinstance(error, socket.gaierror):
        advice = "that host name has no address; check `host` of the node"
    else:
        # Without a number: asyncio's error (3.13) where no address of the host is this machine's.
        advice = _ADVICE.get(error.errno or errno.EADDRNOTAVAIL) or error.strerror or str(error)
    return CannotListen(f"cannot listen on {host}:{port}: {advice}", host=host, port=port)


_ADVICE = {
    errno.EADDRINUSE: "the port is in use: is the node running already? Stop it, or choose another port",
    errno.EACCES: "this user may not open that port; choose one above 1023",
    errno.EADDRNOTAVAIL: "this machine does not have that address; check `host` of the node",
}
