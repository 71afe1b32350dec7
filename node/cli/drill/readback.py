"""Reading everything back: each partition from its owner, and from each of its replicas alone.

The client library sends a read wherever it can be answered. Here it matters *who* answers, so these
reads go to one node over a connection of their own: the same frames, nothing in between.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from contextlib import AsyncExitStack
from types import TracebackType
from typing import NamedTuple

from allsource.cluster.protocol.handshake import DiallerConfig
from allsource.cluster.protocol.requests import PartitionPage, ReadPartition, Result
from allsource.cluster.protocol.session import ClientSession, Established, Results
from allsource.node.cli.control.cluster import ClusterFault, ClusterProcess
from allsource.node.cli.drill.checks import Fault, Log, compare
from allsource.storage.model.errors import AllsourceError
from allsource.storage.model.events import Event

_PAGE = 5_000
_TIMEOUT_MS = 10_000
_CHUNK = 1 << 18


class DirectReader:
    """One node and one question at a time. An async context."""

    def __init__(self, host: str, port: int, secret: str, cluster_id: str) -> None:
        self._address = (host, port)
        self._session = ClientSession(DiallerConfig.client(secret, cluster_id=cluster_id), os.urandom(32))
        self._asked = 0

    async def __aenter__(self) -> DirectReader:
        self._reader, self._writer = await asyncio.open_connection(*self._address)
        while not any(isinstance(event, Established) for event in await self._exchange()):
            pass
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.close()
        await self._writer.wait_closed()

    async def log(self, partition: int, *, local: bool) -> list[Event]:
        """All events of a partition as this node has them (`local`), or as its owner has."""
        found: list[Event] = []
        position = 1
        while True:
            page = await self._ask(ReadPartition(partition, position, _PAGE, local))
            assert isinstance(page, PartitionPage)
            found += page.events()
            if page.next_from > page.last_position:
                return found
            position = page.next_from

    async def _ask(self, request: ReadPartition) -> Result:
        self._asked += 1
        self._session.request(self._asked, _TIMEOUT_MS, request)
        while True:
            for event in await self._exchange():
                if isinstance(event, Results):
                    ((_, result),) = event.items
                    if isinstance(result, AllsourceError):
                        raise result
                    return result

    async def _exchange(self) -> list[object]:
        """Send what is queued, and take what comes next."""
        self._writer.writelines(self._session.take())
        async with asyncio.timeout(_TIMEOUT_MS / 1000):
            data = await self._reader.read(_CHUNK)
        if not data:
            raise ClusterFault(f"{self._address[0]}:{self._address[1]} closed the connection")
        return list(self._session.receive(data))


class Copies(NamedTuple):
    """What reading back brought."""

    logs: Mapping[int, Log]
    """The events of each partition as its owner has them."""
    compared: int
    """How many copies were held against each other."""
    faults: list[Fault]
    """Copies that differ."""


async def read_back(cluster: ClusterProcess) -> Copies:
    """Read every partition linearizably, and locally from each of its replicas, and compare.

    Nobody may write meanwhile, and every replica must have caught up, except those that are gone for good.
    """
    readers = {}
    async with AsyncExitStack() as closing:
        settings = cluster.settings
        for node in map(settings.node, cluster.present):
            reader = DirectReader(node.host, node.port, settings.client_secret, settings.cluster_id)
            readers[node.id] = await closing.enter_async_context(reader)
        logs: dict[int, Log] = {}
        faults: list[Fault] = []
        compared = 0
        for partition, replicas in enumerate(cluster.replicas()):
            group = [node for node in replicas if node in readers]
            logs[partition] = await readers[group[0]].log(partition, local=False)
            copies = {node: await readers[node].log(partition, local=True) for node in group}
            faults += compare(partition, {"the owner": logs[partition], **copies})
            compared += len(copies) + 1
        return Copies(logs, compared, faults)
