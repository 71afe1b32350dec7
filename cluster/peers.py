"""A node's own connections to every other member: two for each, dialled for ever.

a dials b and b dials a, and each speaks on what it dialled: consensus messages and forwarded requests on
the **data** connection (the answers to requests come back on it), heartbeats on the **beat** connection,
because a beat must not wait behind a megabyte of entries (CONSENSUS rule 25).

What happens to the connections is news about the peer, and a failover waits for it, so it is told at once:
`connected` when both handshakes have ended, `lost` at the first EOF or reset after that, `refused` when
nobody listens there any more or the handshake was refused. Redialling begins in the same moment as the
loss: after a SIGKILL the answer "refused" comes within a millisecond.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import socket
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Protocol

from allsource.cluster.connection import Connection
from allsource.cluster.consensus.messages import Beat, Message
from allsource.cluster.frames import ProtocolError
from allsource.cluster.handshake import BEAT, DATA, DiallerConfig, Welcome
from allsource.cluster.requests import Request, Result
from allsource.cluster.session import ClientSession, Established, Event, Results
from allsource.storage.errors import AllsourceError, OutcomeUnknown, Unavailable

CONNECT_TIMEOUT_S = 2.0
RETRY_FIRST_S = 0.01
RETRY_MAX_S = 0.5
STEADY_AFTER_S = 1.0
"""A link that lasted so long is redialled at once when it is lost, else after a moment: no hot loop."""
SWEEP_S = 0.25
ANSWER_GRACE_S = 0.5
"""How long beyond its deadline a forwarded request's own answer is waited for."""
OUTGOING_BYTES_MAX = 64 << 20

Reply = Callable[[Result | AllsourceError], None]


class Listener(Protocol):
    """Who wants to know what becomes of the peers."""

    def connected(self, peer: str, welcome: Welcome) -> None:
        """Both connections are up: the peer is alive and hears us."""
        ...

    def lost(self, peer: str) -> None:
        """EOF or reset after `connected`; once until the next `connected`."""
        ...

    def refused(self, peer: str, error: Exception) -> None:
        """Nobody listens there (`ConnectionRefusedError`), or it refused us (`ProtocolError`). Repeated
        with each attempt."""
        ...


class LinkConnection(Connection):
    """The dialling side of one connection."""

    def __init__(self, link: Link, loop: asyncio.AbstractEventLoop, session: ClientSession) -> None:
        super().__init__(loop, session)
        self.session = session
        self._link = link
        self._pending: dict[int, tuple[float, Reply]] = {}
        self._unsent: list[int] = []
        self._next_id = 0
        self._sweep_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._link.opened(self)
        super().connection_made(transport)

    def request(self, request: Request, timeout_ms: int, reply: Reply) -> None:
        """Send a request of which `reply` hears once."""
        self._next_id += 1
        try:
            self.session.request(self._next_id, timeout_ms, request)
        except AllsourceError as error:
            reply(error)
            return
        deadline = self._loop.time() + timeout_ms / 1000 + ANSWER_GRACE_S
        self._pending[self._next_id] = (deadline, reply)
        self._unsent.append(self._next_id)
        self.schedule_flush()
        if self._sweep_timer is None:
            self._sweep_timer = self._loop.call_later(SWEEP_S, self._sweep)

    def on_event(self, event: Event) -> None:
        if isinstance(event, Results):
            for request_id, result in event.items:
                waiting = self._pending.pop(request_id, None)
                if waiting is not None:
                    waiting[1](result)
        else:
            assert isinstance(event, Established)
            assert isinstance(event.by, Welcome)
            self._link.up(self, event.by)

    def on_flushed(self) -> None:
        self._unsent.clear()
        if self.write_paused and self.outgoing_bytes() > self._link.outgoing_bytes_max:
            self.drop(ProtocolError("slow_reader", f"{self.outgoing_bytes()} bytes were not read"))

    def on_lost(self, error: Exception | None) -> None:
        if self._sweep_timer is not None:
            self._sweep_timer.cancel()
        self._link.ended(self, error)
        self._fail_pending()

    def _fail_pending(self) -> None:
        pending, self._pending = self._pending, {}
        unsent = set(self._unsent)
        for request_id, (_, reply) in pending.items():
            if request_id in unsent:
                reply(unconnected(self._link.peer))
            else:
                reply(
                    OutcomeUnknown(f"the connection to node {self._link.peer} was lost before it answered")
                )

    def _sweep(self) -> None:
        """Give up on answers that are overdue: the peer should have answered by itself."""
        now = self._loop.time()
        overdue = [request_id for request_id, (deadline, _) in self._pending.items() if deadline < now]
        for request_id in overdue:
            waiting = self._pending.pop(request_id, None)
            if waiting is not None:
                waiting[1](OutcomeUnknown(f"node {self._link.peer} did not answer in time"))
        self._sweep_timer = self._loop.call_later(SWEEP_S, self._sweep) if self._pending else None


