"""A whole cluster as child processes of this one: for the drills, the benchmark and the integration tests.

`ClusterProcess` knows how to start nodes, hurt them and ask them how they are, through the same files,
signals and HTTP answers that an operator has. What happened is for its callers to judge.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import aiohttp
import click
import yaml

from allsource.cluster.membership.placement import ReplicaSets, replica_sets
from allsource.config.load import load_settings
from allsource.config.schema import Settings
from allsource.node.cli.control.picture import ClusterPicture
from allsource.node.cli.control.ports import LOOPBACK, free_ports
from allsource.node.cli.control.processes import NodeProcess, kill_all, node_command, stop_all

READY_TIMEOUT_S = 60.0
"""For a whole cluster to start on a busy machine; nothing waits this long unless something is wrong."""

_POLL_S = 0.02
_STOP_GRACE_S = 10.0
_HTTP_TIMEOUT = aiohttp.ClientTimeout(total=10)


class ClusterFault(click.ClickException):
    """The cluster did not do what was waited for; the message says what, and what its log said last."""


class Node(Protocol):
    """What can be done to a node's process; see `processes.NodeProcess`."""

    node_id: str

    @property
    def pid(self) -> int: ...

    @property
    def running(self) -> bool: ...

    @property
    def exit_status(self) -> int | None: ...

    def start(self) -> None: ...

    def kill(self) -> None: ...

    def reap(self) -> None: ...

    def terminate(self) -> None: ...

    def pause(self) -> None: ...

    def resume(self) -> None: ...

    def cpu_seconds(self) -> float: ...


def write_config(directory: Path, node_ids: list[str], **settings: Any) -> Path:
    """Write `directory/cluster.yaml`: these nodes on free loopback ports, their data in `directory`."""
    ports = free_ports(2 * len(node_ids))
    nodes = [
        {
            "id": node_id,
            "host": LOOPBACK,
            "port": ports.pop(),
            "http_port": ports.pop(),
            "data_dir": str(directory / node_id),
        }
        for node_id in node_ids
    ]
    path = directory / "cluster.yaml"
    path.touch(mode=0o600)
    path.write_text(yaml.safe_dump({**settings, "nodes": nodes}, sort_keys=False))
    return path


