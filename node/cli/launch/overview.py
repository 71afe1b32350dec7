"""What the live table says, worked out from what is known of the nodes: no terminal, no clock, no process.

`NodeSeen` is all that is known of one node at one moment, `Overview` what follows from all of them. How it
is written is `layout`'s.

Whom the table believes: a node that answers at its address is up, whoever started it, unless the others
miss it. That our own process ended, and its last words, count only as long as nobody serves in its place.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

from allsource.cluster.membership.liveness import UP
from allsource.node.cli.control.picture import ClusterPicture
from allsource.node.cli.figures import ranges


class ChildState(Enum):
    """What a launch knows of its own child."""

    STARTING = "its process runs, and has not answered yet"
    RUNNING = "it answers, and is not ready"
    READY = "it answers that it is ready"
    ENDED = "its process is gone"
    WAITING = "its process is gone, and will be started again"


@dataclass(frozen=True, slots=True)
class NodeSeen:
    """A node at one moment."""

    id: str
    address: str
    http: str
    state: ChildState
    """Of the launch's own child."""
    pid: int | None = None
    """Of the process that serves, or that should; None if there is none."""
    by_hand: bool = False
    """Whether somebody else's process serves at its address."""
    is_ready: bool = False
    picture: ClusterPicture | None = None
    """The cluster as it sees it; None if it does not answer."""
    given_up: bool = False
    exit_signal: int = 0
    """The signal that ended our child, 0 if none did."""
    starts: int = 0
    complaint: str = ""
    """Its last warning, or why it ended."""
    complaint_age_s: float = 0.0
    uptime_s: float | None = None
    disk_used: int | None = None
    disk_free: int | None = None
    data_dir: str = ""


@dataclass(frozen=True)
class Overview:
    """What is known of the cluster at one moment."""

    nodes: Sequence[NodeSeen]
    rates: Mapping[int, float] = field(default_factory=dict)
    """Events a second, by partition."""

    @property
    def picture(self) -> ClusterPicture | None:
        """The picture of the node that knows the newest terms: one that was cut off has an old one."""
        pictures = [node.picture for node in self.nodes if node.picture is not None]
        return max(pictures, key=lambda picture: sum(one.term for one in picture.partitions), default=None)

    def verdict(self, node_id: str) -> str:
        """What most of the other nodes say of this one: up, suspect or down; "" if none of them answers."""
        said = Counter(
            one.state
            for node in self.nodes
            if node.picture is not None and node.id != node_id
            for one in node.picture.nodes
            if one.id == node_id
        )
        return said.most_common(1)[0][0] if said else ""

    def isup(self, node: NodeSeen) -> bool:
        """Whether a node takes part, as far as can be told: it answers, and the others do not miss it."""
        return node.picture is not None and self.verdict(node.id) in ("", UP)

    def missing(self) -> frozenset[str]:
        """The nodes that are not up."""
        return frozenset(node.id for node in self.nodes if not self.isup(node))

    def behind(self, node: NodeSeen) -> int | None:
        """Entries of all its partitions that others know to be committed, and this node does not."""
        if node.picture is None:
            return None
        pictures = [other.picture for other in self.nodes if other.picture is not None]
        return sum(
            max(other.partitions[one.partition].commit_index for other in pictures) - one.commit_index
            for one in node.picture.partitions
            if node.id in one.replicas
        )

    def alarms(self) -> list[str]:
        """What stops writes or is about to, a sentence each."""
        picture, missing = self.picture, self.missing()
        if picture is None:
            return []
        told = []
        lost = [one for one in picture.partitions if 2 * up(one.replicas, missing) <= len(one.replicas)]
        if lost:
            who = ", ".join(sorted({node for one in lost for node in one.replicas} & missing))
            told.append(
                f"NO MAJORITY of the copies of {_partitions([one.partition for one in lost])}:"
                f" no appends there until {who} {'is' if ',' not in who else 'or enough of them are'} back"
            )
        for node in picture.nodes:
            if node.damaged:
                told.append(
                    f"DAMAGED on {node.id}: its copies of {_partitions(node.damaged)}; its log says more"
                )
        ownerless = [one.partition for one in picture.partitions if one.owner is None and one not in lost]
        if ownerless:
            told.append(f"NO OWNER of {_partitions(ownerless)}: an election is under way, or cannot be won")
        return told


def up(replicas: Sequence[str], missing: frozenset[str]) -> int:
    """How many of the replicas are on nodes that are up."""
    return sum(node not in missing for node in replicas)


def _partitions(numbers: Sequence[int]) -> str:
    return f"{len(numbers)} partition{'s' if len(numbers) > 1 else ''} ({ranges(numbers)})"


class Rates:
    """Events a second, from the positions that partitions had at several moments of the last seconds."""

    def __init__(self, window_s: float = 3.0) -> None:
        self._window_s = window_s
        self._seen: list[tuple[float, dict[int, int]]] = []

    def add(self, now_s: float, pictures: Sequence[ClusterPicture]) -> None:
        """Take down how far each partition is, as the node says that is furthest."""
        positions: dict[int, int] = dict(self._seen[-1][1]) if self._seen else {}
        for picture in pictures:
            for one in picture.partitions:
                positions[one.partition] = max(positions.get(one.partition, 0), one.last_position)
        self._seen.append((now_s, positions))
        while len(self._seen) > 2 and self._seen[1][0] <= now_s - self._window_s:
            self._seen.pop(0)

    def by_partition(self) -> dict[int, float]:
        """The rate of each partition; empty until two moments are known."""
        if len(self._seen) < 2 or self._seen[-1][0] <= self._seen[0][0]:
            return {}
        (then_s, before), (now_s, after) = self._seen[0], self._seen[-1]
        return {
            partition: (position - before[partition]) / (now_s - then_s)
            for partition, position in after.items()
            if partition in before
        }
