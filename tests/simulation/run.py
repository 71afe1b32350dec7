"""Runs schedules: one, many, with a rule broken on purpose; and makes a failing one smaller.

A schedule is a seed. What a failing one prints is enough to see it again: the seed, the commit of
the code, and the line that replays it.
"""

from __future__ import annotations

import subprocess
import traceback
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from tests.simulation.draw import draw_plan
from tests.simulation.invariants import Violation
from tests.simulation.mutants import MUTANTS
from tests.simulation.plan import DiskPlan, NetworkPlan, Plan
from tests.simulation.simulation import Simulation

SHRINK_RUNS_MAX = 200
SHORTEST_US = 100_000


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one schedule ended; `complaint` is empty if nothing was wrong."""

    seed: int
    complaint: str
    recovery_us: int
    gap_us: int
    """The longest time in phase one for which a connected majority took no writes."""

    @property
    def failed(self) -> bool:
        return bool(self.complaint)


def run_plan(plan: Plan, mutant: str = "", trace: Callable[[str], None] | None = None) -> Outcome:
    """Run a plan to its end. Whatever is raised on the way, by whomever, is its complaint."""
    if not mutant:
        return _run(Simulation(plan, trace=trace))
    broken = MUTANTS[mutant]
    with broken.broken():
        return _run(Simulation(plan, broken.tools(), trace))


def _run(simulation: Simulation) -> Outcome:
    seed = simulation.plan.seed
    try:
        simulation.run()
    except Exception as error:  # a KeyError in the core is this schedule's failure too
        return Outcome(seed, f"{type(error).__name__}: {error}{_where(error)}", 0, 0)
    return Outcome(seed, "", simulation.recovery_us, simulation.availability.longest_gap_us)


def _where(error: Exception) -> str:
    """The line that raised it; the checks of the simulation speak for themselves."""
    if isinstance(error, Violation):
        return ""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f" ({Path(last.filename).name}, line {last.lineno}, in {last.name})"


def plan_of(seed: int, mutant: str = "", theme: str = "") -> Plan:
    """The schedule that a seed stands for; for a mutant, in the theme that is after its mistake."""
    return draw_plan(seed, theme or (MUTANTS[mutant].theme if mutant else ""))


def run_seed(seed: int, mutant: str = "", theme: str = "") -> Outcome:
    """Run the schedule that a seed stands for."""
    return run_plan(plan_of(seed, mutant, theme), mutant)


def run_many(seeds: Iterable[int], jobs: int = 1, mutant: str = "", theme: str = "") -> Iterator[Outcome]:
    """Run schedules in `jobs` processes; outcomes in the order of the seeds."""
    one = partial(run_seed, mutant=mutant, theme=theme)
    if jobs == 1:
        yield from map(one, seeds)
        return
    with ProcessPoolExecutor(jobs) as pool:
        yield from pool.map(one, seeds, chunksize=8)


def first_failure(seeds: Iterable[int], mutant: str = "") -> Outcome | None:
    """The first of the schedules that fails, None if all hold."""
    return next((outcome for outcome in run_many(seeds, mutant=mutant) if outcome.failed), None)


def shrink(plan: Plan, mutant: str = "") -> Plan:
    """A smaller plan that still fails: fewer faults, a shorter first phase, less of everything.

    Greedy, as delta debugging goes: drop what can be dropped, halves before single ones. Seeds of the
    random draws stay, so a smaller plan is another schedule; it only has to fail as well. The same
    seed shrinks to the same plan, so `--seed N --shrink --trace` replays it.
    """
    runs = 0

    def fails(smaller: Plan) -> bool:
        nonlocal runs
        runs += 1
        return runs <= SHRINK_RUNS_MAX and run_plan(smaller, mutant).failed

    size = len(plan.faults) // 2
    while size:
        start = 0
        while start < len(plan.faults):
            kept = (*range(start), *range(start + size, len(plan.faults)))
            smaller = plan.only(kept)
            if fails(smaller):
                plan = smaller
            else:
                start += size
        size //= 2
    while plan.duration_us > SHORTEST_US:
        shorter = plan.lasting(plan.duration_us * 3 // 4)
        if not fails(shorter):
            break
        plan = shorter
    for simpler in SIMPLER:
        candidate = simpler(plan)
        if candidate != plan and fails(candidate):
            plan = candidate
    return plan


SIMPLER: tuple[Callable[[Plan], Plan], ...] = (
    lambda plan: plan.with_nodes(plan.replication_factor),
    lambda plan: plan.with_nodes(3),
    lambda plan: replace(plan, partitions=1),
    lambda plan: replace(plan, network=NetworkPlan()),
    lambda plan: replace(plan, disk=DiskPlan()),
    lambda plan: replace(plan, skew=(1.0,) * plan.nodes),
    lambda plan: replace(plan, turn_us=0),
    lambda plan: replace(plan, load=replace(plan.load, clients=1)),
)
"""Ways to make a plan easier to read, tried in this order."""


def describe_failure(outcome: Outcome, mutant: str = "", theme: str = "") -> str:
    """What a person needs to see it again."""
    flag = (f" --mutant {mutant}" if mutant else "") + (f" --theme {theme}" if theme else "")
    return (
        f"seed {outcome.seed}, commit {commit()}: {outcome.complaint}\n"
        f"  replay: scripts/simulate --seed {outcome.seed}{flag} --trace"
    )


def commit() -> str:
    """The commit that is checked out, with a mark if the tree differs from it."""
    here = Path(__file__).parent
    found = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=here, capture_output=True, text=True, check=False
    )
    return found.stdout.strip() or "unknown"
