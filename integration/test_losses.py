"""Nodes are killed, paused and restarted while writers are at work: nothing acknowledged is lost.

How fast an owner is replaced depends on what else the machine does; `allsource drill` and
`scripts/netfaults` measure it. What is tried here is what it waits for: a timeout that must not be waited
for is longer than the story's patience (`harness.DEADLINE_S` for requests).
"""

from __future__ import annotations

import fcntl
import subprocess
import time
from pathlib import Path
from random import Random
from typing import IO

from allsource.node.cli.control.cluster import ClusterProcess
from allsource.node.cli.control.processes import NodeProcess, node_command
from allsource.node.cli.drill.history import REJECTED, UNKNOWN
from allsource.node.cli.drill.rounds import ACCEPT_TIMEOUT_S, KILL, PAUSE, run_round
from allsource.node.cli.drill.writers import Writers
from allsource.storage.model.partition import partition_of
from integration.harness import (
    PATIENCE_S,
    Clusters,
    ask,
    end,
    faults,
    greeting,
    wait_for,
    written_to,
)

UNSUSPECTING = "60s"
"""A suspicion time of nodes that suspect a silent one only when the story has failed long since."""
SEED = 20260801


async def test_a_killed_owner_is_replaced_at_once_and_nothing_is_lost(clusters: Clusters) -> None:
    """Nobody waits for the suspicion time: that the process has ended shows at its connections."""
    cluster = await clusters.start(3, suspicion_timeout=UNSUSPECTING)
    assert cluster.settings.suspicion_timeout_ms > 1000 * ACCEPT_TIMEOUT_S
    (victim,) = Random(SEED).sample(cluster.ids, 1)
    picture = await cluster.picture(victim)
    assert picture is not None
    assert picture.owned_by(victim)
    async with written_to(cluster, SEED) as writers:
        killed_at = writers.now()
        cluster.kill(victim)
        assert await writers.all_accept(killed_at, ACCEPT_TIMEOUT_S) == []
    cluster.start(victim)
    await cluster.ready(victim)
    assert await faults(cluster, writers.history) == []


async def test_a_paused_owner_is_replaced_and_acknowledges_nothing_stale(clusters: Clusters) -> None:
    """In the rounds behind the first the writers' map is out of date, and others forward to the paused node
    for them: that must end with its leadership, not with the requests' deadlines."""
    cluster = await clusters.start(3)
    async with written_to(cluster, SEED) as writers:
        random = Random(SEED)
        for _ in range(3):
            (victim,) = random.sample(cluster.ids, 1)
            paused_at = writers.now()
            cluster.nodes[victim].pause()
            assert await writers.all_accept(paused_at, PATIENCE_S) == []
            await _none_waits(cluster, writers, writers.now())
            cluster.nodes[victim].resume()
            await cluster.caught_up(victim)
            await cluster.settled()
    assert await faults(cluster, writers.history) == []


async def _none_waits(cluster: ClusterProcess, writers: Writers, since: float) -> None:
    """Wait until every append that was under way at a moment has ended."""

    async def condition() -> bool:
        attempts = writers.history.attempts
        everybody = {attempt.writer for attempt in attempts}
        return {attempt.writer for attempt in attempts if attempt.ended > since} == everybody

    await wait_for(cluster, condition, "every append that was under way to end")


async def test_nodes_whose_log_goes_nowhere_lose_nothing_through_changes_of_owner(
    clusters: Clusters,
) -> None:
    """`node 2>&1 | tee` and the reader dies; a log on a full disk; a reader that reads no more."""
    cluster = await clusters.adopt(clusters.config(3))
    outputs: dict[str, int | Path] = {"n1": subprocess.PIPE, "n2": Path("/dev/full"), "n3": subprocess.PIPE}
    for node_id, output in outputs.items():
        command = node_command(cluster.config, node_id)
        cluster.nodes[node_id] = NodeProcess(node_id, command, output=output)
    cluster.start()
    fcntl.fcntl(_pipe_of(cluster, "n3"), fcntl.F_SETPIPE_SZ, 4096)  # full after some lines
    await cluster.settled()
    async with written_to(cluster, SEED) as writers:
        _pipe_of(cluster, "n1").close()
        random, pids = Random(SEED), [cluster.nodes[node_id].pid for node_id in cluster.ids]
        for number in range(1, 5):
            await run_round(number, PAUSE, cluster, writers, random, 1)
        assert await writers.all_accept(writers.now(), PATIENCE_S) == []
    assert [cluster.nodes[node_id].pid for node_id in cluster.ids] == pids
    assert all(cluster.nodes[node_id].running for node_id in cluster.ids)
    assert await faults(cluster, writers.history) == []
    for node_id in cluster.ids:
        assert await end(cluster, node_id) == 0
    _pipe_of(cluster, "n3").close()


