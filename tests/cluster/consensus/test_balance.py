"""To whom a leader gives what it leads, and what a node wants to be given (rule 36)."""

from __future__ import annotations

import pytest

from allsource.cluster.consensus.balance import (
    RETURN_SUSPICIONS,
    STAY_BEATS,
    STAY_SUSPICIONS_MAX,
    Balance,
)
from allsource.cluster.consensus.messages import Beat, GroupBeat
from allsource.cluster.membership.registry import NodeRegistry, Readiness
from tests.cluster.consensus.lab import SECOND, Bench

MEMBERS = ("b", "a", "c")
"""Partition 0 belongs to b; `Bench` is node a."""


class Node:
    """Node a: its group of partition 0, its registry, and what it was told."""

    def __init__(self, *, leads: bool) -> None:
        self.bench = Bench()
        self.registry = NodeRegistry(1, 3, members=MEMBERS)
        config = self.bench.node.config
        self.balance = Balance("a", {0: self.bench.group}, self.registry, config)
        self.shortest = STAY_BEATS * config.heartbeat_us
        self.suspicion = config.suspicion_us
        for peer in ("b", "c"):
            self.balance.peer_up(peer, 0)
        if leads:
            self.bench.elect()
            self.bench.accept("b")
            self.balance.leads(0, 0)

    def beat(self, peer: str, *, wants: bool = False, hears: tuple[str, ...] = ("a", "b", "c")) -> None:
        self.balance.beat(peer, Beat(1, [GroupBeat(0, 1, "", 0, 0, wants)], hears=hears))

    def successor(self, now: int) -> str | None:
        return self.balance.successor(self.bench.group, now)

    def wants(self, now: int = SECOND) -> bool:
        return self.balance.wants(self.bench.group, now)


def test_leadership_goes_to_the_owner_only_with_its_consent() -> None:
    node = Node(leads=True)
    assert node.successor(SECOND) is None
    node.beat("b", wants=True)
    assert node.successor(SECOND) == "b"
    node.beat("b", wants=False)
    assert node.successor(SECOND) is None


def test_who_wants_it_and_is_not_the_owner_does_not_get_it() -> None:
    node = Node(leads=True)
    node.beat("c", wants=True)
    assert node.successor(SECOND) is None


def test_who_is_back_gets_nothing_before_its_data_connection_is_proved_to_work() -> None:
    """After a cut, beats may pass long before entries and votes do; a transfer would stop all writes."""
    node = Node(leads=True)
    node.beat("b", wants=True)
    node.bench.group.peer_reachable("b", SECOND)
    assert node.successor(SECOND) is None
    node.bench.accept("b")
    assert node.successor(SECOND) == "b"


def test_what_a_peer_wanted_before_it_went_down_is_forgotten() -> None:
    node = Node(leads=True)
    node.beat("b", wants=True)
    node.balance.peer_down("b")
    node.balance.peer_up("b", SECOND)
    assert node.successor(2 * SECOND) is None


def test_a_leadership_that_comes_back_soon_stays_twice_as_long_up_to_a_limit() -> None:
    node = Node(leads=True)
    node.beat("b", wants=True)
    now, stay, limit = SECOND, node.shortest, STAY_SUSPICIONS_MAX * node.suspicion
    for _ in range(10):
        node.balance.given(0, now)
        now += 1_000
        node.balance.leads(0, now)
        stay = min(2 * stay, limit)
        assert node.successor(now + stay - 1) is None
        now += stay
        assert node.successor(now) == "b"
    assert stay == limit
    node.balance.given(0, now)
    now += RETURN_SUSPICIONS * node.suspicion
    node.balance.leads(0, now)
    assert node.successor(now + node.shortest) == "b", "it came back for another reason"


def test_a_transfer_that_was_not_taken_is_not_tried_again_at_once() -> None:
    node = Node(leads=True)
    node.beat("b", wants=True)
    node.balance.given(0, SECOND)
    tried_out = SECOND + node.suspicion
    assert node.successor(tried_out) is None
    assert node.successor(tried_out + 2 * node.shortest) == "b"


@pytest.mark.parametrize("readiness", [Readiness.WILLING, Readiness.YIELDS])
def test_who_stays_gives_nothing_to_who_does_not_want_it(readiness: Readiness) -> None:
    node = Node(leads=True)
    node.registry.set_node_readiness("a", readiness)
    assert node.successor(SECOND) is None


def test_who_leaves_gives_its_leadership_to_whoever_has_most_of_the_log() -> None:
    """At once, and without consent; who wants it comes before who does not, if both have as much."""
    node = Node(leads=True)
    node.registry.set_node_readiness("a", Readiness.LEAVES)
    assert node.successor(0) == "b", "c has acknowledged nothing"
    node.bench.accept("c")
    assert node.successor(0) == "b"
    node.beat("c", wants=True)
    assert node.successor(0) == "c"
    node.registry.set_node_health("b", False)
    node.registry.set_node_health("c", False)
    assert node.successor(0) is None


@pytest.mark.parametrize(
    ("hears", "wants"), [((("a",), ()), True), (((), ("a",)), True), (((), ()), False)]
)
def test_only_who_is_heard_by_a_majority_wants_to_lead(
    hears: tuple[tuple[str, ...], tuple[str, ...]], wants: bool
) -> None:
    node = Node(leads=False)
    node.registry.set_node_health("b", False)  # then a is the owner
    node.beat("b", hears=hears[0])
    node.beat("c", hears=hears[1])
    assert node.wants() is wants


def test_who_does_not_reach_a_majority_does_not_want_to_lead() -> None:
    """It hears them and they hear it; what it would send them does not arrive."""
    node = Node(leads=False)
    node.registry.set_node_health("b", False)
    node.beat("c")
    assert node.wants()
    node.registry.set_node_reached("c", False)
    assert not node.wants()


def test_who_could_not_replicate_does_not_want_to_lead() -> None:
    node = Node(leads=False)
    node.registry.set_node_health("b", False)
    node.beat("c")
    assert node.wants()
    for suspicions in (2, 16, 128, 128):
        node.bench.group._candidacy.led_in_vain(0)
        assert not node.wants(suspicions * node.suspicion - 1)
        assert node.wants(suspicions * node.suspicion)


def test_who_owns_nothing_or_leads_already_wants_nothing() -> None:
    idle, leader = Node(leads=False), Node(leads=True)
    for node in (idle, leader):
        node.beat("b")
        node.beat("c")
    leader.registry.set_node_health("b", False)
    assert not idle.wants()
    assert not leader.wants()
