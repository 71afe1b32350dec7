"""What the connections of one HTTP door share: places, bytes, turns of the loop, patience, and the log."""

from __future__ import annotations

import logging
from asyncio import AbstractEventLoop, TimerHandle
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, Protocol, TypeVar

from allsource.node.http.complaints import Complaints, aiohttp_logger
from allsource.node.http.patience import Patience
from allsource.node.http.rations import ByteBudget, Ration

_T = TypeVar("_T")

PACKETS_PER_TURN = 16
"""Packets that are handed to aiohttp in one turn of the loop: at some 200 us for a small request, 3 ms."""

PACKET_BYTES = 64 << 10
"""A packet with more than this counts for several."""

INLINE_BYTES = 16 << 10
"""What is larger than this is parsed, or made an answer of, in the door's own thread: ten thousand events
take a tenth of a second, and the loop has heartbeats to send. There is one such thread, so that only one of
them has memory and the interpreter at a time; it lets go of the interpreter as often as
`daemon.SWITCH_INTERVAL_S` says. Handing over costs some 100 us, about what so many bytes take."""

BYTES_PER_TURN = 64 << 10
"""What is parsed, or made answers of, on the loop in one of its turns: a few milliseconds at most."""


class DoorLimits(NamedTuple):
    """What a door may have at one time."""

    connections_max: int = 1024
    held_bytes_max: int = 256 << 20
    patience: Patience = Patience()


class Occupant(Protocol):
    """A connection, as far as its door deals with it."""

    def look(self, now: float) -> None:
        """Called once a second: a connection that is overdue ends itself."""

    def drop(self, why: str) -> None:
        """End at once, whatever is under way."""


class Door:
    """The open connections of a door and what they may have."""

    def __init__(self, limits: DoorLimits, complaints: Complaints, loop: AbstractEventLoop) -> None:
        self.connections_max = limits.connections_max
        self.patience = limits.patience
        self.budget = ByteBudget(limits.held_bytes_max)
        self.packets = Ration(PACKETS_PER_TURN, loop)
        self.bytes = Ration(BYTES_PER_TURN, loop)
        self.complaints = complaints
        self.logger: logging.Logger = aiohttp_logger(complaints)
        self.connections: set[Occupant] = set()
        self.on_place: Callable[[], None] = lambda: None
        """Called when a connection has ended."""
        self._waiting: OrderedDict[Occupant, None] = OrderedDict()
        self._places_taken = 0
        self._loop = loop
        self._thread = ThreadPoolExecutor(1, "http-parser")
        self._timer: TimerHandle | None = loop.call_later(limits.patience.look_s, self._look)

    async def work(self, size: int, run: Callable[[], _T]) -> _T:
        """What `run` returns or raises, which takes longer for a larger `size`: here when this loop has a
        turn for it, or in the door's thread if it is too large for that."""
        if size > INLINE_BYTES:
            return await self._loop.run_in_executor(self._thread, run)
        await self.bytes.turn(size)
        return run()

    def close(self) -> None:
        """Stop looking at connections, and end the door's thread."""
        self._thread.shutdown(wait=False, cancel_futures=True)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # -- places: one for each descriptor

    @property
    def is_full(self) -> bool:
        """Whether all places are taken."""
        return self._places_taken >= self.connections_max

    def take_place(self) -> bool:
        """Take a place for a connection that is about to be accepted. If all are taken, the one that waits
        longest for a request is closed to make room; False if none waits."""
        if self.is_full:
            if not self._waiting:
                return False
            oldest, _ = self._waiting.popitem(last=False)
            # Its descriptor is free in the next turn; `descriptors.RESERVED` has room for that long.
            oldest.drop("HTTP: an idle connection made room for a new one")
        self._places_taken += 1
        return True

    def give_place(self) -> None:
        """A connection is gone, or was never made."""
        self._places_taken -= 1
        self.on_place()

    # -- called by connections

    def opened(self, connection: Occupant) -> None:
        self.connections.add(connection)
        self._waiting[connection] = None

    def is_waiting(self, connection: Occupant, waiting: bool) -> None:
        """Whether the connection waits for a request, and since now."""
        self._waiting.pop(connection, None)
        if waiting and connection in self.connections:
            self._waiting[connection] = None

    def ended(self, connection: Occupant) -> None:
        self.connections.discard(connection)
        self._waiting.pop(connection, None)
        self.give_place()

    def _look(self) -> None:
        self._timer = self._loop.call_later(self.patience.look_s, self._look)
        now = self._loop.time()
        for connection in tuple(self.connections):
            connection.look(now)
