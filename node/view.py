"""What a node says of itself and the others: `GET /v1/cluster`, `/metrics`, `/health/ready`.

Always *this node's* view. Owners and terms come from its own replicas, or from the beats of those who
lead; commit indexes and positions are of its own replica, and 0 for a partition that it does not keep.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

from allsource.cluster.consensus.group import Group
from allsource.cluster.membership.placement import replica_sets
from allsource.cluster.shell.replica import Replica
from allsource.config.promise import promise_of
from allsource.config.schema import Settings
from allsource.node.observe.prometheus import PartitionFigures
from allsource.node.requests.pages import Pages
from allsource.node.requests.queue import LockFreeEventQueue
from allsource.node.requests.tickets import Ticket
from allsource.storage.interface import Storage
from allsource.storage.model.errors import Corrupt

_STRANGER = "suspect"
"""What a peer looks like to a node that takes no part yet."""


class View:
    """See the module's page. `join` makes it whole when the node begins to take part."""

    def __init__(
        self, settings: Settings, node_id: str, storage: Storage, queue: LockFreeEventQueue[Ticket]
    ) -> None:
        self._settings = settings
        self._node_id = node_id
        self._storage = storage
        self._queue = queue
        self._replica: Replica | None = None
        self._pages: Pages | None = None
        self.damaged: Mapping[int, str] = {}
        """The partitions whose copy here is damaged, and what was found."""
        self._incarnations = {node_id: storage.identity.incarnation}
        self._replica_sets = replica_sets(
            tuple(node.id for node in settings.nodes), settings.partitions, settings.replication_factor
        )

    def join(self, replica: Replica, pages: Pages, damaged: Mapping[int, str]) -> None:
        """The node takes part from now on. `damaged` is the mapping that is kept up to date."""
        self.damaged = damaged
        self._replica = replica
        self._pages = pages

    def met(self, peer: str, incarnation: int) -> None:
        """A handshake told a peer's incarnation."""
        self._incarnations[peer] = incarnation

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
        settings = self._settings.node(node_id)
        return {
            "id": node_id,
            "state": self._state(node_id),
            "yields": self._replica is not None and self._replica.registry.yields(node_id),
            "damaged": list(self._replica.core.damaged.get(node_id, ()))
            if self._replica is not None
            else [],
            "incarnation": self._incarnations.get(node_id, 0),
            "address": f"{settings.host}:{settings.port}",
            "http_address": f"{settings.host}:{settings.http_port}",
        }

    def _state(self, node_id: str) -> str:
        if node_id == self._node_id:
            return "up"
        return _STRANGER if self._replica is None else self._replica.core.detector.state(node_id)

    def _partition(self, partition: int) -> dict[str, Any]:
        replica = self._replica
        commit = replica.commit_index(partition) if replica is not None else 0
        return {
            "partition": partition,
            "owner": replica.leader_of(partition) if replica is not None else None,
            "term": replica.term_of(partition) if replica is not None else 0,
            "replicas": list(self._replica_sets[partition]),
            "commit_index": commit,
            "last_position": self._last_position(partition, commit),
            "damaged": self.damaged.get(partition),
        }

    def _last_position(self, partition: int, commit: int) -> int:
        if self._pages is None or self._replica is None:
            return 0
        try:
            return self._pages.last_position(partition, commit)
        except Corrupt as error:
            self._replica.quarantine(partition, error)
            return 0

    # -- /health/ready

    def waits_for(self) -> list[str]:
        """What keeps this node from being ready, one sentence each; empty when it is."""
        replica = self._replica
        if replica is None:
            return ["this node does not take part in the cluster yet"]
        faults = ["the disk is full: the log cannot be written"] if replica.is_stuck else []
        ownerless = [
            p for p in range(self._settings.partitions) if replica.hosts(p) and replica.leader_of(p) is None
        ]
        if ownerless:
            listed = ", ".join(map(str, ownerless))
            faults.append(f"no owner is known of {len(ownerless)} partition(s) kept here: {listed}")
        faults += [
            f"partition {partition} is damaged here, and served by its peers: {found}"
            for partition, found in sorted(self.damaged.items())
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
        if self._replica is not None:
            for group in self._replica.core.groups.values():
                yield self._figures(self._replica, group)

    def _figures(self, replica: Replica, group: Group) -> PartitionFigures:
        leadership, commit = group.leadership, replica.commit_index(group.partition)
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

    def peer_states(self) -> Mapping[str, str]:
        """The state of every other node."""
        return {node.id: self._state(node.id) for node in self._settings.nodes if node.id != self._node_id}

    @property
    def refuses_appends(self) -> bool:
        """Whether the storage takes no appends now: disk nearly full, or it falls behind."""
        stuck = self._replica is not None and self._replica.is_stuck
        return stuck or self._storage.pressure() is not None

    def storage_properties(self) -> Mapping[str, int]:
        """The storage backend's own figures."""
        return self._storage.properties()
