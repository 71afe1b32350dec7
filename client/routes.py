"""Which open connection a call should take, by what the client knows of the cluster right now."""

from __future__ import annotations

from collections.abc import Collection

from allsource.client.cluster_map import ClusterMap
from allsource.client.connection import NodeConnection


class Routes:
    """The open connections by node, and by partition what `ClusterMap` makes of them.

    `leaders[p]` is the connection to the owner of `p`, None if there is none: nearly every call looks
    here and nowhere else. `keepers[p]` are those to its replicas that are not silent.
    """

    def __init__(self, map_: ClusterMap) -> None:
        self.map = map_
        self.open: dict[str, NodeConnection] = {}
        self.silent: set[str] = set()
        """Nodes that owe answers and say nothing: stopped, cut off, or very slow."""
        self.leaders: list[NodeConnection | None] = []
        self.keepers: list[list[NodeConnection]] = []
        self._turn = 0
        self.relink()

    def relink(self) -> None:
        """Bring the lists up to date after a change of connections or of the map."""
        find = self.open.get
        self.leaders = [None if owner is None else find(owner) for owner in self.map.owners]
        self.keepers = [
            [self.open[node] for node in nodes if node in self.open and node not in self.silent]
            for nodes in self.map.replicas
        ]

    def leader(self, partition: int) -> NodeConnection | None:
        """The owner's connection, if the owner is known and connected."""
        return self.leaders[partition] if 0 <= partition < len(self.leaders) else None

    def keeper(self, partition: int) -> NodeConnection | None:
        """A replica's connection, each in turn; any node's if no replica is at hand."""
        keepers = self.keepers[partition] if 0 <= partition < len(self.keepers) else []
        return self._next(keepers) if keepers else self.other()

    def other(self, avoid: Collection[str] = ()) -> NodeConnection | None:
        """Some node's connection, each in turn: none of `avoid`, a silent one only for want of others."""
        others = [c for node, c in self.open.items() if node not in avoid and node not in self.silent]
        others = others or [c for node, c in self.open.items() if node not in avoid]
        return self._next(others) if others else None

    def _next(self, connections: list[NodeConnection]) -> NodeConnection:
        self._turn += 1
        return connections[self._turn % len(connections)]

    def all_owners_are_connected(self) -> bool:
        """Whether every call to an owner can be sent to it."""
        return None not in self.leaders
