"""Metrics: the user's methods without the original's defects, exact under threads."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from allsource.node.observe import metrics as names
from allsource.node.observe.histogram import Histogram, bucket_end, bucket_of
from allsource.node.observe.metrics import LockFreeMetrics


class Clock:
    """A clock that moves when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def metrics(clock: Clock) -> LockFreeMetrics:
    return LockFreeMetrics(clock)


def in_threads(number: int, job: Callable[[], None]) -> None:
    barrier = threading.Barrier(number)  # else the first may be done before the last begins

    def together() -> None:
        barrier.wait()
        job()

    threads = [threading.Thread(target=together) for _ in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()  # (pytest-timeout ends what hangs)


# -- the user's methods


def test_nothing_recorded(metrics: LockFreeMetrics) -> None:
    assert metrics.avg_query_latency() is None
    assert metrics.min_query_latency() is None
    assert metrics.max_query_latency() is None
    assert metrics.throughput_per_sec() == 0.0, "and no division by the zero seconds so far"
    assert metrics.uptime() == 0.0
    assert metrics.histogram(names.COMMIT).quantile(0.5) is None
    assert metrics.counter("anything") == 0


def test_ingest_counts_events_and_gives_throughput(metrics: LockFreeMetrics, clock: Clock) -> None:
    metrics.record_ingest()
    metrics.record_ingest_batch(99)
    clock.now += 20
    assert metrics.counter(names.EVENTS) == 100
    assert metrics.throughput_per_sec() == 5.0
    assert metrics.uptime() == 20.0


def test_query_latencies(metrics: LockFreeMetrics) -> None:
    for duration in (0.003, 0.001, 0.002):
        metrics.record_query(duration)
    assert metrics.min_query_latency() == pytest.approx(0.001, rel=1e-6)
    assert metrics.max_query_latency() == pytest.approx(0.003, rel=1e-6)
    assert metrics.avg_query_latency() == pytest.approx(0.002, rel=1e-6)


def test_a_query_of_no_time_has_a_minimum_and_a_maximum(metrics: LockFreeMetrics) -> None:
    """The original took 0 for "none recorded" and lost the maximum."""
    metrics.record_query(0.0)
    assert metrics.min_query_latency() == 0.0
    assert metrics.max_query_latency() == 0.0
    assert metrics.avg_query_latency() == 0.0
    assert metrics.snapshot().queries == 1


def test_throughput_after_a_reset_does_not_count_the_time_before_it(
    metrics: LockFreeMetrics, clock: Clock
) -> None:
    metrics.record_ingest_batch(1_000_000)
    metrics.record_query(1.0)
    metrics.record_error()
    clock.now += 1000
    metrics.reset()
    assert metrics.counter(names.EVENTS) == 0
    assert metrics.counter(names.ERRORS) == 0
    assert metrics.max_query_latency() is None
    clock.now += 2
    metrics.record_ingest_batch(10)
    assert metrics.throughput_per_sec() == 5.0
    assert metrics.uptime() == 1002.0


def test_a_snapshot_tells_all_and_does_not_change(metrics: LockFreeMetrics, clock: Clock) -> None:
    metrics.record_ingest_batch(8)
    metrics.record_query(0.5)
    metrics.record_error()
    metrics.count(names.REJECTIONS, 3, "queue_full")
    metrics.observe(names.FSYNC, 0.25)
    clock.now += 4
    snapshot = metrics.snapshot()
    metrics.record_ingest()
    metrics.record_query(9.0)
    metrics.observe(names.FSYNC, 0.25)
    assert (snapshot.events_ingested, snapshot.queries, snapshot.errors) == (8, 1, 1)
    assert (snapshot.throughput_per_sec, snapshot.uptime) == (2.0, 4.0)
    assert snapshot.avg_query_latency == snapshot.min_query_latency == snapshot.max_query_latency == 0.5
    assert snapshot.counters[names.REJECTIONS, "queue_full"] == 3
    assert snapshot.histograms[names.FSYNC].count == 1


# -- threads


@pytest.mark.usefixtures("eager_switching")
def test_many_threads_lose_no_count() -> None:
    metrics = LockFreeMetrics()

    def job() -> None:
        for _ in range(20_000):
            metrics.record_ingest_batch(3)
            metrics.count(names.REJECTIONS, 1, "no_owner")
            metrics.record_query(0.001)

    in_threads(8, job)
    snapshot = metrics.snapshot()
    assert snapshot.events_ingested == 8 * 20_000 * 3
    assert snapshot.counters[names.REJECTIONS, "no_owner"] == 8 * 20_000
    assert snapshot.queries == 8 * 20_000
    assert snapshot.histograms[names.QUERY].sum == pytest.approx(8 * 20_000 * 0.001)


@pytest.mark.usefixtures("eager_switching")
def test_readers_see_counts_that_only_grow_and_agree_with_themselves() -> None:
    metrics = LockFreeMetrics()
    done = threading.Event()
    problems: list[str] = []

    def read() -> None:
        last = 0
        while not done.is_set():
            snapshot = metrics.snapshot()
            commits = snapshot.histograms.get(names.COMMIT, Histogram())
            if snapshot.events_ingested < last:
                problems.append(f"went back from {last} to {snapshot.events_ingested}")
            if commits.cumulative([1 << 41])[0] != commits.count:
                problems.append("the buckets disagree with the count")
            last = snapshot.events_ingested

    def write() -> None:
        for i in range(3000):
            metrics.record_ingest()
            metrics.observe(names.COMMIT, i / 1e5)

    reader = threading.Thread(target=read)
    reader.start()
    in_threads(4, write)
    done.set()
    reader.join()
    assert problems == []
    assert metrics.counter(names.EVENTS) == 12_000


@pytest.mark.usefixtures("eager_switching")
def test_a_reset_under_way_loses_and_doubles_nothing_that_comes_after() -> None:
    """Whatever is recorded belongs to exactly one of the times between resets."""
    metrics = LockFreeMetrics()
    told = []
    done = threading.Event()

    def keep_resetting() -> None:
        while not done.is_set():
            told.append(metrics._cells)
            metrics.reset()

    resetter = threading.Thread(target=keep_resetting)
    resetter.start()

    recorded: list[int] = []

    def record() -> None:
        times = 0
        while times < 3000 or len(told) < 5:  # so that resets surely meet records
            metrics.record_ingest()
            times += 1
        recorded.append(times)

    in_threads(4, record)
    done.set()
    resetter.join()
    told.append(metrics._cells)
    counted = sum(cells.total().counters.get((names.EVENTS, ""), 0) for cells in told)
    assert counted == sum(recorded)


def test_cells_of_finished_threads_do_not_pile_up() -> None:
    metrics = LockFreeMetrics()
    for _ in range(50):
        in_threads(1, metrics.record_ingest)
    assert metrics.counter(names.EVENTS) == 50
    assert len(metrics._cells._live) <= 2


class EndsWhenAsked(threading.Thread):
    """A thread that ends right after it was asked whether it lives."""

    asked = 0

    def is_alive(self) -> bool:
        self.asked += 1
        return self.asked == 1


def test_a_thread_that_ends_while_another_one_comes_loses_no_count(metrics: LockFreeMetrics) -> None:
    metrics.record_ingest_batch(3)
    metrics._cells._live[0].thread = EndsWhenAsked()
    for _ in range(3):
        in_threads(1, metrics.record_ingest)
    assert metrics.counter(names.EVENTS) == 6


# -- histograms


@given(st.integers(0, (1 << 42) - 1))
def test_every_duration_is_in_its_bucket(ns: int) -> None:
    bucket = bucket_of(ns)
    start = bucket_end(bucket - 1) if bucket else 0
    assert start <= ns < bucket_end(bucket)
    assert bucket_end(bucket) - start <= max(1, ns / 16)


@given(st.lists(st.floats(0, 5000), min_size=1, max_size=60), st.floats(0, 1))
def test_quantiles_are_never_too_short_and_at_most_six_percent_too_long(
    values: list[float], q: float
) -> None:
    histogram = Histogram()
    for value in values:
        histogram.record(value)
    rank = max(1, -int(-(q * len(values)) // 1))
    true = int(sorted(values)[rank - 1] * 1e9) / 1e9
    answer = histogram.quantile(q)
    assert answer is not None
    if true < 4000:
        assert true <= answer <= max(true * (1 + 1 / 16), true + 2e-9)
    assert answer <= int(max(values) * 1e9) / 1e9
    assert histogram.count == len(values)


@given(st.lists(st.integers(0, 1 << 43)), st.integers(6, 41))
def test_recording_and_the_bucket_rule_agree(values: list[int], power: int) -> None:
    """`record` has the rule written out; `cumulative` uses `bucket_of`."""
    histogram = Histogram()
    for ns in values:
        histogram.record(ns / 1e9)
    edges = [1 << power, 3 << (power - 1)]
    recorded = [int(ns / 1e9 * 1e9) for ns in values]
    assert histogram.cumulative(edges) == [sum(ns < edge for ns in recorded) for edge in edges]


def test_adding_histograms_equals_recording_into_one() -> None:
    seed = random.randrange(1 << 32)
    draw = random.Random(seed)
    parts, whole = [Histogram() for _ in range(3)], Histogram()
    for _ in range(500):
        value = draw.expovariate(100)
        draw.choice(parts).record(value)
        whole.record(value)
    total = Histogram()
    for part in parts:
        total.add(part)
    for figure in ("count", "sum", "min", "max", "mean"):
        assert getattr(total, figure) == getattr(whole, figure), f"replay: random.Random({seed})"
    assert total.quantile(0.99) == whole.quantile(0.99)


def test_what_no_clock_should_give_does_not_break_anything() -> None:
    histogram = Histogram()
    histogram.record(-1.0)
    histogram.record(1e7)
    assert (histogram.count, histogram.min, histogram.max) == (2, 0.0, 1e7)
    assert histogram.quantile(1.0) == 1e7
