"""What a node costs and says while it is abused: memory, descriptors, log bytes, terms, answering time."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from pathlib import Path

from allsource.node.cli.control.cluster import ClusterProcess
from tests.soak.judge import NodeFigures

PROBE_S = 0.05
"""How often each node is asked whether it lives."""


@dataclass
class Probes:
    """How long a node took to answer `GET /health/live`, in seconds, and how often it did not."""

    took: list[float] = field(default_factory=list)
    failed: int = 0

    @property
    def longest(self) -> float:
        return max(self.took, default=0.0)


def figures(cluster: ClusterProcess, node_id: str) -> NodeFigures:
    """Of a node that runs (proc(5))."""
    proc = Path(f"/proc/{cluster.nodes[node_id].pid}")
    status = dict(line.split(":", 1) for line in (proc / "status").read_text().splitlines())
    return NodeFigures(
        rss=int(status["VmRSS"].split()[0]) * 1024,
        descriptors=len(list((proc / "fd").iterdir())),
        log_bytes=len(cluster.log(node_id).encode()),
    )


async def terms(cluster: ClusterProcess) -> list[int]:
    """The term of each partition, as its owner tells it."""
    found: dict[int, int] = {}
    for node_id in cluster.ids:
        answer = await cluster.get(node_id, "/v1/cluster")
        if answer is not None:
            for partition in answer[1]["partitions"]:
                number = int(partition["partition"])
                found[number] = max(found.get(number, 0), int(partition["term"]))
    return [found[number] for number in sorted(found)]


class Watch:
    """Keeps asking each node whether it lives, and looks at its process."""

    def __init__(self, cluster: ClusterProcess) -> None:
        self._cluster = cluster
        self.probes = {node_id: Probes() for node_id in cluster.ids}
        self.highest = {node_id: figures(cluster, node_id) for node_id in cluster.ids}
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        self._tasks = [asyncio.create_task(self._look(node_id)) for node_id in self._cluster.ids]

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _look(self, node_id: str) -> None:
        probes = self.probes[node_id]
        while True:
            began = time.monotonic()
            answer = await self._cluster.get(node_id, "/health/live")
            if answer is None:
                probes.failed += 1
            else:
                probes.took.append(time.monotonic() - began)
            now, highest = figures(self._cluster, node_id), self.highest[node_id]
            highest.rss = max(highest.rss, now.rss)
            highest.descriptors = max(highest.descriptors, now.descriptors)
            await asyncio.sleep(PROBE_S)
