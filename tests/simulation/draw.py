"""From a seed to a plan: a mixture of its own (`mixture`), shaped by a theme (`themes`)."""

from __future__ import annotations

from random import Random

from tests.simulation.mixture import draw_mixed
from tests.simulation.plan import Plan
from tests.simulation.themes import THEMES


def draw_plan(seed: int, theme: str = "") -> Plan:
    """The plan that a seed stands for; `theme` instead of the one that it would draw."""
    random = Random(f"plan {seed}")
    drawn = random.choices(list(THEMES), [weight for weight, _ in THEMES.values()])[0]
    _, shape = THEMES[theme or drawn]
    return shape(draw_mixed(random, seed), random)


__all__ = ["THEMES", "draw_plan"]
