"""Real servers and links on loopback, and a handler that remembers what it was told."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any

import pytest_asyncio

from allsource.cluster.consensus.messages import Beat, Message
from allsource.cluster.protocol.codec import pack
from allsource.cluster.protocol.frames import ProtocolError
from allsource.cluster.protocol.handshake import DiallerConfig, Welcome
from allsource.cluster.protocol.kinds import BEAT, DATA
from allsource.cluster.protocol.node_session import PeerSession
from allsource.cluster.protocol.requests import (
    AppendedStream,
    AppendRequest,
    AppendResult,
    ClusterView,
    Request,
    Result,
)
from allsource.cluster.protocol.session import Results
from allsource.cluster.transport.server import Server
from allsource.cluster.transport.server_connection import ServerConnection
from allsource.storage.model.errors import AllsourceError
from tests.cluster.protocol.wire_samples import acceptor

DEADLINE_S = 60.0


async def until(condition: Callable[[], object], what: str = "the condition") -> None:
    """Wait for something that other callbacks bring about."""
    async with asyncio.timeout(DEADLINE_S):
        while not condition():  # noqa: ASYNC110 (what changes it knows nothing of us)
            await asyncio.sleep(0.001)
    assert condition(), what


class Recorder:
    """A handler (and listener) that answers describe requests at once and keeps the others."""

    def __init__(self) -> None:
        self.waiting: list[tuple[ServerConnection, int, Request]] = []
        self.asked: list[tuple[int, int, Request, bool]] = []
        self.messages_of: dict[str, list[Message]] = {}
        self.beats_of: dict[str, list[Beat]] = {}
        self.news: list[tuple[Any, ...]] = []
        self.eased_count = 0
        self.answer: Callable[[Request], Result | AllsourceError | None] = default_answer

    def request(
        self,
        connection: ServerConnection,
        request_id: int,
        timeout_ms: int,
        request: Request,
        forwarded: bool,
    ) -> None:
        self.asked.append((request_id, timeout_ms, request, forwarded))
        result = self.answer(request)
        if result is None:
            self.waiting.append((connection, request_id, request))
        else:
            connection.reply(request_id, result)

    def messages(self, peer: str, messages: list[Message]) -> None:
        self.messages_of.setdefault(peer, []).extend(messages)

    def beat(self, peer: str, beat: Beat) -> None:
        self.beats_of.setdefault(peer, []).append(beat)

    def eased(self, connection: ServerConnection) -> None:
        self.eased_count += 1

    def connected(self, peer: str, welcome: Welcome) -> None:
        assert welcome.start is not None
        self.news.append(("connected", peer, welcome.start.replica_id))

    def lost(self, peer: str) -> None:
        self.news.append(("lost", peer))

    def refused(self, peer: str, error: Exception) -> None:
        code = error.code if isinstance(error, ProtocolError) else type(error).__name__
        self.news.append(("refused", peer, code))

    def told(self, what: str) -> int:
        """How often."""
        return sum(1 for news in self.news if news[0] == what)


def default_answer(request: Request) -> Result | AllsourceError | None:
    if isinstance(request, AppendRequest):
        streams = tuple(AppendedStream(part.stream, 1, 1) for part in request.parts)
        return AppendResult(0, 1, 1, 1, streams, False)
    return ClusterView({"up": True})


async def serve(handler: Recorder, host: str = "127.0.0.1", port: int = 0, **changes: Any) -> Server:
    """A running server of n2, or as `accept` says."""
    accept = changes.pop("accept", None) or acceptor()
    server = Server(handler, accept, host, port, **changes)
    await server.start()
    return server


_OPENED: list[asyncio.StreamWriter] = []


async def hang_up_everything() -> None:
    """Close every caller's socket, and wait until the loop has let go of it (see conftest)."""
    while _OPENED:
        writer = _OPENED.pop()
        writer.transport.abort()
        with suppress(ConnectionError):
            await writer.wait_closed()


@pytest_asyncio.fixture
async def hang_up() -> AsyncIterator[None]:
    """Whatever a test opened and did not close, also when it failed, is closed behind it; for every module
    that makes a `Caller`."""
    yield
    await hang_up_everything()


