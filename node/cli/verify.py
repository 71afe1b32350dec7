"""`allsource verify`: walk everything that a stopped node has stored, and say whether it is whole."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import click
from rich.console import Console
from rich.progress import Progress

from allsource.cluster.placement import hosted_by, replica_sets
from allsource.config.load import load_settings
from allsource.config.schema import Settings
from allsource.node.cli.output import echo_json
from allsource.storage.interface import Storage

FAULTS_SHOWN = 20
"""Faults of one partition that are printed in words; the rest are counted."""


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--id", "node_id", required=True, help="Whose data; the node must not be running.")
@click.option("--json", "as_json", is_flag=True, help="The report as JSON.")
def verify(file: Path, node_id: str, as_json: bool) -> int:
    """Check what a stopped node of FILE has stored: every record's CRC, versions and positions without
    gaps, and the indexes against a replay of the log. Exit status 1 if anything is wrong."""
    settings = load_settings(file)
    known = [one.id for one in settings.nodes]
    if node_id not in known:
        raise click.UsageError(f"{file} has no node {node_id!r}; it has {', '.join(known)}")
    data_dir = settings.node(node_id).data_dir
    if settings.storage.backend == "rocksdb" and not data_dir.exists():
        raise click.UsageError(f"{data_dir} does not exist: the node was never started, nothing to verify")
    from allsource.node.daemon import open_node_storage

    storage = open_node_storage(settings, node_id)
    try:
        report = list(_walk(storage, _hosted(settings, node_id)))
    finally:
        storage.close()
    faults = sum(len(found) for _, _, found in report)
    if as_json:
        echo_json(_as_json(node_id, report))
    else:
        _tell(node_id, report, faults)
    return int(faults > 0)


Finding = tuple[int, int, list[str]]
"""A partition, the number of its events, and its faults."""


def _hosted(settings: Settings, node_id: str) -> tuple[int, ...]:
    members = [node.id for node in settings.nodes]
    replicas = replica_sets(members, settings.partitions, settings.replication_factor)
    return hosted_by(node_id, replicas)


def _walk(storage: Storage, partitions: tuple[int, ...]) -> Iterator[Finding]:
    progress = Progress(console=Console(stderr=True), disable=not sys.stderr.isatty(), transient=True)
    with progress:
        for partition in progress.track(partitions, description="partitions"):
            faults = list(storage.verify(partition))
            events = 0 if faults else storage.load(partition).next_position - 1
            yield partition, events, faults


def _as_json(node_id: str, report: list[Finding]) -> dict[str, object]:
    return {
        "ok": not any(faults for _, _, faults in report),
        "node": node_id,
        "partitions": [
            {"partition": partition, "events": events, "faults": faults}
            for partition, events, faults in report
        ],
    }


def _tell(node_id: str, report: list[Finding], faults: int) -> None:
    for partition, _, found in report:
        for sentence in found[:FAULTS_SHOWN]:
            click.echo(sentence)
        if len(found) > FAULTS_SHOWN:
            click.echo(f"partition {partition}: {len(found) - FAULTS_SHOWN} further faults")
    events = sum(events for _, events, _ in report)
    verdict = f"{faults} faults: keep it stopped, its peers hold the events" if faults else "all is well"
    click.echo(f"{node_id}: {len(report)} partitions, {events:,} events: {verdict}")
