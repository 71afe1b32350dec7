"""When the client asks who leads what, and which nodes it takes for silent; without a network."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from allsource.client.calls import Call
from allsource.client.cluster_map import ClusterMap
from allsource.client.routes import Routes
from allsource.client.watch import DEAD_S, SILENT_S, Watch
from allsource.cluster.protocol.requests import ClusterView, Request
from allsource.storage.model.errors import Unavailable


class FakeConnection:
    def __init__(self, node_id: str) -> None:
        self.node_id = node_id
        self.silence = 0.0
        self.pending: dict[int, Call] = {}
        self.closed_because: Exception | None = None

    def silence_s(self, now: float) -> float:
        return self.silence

    def drop(self, error: Exception) -> None:
        self.closed_because = error


class FakeDesk:
    """Keeps what it is asked to do; the test answers."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Call]] = []
        self.left = 0
        """How often silent nodes were to be left."""
        self.views: list[ClusterView] = []

    def ask(self, connection: Any, request: Request, timeout_s: float) -> Call:
        call = call_of(request)
        self.asked.append((connection.node_id, call))
        return call

    def leave_silent(self) -> None:
        self.left += 1

    def learn_view(self, view: ClusterView) -> None:
        self.views.append(view)


def call_of(request: Request) -> Call:
    return Call(1, request, 0, False, 0, 0.0, asyncio.get_running_loop().create_future())


class Scene:
    def __init__(self) -> None:
        self.map = ClusterMap()
        self.routes = Routes(self.map)
        self.desk = FakeDesk()
        self.nodes = {name: FakeConnection(name) for name in ("n1", "n2", "n3")}
        self.routes.open.update(self.nodes)  # type: ignore[arg-type]
        self.own("n1")
        self.watch = Watch(self.routes, self.desk)

    def own(self, owner: str | None) -> None:
        self.map.owners = [owner] * 32
        self.map.replicas = [("n1", "n2", "n3")] * 32
        self.routes.relink()

    async def answer(self, *, error: bool = False) -> None:
        """The last question is answered."""
        _, call = self.desk.asked[-1]
        if error:
            call.future.set_exception(Unavailable("no"))
        else:
            call.future.set_result(ClusterView({}))
        await asyncio.sleep(0)

    def asks(self, now: float) -> int:
        """How many questions a tick at `now` leads to."""
        before = len(self.desk.asked)
        self.watch.tick(now)
        return len(self.desk.asked) - before


@pytest.fixture
async def scene() -> Scene:
    return Scene()


async def test_the_map_is_asked_for_every_two_seconds(scene: Scene) -> None:
    assert scene.asks(100.0) == 1
    assert scene.asks(100.1) == 0, "one question at a time"
    await scene.answer()
    assert len(scene.desk.views) == 1
    assert [scene.asks(now) for now in (100.2, 101.0, 101.9)] == [0, 0, 0]
    assert scene.asks(102.1) == 1


@pytest.mark.parametrize("error", [False, True])
async def test_it_is_asked_for_again_soon_while_something_is_missing(scene: Scene, error: bool) -> None:
    scene.own("n1" if error else None)
    assert scene.asks(100.0) == 1
    await scene.answer(error=error)
    assert scene.asks(100.01) == 0
    assert scene.asks(100.1) == 1


async def test_what_has_changed_is_asked_for_soon_and_not_all_the_time(scene: Scene) -> None:
    scene.asks(100.0)
    await scene.answer()
    scene.watch.look_soon()
    scene.watch.look_soon()
    assert scene.asks(100.01) == 0
    assert scene.asks(100.06) == 1
    await scene.answer()
    assert scene.asks(100.2) == 0


async def test_a_silent_node_is_asked_itself_and_the_others_about_it(scene: Scene) -> None:
    scene.asks(100.0)
    await scene.answer()
    scene.nodes["n1"].silence = SILENT_S + 0.01
    assert scene.asks(100.3) == 2
    assert [node for node, _ in scene.desk.asked][-2] == "n1"
    assert scene.desk.asked[-1][0] != "n1"
    assert scene.routes.silent == {"n1"}
    assert scene.nodes["n1"] not in scene.routes.keepers[0]
    await scene.answer()
    assert scene.asks(100.4) == 1, "the others are asked again, as long as it is silent"
    assert scene.desk.asked[-1][0] != "n1"


async def test_a_silent_node_is_left_again_and_again_until_it_speaks(scene: Scene) -> None:
    """What nobody else could do at first, because its owner was not connected, somebody can do later."""
    scene.watch.tick(99.9)
    assert scene.desk.left == 0
    scene.nodes["n1"].silence = SILENT_S + 0.01
    scene.watch.tick(100.0)
    scene.watch.tick(100.02)
    assert scene.desk.left == 2
    scene.nodes["n1"].silence = 0.0
    scene.watch.tick(100.04)
    assert scene.desk.left == 2


async def test_a_node_that_speaks_again_is_used_again(scene: Scene) -> None:
    scene.nodes["n1"].silence = SILENT_S + 0.01
    scene.watch.tick(100.0)
    scene.nodes["n1"].silence = 0.0
    scene.watch.tick(100.1)
    assert scene.routes.silent == set()
    assert scene.nodes["n1"] in scene.routes.keepers[0]


async def test_a_node_that_stays_silent_is_given_up(scene: Scene) -> None:
    scene.nodes["n1"].silence = DEAD_S - 0.1
    scene.watch.tick(100.0)
    assert scene.nodes["n1"].closed_because is None
    scene.nodes["n1"].silence = DEAD_S + 0.1
    scene.watch.tick(100.2)
    assert isinstance(scene.nodes["n1"].closed_because, TimeoutError)
    assert scene.nodes["n2"].closed_because is None


async def test_the_first_node_is_asked_at_once_and_once(scene: Scene) -> None:
    scene.watch.look_now()
    scene.watch.look_now()
    assert len(scene.desk.asked) == 1
