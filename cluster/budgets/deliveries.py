"""What a peer sends, taken in a little at a time (rule 37).

One read of a socket brings a quarter of a megabyte, a loop turn several of them, and a follower that is far
behind is sent such a burst by each leader. A thousand small entries cost it some twenty milliseconds, so
a burst taken in at once would hold up its beats and votes until it looks dead. So each connection works for
`TURN_S` in a turn of the loop, then its socket waits unread, and the rest goes on when the loop has been
round. What remains beyond that is one message, which its sender keeps small
(`ConsensusConfig.append_bytes_max`), or one large entry.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Protocol

from allsource.cluster.protocol.frames import ProtocolError
from allsource.cluster.protocol.node_session import ServerEvent

TURN_S = 0.005


class Loop(Protocol):
    """The part of an event loop that this needs."""

    def time(self) -> float: ...

    def call_soon(self, callback: Callable[[], None], /) -> object: ...


class Connection(Protocol):
    """The connection that the data came on."""

    closing: bool

    def decode(self, data: bytes) -> Iterator[ServerEvent]:
        """What the bytes amount to, one event after the other; raises `ProtocolError`."""
        ...

    def on_event(self, event: ServerEvent) -> None:
        """Take one; raises `ProtocolError` for what no peer says."""
        ...

    def fail(self, error: ProtocolError) -> None:
        """End the connection for a reason."""
        ...

    def read(self, reads: bool) -> None:
        """Read the socket from now on, or stop reading it."""
        ...


class Deliveries:
    """See the module's page."""

    __slots__ = ("_connection", "_end", "_events", "_loop", "_waiting")

    def __init__(self, connection: Connection, loop: Loop) -> None:
        self._connection = connection
        self._loop = loop
        self._waiting: deque[bytes] = deque()
        self._events: Iterator[ServerEvent] | None = None
        """What is left of the data that is being taken in."""
        self._end: float | None = None
        """When this turn's time is over; None before its first work."""

    def take(self, data: bytes) -> None:
        """Something arrived: work on it now, as far as this turn's time goes."""
        self._waiting.append(data)
        if self._end is None:
            self._begin_turn()
        self._work()

    def forget(self) -> None:
        """The connection has ended: what was not taken in is lost with it."""
        self._waiting.clear()
        self._events = None

    def _begin_turn(self) -> None:
        self._end = self._loop.time() + TURN_S
        self._loop.call_soon(self._turn_over)

    def _turn_over(self) -> None:
        self._end = None
        if self._waiting or self._events is not None:
            self._begin_turn()
            self._work()

    def _work(self) -> None:
        try:
            self._take_in()
        except ProtocolError as error:
            self.forget()
            self._connection.fail(error)

    def _take_in(self) -> None:
        connection, loop, end = self._connection, self._loop, self._end
        assert end is not None
        while self._events is not None or self._waiting:
            if loop.time() >= end:
                connection.read(False)
                return
            if self._events is None:
                self._events = connection.decode(self._waiting.popleft())
            event = next(self._events, None)
            if event is None:
                self._events = None
            else:
                connection.on_event(event)
                if connection.closing:
                    self.forget()
                    return
        connection.read(True)
