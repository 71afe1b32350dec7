"""Routing: every decision of the service, and the user's methods."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

import pytest

from allsource.cluster.membership.registry import Node, NodeRegistry
from allsource.cluster.membership.router import (
    HERE,
    SEND_BACK,
    Decision,
    Forward,
    RequestRouter,
    Unroutable,
)
from allsource.storage.model.errors import InvalidRequest, NoMajority, NoOwner, NotOwner
from allsource.storage.model.partition import PartitionKey, partition_of

P = 1
"""A partition whose replicas are b, c, a in a cluster of three, in this order."""


@pytest.fixture
def registry() -> NodeRegistry:
    return NodeRegistry(members=("a", "b", "c"))


def down(registry: NodeRegistry, *ids: str) -> None:
    for id_ in ids:
        registry.set_node_health(id_, False)


def refusal(decision: Decision) -> NoMajority | NoOwner:
    assert isinstance(decision, Unroutable)
    assert isinstance(decision.error, NoMajority | NoOwner)
    assert decision.error.definite
    assert decision.error.details["partition"] == P
    assert f"partition {P} " in decision.error.message
    return decision.error


def test_the_leader_serves_and_everybody_else_forwards(registry: NodeRegistry) -> None:
    registry.record_leader(P, "c", 3)
    assert RequestRouter(registry, "c").route(P) is HERE
    assert RequestRouter(registry, "a").route(P) == Forward("c")
    assert RequestRouter(registry, "b").route(P) == Forward("c"), "the leader, not the owner by placement"


def test_no_leader_known_is_an_election(registry: NodeRegistry) -> None:
    error = refusal(RequestRouter(registry, "a").route(P))
    assert isinstance(error, NoOwner)
    assert "none is known" in error.message
    for onlooker in ("", "b"):
        assert isinstance(refusal(RequestRouter(registry, onlooker).route(P)), NoOwner)


def heard(registry: NodeRegistry, peer: str, leader: str, term: int = 3) -> None:
    registry.hearsay.heard(peer, P, leader, term)


def test_a_leader_that_is_out_of_reach_is_asked_through_a_peer_that_follows_it(
    registry: NodeRegistry,
) -> None:
    router = RequestRouter(registry, "a")
    registry.record_leader(P, "b", 3)
    heard(registry, "c", "b")
    assert router.route(P) == Forward("b"), "as long as it can be reached"
    down(registry, "b")
    assert isinstance(router.route(P), Unroutable), "c may have said so before b died"
    heard(registry, "c", "b")
    assert router.route(P) == Forward("c", passes_on=True)
    registry.record_leader(P, None, 3)
    assert router.route(P) == Forward("c", passes_on=True), "and also when the own group has given it up"
    heard(registry, "c", "")
    assert isinstance(router.route(P), Unroutable)


def test_a_bridge_is_a_healthy_peer_with_the_newest_word_and_never_leads_back(
    registry: NodeRegistry,
) -> None:
    router = RequestRouter(registry, "a")
    heard(registry, "c", "a")
    assert isinstance(router.route(P), Unroutable), "c would send it back to us"
    heard(registry, "c", "c")
    assert isinstance(router.route(P), Unroutable), "who leads says so by itself"
    heard(registry, "c", "b", term=3)
    heard(registry, "b", "c", term=4)
    assert router.route(P) == Forward("b", passes_on=True)
    down(registry, "b")
    heard(registry, "c", "b", term=3)
    assert router.route(P) == Forward("c", passes_on=True)
    router.could_not_pass_on(P, "c")
    assert isinstance(router.route(P), Unroutable)
    heard(registry, "c", "b", term=3)
    assert router.route(P) == Forward("c", passes_on=True), "the next beat says so still"
    down(registry, "c")
    assert isinstance(refusal(router.route(P)), NoMajority)


def test_a_leader_that_lives_and_is_not_reached_is_asked_through_a_peer_or_named(
    registry: NodeRegistry,
) -> None:
    router = RequestRouter(registry, "a")
    registry.record_leader(P, "b", 3)
    registry.set_node_reached("b", False)
    decision = router.route(P)
    assert isinstance(decision, Unroutable)
    assert isinstance(decision.error, NotOwner), "nothing to wait for: the caller may ask b"
    assert decision.error.details == {"partition": P, "owner": "b"}
    assert not decision.is_worth_a_wait
    heard(registry, "c", "b")
    assert router.route(P) == Forward("c", passes_on=True)
    registry.set_node_reached("c", False)
    assert isinstance(router.route(P), Unroutable)
    registry.set_node_reached("b", True)
    assert router.route(P) == Forward("b")


def test_a_leader_that_is_down_here_and_followed_by_peers_out_of_reach_is_named(
    registry: NodeRegistry,
) -> None:
    """Somebody leads, and there is no way to it from here: an election is not what to wait for."""
    router = RequestRouter(registry, "a")
    registry.record_leader(P, "b", 3)
    down(registry, "b")
    heard(registry, "c", "b")
    registry.set_node_reached("c", False)
    decision = router.route(P)
    assert isinstance(decision, Unroutable)
    assert isinstance(decision.error, NotOwner)
    assert decision.error.details["owner"] == "b"
    router.could_not_pass_on(P, "c")
    assert isinstance(refusal(router.route(P)), NoOwner)


def test_local_reads_go_to_replicas_within_reach() -> None:
    registry = NodeRegistry(1, 2, members=("a", "b", "c"))
    first, second = registry.replicas_of(0)
    onlooker = RequestRouter(registry, ({"a", "b", "c"} - {first, second}).pop())
    assert {onlooker.route_local(0) for _ in range(2)} == {Forward(first), Forward(second)}
    registry.set_node_reached(first, False)
    assert {onlooker.route_local(0) for _ in range(2)} == {Forward(second)}
    registry.set_node_reached(second, False)
    decision = onlooker.route_local(0)
    assert isinstance(decision, Unroutable)
    assert isinstance(decision.error, NotOwner)


def test_a_leader_that_is_down_is_not_tried(registry: NodeRegistry) -> None:
    registry.record_leader(P, "b", 3)
    down(registry, "b")
    error = refusal(RequestRouter(registry, "a").route(P))
    assert isinstance(error, NoOwner)
    assert "leader b is down" in error.message
    registry.record_leader(P, "c", 4)
    assert RequestRouter(registry, "a").route(P) == Forward("c")


def test_a_leader_that_left_is_not_tried(registry: NodeRegistry) -> None:
    registry.record_leader(P, "ghost", 3)
    assert isinstance(refusal(RequestRouter(registry, "a").route(P)), NoOwner)


def test_no_majority_names_who_is_down(registry: NodeRegistry) -> None:
    registry.record_leader(P, "b", 3)
    down(registry, "b", "c")
    error = refusal(RequestRouter(registry, "a").route(P))
    assert isinstance(error, NoMajority)
    assert error.details == {"partition": P, "replicas": ["b", "c", "a"], "down": ["b", "c"]}
    assert "down: b, c" in error.message


def test_a_leader_serves_whatever_it_sees_of_the_others(registry: NodeRegistry) -> None:
    """Retries have answers here still; what is new it refuses itself (`ingest`)."""
    registry.record_leader(P, "a", 3)
    down(registry, "b", "c")
    assert RequestRouter(registry, "a").route(P) is HERE


def test_a_node_knows_sooner_than_its_registry_whether_it_leads(registry: NodeRegistry) -> None:
    registry.record_leader(P, "a", 3)
    deposed = RequestRouter(registry, "a", leads=lambda partition: False)
    assert isinstance(refusal(deposed.route(P)), NoOwner), "never back to itself"
    registry.record_leader(P, "b", 3)
    assert RequestRouter(registry, "a", leads=lambda partition: True).route(P) is HERE


class Asked(NamedTuple):
    partition: int = P
    local: bool = False
    forwarded: bool = False
    passes_on: bool = False


APPEND, LOCAL = Asked(), Asked(local=True)
FROM_PEER, LOCAL_FROM_PEER = Asked(forwarded=True), Asked(local=True, forwarded=True)
TO_PASS_ON = Asked(forwarded=True, passes_on=True)
STORY = {
    "leads": {APPEND: HERE, LOCAL: HERE, FROM_PEER: HERE, LOCAL_FROM_PEER: HERE, TO_PASS_ON: HERE},
    "knows the leader": {
        APPEND: Forward("b"),
        LOCAL: HERE,
        FROM_PEER: SEND_BACK,
        LOCAL_FROM_PEER: HERE,
        TO_PASS_ON: Forward("b"),
    },
    "knows a peer that reaches the leader": {
        APPEND: Forward("c", passes_on=True),
        LOCAL: HERE,
        FROM_PEER: SEND_BACK,
        TO_PASS_ON: SEND_BACK,  # two hops, and never three
    },
    "knows nobody": {APPEND: Unroutable, LOCAL: HERE, FROM_PEER: SEND_BACK, TO_PASS_ON: SEND_BACK},
}


@pytest.mark.parametrize("case", STORY)
def test_every_request_has_one_decision(registry: NodeRegistry, case: str) -> None:
    if case == "leads":
        registry.record_leader(P, "a", 3)
    elif case == "knows the leader":
        registry.record_leader(P, "b", 3)
    elif case == "knows a peer that reaches the leader":
        heard(registry, "c", "b")
    router = RequestRouter(registry, "a")
    for asked, expected in STORY[case].items():
        decision = router.decide(asked)
        assert expected in (decision, type(decision)), (case, asked, decision)


def test_a_local_read_without_a_copy_goes_to_a_replica_unless_it_came_from_a_peer(
    registry: NodeRegistry,
) -> None:
    registry.record_leader(P, "b", 3)
    router = RequestRouter(registry, "a", hosts=lambda partition: False)
    assert {router.decide(LOCAL) for _ in range(2)} == {Forward("b"), Forward("c")}
    assert router.decide(LOCAL_FROM_PEER) is SEND_BACK


def test_what_found_nobody_is_not_tried_here_while_the_leadership_is_handed_over(
    registry: NodeRegistry,
) -> None:
    registry.record_leader(P, "a", 3)
    moving = {P}
    router = RequestRouter(registry, "a", hands_over=moving.__contains__)
    assert router.route(P) is HERE, "retries have their answers here still"
    decision = router.route_again(P)
    assert isinstance(decision, Unroutable)
    assert decision.is_worth_a_wait
    moving.clear()
    assert router.route_again(P) is HERE
    registry.record_leader(P, "b", 4)
    assert router.route_again(P) == Forward("b")


def test_a_healthy_leader_elsewhere_judges_its_majority_itself(registry: NodeRegistry) -> None:
    """Views are directed: it may well see nodes that we do not."""
    registry.record_leader(P, "c", 3)
    down(registry, "a", "b")
    assert RequestRouter(registry, "x").route(P) == Forward("c")


def test_a_local_read_stays_here_if_it_can(registry: NodeRegistry) -> None:
    router = RequestRouter(registry, "a")
    down(registry, "b", "c")
    assert router.route_local(P) is HERE, "without owner and majority too"
    decision = router.route(P)
    assert isinstance(refusal(decision), NoMajority)
    assert isinstance(decision, Unroutable)
    assert not decision.is_worth_a_wait


def test_local_reads_from_elsewhere_spread_over_the_healthy_replicas() -> None:
    registry = NodeRegistry(members=("a", "b", "c", "d", "e"))
    replicas = registry.replicas_of(P)
    outsider = next(node.id for node in registry.all_nodes() if node.id not in replicas)
    router = RequestRouter(registry, outsider)
    taken = Counter(router.route_local(P) for _ in range(30))
    assert taken == {Forward(member): 10 for member in replicas}
    down(registry, replicas[1])
    assert {router.route_local(P) for _ in range(30)} == {
        Forward(replicas[0]),
        Forward(replicas[2]),
    }
    down(registry, replicas[0], replicas[2])
    assert isinstance(refusal(router.route_local(P)), NoMajority)


def test_route_for_entity_is_the_leader_else_the_owner(registry: NodeRegistry) -> None:
    registry.register_node(Node("b", "b:1"))
    router = RequestRouter(registry)
    entity = next(f"user-{i}" for i in range(1000) if partition_of(f"user-{i}") == P)
    assert router.route_for_entity(entity) == registry.get_node("b")
    assert router.can_node_handle_entity("b", entity)
    registry.record_leader(P, "c", 1)
    assert router.route_for_entity(entity).id == "c"
    assert not router.can_node_handle_entity("b", entity)
    assert [node.id for node in router.nodes_for_read(entity)] == ["c", "b", "a"]
    down(registry, "c")
    assert router.route_for_entity(entity).id == registry.owner_of(P) != "c"
    assert {node.id for node in router.nodes_for_read(entity)} == {"a", "b"}
    assert router.is_available()


def test_no_healthy_node_is_an_error_that_names_the_partition(registry: NodeRegistry) -> None:
    router = RequestRouter(registry)
    down(registry, "a", "b", "c")
    with pytest.raises(NoMajority, match=r"partition 5 .*down: c, b, a"):
        router.route_for_partition(PartitionKey.from_partition_id(5))
    with pytest.raises(NoMajority, match=f"partition {partition_of('e')} "):
        router.nodes_for_read("e")
    assert not router.can_node_handle_entity("a", "e")
    assert not router.is_available()
    empty = RequestRouter(NodeRegistry())
    with pytest.raises(NoMajority, match="no members"):
        empty.route_for_entity("e")


def test_bad_input_is_refused(registry: NodeRegistry) -> None:
    router = RequestRouter(registry, "a")
    for call in (router.route, router.route_local, router.route_for_partition):
        with pytest.raises(InvalidRequest, match="out of range"):
            call(32)
    for method in (router.route_for_entity, router.nodes_for_read):
        with pytest.raises(InvalidRequest, match="empty"):
            method("")
    with pytest.raises(InvalidRequest, match="empty"):
        router.can_node_handle_entity("a", "")


def test_the_distribution_is_the_registrys(registry: NodeRegistry) -> None:
    assert RequestRouter(registry).partition_distribution() == registry.partition_distribution()