def _pipe_of(cluster: ClusterProcess, node_id: str) -> IO[bytes]:
    node = cluster.nodes[node_id]
    assert isinstance(node, NodeProcess)
    return node.output


async def test_five_nodes_survive_two_kills_at_once(clusters: Clusters) -> None:
    cluster = await clusters.start(5, replication_factor=5)
    async with written_to(cluster, SEED, pause_s=0.08) as writers:
        round_ = await run_round(1, KILL, cluster, writers, Random(SEED), victims=2)
    assert len(round_.victims) == 2
    assert await faults(cluster, writers.history) == []


async def test_killing_all_three_at_once_loses_nothing_acknowledged(clusters: Clusters) -> None:
    cluster = await clusters.start(3)
    async with written_to(cluster, SEED) as writers:
        before = len(writers.history.attempts)
        cluster.kill()
        cluster.start()
        await cluster.settled()
        assert await writers.all_accept(writers.now(), PATIENCE_S) == []
    assert before > 0
    assert await faults(cluster, writers.history) == []


async def test_a_rolling_restart_by_sigterm_shows_writers_no_error(clusters: Clusters) -> None:
    cluster = await clusters.start(3)
    async with written_to(cluster, SEED) as writers:
        for node_id in cluster.ids:
            assert await end(cluster, node_id) == 0
            cluster.start(node_id)
            await cluster.settled()
    refused = [a for a in writers.history.attempts if a.outcome in (REJECTED, UNKNOWN)]
    assert [(a.writer, a.outcome, a.code) for a in refused] == []
    assert await faults(cluster, writers.history) == []


async def test_two_of_three_gone_refuse_at_once_and_come_back_with_one(clusters: Clusters) -> None:
    cluster = await clusters.start(3)
    path = "/v1/streams/lonely/events"
    assert (await ask(cluster, "n1", path, greeting("before")))[0] == 201
    await cluster.caught_up("n1")

    cluster.kill("n2", "n3")
    await _alone(cluster, "n1")
    for stream in ("lonely", *_one_stream_for_each_owner(cluster)):
        begun = time.monotonic()
        status, refusal = await ask(cluster, "n1", f"/v1/streams/{stream}/events", greeting("refused"))
        assert (status, refusal["error"], refusal["definite"]) == (503, "no_majority", True)
        assert time.monotonic() - begun < PATIENCE_S  # it did not wait for its deadline
    status, page = await ask(cluster, "n1", f"{path}?consistency=local")
    assert (status, [event["data"] for event in page["events"]]) == (200, [{"text": "before"}])

    cluster.start("n2")
    await cluster.ready("n1", "n2")
    for node_id in ("n1", "n2"):
        for stream in ("lonely", *_one_stream_for_each_owner(cluster)):
            assert (await ask(cluster, node_id, f"/v1/streams/{stream}/events", greeting("after")))[
                0
            ] == 201
    status, page = await ask(cluster, "n2", path)
    assert [event["data"]["text"] for event in page["events"]] == ["before", "after", "after"]


async def _alone(cluster: ClusterProcess, node_id: str) -> None:
    """Wait until a node knows that all others are down."""

    async def condition() -> bool:
        picture = await cluster.picture(node_id)
        assert picture is not None
        return all(node.state == "down" for node in picture.nodes if node.id != node_id)

    await wait_for(cluster, condition, f"{node_id} to know that it is alone")


def _one_stream_for_each_owner(cluster: ClusterProcess) -> list[str]:
    """For each node, a stream of a partition that it prefers."""
    found: dict[str, str] = {}
    for number in range(1000):
        stream = f"owned-{number}"
        found.setdefault(cluster.replicas()[partition_of(stream)][0], stream)
    assert found.keys() == set(cluster.ids)
    return list(found.values())
