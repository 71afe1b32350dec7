"""Callers with the client's key who ask for as much as they can: the node's loop goes round all the same.

What counts is the processor time that one turn of the loop takes, which does not depend on how busy the
machine is otherwise. The flood comes from a thread with blocking sockets, whose work does not count.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import structlog

from allsource.client import Client
from allsource.cluster.protocol.handshake import DiallerConfig
from allsource.cluster.protocol.requests import (
    AppendPart,
    AppendRequest,
    ReadPartition,
    ReadStream,
    ReadTag,
    Request,
)
from allsource.cluster.protocol.session import ClientSession, Results
from allsource.config.schema import Settings
from allsource.node.daemon import start_node
from allsource.storage.model.chunks import pack_events
from allsource.storage.model.errors import OutcomeUnknown
from allsource.storage.model.events import BINARY, NewEvent
from allsource.storage.model.partition import partition_of_tag
from tests.node.test_daemon import settings_in

TURN_S_MAX = 0.25
"""A node may be silent for twice this (the suspicion time) before others take over."""


class Turns:
    """How much processor time of this thread each turn of the loop takes."""

    def __init__(self) -> None:
        self.longest_s = 0.0
        self.count = 0
        self._loop = asyncio.get_running_loop()
        self._last = time.thread_time()
        self._handle = self._loop.call_soon(self._tick)

    def _tick(self) -> None:
        now = time.thread_time()
        self.longest_s = max(self.longest_s, now - self._last)
        self._last = now
        self.count += 1
        self._handle = self._loop.call_soon(self._tick)

    def stop(self) -> None:
        self._handle.cancel()


class Flood:
    """A client in a thread: sends requests in as few frames as possible, reads, and counts answers."""

    def __init__(self, settings: Settings, requests: list[Request], timeout_ms: int = 60_000) -> None:
        self._settings = settings
        self._timeout_ms = timeout_ms
        self._requests = requests
        self.answers = self.unknown = 0
        self.ended = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        node = self._settings.nodes[0]
        session = ClientSession(DiallerConfig.client(self._settings.client_secret), os.urandom(32))
        with socket.create_connection((node.host, node.port)) as sock, contextlib.suppress(ConnectionError):
            sock.settimeout(0.1)
            sock.sendall(b"".join(session.take()))
            sent = False
            while not self._stop.is_set() and self.answers < len(self._requests):
                if session.welcome is not None and not sent:
                    for number, request in enumerate(self._requests):
                        session.request(number, self._timeout_ms, request)
                    sent = True
                if pieces := session.take():
                    sock.sendall(b"".join(pieces))
                try:
                    data = sock.recv(1 << 20)
                except TimeoutError:
                    continue
                if not data:
                    break
                for event in session.receive(data):
                    if isinstance(event, Results):
                        self.answers += len(event.items)
                        self.unknown += sum(isinstance(one, OutcomeUnknown) for _, one in event.items)
        self.ended.set()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()


@pytest.fixture
async def settings(tmp_path: Path) -> AsyncIterator[Settings]:
    """A node of one that holds a page of 4 MiB in large events, and one of 10,000 small ones."""
    found = settings_in(tmp_path, 1)
    node = await start_node(found, "n1", structlog.get_logger())
    gc.collect()
    gc.freeze()  # as a node's process does; what other tests left is not this node's work
    address = f"{found.nodes[0].host}:{found.nodes[0].port}"
    async with Client([address], secret=found.client_secret) as client:
        for _ in range(8):
            await client.append("large", [NewEvent("T", os.urandom(500_000), encoding=BINARY)])
        for _ in range(20):
            await client.append("small{t}", [NewEvent("T", b"1") for _ in range(500)])
    yield found
    gc.unfreeze()
    await node.stop()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 (a thread brings it about)
            await asyncio.sleep(0.005)


@pytest.mark.parametrize(
    "request_",
    [
        ReadStream("large", limit=10_000),
        ReadStream("large", limit=10_000, local=True),
        ReadStream("large", limit=10_000, forward=False, local=True),
        ReadStream("small{t}", limit=10_000, local=True),
        ReadPartition(partition_of_tag("t"), limit=10_000),
        ReadTag("t", limit=10_000),
        ReadTag("t", limit=10_000, forward=False, types=("T", "U"), local=True),
        ReadTag("t", limit=10_000, types=("U",), local=True),
    ],
    ids=str,
)
async def test_a_frame_of_thousands_of_page_reads_does_not_hold_up_the_loop(
    settings: Settings, request_: Request
) -> None:
    turns = Turns()
    flood = Flood(settings, [request_] * 4000)
    await until(lambda: flood.answers >= 200)
    flood.stop()
    turns.stop()
    assert turns.longest_s < TURN_S_MAX
    print(f"longest turn {turns.longest_s * 1000:.0f} ms of {turns.count}")


async def test_far_too_many_appends_at_once_are_refused_not_held_until_nobody_knows(
    settings: Settings,
) -> None:
    """68,000 with a second each, from twenty connections: all are answered, hardly one as unknown."""
    chunks = pack_events([NewEvent("T", b'"' + b"x" * 100 + b'"')])
    asked: list[list[Request]] = [
        [AppendRequest((AppendPart(f"s-{flood}-{number}", -1, chunks),)) for number in range(3400)]
        for flood in range(20)
    ]
    turns = Turns()
    floods = [Flood(settings, requests, timeout_ms=1000) for requests in asked]
    await until(lambda: all(flood.ended.is_set() for flood in floods))
    turns.stop()
    for flood in floods:
        flood.stop()
    print(f"longest turn {turns.longest_s * 1000:.0f} ms of {turns.count}")
    assert turns.longest_s < TURN_S_MAX
    assert sum(flood.answers for flood in floods) == 20 * 3400
    unknown = sum(flood.unknown for flood in floods)
    print(f"{unknown} unknown")
    assert unknown < 20 * 3400 // 50
