#!/usr/bin/env python3
"""Nanoseconds of the ingest queue and the metrics, beside what the standard library has.

    scripts/bench_queue.py [--seconds N] [--json]

Run it on an idle machine. All candidates take turns in each of several rounds, so that what disturbs one
disturbs all; a figure is the median over the rounds, a ratio the median of the rounds' ratios. Times are
of one operation over all threads together, without the loop around it; threads change places as often as
in a node.

Two candidates are floors. `two empty calls` is what Python takes to call two functions that do nothing:
nothing that is written in Python and has a push and a pop is faster. `deque in a class` is a queue of
two methods that check nothing, the least that a class can do. They say which of the original's figures
(10-20 ns a push, 10 ns a record) Python can reach; its third one, a read below 1 us, is RocksDB's, and
`bench_storage.py` measures that.
"""

from __future__ import annotations

import argparse
import json
import platform
import queue
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import repeat
from statistics import median
from typing import Any

from allsource.node.daemon import SWITCH_INTERVAL_S
from allsource.node.observe import metrics as names
from allsource.node.observe.metrics import LockFreeMetrics
from allsource.node.requests.queue import LockFreeEventQueue

THREADS = (1, 2, 8)
BATCHES = (16, 100, 1000)
ROUNDS = 7
AT_ONCE = 200
"""Operations between two looks at the clock."""
CAPACITY = 65536
EMPTY_LOOP = "empty loop"

Loop = Callable[[int], None]
"""Does an operation so many times."""


@dataclass(frozen=True)
class Figure:
    """One line of the table."""

    name: str
    threads: int
    ns: float
    """Of one operation."""
    ratio: float
    """To the first candidate of its table."""


class Bare:
    """A deque in a class: two methods that check nothing."""

    __slots__ = ("_items",)

    def __init__(self) -> None:
        self._items: deque[int] = deque()

    def push(self, item: int) -> None:
        self._items.append(item)

    def pop(self) -> int:
        return self._items.popleft()


