"""Strangers at the doors of a real node: it goes on, with few files, little memory and few lines of log."""

from __future__ import annotations

import asyncio
import io
import json
import resource
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import aiohttp
import pytest

from allsource.config.load import load_settings
from allsource.config.schema import NodeSettings
from integration.harness import PATIENCE_S, Clusters, greeting

DESCRIPTORS = 1024
IDLE = 1100
MIB = 1 << 20
JSON = {"Content-Type": "application/json"}


class FewFiles:
    """A node of its own that may open so few files, whatever it asks for."""

    def __init__(self, node: NodeSettings, process: subprocess.Popen[bytes], log: Path) -> None:
        self.node = node
        self.process = process
        self.log = log
        self.url = f"http://{node.host}:{node.http_port}"

    async def append(self, http: aiohttp.ClientSession, stream: str) -> None:
        """Append an event. A door that is short of places closes whichever connection waits longest, and
        that may be the one that was kept for this request: then it is sent again, as clients do, with the
        same event id. An answer other than "it is there" is a fault."""
        url, body = f"{self.url}/v1/streams/{stream}/events", greeting(id=str(uuid.uuid4()))
        async with asyncio.timeout(PATIENCE_S):
            while True:
                with suppress(aiohttp.ClientConnectionError, aiohttp.ClientPayloadError):
                    async with http.post(url, json=body) as answer:
                        said = await answer.text()
                        assert answer.status in (200, 201), f"{answer.status} {said} {self.log.read_text()}"
                        return
                assert self.process.poll() is None, self.log.read_text()
                await asyncio.sleep(0.05)

    async def ready(self, http: aiohttp.ClientSession) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while True:
                assert self.process.poll() is None, self.log.read_text()
                with suppress(aiohttp.ClientError):
                    async with http.get(f"{self.url}/health/ready") as answer:
                        if answer.status == 200:
                            return
                await asyncio.sleep(0.05)

    def open_files(self) -> int:
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))

    def peak_memory(self) -> int:
        """The most memory that the process has had, in bytes."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=PATIENCE_S)) as session:
        yield session


def _spawn(config: Path, log: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "allsource.node.cli", "node", str(config), "--id", "n1"]
    few = (DESCRIPTORS // 2, DESCRIPTORS)
    with log.open("wb") as said:
        return subprocess.Popen(
            command, stderr=said, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, few)
        )


@asynccontextmanager
async def node_with_few_files(clusters: Clusters, tmp_path: Path) -> AsyncIterator[FewFiles]:
    # It is alone: to suspect itself of a slow disk would try something else.
    config, log = clusters.config(1, suspicion_timeout="60s"), tmp_path / "node.log"
    process = _spawn(config, log)
    try:
        yield FewFiles(load_settings(config).nodes[0], process, log)
        assert process.poll() is None, log.read_text()
    finally:
        process.kill()
        process.wait()


async def test_more_idle_connections_than_files_end_nothing(
    clusters: Clusters, tmp_path: Path, http: aiohttp.ClientSession
) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # this process has the other ends of them
    async with node_with_few_files(clusters, tmp_path) as few:
        await few.ready(http)
        for port in (few.node.http_port, few.node.port):
            writers = []
            for _ in range(IDLE):
                with suppress(ConnectionError, TimeoutError):  # the door may close it at once, or be slow
                    writers.append((await asyncio.open_connection(few.node.host, port))[1])
            for number in range(20):
                await few.append(http, f"s-{port}-{number}")
            for writer in writers:
                writer.transport.abort()
        assert few.open_files() < DESCRIPTORS
    said = few.log.read_text()
    assert "Too many open files" not in said
    assert "Traceback" not in said


async def test_broken_bodies_and_bombs_cost_little_memory_and_few_lines(
    clusters: Clusters, tmp_path: Path, http: aiohttp.ClientSession
) -> None:
    async with node_with_few_files(clusters, tmp_path) as few:
        await few.ready(http)
        before, log_before = few.peak_memory(), few.log.stat().st_size
        length = f"Content-Length: {12 * MIB}"
        lines = ("POST /v1/append HTTP/1.1", "Host: localhost", "Content-Type: application/json", length)
        head = "\r\n".join([*lines, "\r\n"]).encode()
        for number in range(30):
            _, writer = await asyncio.open_connection(few.node.host, few.node.http_port)
            writer.write(head + b"[" * (number * MIB // 10))
            with suppress(ConnectionError):
                await writer.drain()
            writer.transport.abort()
        bombs = {
            "application/json": [b"[" * (12 * MIB), b"[" + b"[]," * (4 * MIB - 9) + b"[]]"],
            "application/msgpack": [b"\x90" * (12 * MIB), b"\xdd\x00\xb0\x00\x00" + b"\x90" * (11 * MIB)],
        }
        for kind, bodies in bombs.items():
            for body in bodies * 3:
                async with http.post(
                    f"{few.url}/v1/append", data=io.BytesIO(body), headers={"Content-Type": kind}
                ) as answer:
                    assert answer.status == 400
                    assert json.loads(await answer.text())["definite"] is True
        await few.append(http, "s")
        assert few.peak_memory() - before < 200 * MIB
        assert few.log.stat().st_size - log_before < 10_000
    assert "Traceback" not in few.log.read_text()
