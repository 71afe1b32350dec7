"""What a node counts and times: cheap enough for every request, exact under any number of threads.

`x += 1` on something shared loses counts when two threads meet in the middle, and a lock on every
record is what the user's name forbids. So nobody shares: each thread writes to a *cell* of its own,
found through `threading.local`, and whoever reads adds the cells up. A lock is taken only when a
thread records for the first time, and by readers; never on the way of a record. What a finished
thread counted is added to a common cell when the next one comes, so that cells do not pile up.

A read sees every record that ended before it began; of one that is under way it may or may not.

Free-threaded Pythons: whoever reads copies first, and what it copies changes only by operations on one
item (`d[key] = n`, `counts[i] += 1`, each by the one thread that owns the cell). Of list and dict, the
library reference ("Thread Safety Guarantees") promises that storing one item is safe and that `copy`
appears atomic. `reset` is one assignment to an attribute, the cells are found through `threading.local`,
and the list of cells is under a lock. (Argued, not run: no such interpreter was at hand.)

`reset` cannot zero the cells of other threads without racing them. It puts a new, empty set of cells
in place instead, in one assignment: a record belongs to the old time or to the new one, never to none
or both.

A counter has a name and perhaps a label (a reason, a direction). The names below are those that the
daemon uses; others may be used freely and are exported too.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from allsource.node.observe.histogram import Histogram

# Counters
EVENTS = "events"
"""Events committed by appends that this node answered."""
APPENDS = "appends"
DUPLICATES = "duplicates"
"""Appends that had been committed before and got the first answer again."""
BYTES = "bytes"
"""Bytes of the log records of committed appends."""
CONFLICTS = "conflicts"
"""Appends that found another version than they expected."""
REJECTIONS = "rejections"
"""Requests refused; the label is the error's code."""
UNKNOWN_OUTCOMES = "unknown_outcomes"
FORWARDS = "forwards"
"""Requests sent on to another node."""
ERRORS = "errors"
HEARTBEATS = "heartbeats"
"""Label `sent` or `received`."""
SUSPICIONS = "suspicions"
"""Peers that this node came to distrust; label `suspect` or `down`."""
LEADERSHIP_CHANGES = "leadership_changes"
"""Label `gained` or `lost`."""
HTTP_ANSWERS = "http_answers"
"""Label: the status."""

# Histograms
QUERY = "query"
"""A read, from the door to the answer."""
COMMIT = "commit"
"""An append, from the queue to the commit."""
FSYNC = "fsync"
"""One sync of the storage."""

Key = tuple[str, str]
"""A counter's name and label; the label is empty if it has none."""

_EVENTS: Key = (EVENTS, "")


class _Cell:
    """What one thread recorded. Only that thread writes to it."""

    __slots__ = ("counters", "histograms", "thread")

    def __init__(self) -> None:
        self.thread = threading.current_thread()
        self.counters: dict[Key, int] = {}
        self.histograms: dict[str, Histogram] = {}

    def add(self, other: _Cell) -> None:
        for key, n in other.counters.copy().items():
            self.counters[key] = self.counters.get(key, 0) + n
        for name, histogram in other.histograms.copy().items():
            self.histograms.setdefault(name, Histogram()).add(histogram)


class _Cells:
    """All cells since the start or the last reset."""

    def __init__(self, started: float) -> None:
        self.started = started
        self.local = threading.local()
        self._lock = threading.Lock()
        self._live: list[_Cell] = []
        self._finished = _Cell()

    def join(self) -> _Cell:
        """Make the calling thread's cell. Takes in those of threads that have ended."""
        cell = self.local.cell = _Cell()
        with self._lock:
            live = [cell]
            for other in self._live:
                # Asked once: a thread that ends between two answers would be in neither.
                if other.thread.is_alive():
                    live.append(other)
                else:
                    self._finished.add(other)
            self._live = live
        return cell

    def total(self) -> _Cell:
        """The sum of all cells, in a cell of its own."""
        total = _Cell()
        with self._lock:
            total.add(self._finished)
            for cell in self._live:
                total.add(cell)
        return total


