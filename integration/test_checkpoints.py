"""Copies of every node of a cluster while it is written to, and what they are good for."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

from allsource.node.cli.control.cluster import ClusterProcess
from allsource.node.cli.drill.history import ACKNOWLEDGED, History
from allsource.node.member.ending import EXIT_STORAGE
from allsource.storage.repository import open_repository
from integration.harness import Clusters, ask, end, faults, greeting, wait_for, written_to

SEED = 20261123


async def allsource(*arguments: object) -> subprocess.CompletedProcess[str]:
    """The command line, as a user calls it."""
    command = [sys.executable, "-m", "allsource.node.cli", *map(str, arguments)]
    return await asyncio.to_thread(
        subprocess.run, command, capture_output=True, text=True, timeout=280, check=False
    )


async def events_in(copy: Path) -> list[list[bytes]]:
    """The ids of all events in a copy, by partition and position; the copy becomes a repository."""
    async with open_repository(f"rocksdb://{copy}") as events:
        found = []
        for partition in range(events.partition_count):
            page = await events.read_partition(partition, limit=None)
            assert [event.position for event in page] == list(range(1, len(page) + 1))
            found.append([event.id for event in page])
        return found


def copy_of(cluster: ClusterProcess, node_id: str, name: str) -> Path:
    """Where a node puts a checkpoint."""
    return cluster.settings.node(node_id).data_dir / "checkpoints" / name


async def test_every_node_is_copied_while_it_is_written_to(clusters: Clusters) -> None:
    cluster = await clusters.start(3)
    async with written_to(cluster, SEED) as writers:
        acknowledged = _acknowledged(writers.history)
        made = await allsource("checkpoint", "--config", cluster.config, "first", "--json")
        assert made.returncode == 0, made.stdout + made.stderr
    assert [(one["node"], one["ok"]) for one in json.loads(made.stdout)["nodes"]] == [
        (node_id, True) for node_id in cluster.ids
    ]
    assert await faults(cluster, writers.history) == []  # the cluster took no notice

    attempted = {event.id for attempt in writers.history.attempts for event in attempt.events}
    copies = []
    for node_id in cluster.ids:
        path = copy_of(cluster, node_id, "first")
        checked = await allsource("verify", "--data-dir", path)
        assert checked.returncode == 0, checked.stdout + checked.stderr
        found = await events_in(path)
        owned = {p for p, group in enumerate(cluster.replicas()) if group[0] == node_id}
        assert len(owned) > 5
        for partition in owned:
            assert acknowledged[partition] <= set(found[partition]), (node_id, partition)
        assert set().union(*found) <= attempted
        copies.append(found)
    for partition, logs in enumerate(zip(*copies, strict=True)):
        longest = max(logs, key=len)
        assert all(log == longest[: len(log)] for log in logs), f"the copies of {partition} disagree"


def _acknowledged(history: History) -> dict[int, set[bytes]]:
    """What has been acknowledged so far, by partition; something in each."""
    found: dict[int, set[bytes]] = {}
    for attempt in history.attempts:
        if attempt.outcome == ACKNOWLEDGED:
            found.setdefault(attempt.partition, set()).update(event.id for event in attempt.events)
    return found


async def test_a_node_starts_from_its_own_directory_only(clusters: Clusters) -> None:
    cluster = await clusters.start(3)
    assert (await ask(cluster, "n1", "/v1/streams/s/events", greeting()))[0] == 201
    await cluster.caught_up("n1")
    status, facts = await ask(cluster, "n1", "/v1/checkpoints", {"name": "old"})
    assert (status, facts["path"]) == (201, str(copy_of(cluster, "n1", "old")))
    store = cluster.settings.node("n1").data_dir

    assert await end(cluster, "n1") == 0
    others = await allsource("checkpoint", "--config", cluster.config, "while-down", "--json")
    answers = {one["node"]: one for one in json.loads(others.stdout)["nodes"]}
    assert others.returncode == 1
    assert {node_id: one["ok"] for node_id, one in answers.items()} == {"n1": False, "n2": True, "n3": True}
    assert answers["n1"]["error"] == "unreachable"
    two = await allsource("checkpoint", "--config", cluster.config, "again", "--on", "n2", "--on", "n3")
    assert (two.returncode, two.stderr, len(two.stdout.splitlines())) == (0, "", 3)

    kept = store.with_name("kept")
    store.rename(kept)
    shutil.copytree(kept / "checkpoints" / "old", store)
    cluster.start("n1")
    await wait_for(cluster, _ended(cluster, "n1"), "n1 to refuse to start")
    assert cluster.nodes["n1"].exit_status == EXIT_STORAGE
    assert "is a checkpoint of node 'n1'" in cluster.log("n1").splitlines()[-1]

    shutil.rmtree(store)
    kept.rename(store)
    cluster.start("n1")
    await cluster.ready("n1")
    listed = await allsource("checkpoint", "--config", cluster.config, "--json")
    names = {
        one["node"]: [info["name"] for info in one["checkpoints"]]
        for one in json.loads(listed.stdout)["nodes"]
    }
    assert names == {"n1": ["old"], "n2": ["again", "while-down"], "n3": ["again", "while-down"]}
    assert [len(ids) for ids in await events_in(store / "checkpoints" / "old") if ids] == [1]


def _ended(cluster: ClusterProcess, node_id: str) -> Callable[[], Awaitable[bool]]:
    async def condition() -> bool:
        return not cluster.nodes[node_id].running

    return condition
