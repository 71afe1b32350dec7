"""Real clusters for stories: real processes, sockets, signals and disks, on free loopback ports.

The machinery is the drill's (`allsource.node.cli`): what is tried here is what users run. A story starts
a cluster with the `clusters` fixture, hurts it, and looks at it through HTTP and the client library.
"""

from __future__ import annotations

import asyncio
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from allsource.client import Client
from allsource.node.cli.control.cluster import ClusterProcess, write_config
from allsource.node.cli.control.processes import NodeProcess, stop_all, until
from allsource.node.cli.drill.checks import Fault, judge
from allsource.node.cli.drill.history import History
from allsource.node.cli.drill.readback import read_back
from allsource.node.cli.drill.writers import Clock, Writers

SECRET = "integration-secret"
CLIENT_SECRET = "integration-secret-of-clients"
PATIENCE_S = 90.0
"""Far more than anything here takes; a story that reaches it fails."""
DEADLINE_S = 2 * PATIENCE_S
"""The deadline of all requests in stories. Whatever waits for it is too late for the story, however fast
the machine is; whatever does not is in time, however busy it is."""

Answer = tuple[int, Any]
"""Status and JSON."""

needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")


class Clusters:
    """Starts clusters for one test and ends them with it."""

    def __init__(self, directory: Path, stack: AsyncExitStack) -> None:
        self._directory = directory
        self._stack = stack
        self.pids: set[int] = set()

    def config(self, nodes: int, name: str = "stories", **settings: Any) -> Path:
        """The file of a cluster of `n1`, `n2`, ... in a directory of its own."""
        directory = self._directory / name
        directory.mkdir()
        settings.setdefault("limits", {"request_timeout": f"{int(DEADLINE_S)}s"})
        ids = [f"n{number}" for number in range(1, nodes + 1)]
        return write_config(
            directory, ids, cluster_name=name, secret=SECRET, client_secret=CLIENT_SECRET, **settings
        )

    async def adopt(self, config: Path) -> ClusterProcess:
        """The cluster of a file, not started yet; its processes end with the test."""
        return await self._stack.enter_async_context(ClusterProcess(config))

    async def start(self, nodes: int, name: str = "stories", **settings: Any) -> ClusterProcess:
        """A cluster that serves as it should."""
        cluster = await self.adopt(self.config(nodes, name, **settings))
        await cluster.start_all()
        return cluster


async def ask(cluster: ClusterProcess, node_id: str, path: str, body: Any = None) -> Answer:
    """One request to one node, as curl would make it: a POST if there is a body."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    data = None if body is None else io.BytesIO(raw)  # aiohttp warns of large bodies as bytes
    url = cluster.url(node_id, path)
    method, headers = ("GET", None) if body is None else ("POST", {"Content-Type": "application/json"})
    patience = aiohttp.ClientTimeout(total=PATIENCE_S)
    async with cluster.http.request(method, url, data=data, headers=headers, timeout=patience) as response:
        return response.status, await response.json()


def greeting(text: str = "hello", **more: Any) -> dict[str, Any]:
    """The body of an append of one event; `expected_version` and `id` may be given."""
    event = {"type": "Greeted", "data": {"text": text}}
    if "id" in more:
        event["id"] = more.pop("id")
    return {"expected_version": "any", "events": [event], **more}


async def shell(line: str, directory: Path, **environment: str) -> str:
    """What a command prints; it must succeed. `allsource` is on its `PATH`."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = await asyncio.to_thread(
        subprocess.run, ["sh", "-c", line], cwd=directory, capture_output=True, text=True, timeout=280,
        check=False, env={**os.environ, "PATH": path, "TMPDIR": str(directory), **environment},
    )  # fmt: skip
    assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
    return done.stdout


async def wait_for(cluster: ClusterProcess, condition: Callable[[], Any], what: str) -> None:
    """Wait for an asynchronous condition."""
    await cluster.until(condition, what, PATIENCE_S)


async def end(cluster: ClusterProcess, node_id: str) -> int:
    """SIGTERM to a node, and its exit status."""
    node = cluster.nodes[node_id]
    node.terminate()
    await until(lambda: not node.running, PATIENCE_S, f"{node_id} to end")
    assert isinstance(node, NodeProcess)
    assert node.exit_status is not None
    return node.exit_status


@asynccontextmanager
async def written_to(
    cluster: ClusterProcess, seed: int = 1, pause_s: float = 0.04
) -> AsyncIterator[Writers]:
    """Keep the drill's writers at work on every partition. None of their appends ends by its deadline: one
    whose outcome is unknown was lost with a connection."""
    client = Client(
        cluster.addresses,
        secret=cluster.settings.client_secret,
        cluster_id=cluster.settings.cluster_id,
        timeout_s=DEADLINE_S,
    )
    async with client:
        writers = Writers(
            client,
            partitions=cluster.settings.partitions,
            run="story",
            seed=seed,
            clock=Clock(),
            pause_s=pause_s,
        )
        writers.start()
        assert await writers.all_accept(-1.0, PATIENCE_S) == []
        try:
            yield writers
        finally:
            await writers.stop()


async def faults(cluster: ClusterProcess, history: History) -> list[Fault]:
    """Read everything back from every replica and hold it against what the writers were told."""
    for node_id in cluster.ids:
        await cluster.caught_up(node_id, PATIENCE_S)
    copies = await read_back(cluster)
    assert sum(map(len, copies.logs.values())) > 0
    return [*copies.faults, *judge(history, copies.logs)]


__all__ = [
    "CLIENT_SECRET",
    "DEADLINE_S",
    "PATIENCE_S",
    "Clusters",
    "ask",
    "end",
    "faults",
    "greeting",
    "needs_curl",
    "shell",
    "stop_all",
    "wait_for",
    "written_to",
]
