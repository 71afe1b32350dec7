"""`allsource verify`: walk everything that was stored, and say whether it is whole.

A directory of RocksDB is only read: no file that holds data is changed (LOCK and rocksdict's own settings
are written), so that a damaged one stays as it was found, and a checkpoint goes on sharing its files with
the store that it was taken of.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import click
from rich.console import Console
from rich.progress import Progress

from allsource.cluster.membership.placement import hosted_by, replica_sets
from allsource.config.load import load_settings
from allsource.config.schema import Settings
from allsource.node.cli.elsewhere import refuse_to_begin_empty
from allsource.node.cli.output import echo_json, say
from allsource.node.member.damage import remembered
from allsource.storage.files.directory import DataDirectory, claim_directory, claim_existing
from allsource.storage.files.format import read_format
from allsource.storage.interface import Storage
from allsource.storage.model.errors import NO_COPY_HELPS, Corrupt, StorageFault

FAULTS_SHOWN = 20
"""Faults of one partition that are printed in words; the rest are counted."""

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_DIRECTORY = click.Path(exists=True, file_okay=False, path_type=Path)


@click.command()
@click.argument("file", type=_FILE, required=False)
@click.option("--id", "node_id", help="Which node of FILE; it must not be running.")
@click.option("--data-dir", type=_DIRECTORY, help="Instead: a data directory or a checkpoint (RocksDB).")
@click.option("--json", "as_json", is_flag=True, help="The report as JSON.")
def verify(file: Path | None, node_id: str | None, data_dir: Path | None, as_json: bool) -> int:
    """Check what is stored: every record's CRC, versions and positions without gaps, and the indexes
    against a replay of the log. Of a stopped node (FILE and --id), or in a directory of a node or of a
    repository that is not open, or a checkpoint (--data-dir). Exit status 1 if anything is wrong."""
    if (file is None) == (data_dir is None) or (file is None) != (node_id is None):
        raise click.UsageError("verify what? Give FILE and --id NODE, or --data-dir PATH")
    if data_dir is not None:
        subject = _directory(data_dir)
    else:
        assert file is not None
        assert node_id is not None
        subject = _node(file, node_id)
    findings: list[Finding] = []
    unreadable: list[str] = []
    try:
        storage = subject.open()
    except Corrupt as fault:
        unreadable.append(fault.message)
    else:
        try:
            findings += _walk(storage, subject.partitions)
        finally:
            storage.close()
    faults = len(unreadable) + sum(len(one.faults) for one in findings)
    if as_json:
        echo_json(_as_json(subject, findings, unreadable))
    else:
        _tell(subject, findings, unreadable, faults)
    return int(faults > 0)


class Subject(NamedTuple):
    """What is to be checked."""

    name: str
    facts: dict[str, Any]
    """The first keys of the JSON report."""
    partitions: Sequence[int]
    open: Callable[[], Storage]
    if_broken: str
    """What to do with it if it is not whole."""


class Finding(NamedTuple):
    """What was found in a partition."""

    partition: int
    entries: int
    events: int
    """0, like `entries`, if it cannot be told where the log ends."""
    faults: list[str]


def _node(file: Path, node_id: str) -> Subject:
    settings = load_settings(file)
    known = [one.id for one in settings.nodes]
    if node_id not in known:
        raise click.UsageError(f"{file} has no node {node_id!r}; it has {', '.join(known)}")
    replicas = replica_sets(known, settings.partitions, settings.replication_factor)
    return Subject(
        node_id,
        {"node": node_id},
        hosted_by(node_id, replicas),
        lambda: _open_node(settings, file, node_id),
        "keep it stopped, its peers hold the events",
    )


def _open_node(settings: Settings, file: Path, node_id: str) -> Storage:
    if not settings.storage.traits.in_data_dir:
        from allsource.node.assembly import open_node_storage

        return open_node_storage(settings, node_id)
    path = settings.node(node_id).data_dir
    if not path.exists() or read_format(path) is None:
        refuse_to_begin_empty(settings, file, [node_id])
        raise click.UsageError(f"{path} holds no data: the node was never started, nothing to verify")
    return _open(
        claim_directory(
            path, cluster_id=settings.cluster_id, node_id=node_id, partitions=settings.partitions
        )
    )


def _directory(path: Path) -> Subject:
    directory = claim_existing(path)
    found = directory.format
    taken = found.checkpoint.taken if found.checkpoint is not None else None
    return Subject(
        f"{path} ({f'checkpoint taken {taken} of ' if taken else ''}{found.source})",
        {
            "node": found.node_id,
            "cluster_id": found.cluster_id,
            "directory": str(path),
            "checkpoint": taken,
        },
        range(found.partitions),
        lambda: _open(directory),
        "take another checkpoint" if taken else NO_COPY_HELPS,
    )


def _open(directory: DataDirectory) -> Storage:
    from allsource.storage.rocksdb.storage import RocksStorage

    return RocksStorage(directory, read_only=True)


def _walk(storage: Storage, partitions: Sequence[int]) -> Iterator[Finding]:
    ends = {partition: _end(storage, partition) for partition in partitions}
    progress = Progress(console=Console(stderr=True), disable=not sys.stderr.isatty(), transient=True)
    with progress:
        # One more for each partition, so that a store without events has a length too.
        task = progress.add_task("entries", total=sum(entries + 1 for entries, _ in ends.values()))
        for partition, (entries, events) in ends.items():
            progress.update(task, description=f"partition {partition}")
            faults = list(storage.verify(partition))
            if faults and (found := remembered(storage, partition)):
                faults.append(f"partition {partition}: given up by its node, which found: {found}")
            yield Finding(partition, entries, events, faults)
            progress.advance(task, entries + 1)


def _end(storage: Storage, partition: int) -> tuple[int, int]:
    """How many entries and events a partition's log has, 0 if that cannot be told."""
    try:
        state = storage.load(partition)
    except StorageFault:
        return 0, 0
    return state.last_index, state.next_position - 1


def _as_json(subject: Subject, findings: list[Finding], unreadable: list[str]) -> dict[str, Any]:
    return {
        "ok": not unreadable and not any(one.faults for one in findings),
        **subject.facts,
        "faults": unreadable,
        "partitions": [one._asdict() for one in findings],
    }


def _tell(subject: Subject, findings: list[Finding], unreadable: list[str], faults: int) -> None:
    for sentence in unreadable:
        say(sentence)
    for one in findings:
        for sentence in one.faults[:FAULTS_SHOWN]:
            say(sentence)
        if len(one.faults) > FAULTS_SHOWN:
            say(f"partition {one.partition}: {len(one.faults) - FAULTS_SHOWN} further faults")
    events = sum(one.events for one in findings)
    verdict = f"{faults} faults: {subject.if_broken}" if faults else "all is well"
    say(f"{subject.name}: {len(findings)} partitions, {events:,} events: {verdict}")
