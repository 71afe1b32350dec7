"""A link whose path is cut without a word: it stands again soon after the healing, not when TCP tries
again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from allsource.cluster.protocol.redial import STEADY_AFTER_S
from allsource.cluster.protocol.requests import ClusterView, DescribeCluster, Result
from allsource.cluster.sockets import dialling
from allsource.cluster.transport.link import LinkConnection
from allsource.cluster.transport.peers import PeerLinks
from allsource.cluster.transport.server import Server
from allsource.storage.model.errors import AllsourceError, OutcomeUnknown
from tests.cluster.live import Recorder, Route, serve, until
from tests.cluster.protocol.wire_samples import BEAT, dialler

pytestmark = pytest.mark.usefixtures("hang_up")


class Cut:
    """n1's links to n2, over a route that can be cut."""

    def __init__(self, links: PeerLinks, told: Recorder, route: Route, server: Server) -> None:
        self.links = links
        self.told = told
        self.route = route
        self.server = server
        self.dialled = 0

    @property
    def connections(self) -> list[LinkConnection | None]:
        return [self.links._data["n2"].connection, self.links._beat["n2"].connection]


@asynccontextmanager
async def linked(handler: Recorder, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Cut]:
    """While the route is cut, an address gives no answer at all: the first packet is lost as well."""
    server = await serve(handler)
    route = await Route(server.port).open()
    told = Recorder()
    links = PeerLinks(
        {"n2": ("127.0.0.1", route.port)}, dialler(), told, lambda: 0.5, connect_timeout_s=0.02
    )
    cut = Cut(links, told, route, server)
    original = dialling.connect

    async def connect(
        loop: Any, make: Callable[[], Any], addresses: Any, port: int, timeout_s: float
    ) -> None:
        cut.dialled += 1
        if route.is_cut:
            await asyncio.sleep(timeout_s)
            raise TimeoutError
        await original(loop, make, addresses, port, timeout_s)

    monkeypatch.setattr(dialling, "connect", connect)
    links.start()
    await until(lambda: told.told("connected"))
    try:
        yield cut
    finally:
        await links.close()
        await route.close()
        await server.close()


async def test_a_silent_link_is_dialled_afresh_until_a_new_connection_stands(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """After a cut of some seconds the old connection would have stayed silent for seconds more."""
    handler = Recorder()
    async with linked(handler, monkeypatch) as cut:
        old, dialled = cut.connections, cut.dialled
        cut.route.cut()
        cut.links.renew("n2")
        await until(lambda: cut.dialled >= dialled + 6, "an attempt after the other")
        assert cut.connections == old, "and the silent ones are still there: they may be good"
        cut.links.renew("n2")  # as often as it is said, there is one attempt at a time for each connection
        assert cut.told.news == [("connected", "n2", "replica-2")]
        cut.route.heal()
        await until(lambda: not set(cut.connections) & set(old), "new connections in the place of both")
        assert cut.told.told("lost") == 0
        assert cut.told.told("connected") >= 2, "told again: what was under way is lost"
        cut.links.send_beat("n2", BEAT)
        await until(lambda: handler.beats_of == {"n1": [BEAT]})
        assert all(one is not None and one.closing for one in old), "the silent ones are ended"
        assert handler.news == [], "and the peer did not take their end for ours"
        assert len(cut.server._peers) == 2


async def test_nothing_more_is_dialled_when_a_new_connection_stands(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with linked(Recorder(), monkeypatch) as cut:
        old = cut.connections
        cut.links.renew("n2")
        await until(lambda: not set(cut.connections) & set(old))
        dialled = cut.dialled
        answers: list[Result | AllsourceError] = []
        cut.links.request("n2", DescribeCluster(), 5000, answers.append)
        await until(lambda: answers)
        assert answers == [ClusterView({"up": True})]
        assert cut.dialled == dialled == 4


async def test_requests_on_a_silent_connection_are_answered_when_it_is_replaced(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with linked(Recorder(), monkeypatch) as cut:
        cut.route.cut()
        answers: list[Result | AllsourceError] = []
        cut.links.request("n2", DescribeCluster(), 60_000, answers.append)
        cut.route.heal()
        cut.links.renew("n2")
        await until(lambda: answers, "it is not waited for until its deadline")
        assert isinstance(answers[0], OutcomeUnknown)


async def test_a_peer_that_died_during_the_cut_is_lost_and_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its end did not reach us on the silent connection; that nobody listens any more does."""
    async with linked(Recorder(), monkeypatch) as cut:
        cut.route.cut()
        await cut.route.close()
        cut.route.heal()
        cut.links.renew("n2")
        await until(lambda: cut.told.told("refused"))
        assert [news[0] for news in cut.told.news][:3] == ["connected", "lost", "refused"]
        await cut.route.open()  # to be closed once more


async def test_who_connects_anew_in_place_of_an_old_connection_is_dialled_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The cut was between both, and the other one noticed it first. A connection that is new is left alone:
    otherwise two nodes would answer each other's renewals for ever."""
    async with linked(Recorder(), monkeypatch) as cut:
        young = cut.connections
        both = (cut.links._data["n2"], cut.links._beat["n2"])
        for one in both:
            one._up_since = asyncio.get_running_loop().time()  # however long a busy machine took
        cut.links.nudge("n2", again=True)
        await asyncio.sleep(0)
        assert cut.connections == young
        assert cut.dialled == 2
        for one in both:
            one._up_since -= STEADY_AFTER_S
        cut.links.nudge("n2")
        assert cut.dialled == 2, "a first connection says nothing of ours"
        cut.links.nudge("n2", again=True)
        await until(lambda: not set(cut.connections) & set(young))


async def test_a_name_that_cannot_be_looked_up_any_more_holds_nothing_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The name server may be behind the same cut: what it said last is good enough."""
    async with linked(Recorder(), monkeypatch) as cut:
        old, asked = cut.connections, asyncio.Event()

        async def silent(*_: Any) -> list[str]:
            asked.set()
            await asyncio.Event().wait()
            return []

        monkeypatch.setattr(dialling, "resolve", silent)
        monkeypatch.setattr(dialling, "RESOLVE_TIMEOUT_S", 10_000.0)
        cut.links.renew("n2")
        await until(lambda: not set(cut.connections) & set(old))
        assert asked.is_set()


async def test_closing_ends_a_renewal_too(monkeypatch: pytest.MonkeyPatch) -> None:
    for turns in range(20):
        async with linked(Recorder(), monkeypatch) as cut:
            cut.links.renew("n2")
            for _ in range(turns):
                await asyncio.sleep(0)
        assert not cut.server.connections