class ClusterProcess:
    """The nodes of one configuration file. An async context: leaving it ends every process."""

    def __init__(self, config: Path, *, nodes: dict[str, Node] | None = None) -> None:
        """`nodes`: processes that somebody else started; by default new ones, that log beside the file."""
        self.config = config
        self.settings: Settings = load_settings(config)
        self._adopted = nodes is not None
        self._gone: set[str] = set()
        self.nodes: dict[str, Node] = nodes if nodes is not None else self._own_nodes()
        self._http: aiohttp.ClientSession | None = None

    def _own_nodes(self) -> dict[str, Node]:
        return {
            node.id: NodeProcess(
                node.id, node_command(self.config, node.id), output=self._log_path(node.id)
            )
            for node in self.settings.nodes
        }

    def _log_path(self, node_id: str) -> Path:
        return self.config.parent / f"{node_id}.log"

    async def __aenter__(self) -> ClusterProcess:
        self._http = aiohttp.ClientSession(timeout=_HTTP_TIMEOUT)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.http.close()
        if not self._adopted:
            kill_all(list(self.nodes.values()))

    @property
    def http(self) -> aiohttp.ClientSession:
        """A session for requests to the nodes' HTTP doors."""
        assert self._http is not None, "use the cluster as an async context"
        return self._http

    @property
    def ids(self) -> list[str]:
        """The node ids in the order of the file."""
        return [node.id for node in self.settings.nodes]

    @property
    def present(self) -> list[str]:
        """Those of them that were not lost for good."""
        return [node_id for node_id in self.ids if node_id not in self._gone]

    @property
    def addresses(self) -> list[str]:
        """`host:port` of the peer protocol, for clients."""
        return [f"{node.host}:{node.port}" for node in self.settings.nodes]

    def url(self, node_id: str, path: str = "") -> str:
        """The address of something behind a node's HTTP door."""
        node = self.settings.node(node_id)
        return f"http://{node.host}:{node.http_port}{path}"

    def replicas(self) -> ReplicaSets:
        """Who keeps each partition; the first of each is its preferred owner."""
        return replica_sets(self.ids, self.settings.partitions, self.settings.replication_factor)

    def log(self, node_id: str) -> str:
        """All that a node of ours has said."""
        path = self._log_path(node_id)
        return path.read_text(errors="replace") if path.exists() else ""

    # -- doing

    def start(self, *node_ids: str) -> None:
        """Start these nodes (all, if none is named)."""
        for node_id in node_ids or self.ids:
            self.nodes[node_id].start()

    def kill(self, *node_ids: str) -> None:
        """`kill -9` of these nodes (all, if none is named) at once."""
        kill_all([self.nodes[node_id] for node_id in node_ids or self.ids])

    def lose(self, *node_ids: str) -> None:
        """These nodes will not be started again: nothing waits for them from now on."""
        self._gone.update(node_ids)

    async def start_all(self) -> None:
        """Start every node and wait until the cluster serves as it should."""
        self.start()
        await self.settled()

    async def stop(self) -> list[str]:
        """Stop all nodes in order; the ids of those that had to be killed."""
        own = [node for node in self.nodes.values() if isinstance(node, NodeProcess)]
        return await stop_all(own, _STOP_GRACE_S)

    # -- asking

    async def get(self, node_id: str, path: str) -> tuple[int, Any] | None:
        """Status and JSON of a GET at a node; None if it does not answer."""
        try:
            async with self.http.get(self.url(node_id, path)) as response:
                return response.status, await response.json()
        except (aiohttp.ClientError, TimeoutError, OSError):
            return None

    async def is_ready(self, node_id: str) -> bool:
        """Whether the node says that it is ready."""
        answer = await self.get(node_id, "/health/ready")
        return answer is not None and answer[0] == 200

    async def picture(self, node_id: str) -> ClusterPicture | None:
        """The cluster as this node sees it; None if it does not answer."""
        answer = await self.get(node_id, "/v1/cluster")
        return ClusterPicture.read(answer[1]) if answer is not None and answer[0] == 200 else None

    # -- waiting

    async def until(
        self, condition: Callable[[], Awaitable[bool]], what: str, timeout_s: float = READY_TIMEOUT_S
    ) -> float:
        """Wait for a condition; how long it took, in seconds. Raises `ClusterFault`."""
        started = time.monotonic()
        while not await condition():
            if time.monotonic() - started > timeout_s:
                raise ClusterFault(f"waited {timeout_s:g} s for {what}{self._last_words()}")
            await asyncio.sleep(_POLL_S)
        return time.monotonic() - started

    def _last_words(self) -> str:
        tails = [(node_id, self.log(node_id).splitlines()[-3:]) for node_id in self.ids]
        return "".join(f"\n  {node_id}: {line}" for node_id, lines in tails for line in lines)

    async def ready(self, *node_ids: str, timeout_s: float = READY_TIMEOUT_S) -> float:
        """Wait until these nodes (all present) are ready; one that ends meanwhile is a `ClusterFault`."""
        wanted = node_ids or tuple(self.present)

        async def condition() -> bool:
            for node_id in wanted:
                if not self.nodes[node_id].running:
                    status = self.nodes[node_id].exit_status
                    raise ClusterFault(f"{node_id} ended while starting: {status}{self._last_words()}")
            return all(await asyncio.gather(*[self.is_ready(node_id) for node_id in wanted]))

        return await self.until(condition, f"{', '.join(wanted)} to be ready", timeout_s)

    async def ended(self, *node_ids: str) -> None:
        """Wait until the processes of these nodes are gone. Raises `ClusterFault`."""

        async def condition() -> bool:
            return not any(self.nodes[node_id].running for node_id in node_ids)

        await self.until(condition, f"{', '.join(node_ids)} to end", _STOP_GRACE_S)

    async def settled(self, timeout_s: float = READY_TIMEOUT_S) -> float:
        """Wait until every node is ready and sees every partition with its preferred owner, or, where that
        one was killed for good, with the same other one as every node."""
        preferred = [group[0] for group in self.replicas()]
        taken = await self.ready(timeout_s=timeout_s)

        async def condition() -> bool:
            pictures = await asyncio.gather(*[self.picture(node_id) for node_id in self.present])
            owners = {picture.owners() if picture is not None else () for picture in pictures}
            return len(owners) == 1 and all(map(self._is_placed, owners.pop(), preferred))

        return taken + await self.until(condition, "each partition to be with its owner", timeout_s)

    def _is_placed(self, owner: str | None, preferred: str) -> bool:
        return owner == preferred if preferred in self.present else owner in self.present

    async def caught_up(self, node_id: str, timeout_s: float = READY_TIMEOUT_S) -> float:
        """Wait until the node's replicas hold all that was committed when this was called.

        The mark is the highest commit index that any other replica knows of, for each partition.
        """
        others = [other for other in self.present if other != node_id]
        pictures = [p for p in await asyncio.gather(*[self.picture(other) for other in others]) if p]
        mark = [
            max((p.partitions[i].commit_index for p in pictures), default=0)
            for i in range(self.settings.partitions)
        ]
        hosted = [i for i, group in enumerate(self.replicas()) if node_id in group]

        async def condition() -> bool:
            picture = await self.picture(node_id)
            return picture is not None and all(
                picture.partitions[i].commit_index >= mark[i] for i in hosted
            )

        return await self.until(condition, f"{node_id} to catch up", timeout_s)
