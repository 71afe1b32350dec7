"""`scripts/netfaults`: cut a real network under load, heal it, and check every event afterwards.

For each story a fresh cluster starts in network namespaces of its own (see `lan`; Linux, root). The drill's
writers write all the time. Told are the longest silence of a partition after the cut (where a majority is
left) and after the healing, and the time from the healing until every partition is with its owner again.
Then everything is read back from every replica and held against what the writers were told, by the drill's
judge.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from allsource.node.cli.drill.checks import Fault, judge
from allsource.node.cli.drill.history import longest_silence
from allsource.node.cli.drill.readback import read_back
from allsource.node.cli.drill.writers import Clock, Writers
from allsource.node.cli.figures import percentile, ranges
from allsource.node.cli.targets import connect
from tests.network.cluster import LanCluster, write_lan_config
from tests.network.lan import Lan, own_network
from tests.network.stories import STORIES, Story

PATIENCE_S = 30.0


async def tell(story: Story, config: Path, lan: Lan, options: argparse.Namespace) -> list[str]:
    """One story, some rounds of it on one cluster; the complaints."""
    chance = random.Random(options.seed)
    complaints: list[str] = []
    async with LanCluster(config, lan) as cluster:
        await cluster.start_all()
        async with connect(cluster.settings) as client:
            writers = Writers(
                client,
                partitions=cluster.settings.partitions,
                run="network",
                seed=options.seed,
                clock=Clock(),
                pause_s=0.04,
            )
            writers.start()
            await writers.all_accept(-1.0, PATIENCE_S)
            after_cut: list[float] = []
            after_heal: list[float] = []
            settled: list[float] = []
            for _ in range(options.rounds):
                began = writers.now()
                await story.cut(lan, chance)
                if story.writable:
                    silent = await writers.all_accept(writers.now(), PATIENCE_S)
                    if silent:
                        complaints.append(f"{story.name}: no writes in partitions {ranges(silent)}")
                await asyncio.sleep(max(0.0, began + options.hold - writers.now()))
                healed = writers.now()
                if story.writable:
                    after_cut += _silences(writers, cluster.settings.partitions, began, healed)
                lan.heal()
                settled.append(await cluster.settled())
                silent = await writers.all_accept(writers.now(), PATIENCE_S)
                if silent:
                    complaints.append(f"{story.name}, healed: no writes in partitions {ranges(silent)}")
                after_heal += _silences(writers, cluster.settings.partitions, healed, writers.now())
            await writers.stop()
        for node_id in cluster.ids:
            await cluster.caught_up(node_id)
        copies = await read_back(cluster)
        faults: list[Fault] = [*copies.faults, *judge(writers.history, copies.logs)]
    _show(story, after_cut, after_heal, settled, writers.history.count("acknowledged"))
    return [*complaints, *[f"{story.name}: {fault.kind}: {fault.detail}" for fault in faults]]


def _silences(writers: Writers, partitions: int, start: float, end: float) -> list[float]:
    return [
        longest_silence(writers.history.since(partition, start), start, end)
        for partition in range(partitions)
    ]


def _show(
    story: Story, after_cut: list[float], after_heal: list[float], settled: list[float], acknowledged: int
) -> None:
    print(
        f"{story.name:<18} silence after the cut {_figures(after_cut)}, after the healing "
        f"{_figures(after_heal)}; settled {_figures(settled)} after it; {acknowledged} acknowledged",
        flush=True,
    )


def _figures(seconds: Sequence[float]) -> str:
    if not seconds:
        return "-"
    return f"p50 {percentile(seconds, 50):.2f} max {max(seconds):.2f} s"


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/netfaults", description=__doc__.split("\n\n")[0])
    parser.add_argument("--story", choices=STORIES, action="append", help="these alone (default: all)")
    parser.add_argument("--rounds", type=int, default=3, help="cuts for each story (default: 3)")
    parser.add_argument("--hold", type=float, default=6.0, help="seconds from cut to healing (default: 6)")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 30))
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    own_network()
    complaints: list[str] = []
    for name in options.story or STORIES:
        story = STORIES[name]
        directory = Path(tempfile.mkdtemp(prefix="allsource-network-"))
        told: list[str] = []
        with Lan([f"n{number}" for number in range(1, story.nodes + 1)]) as lan:
            config = write_lan_config(
                directory, lan, cluster_name="network", secret="network-faults-secret"
            )
            told = asyncio.run(tell(story, config, lan, options))
        own_network()  # the next story's bridge begins in an empty one
        if told:
            print(f"data and logs are kept in {directory}")
        else:
            shutil.rmtree(directory)
        complaints += told
    for line in complaints:
        print("FAILED: " + line)
    print("all held" if not complaints else f"{len(complaints)} complaints")
    return int(bool(complaints))


if __name__ == "__main__":
    sys.exit(main())
