"""`allsource node`: one node in this process, until SIGTERM."""

from __future__ import annotations

import os
from pathlib import Path

import click

from allsource.config.exposure import exposures
from allsource.config.load import load_settings
from allsource.node.cli.control.processes import die_with_parent
from allsource.node.cli.elsewhere import refuse_to_begin_empty


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--id", "node_id", required=True, help="Which node of the file this process is.")
def node(file: Path, node_id: str) -> int:
    """Run one node of FILE in the foreground. SIGTERM or Ctrl-C stops it in order."""
    is_child = die_with_parent()
    settings = load_settings(file)
    known = [one.id for one in settings.nodes]
    if node_id not in known:
        raise click.UsageError(f"{file} has no node {node_id!r}; it has {', '.join(known)}")
    refuse_to_begin_empty(settings, file, [node_id])
    # The files that this process makes hold events, so they are for its user alone. RocksDB takes no mode.
    os.umask(0o077)
    from allsource.node.daemon import run_node  # the whole node: only who runs one pays for it

    # `launch` starts many nodes of one file and tells once, itself, what is wrong with it.
    return run_node(settings, node_id, warnings=() if is_child else exposures(file))
