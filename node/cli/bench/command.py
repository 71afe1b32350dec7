"""`allsource bench`: start a cluster (or take a running one), run the workloads, tell the figures."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path
from typing import TextIO

import click

from allsource.config.load import load_settings
from allsource.node.cli.bench.facts import machine_facts
from allsource.node.cli.bench.measure import Measured, median_round
from allsource.node.cli.bench.report import (
    COLUMNS,
    RATIOS,
    RATIOS_TITLE,
    as_json,
    earlier_figures,
    markdown,
    ratios,
    row,
)
from allsource.node.cli.bench.workloads import WORKLOADS, Bench
from allsource.node.cli.control.adopted import AdoptedNode
from allsource.node.cli.control.cluster import ClusterProcess, Node
from allsource.node.cli.control.scratch import Scratch
from allsource.node.cli.loop import run_loop
from allsource.node.cli.output import echo, echo_json, echo_table, note, say
from allsource.node.cli.targets import config_option, connect
from allsource.storage.model.printable import printable_lines


@click.command()
@config_option
@click.option(
    "--workload",
    "names",
    type=click.Choice(list(WORKLOADS)),
    multiple=True,
    help="Repeatable; all of them by default.",
)
@click.option("--seconds", type=click.FloatRange(0.1, 600), default=5.0, show_default=True)
@click.option(
    "--rounds",
    type=click.IntRange(1, 99),
    default=1,
    show_default=True,
    help="Run all workloads so often, in turn; of each, the round with the median rate is shown.",
)
@click.option(
    "--against",
    type=click.File(),
    help="What `--json` printed of an earlier run on this machine: shows how today's figures compare.",
)
@click.option(
    "--running",
    is_flag=True,
    help="Use the cluster that runs from this file, instead of a new one on free ports.",
)
@click.option(
    "--directory",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Where the data of a new cluster goes (and is deleted); by default the system's temporary one.",
)
@click.option("--json", "json_", is_flag=True, help="Facts and figures as JSON.")
@click.option("--markdown", "markdown_", is_flag=True, help="Facts and figures as a table for a document.")
def bench(
    config: Path,
    names: tuple[str, ...],
    seconds: float,
    rounds: int,
    against: TextIO | None,
    running: bool,
    directory: Path | None,
    json_: bool,
    markdown_: bool,
) -> int:
    """Measure throughput, latency and CPU time on a real cluster."""
    if running and "kill-owner" in names:
        raise click.UsageError(
            "kill-owner kills only nodes that the benchmark started: leave out --running"
        )
    before = None if against is None else earlier_figures(against.name, against.read())
    chosen = [name for name in WORKLOADS if name in (names or WORKLOADS)]
    if running:
        chosen = [name for name in chosen if name != "kill-owner"]
    with contextlib.ExitStack() as stack:
        if running:
            path, place = config, Path(stack.enter_context(tempfile.TemporaryDirectory(dir=directory)))
        else:
            scratch = stack.enter_context(Scratch(config, "bench", within=directory))
            path, place = scratch.config, scratch.directory
        facts = machine_facts(load_settings(path), place, seconds)
        results = run_loop(_measure(path, chosen, seconds, rounds, running=running))
    if json_:
        echo_json({"facts": facts, "results": [as_json(measured) for measured in results]})
    elif markdown_:
        echo(printable_lines(markdown(facts, results)))
    else:
        for name, value in facts.items():
            say(f"{name}: {value}")
        echo_table("", COLUMNS, [row(measured) for measured in results])
    if before is not None and not json_:
        echo_table(RATIOS_TITLE, RATIOS, [ratios(measured, before) for measured in results])
    return 0


async def _measure(
    config: Path, names: list[str], seconds: float, rounds: int, *, running: bool
) -> list[Measured]:
    adopted = _adopted(config) if running else None
    async with ClusterProcess(config, nodes=adopted) as cluster:
        if adopted is None:
            await cluster.start_all()
        async with connect(cluster.settings) as client:
            work = Bench(client, cluster, list(cluster.nodes.values()), seconds)
            found: dict[str, list[Measured]] = {name: [] for name in names}
            for _ in range(rounds):
                for name in names:
                    note(f"{name}: {(WORKLOADS[name].__doc__ or '').splitlines()[0]}")
                    found[name].append(await WORKLOADS[name](work))
        if adopted is None:
            await cluster.stop()
        return [median_round(measured) for measured in found.values()]


def _adopted(config: Path) -> dict[str, Node]:
    """The nodes that run on this machine; none of them, unless all do (their CPU time is a sum)."""
    found: dict[str, Node] = {}
    with contextlib.suppress(LookupError):
        for node in load_settings(config).nodes:
            found[node.id] = AdoptedNode(node, config)
        return found
    return {}
