"""Closed loops, their clocks, and what they cost the CPU."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from allsource.node.cli.control.cluster import Node
from allsource.node.cli.figures import percentile

Operation = Callable[[int], Awaitable[int]]
"""One request of a worker (its number is given); how many units it was (events, reads)."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What a workload did. Times in seconds; CPU seconds are of all servers, and of this process."""

    workload: str
    unit: str
    units: int
    seconds: float
    latencies: Sequence[float]
    """Of each request, from its call to its answer."""
    server_cpu: float | None
    """None if the servers are not on this machine."""
    client_cpu: float

    @property
    def per_second(self) -> float:
        """Units in a second."""
        return self.units / self.seconds if self.seconds else 0.0

    def cpu_per_1000(self, cpu: float | None) -> float | None:
        """CPU seconds for 1000 units."""
        return None if cpu is None or not self.units else 1000 * cpu / self.units

    def latency(self, percent: float) -> float:
        """A percentile of the latencies."""
        return percentile(self.latencies, percent)


def median_round(rounds: Sequence[Measured]) -> Measured:
    """Of several rounds of a workload the one with the median rate (the slower of two)."""
    return sorted(rounds, key=lambda measured: measured.per_second)[(len(rounds) - 1) // 2]


class Meter:
    """CPU time of servers and client between two moments."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        self._nodes = nodes
        self._servers = self._server_cpu()
        self._client = time.process_time()

    def read(self) -> tuple[float | None, float]:
        """CPU seconds since the meter was made: servers, client."""
        now = self._server_cpu()
        servers = None if now is None or self._servers is None else now - self._servers
        return servers, time.process_time() - self._client

    def _server_cpu(self) -> float | None:
        return sum(node.cpu_seconds() for node in self._nodes) if self._nodes else None


async def closed_loop(
    workload: str,
    unit: str,
    operation: Operation,
    *,
    workers: int,
    seconds: float,
    warm_up_s: float,
    nodes: Sequence[Node],
    clock: Callable[[], float] = time.perf_counter,
) -> Measured:
    """Let `workers` repeat the operation, each its next one when the last was answered. `clock`: seconds.

    What begins during the warm-up is not counted; what is under way at the end is awaited and not
    counted either, so that no slow answer is cut off and no idle tail is measured.
    """
    latencies: list[float] = []
    units = 0
    begin = clock() + warm_up_s
    end = begin + seconds

    async def work(worker: int) -> None:
        nonlocal units
        while (started := clock()) < end:
            done = await operation(worker)
            ended = clock()
            if started >= begin and ended <= end:
                latencies.append(ended - started)
                units += done

    async def measure() -> tuple[float | None, float]:
        await asyncio.sleep(max(0.0, begin - clock()))
        meter = Meter(nodes)
        await asyncio.sleep(max(0.0, end - clock()))
        return meter.read()

    measuring = asyncio.create_task(measure())
    await asyncio.gather(measuring, *map(work, range(workers)))
    server_cpu, client_cpu = measuring.result()
    return Measured(workload, unit, units, seconds, latencies, server_cpu, client_cpu)
