"""Schedules that the mixture meets too rarely, each named for what it is after.

The mutants that only these catch are why each theme is here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random

from tests.simulation.mixture import KINDS, draw_faults, draw_targets
from tests.simulation.plan import HARMLESS, MILLISECOND, DiskPlan, Fault, LoadPlan, NetworkPlan, Plan


def _mixed(plan: Plan, random: Random) -> Plan:
    return plan


def _one_kind(plan: Plan, random: Random) -> Plan:
    """Nothing but crashes, or nothing but cuts, or..."""
    kind = random.choice(list(KINDS))
    return replace(
        plan, faults=draw_faults(random, {kind: 1.0}, plan.nodes, plan.consensus, plan.duration_us)
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
    deposed, for entries that are no longer there (rule 2). Nobody repeats what hung there, so the log is
    still shorter than that tail was when the leadership comes back."""
    plan = _one_group(plan, random)
    return replace(
        plan,
        network=replace(plan.network, delay_us=50, jitter_us=50),
        disk=DiskPlan(50, 10_000),
        load=replace(_busy(plan, random.choice((24, 40)), 12), attempts=1),
        faults=_scatter(plan, random, 6, ("isolate_and_stall_leader",), (1.2, 1.6)),
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


def _gray(plan: Plan, random: Random) -> Plan:
    """A leader that is heard and cannot replicate, for longer than anybody may wait (rule 35). Often nobody
    appends, and reads alone wait for it."""
    plan = _one_group(plan, random)
    suspicion_us = plan.consensus.suspicion_us
    duration_us = 40 * suspicion_us
    fault = Fault("data_lanes_leader", 4 * suspicion_us, 32 * suspicion_us, (0,))
    load = LoadPlan(
        clients=2,
        operations=60,
        think_us=duration_us // 60,
        timeout_us=2 * suspicion_us,
        attempts=2,
        reads=random.choice((0, 0.5, 1)),
    )
    network = NetworkPlan(give_up_us=1000 * suspicion_us)
    return replace(
        plan, duration_us=duration_us, network=network, disk=DiskPlan(), load=load, faults=(fault,)
    )


def _idle(plan: Plan, random: Random) -> Plan:
    """A leader whose data connections hang, both ways or one, and nobody asks it for anything (rule 35)."""
    plan = _one_group(plan, random)
    suspicion_us = plan.consensus.suspicion_us
    kind = random.choice(("data_lanes_leader", "replies_leader"))
    return replace(
        plan,
        duration_us=40 * suspicion_us,
        network=NetworkPlan(give_up_us=1000 * suspicion_us),
        disk=DiskPlan(),
        load=replace(plan.load, clients=0),
        faults=(Fault(kind, 4 * suspicion_us, 32 * suspicion_us, (0,)),),
    )


def _views(plan: Plan, random: Random) -> Plan:
    """One node dead, one link cut, and many partitions: two leaders that see different owners must not hand
    one to and fro (rule 36)."""
    plan = replace(_one_group(plan, random), nodes=4, partitions=16, replication_factor=3)
    suspicion_us = plan.consensus.suspicion_us
    dead, *linked = random.sample(range(4), 3)
    faults = (
        Fault("crash", 2 * suspicion_us, 16 * suspicion_us, (dead,)),
        Fault("link", 4 * suspicion_us, 14 * suspicion_us, tuple(linked)),
    )
    return replace(
        plan,
        skew=(1.0,) * 4,
        duration_us=18 * suspicion_us,
        network=NetworkPlan(),
        disk=DiskPlan(),
        load=replace(plan.load, clients=2, operations=20, think_us=suspicion_us),
        faults=faults,
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
        targets = draw_targets(random, kind, plan.nodes)
        faults.append(Fault(kind, at_us + random.randrange(1000), random.randrange(slot // 2), targets))
    network = replace(plan.network, ordered=True, drop=0.0, duplicate=0.0, late=0.0, jitter_us=300)
    return replace(plan, network=network, disk=DiskPlan(200, 300), faults=tuple(faults))


def _node_code(plan: Plan, random: Random) -> Plan:
    """The real node around the core: forwarding, parking, appends, answers, reads. Its mistakes show
    where leaders are wrong about themselves, so the shapes that make such leaders are likely here."""
    shape = random.choice((_mixed, _two_leaders, _late_syncs, _figure_8))
    return replace(shape(plan, random), real_node=True)


def _grouped(plan: Plan, random: Random) -> Plan:
    """Many appends in one turn, of few streams and marks: an entry has several, and some of a turn are
    refused. Leaders lose what they proposed, so that much is tried again and truncated."""
    plan = _one_group(plan, random)
    suspicion_us = plan.consensus.suspicion_us
    kinds = ("crash_leader", "isolate_leader", "pause_leader", "isolate_and_stall_leader")
    load = _busy(plan, random.choice((8, 16)), 40)
    load = replace(
        load,
        beat_us=load.think_us,
        timeout_us=int(suspicion_us * random.choice((0.3, 4))),
        exact=random.choice((0.1, 0.4)),
        exact_tag=0.2,
        marks=0.3,
    )
    return replace(
        plan,
        turn_us=random.choice((1000, 5000)),
        group_max=random.choice((3, 1000)),
        network=NetworkPlan(),
        disk=DiskPlan(50, random.choice((300, 5000))),
        load=load,
        faults=_scatter(plan, random, random.choice((2, 8)), kinds, (0.1, 0.8, 1.6)),
    )


def _node_grouped(plan: Plan, random: Random) -> Plan:
    """The same with the real node around the core."""
    return replace(_grouped(plan, random), real_node=True)


def _restarts(plan: Plan, random: Random) -> Plan:
    """Followers that restart with a long log, of which the leader verifies one entry at a time (rule 5)."""
    plan = _one_group(plan, random)
    crashes = _scatter(plan, random, 20, ("crash",), (0.1, 0.3, 0.6))
    return replace(
        plan,
        consensus=replace(plan.consensus, append_bytes_max=1, inflight_messages_max=1),
        network=NetworkPlan(delay_us=300, reconnect_us=5 * MILLISECOND),
        disk=DiskPlan(50, 50),
        load=_busy(plan, 8, 40),
        faults=tuple(replace(fault, targets=(random.randrange(plan.nodes),)) for fault in crashes),
    )


def _slow_disks(plan: Plan, random: Random) -> Plan:
    """A sync takes longer than a retry: elections must wait for it, or nobody gets what it is handed
    (rule 13)."""
    plan = _one_group(plan, random)
    suspicion_us = plan.consensus.suspicion_us
    return replace(
        plan,
        duration_us=8 * suspicion_us,
        network=NetworkPlan(),
        disk=DiskPlan(suspicion_us // random.choice((4, 6)), suspicion_us // 100),
        faults=(Fault("crash_leader", 4 * suspicion_us, suspicion_us, (0,)),),
    )


def _queues(plan: Plan, random: Random) -> Plan:
    """Slow disks, entries that go out one by one, and more of them than can be synced in a suspicion time.
    A partition must go to its owner all the same (rule 20)."""
    plan = _slow_disks(plan, random)
    suspicion_us = plan.consensus.suspicion_us
    return replace(
        plan,
        nodes=3,
        replication_factor=3,
        skew=(1.0,) * 3,
        consensus=replace(plan.consensus, append_bytes_max=1, inflight_messages_max=1),
        load=replace(_busy(plan, 12, 40), reads=0.1),
        faults=(Fault("isolate_leader", 5 * suspicion_us, 3 * suspicion_us, (0,)),),
        minority=random.choice(("crash", "isolate")),
    )


def _shell(plan: Plan, random: Random) -> Plan:
    """The real replica with a disk that has no room, and with an owner that raises (rules 24 and 31)."""
    plan = replace(_one_group(plan, random), real_node=True)
    kinds = ("stuck_disk", "stuck_disk_leader", "work_raises", "work_raises_leader")
    return replace(
        plan,
        faults=tuple(
            replace(fault, targets=(random.randrange(plan.nodes),))
            for fault in _scatter(plan, random, 10, kinds, (0.3, 0.8, 1.5, 3))
        ),
    )


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
    "gray": (0.2, _gray),
    "views": (0.2, _views),
    "late_requests": (0.3, _late_requests),
    "minorities": (0.4, _minorities),
    "grouped": (0.7, _grouped),
    "calm": (0.7, _calm),
    "restarts": (0.2, _restarts),
    "shell": (0.5, _shell),
    "node_code": (0, _node_code),
    "node_grouped": (0, _node_grouped),
    "slow_disks": (0, _slow_disks),
    "queues": (0, _queues),
    "idle": (0, _idle),
}
"""By name: how often a seed draws it, and how it shapes the mixed plan."""
