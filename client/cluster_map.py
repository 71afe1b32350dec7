"""What a client knows of the cluster: who leads which partition, who keeps it, where the nodes are.

It is a cache and may be wrong. A wrong owner costs one hop (every node forwards) or one refusal that
names a better one, never a wrong answer: so it is filled from whatever comes by.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from allsource.storage.model.partition import PARTITION_COUNT

Address = tuple[str, int]


class ClusterMap:
    """Owners and replicas by partition, addresses by node id."""

    def __init__(self) -> None:
        self.partitions = PARTITION_COUNT
        self.owners: list[str | None] = [None] * PARTITION_COUNT
        self.replicas: list[tuple[str, ...]] = [()] * PARTITION_COUNT
        self.addresses: dict[str, Address] = {}
        self._terms = [0] * PARTITION_COUNT

    def learn_cluster(self, partitions: int, addresses: Mapping[str, Address]) -> None:
        """The facts that a node tells everyone who connects."""
        if partitions != self.partitions:
            self.partitions = partitions
            self.owners = [None] * partitions
            self.replicas = [()] * partitions
            self._terms = [0] * partitions
        self.addresses.update(addresses)

    def learn_view(self, view: Mapping[str, Any]) -> dict[int, str | None]:
        """Take over what `GET /v1/cluster` says; the partitions whose owner is another one now, each with
        the owner that it had before as far as was known.

        A view is one node's, and may be old: an owner of an older term than one known is passed over.
        """
        changed: dict[int, str | None] = {}
        rows = view.get("partitions")
        for row in rows if isinstance(rows, list) else ():
            match row:
                case {"partition": int(partition), "owner": str() | None as owner, "term": int(term)}:
                    if 0 <= partition < self.partitions and term >= self._terms[partition]:
                        self._learn_replicas(partition, row.get("replicas"))
                        former = self.owners[partition]
                        if owner is not None:
                            self._terms[partition] = term
                            self.owners[partition] = owner
                            if owner != former:
                                changed[partition] = former
        return changed

    def _learn_replicas(self, partition: int, replicas: object) -> None:
        if isinstance(replicas, list) and all(isinstance(node, str) for node in replicas):
            self.replicas[partition] = tuple(replicas)

    def learn_hint(self, partition: int, owner: str | None) -> None:
        """A node that does not lead the partition says who may."""
        if 0 <= partition < self.partitions:
            self.owners[partition] = owner
