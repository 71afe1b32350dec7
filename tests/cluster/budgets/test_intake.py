"""Requests of one connection on their way to the service: how many at a time, and none forgotten."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count

from allsource.cluster.budgets.intake import Intake, Payload
from allsource.cluster.budgets.turns import Turns
from allsource.cluster.protocol.codec import RequestItem
from allsource.cluster.protocol.frames import ProtocolError
from allsource.cluster.protocol.requests import DescribeCluster

TIMEOUT_MS = 1_000
BUDGET_US = 1_000_000


class Connection:
    """Decodes a frame of n bytes to n requests, and keeps those that it is to have answered."""

    def __init__(self) -> None:
        self.closing = False
        self.takes_answers = True
        self.reads = True
        self.handed_over: list[int] = []
        self._ids = count(1)

    def may_be_given_answers(self) -> bool:
        return self.takes_answers

    def requests_in(self, payload: Payload) -> list[RequestItem]:
        return [(next(self._ids), TIMEOUT_MS, DescribeCluster()) for _ in payload]

    def hand_over(self, item: RequestItem, waited_ms: int) -> None:
        self.handed_over.append(item[0])

    def fail(self, error: ProtocolError) -> None:
        raise error

    def read(self, reads: bool) -> None:
        self.reads = reads


class Loop:
    """Turns that go round when told."""

    def __init__(self) -> None:
        self.callbacks: list[Callable[[], None]] = []
        self.turns = Turns(self.callbacks.append, lambda: 0, BUDGET_US)

    def run(self) -> None:
        while self.callbacks:
            callbacks, self.callbacks[:] = list(self.callbacks), []
            for callback in callbacks:
                callback()


def frame(requests: int) -> bytes:
    return b"." * requests


def test_no_more_are_handed_over_than_may_be_under_way() -> None:
    connection, loop = Connection(), Loop()
    intake = Intake(connection, loop.turns, under_way_max=2)
    intake.take_frames([frame(5)])
    loop.run()
    assert connection.handed_over == [1, 2]
    assert not connection.reads
    for answered in range(1, 6):
        intake.answered()
        loop.run()
        assert connection.handed_over == list(range(1, min(answered + 2, 5) + 1))
    assert connection.reads


def test_frames_that_wait_are_gone_on_with_when_the_limit_fell_on_the_end_of_one() -> None:
    connection, loop = Connection(), Loop()
    intake = Intake(connection, loop.turns, under_way_max=2)
    intake.take_frames([frame(2), frame(2), frame(1)])
    loop.run()
    for _ in range(5):
        assert 1 <= intake.under_way <= 2
        intake.answered()
        loop.run()
    assert connection.handed_over == [1, 2, 3, 4, 5]
    assert connection.reads
    assert intake.held_bytes == 0


def test_a_connection_that_takes_no_answers_is_given_no_work_until_it_does() -> None:
    connection, loop = Connection(), Loop()
    connection.takes_answers = False
    intake = Intake(connection, loop.turns, under_way_max=2)
    intake.take_frames([frame(1)])
    loop.run()
    assert connection.handed_over == []
    connection.takes_answers = True
    intake.go_on()
    loop.run()
    assert connection.handed_over == [1]


def test_a_peer_has_no_limit_here() -> None:
    connection, loop = Connection(), Loop()
    connection.takes_answers = False
    intake = Intake(connection, loop.turns, under_way_max=None)
    intake.take_requests([(number, TIMEOUT_MS, DescribeCluster()) for number in range(40)])
    loop.run()
    assert connection.handed_over == list(range(40))
