"""The part of a connection that touches the event loop, shared by both sides.

A session (`session.py`) decides; this carries out: bytes from the transport go in, events are handled,
and what the session has queued is written once per loop turn. Callbacks only: no task, no future and
no timer belongs to a single request.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from typing import Generic, cast

from allsource.cluster.protocol.frames import ProtocolError
from allsource.cluster.protocol.session import Established, EventT, Session

HANDSHAKE_TIMEOUT_S = 5.0
LINGER_S = 1.0
"""How long the last word may take to reach the other side."""
WRITE_HIGH_WATER_BYTES = 1 << 20
DEAD_AFTER_MS = 10_000
"""Sent bytes that nobody acknowledges for so long end a connection (a pulled cable, a lost machine)."""

_PYTHON = sys.version_info[:3]
_WRITELINES_PAUSES = not ((3, 12) <= _PYTHON < (3, 12, 9) or (3, 13) <= _PYTHON < (3, 13, 2))
"""Whether asyncio's `writelines` tells its protocol that too much waits (CVE-2024-12254); uvloop's does."""


class Connection(asyncio.Protocol, Generic[EventT]):
    """One socket and its session. `error` says why the connection was ended, if there was a reason."""

    def __init__(self, loop: asyncio.AbstractEventLoop, session: Session[EventT]) -> None:
        self._loop = loop
        self._base_session = session
        self._transport: asyncio.Transport | None = None
        self._handshake_timer: asyncio.TimerHandle | None = None
        self._linger_timer: asyncio.TimerHandle | None = None
        self._flush_scheduled = False
        self.write_paused = False
        self.closing = False
        self.established = False
        self.error: ProtocolError | None = None

    # -- what the sides add

    @property
    def handshake_timeout_s(self) -> float:
        """How long the handshake may take."""
        return HANDSHAKE_TIMEOUT_S

    def on_event(self, event: EventT) -> None:
        """Something arrived."""
        raise AssertionError("each side handles its own events")

    def on_flushed(self) -> None:
        """Everything queued was handed to the transport."""

    def on_lost(self, error: Exception | None) -> None:
        """The connection has ended; called once."""

    # -- asyncio's calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=WRITE_HIGH_WATER_BYTES)
        set_options(transport.get_extra_info("socket"))
        self._handshake_timer = self._loop.call_later(self.handshake_timeout_s, self._handshake_overdue)
        self.flush()

    def data_received(self, data: bytes) -> None:
        if self.closing:  # discard it: as long as we read, no reset overtakes our last word
            return
        try:
            for event in self._base_session.receive(data):
                if type(event) is Established:
                    self._handshake_over()
                self.on_event(event)
                if self.closing:
                    return
        except ProtocolError as error:
            self.fail(error)
            return
        if not self.established:
            self.flush()

    def eof_received(self) -> bool:
        return False

    def pause_writing(self) -> None:
        self.write_paused = True

    def resume_writing(self) -> None:
        self.write_paused = False

    def connection_lost(self, exc: Exception | None) -> None:
        self.closing = True
        self._cancel_timers()
        self.on_lost(self.error or exc)

    # -- writing

    def schedule_flush(self) -> None:
        """Write what is queued when this loop turn's other callbacks have queued theirs."""
        if not self._flush_scheduled:
            self._flush_scheduled = True
            self._loop.call_soon(self._scheduled_flush)

    def _scheduled_flush(self) -> None:
        self._flush_scheduled = False
        self.flush()

    def flush(self) -> None:
        """Write everything queued now."""
        if self.closing or self._transport is None:
            return
        pieces = self._base_session.take()
        if len(pieces) == 1:
            self._transport.write(pieces[0])
        elif pieces and _WRITELINES_PAUSES:
            self._transport.writelines(pieces)
        elif pieces:
            self._transport.write(b"".join(pieces))
        self.on_flushed()

    def outgoing_bytes(self) -> int:
        """Bytes queued here and in the transport that the other side has not taken."""
        waiting = 0 if self._transport is None else self._transport.get_write_buffer_size()
        return waiting + self._base_session.queued_bytes

    # -- ending

    def fail(self, error: ProtocolError) -> None:
        """End the connection for a reason, and tell the other side."""
        if self.closing:
            return
        self.error = error
        self._base_session.refuse(error)
        self.flush()
        if self.closing:  # the flush found a reader too slow to be told anything
            return
        self.closing = True
        assert self._transport is not None
        self._transport.resume_reading()
        if error.by_peer or not self._transport.can_write_eof():
            self._transport.close()
        else:
            self._transport.write_eof()
        self._linger_timer = self._loop.call_later(LINGER_S, self._transport.abort)

    def close(self) -> None:
        """End the connection without a reason, when what is queued has been written."""
        if self.closing or self._transport is None:
            return
        self.flush()
        self.closing = True
        self._transport.close()
        self._linger_timer = self._loop.call_later(LINGER_S, self._transport.abort)

    def drop(self, error: ProtocolError | None = None) -> None:
        """End the connection at once, whatever is unsent: the other side does not read."""
        self.error = self.error or error
        self.closing = True
        self._cancel_timers()
        if self._transport is not None:
            self._transport.abort()

    def _cancel_timers(self) -> None:
        for timer in (self._handshake_timer, self._linger_timer):
            if timer is not None:
                timer.cancel()

    def _handshake_over(self) -> None:
        self.established = True
        assert self._handshake_timer is not None
        self._handshake_timer.cancel()
        self.flush()

    def _handshake_overdue(self) -> None:
        self.fail(ProtocolError("timeout", f"no handshake within {self.handshake_timeout_s:g} s"))


def set_options(sock: socket.socket) -> None:
    """Send packets at once, and have the kernel notice a machine that is gone, with or without traffic."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if hasattr(socket, "TCP_KEEPIDLE"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, DEAD_AFTER_MS // 2000)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, DEAD_AFTER_MS)
