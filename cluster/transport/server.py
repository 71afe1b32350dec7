"""The one port of a node: peers and clients knock, prove who they are, and are served.

`Server` listens and keeps the books. Each `ServerConnection` hands what arrives to a `Handler`, and takes
the answers at any later time. A connection that breaks the protocol, or reads too slowly, costs itself and
nobody else:

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
from typing import NamedTuple

from allsource.cluster.budgets.holdings import Holdings
from allsource.cluster.budgets.strangers import STRANGERS_MAX, Strangers
from allsource.cluster.budgets.turns import Turns
from allsource.cluster.protocol.frames import ProtocolError
from allsource.cluster.protocol.handshake import AcceptorConfig, Hello
from allsource.cluster.protocol.kinds import PEER, Channel
from allsource.cluster.protocol.node_session import ServerSession
from allsource.cluster.transport.server_connection import Handler, ServerConnection
from allsource.storage.model.errors import AllsourceError

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
LOOK_S = 0.25
"""How often stalled clients are looked for, while anything is held."""
TURN_US = 10_000
"""About how long the requests of one loop turn may take to decode and hand over (`turns`)."""


class _Lane(NamedTuple):
    """One of the connections of a peer: there is one for each channel."""

    node_id: str
    channel: Channel


class CannotListen(AllsourceError):
    """The node's port cannot be opened."""

    code = "cannot_listen"


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
        self._peers: dict[_Lane, ServerConnection] = {}
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
        lane = _Lane(hello.node_id, hello.channel)
        old = self._peers.pop(lane, None)
        self._peers[lane] = connection
        if old is not None:
            old.fail(ProtocolError("superseded", f"node {hello.node_id} has connected again"))
        self._end_earlier_starts(hello)
        self._on_peer(hello, old is not None)

    def _end_earlier_starts(self, hello: Hello) -> None:
        """What an earlier process of a peer still had under way is not delivered after its successor."""
        for lane, other in list(self._peers.items()):
            its = other.hello
            if lane.node_id == hello.node_id and its is not None and its.start != hello.start:
                del self._peers[lane]  # its end is no news: the peer is there
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
        lane = _Lane(hello.node_id, hello.channel)
        error = connection.error
        if error is not None and not error.by_peer and error.code in NONSENSE:
            self._on_nonsense(hello.node_id, error)
        if self._peers.get(lane) is connection:
            del self._peers[lane]
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
