"""The registry: the user's methods, agreement between registries, and what the cluster adds to them."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from allsource.cluster.membership.registry import Node, NodeRegistry, Readiness
from allsource.storage.model.errors import InvalidRequest


def registry_of(*ids: str, **options: int) -> NodeRegistry:
    registry = NodeRegistry(**options)
    for id_ in ids:
        registry.register_node(Node(id_, f"{id_}:7000"))
    return registry


def everything(registry: NodeRegistry) -> object:
    partitions = range(registry.partition_count)
    return (
        registry.all_nodes(),
        [registry.replicas_of(p) for p in partitions],
        [registry.owner_of(p) for p in partitions],
        [registry.succession(p) for p in partitions],
        [registry.quorum_is_up(p) for p in partitions],
        [registry.leader_of(p) for p in partitions],
    )


def test_an_empty_registry_is_not_healthy() -> None:
    registry = NodeRegistry()
    assert not registry.is_cluster_healthy()
    assert registry.node_count == registry.healthy_node_count == 0
    assert registry.node_for_partition(0) is None
    assert registry.replicas_of(0) == ()
    assert not registry.quorum_is_up(0)
    assert registry.partition_distribution() == {}


@pytest.mark.parametrize(("nodes", "each"), [(1, 32), (2, 16), (4, 8), (8, 4)])
def test_the_users_cluster_sizes(nodes: int, each: int) -> None:
    ids = [f"n{i}" for i in range(nodes)]
    registry = registry_of(*ids)
    assert registry.is_cluster_healthy()
    assert {id_: len(owned) for id_, owned in registry.partition_distribution().items()} == dict.fromkeys(
        ids, each
    )
    for node in registry.all_nodes():
        assert all(registry.node_for_partition(p) == node.id for p in node.assigned_partitions)


def test_losing_a_node_moves_only_its_partitions_and_they_come_home() -> None:
    registry = registry_of("a", "b", "c", "d", "e")
    before = [registry.owner_of(p) for p in range(32)]
    registry.set_node_health("a", False)
    after = [registry.owner_of(p) for p in range(32)]
    assert [p for p in range(32) if before[p] != after[p]] == [p for p in range(32) if before[p] == "a"]
    node = registry.get_node("a")
    assert node is not None
    assert not node.healthy
    assert node.assigned_partitions == ()
    assert [n.id for n in registry.healthy_nodes()] == ["b", "c", "d", "e"]
    assert registry.healthy_node_count == 4
    assert registry.node_count == 5
    assert sorted(len(n.assigned_partitions) for n in registry.healthy_nodes()) == [8, 8, 8, 8]
    registry.set_node_health("a", True)
    assert [registry.owner_of(p) for p in range(32)] == before


def test_replica_sets_follow_membership_and_never_suspicion() -> None:
    registry = registry_of("a", "b", "c", "d", "e")
    before = [registry.replicas_of(p) for p in range(32)]
    registry.set_node_health("b", False)
    assert [registry.replicas_of(p) for p in range(32)] == before
    assert registry.unregister_node("b")
    assert all("b" not in registry.replicas_of(p) for p in range(32))


def test_registering_again_replaces() -> None:
    registry = registry_of("a", "b")
    registry.register_node(Node("a", "elsewhere:1", healthy=False, assigned_partitions=(7,)))
    assert registry.get_node("a") == Node("a", "elsewhere:1", healthy=False)
    assert registry.node_count == 2
    assert set(registry.partition_distribution()["b"]) == set(range(32))


def test_an_unknown_id_changes_nothing() -> None:
    registry = registry_of("a")
    version, before = registry.version, everything(registry)
    registry.set_node_health("ghost", False)
    registry.set_node_health("a", True)
    assert not registry.unregister_node("ghost")
    assert not registry.record_incarnation("ghost", 3)
    assert registry.get_node("ghost") is None
    assert not registry.is_healthy("ghost")
    assert (registry.version, everything(registry)) == (version, before)


def test_all_down_is_not_healthy() -> None:
    registry = registry_of("a", "b")
    registry.set_node_health("a", False)
    assert registry.is_cluster_healthy(), "somebody could own everything"
    assert not any(registry.quorum_is_up(p) for p in range(32)), "but two survive no loss"
    registry.set_node_health("b", False)
    assert not registry.is_cluster_healthy()
    assert registry.succession(3) == ()


def test_registries_fed_the_same_facts_in_any_order_agree() -> None:
    seed = random.randrange(1 << 32)
    draw = random.Random(seed)
    ids = [f"node-{i}" for i in range(7)]
    seen = set()
    for _ in range(20):
        registry = NodeRegistry()
        for id_ in draw.sample(ids, len(ids)):
            registry.register_node(Node(id_))
        registry.register_node(Node("leaves"))
        for id_ in draw.sample(["node-2", "node-5"], 2):
            registry.set_node_health(id_, False)
        registry.unregister_node("leaves")
        for term in draw.sample(range(1, 6), 5):
            registry.record_leader(9, f"node-{term}", term)
        seen.add(repr(everything(registry)))
    assert len(seen) == 1, f"replay: random.Random({seed})"


def test_the_yaml_gives_the_order_and_later_nodes_follow_by_id() -> None:
    registry = NodeRegistry(members=("z", "m", "a"))
    assert [registry.owner_of(p) for p in range(4)] == ["z", "m", "a", "z"]
    registry.register_node(Node("y"))
    registry.register_node(Node("b"))
    registry.register_node(Node("a", "a:1"))
    assert [node.id for node in registry.all_nodes()] == ["z", "m", "a", "b", "y"]
    assert registry.get_node("a").address == "a:1"  # type: ignore[union-attr]


def test_the_replication_factor() -> None:
    assert {len(registry_of("a").replicas_of(p)) for p in range(32)} == {1}
    assert {len(registry_of("a", "b", "c", "d").replicas_of(p)) for p in range(32)} == {3}
    five = registry_of("a", "b", "c", "d", "e", replication_factor=5)
    assert {len(five.replicas_of(p)) for p in range(32)} == {5}
    three = registry_of("a", "b", "c", "d", "e")
    hosted = Counter(p for node in "abcde" for p in three.hosted_by(node))
    assert hosted == dict.fromkeys(range(32), 3)


def test_a_node_that_yields_is_passed_over_and_still_counts() -> None:
    registry = registry_of("a", "b", "c")
    before, version = everything(registry), registry.version
    registry.set_node_readiness("ghost", Readiness.YIELDS)
    registry.set_node_readiness("b", Readiness.WILLING)
    assert registry.version == version
    registry.set_node_readiness("b", Readiness.YIELDS)
    assert registry.version > version
    counts = Counter(registry.owner_of(p) for p in range(32))
    assert counts == {"a": 16, "c": 16}
    assert all(registry.succession(p)[-1] == "b" for p in range(32))
    assert all(registry.quorum_is_up(p) for p in range(32)), "it votes and stores"
    registry.set_node_readiness("b", Readiness.WILLING)
    assert everything(registry) == before


def test_quorum_and_succession_follow_health() -> None:
    registry = registry_of("a", "b", "c", partition_count=3)
    assert registry.succession(1) == ("b", "c", "a")
    registry.set_node_health("b", False)
    owner = registry.owner_of(1)
    assert registry.healthy_replicas_of(1) == ("c", "a")
    assert registry.succession(1)[0] == owner
    assert set(registry.succession(1)) == {"a", "c"}
    assert registry.quorum_is_up(1)
    registry.set_node_health("c", False)
    assert not registry.quorum_is_up(1)
    registry.set_node_health("b", True)
    assert registry.quorum_is_up(1)


def test_the_newest_term_names_the_leader() -> None:
    registry = registry_of("a", "b", "c")
    assert registry.leader_of(4) is None
    assert registry.record_leader(4, "b", 7)
    assert not registry.record_leader(4, "b", 7), "nothing new"
    assert not registry.record_leader(4, "a", 6), "an old leader's beat"
    assert not registry.record_leader(4, "a", 7), "a term has one leader"
    assert (registry.leader_of(4), registry.term_of(4)) == ("b", 7)
    assert registry.record_leader(4, None, 7), "it stepped down within its term"
    assert registry.leader_of(4) is None
    assert registry.record_leader(4, "b", 7), "or was only forgotten for a while"
    assert registry.record_leader(4, None, 8)
    assert (registry.leader_of(4), registry.term_of(4)) == (None, 8)
    assert registry.leader_of(5) is None


def test_a_new_incarnation_is_remembered_and_an_older_one_is_not_believed() -> None:
    registry = registry_of("a", "b", "c")
    assert registry.record_incarnation("a", 4)
    assert registry.record_incarnation("a", 4)
    assert not registry.record_incarnation("a", 3), "a message from before the restart"
    assert registry.record_incarnation("a", 5)
    assert registry.get_node("a").incarnation == 5  # type: ignore[union-attr]


def test_a_late_handshake_with_a_restarted_node_forgets_nothing_that_it_leads_by_now() -> None:
    """Found by killing nodes again and again: our own link to a restarted node came up after it had
    been elected, its leaderships were forgotten, and requests for them waited here until their
    deadlines."""
    registry = registry_of("a", "b", "c")
    registry.record_incarnation("a", 4)
    registry.record_leader(1, "a", 3)
    registry.record_incarnation("a", 5)
    assert registry.leader_of(1) == "a"


def test_who_leaves_leads_nothing() -> None:
    registry = registry_of("a", "b")
    registry.record_leader(1, "b", 2)
    registry.unregister_node("b")
    assert registry.leader_of(1) is None


def test_the_version_tells_every_change() -> None:
    registry = registry_of("a", "b", "c")
    changes = [
        lambda: registry.set_node_health("a", False),
        lambda: registry.record_leader(0, "b", 1),
        lambda: registry.record_incarnation("b", 1),
        lambda: registry.register_node(Node("d")),
        lambda: registry.unregister_node("d"),
    ]
    for change in changes:
        version = registry.version
        change()
        assert registry.version > version


@pytest.mark.parametrize("partition", [-1, 32])
def test_a_partition_out_of_range_is_refused(partition: int) -> None:
    registry = registry_of("a")
    for method in (
        registry.node_for_partition,
        registry.owner_of,
        registry.replicas_of,
        registry.quorum_is_up,
        registry.succession,
        registry.leader_of,
        registry.term_of,
    ):
        with pytest.raises(InvalidRequest, match="out of range"):
            method(partition)
    with pytest.raises(InvalidRequest, match="out of range"):
        registry.record_leader(partition, "a", 1)
