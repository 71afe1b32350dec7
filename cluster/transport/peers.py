"""A node's own connections to every other member: two for each, dialled for ever.

a dials b and b dials a, and each speaks on what it dialled: consensus messages and forwarded requests on
the **data** connection (the answers to requests come back on it), heartbeats on the **beat** connection,
because a beat must not wait behind a megabyte of entries (rule 25).

A failover begins with the end of a connection, so its listener is told at once: `connected` when both
handshakes have succeeded, `lost` at the first EOF or reset after that, `refused` when nobody listens there
any more or the handshake was refused. A lost connection is dialled again in the same moment: after a
SIGKILL the answer "refused" comes within a millisecond. A path that is cut tells nothing; `renew` is for
that (`link` says how).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Protocol

from allsource.cluster.consensus.lanes import Traffic
from allsource.cluster.consensus.messages import Beat, Message
from allsource.cluster.protocol.handshake import DiallerConfig, Welcome
from allsource.cluster.protocol.kinds import BEAT, DATA
from allsource.cluster.protocol.requests import Request
from allsource.cluster.transport.link import CONNECT_TIMEOUT_S, Link, LinkSettings, Reply, unconnected

OUTGOING_BYTES_MAX = 64 << 20


class Listener(Protocol):
    """Who wants to know what becomes of the peers."""

    def connected(self, peer: str, welcome: Welcome) -> None:
        """Both connections are up: the peer is alive and hears us. Told again when a new one stands in the
        place of one that was silent: what was under way on that is lost."""
        ...

    def lost(self, peer: str) -> None:
        """EOF or reset after `connected`; once until the next `connected`."""
        ...

    def refused(self, peer: str, error: Exception) -> None:
        """Nobody listens there (`ConnectionRefusedError`), or it refused us (`ProtocolError`). Repeated
        with each attempt."""
        ...


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
        connect_timeout_s: float = CONNECT_TIMEOUT_S,
    ) -> None:
        """`addresses` of all members (our own is left out); `config.channel` and `expected_node` are set
        per link; `jitter` gives numbers from 0 to 1 that spread the redialling (`random.random`)."""
        self._listener = listener
        self._settings = LinkSettings(config, self, jitter, outgoing_bytes_max, connect_timeout_s)
        self._addresses = {n: a for n, a in addresses.items() if n != config.identity.node_id}
        self._data: dict[str, Link] = {}
        self._beat: dict[str, Link] = {}
        self._connected: set[str] = set()

    def start(self) -> None:
        """Begin to dial everybody."""
        for peer, address in self._addresses.items():
            self._data[peer] = Link(self._settings, peer, DATA, address)
            self._beat[peer] = Link(self._settings, peer, BEAT, address)
        for link in (*self._data.values(), *self._beat.values()):
            link.dial()

    def is_connected(self, peer: str) -> bool:
        """Whether `connected` was told and `lost` not since."""
        return peer in self._connected

    def nudge(self, peer: str, *, again: bool = False) -> None:
        """The peer has just connected to us, so it is there: dial it now, without waiting. `again`: in the
        place of a connection that it had."""
        for links in (self._data, self._beat):
            if peer in links:  # not before `start`
                links[peer].nudge(again=again)

    def renew(self, peer: str) -> None:
        """The peer is silent or not reached: dial it afresh; what stands ends when something better does.

        Of no effect on what is being dialled anyway."""
        for links in (self._data, self._beat):
            if peer in links:
                links[peer].renew()

    def traffic(self, peer: str) -> Traffic:
        """What the data connection tells of itself."""
        connection = self._data[peer].connection
        return Traffic(connection.answers, connection.outgoing_bytes()) if connection else Traffic(0, 0)

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
        if not (self._data[peer].connection and self._beat[peer].connection):
            return
        assert welcome is not None
        self._connected.add(peer)
        self._listener.connected(peer, welcome)

    def link_lost(self, peer: str) -> None:
        if peer in self._connected:
            self._connected.remove(peer)
            self._listener.lost(peer)

    def link_refused(self, peer: str, error: Exception) -> None:
        self._listener.refused(peer, error)
