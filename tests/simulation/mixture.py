"""The mixture that a seed stands for: its own cluster, timings and fault rates.

Swarm testing, as in TigerBeetle's VOPR: a schedule that crashes nodes all the time and never cuts a link
finds other bugs than one that does a little of everything.
"""

from __future__ import annotations

from random import Random

from allsource.cluster.consensus.multiraft import ConsensusConfig
from tests.simulation.plan import MILLISECOND, DiskPlan, Fault, LoadPlan, NetworkPlan, Plan

BY_ROLE = ("_leader", "_election", "_commit", "_follower")
"""Endings of the kinds whose target is found when they strike."""

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
    "link": 1,
    "flapping": 1,
    "data_lane": 1,
    "data_lanes_leader": 1,
    "replies_leader": 0.7,
    "beat_lane": 0.5,
    "beat_lane_leader": 0.7,
    "slow_link": 1,
    "reset": 1.5,
    "slow_disk": 1,
    "stalled_disk": 1,
    "disk_error": 0.7,
    "full_disk": 1,
    "full_disk_leader": 1,
    "stuck_disk": 0.7,
    "stuck_disk_leader": 0.7,
    "work_raises": 0.5,
    "work_raises_leader": 0.7,
    "clock_jump": 1,
    "false_alarm": 1.5,
    "isolate_follower": 0.5,
    "deafen_follower": 0.5,
}
_TARGETS = {
    "crash_two": 2,
    "pause_two": 2,
    "one_way": 2,
    "data_lane": 2,
    "slow_link": 2,
    "reset": 2,
    "false_alarm": 2,
}


def draw_mixed(random: Random, seed: int) -> Plan:
    nodes = random.choices((1, 2, 3, 4, 5, 7), (0.5, 0.7, 6, 2, 3, 0.7))[0]
    consensus = _draw_consensus(random)
    duration_us = consensus.suspicion_us * random.choice((8, 12, 20, 30))
    return Plan(
        seed=seed,
        nodes=nodes,
        partitions=random.choices((1, 2, 3, 4, 8, 16), (4, 4, 2, 1, 0.2, 0.1))[0],
        replication_factor=min(nodes, random.choices((1, 2, 3, 5), (0.3, 0.5, 6, 2))[0]),
        consensus=consensus,
        network=_draw_network(random, consensus),
        disk=_draw_disk(random, consensus),
        load=_draw_load(random, consensus, duration_us),
        tail_bytes=random.choice((200, 2000, 2 << 20)),
        turn_us=random.choice((0, 0, 50, 1000)),
        skew=tuple(random.choice((1.0, random.uniform(0.95, 1.05))) for _ in range(nodes)),
        duration_us=duration_us,
        faults=draw_faults(random, _draw_taste(random), nodes, consensus, duration_us),
        # Not from the same dice: what is drawn behind it should not depend on it.
        real_node=Random(f"node {seed}").random() < 0.4,
        group_max=Random(f"group {seed}").choice((1, 2, 5, 1000)),
        minority=random.choice(("crash", "isolate", "as_is", "partly")),
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


def _draw_disk(random: Random, consensus: ConsensusConfig) -> DiskPlan:
    if random.random() < 0.1:  # each sync takes a good part of the suspicion time
        return DiskPlan(consensus.suspicion_us // random.choice((4, 8)), 1000)
    return DiskPlan(random.choice((50, 200, 1000)), random.choice((50, 300, 3000)))


def _draw_network(random: Random, consensus: ConsensusConfig) -> NetworkPlan:
    ordered = random.random() < 0.6
    late = 0.0 if ordered else random.choice((0.0, 0.02, 0.1))
    return NetworkPlan(
        ordered=ordered,
        delay_us=random.choice((50, 300, 1500)),
        jitter_us=random.choice((50, 300, 3000)),
        drop=0.0 if ordered else random.choice((0.0, 0.01, 0.1)),
        duplicate=0.0 if ordered else random.choice((0.0, 0.02, 0.1)),
        late=late,
        late_us=consensus.suspicion_us * random.choice((1, 2, 4)),
        reconnect_us=consensus.heartbeat_us // 2,
        give_up_us=consensus.suspicion_us * random.choice((1, 4, 1000)),
    )


def _draw_load(random: Random, consensus: ConsensusConfig, duration_us: int) -> LoadPlan:
    clients = random.randint(1, 6)
    operations = random.choice((60, 120, 250)) // clients
    think_us = duration_us // operations // 2
    return LoadPlan(
        clients=clients,
        think_us=think_us,
        operations=operations,
        streams=random.randint(1, 4),
        reads=random.choice((0.1, 0.3, 0.5)),
        exact=random.choice((0.1, 0.4, 0.8)),
        two_streams=random.choice((0.0, 0.2, 0.5)),
        wrong_node=random.choice((0.05, 0.3)),
        beat_us=random.choice((1, think_us, 3 * think_us)),
        timeout_us=int(consensus.suspicion_us * random.choice((0.5, 1.5, 5))),
        attempts=random.choice((2, 8, 20)),
    )


def _draw_taste(random: Random) -> dict[str, float]:
    """How much this seed likes each kind of fault."""
    taste = {kind: weight * random.choice((0, 0, 1, 1, 1, 4)) for kind, weight in KINDS.items()}
    return taste if any(taste.values()) else dict(KINDS)


def draw_faults(
    random: Random, taste: dict[str, float], nodes: int, consensus: ConsensusConfig, duration_us: int
) -> tuple[Fault, ...]:
    faults = []
    for _ in range(random.choice((0, 2, 4, 8, 16, 16, 30))):
        kind = random.choices(list(taste), list(taste.values()))[0]
        length = random.choice((0.05, 0.3, 0.8, 1.5, 3, 6)) * random.uniform(0.5, 1.5)
        faults.append(
            Fault(
                kind,
                random.randrange(duration_us),
                int(consensus.suspicion_us * length),
                draw_targets(random, kind, nodes),
            )
        )
    return tuple(sorted(faults, key=lambda fault: fault.at_us))


def draw_targets(random: Random, kind: str, nodes: int) -> tuple[int, ...]:
    if kind.endswith(BY_ROLE):
        return (random.randrange(64),)
    if kind == "crash_all":
        return tuple(range(nodes))
    if kind in ("halves", "bridge", "flapping"):
        return tuple(random.sample(range(nodes), nodes))
    if kind == "crash_majority":
        return tuple(random.sample(range(nodes), nodes // 2 + 1))
    return tuple(random.sample(range(nodes), min(nodes, _TARGETS.get(kind, 1))))
