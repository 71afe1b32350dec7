"""Keeps one connection to every node: dials, and dials again when it has ended.

How that goes is the same as between nodes (`cluster.sockets.dialling`); only the first answer may take
longer, since clients may be far away.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable, Mapping

from allsource.client.cluster_map import Address
from allsource.client.connection import AlreadyConnected, Listener, NodeConnection
from allsource.cluster.protocol.handshake import DiallerConfig
from allsource.cluster.sockets.dialling import Dialling, Manner

CONNECT_TIMEOUT_S = 5.0


class Dialler:
    """Dials addresses until it is closed. `failures` tells why each address cannot be reached now;
    `on_failure` is called for each new one."""

    def __init__(self, config: DiallerConfig, listener: Listener, on_failure: Callable[[], None]) -> None:
        self.config = config
        self.listener = listener
        self._on_failure = on_failure
        self._lines: dict[Address, _Line] = {}
        self.failures: dict[Address, Exception] = {}

    def dial(self, addresses: Iterable[Address]) -> None:
        """Keep a connection to each of these too."""
        for address in addresses:
            if address not in self._lines:
                self._lines[address] = _Line(self, address)

    def dial_members(self, addresses: Mapping[str, Address]) -> None:
        """Dial the members that are not connected yet, under whatever address."""
        connected = {line.node_id for line in self._lines.values()}
        self.dial(address for node_id, address in addresses.items() if node_id not in connected)

    async def close(self) -> None:
        """End every connection and stop dialling."""
        await asyncio.gather(*[line.close() for line in self._lines.values()])
        self._lines.clear()

    # -- called by lines

    def failed(self, address: Address, why: Exception) -> None:
        """An attempt came to nothing, or a connection has ended."""
        self.failures[address] = why
        if isinstance(why, AlreadyConnected):
            self._lines.pop(address, None)
        self._on_failure()


class _Line:
    """One address, and the connection to it while there is one."""

    def __init__(self, dialler: Dialler, address: Address) -> None:
        self._dialler = dialler
        self._address = address
        self._loop = asyncio.get_running_loop()
        self._opened_at = 0.0
        self._closed = False
        self._gone = asyncio.Event()
        self._dialling: Dialling[NodeConnection] = Dialling(
            address, self._make, self._failed, Manner(random.random, CONNECT_TIMEOUT_S)
        )
        self._dialling.dial()

    @property
    def node_id(self) -> str:
        """The node that is connected, or nothing."""
        connection = self._dialling.trying
        return connection.node_id if connection is not None else ""

    async def close(self) -> None:
        """Hang up and dial no more; the socket is closed afterwards."""
        self._closed = True
        await self._dialling.stop()
        if self._dialling.trying is not None:
            self._dialling.trying.drop()
            await self._gone.wait()

    def _make(self) -> NodeConnection:
        return NodeConnection(self._dialler.config, self._dialler.listener, self)

    def _failed(self, why: Exception) -> None:
        self._dialler.failed(self._address, why)

    # -- called by the connection

    def opened(self, connection: NodeConnection) -> None:
        self._opened_at = self._loop.time()
        self._dialling.opened(connection)

    def ended(self, connection: NodeConnection, why: Exception) -> None:
        if not self._dialling.over(connection):
            return
        if self._closed:
            self._gone.set()
        if connection.welcome is None:
            self._dialling.failed(why)
            return
        if not isinstance(why, AlreadyConnected):
            self._dialling.redial.lost(self._loop.time() - self._opened_at, why)
            self._dialling.retry()
        self._dialler.failed(self._address, why)
