"""A peer's burst is taken in over many turns of the loop, in order, and its socket waits meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from allsource.cluster.budgets.deliveries import TURN_S, Deliveries
from allsource.cluster.protocol.frames import ProtocolError

COST_S = TURN_S / 4


class Loop:
    """Time that passes only when somebody works."""

    def __init__(self) -> None:
        self.now = 0.0
        self.soon: list[Callable[[], None]] = []

    def time(self) -> float:
        return self.now

    def call_soon(self, callback: Callable[[], None], /) -> object:
        self.soon.append(callback)
        return None

    def turn(self) -> None:
        soon, self.soon = self.soon, []
        for callback in soon:
            callback()


class Connection:
    """Each byte is an event that takes a quarter of a turn."""

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self.closing = False
        self.heard = bytearray()
        self.reads = True
        self.error: ProtocolError | None = None

    def decode(self, data: bytes) -> Iterator[Any]:
        yield from data

    def on_event(self, event: Any) -> None:
        if event == 0:
            raise ProtocolError("nonsense", "a zero")
        self.loop.now += COST_S
        self.heard.append(event)

    def fail(self, error: ProtocolError) -> None:
        self.error, self.closing = error, True

    def read(self, reads: bool) -> None:
        self.reads = reads


def begin() -> tuple[Loop, Connection, Deliveries]:
    loop = Loop()
    connection = Connection(loop)
    return loop, connection, Deliveries(connection, loop)


def test_what_fits_into_a_turn_is_taken_at_once() -> None:
    _, connection, deliveries = begin()
    deliveries.take(b"\1\2\3")
    assert (bytes(connection.heard), connection.reads) == (b"\1\2\3", True)


def test_a_burst_is_taken_in_over_several_turns_and_in_order() -> None:
    loop, connection, deliveries = begin()
    burst = bytes(range(1, 41))
    for start in range(0, 40, 8):  # one turn of the loop may read a socket many times
        deliveries.take(burst[start : start + 8])
    turns, took = 0, 0.0
    while connection.heard != burst:
        assert not connection.reads
        before = loop.now
        loop.turn()
        took = max(took, loop.now - before)
        turns += 1
    assert connection.reads
    assert turns == 9
    assert took <= TURN_S + COST_S
    loop.turn()
    assert not loop.soon, "nothing is left to do"
    deliveries.take(b"\7")
    assert connection.heard[-1] == 7


def test_nonsense_ends_the_connection_and_what_is_behind_it_is_not_heard() -> None:
    loop, connection, deliveries = begin()
    deliveries.take(b"\1\2\3\4\5\0\6")
    loop.turn()
    assert bytes(connection.heard) == b"\1\2\3\4\5"
    assert connection.error is not None
    loop.turn()
    assert not loop.soon


def test_a_connection_that_ended_is_worked_on_no_more() -> None:
    loop, connection, deliveries = begin()
    deliveries.take(bytes(range(1, 20)))
    deliveries.forget()
    loop.turn()
    assert bytes(connection.heard) == b"\1\2\3\4"
