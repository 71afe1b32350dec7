"""Where a request goes: here, to a node that can serve it, or nowhere, and then why.

The user's methods (`route_for_entity` and its kind) answer with nodes, for people and tools. The
service asks `route` and `route_read` for each request; they answer with one of three small values,
so that the service has no rule about ownership of its own.

A write or a linearizable read goes to the leader that *is*, not to the owner that should be: only the
leader can serve it, and between an election and the hand-over to the preferred owner the two differ.
A leader that looks down is not tried, so that its requests wait for the next one here, where they can
be answered, and not in a dead connection. A node that leads a partition itself, but sees no majority
of its replicas, refuses at once with a definite reason; what it took in would only hang until it
steps down, and then be unknown.
"""

from __future__ import annotations

from dataclasses import dataclass

from allsource.cluster.membership.registry import Node, NodeRegistry
from allsource.storage.model.errors import NoMajority, NoOwner, Unavailable
from allsource.storage.model.partition import EntityId, PartitionKey, partition_of


@dataclass(frozen=True, slots=True)
class Here:
    """This node serves it."""


@dataclass(frozen=True, slots=True)
class Forward:
    """That node serves it; or (`passes_on`) it follows the one that does, which is out of reach here."""

    node_id: str
    passes_on: bool = False


@dataclass(frozen=True, slots=True)
class Unroutable:
    """Nobody can serve it now. `NoMajority`: refuse at once. `NoOwner`: worth a short wait."""

    error: Unavailable


Decision = Here | Forward | Unroutable

HERE = Here()


class RequestRouter:
    """See the module's page. `self_id` is the asking node; empty for a mere onlooker."""

    def __init__(self, registry: NodeRegistry, self_id: str = "") -> None:
        self.registry = registry
        self.self_id = self_id
        self._forward: dict[str, Forward] = {}

    # -- what the service asks

    def route(self, partition: int) -> Decision:
        """Who serves a write or a linearizable read of this partition."""
        registry = self.registry
        leader = registry.leader_of(partition)
        if leader == self.self_id and leader is not None:
            return HERE if registry.quorum_is_up(partition) else Unroutable(self._no_majority(partition))
        if leader is not None and registry.is_healthy(leader):
            return self._forward_to(leader)
        bridge = self._bridge_to(partition)
        if bridge is not None:
            return bridge
        if not registry.quorum_is_up(partition):
            return Unroutable(self._no_majority(partition))
        return Unroutable(self._no_owner(partition, leader))

    def could_not_pass_on(self, partition: int, peer: str) -> None:
        """A peer that was asked to pass a request on sent it back: ask it no more until its next beat."""
        self.registry.hearsay.doubt(peer, partition)

    def route_read(
        self, partition: int, *, local: bool = True, spread: int = 0, elsewhere: bool = False
    ) -> Decision:
        """Who serves a read. A local one: this node if it is a replica, else a replica that is not down.

        `elsewhere`: not this node, though it is a replica (its copy is damaged). `spread` is any number
        that the caller counts up; consecutive ones go to different replicas.
        """
        if not local:
            return self.route(partition)
        if not elsewhere and self.self_id in self.registry.replicas_of(partition):
            return HERE
        healthy = [one for one in self.registry.healthy_replicas_of(partition) if one != self.self_id]
        if not healthy:
            return Unroutable(self._no_majority(partition))
        return self._forward_to(healthy[spread % len(healthy)])

    # -- what people ask

    def route_for_entity(self, entity_id: str) -> Node:
        """The node that serves an entity's writes. Raises `Unavailable`, naming the partition."""
        return self.route_for_partition(self._partition_of(entity_id))

    def route_for_partition(self, partition: int | PartitionKey) -> Node:
        """The leader of a partition, or while none is known, the node that should lead it.

        Raises `NoMajority` naming the partition if no replica of it is healthy.
        """
        number = partition.partition_id if isinstance(partition, PartitionKey) else partition
        leader = self.registry.leader_of(number)
        if leader is None or not self.registry.is_healthy(leader):
            leader = self.registry.owner_of(number)
        node = self.registry.get_node(leader) if leader is not None else None
        if node is None:
            raise self._no_majority(number)
        return node

    def nodes_for_read(self, entity_id: str) -> list[Node]:
        """The healthy nodes that keep an entity's events, the one that serves its writes first.

        Raises `NoMajority` naming the partition if there is none.
        """
        partition = self._partition_of(entity_id)
        first = self.route_for_partition(partition)
        others = self.registry.healthy_replicas_of(partition)
        return [first, *(node for node in map(self._node, others) if node.id != first.id)]

    def can_node_handle_entity(self, node_id: str, entity_id: str) -> bool:
        """Whether a node is healthy and serves an entity's writes."""
        try:
            return self.route_for_entity(entity_id).id == node_id
        except Unavailable:
            return False

    def partition_distribution(self) -> dict[str, tuple[int, ...]]:
        """The partitions that each member should lead."""
        return self.registry.partition_distribution()

    def is_available(self) -> bool:
        """Whether every partition has a healthy replica that should lead it."""
        return self.registry.is_cluster_healthy()

    # -- inside

    def _partition_of(self, entity_id: str) -> int:
        return partition_of(EntityId(entity_id), self.registry.partition_count)

    def _node(self, node_id: str) -> Node:
        node = self.registry.get_node(node_id)
        assert node is not None, "replicas are members"
        return node

    def _bridge_to(self, partition: int) -> Forward | None:
        """The healthy peer that follows the partition's newest leader, if one can be reached through it."""
        registry = self.registry
        heard = [
            (term, peer)
            for term, peer, leader in registry.hearsay.of(partition)
            if leader != self.self_id and registry.is_healthy(peer)
        ]
        if not heard:
            return None
        newest = max(term for term, _ in heard)
        return Forward(min(peer for term, peer in heard if term == newest), passes_on=True)

    def _forward_to(self, node_id: str) -> Forward:
        decision = self._forward.get(node_id)
        if decision is None:
            decision = self._forward[node_id] = Forward(node_id)
        return decision

    def _no_majority(self, partition: int) -> NoMajority:
        replicas = self.registry.replicas_of(partition)
        down = [member for member in replicas if not self.registry.is_healthy(member)]
        missing = (
            f"of its replicas {', '.join(replicas)}, down: {', '.join(down)}" if replicas else "no members"
        )
        return NoMajority(
            f"partition {partition} has no majority ({missing}); nothing was done, retry when it has",
            partition=partition,
            replicas=list(replicas),
            down=down,
        )

    def _no_owner(self, partition: int, lost: str | None) -> NoOwner:
        because = f"its leader {lost} is down" if lost is not None else "none is known yet"
        return NoOwner(
            f"partition {partition} has no owner ({because}); nothing was done, an election should be "
            "under way, retry soon",
            partition=partition,
        )
