"""The README's quick start and clusters, run as they stand; its other examples: `tests/storage`."""

from __future__ import annotations

import json
import re
import shlex
import sys
from pathlib import Path

import pytest
import yaml

from allsource.node.cli.app import cli
from allsource.node.cli.control.cluster import ClusterProcess
from allsource.node.cli.control.scratch import copy_config
from allsource.node.cli.targets import DEFAULT_CONFIG
from integration.harness import Clusters, ask, greeting, needs_curl, shell
from integration.test_command_line import ALLSOURCE, launched
from tests.examples import README, commands, fenced, replaced
from tests.storage.postgres_server import PostgresServer

TEXT = README.read_text()
ROOT = README.parent


def block(language: str, holding: str) -> str:
    """The one block of the README that holds these words."""
    (found,) = (one for one in fenced(TEXT, language) if holding in one)
    return found


@needs_curl
async def test_the_quick_start(clusters: Clusters, tmp_path: Path) -> None:
    assert block("sh", "scripts/launch") == f"scripts/launch {DEFAULT_CONFIG}\n"
    config = copy_config(ROOT / DEFAULT_CONFIG, tmp_path)  # the same on free ports, elsewhere
    cluster = await clusters.adopt(config)
    nodes = cluster.settings.nodes
    curls = block("sh", "curl -s")
    program = block("python", "Client(")
    for number, node in enumerate(nodes, 1):
        curls = replaced(curls, {f"localhost:810{number}": f"127.0.0.1:{node.http_port}"})
        program = replaced(program, {f"127.0.0.1:710{number}": f"127.0.0.1:{node.port}"})

    async with launched(config) as launch:
        await launch.until(lambda: bool(launch.told("ready")), "the cluster to be ready")
        placed, read, conflict, view = [json.loads(await shell(line, tmp_path)) for line in commands(curls)]
        assert (placed["stream"], placed["first_version"]) == ("order-1", 1)
        assert [event["data"] for event in read["events"]] == [{"total": 42}]
        assert (conflict["error"], conflict["actual"]) == ("wrong_expected_version", 1)
        assert [node["state"] for node in view["nodes"]] == ["up"] * 3
        (tmp_path / "client.py").write_text(program)
        said = await shell(f"{sys.executable} client.py", tmp_path)
        assert said == "1 OrderPlaced {'total': 42}\n2 OrderPaid {'by': 'card'}\n"


async def test_the_drill_of_the_quick_start(tmp_path: Path) -> None:
    line = replaced(
        block("sh", "drill"),
        {".venv/bin/allsource": shlex.join(ALLSOURCE), "--rounds 5": "--rounds 1"},
    )
    (tmp_path / "config").symlink_to(ROOT / "config")
    said = await shell(line, tmp_path)
    assert said.splitlines()[-1].startswith("PASSED: 1 round of kill-node on 3 nodes with rocksdb")


@pytest.mark.parametrize("storage", fenced(TEXT, "yaml"))
async def test_the_nodes_of_a_cluster_keep_their_shares_in_each_backend(
    clusters: Clusters, storage: str, request: pytest.FixtureRequest
) -> None:
    if "postgres" in storage:
        server: PostgresServer = request.getfixturevalue("server")
        storage = replaced(storage, {"postgresql://user:password@localhost/shop": server.dsn})
    cluster = await clusters.start(3, **yaml.safe_load(storage))
    await _serves(cluster)
    backend = yaml.safe_load(storage)["storage"]["backend"]
    assert (await ask(cluster, "n1", "/v1/cluster"))[1]["storage"] == backend


async def _serves(cluster: ClusterProcess) -> None:
    for node_id in cluster.ids:
        path = f"/v1/streams/on-{node_id}/events"
        assert (await ask(cluster, node_id, path, greeting("kept")))[0] == 201
        for other in cluster.ids:
            status, page = await ask(cluster, other, path)
            assert (status, [event["data"]["text"] for event in page["events"]]) == (200, ["kept"])


def test_there_is_an_example_for_each_backend() -> None:
    backends = [yaml.safe_load(one)["storage"]["backend"] for one in fenced(TEXT, "yaml")]
    assert sorted(backends) == ["memory", "postgres", "rocksdb"]


def test_each_block_is_run_by_a_test() -> None:
    """A block that nobody runs is a promise that nobody keeps: name its test here."""
    first_lines = [one.splitlines()[0] for kind in ("sh", "python", "sql") for one in fenced(TEXT, kind)]
    assert [line.split("  ")[0] for line in first_lines] == [
        "scripts/launch config/three-nodes.yaml",
        "curl -s localhost:8101/v1/streams/order-1/events -H content-type:application/json"
        ' -d \'{"expected_version": "no_stream",',
        ".venv/bin/allsource drill kill-node --rounds 5",
        "python orders.py memory://",
        "scripts/test",
        "import asyncio",
        "import asyncio",
        "SELECT stream_id, version, event_type, payload ->> 'total' AS total FROM allsource.events;",
    ]


def test_the_table_names_commands_that_exist() -> None:
    table = TEXT[TEXT.index("## Commands") : TEXT.index("## Figures")]
    named = {words.split()[0] for words in re.findall(r"^\| `allsource ([^`]+)`", table, re.MULTILINE)}
    assert named <= set(cli.list_commands(None))  # type: ignore[arg-type]
    assert len(named) >= 7
