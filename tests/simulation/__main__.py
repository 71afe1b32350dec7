"""`scripts/simulate`: run many schedules, or one with its whole story."""

from __future__ import annotations

import argparse
import sys
import time

from tests.simulation.draw import THEMES
from tests.simulation.mutants import MUTANTS
from tests.simulation.run import Outcome, describe_failure, plan_of, run_many, run_plan, shrink


def main() -> int:
    options = _options().parse_args()
    if options.seed is not None:
        return _one(options)
    return _many(options)


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="scripts/simulate", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1000, help="how many schedules (default: 1000)")
    parser.add_argument("--start", type=int, default=0, help="the first seed (default: 0)")
    parser.add_argument("--jobs", type=int, default=2, help="processes (default: 2)")
    parser.add_argument("--seed", type=int, help="run this schedule alone")
    parser.add_argument("--trace", action="store_true", help="with --seed: tell everything that happens")
    parser.add_argument("--shrink", action="store_true", help="with --seed: find a smaller failing plan")
    parser.add_argument("--mutant", choices=MUTANTS, default="", help="break a rule on purpose")
    parser.add_argument("--theme", choices=THEMES, default="", help="this kind of schedule alone")
    return parser


def _one(options: argparse.Namespace) -> int:
    seed, mutant, theme = options.seed, options.mutant, options.theme
    plan = plan_of(seed, mutant, theme)
    if options.shrink:
        plan = shrink(plan, mutant)
    print(plan)
    outcome = run_plan(plan, mutant, print if options.trace else None)
    print(describe_failure(outcome, mutant, theme) if outcome.failed else f"seed {seed}: all held")
    return int(outcome.failed)


def _many(options: argparse.Namespace) -> int:
    mutant, theme = options.mutant, options.theme
    seeds = range(options.start, options.start + options.seeds)
    began = time.monotonic()
    failures: list[Outcome] = []
    slowest = gap = 0
    for done, outcome in enumerate(run_many(seeds, options.jobs, mutant, theme), 1):
        slowest = max(slowest, outcome.recovery_us)
        gap = max(gap, outcome.gap_us)
        if outcome.failed:
            failures.append(outcome)
            print(describe_failure(outcome, mutant, theme), flush=True)
        if done % 100 == 0 or done == len(seeds):
            _progress(done, len(seeds), len(failures), time.monotonic() - began)
    print(f"longest recovery after the faults ended: {slowest / 1000:.0f} ms of simulated time")
    print(f"longest time without writes while a majority was connected: {gap / 1000:.0f} ms")
    return int(bool(failures))


def _progress(done: int, total: int, failed: int, took_s: float) -> None:
    end = "\r" if sys.stdout.isatty() and done < total else "\n"
    print(f"{done}/{total} schedules, {failed} failed, {done / took_s:.0f} a second", end=end, flush=True)


if __name__ == "__main__":
    sys.exit(main())
