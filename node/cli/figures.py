"""Percentiles and the few ways in which commands print numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence


def percentile(values: Sequence[float], percent: float) -> float:
    """The nearest-rank percentile (a value that was really seen); 0 for no values."""
    if not values:
        return 0.0
    ordered = sorted(values)
    return ordered[max(0, math.ceil(percent / 100 * len(ordered)) - 1)]


def show_ms(seconds: float) -> str:
    """Seconds as milliseconds with three significant digits or whole: `0.512`, `12.3`, `250`."""
    ms = seconds * 1000
    if ms >= 100:
        return f"{ms:.0f}"
    return f"{ms:.3f}" if ms < 1 else f"{ms:.2f}" if ms < 10 else f"{ms:.1f}"


def show_rate(per_second: float) -> str:
    """A rate as people write it: `12,345`."""
    return f"{per_second:,.0f}"


def ranges(numbers: Sequence[int]) -> str:
    """Ascending numbers in short: `0-3, 7, 9-10`; `-` for none."""
    parts: list[str] = []
    start = previous = None
    for number in [*sorted(numbers), None]:
        if previous is not None and number == previous + 1:
            previous = number
            continue
        if start is not None:
            parts.append(str(start) if start == previous else f"{start}-{previous}")
        start = previous = number
    return ", ".join(parts) or "-"
