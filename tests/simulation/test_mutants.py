"""The core with one rule broken must fail: a simulation that cannot fail shows nothing.

Each mutant gets a bounded number of schedules, from seed 0 on, of the theme that is after its mistake;
`scripts/simulate --mutant NAME` shows how many of them notice. The rules are RULES.md's.
"""

from __future__ import annotations

import pytest

from tests.simulation.draw import THEMES
from tests.simulation.mutants import MUTANTS
from tests.simulation.run import describe_failure, first_failure, plan_of, run_many, run_plan, shrink

SEEDS_MAX = 200


@pytest.mark.parametrize("name", MUTANTS)
def test_a_broken_rule_is_noticed(name: str) -> None:
    failure = first_failure(range(SEEDS_MAX), name)
    assert failure is not None, f"{MUTANTS[name].what}, and {SEEDS_MAX} schedules held"


@pytest.mark.parametrize("theme", THEMES)
def test_the_themes_that_catch_the_mutants_hold_without_them(theme: str) -> None:
    failures = [outcome for outcome in run_many(range(20), theme=theme) if outcome.failed]
    assert not failures, "\n".join(describe_failure(outcome, theme=theme) for outcome in failures)


def test_a_failing_plan_shrinks_to_one_that_fails_with_less() -> None:
    mutant = "rule-6-by-index"
    something_to_drop = [seed for seed in range(SEEDS_MAX) if plan_of(seed, mutant).faults]
    failure = first_failure(something_to_drop, mutant)
    assert failure is not None
    plan = plan_of(failure.seed, mutant)
    smaller = shrink(plan, mutant)
    assert run_plan(smaller, mutant).failed
    assert len(smaller.faults) < len(plan.faults) or smaller.duration_us < plan.duration_us
