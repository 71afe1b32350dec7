"""Keeps one connection to every node: dials, waits until it ends, waits a little, dials again.

The first retry comes almost at once, because the common reason is a node that restarts or a path that
blinked; a node that stays away is asked less and less often, up to twice a second.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable, Mapping

from allsource.client.cluster_map import Address
from allsource.client.connection import HANDSHAKE_TIMEOUT_S, AlreadyConnected, Listener, NodeConnection
from allsource.cluster.protocol.handshake import DiallerConfig

_RETRY_FIRST_S = 0.01
_RETRY_MAX_S = 0.5


class Dialler:
    """Dials addresses until it is closed. `failures` tells why each address cannot be reached now;
    `on_failure` is called for each new one."""

    def __init__(self, config: DiallerConfig, listener: Listener, on_failure: Callable[[], None]) -> None:
        self._config = config
        self._listener = listener
        self._on_failure = on_failure
        self._tasks: dict[Address, asyncio.Task[None]] = {}
        self._connections: dict[Address, NodeConnection] = {}
        self.failures: dict[Address, Exception] = {}

    def dial(self, addresses: Iterable[Address]) -> None:
        """Keep a connection to each of these too."""
        for address in addresses:
            if address not in self._tasks:
                self._tasks[address] = asyncio.create_task(self._keep(address))

    def dial_members(self, addresses: Mapping[str, Address]) -> None:
        """Dial the members that are not connected yet, under whatever address."""
        connected = {connection.node_id for connection in self._connections.values()}
        self.dial(address for node_id, address in addresses.items() if node_id not in connected)

    async def close(self) -> None:
        """End every connection and stop dialling."""
        tasks, endings = list(self._tasks.values()), [c.closed for c in self._connections.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, *endings, return_exceptions=True)
        self._tasks.clear()

    async def _keep(self, address: Address) -> None:
        wait_s = _RETRY_FIRST_S
        while True:
            connection = await self._once(address)
            if isinstance(self.failures.get(address), AlreadyConnected):
                del self._tasks[address]
                return
            if connection.welcome is not None:
                wait_s = _RETRY_FIRST_S
            await asyncio.sleep(wait_s * (0.5 + random.random()))
            wait_s = min(_RETRY_MAX_S, 2 * wait_s)

    async def _once(self, address: Address) -> NodeConnection:
        """One connection from beginning to end."""
        connection = NodeConnection(self._config, self._listener)
        self._connections[address] = connection
        try:
            await self._open(connection, address)
            self._failed(address, await connection.closed)
        finally:
            connection.close()
            del self._connections[address]
        return connection

    async def _open(self, connection: NodeConnection, address: Address) -> None:
        try:
            async with asyncio.timeout(HANDSHAKE_TIMEOUT_S):
                await asyncio.get_running_loop().create_connection(lambda: connection, *address)
        except (
            OSError,
            ValueError,
        ) as error:  # refused, unreachable, unknown or impossible host, TimeoutError
            connection.close(error)

    def _failed(self, address: Address, why: Exception) -> None:
        self.failures[address] = why
        self._on_failure()
