"""How long a connection may take, in virtual time."""

from __future__ import annotations

import asyncio

import pytest

from allsource.node.http.patience import Patience, Phase, Watch
from allsource.node.http.rations import Ration
from tests.waiting import until

P = Patience(head_s=10, idle_s=75, window_s=5, bytes_per_s=1000, closing_s=3)


@pytest.mark.parametrize(("phase", "seconds"), [(Phase.HEAD, 10), (Phase.IDLE, 75), (Phase.CLOSING, 3)])
def test_some_phases_end_in_time_whatever_arrives(phase: Phase, seconds: float) -> None:
    watch = Watch(P, 0)
    watch.enter(phase, 100)
    watch.moved(1 << 30)
    assert not watch.is_overdue(100 + seconds)
    assert watch.is_overdue(100.1 + seconds)


def test_who_waits_for_us_is_never_overdue() -> None:
    watch = Watch(P, 0)
    watch.enter(Phase.WORKING, 0)
    assert not watch.is_overdue(1e9)


@pytest.mark.parametrize("phase", [Phase.BODY, Phase.ANSWER])
def test_bodies_and_answers_get_on_in_each_window(phase: Phase) -> None:
    watch = Watch(P, 0)
    watch.enter(phase, 0)
    for second in range(1, 100):
        watch.moved(1001)
        assert not watch.is_overdue(second)
    dropped = [second for second in range(100, 120) if watch.is_overdue(second)]
    assert dropped[0] <= 100 + 2 * P.window_s


def test_a_burst_does_not_pay_for_the_windows_behind_it() -> None:
    watch = Watch(P, 0)
    watch.enter(Phase.BODY, 0)
    watch.moved(1 << 30)
    assert not watch.is_overdue(5)
    assert watch.is_overdue(10)


async def test_a_turn_has_its_ration_and_the_rest_waits_in_order() -> None:
    """Counted in turns of the loop, not in time."""
    ration, turns, done = Ration(4, asyncio.get_running_loop()), [0], list[tuple[int, int]]()

    def each_turn() -> None:
        turns[0] += 1
        asyncio.get_running_loop().call_soon(each_turn)

    each_turn()
    for number in range(20):
        ration.call(1, lambda number=number: done.append((number, turns[0])))  # type: ignore[misc]
    assert len(done) == 4
    assert not ration.take(1), "others wait"
    await until(lambda: len(done) == 20)
    assert [number for number, _ in done] == list(range(20))
    spread = [turn for _, turn in done]
    assert max(spread.count(turn) for turn in spread) == 4


async def test_what_is_larger_than_a_ration_has_a_turn_of_its_own() -> None:
    ration, running, most = Ration(10, asyncio.get_running_loop()), [0], [0]

    async def work() -> None:
        await ration.turn(1000)
        running[0] += 1
        most[0] = max(most[0], running[0])
        await asyncio.sleep(0)
        running[0] -= 1

    await asyncio.gather(*[work() for _ in range(10)])
    assert most[0] <= 2  # the next one begins in the turn in which the one before it ends
