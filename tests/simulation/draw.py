"""From a seed to a plan.

Every seed draws its own cluster size, timings and fault rates (swarm testing, as in TigerBeetle's
VOPR): a schedule that crashes nodes all the time and never cuts a link finds other bugs than one that
does a little of everything. Some schedules are so unlikely that they need a theme of their own; the
mutants that only these catch are why each theme is here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random

from allsource.cluster.consensus.multiraft import ConsensusConfig
from tests.simulation.plan import HARMLESS, MILLISECOND, DiskPlan, Fault, LoadPlan, NetworkPlan, Plan

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


def draw_plan(seed: int, theme: str = "") -> Plan:
    """The plan that a seed stands for; `theme` instead of the one that it would draw."""
    random = Random(f"plan {seed}")
    drawn = random.choices(list(THEMES), [weight for weight, _ in THEMES.values()])[0]
    _, shape = THEMES[theme or drawn]
    return shape(_draw_mixed(random, seed), random)


def _draw_mixed(random: Random, seed: int) -> Plan:
    nodes = random.choices((1, 2, 3, 4, 5, 7), (0.5, 0.7, 6, 2, 3, 0.7))[0]
    consensus = _draw_consensus(random)
    duration_us = consensus.suspicion_us * random.choice((8, 12, 20, 30))
    return Plan(
        seed=seed,
        nodes=nodes,
        partitions=random.choices((1, 2, 3, 4), (4, 4, 2, 1))[0],
        replication_factor=min(nodes, random.choices((1, 2, 3, 5), (0.3, 0.5, 6, 2))[0]),
        consensus=consensus,
        network=_draw_network(random, consensus),
        disk=_draw_disk(random, consensus),
        load=_draw_load(random, consensus, duration_us),
        tail_bytes=random.choice((200, 2000, 2 << 20)),
        turn_us=random.choice((0, 0, 50, 1000)),
        skew=tuple(random.choice((1.0, random.uniform(0.95, 1.05))) for _ in range(nodes)),
        duration_us=duration_us,
        faults=_draw_faults(random, _draw_taste(random), nodes, consensus, duration_us),
        # Not from the same dice: what is drawn behind it should not depend on it.
        real_node=Random(f"node {seed}").random() < 0.4,
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


def _draw_taste(random: Random) -> dict[str, float]:
    """How much this seed likes each kind of fault."""
    taste = {kind: weight * random.choice((0, 0, 1, 1, 1, 4)) for kind, weight in KINDS.items()}
    return taste if any(taste.values()) else dict(KINDS)


def _draw_faults(
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
                _draw_targets(random, kind, nodes),
            )
        )
    return tuple(sorted(faults, key=lambda fault: fault.at_us))


def _draw_targets(random: Random, kind: str, nodes: int) -> tuple[int, ...]:
    if kind.endswith(BY_ROLE):
        return (random.randrange(64),)
    if kind == "crash_all":
        return tuple(range(nodes))
    if kind in ("halves", "bridge", "flapping"):
        return tuple(random.sample(range(nodes), nodes))
    if kind == "crash_majority":
        return tuple(random.sample(range(nodes), nodes // 2 + 1))
    return tuple(random.sample(range(nodes), min(nodes, _TARGETS.get(kind, 1))))


# -- themes: what the mixture meets too rarely, each named for what it is after


def _mixed(plan: Plan, random: Random) -> Plan:
    return plan


def _one_kind(plan: Plan, random: Random) -> Plan:
    """Nothing but crashes, or nothing but cuts, or..."""
    kind = random.choice(list(KINDS))
    return replace(
        plan, faults=_draw_faults(random, {kind: 1.0}, plan.nodes, plan.consensus, plan.duration_us)
    )


def _figure_8(plan: Plan, random: Random) -> Plan:
    """Figure 8 of the Raft paper: leaders that fall as soon as they are elected, or as soon as anything
    commits, with entries that went out one by one (rule 3)."""
    kinds = ("crash_on_election", "crash_on_election", "crash_on_commit")
    plan = _one_group(plan, random)
    messages = random.choice((1, 2, 64))
    return replace(
        plan,
        consensus=replace(plan.consensus, append_bytes_max=1, inflight_messages_max=messages),
        network=replace(plan.network, delay_us=random.choice((300, 1500, 5000))),
        disk=DiskPlan(50, 50),
        faults=_scatter(plan, random, 30, kinds, (0.1, 0.3, 0.6, 1.2)),
    )


def _late_syncs(plan: Plan, random: Random) -> Plan:
    """A leader with a long uncommitted tail is cut off while its disk hangs: its syncs end after it was
    deposed, for entries that are no longer there (rule 2)."""
    plan = _one_group(plan, random)
    clients = random.choice((16, 24))
    return replace(
        plan,
        network=replace(plan.network, delay_us=50, jitter_us=50),
        disk=DiskPlan(50, 3000),
        load=_busy(plan, clients, 12),
        faults=_scatter(plan, random, 8, ("isolate_and_stall_leader",), (0.8, 1.2, 1.6, 2.5)),
    )


def _two_leaders(plan: Plan, random: Random) -> Plan:
    """A leader that nobody hears, or that slept, while another is in office (rules 6 and 14)."""
    plan = _one_group(plan, random)
    clients = random.choice((2, 6, 12))
    kinds = ("isolate_leader", "pause_leader")
    return replace(
        plan,
        load=_busy(plan, clients, 300 // clients),
        faults=_scatter(plan, random, 8, kinds, (0.8, 1.2, 1.6, 2.5)),
    )


def _old_messages(plan: Plan, random: Random) -> Plan:
    """Questions and answers of terms that are long over, delivered to whoever is there now: leaders come
    and go quickly, so that what was meant for one of them finds another, or the same one terms later
    (rule 34)."""
    plan = _one_group(plan, random)
    suspicion_us = plan.consensus.suspicion_us
    kinds = ("isolate_leader", "pause_leader", "crash_leader", "usurped_leader")
    network = NetworkPlan(
        ordered=False,
        delay_us=50,
        jitter_us=random.choice((50, 1000)),
        late=random.choice((0.05, 0.2)),
        late_us=suspicion_us * random.choice((2, 4)),
        reconnect_us=plan.network.reconnect_us,
    )
    clients = random.choice((6, 12))
    return replace(
        plan,
        turn_us=random.choice((0, 1000, 5000)),
        consensus=replace(plan.consensus, append_bytes_max=random.choice((1, 300, 1 << 20))),
        network=network,
        disk=DiskPlan(50, random.choice((50, 3000))),
        load=replace(_busy(plan, clients, 20), reads=random.choice((0.2, 0.6))),
        faults=_scatter(plan, random, 16, kinds, (0.1, 0.3, 0.8, 1.2, 1.6)),
    )


def _usurped(plan: Plan, random: Random) -> Plan:
    """A leader that does not know that it was replaced is asked a lot, and hears old answers (rule 14)."""
    plan = _one_group(plan, random)
    suspicion_us = plan.consensus.suspicion_us
    return replace(
        plan,
        nodes=3,
        replication_factor=3,
        skew=(1.0,) * 3,
        duration_us=12 * suspicion_us,
        network=NetworkPlan(ordered=False, delay_us=50, jitter_us=50, reconnect_us=10 * MILLISECOND),
        disk=DiskPlan(50, 50),
        load=replace(_busy(plan, 12, 40), reads=0.6, streams=1, exact=0.0, wrong_node=0.3),
        faults=tuple(
            Fault("usurped_leader", at_us, suspicion_us * 3 // 2, (0,))
            for at_us in range(2 * suspicion_us, 11 * suspicion_us, 4 * suspicion_us)
        ),
    )


def _late_requests(plan: Plan, random: Random) -> Plan:
    """Requests that are forwarded, forgotten with their connection, refused when tried again, and arrive in
    the end: was the refusal right to be definite (contract, line 6)? New streams, so that what was
    expected in vain comes true later."""
    plan = _one_group(plan, random)
    suspicion_us = plan.consensus.suspicion_us
    pairs = [(a, b) for a in range(3) for b in range(3) if a != b]
    resets = range(suspicion_us, 12 * suspicion_us, suspicion_us // 5)
    return replace(
        plan,
        nodes=3,
        replication_factor=3,
        skew=(1.0,) * 3,
        duration_us=12 * suspicion_us,
        real_node=True,
        network=NetworkPlan(
            ordered=False, late=0.1, late_us=2 * suspicion_us, reconnect_us=10 * MILLISECOND
        ),
        disk=DiskPlan(50, 50),
        load=replace(_busy(plan, 6, 40), streams=60, exists=16, exact=0.1, wrong_node=0.8, reads=0.1),
        faults=tuple(Fault("reset", at_us, 1, random.choice(pairs)) for at_us in resets),
    )


def _minorities(plan: Plan, random: Random) -> Plan:
    """A leader goes on with one follower of four, and what the two have is truncated in the end: whatever
    was said of it, and is heard or written later, must not count (rules 2 and 34)."""
    plan = replace(_one_group(plan, random), nodes=5, replication_factor=5, skew=(1.0,) * 5)
    kind = random.choice(("minority_echo_leader", "minority_asleep_leader"))
    consensus = replace(
        plan.consensus,
        heartbeat_us=20 * MILLISECOND,
        suspicion_us=160 * MILLISECOND,
        inflight_messages_max=64,
        inflight_bytes_max=8 << 20,
    )
    suspicion_us, network = consensus.suspicion_us, NetworkPlan(delay_us=50, jitter_us=50)
    plan = replace(
        plan,
        duration_us=20 * suspicion_us,
        consensus=consensus,
        turn_us=random.choice((1000, 5000)),
        network=replace(network, reconnect_us=10 * MILLISECOND, give_up_us=1000 * suspicion_us),
        disk=DiskPlan(50, random.choice((300, 5000))),
        faults=tuple(
            Fault(kind, at_us, int(suspicion_us * random.choice((0.5, 0.9, 1.2))), (0,))
            for at_us in range(2 * suspicion_us, 20 * suspicion_us, 5 * suspicion_us)
        ),
    )
    if kind == "minority_asleep_leader":
        return replace(plan, load=replace(_busy(plan, 8, 40), timeout_us=suspicion_us // 3, attempts=8))
    # Many appends that nobody confirms, and few that replace them.
    busy = replace(_busy(plan, 16, 25), timeout_us=suspicion_us // 10, attempts=1, reads=0.1)
    return replace(plan, turn_us=0, load=busy, network=replace(plan.network, ordered=False))


def _calm(plan: Plan, random: Random) -> Plan:
    """What must not depose anybody (rules 11 and 12): one thing at a time, with time to recover, since
    two at once may cost a majority."""
    slot = 4 * plan.consensus.suspicion_us
    faults = []
    for at_us in range(slot, plan.duration_us, slot):
        kind = random.choice(HARMLESS)
        targets = _draw_targets(random, kind, plan.nodes)
        faults.append(Fault(kind, at_us + random.randrange(1000), random.randrange(slot // 2), targets))
    network = replace(plan.network, ordered=True, drop=0.0, duplicate=0.0, late=0.0, jitter_us=300)
    return replace(plan, network=network, disk=DiskPlan(200, 300), faults=tuple(faults))


def _node_code(plan: Plan, random: Random) -> Plan:
    """The real node around the core: forwarding, parking, admission, answers, reads. Its mistakes show
    where leaders are wrong about themselves, so the shapes that make such leaders are likely here."""
    shape = random.choice((_mixed, _two_leaders, _late_syncs, _figure_8))
    return replace(shape(plan, random), real_node=True)


def _one_group(plan: Plan, random: Random) -> Plan:
    """One partition on all of a few nodes, for twenty suspicion times."""
    nodes = random.choice((3, 3, 5))
    return replace(
        plan,
        nodes=nodes,
        partitions=1,
        replication_factor=nodes,
        skew=(1.0,) * nodes,
        duration_us=20 * plan.consensus.suspicion_us,
    )


def _busy(plan: Plan, clients: int, operations: int) -> LoadPlan:
    """Clients that wait for long, and so are still there when a late answer comes."""
    return replace(
        plan.load,
        clients=clients,
        operations=operations,
        think_us=plan.duration_us // operations,
        timeout_us=4 * plan.consensus.suspicion_us,
    )


def _scatter(
    plan: Plan, random: Random, count: int, kinds: tuple[str, ...], lengths: tuple[float, ...]
) -> tuple[Fault, ...]:
    """This many faults of these kinds, each about one of these multiples of the suspicion time long."""
    faults = [
        Fault(
            random.choice(kinds),
            random.randrange(plan.duration_us),
            int(plan.consensus.suspicion_us * random.choice(lengths) * random.uniform(0.7, 1.3)),
            (0,),
        )
        for _ in range(count)
    ]
    return tuple(sorted(faults, key=lambda fault: fault.at_us))


THEMES: dict[str, tuple[float, Callable[[Plan, Random], Plan]]] = {
    "mixed": (6, _mixed),
    "one_kind": (1, _one_kind),
    "figure_8": (1, _figure_8),
    "late_syncs": (0.7, _late_syncs),
    "two_leaders": (1, _two_leaders),
    "old_messages": (1, _old_messages),
    "usurped": (0.3, _usurped),
    "late_requests": (0.3, _late_requests),
    "minorities": (0.4, _minorities),
    "calm": (0.7, _calm),
    "node_code": (0, _node_code),
}
"""By name: how often a seed draws it, and how it shapes the mixed plan."""