class Link:
    """One connection to one peer, for ever: dial, handshake, up, lost, dial again."""

    def __init__(self, links: PeerLinks, peer: str, channel: str, address: tuple[str, int]) -> None:
        self.peer = peer
        self.channel = channel
        self.connection: LinkConnection | None = None
        """The connection, while it is up."""
        self.welcome: Welcome | None = None
        self.outgoing_bytes_max = links.outgoing_bytes_max
        self._links = links
        self._address = address
        self._loop = asyncio.get_running_loop()
        self._trying: LinkConnection | None = None
        self._dialling: asyncio.Task[None] | None = None
        self._retry_timer: asyncio.TimerHandle | None = None
        self._failures = 0
        self._up_since = 0.0
        self._closed = False
        self._gone = asyncio.Event()

    def dial(self) -> None:
        """Begin an attempt; its outcome comes through `up` or `ended`."""
        self._retry_timer = None
        self._dialling = self._loop.create_task(self._dial(), name=f"dial {self.peer} {self.channel}")

    async def _dial(self) -> None:
        config = replace(self._links.config, channel=self.channel, expected_node=self.peer)

        def make() -> LinkConnection:
            return LinkConnection(self, self._loop, ClientSession(config, os.urandom(32)))

        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await connect(self._loop, make, *self._address)
        except (OSError, UnicodeError) as error:  # TimeoutError is one; a bad host name is the other
            self._abandon()
            self._failed(error)

    def _abandon(self) -> None:
        """Let go of a connection that was made in the very turn in which its dialling was given up.

        Nothing more is heard of it: uvloop then closes the socket without calling `connection_lost`.
        """
        orphan, self._trying = self._trying, None
        if orphan is not None:
            orphan.drop()

    def opened(self, connection: LinkConnection) -> None:
        """Connected; the handshake begins."""
        self._trying = connection

    def up(self, connection: LinkConnection, welcome: Welcome) -> None:
        """The handshake has ended well."""
        self.connection, self.welcome, self._trying = connection, welcome, None
        self._up_since = self._loop.time()
        self._links.link_up(self.peer)

    def ended(self, connection: LinkConnection, error: Exception | None) -> None:
        """The connection is gone, during its handshake or after it."""
        was_up = connection is self.connection
        if not was_up and connection is not self._trying:
            return  # an orphan: the next attempt is under way already
        self.connection = self._trying = None
        if self._closed:
            self._gone.set()
        elif was_up:
            self._failures = 0 if self._loop.time() - self._up_since >= STEADY_AFTER_S else 1
            if isinstance(error, ProtocolError) and error.by_peer:
                self._failures = 10  # what it was ended for, we should not say again within milliseconds
            self._retry()
            self._links.link_lost(self.peer)
        else:
            self._failed(error or ConnectionResetError("closed during the handshake"))

    def _failed(self, error: Exception) -> None:
        if self._closed:
            return
        is_refusal = isinstance(error, ProtocolError) and error.code != "timeout"
        if is_refusal:
            self._failures = max(self._failures, 10)  # it will not change its mind within milliseconds
        self._retry()
        if is_refusal or isinstance(error, ConnectionRefusedError):
            self._links.listener.refused(self.peer, error)

    def _retry(self) -> None:
        """Dial again: at once the first time, then after 10 ms, doubling to half a second."""
        wait = 0.0
        if self._failures:
            wait = min(RETRY_FIRST_S * 2 ** (self._failures - 1), RETRY_MAX_S)
            wait *= 0.5 + 0.5 * self._links.jitter()
        self._failures = min(self._failures + 1, 10)
        self._retry_timer = self._loop.call_later(wait, self.dial)

    def nudge(self) -> None:
        """Do not wait for the next attempt: dial now, unless an attempt is under way."""
        if self._retry_timer is not None:
            self._retry_timer.cancel()
            self._failures = 0
            self.dial()

    async def close(self) -> None:
        """Hang up and dial no more; the socket is closed afterwards, and all pending requests answered."""
        self._closed = True
        if self._retry_timer is not None:
            self._retry_timer.cancel()
            self._retry_timer = None  # a nudge that comes now must not dial
        if self._dialling is not None:
            self._dialling.cancel()
            await asyncio.wait([self._dialling])
            if self._dialling.cancelled():
                self._abandon()
        connection = self.connection or self._trying
        if connection is not None:
            connection.close()
            await self._gone.wait()


