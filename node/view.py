"""What a node says of itself and the others: `GET /v1/cluster`, `/metrics`, `/health/ready`.

Always *this node's* view. Owners and terms come from its own replicas, or from the beats of those who
lead; commit indexes and positions are of its own replica, and 0 for a partition that it does not keep.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from allsource.cluster.consensus.group import Group
from allsource.cluster.membership.liveness import SUSPECT, UP
from allsource.cluster.membership.placement import replica_sets
from allsource.cluster.membership.registry import Readiness
from allsource.config.promise import promise_of
from allsource.config.schema import Settings
from allsource.node.member.member import Member
from allsource.node.observe.prometheus import PartitionFigures
from allsource.node.requests.queue import LockFreeEventQueue
from allsource.node.requests.tickets import Ticket
from allsource.storage.interface import Storage
from allsource.storage.model.errors import Corrupt

_STRANGER = SUSPECT
"""What a peer looks like to a node that takes no part yet."""


class View:
    """See the module's page."""

    def __init__(
        self,
        settings: Settings,
        node_id: str,
        storage: Storage,
        queue: LockFreeEventQueue[Ticket],
        member: Callable[[], Member | None],
    ) -> None:
        """`member` gives this node as a member, None while it takes no part."""
        self._settings = settings
        self._node_id = node_id
        self._storage = storage
        self._queue = queue
        self._member = member
        self._incarnations = {node_id: storage.identity.incarnation}
        self._replica_sets = replica_sets(
            tuple(node.id for node in settings.nodes), settings.partitions, settings.replication_factor
        )

    def met(self, peer: str, incarnation: int) -> None:
        """A handshake told a peer's incarnation."""
        self._incarnations[peer] = incarnation

    @property
    def damaged(self) -> Mapping[int, str]:
        """The partitions whose copy here is damaged, and what was found."""
        member = self._member()
        return member.damage.found if member is not None else {}

    # -- GET /v1/cluster

    def describe(self) -> dict[str, Any]:
        """The cluster as JSON."""
        promise = promise_of(self._settings)
        return {
            "node": self._node_id,
            "pid": os.getpid(),
            "cluster": self._settings.cluster_name,
            "cluster_id": self._settings.cluster_id,
            "storage": self._settings.storage.backend,
            "durability": promise.durability,
            "durability_means": promise.meaning,
            "replication_factor": self._settings.replication_factor,
            "nodes": [self._node(node.id) for node in self._settings.nodes],
            "partitions": [self._partition(p) for p in range(self._settings.partitions)],
        }

    def _node(self, node_id: str) -> dict[str, Any]:
        settings, member = self._settings.node(node_id), self._member()
        return {
            "id": node_id,
            "state": self._state(node_id),
            "yields": member is not None and member.core.registry.readiness(node_id) is Readiness.YIELDS,
            "damaged": list(member.core.damaged.get(node_id, ())) if member is not None else [],
            "incarnation": self._incarnations.get(node_id, 0),
            "address": f"{settings.host}:{settings.port}",
            "http_address": f"{settings.host}:{settings.http_port}",
        }

    def _state(self, node_id: str) -> str:
        if node_id == self._node_id:
            return UP
        member = self._member()
        return _STRANGER if member is None else member.core.detector.state(node_id)

    def _partition(self, partition: int) -> dict[str, Any]:
        member = self._member()
        commit = member.replica.commit_index(partition) if member is not None else 0
        return {
            "partition": partition,
            "owner": member.replica.leader_of(partition) if member is not None else None,
            "term": member.replica.term_of(partition) if member is not None else 0,
            "replicas": list(self._replica_sets[partition]),
            "commit_index": commit,
            "last_position": _last_position(member, partition, commit) if member is not None else 0,
            "damaged": self.damaged.get(partition),
        }

    # -- /health/ready

    def waits_for(self) -> list[str]:
        """What keeps this node from being ready, one sentence each; empty when it is."""
        member = self._member()
        if member is None:
            return ["this node does not take part in the cluster yet"]
        replica = member.replica
        faults = ["the disk is full: the log cannot be written"] if replica.stuck is not None else []
        ownerless = [
            p for p in range(self._settings.partitions) if replica.hosts(p) and replica.leader_of(p) is None
        ]
        if ownerless:
            listed = ", ".join(map(str, ownerless))
            faults.append(f"no owner is known of {len(ownerless)} partition(s) kept here: {listed}")
        faults += [
            f"partition {partition} is damaged here, and served by its peers: {found}"
            for partition, found in sorted(member.damage.found.items())
        ]
        return faults

    # -- /metrics (`prometheus.NodeView`)

    def info(self) -> Mapping[str, str]:
        """What this node is, for the labels of one figure."""
        return {
            "cluster": self._settings.cluster_name,
            "node": self._node_id,
            "storage": self._settings.storage.backend,
            "durability": promise_of(self._settings).durability,
        }

    @property
    def is_ready(self) -> bool:
        """Whether `/health/ready` says so."""
        return not self.waits_for()

    @property
    def queue_length(self) -> int:
        """Appends in the ingest queue."""
        return len(self._queue)

    @property
    def queue_capacity(self) -> int:
        """Appends that the ingest queue can hold."""
        return self._queue.capacity

    def partition_figures(self) -> Iterable[PartitionFigures]:
        """The partitions that this node keeps."""
        member = self._member()
        if member is not None:
            for group in member.core.groups.values():
                yield _figures(group, member.replica.commit_index(group.partition))

    def peer_states(self) -> Mapping[str, str]:
        """The state of every other node."""
        return {node.id: self._state(node.id) for node in self._settings.nodes if node.id != self._node_id}

    @property
    def refuses_appends(self) -> bool:
        """Whether the storage takes no appends now: disk nearly full, or it falls behind."""
        member = self._member()
        stuck = member is not None and member.replica.stuck is not None
        return stuck or self._storage.pressure() is not None

    def storage_properties(self) -> Mapping[str, int]:
        """The storage backend's own figures."""
        return self._storage.properties()


def _last_position(member: Member, partition: int, commit: int) -> int:
    try:
        return member.pages.last_position(partition, commit)
    except Corrupt as error:
        member.driver.quarantine(partition, error)
        return 0


def _figures(group: Group, commit: int) -> PartitionFigures:
    leadership = group.leadership
    return PartitionFigures(
        partition=group.partition,
        owner=group.leader,
        leads=leadership is not None,
        term=group.term,
        commit_index=commit,
        last_index=group.log.last_index,
        commit_lag_entries=max(0, group.leader_commit - commit),
        uncommitted_bytes=leadership.uncommitted_bytes if leadership is not None else 0,
        followers=tuple(leadership.followers()) if leadership is not None else (),
    )
