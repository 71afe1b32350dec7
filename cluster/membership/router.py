"""Where a request goes: here, to another node, back to the peer that sent it, or nowhere, and then why.

The router's word is final: `decide` is asked for each attempt of a request, and the service does what it
says. The user's methods (`route_for_entity` and its kind) answer with nodes, for people and tools.

A write or a linearizable read goes to the leader that *is*, not to the owner that should be: only the
leader can serve it, and between an election and the hand-over to the preferred owner the two differ.
A leader that looks down is not tried, so that its requests wait for the next one here, where they can
be answered, and not in a dead connection. One that lives and is not reached (its data connection does not
carry) is asked through a peer that follows it, or named in a refusal (`NotOwner`), so that the caller may
ask it. A node that leads a partition serves it, also when it sees no majority of its replicas: it can
still give a retry its first answer, and refuses what is new, with a reason (`node.requests.ingest`).

A request that came from a peer makes no further hop, so that no request can go in circles. There is one
exception, which a peer has to ask for: it cannot reach the leader, and this node can (`passes_on`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from allsource.cluster.membership.hearsay import Followed
from allsource.cluster.membership.registry import Node, NodeRegistry
from allsource.storage.model.errors import NoMajority, NoOwner, NotOwner, Unavailable
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
class SendBack:
    """It came from a peer, and this node is not the one to ask: let the peer route it anew."""


@dataclass(frozen=True, slots=True)
class Unroutable:
    """From here nobody can be asked now."""

    error: Unavailable | NotOwner

    @property
    def is_worth_a_wait(self) -> bool:
        """Whether somebody may serve it soon (an election is under way). If not, refuse it at once."""
        return isinstance(self.error, NoOwner)


Decision = Here | Forward | SendBack | Unroutable

HERE = Here()
SEND_BACK = SendBack()


class Asked(Protocol):
    """What of a request decides where it goes; `Ticket` has it."""

    @property
    def partition(self) -> int: ...

    @property
    def local(self) -> bool:
        """A read that any replica may answer."""
        ...

    @property
    def forwarded(self) -> bool:
        """It came from a peer."""
        ...

    @property
    def passes_on(self) -> bool:
        """That peer asks for one more hop."""
        ...


class RequestRouter:
    """See the module's page. `self_id` is the asking node; empty for a mere onlooker."""

    def __init__(
        self,
        registry: NodeRegistry,
        self_id: str = "",
        *,
        leads: Callable[[int], bool] | None = None,
        hosts: Callable[[int], bool] | None = None,
        hands_over: Callable[[int], bool] = lambda partition: False,
    ) -> None:
        """`leads`: whether the asking node leads a partition. `hosts`: whether it has a copy that may be
        read. Without them the registry is asked, which hears of a change a moment after the node itself.
        `hands_over`: whether it is giving the leadership of a partition away."""
        self.registry = registry
        self.self_id = self_id
        self._leads = leads or (lambda partition: registry.leader_of(partition) == self_id != "")
        self._hosts = hosts or (lambda partition: self_id in registry.replicas_of(partition))
        self._hands_over = hands_over
        self._forward: dict[str, Forward] = {}
        self._spread = 0

    # -- what the service asks

    def decide(self, asked: Asked) -> Decision:
        """Where an attempt of this request goes."""
        partition = asked.partition
        if asked.local:
            decision = self.route_local(partition)
            if decision is HERE:
                return decision
        elif self._leads(partition):
            return HERE
        else:
            decision = self._elsewhere(partition)
        if not asked.forwarded:
            return decision
        if asked.passes_on and isinstance(decision, Forward) and not decision.passes_on:
            return decision
        return SEND_BACK

    def route(self, partition: int) -> Decision:
        """Who serves a write or a linearizable read that did not come from a peer."""
        return HERE if self._leads(partition) else self._elsewhere(partition)

    def route_again(self, partition: int) -> Decision:
        """The same for requests that found nobody before. While this node is handing the partition over, it
        would only give them back."""
        decision = self.route(partition)
        if decision is HERE and self._hands_over(partition):
            return Unroutable(self._no_owner(partition, None))
        return decision

    def route_local(self, partition: int) -> Decision:
        """Who serves a local read: this node if it has a copy, else each of the replicas that are not down
        in turn."""
        if self._hosts(partition):
            return HERE
        healthy = [one for one in self.registry.healthy_replicas_of(partition) if one != self.self_id]
        if not healthy:
            return Unroutable(self._no_majority(partition))
        reached = [one for one in healthy if self.registry.is_reached(one)]
        if not reached:
            return Unroutable(_not_reached(partition, healthy[0]))
        self._spread += 1
        return self._forward_to(reached[self._spread % len(reached)])

    def could_not_pass_on(self, partition: int, peer: str) -> None:
        """A peer that was asked to pass a request on sent it back: ask it no more until its next beat."""
        self.registry.hearsay.doubt(peer, partition)

    def _elsewhere(self, partition: int) -> Decision:
        """This node does not lead, whatever the registry has heard of it."""
        registry = self.registry
        leader = registry.leader_of(partition)
        lives = leader is not None and leader != self.self_id and registry.is_healthy(leader)
        if leader is not None and lives and registry.is_reached(leader):
            return self._forward_to(leader)
        followed = [one for one in registry.hearsay.of(partition) if self._counts(one)]
        bridge = self._bridge(followed)
        if bridge is not None:
            return bridge
        if not registry.quorum_is_up(partition):
            return Unroutable(self._no_majority(partition))
        if leader is not None and lives:
            return Unroutable(_not_reached(partition, leader))
        if followed:
            return Unroutable(_not_reached(partition, max(followed).leader))
        return Unroutable(self._no_owner(partition, leader))

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

    def _counts(self, said: Followed) -> bool:
        return said.leader != self.self_id and self.registry.is_healthy(said.peer)

    def _bridge(self, followed: list[Followed]) -> Forward | None:
        """The peer within reach that follows the newest leader, if there is one."""
        reached = [one for one in followed if self.registry.is_reached(one.peer)]
        if not reached:
            return None
        newest = max(one.term for one in reached)
        return Forward(min(one.peer for one in reached if one.term == newest), passes_on=True)

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


def _not_reached(partition: int, node_id: str) -> NotOwner:
    return NotOwner(
        f"partition {partition} is served by {node_id}, and this node's connection to it carries nothing "
        f"just now; nothing was done, ask {node_id} or another node",
        partition=partition,
        owner=node_id,
    )
