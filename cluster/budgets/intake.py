"""The requests of one connection, from the frames that hold them to the node's service, in small steps.

A frame may hold a thousand requests and a loop turn the frames of a thousand connections. So frames are
kept as they came until it is their turn (`turns`), are decoded one at a time, and handed over a few
requests at a time. A client's socket is not read while its frames wait here, while it has as many requests
under way as it may, or while it does not read its answers. So what waits here for a client is one read of
its socket and one decoded frame. A peer's socket is read on and its frames are decoded as they come
(`deliveries`): consensus messages share it; only the requests in them wait here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Protocol

from allsource.cluster.budgets.turns import Turns
from allsource.cluster.protocol.codec import RequestItem
from allsource.cluster.protocol.frames import ProtocolError

HANDED_OVER_AT_ONCE = 16
"""Requests in one step. To describe a cluster of many partitions may take milliseconds."""

Payload = bytes | memoryview


class Connection(Protocol):
    """What an intake needs of its connection."""

    closing: bool

    def may_be_given_answers(self) -> bool:
        """Whether it reads its answers. If not, it calls `Intake.go_on` when it does again."""
        ...

    def requests_in(self, payload: Payload) -> list[RequestItem]:
        """Decode a frame; raises `ProtocolError`."""
        ...

    def hand_over(self, item: RequestItem, waited_ms: int) -> None:
        """Have one request answered; `Intake.answered` is called for it once, now or later."""
        ...

    def fail(self, error: ProtocolError) -> None:
        """End the connection for a reason."""
        ...

    def read(self, reads: bool) -> None:
        """Read the socket from now on, or stop reading it."""
        ...


class Intake:
    """See the module's page. `under_way_max`: requests handed over and not answered; None for a peer,
    whose node bounds what it has under way itself."""

    __slots__ = (
        "_backlog",
        "_connection",
        "_decoded_bytes",
        "_frames",
        "_turns",
        "under_way",
        "under_way_max",
    )

    def __init__(self, connection: Connection, turns: Turns, under_way_max: int | None) -> None:
        self._connection = connection
        self._turns = turns
        self._frames: deque[tuple[int, Payload]] = deque()
        self._backlog: deque[tuple[int, RequestItem]] = deque()
        """Both with the time of their arrival, from which a request's timeout runs."""
        self._decoded_bytes = 0
        self.under_way = 0
        self.under_way_max = under_way_max

    @property
    def held_bytes(self) -> int:
        """Bytes of frames that wait, in whole or in part."""
        if not self._frames and not self._backlog:
            return 0
        return self._decoded_bytes + sum([len(payload) for _, payload in self._frames])

    def take_frames(self, payloads: Iterable[Payload]) -> None:
        """A client's frames have arrived."""
        now = self._turns.now_us()
        self._frames.extend([(now, payload) for payload in payloads])
        self._turns.add(self)
        if self._frames or self._backlog:
            self._connection.read(False)

    def take_requests(self, items: Iterable[RequestItem]) -> None:
        """A peer's requests have arrived."""
        now = self._turns.now_us()
        self._backlog.extend([(now, item) for item in items])
        self._turns.add(self)

    def answered(self) -> None:
        """One of the requests that were handed over has its answer."""
        self.under_way -= 1
        if self.under_way + 1 == self.under_way_max and (self._backlog or self._frames):
            self._turns.add(self)

    def go_on(self) -> None:
        """The connection takes answers again."""
        if self._frames or self._backlog:
            self._turns.add(self)

    def forget(self) -> None:
        """The connection has ended."""
        self._frames.clear()
        self._backlog.clear()

    def step(self) -> bool:
        """Hand over a few requests, after decoding a frame if none is decoded (`turns.Worker`)."""
        connection, backlog = self._connection, self._backlog
        if connection.closing:
            self.forget()
            return False
        if not backlog and self._frames and not self._decode():
            return False
        now, most = self._turns.now_us(), self.under_way_max
        for _ in range(HANDED_OVER_AT_ONCE):
            if not backlog:
                break
            if most is not None and (self.under_way >= most or not connection.may_be_given_answers()):
                return False
            self.under_way += 1
            arrived, item = backlog.popleft()
            connection.hand_over(item, (now - arrived) // 1000)
        if not backlog:
            self._decoded_bytes = 0
            if not self._frames:
                connection.read(True)
                return False
        return True

    def _decode(self) -> bool:
        arrived, payload = self._frames.popleft()
        try:
            self._backlog.extend([(arrived, item) for item in self._connection.requests_in(payload)])
        except ProtocolError as error:
            self.forget()
            self._connection.fail(error)
            return False
        self._decoded_bytes = len(payload)
        return True
