"""A node in this process that speaks the real protocol and answers from a `ToyService`.

Real sockets, real handshake, real codec: what is fake is what stands behind them. Several nodes may
share one `ToyStore`. A test can make a node refuse, swallow or delay requests (`service.meet`), go
away without a word (`kill`), or stay connected and read nothing (`freeze`).
"""

from __future__ import annotations

import asyncio
import os
from typing import Any, cast

from allsource.cluster.protocol.frames import ProtocolError
from allsource.cluster.protocol.handshake import AcceptorConfig
from allsource.cluster.protocol.handshake_frames import WireLimits
from allsource.cluster.protocol.node_session import Requests, ServerSession
from allsource.cluster.protocol.requests import Request, Result
from allsource.storage.model.errors import AllsourceError
from allsource.storage.model.identity import Identity
from tests.toy_service import ToyService, ToyStore

SECRET = "sesame"
CLUSTER = "a-cluster"


class FakeNode:
    """One node. `requests` are all that it was asked, `connections` those that are open."""

    def __init__(self, node_id: str, store: ToyStore, addresses: dict[str, tuple[str, int]]) -> None:
        self.node_id = node_id
        self.service = ToyService(store)
        self.connections: set[_Connection] = set()
        self.secret = SECRET
        self.limits = WireLimits()
        self.batches: list[int] = []
        """How many requests came in each frame."""
        self.accepted = 0
        self.refusals: list[ProtocolError] = []
        """Why connections ended: what a client said last, or what was wrong with what it said."""
        self.garbage: bytes | None = None
        """Sent instead of every answer."""
        self._addresses = addresses
        self._server: asyncio.Server | None = None
        self._port = 0

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._port}"

    @property
    def requests(self) -> list[Request]:
        return self.service.seen

    async def start(self) -> None:
        """Listen; on the same port as before, if it was started before."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Connection(self), "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]
        self._addresses[self.node_id] = ("127.0.0.1", self._port)

    async def kill(self) -> None:
        """As kill -9: connections end, nobody listens."""
        if self._server is not None:
            self._server.close()
            for connection in list(self.connections):
                connection.transport.abort()
            await self._server.wait_closed()
            self._server = None

    def freeze(self) -> None:
        """As SIGSTOP: connections stay, nothing is read any more."""
        for connection in self.connections:
            connection.transport.pause_reading()

    def thaw(self) -> None:
        """As SIGCONT."""
        for connection in self.connections:
            connection.transport.resume_reading()

    def hang_up(self) -> None:
        """End every connection, and go on listening."""
        for connection in list(self.connections):
            connection.transport.abort()

    def acceptor(self) -> AcceptorConfig:
        replica = f"replica-of-{self.node_id}"
        identity = Identity(CLUSTER, self.node_id, replica, 1)
        partitions = self.service.store.partitions
        return AcceptorConfig(
            "not for clients", self.secret, identity, self._addresses, partitions, limits=self.limits
        )


class _Connection(asyncio.Protocol):
    def __init__(self, node: FakeNode) -> None:
        self._node = node
        self._session = ServerSession(node.acceptor(), os.urandom(32))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._node.connections.add(self)
        self._node.accepted += 1

    def connection_lost(self, exc: Exception | None) -> None:
        self._node.connections.discard(self)

    def data_received(self, data: bytes) -> None:
        try:
            for event in self._session.receive(data):
                if isinstance(event, Requests):
                    self._node.batches.append(len(event.items))
                    for item in event.items:
                        self._submit(*item)
        except ProtocolError as error:
            self._node.refusals.append(error)
            self._session.refuse(error)
            self._write()
            self.transport.close()
            return
        self._write()

    def _submit(self, request_id: int, timeout_ms: int, request: Request) -> None:
        def reply(outcome: Result | AllsourceError) -> None:
            self._session.reply(request_id, outcome)
            asyncio.get_running_loop().call_soon(self._write)

        self._node.service.submit(request, timeout_ms=timeout_ms, forwarded=False, reply=reply)

    def _write(self) -> None:
        frames = self._session.take()
        if self._node.garbage is not None and self._session.hello is not None and frames:
            frames = [self._node.garbage]
        if frames and not self.transport.is_closing():
            self.transport.writelines(frames)


class FakeCluster:
    """Some nodes that share one store. `own` says which node leads which partition."""

    def __init__(self, *node_ids: str) -> None:
        self.store = ToyStore()
        self.addresses: dict[str, tuple[str, int]] = {}
        self.nodes = {node_id: FakeNode(node_id, self.store, self.addresses) for node_id in node_ids}
        self.owners: list[str | None] = []
        self.term = 0
        self.own(lambda partition: node_ids[partition % len(node_ids)])

    def own(self, owner_of: Any) -> None:
        """Change the owners: `owner_of(partition)` is a node id or None."""
        self.term += 1
        self.owners = [owner_of(partition) for partition in range(self.store.partitions)]
        self.store.view = {
            "nodes": [],
            "partitions": [
                {"partition": p, "owner": owner, "term": self.term, "replicas": list(self.nodes)}
                for p, owner in enumerate(self.owners)
            ],
        }

    async def start(self) -> FakeCluster:
        for node in self.nodes.values():
            await node.start()
        return self

    async def stop(self) -> None:
        for node in self.nodes.values():
            await node.kill()

    def __getitem__(self, node_id: str) -> FakeNode:
        return self.nodes[node_id]

    def owner_of(self, partition: int) -> FakeNode:
        owner = self.owners[partition]
        assert owner is not None
        return self.nodes[owner]
