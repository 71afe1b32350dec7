"""One HTTP connection: aiohttp's protocol, with an account of what it holds and how long it takes.

Three things are done here that aiohttp leaves open:

* **Time and bytes.** What the connection is doing is a `Phase`; the door looks at all connections once
  a second and drops those that are overdue (`patience`). Every byte that arrived and is not answered
  yet, and every byte of an answer that was not read yet, is counted against the door's budget.
* **Turns.** What a socket brings is handed to aiohttp in this turn of the loop or a later one (`rations`).
* **Errors.** aiohttp answers what it cannot parse by itself, without the application: a page that
  repeats what the client sent, and a traceback in the log. Here it gets the door's error shape and the
  log a short line now and then; whatever a socket brings raises no further than this class.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import TypeVar

from aiohttp import web

from allsource.node.http.answers import respond
from allsource.node.http.door import PACKET_BYTES, Door
from allsource.node.http.errors import http_error, internal_error
from allsource.node.http.holder import Holder
from allsource.node.http.patience import Phase, Watch

_T = TypeVar("_T")

LINGER_S = 2.0
"""How long the rest of an unwanted body is read and thrown away, so that its sender sees the answer."""

AHEAD_MAX = 64 << 10
"""Bytes of further requests that may come before the answer to the one that is under way."""

_NO_ROOM_BODY = (
    b'{"error":"overloaded","message":"this node holds as many bytes for HTTP requests as it may; '
    b'nothing was done, try again later","definite":true}\n'
)
_NO_ROOM = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nRetry-After: 1\r\n"
    b"Connection: close\r\nContent-Length: %d\r\n\r\n%b" % (len(_NO_ROOM_BODY), _NO_ROOM_BODY)
)


class HttpConnection(web.RequestHandler, Holder):
    """See the module's page."""

    def __init__(self, server: web.Server, door: Door, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(
            server,
            loop=loop,
            logger=door.logger,
            access_log=None,  # type: ignore[arg-type]  # None turns it off; aiohttp's annotation forgets that
            keepalive_timeout=10 * door.patience.idle_s,  # ours is shorter
            lingering_time=LINGER_S,
            auto_decompress=False,  # 16 KiB can become 16 MiB: `bodies` refuses what is compressed
        )
        self._door = door
        self._clock = loop.time
        self._watch = Watch(door.patience, loop.time())
        self._held = 0
        self._ahead = 0
        self._unsent = 0
        self._queued: deque[bytes] = deque()
        self._is_paused = False

    # -- from the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._door.opened(self)
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._queued.clear()
        self._hold(0)
        self._door.ended(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if data and not self._account_for(len(data)):
            return
        cost = 1 + len(data) // PACKET_BYTES
        if data and (self._queued or not self._door.packets.take(cost)):
            self._queued.append(data)
            if len(self._queued) == 1 and self.transport is not None:
                self.transport.pause_reading()
            self._door.packets.call(cost, self._feed_queued)
        else:  # without data: aiohttp asks itself to look again at what it has buffered
            self._feed(data)

    def _feed_queued(self) -> None:
        if not self._queued:
            return
        self._feed(self._queued.popleft())
        if not self._queued and not self._is_paused and self.transport is not None:
            self.transport.resume_reading()

    def _feed(self, data: bytes) -> None:
        try:
            super().data_received(data)
        except Exception as error:  # else the loop would print a traceback for each such packet
            self._door.complaints.defect("HTTP: a packet could not be handled", error)
            self.force_close()

    def pause_reading(self) -> None:
        self._is_paused = True
        super().pause_reading()

    def resume_reading(self, resume_parser: bool = True) -> None:
        self._is_paused = False
        super().resume_reading(resume_parser)
        if self._queued and self.transport is not None:
            self.transport.pause_reading()

    # -- what it holds

    def _account_for(self, size: int) -> bool:
        """Whether what has arrived may be kept; else the connection is ending."""
        phase = self._watch.phase
        if phase is Phase.CLOSING:
            return True  # it is thrown away
        if phase is Phase.IDLE:
            self._enter(Phase.HEAD)
        elif phase in (Phase.WORKING, Phase.ANSWER):
            self._ahead += size
            if self._ahead > AHEAD_MAX:
                self.drop("HTTP: a client sent too much ahead of its answers")
                return False
        self._watch.moved(size)
        if size > self._door.budget.room():
            self._refuse_for_want_of_room()
            return False
        self._hold(self._held + size)
        return True

    def _refuse_for_want_of_room(self) -> None:
        self._door.complaints.client("HTTP: no room for what clients send", held=self._door.budget.held)
        if self._watch.phase in (Phase.HEAD, Phase.BODY) and self.transport is not None:
            self.transport.write(_NO_ROOM)  # no answer has been begun
            self._enter(Phase.CLOSING)
            self.force_close()
        else:
            self.drop("HTTP: no room for what clients send")

    def _hold(self, size: int) -> None:
        self._door.budget.change(size - self._held)
        self._held = size

    def _enter(self, phase: Phase) -> None:
        self._watch.enter(phase, self._clock())
        self._door.is_waiting(self, phase in (Phase.IDLE, Phase.HEAD))

    def look(self, now: float) -> None:
        """Once a second: drop the connection if it has used up the door's patience."""
        transport = self.transport
        if transport is None:
            return
        unsent = transport.get_write_buffer_size()
        if self._watch.phase is Phase.ANSWER:
            self._watch.moved(max(0, self._unsent - unsent))
        elif self._watch.phase in (Phase.IDLE, Phase.CLOSING):
            self._hold(unsent)
        self._unsent = unsent
        if self._watch.is_overdue(now):
            self.drop("HTTP: a connection was too slow")

    def drop(self, why: str) -> None:
        """End the connection at once, whatever it is doing."""
        self._door.complaints.client(why, phase=self._watch.phase.value)
        if self.transport is not None:
            self.transport.abort()

    # -- Holder: what a request's handlers tell

    def begun(self, has_body: bool) -> None:
        self._ahead = 0
        self._enter(Phase.BODY if has_body else Phase.WORKING)

    def room_for(self, size: int) -> bool:
        return size <= self._door.budget.room() + self._held  # some of it has come already

    def received(self) -> None:
        self._enter(Phase.WORKING)

    async def turn(self, size: int) -> None:
        await self._door.bytes.turn(size)

    async def work(self, size: int, run: Callable[[], _T]) -> _T:
        return await self._door.work(size, run)

    def hold_page(self, size: int) -> bool:
        if self.transport is None or size > self._door.budget.room():
            return False
        self._hold(self._held + size)
        return True

    def answering(self, size: int) -> None:
        if self.transport is None:
            return
        self._hold(size + self._ahead)
        self._unsent = size
        self._enter(Phase.ANSWER)

    def answered(self, *, is_last: bool) -> None:
        if self.transport is None:
            return
        self._hold(self.transport.get_write_buffer_size() + self._ahead)
        if is_last:
            self._enter(Phase.CLOSING)
        else:
            self._enter(Phase.HEAD if self._ahead else Phase.IDLE)

    # -- errors that the application does not see

    async def start(self) -> None:
        """aiohttp's task of the connection; without this, what it raises is printed with a traceback."""
        try:
            await super().start()
        except Exception as error:
            if self.transport is not None:  # else it was lost in the moment in which a request arrived
                self._door.complaints.defect("HTTP: a connection went wrong", error)
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
