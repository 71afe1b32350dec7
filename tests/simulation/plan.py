"""What a seed stands for: the cluster, its network and disks, the load, and the list of faults.

A plan is plain data, so that a failing one can be reduced piece by piece and run again (see
`shrink`). How a seed becomes a plan is told in `draw`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from itertools import count, pairwise

from allsource.cluster.consensus.multiraft import ConsensusConfig
from allsource.storage.model.partition import partition_of

MILLISECOND = 1_000
SECOND = 1_000_000

HELD_MAX = 100
"""Requests, reads and messages that a process may hold for each client and each replica of the cluster."""

HARMLESS = ("false_alarm", "isolate_follower", "deafen_follower")
"""Kinds of faults that must not move any leadership (rules 11 and 12)."""


MARKS = ("a", "b")
"""The marks of each partition: the same names everywhere, for they have nothing to do with each other."""


@cache
def stream_of(partition: int, number: int, partitions: int) -> str:
    """A stream that belongs to a partition, by the hash that the real node asks. Of four, two have one tag,
    one has another, and one has none."""
    if number % 4 == 3:
        names = (f"p{partition}-s{number}-{n}" for n in count())
        return next(name for name in names if partition_of(name, partitions) == partition)
    tags = tags_of(partition, partitions)
    return f"p{partition}-s{number}{{{tags[number % 4 // 2]}}}"


@cache
def tags_of(partition: int, partitions: int) -> tuple[str, ...]:
    """The two tags of the streams of a partition."""
    tags = (f"t{n}" for n in count() if partition_of(f"t{n}", partitions) == partition)
    return next(tags), next(tags)


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault: what, when, for how long (microseconds), to whom.

    `targets` are node numbers. A kind that strikes a leader takes the leader of partition
    `targets[0]` modulo the number of partitions, whoever that is when it strikes. Kinds that strike
    on an election or a commit are traps: the next one to whom that happens there falls into it.
    """

    kind: str
    at_us: int
    lasts_us: int
    targets: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.kind}{list(self.targets)} at {self.at_us} for {self.lasts_us}"


@dataclass(frozen=True, slots=True)
class NetworkPlan:
    """How messages travel. `ordered`: as over TCP, in order and lost only with their connection.

    Otherwise each message is lost, doubled and overtaken on its own: harsher than TCP can be.
    """

    ordered: bool = True
    delay_us: int = 200
    """The least that a message takes."""
    jitter_us: int = 100
    """The mean of what is added (exponential)."""
    drop: float = 0.0
    duplicate: float = 0.0
    late: float = 0.0
    """Share of messages that are held for long, and then delivered whoever listens at that name by then:
    the receiver's next process, or a receiver that is terms ahead. Not in an ordered network."""
    late_us: int = 0
    """How long those are held at most."""
    reconnect_us: int = 50 * MILLISECOND
    give_up_us: int = 2 * SECOND
    """How long a cut connection is believed in before its owner gives it up."""


@dataclass(frozen=True, slots=True)
class DiskPlan:
    """How long a sync takes: `sync_us` at least, `jitter_us` more on average."""

    sync_us: int = 200
    jitter_us: int = 200

    def is_fast(self, suspicion_us: int) -> bool:
        """Whether no sync will ever make its node look dead."""
        return 20 * (self.sync_us + self.jitter_us) < suspicion_us


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """The clients: how many, how long they think, and what they dare."""

    clients: int = 3
    think_us: int = 20 * MILLISECOND
    beat_us: int = 1
    """Operations begin at multiples of this: the more of them share a turn, and so an entry."""
    operations: int = 60
    """Each client's number of operations, at most."""
    streams: int = 3
    """Streams in each partition."""
    reads: float = 0.25
    exact: float = 0.4
    """Share of appends with an exact expected version."""
    exists: float = 1.0
    """Weight of appends that expect any event to be there, where 8 expect nothing."""
    two_streams: float = 0.2
    exact_tag: float = 0.15
    """Share of appends that expect a number of their tag, where their streams have one."""
    marks: float = 0.2
    """Share of appends that move marks; one in three of those does nothing else."""
    wrong_node: float = 0.1
    timeout_us: int = 400 * MILLISECOND
    attempts: int = 8


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that a run depends on."""

    seed: int
    nodes: int
    partitions: int
    replication_factor: int
    consensus: ConsensusConfig
    network: NetworkPlan
    disk: DiskPlan
    load: LoadPlan
    tail_bytes: int
    """How much of each log's end the core keeps in memory; the rest it reads from the disk."""
    turn_us: int
    """How long a node gathers input before it asks its core for orders; 0: after every input."""
    skew: tuple[float, ...]
    """How fast each node's clock runs."""
    duration_us: int
    """Length of phase one, in which anything may fail."""
    faults: tuple[Fault, ...]
    real_node: bool
    """Whether the nodes run what `node/` has around the core (`node_code`), or a model (`service`)."""
    group_max: int
    """How many appends an entry may have: few, so that a turn sometimes makes several."""
    minority: str
    """What happens in phase two to the nodes that are not healed: `crash`, `isolate`, `as_is`, or `partly`:
    they are well, and some of their links stay cut."""

    def is_calm(self) -> bool:
        """Whether nothing happens that could excuse an election once everybody has settled."""
        harmless = all(fault.kind in HARMLESS for fault in self.faults) and self._one_at_a_time()
        fit = self.replication_factor >= 3 and self.network.ordered
        return harmless and fit and self.disk.is_fast(self.consensus.suspicion_us)

    def _one_at_a_time(self) -> bool:
        """Whether each fault is over, and forgotten, when the next one strikes."""
        pause = self.consensus.suspicion_us
        return all(
            one.at_us + one.lasts_us + pause < next_one.at_us for one, next_one in pairwise(self.faults)
        )

    def memory_max(self) -> int:
        """How many requests, reads and messages one process may hold at once."""
        return HELD_MAX * (self.load.clients + self.nodes * self.partitions)

    def elections_max(self) -> int:
        """How often a partition may get a new leader, and its log a no-op, in phase one: a few times for
        each fault, and once in a suspicion time. Twice what is seen; a ping-pong makes ten times that."""
        return 8 + 4 * len(self.faults) + self.duration_us // self.consensus.suspicion_us

    def only(self, faults: tuple[int, ...]) -> Plan:
        """This plan with these of its faults alone (numbers in its list)."""
        return replace(self, faults=tuple(self.faults[number] for number in faults))

    def with_nodes(self, nodes: int) -> Plan:
        """This plan with fewer nodes; faults find their targets among those that are left."""
        nodes = min(nodes, self.nodes)
        return replace(
            self,
            nodes=nodes,
            replication_factor=min(nodes, self.replication_factor),
            skew=self.skew[:nodes],
        )

    def lasting(self, duration_us: int) -> Plan:
        """This plan with a shorter first phase; faults that would come later do not come."""
        faults = tuple(fault for fault in self.faults if fault.at_us < duration_us)
        return replace(self, duration_us=duration_us, faults=faults)