class Locked:
    """The counter that everybody writes first."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.n = 0

    def count(self, n: int = 1) -> None:
        with self.lock:
            self.n += n


def nothing() -> None:
    """An empty Python call."""


def nothing_with(_: object) -> None:
    """An empty Python call with an argument."""


def loop(statement: str, **given: object) -> Loop:
    """A loop around one statement, which is compiled into it: a call would cost more than the statement."""
    scope = {"repeat": repeat, **given}
    body = statement.replace("\n", "\n        ")
    exec(f"def run(times):\n    for _ in repeat(None, times):\n        {body}", scope)
    run: Loop = scope["run"]  # type: ignore[assignment]
    return run


def queue_candidates() -> dict[str, Loop]:
    """Each pushes an item and pops one."""
    return {
        "deque": loop("q.append(1); q.popleft()", q=deque()),
        "two empty calls": loop("push(1); pop()", push=nothing_with, pop=nothing),
        "deque in a class": loop("q.push(1); q.pop()", q=Bare()),
        "LockFreeEventQueue": loop("q.try_push(1); q.try_pop()", q=LockFreeEventQueue[int](CAPACITY)),
        "queue.SimpleQueue": loop("q.put(1); q.get_nowait()", q=queue.SimpleQueue[int]()),
        "queue.Queue": loop("q.put_nowait(1); q.get_nowait()", q=queue.Queue[int](CAPACITY)),
    }


def metrics_candidates() -> dict[str, Loop]:
    """Each records once."""
    metrics, locked = LockFreeMetrics(), Locked()
    return {
        "int += under a lock": loop("with c.lock:\n    c.n += 1", c=locked),
        "the same in a method": loop("c.count()", c=locked),
        "one empty call": loop("count()", count=nothing),
        "record_ingest_batch": loop("m.record_ingest_batch(1)", m=metrics),
        "count": loop("m.count(name)", m=metrics, name=names.APPENDS),
        "observe": loop("m.observe(name, 0.001)", m=metrics, name=names.COMMIT),
    }


def ns_each(run: Loop, threads: int, seconds: float) -> float:
    """Nanoseconds for one operation, when so many threads do nothing else for about `seconds`."""
    done = [0] * threads
    barrier = threading.Barrier(threads + 1)

    def work(me: int) -> None:
        barrier.wait()
        end = time.perf_counter() + seconds
        while True:
            run(AT_ONCE)
            done[me] += AT_ONCE
            if time.perf_counter() >= end:
                return

    workers = [threading.Thread(target=work, args=(me,)) for me in range(threads)]
    for worker in workers:
        worker.start()
    barrier.wait()
    begin = time.perf_counter()
    for worker in workers:
        worker.join()
    return (time.perf_counter() - begin) / sum(done) * 1e9


def measure(candidates: dict[str, Loop], seconds: float) -> list[Figure]:
    """All candidates with all numbers of threads; `seconds` for all of it."""
    runs = {EMPTY_LOOP: loop("pass"), **candidates}
    each = seconds / (len(runs) * len(THREADS) * ROUNDS)
    found: dict[tuple[str, int], list[float]] = {}
    for _ in range(ROUNDS):
        for threads in THREADS:
            took = {name: ns_each(run, threads, each) for name, run in runs.items()}
            around = took.pop(EMPTY_LOOP)
            for name, ns in took.items():
                found.setdefault((name, threads), []).append(max(ns - around, 0.1))
    first = next(iter(candidates))
    return [
        Figure(
            name,
            threads,
            median(values),
            median(a / b for a, b in zip(values, found[first, threads], strict=True)),
        )
        for (name, threads), values in found.items()
    ]


def measure_drain(seconds: float) -> list[Figure]:
    """One thread takes what waits, a batch at a time; filling the queue is not counted."""
    bounded: LockFreeEventQueue[int] = LockFreeEventQueue(CAPACITY)
    plain: deque[int] = deque()
    figures = []
    for batch in BATCHES:
        pop_each = loop("q.popleft()", q=plain)
        drained: list[float] = []
        popped: list[float] = []
        end = time.perf_counter() + seconds / len(BATCHES)
        while len(drained) < ROUNDS or time.perf_counter() < end:
            for item in range(batch):
                bounded.try_push(item)
            plain.extend(range(batch))
            begin = time.perf_counter_ns()
            bounded.drain()
            middle = time.perf_counter_ns()
            pop_each(batch)
            popped.append((time.perf_counter_ns() - middle) / batch)
            drained.append((middle - begin) / batch)
        ratio = median(a / b for a, b in zip(drained, popped, strict=True))
        figures += [
            Figure(f"deque, popleft {batch} times", 1, median(popped), 1.0),
            Figure(f"drain of {batch}", 1, median(drained), ratio),
        ]
    return figures


def verdicts(tables: dict[str, list[Figure]]) -> list[str]:
    """The aims of the project and the figures of the original, one sentence each."""
    of = {(f.name, f.threads): f for figures in tables.values() for f in figures}
    said = []
    for threads in THREADS:
        ours, floor = of["LockFreeEventQueue", threads], of["deque in a class", threads]
        simple, locked = of["queue.SimpleQueue", threads], of["queue.Queue", threads]
        said.append(
            f"push + pop, threads {threads}: {ours.ratio:.1f} x the deque (aim 2, floor of a class"
            f" {floor.ratio:.1f}), {ours.ns / simple.ns:.2f} x SimpleQueue and"
            f" {ours.ns / locked.ns:.2f} x Queue (aim: below 1)"
        )
    for batch in BATCHES:
        said.append(f"drain of {batch}: {of[f'drain of {batch}', 1].ns:.1f} ns an event (aim: below 20)")
    for threads in THREADS:
        said.append(
            f"count, threads {threads}: {of['count', threads].ratio:.2f} x an int += under a lock"
            f" (observe: {of['observe', threads].ratio:.2f} x)"
        )
    call, pair = of["one empty call", 1].ns, of["two empty calls", 1].ns
    said.append(
        "the original's 10-20 ns for a push or a pop, and 10 ns for a record: an empty Python call takes"
        f" {call:.0f} ns, an empty push and pop {pair:.0f}"
    )
    return said


def show(title: str, figures: list[Figure]) -> None:
    """A table: candidates down, numbers of threads across."""
    columns = sorted({figure.threads for figure in figures})
    heads = "".join(f"{f'{n} thread' + 's' * (n > 1):>12} {'ratio':>6}" for n in columns)
    print(f"\n{title + ', ns':32}{heads}")
    for name in dict.fromkeys(figure.name for figure in figures):
        cells = [f"{f.ns:12.1f} {f.ratio:6.2f}" for f in figures if f.name == name]
        print(f"{name:32}{''.join(cells)}")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=40, help="for all of it, about (default 40)")
    parser.add_argument("--json", action="store_true", help="figures for programs")
    chosen = parser.parse_args()
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    tables = {
        "push + pop": measure(queue_candidates(), chosen.seconds * 0.5),
        "drain, an event": measure_drain(chosen.seconds * 0.05),
        "record": measure(metrics_candidates(), chosen.seconds * 0.45),
    }
    has_gil = getattr(sys, "_is_gil_enabled", lambda: True)()
    python = (
        f"{platform.python_implementation()} {platform.python_version()}{'' if has_gil else ', no GIL'}"
    )
    if chosen.json:
        report: dict[str, Any] = {"python": python, "verdicts": verdicts(tables)}
        report["tables"] = {title: [asdict(f) for f in figures] for title, figures in tables.items()}
        json.dump(report, sys.stdout)
        print()
    else:
        print(python)
        for title, figures in tables.items():
            show(title, figures)
        print("\n" + "\n".join(verdicts(tables)))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
