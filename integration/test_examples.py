"""Every program in `examples/` runs as it stands, against a real cluster, and says what it should."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from pathlib import Path

import pytest

from allsource.node.cli.control.cluster import ClusterProcess
from integration.harness import CLIENT_SECRET, PATIENCE_S, Clusters
from tests.examples import README

EXAMPLES = README.parent / "examples"


async def start(program: list[str | Path], **environment: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *program,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, "ALLSOURCE_SECRET": CLIENT_SECRET, **environment},
    )


async def output(process: asyncio.subprocess.Process) -> str:
    """All that it has still to say; it must end well."""
    async with asyncio.timeout(PATIENCE_S):
        said, _ = await process.communicate()
    assert process.returncode == 0, said.decode()
    return said.decode()


async def run(name: str, cluster: ClusterProcess) -> str:
    return await output(await start([sys.executable, EXAMPLES / name, *cluster.addresses]))


async def test_the_examples_say_what_they_should(clusters: Clusters) -> None:
    cluster = await clusters.start(1)
    assert await run("append.py", cluster) == (
        "2 of 3 guests have got their seat\nreserved are A1, A2; the show is at version 2\n"
    )
    assert await run("account.py", cluster) == (
        "60 withdrawn\nrefused: 60 are more than the 40 that are left\nbalance 40, version 2\n"
    )
    assert await run("follow.py", cluster) == (
        "1 {'celsius': 21}\n2 {'celsius': 22}\n3 {'celsius': 23}\n"
        "stopped at version 3, and goes on from there:\n4 {'celsius': 24}\n5 {'celsius': 25}\n"
    )
    assert await run("projection.py", cluster) == "10 orders since the first look\n"
    assert await run("threads.py", cluster) == (
        "versions 1 to 100, 100 different ones\n100 notes in journal-\n"
    )
    address = cluster.url("n1").removeprefix("http://")
    said = await output(await start(["sh", EXAMPLES / "curl.sh", address]))
    assert re.findall(r"^\d{3}$", said, re.MULTILINE) == ["201", "200", "409"], said
    assert '"type":"OrderPlaced"' in said.splitlines()[-1]


async def test_a_client_goes_on_when_a_node_dies(clusters: Clusters) -> None:
    cluster = await clusters.start(3)
    program = [sys.executable, EXAMPLES / "failover.py", *cluster.addresses]
    process = await start(program, SECONDS="3")
    assert process.stdout is not None
    async with asyncio.timeout(PATIENCE_S):
        assert b"kill a node now" in await process.stdout.readline()
    cluster.kill("n2")
    said = await output(process)
    assert int(said.split(" appends acknowledged")[0].split()[-1]) > 100
    assert said.endswith("all of them are there, in order, once\n")


EMBEDDED = """\
version 2, of which 2 are stored
refused: expected 2, got 3
1 OrderPlaced {'total': 42}
2 OrderPaid {'by': 'card'}
3 OrderShipped None
['order-1', 'order-2']
['order-1', 'order-2']
"""


@pytest.mark.parametrize("backend", ["memory", "rocksdb"])
async def test_the_store_without_a_cluster(tmp_path: Path, backend: str) -> None:
    address = {"memory": "memory://", "rocksdb": f"rocksdb://{tmp_path}/shop"}[backend]
    assert await output(await start([sys.executable, EXAMPLES / "embedded.py", address])) == EMBEDDED


def test_the_page_lists_every_example() -> None:
    """One that no test here runs is a promise that nobody keeps."""
    listed = set(
        re.findall(r"^\| \[([\w.]+)\]\(\1\) \|", (EXAMPLES / "README.md").read_text(), re.MULTILINE)
    )
    files = {path.name for path in EXAMPLES.iterdir()} - {"README.md"}
    assert listed == files
    tested = Path(__file__).read_text()
    assert all(f'"{name}"' in tested for name in files)
