"""One dialled connection to one peer, kept for ever: dial, handshake, up, lost, dial again.

When a path is cut, nobody is told: the connection stays, what is sent on it waits, and the kernel tries
again less and less often. So the connection can stay silent for seconds after the path is whole again.
That is why a connection that carries nothing is *renewed*: new ones are dialled beside it, a few a second,
each for a short time only (the kernel repeats a lost first packet after a whole second). The old one is
ended when a new one stands. Ending it is safe whatever its state: consensus repeats its messages, and
requests that were under way are answered with `OutcomeUnknown`.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

from allsource.cluster.protocol.frames import ProtocolError
from allsource.cluster.protocol.handshake import DiallerConfig, Welcome
from allsource.cluster.protocol.kinds import Channel
from allsource.cluster.protocol.node_session import PeerSession
from allsource.cluster.protocol.redial import STEADY_AFTER_S, is_refusal
from allsource.cluster.protocol.requests import Request, Result
from allsource.cluster.protocol.session import DiallerEvent, Established, Results
from allsource.cluster.sockets.connection import Connection
from allsource.cluster.sockets.dialling import Dialling, Manner
from allsource.storage.model.errors import AllsourceError, OutcomeUnknown, Unavailable

CONNECT_TIMEOUT_S = 0.3
"""For the first answer of an address. Whoever waits longer waits for the kernel to repeat a lost packet."""
HANDSHAKE_TIMEOUT_S = 2.0
SWEEP_S = 0.25
ANSWER_GRACE_S = 0.5
"""How long beyond its deadline a forwarded request's own answer is waited for."""

Reply = Callable[[Result | AllsourceError], None]


class News(Protocol):
    """Whom a link tells what becomes of it."""

    def link_up(self, peer: str) -> None:
        """A handshake has succeeded. The new connection may replace a silent one."""
        ...

    def link_lost(self, peer: str) -> None:
        """The connection that stood is gone."""
        ...

    def link_refused(self, peer: str, error: Exception) -> None:
        """Nobody listens there, or the handshake was refused."""
        ...


@dataclass(frozen=True, slots=True)
class LinkSettings:
    """What all links of a node have in common."""

    config: DiallerConfig
    news: News
    jitter: Callable[[], float]
    """Numbers from 0 to 1, which spread the redialling."""
    outgoing_bytes_max: int
    connect_timeout_s: float = CONNECT_TIMEOUT_S


class _Pending(NamedTuple):
    """A request whose answer is waited for."""

    deadline: float
    """Of the loop's clock, in seconds."""
    reply: Reply


class LinkConnection(Connection[DiallerEvent]):
    """The dialling side of one connection."""

    def __init__(self, link: Link, loop: asyncio.AbstractEventLoop, session: PeerSession) -> None:
        super().__init__(loop, session)
        self.session = session
        self._link = link
        self._pending: dict[int, _Pending] = {}
        self._unsent: list[int] = []
        self._next_id = 0
        self.answers = 0
        """Batches of answers that it has brought."""
        self._sweep_timer: asyncio.TimerHandle | None = None

    @property
    def handshake_timeout_s(self) -> float:
        return HANDSHAKE_TIMEOUT_S

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._link.opened(self)
        super().connection_made(transport)

    def request(self, request: Request, timeout_ms: int, reply: Reply) -> None:
        """Send a request. `reply` is called once, with its result or error."""
        self._next_id += 1
        try:
            self.session.request(self._next_id, timeout_ms, request)
        except AllsourceError as error:
            reply(error)
            return
        deadline = self._loop.time() + timeout_ms / 1000 + ANSWER_GRACE_S
        self._pending[self._next_id] = _Pending(deadline, reply)
        self._unsent.append(self._next_id)
        self.schedule_flush()
        if self._sweep_timer is None:
            self._sweep_timer = self._loop.call_later(SWEEP_S, self._sweep)

    def on_event(self, event: DiallerEvent) -> None:
        if isinstance(event, Results):
            self.answers += 1
            for request_id, result in event.items:
                waiting = self._pending.pop(request_id, None)
                if waiting is not None:
                    waiting.reply(result)
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
        for request_id, waiting in pending.items():
            if request_id in unsent:
                waiting.reply(unconnected(self._link.peer))
            else:
                waiting.reply(
                    OutcomeUnknown(f"the connection to node {self._link.peer} was lost before it answered")
                )

    def _sweep(self) -> None:
        """Answer requests whose deadline is over with `OutcomeUnknown`: the peer has not kept it."""
        now = self._loop.time()
        overdue = [id_ for id_, waiting in self._pending.items() if waiting.deadline < now]
        for request_id in overdue:
            waiting = self._pending.pop(request_id, None)
            if waiting is not None:
                waiting.reply(OutcomeUnknown(f"node {self._link.peer} did not answer in time"))
        self._sweep_timer = self._loop.call_later(SWEEP_S, self._sweep) if self._pending else None


