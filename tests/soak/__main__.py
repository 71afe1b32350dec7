"""`scripts/soak`: minutes of mixed abuse of a cluster, with a well-behaved writer beside it.

Three real nodes on this machine. First the writer alone, then the same writer while `abuse` does its worst
from a process of its own, then quiet. What is judged: the writer's 99th percentile within 3 times that of
alone, nothing acknowledged missing, no election, memory and descriptors back to where they were, logs that
grew by less than 1 MB. What is shown beside it: the longest time that a node took to answer a probe.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import time
from pathlib import Path

from allsource.node.cli.control.cluster import ClusterProcess
from allsource.node.cli.control.scratch import Scratch
from allsource.node.cli.figures import percentile
from allsource.node.cli.targets import connect
from tests.soak.judge import NodeFigures, judge_nodes, judge_terms, judge_writer
from tests.soak.watch import Watch, figures, terms
from tests.soak.writer import Writers, fill

MIB = 1 << 20
CALM_S = 60.0
"""How long after the abuse memory and descriptors may take to come back."""


async def soak(cluster: ClusterProcess, minutes: float, seed: int, kinds: list[str]) -> list[str]:
    """All phases; the complaints."""
    await cluster.start_all()
    async with connect(cluster.settings) as client:
        await fill(client, "warm")
        await Writers(client, "warm").run(10)
        alone = Writers(client, "alone")
        await alone.run(30)
        before = {node_id: figures(cluster, node_id) for node_id in cluster.ids}
        terms_before = await terms(cluster)
        watch = Watch(cluster)
        watch.start()
        beside = Writers(client, "beside")
        abuse = asyncio.create_task(_abuse(cluster.config, minutes * 60, seed, kinds))
        await beside.run(minutes * 60)
        counts = await abuse
        await watch.stop()
        after = await _calm(cluster, before, len(beside.latencies))
        terms_after = await terms(cluster)
        missing = await alone.missing() + await beside.missing()
    _show(counts, alone, beside, watch, before, after)
    return [
        *[f"acknowledged and not there: {line}" for line in missing],
        *judge_writer(alone.latencies, beside.latencies, beside.errors),
        *judge_terms(terms_before, terms_after),
        *judge_nodes(before, after, len(beside.latencies)),
        *[f"{node_id} has ended" for node_id in cluster.ids if not cluster.nodes[node_id].running],
    ]


async def _abuse(config: Path, seconds: float, seed: int, kinds: list[str]) -> dict[str, int]:
    arguments = ["-m", "tests.soak.abuse", "--config", str(config)]
    arguments += ["--seconds", str(seconds), "--seed", str(seed)]
    arguments += [word for kind in kinds for word in ("--kind", kind)]
    process = await asyncio.create_subprocess_exec(
        sys.executable, *arguments, stdout=asyncio.subprocess.PIPE
    )
    try:
        out, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, "the abuser failed; its traceback is above"
    counts: dict[str, int] = json.loads(out)
    return counts


async def _calm(
    cluster: ClusterProcess, before: dict[str, NodeFigures], appends: int
) -> dict[str, NodeFigures]:
    """Wait until the figures are back, or for as long as they may take."""
    end = time.monotonic() + CALM_S
    while True:
        after = {node_id: figures(cluster, node_id) for node_id in cluster.ids}
        if not judge_nodes(before, after, appends) or time.monotonic() > end:
            return after
        await asyncio.sleep(1)


def _show(
    counts: dict[str, int],
    alone: Writers,
    beside: Writers,
    watch: Watch,
    before: dict[str, NodeFigures],
    after: dict[str, NodeFigures],
) -> None:
    print("abuse:  " + ", ".join(f"{name} {n}" for name, n in sorted(counts.items())))
    for name, writers in (("alone", alone), ("beside it", beside)):
        took = writers.latencies
        shown = [1000 * percentile(took, percent) for percent in (50, 99, 100)]
        print(
            f"writer {name}: {len(took)} appends; p50, p99, max {' '.join(f'{ms:.1f}' for ms in shown)} ms"
        )
    for node_id, was in before.items():
        now, high, probes = after[node_id], watch.highest[node_id], watch.probes[node_id]
        print(
            f"{node_id}: memory {was.rss / MIB:.0f} -> {high.rss / MIB:.0f} -> {now.rss / MIB:.0f} MiB, "
            f"descriptors {was.descriptors} -> {high.descriptors} -> {now.descriptors}, "
            f"log +{(now.log_bytes - was.log_bytes) / 1000:.0f} kB, "
            f"probes p99 {1000 * percentile(probes.took, 99):.0f} longest {1000 * probes.longest:.0f} ms, "
            f"{probes.failed} unanswered"
        )


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/soak", description=__doc__.split("\n\n")[0])
    parser.add_argument("--minutes", type=float, default=6.0)
    parser.add_argument("--config", type=Path, default=Path("config/three-nodes.yaml"))
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 30))
    parser.add_argument("--kind", action="append", default=[], help="this kind alone; repeatable")
    options = parser.parse_args()
    print(f"replay with: scripts/soak --minutes {options.minutes:g} --seed {options.seed}", flush=True)

    async def run(config: Path) -> list[str]:
        async with ClusterProcess(config) as cluster:
            return await soak(cluster, options.minutes, options.seed, options.kind)

    with Scratch(options.config, "soak") as scratch:
        complaints = asyncio.run(run(scratch.config))
        if complaints:
            scratch.keep()
    for line in complaints:
        print("FAILED: " + line)
    print("all held" if not complaints else f"{len(complaints)} complaints")
    return int(bool(complaints))


if __name__ == "__main__":
    sys.exit(main())
