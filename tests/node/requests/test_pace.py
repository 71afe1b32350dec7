"""The pace of a queue: believed while it is all that a node can do."""

from __future__ import annotations

from allsource.node.requests.pace import WINDOW_US, Pace


def serve(pace: Pace, count: int, left: int, windows: int = 4, now: int = 0) -> None:
    for window in range(windows):
        pace.served(count if window else 0, left, now + window * WINDOW_US)


def test_nothing_is_known_in_the_beginning_and_nothing_waits() -> None:
    assert Pace().wait_us(1_000_000) == 0


def test_a_queue_that_is_longer_than_a_window_tells_how_long_it_takes() -> None:
    pace = Pace()
    serve(pace, 500, 2000)
    assert pace.wait_us(2000) == 4 * WINDOW_US


def test_a_short_queue_tells_nothing() -> None:
    pace = Pace()
    serve(pace, 500, 2000)
    serve(pace, 500, 400, now=10 * WINDOW_US)
    assert pace.wait_us(100_000) == 0


def test_an_empty_queue_ends_what_was_known_at_once() -> None:
    pace = Pace()
    serve(pace, 500, 2000)
    pace.served(10, 0, 4 * WINDOW_US)
    assert pace.wait_us(100_000) == 0


def test_a_pause_in_which_nothing_is_served_makes_the_window_longer() -> None:
    """A sync that takes a second is in the pace, but a single late look is no standstill."""
    pace = Pace()
    pace.served(0, 2000, 0)
    pace.served(0, 2000, 10 * WINDOW_US)
    assert pace.wait_us(2000) == 0
    pace.served(1000, 2000, 20 * WINDOW_US)
    assert pace.wait_us(2000) == 40 * WINDOW_US


def test_the_pace_follows_what_happens() -> None:
    pace = Pace()
    serve(pace, 500, 2000)
    serve(pace, 100, 2000, windows=12, now=10 * WINDOW_US)
    assert 15 * WINDOW_US < pace.wait_us(2000) < 21 * WINDOW_US
