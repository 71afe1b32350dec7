"""`allsource launch`: wire supervisor, watch and display together, and obey signals."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from allsource.config.exposure import exposures
from allsource.config.load import load_settings
from allsource.config.promise import promise_of
from allsource.config.schema import Settings
from allsource.node.cli.control.processes import NodeProcess, node_command
from allsource.node.cli.driver import require_driver
from allsource.node.cli.elsewhere import refuse_to_begin_empty
from allsource.node.cli.launch.lines import JsonDisplay, PlainDisplay, nobody_left
from allsource.node.cli.launch.supervisor import FAILURES_MAX, Child, Display, Supervisor
from allsource.node.cli.launch.watch import watch
from allsource.node.cli.output import note

RESTART_HELP = (
    "Start a node again that ended, after a wait that grows from 0.5 to 10 s; one that ends itself with an"
    f" error {FAILURES_MAX} times in a row is given up."
)


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--restart", is_flag=True, help=RESTART_HELP)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line for everything that happens.")
def launch(file: Path, restart: bool, as_json: bool) -> int:
    """Run every node of FILE on this machine until Ctrl-C."""
    settings = load_settings(file)
    if restart and not settings.storage.traits.survives_restart:
        raise click.UsageError(f"storage is in memory: {promise_of(settings).meaning}; leave out --restart")
    require_driver(settings)
    refuse_to_begin_empty(settings, file, [node.id for node in settings.nodes])
    for sentence in exposures(file):
        note(f"allsource: warning: {sentence}")
    return asyncio.run(_launch(settings, file, restart=restart, as_json=as_json))


async def _launch(settings: Settings, config: Path, *, restart: bool, as_json: bool) -> int:
    children = _children(settings, config)
    with contextlib.ExitStack() as stack:
        display = _display(settings, config, children, stack, as_json=as_json)
        supervisor = Supervisor(children, display, restart=restart)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, supervisor.stop)
        watching = asyncio.create_task(watch(children, display))
        try:
            status = await supervisor.run()
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
    if status:
        note(f"allsource: {nobody_left(children)}")
    return status


def _children(settings: Settings, config: Path) -> list[Child]:
    return [
        Child(
            NodeProcess(node.id, node_command(config, node.id), output=subprocess.PIPE),
            f"{node.host}:{node.port}",
            f"http://{node.host}:{node.http_port}",
            node.data_dir if settings.storage.traits.in_data_dir else None,
        )
        for node in settings.nodes
    ]


def _display(
    settings: Settings,
    config: Path,
    children: Sequence[Child],
    stack: contextlib.ExitStack,
    *,
    as_json: bool,
) -> Display:
    if as_json:
        return JsonDisplay(settings)
    if not sys.stdout.isatty():
        return PlainDisplay(settings, config)
    from allsource.node.cli.launch.table import TableDisplay  # rich, which pipes do without

    return stack.enter_context(TableDisplay(settings, config, children))
