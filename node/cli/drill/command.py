"""`allsource drill`: the commands, and the order of a drill's acts."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

import click

from allsource.config.backends import BACKENDS
from allsource.config.load import load_settings
from allsource.config.promise import losses_survived
from allsource.node.cli.control.adopted import AdoptedNode
from allsource.node.cli.control.cluster import ClusterFault, ClusterProcess
from allsource.node.cli.control.scratch import Scratch
from allsource.node.cli.drill.checks import judge
from allsource.node.cli.drill.readback import read_back
from allsource.node.cli.drill.report import Report, report_json, round_line, verdict_lines
from allsource.node.cli.drill.rounds import KILL, PAUSE, STOP, Injury, run_round
from allsource.node.cli.drill.writers import Clock, Writers
from allsource.node.cli.loop import run_loop
from allsource.node.cli.output import echo_json, note, say
from allsource.node.cli.targets import config_option, connect
from allsource.storage.model.errors import AllsourceError

_WRITE_PAUSE_S = 0.04
"""Between two writes of one writer: some 90 writes a second and partition, all in all."""


@dataclass(frozen=True, slots=True)
class _Plan:
    """What the caller asked for."""

    injury: Injury
    config: Path
    backend: str | None
    """None: the one in the file."""
    rounds: int
    victims: int
    running: bool
    seed: int
    within_ms: float | None
    remark: str = ""


@click.group()
def drill() -> None:
    """Hurt a cluster while it is written to, and check that nothing acknowledged is lost."""


_OPTIONS = (
    config_option,
    click.option(
        "--backend",
        type=click.Choice([name for name, traits in BACKENDS.items() if not traits.in_server]),
        help="Keep the data there, instead of where the file says (which names the server of postgres).",
    ),
    click.option("--rounds", type=click.IntRange(1, 10_000), default=5, show_default=True),
    click.option(
        "--kill",
        "victims",
        type=click.IntRange(1),
        default=1,
        show_default=True,
        help="Nodes hurt at once.",
    ),
    click.option(
        "--running",
        is_flag=True,
        help="Take the cluster that runs from this file on this machine, instead of a new one on free"
        " ports with its data in a temporary directory.",
    ),
    click.option("--seed", type=int, help="Chooses the victims; every drill prints its own."),
    click.option(
        "--within",
        "within_ms",
        type=float,
        metavar="MS",
        help="Fail if a partition is without writes longer.",
    ),
    click.option("--json", "as_json", is_flag=True, help="The report as JSON."),
)


def _options(command: Callable[..., int]) -> Callable[..., int]:
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


@drill.command("kill-node")
@_options
def kill_node(**options: Any) -> int:
    """Kill owners with SIGKILL, restart them, and compare everything in the end.

    With storage in memory a killed node has forgotten its votes, so it is not started again, and the drill
    ends when a further loss would leave no majority.
    """
    return _drill(KILL, **options)


@drill.command("stop-node")
@_options
def stop_node(**options: Any) -> int:
    """Restart owners in order (SIGTERM), as an upgrade does, and compare everything in the end.

    With storage in memory a stopped node is not started again; see kill-node.
    """
    return _drill(STOP, **options)


@drill.command("pause-node")
@_options
def pause_node(**options: Any) -> int:
    """Pause owners with SIGSTOP until they are replaced, wake them, and compare everything in the end."""
    return _drill(PAUSE, **options)


def _drill(injury: Injury, *, as_json: bool, seed: int | None, **options: Any) -> int:
    plan = _Plan(injury, seed=secrets.randbits(32) if seed is None else seed, **options)
    if plan.running:
        if plan.backend:
            raise click.UsageError("--running takes the cluster as it is: leave out --backend")
        return _tell(run_loop(_perform(_feasible(plan), plan.config)), as_json=as_json)
    plan = _feasible(plan)
    with Scratch(plan.config, "drill", backend=plan.backend) as scratch:
        try:
            report = run_loop(_perform(plan, scratch.config))
        except Exception:
            scratch.keep()
            raise
        if not report.ok:
            scratch.keep()
    return _tell(report, as_json=as_json)


def _tell(report: Report, *, as_json: bool) -> int:
    if as_json:
        echo_json(report_json(report))
    else:
        for line in verdict_lines(report):
            say(line)
    return 0 if report.ok else 1


def _feasible(plan: _Plan) -> _Plan:
    """The plan, or what of it this cluster can survive; refuses what none could: it would test nothing."""
    settings = load_settings(plan.config)
    spared = losses_survived(settings)
    if plan.victims > spared:
        raise click.UsageError(
            f"{plan.config} keeps each partition on {settings.replication_factor} of"
            f" {len(settings.nodes)} nodes, which survives the loss of {spared}, not of {plan.victims}"
        )
    if not plan.injury.ends or BACKENDS[plan.backend or settings.storage.backend].survives_restart:
        return plan
    if plan.running:
        raise click.UsageError(
            "the running cluster keeps its data in memory, and would be without the victims for good:"
            " leave out --running"
        )
    rounds = min(plan.rounds, spared // plan.victims)
    return replace(
        plan,
        injury=plan.injury.for_good(),
        rounds=rounds,
        remark=f"storage in memory: a {plan.injury.past} node has forgotten its votes and its log, so it"
        f" was not started again; {rounds} of {plan.rounds} rounds, for {spared} of"
        f" {len(settings.nodes)} nodes may go",
    )


async def _perform(plan: _Plan, config: Path) -> Report:
    """The acts: start, write, hurt and heal, stop writing, read everything back, judge."""
    async with ClusterProcess(config, nodes=_adopted(config) if plan.running else None) as cluster:
        report = Report(
            plan.injury.name,
            len(cluster.ids),
            plan.seed,
            cluster.settings.storage.backend,
            plan.within_ms,
            remark=plan.remark,
        )
        note(f"{report.name}: {report.nodes} nodes with {report.storage}, --seed {plan.seed}")
        if not plan.running:
            cluster.start()
        await cluster.settled()
        async with connect(cluster.settings) as client:
            writers = Writers(
                client,
                partitions=cluster.settings.partitions,
                run=secrets.token_hex(4),
                seed=plan.seed,
                clock=Clock(),
                pause_s=_WRITE_PAUSE_S,
            )
            await _rounds(plan, cluster, writers, report)
        report.count(writers.history)
        if not report.stopped:
            await _judge(cluster, writers, report)
        if not plan.running:
            await cluster.stop()
        return report


def _adopted(config: Path) -> dict[str, Any]:
    try:
        return {node.id: AdoptedNode(node, config) for node in load_settings(config).nodes}
    except LookupError as error:
        raise ClusterFault(str(error)) from error


async def _rounds(plan: _Plan, cluster: ClusterProcess, writers: Writers, report: Report) -> None:
    random = Random(plan.seed)
    writers.start()
    try:
        await writers.all_accept(writers.now(), timeout_s=10.0)
        for number in range(1, plan.rounds + 1):
            round_ = await run_round(number, plan.injury, cluster, writers, random, plan.victims)
            report.rounds.append(round_)
            note(round_line(round_, plan.rounds, plan.injury.past))
    except (ClusterFault, AllsourceError) as error:
        report.stopped = str(error)
    finally:
        await writers.stop()


async def _judge(cluster: ClusterProcess, writers: Writers, report: Report) -> None:
    for node_id in cluster.present:
        await cluster.caught_up(node_id)
    copies = await read_back(cluster)
    report.events = sum(len(log) for log in copies.logs.values())
    report.replicas = copies.compared
    report.faults = [*copies.faults, *judge(writers.history, copies.logs)]