class Caller:
    """A plain client or peer: a session and a stream, nothing clever."""

    def __init__(self, config: DiallerConfig) -> None:
        self.session = PeerSession(config, os.urandom(32))
        self.results: dict[int, Result | AllsourceError] = {}

    async def connect(self, port: int) -> Caller:
        """Shake hands."""
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", port)
        _OPENED.append(self.writer)
        self.flush()
        while self.session.welcome is None:
            await self.read()
        return self

    def flush(self) -> None:
        self.writer.writelines(self.session.take())

    async def read(self) -> None:
        """Take what has arrived; raises `ConnectionError` at its end, `ProtocolError` if refused."""
        data = await self.reader.read(1 << 16)
        if not data:
            raise ConnectionResetError("closed")
        for event in self.session.receive(data):
            if isinstance(event, Results):
                self.results.update(dict(event.items))
        if self.session.welcome is None:
            self.flush()

    async def ask(self, request_id: int, request: Request) -> Result | AllsourceError:
        self.session.request(request_id, 5000, request)
        self.flush()
        return await self.answer(request_id)

    async def answer(self, request_id: int) -> Result | AllsourceError:
        async with asyncio.timeout(DEADLINE_S):
            while request_id not in self.results:
                await self.read()
        return self.results[request_id]

    async def refusal(self) -> str:
        """The code with which the server ends the connection; "" if it says nothing."""
        async with asyncio.timeout(DEADLINE_S):
            while True:
                try:
                    await self.read()
                except ProtocolError as error:
                    return error.code
                except ConnectionError:
                    return ""

    def close(self) -> None:
        self.writer.close()


class Route:
    """A way to a server that can be cut without a word: what is on it then never arrives, as behind a link
    that waits out the kernel's patience; and nobody answers there, until `heal`."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._pumps: set[asyncio.Task[None]] = set()
        self._cut = asyncio.Event()
        self._channels = {channel: asyncio.Event() for channel in (DATA, BEAT)}
        self._server: asyncio.Server | None = None
        self.port = 0

    async def open(self) -> Route:
        self._server = await asyncio.start_server(self._carry, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    def cut(self, channel: str = "") -> None:
        """Hold every byte of the connections that there are, for ever; none ends. `channel`: of those alone
        that peers opened for it; new ones are carried."""
        if channel:
            self._channels[channel].set()
            self._channels[channel] = asyncio.Event()
        else:
            self._cut.set()

    def heal(self) -> None:
        """New connections are carried again. The old ones stay silent."""
        self._cut = asyncio.Event()

    @property
    def is_cut(self) -> bool:
        return self._cut.is_set()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        _OPENED.append(writer)
        try:
            there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self._port)
        except OSError:
            writer.close()
            return
        _OPENED.append(there_writer)
        hello = await reader.read(1 << 16)
        channel = DATA if pack(DATA) in hello else BEAT
        cuts = (self._cut, self._channels[channel])
        there_writer.write(hello)
        for source, target in ((reader, there_writer), (there_reader, writer)):
            pump = asyncio.create_task(self._pump(source, target, cuts))
            self._pumps.add(pump)
            pump.add_done_callback(self._pumps.discard)

    async def _pump(
        self, source: asyncio.StreamReader, target: asyncio.StreamWriter, cuts: tuple[asyncio.Event, ...]
    ) -> None:
        def is_cut() -> bool:
            return any(cut.is_set() for cut in cuts)

        with suppress(ConnectionError):
            while (data := await source.read(1 << 16)) or not is_cut():
                if not is_cut():
                    target.write(data)
                    if not data:
                        break
        if not is_cut():
            target.close()

    async def close(self) -> None:
        assert self._server is not None
        self._server.close()
        for pump in list(self._pumps):
            pump.cancel()
        await asyncio.gather(*self._pumps, return_exceptions=True)
        await hang_up_everything()


async def ended(reader: asyncio.StreamReader) -> bytes:
    """Everything up to the end of a raw connection, which must come."""
    async with asyncio.timeout(DEADLINE_S):
        try:
            return await reader.read()
        except ConnectionError:
            return b""
