"""Bugs that the simulation found in the core, each with the schedule that shows it.

Each schedule holds now, and fails with the old behaviour put back, which lives on among the mutants.
A schedule is a plan told here in full where it matters, not a bare seed: what a seed draws changes
with every new kind of fault.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.simulation.draw import draw_plan
from tests.simulation.plan import DiskPlan, Fault, NetworkPlan, Plan
from tests.simulation.run import run_plan


def _small(seed: int, **changes: object) -> Plan:
    """Three nodes in a good network, one partition, nothing wrong: what a regression begins from."""
    calm = replace(
        draw_plan(seed, "calm"),
        nodes=3,
        partitions=1,
        replication_factor=3,
        network=NetworkPlan(),
        disk=DiskPlan(),
        skew=(1.0, 1.0, 1.0),
        faults=(),
    )
    return replace(calm, **changes)  # type: ignore[arg-type]


def _one_replica() -> Plan:
    """Rule 1, seed 4 of 23 November: alone in its group, a node led before its own vote was durable, and
    after a crash led the same term again."""
    crashes = tuple(
        Fault("crash", at_us, 20_000, (at_us // 100_000 % 3,)) for at_us in range(50_000, 900_000, 50_000)
    )
    return _small(4, partitions=3, replication_factor=1, faults=crashes)


def _slow_disks() -> Plan:
    """Rule 13, seeds 10 to 12 of 23 November: with a sync as long as the pause between two elections,
    candidates overtook each other's votes for ever."""
    plan = _small(10)
    return replace(plan, disk=DiskPlan(plan.consensus.suspicion_us // 4, 1000))


def _hand_overs_on_slow_disks() -> Plan:
    """Rule 13, seed 300897 of 24 November: with a sync longer than a retry, who was handed a partition gave
    its candidacy up before a vote could be there; somebody else was elected terms later, and handed the
    partition on in vain again."""
    plan = _small(16, nodes=5, replication_factor=5, skew=(1.0,) * 5, minority="crash")
    suspicion_us = plan.consensus.suspicion_us
    return replace(plan, duration_us=4 * suspicion_us, disk=DiskPlan(suspicion_us // 6, 1000))


@pytest.mark.parametrize(
    ("plan", "mutant"),
    [
        (_one_replica(), "rule-1-sole-voter"),
        (_slow_disks(), "rule-13-no-back-off"),
        (_hand_overs_on_slow_disks(), "rule-13-blind-to-syncs"),
    ],
    ids=["one_replica", "slow_disks", "hand_overs_on_slow_disks"],
)
def test_it_stays_fixed(plan: Plan, mutant: str) -> None:
    assert run_plan(plan).complaint == ""
    assert run_plan(plan, mutant).failed, "the schedule no longer shows what it is kept for"


def test_a_disk_that_is_mended_while_its_node_sleeps_syncs_once() -> None:
    """A mistake of the simulated disk: a sync that had ended, and that a paused process had not heard of,
    ended again, and what it had not covered was never synced nor reported."""
    plan = _small(9)
    plan = replace(
        plan,
        load=replace(plan.load, clients=6, think_us=3000, operations=300, timeout_us=100_000),
        minority="isolate",
        faults=tuple(
            fault
            for number, at_us in enumerate(range(100_000, 1_800_000, 300_000))
            for fault in (
                Fault("slow_disk", at_us, 120_000, (number % 3,)),
                Fault("pause", at_us + 60_000, 200_000, (number % 3,)),
            )
        ),
    )
    assert run_plan(plan).complaint == ""
