"""A cluster that keeps everything in memory: what is killed is gone, and must not be taken for itself.

RULES.md rule 9: a restarted node has forgotten its votes and its log. It may neither vote nor
acknowledge as if it had not; the others go on as long as they are a majority, and not with its help.
"""

from __future__ import annotations

import asyncio
import json

import pytest

from allsource.node.cli.control.cluster import ClusterProcess
from integration.harness import PATIENCE_S, Clusters, ask, greeting, wait_for, written_to
from integration.test_command_line import allsource

STREAMS = [f"s-{number}" for number in range(48)]
"""Enough to be in partitions of every owner."""


async def test_a_restarted_node_is_refused_and_never_votes_or_acknowledges(clusters: Clusters) -> None:
    cluster = await clusters.start(3, storage={"backend": "memory"})
    for stream in STREAMS:
        assert (await ask(cluster, "n1", f"/v1/streams/{stream}/events", greeting("before")))[0] == 201

    async with written_to(cluster) as writers:
        cluster.kill("n3")
        said_before = len(cluster.log("n3"))
        cluster.start("n3")
        await _refused_on_both_sides(cluster, said_before)
        assert await writers.all_accept(writers.now(), PATIENCE_S) == []  # the majority goes on
    assert "cannot take part again" in cluster.log("n3")[said_before:]
    status, answer = await ask(cluster, "n3", "/health/ready")
    assert status == 503
    assert "identity_changed" in answer["message"]
    assert "with its storage in memory" in answer["message"]
    status, answer = await ask(cluster, "n3", "/v1/streams/s-0/events", greeting("to the newcomer"))
    assert (status, answer["error"], answer["definite"]) == (503, "no_owner", True)

    # Now n1 is alone with the newcomer: with one vote or one acknowledgement of it they were a majority.
    cluster.kill("n2")
    await _seen_down(cluster, "n1", "n2")
    for stream in STREAMS:
        status, answer = await ask(cluster, "n1", f"/v1/streams/{stream}/events", greeting("refused"))
        assert (status, answer["error"], answer["definite"]) == (503, "no_majority", True)
        status, page = await ask(cluster, "n1", f"/v1/streams/{stream}/events?consistency=local")
        assert (status, [event["data"]["text"] for event in page["events"]]) == (200, ["before"])
    view = (await ask(cluster, "n3", "/v1/cluster"))[1]
    assert {(one["term"], one["commit_index"], one["owner"]) for one in view["partitions"]} == {
        (0, 0, None)
    }
    assert "leads" not in cluster.log("n3")[said_before:]


async def _refused_on_both_sides(cluster: ClusterProcess, said_before: int) -> None:
    async def refused() -> bool:
        here = cluster.log("n3")[said_before:]
        there = cluster.log("n1") + cluster.log("n2")
        return here.count("identity_changed") >= 2 and there.count("node n3 was replica") >= 2

    await wait_for(cluster, refused, "all three to say that n3 is another one now")
    assert "this node has forgotten what it held in memory" in cluster.log("n3")[said_before:]


async def _seen_down(cluster: ClusterProcess, node_id: str, other: str) -> None:
    async def down() -> bool:
        picture = await cluster.picture(node_id)
        assert picture is not None
        return {node.id: node.state for node in picture.nodes}[other] == "down"

    await wait_for(cluster, down, f"{node_id} to know that {other} is down")


async def test_nobody_is_told_of_an_fsync_that_does_not_happen(clusters: Clusters) -> None:
    cluster = await clusters.start(3, storage={"backend": "memory"})
    view = (await ask(cluster, "n2", "/v1/cluster"))[1]
    assert (view["storage"], view["durability"]) == ("memory", "memory")
    meaning = "survives the end of 1 of its 3 processes"
    assert meaning in view["durability_means"]
    status = await asyncio.to_thread(allsource, "status", "--config", cluster.config)
    assert "storage memory, durability memory" in status.stdout
    assert meaning in status.stdout
    check = await asyncio.to_thread(allsource, "config", "check", cluster.config)
    assert meaning in check.stdout
    assert "durability=memory" in cluster.log("n2")
    assert "fsync" not in status.stdout + check.stdout + cluster.log("n2") + str(view)


@pytest.mark.parametrize(("nodes", "factor", "rounds"), [(3, 3, 1), (5, 5, 2)])
async def test_the_drill_kills_without_restarting_as_long_as_a_majority_is_left(
    clusters: Clusters, nodes: int, factor: int, rounds: int
) -> None:
    config = clusters.config(nodes, replication_factor=factor)
    done = await asyncio.to_thread(
        allsource, "drill", "kill-node", "--config", config, "--backend", "memory", "--json"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout)
    assert (report["ok"], report["faults"], report["storage"]) == (True, [], "memory")
    assert f"{rounds} of 5 rounds" in report["remark"]
    assert report["writes"]["acknowledged"] > 100
    killed = [victim for round_ in report["rounds"] for victim in round_["victims"]]
    assert len(killed) == len(set(killed)) == rounds
    assert report["copies_compared"] == 32 * (1 + nodes - rounds)  # each owner, and all that are left
    assert "not started again" in done.stderr


async def test_a_drill_does_not_shrink_a_running_cluster_in_memory(clusters: Clusters) -> None:
    config = clusters.config(3, storage={"backend": "memory"})
    done = await asyncio.to_thread(allsource, "drill", "kill-node", "--config", config, "--running")
    assert done.returncode == 2
    assert "without the victims for good" in done.stderr


async def test_a_launch_does_not_restart_what_has_forgotten(clusters: Clusters) -> None:
    config = clusters.config(3, storage={"backend": "memory"})
    done = await asyncio.to_thread(allsource, "launch", config, "--restart")
    assert done.returncode == 2
    assert "a restarted node cannot take part again" in done.stderr