@dataclass(frozen=True, slots=True)
class MetricsSnapshot:
    """All figures of one moment. Latencies and times in seconds; None if nothing was recorded."""

    events_ingested: int
    queries: int
    errors: int
    throughput_per_sec: float
    avg_query_latency: float | None
    min_query_latency: float | None
    max_query_latency: float | None
    uptime: float
    counters: Mapping[Key, int]
    histograms: Mapping[str, Histogram]


class LockFreeMetrics:
    """See the module's page. `clock` gives seconds that never go back."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._created = clock()
        self._cells = _Cells(self._created)

    # -- record

    def count(self, name: str, n: int = 1, label: str = "") -> None:
        """Add to a counter."""
        try:
            counters = self._cells.local.cell.counters
        except AttributeError:
            counters = self._cells.join().counters
        key = (name, label)
        counters[key] = counters.get(key, 0) + n

    def observe(self, name: str, seconds: float) -> None:
        """Record a duration."""
        try:
            histograms = self._cells.local.cell.histograms
        except AttributeError:
            histograms = self._cells.join().histograms
        histogram = histograms.get(name)
        if histogram is None:
            histogram = histograms[name] = Histogram()
        histogram.record(seconds)

    def record_ingest(self) -> None:
        """One event was ingested."""
        self.record_ingest_batch(1)

    def record_ingest_batch(self, n: int) -> None:
        """`n` events were ingested."""
        try:
            counters = self._cells.local.cell.counters
        except AttributeError:
            counters = self._cells.join().counters
        counters[_EVENTS] = counters.get(_EVENTS, 0) + n

    def record_query(self, duration: float) -> None:
        """A query was answered; it took `duration` seconds."""
        self.observe(QUERY, duration)

    def record_error(self) -> None:
        """Something failed that should not have."""
        self.count(ERRORS)

    # -- read

    def counter(self, name: str, label: str = "") -> int:
        """A counter's value since the last reset; 0 if it was never used."""
        return self._cells.total().counters.get((name, label), 0)

    def histogram(self, name: str) -> Histogram:
        """A copy of what was observed under a name since the last reset; perhaps empty."""
        return self._cells.total().histograms.get(name) or Histogram()

    def throughput_per_sec(self) -> float:
        """Events ingested per second since the start or the last reset."""
        return self.snapshot().throughput_per_sec

    def avg_query_latency(self) -> float | None:
        """The mean of all queries, seconds; None if there was none."""
        return self.histogram(QUERY).mean

    def min_query_latency(self) -> float | None:
        """The fastest query, seconds; None if there was none."""
        return self.histogram(QUERY).min

    def max_query_latency(self) -> float | None:
        """The slowest query, seconds; None if there was none."""
        return self.histogram(QUERY).max

    def uptime(self) -> float:
        """Seconds since these metrics were made; a reset does not change it."""
        return self._clock() - self._created

    def reset(self) -> None:
        """Forget all that was recorded; throughput counts from now."""
        self._cells = _Cells(self._clock())

    def snapshot(self) -> MetricsSnapshot:
        """All figures at once."""
        cells = self._cells
        total, now = cells.total(), self._clock()
        events, queries = total.counters.get(_EVENTS, 0), total.histograms.get(QUERY) or Histogram()
        elapsed = now - cells.started
        return MetricsSnapshot(
            events_ingested=events,
            queries=queries.count,
            errors=total.counters.get((ERRORS, ""), 0),
            throughput_per_sec=events / elapsed if elapsed > 0 else 0.0,
            avg_query_latency=queries.mean,
            min_query_latency=queries.min,
            max_query_latency=queries.max,
            uptime=now - self._created,
            counters=total.counters,
            histograms=total.histograms,
        )
