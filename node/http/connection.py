"""One HTTP connection: aiohttp's protocol, with its own way to say that something was no HTTP.

aiohttp answers what it cannot parse by itself, without the application: a page that repeats what the client
sent, and a traceback in the log. Here such a request gets the door's error shape and the log one short line
now and then (`complaints`); whatever a socket brings raises no further than this class.
"""

from __future__ import annotations

import asyncio

from aiohttp import web

from allsource.node.http.answers import respond
from allsource.node.http.door import Door
from allsource.node.http.errors import http_error, internal_error

LINGER_S = 2.0
"""How long the rest of an unwanted body is read and thrown away, so that its sender sees the answer."""


class HttpConnection(web.RequestHandler):
    """See the module's page."""

    def __init__(self, server: web.Server, door: Door, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(
            server,
            loop=loop,
            logger=door.logger,
            access_log=None,  # type: ignore[arg-type]  # none is meant; aiohttp's annotation forgets it
            lingering_time=LINGER_S,
            auto_decompress=False,  # 16 KiB can become 16 MiB: `bodies` refuses what is compressed
        )
        self._door = door

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._door.connections.add(self)
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._door.connections.discard(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        try:
            super().data_received(data)
        except Exception as error:  # else the loop would print a traceback for each such packet
            self._door.complaints.defect("HTTP: a packet could not be handled", error)
            self.force_close()

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        if isinstance(resp, web.HTTPException):  # of aiohttp's own, before the application: `Expect: x`
            resp = http_error(request, resp)
        return await super().finish_response(request, resp, start_time)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """The answer to what is no HTTP (400), and to what the application let through (500; it lets
        nothing through: `errors`). Nothing that the client sent is in it."""
        if request.writer.output_size > 0:
            raise ConnectionError("an answer was begun already; the connection ends")
        if status < 500:
            self._door.complaints.client("HTTP: what a client sent is not HTTP", peer=request.remote)
            body = {
                "error": "malformed_request",
                "message": "this is not HTTP/1.1 as RFC 9112 has it, or a header is too long; "
                "the connection is closed",
                "definite": True,
            }
            response = respond(request, body, status)
        else:
            if exc is not None:
                self._door.complaints.defect("HTTP: a request failed outside the application", exc)
            response = internal_error(request)
        response.force_close()
        return response
