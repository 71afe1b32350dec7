"""The server that runs the HTTP application on one address until it is stopped."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from aiohttp import web

from allsource.node.http.complaints import Complaints, default_complaints
from allsource.node.http.connection import HttpConnection
from allsource.node.http.door import Door, DoorLimits
from allsource.node.http.listener import Listener
from allsource.storage.model.errors import AllsourceError

SHUTDOWN_TIMEOUT_S = 2.0
"""How long `HttpServer.stop` waits for answers that are still being given."""


class HttpServer:
    """See the module's page. `start`, then `port` is the real one; `stop` ends everything."""

    def __init__(
        self,
        app: web.Application,
        host: str,
        port: int,
        *,
        limits: DoorLimits | None = None,
        complaints: Complaints | None = None,
    ) -> None:
        """`port` 0 lets the system choose."""
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=SHUTDOWN_TIMEOUT_S)
        self._host = host
        self._port = port
        self._limits = limits or DoorLimits()
        self._complaints = complaints or default_complaints()
        self._door: Door | None = None
        self._listener: Listener | None = None

    @property
    def port(self) -> int:
        """The port that is listened on (of interest when 0 was asked for)."""
        assert self._listener is not None
        return self._listener.port

    @property
    def connections(self) -> Sequence[HttpConnection]:
        """The open connections."""
        open_ones = self._door.connections if self._door is not None else ()
        return tuple(one for one in open_ones if isinstance(one, HttpConnection))

    @property
    def held_bytes(self) -> int:
        """Bytes that are held for requests that are not answered, and answers that are not read."""
        return self._door.budget.held if self._door is not None else 0

    async def start(self) -> None:
        """Listen. Raises `AllsourceError` with what to do when the address cannot be had."""
        await self._runner.setup()
        loop, server = asyncio.get_running_loop(), self._runner.server
        assert server is not None
        door = self._door = Door(self._limits, self._complaints, loop)
        self._listener = Listener(door, lambda: HttpConnection(server, door, loop), loop)
        try:
            await self._listener.start(self._host, self._port)
        except OSError as error:
            await self.stop()
            raise AllsourceError(
                f"cannot listen for HTTP on {self._host}:{self._port}: {error.strerror or error}; "
                "stop what uses the port, or give the node another http_port"
            ) from error

    async def stop(self) -> None:
        """Stop listening, let the answers under way finish, close the connections."""
        if self._listener is not None:
            self._listener.close()
        await self._runner.cleanup()
        if self._door is not None:
            self._door.close()
