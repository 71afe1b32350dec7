"""What one process knows about its cluster: members, who is healthy, who should lead and who does.

Every process has a `NodeRegistry` of its own. Members come from the YAML (later also by joining),
health from the process's own failure detector, leaderships from its own groups and from the beats of
the others. Registries are not copied from node to node: fed the same facts, in any order, they agree,
because placement is a pure function (`placement`).

The registry is *fed*: it watches nobody itself. Its owner holds a `FailureDetector` beside it::

    for peer, state in detector.tick(now):
        registry.set_node_health(peer, state != DOWN)

So is whether a node that is heard gets what it is sent (`set_node_reached`), and whether it is ready to
lead (`set_node_readiness`).

Two things look alike and are not. `owner_of` (the user's `node_for_partition`) is who *should* lead,
by placement; `leader_of` is who *does*, in the newest term heard of. Requests go to the leader; the
owner is who the leadership is given to.

Nothing here is for several threads; the daemon touches it from its event loop only.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import Enum

from allsource.cluster.membership import placement
from allsource.cluster.membership.hearsay import Hearsay
from allsource.storage.model.errors import InvalidRequest
from allsource.storage.model.partition import PARTITION_COUNT


class Readiness(Enum):
    """Whether a node is ready to lead what placement would give it."""

    WILLING = "willing"
    YIELDS = "yields"
    """It leads only where no other healthy replica can: its disk is nearly full."""
    LEAVES = "leaves"
    """The same, and it does not stand for election either: it is shutting down."""


REPLICATION_FACTOR = 3
"""Unless configured; never more than there are members."""


@dataclass(frozen=True, slots=True)
class Node:
    """A member as the registry describes it.

    `assigned_partitions` are those that it should lead; the registry fills them in, and an unhealthy
    node has none. `incarnation` counts its process starts (0: not heard of yet).
    """

    id: str
    address: str = ""
    healthy: bool = True
    assigned_partitions: tuple[int, ...] = ()
    incarnation: int = 0
    readiness: Readiness = Readiness.WILLING


class NodeRegistry:
    """See the module's page.

    `members` are ids that are registered from the start, healthy until told otherwise, and give the
    order in which placement counts (the YAML's). Nodes beyond them follow in the order of their ids,
    so that the order of registration never matters. `replication_factor` None means 3, or all if fewer.
    """

    def __init__(
        self,
        partition_count: int = PARTITION_COUNT,
        replication_factor: int | None = None,
        *,
        members: Sequence[str] = (),
    ) -> None:
        self.partition_count = partition_count
        self.replication_factor = replication_factor or REPLICATION_FACTOR
        self.version = 0
        """Grows with every change that a reader could see."""
        self.hearsay = Hearsay()
        """Whom the peers follow, by their beats."""
        self._rank = {member: rank for rank, member in enumerate(members)}
        self._nodes = {member: Node(member) for member in members}
        self._out_of_reach: set[str] = set()
        self._replicas: placement.ReplicaSets = ()
        self._owners: placement.Owners = ()
        self._quorum: tuple[bool, ...] = ()
        self._leaders: list[str | None] = [None] * partition_count
        self._terms = [0] * partition_count
        self._membership_changed()

    # -- facts fed in

    def register_node(self, node: Node) -> None:
        """Add a member, or replace what is known of it; its `assigned_partitions` are computed here."""
        self._nodes[node.id] = node
        self._membership_changed()

    def unregister_node(self, node_id: str) -> bool:
        """Remove a member for good (not: mark it down). False if it was not there."""
        if self._nodes.pop(node_id, None) is None:
            return False
        self._forget_leaderships(node_id)
        self._membership_changed()
        return True

    def set_node_health(self, node_id: str, healthy: bool) -> None:
        """Take a node out of the running, or back in. An unknown id, or no change, does nothing."""
        node = self._nodes.get(node_id)
        if node is not None and node.healthy != healthy:
            self._nodes[node_id] = replace(node, healthy=healthy)
            if not healthy:
                self.hearsay.forget(node_id)
            self._health_changed()

    def set_node_reached(self, node_id: str, reached: bool) -> None:
        """Whether what this process sends the node arrives there; it may be heard and not be reached."""
        (self._out_of_reach.discard if reached else self._out_of_reach.add)(node_id)

    def set_node_readiness(self, node_id: str, readiness: Readiness) -> None:
        """A node says whether it is ready to lead. An unknown id, or no change, does nothing."""
        node = self._nodes.get(node_id)
        if node is not None and node.readiness is not readiness:
            self._nodes[node_id] = replace(node, readiness=readiness)
            self._health_changed()

    def record_incarnation(self, node_id: str, incarnation: int) -> bool:
        """A handshake told a node's incarnation. False if a later one was told before.

        It says nothing about leaderships: *our* handshake with a restarted node may end long after
        the others elected it. What an old process led is cleared by whoever hears of its end.
        """
        node = self._nodes.get(node_id)
        if node is None or incarnation < node.incarnation:
            return False
        if incarnation > node.incarnation:
            self._nodes[node_id] = replace(node, incarnation=incarnation)
            self.version += 1
        return True

    def record_leader(self, partition: int, node_id: str | None, term: int) -> bool:
        """Somebody leads a partition in a term, or (None) nobody that we know of does. Newest term wins.

        Within one term there is one leader at most, so another name for the same term is not
        believed; None clears it, for a leader may step down, and be heard of again, in its term.
        True if anything changed.
        """
        self._check(partition)
        known_term, known = self._terms[partition], self._leaders[partition]
        if term < known_term or (term == known_term and known is not None and node_id is not None):
            return False
        if (term, node_id) == (known_term, known):
            return False
        self._terms[partition] = term
        self._leaders[partition] = node_id
        self.version += 1
        return True

    # -- members

    def get_node(self, node_id: str) -> Node | None:
        """What is known of a member; None if there is no such."""
        return self._nodes.get(node_id)

    def all_nodes(self) -> list[Node]:
        """Every member, in the order of placement."""
        return list(self._nodes.values())

    def healthy_nodes(self) -> list[Node]:
        """The members that are not down, in the order of placement."""
        return [node for node in self._nodes.values() if node.healthy]

    @property
    def node_count(self) -> int:
        """How many members there are."""
        return len(self._nodes)

    @property
    def healthy_node_count(self) -> int:
        """How many members are not down."""
        return len(self.healthy_nodes())

    def is_healthy(self, node_id: str) -> bool:
        """Whether it is a member that is not down."""
        node = self._nodes.get(node_id)
        return node is not None and node.healthy

    def is_reached(self, node_id: str) -> bool:
        """Whether it gets what this process sends it, if it lives; so it is until the contrary is known."""
        return node_id not in self._out_of_reach

    def readiness(self, node_id: str) -> Readiness:
        """Whether a node is ready to lead, as it said last."""
        node = self._nodes.get(node_id)
        return node.readiness if node is not None else Readiness.WILLING

    def is_cluster_healthy(self) -> bool:
        """Whether every partition has a healthy replica that should lead it.

        It says nothing about majorities: `quorum_is_up` does, for each partition.
        """
        return None not in self._owners

    # -- partitions

    def node_for_partition(self, partition: int) -> str | None:
        """The node that should lead a partition; None if no replica is healthy."""
        self._check(partition)
        return self._owners[partition]

    def owner_of(self, partition: int) -> str | None:
        """`node_for_partition` under the name that the rest of the cluster uses."""
        return self.node_for_partition(partition)

    def partition_distribution(self) -> dict[str, tuple[int, ...]]:
        """The partitions that each member should lead, in the order of placement."""
        return {node.id: node.assigned_partitions for node in self._nodes.values()}

    def replicas_of(self, partition: int) -> tuple[str, ...]:
        """The members that keep a partition, the preferred owner first. Health does not matter."""
        self._check(partition)
        return self._replicas[partition]

    def healthy_replicas_of(self, partition: int) -> tuple[str, ...]:
        """Those of `replicas_of` that are not down."""
        return tuple(member for member in self.replicas_of(partition) if self._nodes[member].healthy)

    def hosted_by(self, node_id: str) -> tuple[int, ...]:
        """The partitions that a member keeps."""
        return placement.hosted_by(node_id, self._replicas)

    def quorum_is_up(self, partition: int) -> bool:
        """Whether a majority of a partition's replicas is not down, in this node's view."""
        self._check(partition)
        return self._quorum[partition]

    def succession(self, partition: int) -> tuple[str, ...]:
        """The order in which the replicas should stand for election (`placement.succession`)."""
        self._check(partition)
        return placement.succession(
            self._replicas[partition],
            self._owners[partition],
            self.healthy_replicas_of(partition),
            self._yielding(),
        )

    def leader_of(self, partition: int) -> str | None:
        """Who leads a partition in the newest term heard of; it may be down by now. None: not known."""
        self._check(partition)
        return self._leaders[partition]

    def term_of(self, partition: int) -> int:
        """The newest term in which a leader was heard of; 0 if none was."""
        self._check(partition)
        return self._terms[partition]

    # -- inside

    def _check(self, partition: int) -> None:
        if not 0 <= partition < self.partition_count:
            raise InvalidRequest(f"partition {partition} is out of range: 0 to {self.partition_count - 1}")

    def _membership_changed(self) -> None:
        self._nodes = dict(sorted(self._nodes.items(), key=self._order))
        self._replicas = placement.replica_sets(
            tuple(self._nodes), self.partition_count, self.replication_factor
        )
        self._health_changed()

    def _order(self, item: tuple[str, Node]) -> tuple[int, str]:
        return self._rank.get(item[0], len(self._rank)), item[0]

    def _health_changed(self) -> None:
        healthy = {node.id for node in self._nodes.values() if node.healthy}
        self._owners = placement.owners(self._replicas, healthy, self._yielding())
        self._quorum = tuple(_is_majority(group, healthy) for group in self._replicas)
        assigned: dict[str | None, list[int]] = {member: [] for member in self._nodes}
        for partition, owner in enumerate(self._owners):
            assigned.setdefault(owner, []).append(partition)
        for member, node in self._nodes.items():
            self._nodes[member] = replace(node, assigned_partitions=tuple(assigned[member]))
        self.version += 1

    def _yielding(self) -> set[str]:
        return {node.id for node in self._nodes.values() if node.readiness is not Readiness.WILLING}

    def _forget_leaderships(self, node_id: str) -> None:
        self._leaders = [None if leader == node_id else leader for leader in self._leaders]


def _is_majority(group: Iterable[str], healthy: set[str]) -> bool:
    votes = [member in healthy for member in group]
    return 2 * sum(votes) > len(votes)
