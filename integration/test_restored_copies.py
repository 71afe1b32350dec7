"""An older copy of a data directory must not vote: it has forgotten what it acknowledged (rule 33).

In the first story an acknowledged event was lost before peers remembered each other's starts: the copy
counts up to the very incarnation that the original had, votes with the node that never had the event, and
the one that has it comes back to a log that contradicts its own.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from allsource.node.cli.control.cluster import ClusterProcess
from allsource.node.member.ending import EXIT_STORAGE
from integration.harness import Clusters, ask, end, greeting, wait_for

STREAM = "/v1/streams/s/events"


async def put_back(cluster: ClusterProcess, node_id: str, copy: Path) -> Path:
    """Swap a node's directory for a copy of another one; where the newest one is kept."""
    store = cluster.settings.node(node_id).data_dir
    newest = store.with_name(f"{node_id}-newest")
    store.rename(newest)
    shutil.copytree(copy, store)
    return newest


async def stop(cluster: ClusterProcess, *node_ids: str) -> None:
    for node_id in node_ids:
        assert await end(cluster, node_id) == 0


async def texts(cluster: ClusterProcess, node_id: str) -> list[str]:
    status, page = await ask(cluster, node_id, STREAM)
    assert status == 200
    return [event["data"]["text"] for event in page["events"]]


async def ends_as_an_older_copy(cluster: ClusterProcess, node_id: str) -> None:
    await wait_for(cluster, lambda: _has_ended(cluster, node_id), f"{node_id} to end")
    assert cluster.nodes[node_id].exit_status == EXIT_STORAGE
    assert "older copy" in cluster.log(node_id).splitlines()[-1]
    assert "put back the newest directory" in cluster.log(node_id)


async def _has_ended(cluster: ClusterProcess, node_id: str) -> bool:
    return not cluster.nodes[node_id].running


@pytest.mark.parametrize("alone", [0, 2], ids=["started once", "started before, by itself"])
async def test_a_restored_directory_does_not_vote_an_acknowledged_event_away(
    clusters: Clusters, tmp_path: Path, alone: int
) -> None:
    """`alone`: how often the copy is started before its peers are there. Its number is then higher than
    any that they have met, and it is the same copy."""
    cluster = await clusters.start(3)
    assert (await ask(cluster, "n1", STREAM, greeting("before")))[0] == 201
    await cluster.caught_up("n3")
    await stop(cluster, "n1", "n2", "n3")
    copy = tmp_path / "copy"
    shutil.copytree(cluster.settings.node("n3").data_dir, copy)
    cluster.start()
    await cluster.settled()
    await stop(cluster, "n1")
    await cluster.ready("n2", "n3")
    assert (await ask(cluster, "n2", STREAM, greeting("acknowledged by n2 and n3")))[0] == 201
    await stop(cluster, "n2", "n3")

    newest = await put_back(cluster, "n3", copy)
    for _ in range(alone):
        cluster.start("n3")
        await wait_for(cluster, lambda: _serves_http(cluster, "n3"), "the copy to be started")
        await stop(cluster, "n3")
    cluster.start("n1", "n3")
    await ends_as_an_older_copy(cluster, "n3")
    assert (await ask(cluster, "n1", STREAM, greeting("on a majority of forgetful ones")))[0] == 503

    cluster.start("n2")
    await cluster.ready("n1", "n2")
    assert await texts(cluster, "n1") == ["before", "acknowledged by n2 and n3"]

    cluster.start("n3")  # again: now it knows that it is doubted, and does not even begin
    await wait_for(cluster, lambda: _serves_http(cluster, "n3"), "n3 to say why it waits")
    status, answer = await ask(cluster, "n3", "/health/ready")
    assert status == 503
    assert "older copy" in answer["message"]
    assert cluster.nodes["n3"].running
    await stop(cluster, "n3")

    shutil.rmtree(cluster.settings.node("n3").data_dir)
    newest.rename(cluster.settings.node("n3").data_dir)
    cluster.start("n3")
    await cluster.ready("n1", "n2", "n3")
    await cluster.caught_up("n3")
    assert await texts(cluster, "n3") == ["before", "acknowledged by n2 and n3"]


async def _serves_http(cluster: ClusterProcess, node_id: str) -> bool:
    return await cluster.get(node_id, "/health/live") is not None


async def test_a_leader_remembers_what_a_copy_from_within_one_start_has_forgotten(
    clusters: Clusters, tmp_path: Path
) -> None:
    """The copy is of the newest start: only the owner, which lives on, knows what was acknowledged
    since."""
    cluster = await clusters.start(3)
    assert (await ask(cluster, "n1", STREAM, greeting("before")))[0] == 201
    await cluster.caught_up("n3")
    await stop(cluster, "n3")
    copy = tmp_path / "copy"
    shutil.copytree(cluster.settings.node("n3").data_dir, copy)
    cluster.start("n3")
    await cluster.ready("n3")
    for number in range(40):  # of every owner
        path = f"/v1/streams/on-{number}/events"
        assert (await ask(cluster, "n1", path, greeting("acknowledged")))[0] == 201
    await cluster.caught_up("n3")
    cluster.kill("n3")
    # The copy would be known by its starts. Give it the start that the original had, as a copy of a running
    # node's files would have it, and nothing of what was appended since.
    await put_back(cluster, "n3", copy)
    await adopt_start(cluster, "n3")
    cluster.start("n3")
    await ends_as_an_older_copy(cluster, "n3")
    assert "acknowledged entry" in cluster.log("n3")


async def adopt_start(cluster: ClusterProcess, node_id: str) -> None:
    """Put the newest start of the directory that was set aside into the one that took its place."""
    from allsource.storage.files.directory import claim_existing
    from allsource.storage.rocksdb import keys
    from allsource.storage.rocksdb.storage import RocksStorage

    store = cluster.settings.node(node_id).data_dir
    newest = RocksStorage(claim_existing(store.with_name(f"{node_id}-newest")))
    number = newest.identity.incarnation - 1  # of_claimed is a start, too
    nonce = newest.get_meta(f"start/{number}")
    newest.close()
    assert nonce is not None
    older = RocksStorage(claim_existing(store))
    older.put_meta({f"start/{number}": nonce})
    older._database.put_meta({keys.INCARNATION: keys.pack_incarnation(number, older.identity.replica_id)})
    older.sync()
    older.close()