class PeerLinks:
    """The links to all other members. Everything but `close` is non-blocking."""

    def __init__(
        self,
        addresses: Mapping[str, tuple[str, int]],
        config: DiallerConfig,
        listener: Listener,
        jitter: Callable[[], float],
        *,
        outgoing_bytes_max: int = OUTGOING_BYTES_MAX,
    ) -> None:
        """`addresses` of all members (our own is left out); `config.channel` and `expected_node` are set
        per link; `jitter` gives numbers from 0 to 1 that spread the redialling (`random.random`)."""
        self.config = config
        self.listener = listener
        self.jitter = jitter
        self.outgoing_bytes_max = outgoing_bytes_max
        self._addresses = {n: a for n, a in addresses.items() if n != config.identity.node_id}
        self._data: dict[str, Link] = {}
        self._beat: dict[str, Link] = {}
        self._connected: set[str] = set()

    def start(self) -> None:
        """Begin to dial everybody."""
        for peer, address in self._addresses.items():
            self._data[peer] = Link(self, peer, DATA, address)
            self._beat[peer] = Link(self, peer, BEAT, address)
        for link in (*self._data.values(), *self._beat.values()):
            link.dial()

    def is_connected(self, peer: str) -> bool:
        """Whether `connected` was told and `lost` not since."""
        return peer in self._connected

    def nudge(self, peer: str) -> None:
        """The peer has just connected to us, so it is there: dial it now, without waiting."""
        for links in (self._data, self._beat):
            if peer in links:  # not before `start`
                links[peer].nudge()

    def send_messages(self, peer: str, messages: list[Message]) -> None:
        """Send now, in one frame if it fits; dropped if the link is down (consensus repeats itself)."""
        connection = self._data[peer].connection
        if connection is not None:
            connection.session.messages(messages)
            connection.flush()

    def send_beat(self, peer: str, beat: Beat) -> None:
        """Send a heartbeat now; dropped if the link is down."""
        connection = self._beat[peer].connection
        if connection is not None:
            connection.session.beat(beat)
            connection.flush()

    def request(self, peer: str, request: Request, timeout_ms: int, reply: Reply) -> None:
        """Forward a request. `reply` hears once, perhaps before this returns: the peer's result or
        error; `Unavailable` if it surely was not sent; `OutcomeUnknown` if it was and no answer came."""
        connection = self._data[peer].connection
        if connection is None or connection.closing:
            reply(unconnected(peer))
        else:
            connection.request(request, timeout_ms, reply)

    async def close(self) -> None:
        """Hang up everywhere and dial no more; nothing is told any more."""
        links = (*self._data.values(), *self._beat.values())
        await asyncio.gather(*[link.close() for link in links])

    # -- called by links

    def link_up(self, peer: str) -> None:
        welcome = self._data[peer].welcome
        if peer in self._connected or not (self._data[peer].connection and self._beat[peer].connection):
            return
        assert welcome is not None
        self._connected.add(peer)
        self.listener.connected(peer, welcome)

    def link_lost(self, peer: str) -> None:
        if peer in self._connected:
            self._connected.remove(peer)
            self.listener.lost(peer)


async def connect(
    loop: asyncio.AbstractEventLoop, make: Callable[[], asyncio.BaseProtocol], host: str, port: int
) -> None:
    """Connect to the first address of the host that answers.

    asyncio would do it too, but hides "connection refused" when a name has two addresses.
    """
    try:
        addresses = [str(ipaddress.ip_address(host))]
    except ValueError:
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        addresses = [str(info[4][0]) for info in found]
    for address in addresses:
        try:
            await loop.create_connection(make, address, port)
        except OSError:
            if address == addresses[-1]:
                raise
        else:
            return


def unconnected(peer: str) -> Unavailable:
    """The definite refusal of a request that never left."""
    return Unavailable(f"no connection to node {peer}; try again", node=peer)
