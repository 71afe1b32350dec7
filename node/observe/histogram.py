"""A latency histogram that costs an addition to record and answers any quantile within 6 %.

Log-linear, as in HdrHistogram: values are whole nanoseconds; each power of two is cut into 16 equal
buckets, so a bucket is at most 1/16 as wide as its values. Below 32 ns each value has a bucket of its
own; what is longer than about 73 minutes counts as that long in the buckets (not in sum, min and max).

One writer, any readers: `counts` is read by copying it in one step, and everything that is derived
from it (count, quantiles, cumulative counts) agrees with itself. Sum, minimum and maximum may be one
record ahead or behind while a writer is at work.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

_SUB_BITS = 4
_SUBS = 1 << _SUB_BITS
_VALUE_BITS_MAX = 42
_LONGEST_NS = (1 << _VALUE_BITS_MAX) - 1
# The first duration is below this minimum and above this maximum: no test for "none yet" is needed.
_NONE_MIN, _NONE_MAX = 1 << 80, -1
_BUCKETS = (_VALUE_BITS_MAX - _SUB_BITS + 1) * _SUBS


def bucket_of(ns: int) -> int:
    """The bucket that counts a duration."""
    if ns < _SUBS:
        return ns
    shift = min(ns, _LONGEST_NS).bit_length() - _SUB_BITS - 1
    return (shift << _SUB_BITS) + (min(ns, _LONGEST_NS) >> shift)


def bucket_end(bucket: int) -> int:
    """The first duration (ns) behind a bucket."""
    shift = max((bucket >> _SUB_BITS) - 1, 0)
    return (bucket - (shift << _SUB_BITS) + 1) << shift


class Histogram:
    """See the module's page. Durations go in and come out in seconds."""

    __slots__ = ("_counts", "_max_ns", "_min_ns", "_sum_ns")

    def __init__(self) -> None:
        self._counts = [0] * _BUCKETS
        self._sum_ns = 0
        self._min_ns = _NONE_MIN
        self._max_ns = _NONE_MAX

    def record(self, seconds: float) -> None:
        """Count one duration; a negative one (no clock should give it) counts as 0."""
        ns = int(seconds * 1e9)
        if ns < 0:
            ns = 0
        if ns <= _LONGEST_NS:  # `bucket_of`, written out: this is the hot path
            shift = ns.bit_length() - 5
            self._counts[(shift << 4) + (ns >> shift) if shift > 0 else ns] += 1
        else:
            self._counts[-1] += 1
        self._sum_ns += ns
        if ns < self._min_ns:
            self._min_ns = ns
        if ns > self._max_ns:
            self._max_ns = ns

    def add(self, other: Histogram) -> None:
        """Count all that another one has counted."""
        self._counts = [a + b for a, b in zip(self._counts, other._counts.copy(), strict=True)]
        self._sum_ns += other._sum_ns
        self._min_ns = min(self._min_ns, other._min_ns)
        self._max_ns = max(self._max_ns, other._max_ns)

    @property
    def count(self) -> int:
        """How many durations were recorded."""
        return sum(self._counts)

    @property
    def sum(self) -> float:
        """All durations together."""
        return self._sum_ns / 1e9

    @property
    def min(self) -> float | None:
        """The shortest duration, exactly; None if there is none."""
        return None if self._min_ns == _NONE_MIN else self._min_ns / 1e9

    @property
    def max(self) -> float | None:
        """The longest duration, exactly; None if there is none."""
        return None if self._max_ns == _NONE_MAX else self._max_ns / 1e9

    @property
    def mean(self) -> float | None:
        """The average duration; None if there is none."""
        count = self.count
        return self._sum_ns / count / 1e9 if count else None

    def quantile(self, q: float) -> float | None:
        """The duration that a share `q` (0 to 1) of all did not exceed; None if there is none.

        Up to 6 % too long, never too short, never longer than the longest.
        """
        counts = self._counts.copy()
        total = sum(counts)
        if not total or self._max_ns == _NONE_MAX:
            return None
        wanted, seen = max(1, math.ceil(q * total)), 0
        for bucket, count in enumerate(counts):
            seen += count
            if seen >= wanted:
                last = bucket == _BUCKETS - 1
                return (self._max_ns if last else min(bucket_end(bucket) - 1, self._max_ns)) / 1e9
        raise AssertionError("the buckets hold all that was counted")

    def cumulative(self, edges_ns: Iterable[int]) -> list[int]:
        """For each edge (ascending, each the end of a bucket), how many durations were shorter."""
        counts = self._counts.copy()
        found, seen, done = [], 0, 0
        for edge in edges_ns:
            until = bucket_of(edge)
            seen += sum(counts[done:until])
            done = until
            found.append(seen)
        return found
