"""The cluster as one node draws it: `GET /v1/cluster`, read into values that commands can work with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from allsource.node.cli.figures import ranges


@dataclass(frozen=True, slots=True)
class NodePicture:
    """A member as the asked node sees it. `state`: up, suspect or down; `yields`: its disk is nearly
    full, so that others lead in its place; `damaged`: the partitions whose copy there is damaged."""

    id: str
    state: str
    yields: bool
    damaged: tuple[int, ...]
    incarnation: int
    address: str
    http_address: str


@dataclass(frozen=True, slots=True)
class PartitionPicture:
    """A partition as the asked node sees it; the indexes are of its own replica (0: it has none)."""

    partition: int
    owner: str | None
    term: int
    replicas: tuple[str, ...]
    commit_index: int
    last_position: int


@dataclass(frozen=True, slots=True)
class ClusterPicture:
    """All that `GET /v1/cluster` tells."""

    node: str
    pid: int
    """The process that answered, on its own machine."""
    cluster: str
    storage: str
    """The backend: rocksdb, postgres or memory."""
    durability: str
    """What an acknowledgement rests on: fsync, os or memory."""
    durability_means: str
    """The same as a sentence."""
    nodes: tuple[NodePicture, ...]
    partitions: tuple[PartitionPicture, ...]

    @classmethod
    def read(cls, value: Mapping[str, Any]) -> ClusterPicture:
        """From the JSON of the answer."""
        return cls(
            value["node"],
            value["pid"],
            value["cluster"],
            value["storage"],
            value["durability"],
            value["durability_means"],
            tuple(_node(one) for one in value["nodes"]),
            tuple(_partition(one) for one in value["partitions"]),
        )

    def owners(self) -> tuple[str | None, ...]:
        """Who owns each partition, by its number."""
        return tuple(one.owner for one in self.partitions)

    def owned_by(self, node_id: str) -> list[int]:
        """The partitions that a node owns."""
        return [one.partition for one in self.partitions if one.owner == node_id]


def _node(value: Mapping[str, Any]) -> NodePicture:
    return NodePicture(
        value["id"],
        value["state"],
        value["yields"],
        tuple(value["damaged"]),
        value["incarnation"],
        value["address"],
        value["http_address"],
    )


def _partition(value: Mapping[str, Any]) -> PartitionPicture:
    return PartitionPicture(
        value["partition"],
        value["owner"],
        value["term"],
        tuple(value["replicas"]),
        value["commit_index"],
        value["last_position"],
    )


def node_rows(picture: ClusterPicture) -> list[list[str]]:
    """A row for each node: id, state, address, HTTP address, incarnation, owned count and which."""
    return [
        [
            node.id,
            _state(node),
            node.address,
            node.http_address,
            str(node.incarnation),
            str(len(picture.owned_by(node.id))),
            ranges(picture.owned_by(node.id)),
        ]
        for node in picture.nodes
    ]


def _state(node: NodePicture) -> str:
    words = [node.state]
    if node.yields:
        words.append("disk nearly full")
    if node.damaged:
        words.append(f"damaged: {ranges(node.damaged)}")
    return ", ".join(words)


NODE_COLUMNS = ("node", "state", "address", "http", "incarnation", "owns", "partitions")


def owner_map(owners: Sequence[str | None], columns: int = 8) -> list[str]:
    """The owners in short, `columns` partitions to a line: ` 0 n1   1 n2   2 n3 ...`; `-` for none."""
    width = max((len(owner) for owner in owners if owner), default=1)
    cells = [f"{number:>3} {owner or '-':<{width}}" for number, owner in enumerate(owners)]
    return ["  ".join(cells[i : i + columns]).rstrip() for i in range(0, len(cells), columns)]
