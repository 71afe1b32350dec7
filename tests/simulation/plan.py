"""What a seed stands for: the cluster, its network and disks, the load, and the list of faults.

Every seed draws its own cluster size, timings and fault rates (swarm testing, as in TigerBeetle's
VOPR): a schedule that crashes nodes all the time and never cuts a link finds other bugs than one that
does a little of everything. A plan is plain data, so that a failing one can be reduced piece by piece
and run again (see `shrink`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random

from allsource.cluster.consensus.multiraft import ConsensusConfig

MILLISECOND = 1_000
SECOND = 1_000_000


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
    operations: int = 60
    """Each client's number of operations, at most."""
    streams: int = 3
    """Streams in each partition."""
    reads: float = 0.25
    exact: float = 0.4
    """Share of appends with an exact expected version."""
    two_streams: float = 0.2
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
    minority: str
    """What happens in phase two to the nodes that are not healed: `crash`, `isolate` or `as_is`."""

    def is_calm(self) -> bool:
        """Whether nothing happens that could excuse an election once everybody has settled."""
        harmless = all(fault.kind in HARMLESS for fault in self.faults)
        fit = self.replication_factor >= 3 and self.network.ordered
        return harmless and fit and self.disk.is_fast(self.consensus.suspicion_us)

    def only(self, faults: tuple[int, ...]) -> Plan:
        """This plan with these of its faults alone (numbers in its list)."""
        return replace(self, faults=tuple(self.faults[number] for number in faults))

    def lasting(self, duration_us: int) -> Plan:
        """This plan with a shorter first phase; faults that would come later do not come."""
        faults = tuple(fault for fault in self.faults if fault.at_us < duration_us)
        return replace(self, duration_us=duration_us, faults=faults)


# How likely each kind is before the seed's own taste multiplies it (see faults.py for what they do).
KINDS: dict[str, float] = {
    "crash": 3,
    "crash_leader": 3,
    "isolate_and_stall_leader": 1.5,
    "crash_on_election": 2,
    "crash_on_commit": 1.5,
    "isolate_on_election": 2,
    "crash_two": 1,
    "crash_majority": 0.7,
    "crash_all": 0.7,
    "shutdown": 1,
    "pause": 2,
    "pause_leader": 2,
    "pause_two": 0.7,
    "isolate": 2,
    "isolate_leader": 2,
    "halves": 1.5,
    "bridge": 1,
    "one_way": 2,
    "flapping": 1,
    "slow_link": 1,
    "reset": 1.5,
    "slow_disk": 1,
    "stalled_disk": 1,
    "disk_error": 0.7,
    "clock_jump": 1,
    "false_alarm": 1.5,
    "isolate_follower": 0.5,
    "deafen_follower": 0.5,
}
HARMLESS = ("false_alarm", "isolate_follower", "deafen_follower")
"""Kinds that must not move any leadership (rules 11 and 12)."""
TRAPS = ("crash_on_election", "crash_on_commit", "isolate_on_election", "isolate_and_stall_leader")
"""Kinds that make terms follow each other fast, each with a few entries that reached few."""
_TARGETS = {"crash_two": 2, "pause_two": 2, "one_way": 2, "slow_link": 2, "reset": 2, "false_alarm": 2}


def draw_plan(seed: int) -> Plan:
    """The plan that a seed stands for."""
    random = Random(f"plan {seed}")
    nodes = random.choices((1, 2, 3, 4, 5, 7), (0.5, 0.7, 6, 2, 3, 0.7))[0]
    theme = random.choices(("mixed", "one kind", "traps", "calm"), (6, 1, 2, 1))[0]
    consensus = _draw_consensus(random)
    duration_us = consensus.suspicion_us * random.choice((8, 12, 20, 30))
    plan = _draw(random, seed, nodes, theme, consensus, duration_us)
    # A client that gives up before a commit can have happened, and then sends another append, would
    # keep the log growing for ever.
    round_trip = plan.disk.sync_us + plan.disk.jitter_us + plan.network.delay_us + plan.network.jitter_us
    patience = max(plan.load.timeout_us, 8 * round_trip)
    return replace(plan, load=replace(plan.load, timeout_us=patience))


def _draw(
    random: Random, seed: int, nodes: int, theme: str, consensus: ConsensusConfig, duration_us: int
) -> Plan:
    return Plan(
        seed=seed,
        nodes=nodes,
        partitions=random.choices((1, 2, 3, 4), (4, 4, 2, 1))[0],
        replication_factor=min(nodes, random.choices((1, 2, 3, 5), (0.3, 0.5, 6, 2))[0]),
        consensus=consensus,
        network=_draw_network(random, consensus, calm=theme == "calm"),
        disk=_draw_disk(random, consensus, calm=theme == "calm"),
        load=_draw_load(random, consensus, duration_us),
        tail_bytes=random.choice((200, 2000, 2 << 20)),
        turn_us=random.choice((0, 0, 50, 1000)),
        skew=tuple(random.choice((1.0, random.uniform(0.95, 1.05))) for _ in range(nodes)),
        duration_us=duration_us,
        faults=_draw_faults(random, _draw_taste(random, theme), nodes, consensus, duration_us),
        minority=random.choice(("crash", "isolate", "as_is")),
    )


