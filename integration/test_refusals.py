"""A real node meets what it must not accept: one clear line, a documented exit status, nothing changed."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from allsource.client import Client
from allsource.client.errors import ConnectionRefused
from allsource.node.cli.control.cluster import ClusterProcess
from allsource.node.cli.control.processes import until
from integration.harness import CLIENT_SECRET, PATIENCE_S, Clusters, ask, end, greeting, wait_for

LISTEN, STORAGE = 69, 73
"""Exit statuses of `allsource.node.daemon`."""


def edited(config: Path, change: Callable[[dict[str, Any]], None], name: str = "edited.yaml") -> Path:
    """A copy of a configuration file with something else in it, beside it."""
    keys = yaml.safe_load(config.read_text())
    change(keys)
    copy = config.with_name(name)
    copy.write_text(yaml.safe_dump(keys))
    return copy


def content(directory: Path) -> dict[str, bytes]:
    """Every file below a directory, except the lock (whoever tries takes it)."""
    files = (path for path in sorted(directory.rglob("*")) if path.is_file() and path.name != "LOCK")
    return {str(path.relative_to(directory)): path.read_bytes() for path in files}


async def refused(cluster: ClusterProcess, node_id: str = "n1") -> tuple[int, str]:
    """Start a node that will not stay: its exit status and its last line."""
    before = len(cluster.log(node_id))
    cluster.start(node_id)
    await until(lambda: not cluster.nodes[node_id].running, PATIENCE_S, f"{node_id} to give up")
    said = cluster.log(node_id)[before:]
    assert "Traceback" not in said, said
    status = cluster.nodes[node_id].exit_status
    assert status is not None
    return status, said.splitlines()[-1]


@pytest.mark.parametrize("which", ["port", "http_port"])
async def test_a_port_in_use_is_named(clusters: Clusters, which: str) -> None:
    cluster = await clusters.adopt(clusters.config(1))
    port = getattr(cluster.settings.nodes[0], which)
    with socket.create_server(("127.0.0.1", port)):
        status, line = await refused(cluster)
    assert status == LISTEN
    assert f"127.0.0.1:{port}" in line
    cluster.start()
    await cluster.settled()  # the port is free again, and so is the directory


async def test_a_data_directory_in_use_is_refused(clusters: Clusters) -> None:
    cluster = await clusters.start(1)
    directory = cluster.settings.nodes[0].data_dir
    other_config = clusters.config(1, "other", cluster_id=cluster.settings.cluster_id)
    second = await clusters.adopt(
        edited(other_config, lambda keys: keys["nodes"][0].update(data_dir=str(directory)))
    )
    status, line = await refused(second)
    assert status == STORAGE
    assert f"in use by the process {cluster.nodes['n1'].pid}" in line
    assert (await ask(cluster, "n1", "/v1/streams/s/events", greeting()))[0] == 201


async def test_another_cluster_s_directory_is_refused_and_left_alone(clusters: Clusters) -> None:
    first = await clusters.start(1)
    assert await end(first, "n1") == 0
    directory = first.settings.nodes[0].data_dir
    before = content(directory)
    second = await clusters.adopt(
        edited(clusters.config(1, "other"), lambda keys: keys["nodes"][0].update(data_dir=str(directory)))
    )
    status, line = await refused(second)
    assert status == STORAGE
    assert "belongs to cluster" in line
    assert content(directory) == before


async def test_another_node_s_directory_is_refused(clusters: Clusters) -> None:
    cluster = await clusters.start(3)
    for node_id in cluster.ids:
        assert await end(cluster, node_id) == 0

    def swap(keys: dict[str, Any]) -> None:
        one, two, _ = keys["nodes"]
        one["data_dir"], two["data_dir"] = two["data_dir"], one["data_dir"]

    before = content(cluster.settings.node("n2").data_dir)
    status, line = await refused(await clusters.adopt(edited(cluster.config, swap)))
    assert status == STORAGE
    assert "belongs to node 'n2', not 'n1'" in line
    assert content(cluster.settings.node("n2").data_dir) == before


async def test_a_directory_of_a_newer_version_is_refused_and_left_alone(clusters: Clusters) -> None:
    cluster = await clusters.start(1)
    assert await end(cluster, "n1") == 0
    directory = cluster.settings.nodes[0].data_dir
    mark = directory / "FORMAT"
    mark.write_text(json.dumps({**json.loads(mark.read_text()), "format": 99}))
    before = content(directory)
    status, line = await refused(cluster)
    assert status == STORAGE
    assert "format 99" in line
    assert content(directory) == before


@pytest.mark.parametrize("obstacle", ["a file", "a directory with something else in it"])
async def test_what_is_not_a_data_directory_is_refused_and_left_alone(
    clusters: Clusters, obstacle: str
) -> None:
    cluster = await clusters.adopt(clusters.config(1))
    directory = cluster.settings.nodes[0].data_dir
    if obstacle == "a file":
        directory.write_text("precious")
        precious = directory
    else:
        directory.mkdir()
        precious = directory / "thesis.txt"
        precious.write_text("precious")
    status, line = await refused(cluster)
    assert status == STORAGE
    assert str(directory) in line
    assert precious.read_text() == "precious"


async def test_a_client_with_another_secret_is_refused(clusters: Clusters) -> None:
    cluster = await clusters.start(1)
    with pytest.raises(ConnectionRefused, match="secret"):
        async with Client(cluster.addresses, secret="not-the-secret"):
            pass
    async with Client(cluster.addresses, secret=CLIENT_SECRET) as client:
        assert (await client.cluster())["node"] == "n1"


async def test_a_client_of_another_cluster_is_refused(clusters: Clusters) -> None:
    cluster = await clusters.start(1)
    with pytest.raises(ConnectionRefused, match="cluster"):
        async with Client(
            cluster.addresses, secret=CLIENT_SECRET, cluster_id="00000000-0000-4000-8000-000000000000"
        ):
            pass


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda keys: keys.update(secret="another-secret"), "secret"),
        (lambda keys: keys.update(cluster_name="strangers"), "cluster"),
    ],
    ids=["another secret", "another cluster"],
)
async def test_a_node_that_does_not_belong_is_kept_out_and_the_others_go_on(
    clusters: Clusters, change: Callable[[dict[str, Any]], None], word: str
) -> None:
    cluster = await clusters.start(3)
    assert await end(cluster, "n3") == 0

    def stranger(keys: dict[str, Any]) -> None:
        change(keys)
        keys["nodes"][2]["data_dir"] += "-of-a-stranger"

    strangers = await clusters.adopt(edited(cluster.config, stranger))
    said_before = len(cluster.log("n3"))
    strangers.start("n3")

    async def complains() -> bool:
        return f"wrong_{word}" in strangers.log("n3")[said_before:]

    await wait_for(strangers, complains, "the stranger to say why it is refused")
    assert not await strangers.is_ready("n3")
    for node_id in ("n1", "n2"):
        for number in range(8):
            status, _ = await ask(cluster, node_id, f"/v1/streams/on-{node_id}-{number}/events", greeting())
            assert status == 201
    picture = await cluster.picture("n1")
    assert picture is not None
    assert {node.id: node.state for node in picture.nodes}["n3"] == "down"
    strangers.kill("n3")
    cluster.start("n3")
    await cluster.settled()


async def test_a_wiped_node_is_not_taken_for_the_one_that_promised(clusters: Clusters) -> None:
    cluster = await clusters.start(3)
    assert (await ask(cluster, "n1", "/v1/streams/s/events", greeting("kept")))[0] == 201
    cluster.kill("n3")
    directory = cluster.settings.node("n3").data_dir
    directory.rename(directory.with_name("n3-lost"))
    said_before = len(cluster.log("n3"))
    cluster.start("n3")

    async def complains() -> bool:
        return "identity" in cluster.log("n3")[said_before:]

    await wait_for(cluster, complains, "the wiped node to say that it is another one now")
    assert not await cluster.is_ready("n3")
    status, page = await ask(cluster, "n1", "/v1/streams/s/events")
    assert (status, [event["data"]["text"] for event in page["events"]]) == (200, ["kept"])