class Link:
    """One connection to one peer, for ever. See the module's page."""

    def __init__(
        self, settings: LinkSettings, peer: str, channel: Channel, address: tuple[str, int]
    ) -> None:
        self.peer = peer
        self.connection: LinkConnection | None = None
        """The connection, while it is up."""
        self.welcome: Welcome | None = None
        self.outgoing_bytes_max = settings.outgoing_bytes_max
        self._news = settings.news
        self._config = replace(settings.config, channel=channel, expected_node=peer)
        self._loop = asyncio.get_running_loop()
        self._dialling: Dialling[LinkConnection] = Dialling(
            address,
            self._make,
            self._failed,
            Manner(settings.jitter, settings.connect_timeout_s),
            name=f"dial {peer} {channel}",
        )
        self._renews = False
        self._up_since = 0.0
        self._closed = False
        self._gone = asyncio.Event()

    def dial(self) -> None:
        """Begin an attempt; its outcome comes through `up` or `ended`."""
        self._dialling.dial()

    def _make(self) -> LinkConnection:
        return LinkConnection(self, self._loop, PeerSession(self._config, os.urandom(32)))

    def opened(self, connection: LinkConnection) -> None:
        """Connected; the handshake begins."""
        self._dialling.opened(connection)

    # -- what became of it

    def up(self, connection: LinkConnection, welcome: Welcome) -> None:
        """The handshake has succeeded."""
        silent, self.connection = self.connection, connection
        self.welcome = welcome
        self._dialling.over(connection)
        self._renews = False
        self._up_since = self._loop.time()
        if silent is not None:
            silent.drop(ProtocolError("superseded", f"connected with node {self.peer} again"))
        self._news.link_up(self.peer)

    def ended(self, connection: LinkConnection, error: Exception | None) -> None:
        """The connection is gone, during its handshake or after it."""
        was_up = connection is self.connection
        if was_up:
            self.connection = None
        elif not self._dialling.over(connection):
            return  # an orphan, or one that has a successor: the next attempt is under way or done already
        if self._closed:
            self._settle()
        elif was_up:
            self._lost(error)
        else:
            self._dialling.failed(error or ConnectionResetError("closed during the handshake"))

    def _lost(self, error: Exception | None) -> None:
        self._renews = False
        self._dialling.redial.lost(self._loop.time() - self._up_since, error)
        if not self._dialling.is_at_work:
            self._dialling.retry()
        self._news.link_lost(self.peer)

    def _failed(self, error: Exception) -> None:
        nobody_listens = isinstance(error, ConnectionRefusedError)
        if nobody_listens and self.connection is not None:
            self.connection.drop()  # its process is gone, and the end of the silent connection got lost
        if nobody_listens or is_refusal(error):
            self._news.link_refused(self.peer, error)

    # -- what others notice

    def renew(self) -> None:
        """The connection that is up carries nothing: dial beside it, until a new one stands."""
        if self.connection is not None and not self._renews and not self._closed:
            self._renews = True
            self._dialling.redial.begin_anew()
            if not self._dialling.is_at_work:
                self.dial()

    def nudge(self, *, again: bool = False) -> None:
        """The peer has just connected to us: do not wait for the next attempt, unless one is under way.
        `again`: in the place of a connection that it had, so what is between us was broken for a while."""
        if not self._dialling.hurry() and again and self._loop.time() - self._up_since >= STEADY_AFTER_S:
            self.renew()

    # -- the end

    async def close(self) -> None:
        """Hang up and dial no more; the socket is closed afterwards, and all pending requests answered."""
        self._closed = True
        await self._dialling.stop()
        for connection in (self._dialling.trying, self.connection):
            if connection is not None:
                connection.close()
        self._settle()
        await self._gone.wait()

    def _settle(self) -> None:
        if self._dialling.trying is None and self.connection is None:
            self._gone.set()


def unconnected(peer: str) -> Unavailable:
    """The definite refusal of a request that never left."""
    return Unavailable(f"no connection to node {peer}; try again", node=peer)
