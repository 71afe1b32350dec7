"""The listening socket of the HTTP door: it accepts as many connections as there are places, and no more.

asyncio's own servers accept whatever arrives, in one go, and learn from the system when there are no
descriptors left, as does whoever else needs one in that moment. Here a connection is accepted when it has a
place, a few in each turn; the others wait in the kernel's queue.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

from allsource.node.http.door import Door

ACCEPTS_PER_TURN = 8
BACKLOG = 256
PAUSE_S = 0.1
"""How long nothing is accepted after the system refused, or while all places are taken by requests
under way."""


class Listener:
    """Listens on all addresses of one host."""

    def __init__(
        self, door: Door, make: Callable[[], asyncio.Protocol], loop: asyncio.AbstractEventLoop
    ) -> None:
        self._door = door
        self._make = make
        self._loop = loop
        self._sockets: list[socket.socket] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._pause: asyncio.TimerHandle | None = None
        door.on_place = self._resume

    @property
    def port(self) -> int:
        """The port that is listened on."""
        port: int = self._sockets[0].getsockname()[1]
        return port

    async def start(self, host: str, port: int) -> None:
        """Listen; raises `OSError`."""
        found = await self._loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        try:
            for family, kind, protocol, _, address in dict.fromkeys(found):
                self._sockets.append(_bound(family, kind, protocol, address))
        except OSError:
            self.close()
            raise
        for listening in self._sockets:
            self._loop.add_reader(listening, self._accept, listening)

    def close(self) -> None:
        """Stop listening. Connections that were accepted stay."""
        if self._pause is not None:
            self._pause.cancel()
        for listening in self._sockets:
            self._loop.remove_reader(listening)
            listening.close()
        self._sockets = []

    def _accept(self, listening: socket.socket) -> None:
        for nth in range(ACCEPTS_PER_TURN):
            if nth and self._door.is_full:
                return  # whether another newcomer waits is not known; if one does, the loop calls again
            if not self._door.take_place():
                self._hold_off()
                return
            try:
                accepted, _ = listening.accept()
            except OSError as error:
                self._door.give_place()
                if not isinstance(error, BlockingIOError | ConnectionAbortedError | InterruptedError):
                    self._door.complaints.defect("HTTP: a connection could not be accepted", error)
                    self._hold_off()
                return
            accepted.setblocking(False)
            task = self._loop.create_task(self._connect(accepted))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _connect(self, accepted: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(self._make, accepted)
        except OSError:  # it has gone already
            accepted.close()
            self._door.give_place()

    def _hold_off(self) -> None:
        if self._pause is None:
            for listening in self._sockets:
                self._loop.remove_reader(listening)
            self._pause = self._loop.call_later(PAUSE_S, self._resume)

    def _resume(self) -> None:
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None
            for listening in self._sockets:
                self._loop.add_reader(listening, self._accept, listening)


def _bound(family: int, kind: int, protocol: int, address: object) -> socket.socket:
    listening = socket.socket(family, kind, protocol)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listening.bind(address)  # type: ignore[arg-type]  # of the family's own form
        listening.listen(BACKLOG)
        listening.setblocking(False)
    except OSError:
        listening.close()
        raise
    return listening
