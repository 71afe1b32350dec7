"""An HTTP door over real sockets in this process, for tests that do to it what no client library does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from structlog.typing import EventDict

from allsource.config.schema import Limits
from allsource.node.http.app import make_app
from allsource.node.http.door import DoorLimits
from allsource.node.http.server import HttpServer
from tests.toy_service import ToyService


class Door:
    """An HTTP door in this process, and what it said: statuses of its answers, lines of its log."""

    def __init__(self, door_limits: DoorLimits | None = None, limits: Limits | None = None) -> None:
        self.service = ToyService()
        self.told: list[int] = []
        self.render: Callable[[], tuple[bytes, str]] = lambda: (b"", "text/plain")
        self.logged: list[EventDict] = []
        app = make_app(
            self.service,
            limits=limits or Limits(),
            metrics_render=lambda: self.render(),
            readiness=list,
            answered=self.told.append,
        )
        self.server = HttpServer(app, "127.0.0.1", 0, limits=door_limits)

    async def send(self, raw: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.server.port)
        writer.write(raw)
        return reader, writer

    async def answer(self, raw: bytes) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of the one answer, after which the door must close the connection."""
        reader, writer = await self.send(raw)
        found = await reader.read()
        writer.close()
        head, _, body = found.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        return int(first.split()[1]), dict(line.split(": ", 1) for line in lines), body


def post(body: bytes, *headers: str, length: int | None = None, close: bool = True) -> bytes:
    said = [f"Content-Length: {len(body) if length is None else length}", *headers]
    if not any(header.startswith("Content-Type") for header in headers):
        said.append("Content-Type: application/json")
    if close:
        said.append("Connection: close")
    head = "\r\n".join(["POST /v1/streams/s/events HTTP/1.1", "Host: localhost", *said])
    return head.encode() + b"\r\n\r\n" + body
