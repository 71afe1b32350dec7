"""The simulated network keeps the promises that its plan makes, and tells nodes what they could know."""

from __future__ import annotations

from typing import Any

from tests.simulation.network import BEAT, DATA, Network, Wired
from tests.simulation.plan import NetworkPlan
from tests.simulation.world import World


class Ear:
    """A node that only listens."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.alive = True
        self.paused = False
        self.incarnation = 1
        self.heard: list[Any] = []
        self.told: list[str] = []

    def hear(self, lane: int, sender: str, payload: Any) -> None:
        assert lane == DATA
        self.heard += payload

    def peer_connected(self, peer: str) -> None:
        self.told.append(f"connected {peer}")

    def peer_lost(self, peer: str) -> None:
        self.told.append(f"lost {peer}")

    def peer_refused(self, peer: str) -> None:
        self.told.append(f"refused {peer}")


def _pair(plan: NetworkPlan) -> tuple[World, Network, Ear, Ear]:
    world = World(1)
    a, b = Ear("a"), Ear("b")
    network = Network(world, plan, [a, b])
    network.node_started(a)
    network.node_started(b)
    world.run_until(100_000)
    return world, network, a, b


def test_an_ordered_network_loses_and_reorders_nothing() -> None:
    world, network, _, b = _pair(NetworkPlan(jitter_us=5_000))
    for number in range(200):
        network.send_data("a", "b", [number])
    world.run_until(1_000_000)
    assert b.heard == list(range(200))


def test_the_other_kind_loses_doubles_and_reorders() -> None:
    world, network, _, b = _pair(NetworkPlan(ordered=False, jitter_us=5_000, drop=0.1, duplicate=0.1))
    for number in range(200):
        network.send_data("a", "b", [number])
    world.run_until(1_000_000)
    assert len(set(b.heard)) < 200
    assert len(b.heard) > len(set(b.heard))
    assert b.heard != sorted(b.heard)


def test_a_cut_holds_back_and_then_lets_through_in_order() -> None:
    world, network, _, b = _pair(NetworkPlan())
    network.cut("a", "b")
    network.send_data("a", "b", [1, 2])
    network.send_data("a", "b", [3])
    world.run_until(200_000)
    assert b.heard == []
    network.mend("a", "b")
    world.run_until(300_000)
    assert b.heard == [1, 2, 3]


def test_a_crash_is_an_eof_then_refused_and_a_restart_a_handshake() -> None:
    world, network, a, b = _pair(NetworkPlan())
    b.alive = False
    network.node_crashed(b)
    world.run_until(130_000)
    assert a.told[:3] == ["connected b", "lost b", "refused b"]
    b.alive, b.incarnation = True, 2
    network.node_started(b)
    world.run_until(300_000)
    assert a.told[-1] == "connected b"


def test_a_crash_behind_a_cut_is_silence_until_it_is_mended() -> None:
    world, network, a, b = _pair(NetworkPlan(give_up_us=10_000_000))
    network.cut("b", "a")
    b.alive = False
    network.node_crashed(b)
    world.run_until(500_000)
    assert a.told == ["connected b"]
    network.mend("b", "a")
    world.run_until(600_000)
    assert a.told[1] == "lost b"


def test_a_pause_is_silence() -> None:
    world, network, a, b = _pair(NetworkPlan())
    b.paused = True
    network.reset("a", "b")
    world.run_until(500_000)
    assert a.told == ["connected b", "lost b"], "a handshake with a stopped process does not finish"


def test_what_was_under_way_is_lost_with_its_connection() -> None:
    world, network, _, b = _pair(NetworkPlan(delay_us=10_000, jitter_us=0, reconnect_us=1))
    network.send_data("a", "b", [1])
    network.reset("a", "b")
    network.send_data("a", "b", [2])
    world.run_until(1_000_000)
    network.send_data("a", "b", [3])
    world.run_until(2_000_000)
    assert 3 in b.heard
    assert len(b.heard) < 3


def test_what_goes_over_a_new_connection_waits_for_nothing_of_an_older_one() -> None:
    """As TCP has it. What the next process sent stood behind a slow link's last packets (seed 500442)."""
    world, network, a, b = _pair(NetworkPlan(delay_us=1_000, jitter_us=0))
    beats: list[int] = []
    b.hear = lambda lane, sender, payload: (beats if lane == BEAT else b.heard).append(payload)  # type: ignore[method-assign]
    network.slow_down("a", "b", 1_000)
    network.send_beat("a", "b", 1)
    network.send_data("a", "b", [1])
    network.slow_down("a", "b", 1)
    a.alive = False
    network.node_crashed(a)
    a.alive, a.incarnation = True, 2
    network.node_started(a)
    world.run_until(200_000)
    network.send_beat("a", "b", 2)
    network.send_data("a", "b", [2])
    world.run_until(300_000)
    assert (beats, b.heard) == ([2], [[2]])


def test_a_new_process_waits_for_nothing_that_was_sent_while_there_was_none() -> None:
    """Beats have no connection of their own here: they go out to a dead node too, and are lost. What its
    next process was sent stood behind those that a slow link had taken. Of two nodes that were well, one
    did not hear the other for 400 ms, and both gave their leaderships up (seed 718923)."""
    world, network, _, b = _pair(NetworkPlan(delay_us=1_000, jitter_us=0))
    beats: list[int] = []
    b.hear = lambda _lane, _sender, payload: beats.append(payload)  # type: ignore[method-assign]
    b.alive = False
    network.node_crashed(b)
    network.slow_down("a", "b", 1_000)
    network.send_beat("a", "b", 1)
    network.slow_down("a", "b", 1)
    b.alive, b.incarnation = True, 2
    network.node_started(b)
    network.send_beat("a", "b", 2)
    world.run_until(110_000)
    assert beats == [2]


def test_a_message_may_be_held_until_its_receiver_is_another_process() -> None:
    world, network, _, b = _pair(NetworkPlan(ordered=False, late=1.0, late_us=500_000))
    network.send_data("a", "b", ["old"])
    b.incarnation += 1
    network.cut("a", "b")
    world.run_until(700_000)
    assert b.heard == ["old"], "it was on the receiver's side of the cut already"


def test_a_cut_may_take_the_data_and_spare_the_beats() -> None:
    world, network, _, b = _pair(NetworkPlan())
    beats: list[Any] = []
    hear = b.hear
    b.hear = lambda lane, sender, payload: (  # type: ignore[method-assign]
        beats.append(payload) if lane == BEAT else hear(lane, sender, payload)
    )
    network.cut("a", "b", (DATA,))
    network.send_data("a", "b", ["data"])
    network.send_beat("a", "b", "beat")
    world.run_until(200_000)
    assert (beats, b.heard) == (["beat"], [])
    network.mend("a", "b", (DATA,))
    world.run_until(300_000)
    assert b.heard == ["data"]


def test_what_was_hoarded_is_delivered_when_it_is_released() -> None:
    world, network, _, b = _pair(NetworkPlan())
    network.hoard("a", "b", copied=True)
    network.send_data("a", "b", [1, Wired(b"never doubled")])
    world.run_until(200_000)
    assert b.heard == [1, Wired(b"never doubled")]
    network.release("a", "b", 100_000, 200_000)
    world.run_until(500_000)
    assert b.heard[2:] == [1]