def _draw_consensus(random: Random) -> ConsensusConfig:
    heartbeat_us = random.choice((20, 50, 100)) * MILLISECOND
    return ConsensusConfig(
        heartbeat_us=heartbeat_us,
        suspicion_us=heartbeat_us * random.choice((3, 5, 5, 8)),
        stagger_us=random.choice((1, 10, 15, 15)) * MILLISECOND,
        retry_us=random.choice((20, 60, 60)) * MILLISECOND,
        notice_us=random.choice((2, 10, 10)) * MILLISECOND,
        append_bytes_max=random.choice((1, 300, 2000, 1 << 20)),
        inflight_messages_max=random.choice((1, 2, 8, 64)),
        inflight_bytes_max=random.choice((1000, 8 << 20)),
        uncommitted_bytes_max=random.choice((3000, 32 << 20, 32 << 20)),
        catch_up_bytes_per_s=random.choice((20_000, 32 << 20, 32 << 20)),
    )


def _draw_disk(random: Random, consensus: ConsensusConfig, *, calm: bool) -> DiskPlan:
    if random.random() < 0.1 and not calm:  # each sync takes a good part of the suspicion time
        return DiskPlan(consensus.suspicion_us // random.choice((4, 8)), 1000)
    return DiskPlan(random.choice((50, 200, 1000)), random.choice((50, 300, 1000 if calm else 3000)))


def _draw_network(random: Random, consensus: ConsensusConfig, *, calm: bool) -> NetworkPlan:
    ordered = random.random() < 0.6 or calm
    return NetworkPlan(
        ordered=ordered,
        delay_us=random.choice((50, 300, 1500)),
        jitter_us=random.choice((50, 300, 1000 if calm else 3000)),
        drop=0.0 if ordered else random.choice((0.0, 0.01, 0.1)),
        duplicate=0.0 if ordered else random.choice((0.0, 0.02, 0.1)),
        reconnect_us=consensus.heartbeat_us // 2,
        give_up_us=consensus.suspicion_us * random.choice((1, 4, 1000)),
    )


def _draw_load(random: Random, consensus: ConsensusConfig, duration_us: int) -> LoadPlan:
    clients = random.randint(1, 6)
    operations = random.choice((60, 120, 250)) // clients
    return LoadPlan(
        clients=clients,
        think_us=duration_us // operations // 2,
        operations=operations,
        streams=random.randint(1, 4),
        reads=random.choice((0.1, 0.3, 0.5)),
        exact=random.choice((0.1, 0.4, 0.8)),
        two_streams=random.choice((0.0, 0.2, 0.5)),
        wrong_node=random.choice((0.05, 0.3)),
        timeout_us=int(consensus.suspicion_us * random.choice((0.5, 1.5, 5))),
        attempts=random.choice((2, 8, 20)),
    )


def _draw_taste(random: Random, theme: str) -> dict[str, float]:
    """How much this seed likes each kind of fault."""
    if theme == "calm":
        return dict.fromkeys(HARMLESS, 1.0)
    if theme == "traps":
        return dict(zip(TRAPS, (3.0, 2.0, 1.0, 1.0), strict=True))
    if theme == "one kind":
        return {random.choice(list(KINDS)): 1.0}
    taste = {kind: weight * random.choice((0, 0, 1, 1, 1, 4)) for kind, weight in KINDS.items()}
    return taste if any(taste.values()) else dict(KINDS)


def _draw_faults(
    random: Random, taste: dict[str, float], nodes: int, consensus: ConsensusConfig, duration_us: int
) -> tuple[Fault, ...]:
    if all(kind in HARMLESS for kind in taste):
        return _draw_harmless_faults(random, nodes, consensus, duration_us)
    faults = []
    for _ in range(random.choice((0, 2, 4, 8, 16, 16, 30))):
        kind = random.choices(list(taste), list(taste.values()))[0]
        length = random.choice((0.05, 0.3, 0.8, 1.5, 3, 6)) * random.uniform(0.5, 1.5)
        faults.append(
            Fault(
                kind,
                random.randrange(duration_us),
                int(consensus.suspicion_us * length),
                _draw_targets(random, kind, nodes),
            )
        )
    return tuple(sorted(faults, key=lambda fault: fault.at_us))


def _draw_harmless_faults(
    random: Random, nodes: int, consensus: ConsensusConfig, duration_us: int
) -> tuple[Fault, ...]:
    """One at a time, with time to recover: two of them at once may cost a majority."""
    slot = 4 * consensus.suspicion_us
    faults = []
    for at_us in range(slot, duration_us, slot):
        kind = random.choice(HARMLESS)
        lasts_us = random.randrange(slot // 2)
        faults.append(
            Fault(kind, at_us + random.randrange(1000), lasts_us, _draw_targets(random, kind, nodes))
        )
    return tuple(faults)


def _draw_targets(random: Random, kind: str, nodes: int) -> tuple[int, ...]:
    if kind.endswith(("_leader", "_election", "_commit", "_follower")):
        return (random.randrange(64),)
    if kind == "crash_all":
        return tuple(range(nodes))
    if kind in ("halves", "bridge", "flapping"):
        return tuple(random.sample(range(nodes), nodes))
    if kind == "crash_majority":
        return tuple(random.sample(range(nodes), nodes // 2 + 1))
    return tuple(random.sample(range(nodes), min(nodes, _TARGETS.get(kind, 1))))
