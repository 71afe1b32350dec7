"""Turns: a budget for each turn of the loop, dealt fairly, and nothing added where nobody waits."""

from __future__ import annotations

from collections.abc import Callable

from allsource.cluster.budgets.turns import Turns

BUDGET_US = 100


class Loop:
    """An event loop of which a test turns the crank, and a clock that work moves on."""

    def __init__(self) -> None:
        self.now = 0
        self.soon: list[Callable[[], None]] = []
        self.turns = Turns(self.soon.append, lambda: self.now, BUDGET_US)
        self.done: list[str] = []

    def goes_round(self) -> list[str]:
        """One turn; the steps that were done in it."""
        callbacks, self.soon = self.soon[:], self.soon
        self.soon.clear()
        self.done.clear()
        for callback in callbacks:
            callback()
        return list(self.done)


class Work:
    """So many steps of so many microseconds each."""

    def __init__(self, loop: Loop, name: str, steps: int, cost_us: int) -> None:
        self.loop, self.name, self.steps, self.cost_us = loop, name, steps, cost_us

    def step(self) -> bool:
        self.loop.now += self.cost_us
        self.loop.done.append(self.name)
        self.steps -= 1
        return self.steps > 0


def test_work_that_finds_time_is_done_at_once() -> None:
    loop = Loop()
    loop.turns.add(Work(loop, "a", 3, 10))
    loop.turns.add(Work(loop, "b", 1, 10))
    assert loop.done == ["a", "a", "a", "b"]
    assert loop.goes_round() == []
    assert not loop.soon, "an idle loop is left alone"


def test_a_turn_ends_with_its_budget_and_the_rest_follows() -> None:
    loop = Loop()
    loop.turns.add(Work(loop, "a", 25, 10))
    assert len(loop.done) == 10
    assert len(loop.goes_round()) == 10
    assert len(loop.goes_round()) == 5
    assert loop.goes_round() == []


def test_who_comes_later_in_a_turn_that_is_used_up_waits_for_the_next() -> None:
    loop = Loop()
    loop.turns.add(Work(loop, "a", 1, BUDGET_US))
    loop.turns.add(Work(loop, "b", 1, 1))
    assert loop.done == ["a"]
    assert loop.goes_round() == ["b"]


def test_many_steps_of_one_and_few_of_another_are_dealt_in_turn() -> None:
    loop = Loop()
    loop.turns.add(Work(loop, "much", 1000, 25))
    little = Work(loop, "little", 2, 25)
    loop.turns.add(little)
    loop.turns.add(little)  # it says so with each request that it has
    assert loop.goes_round() == ["much", "little", "much", "little"]
    assert loop.goes_round() == ["much"] * 4


def test_one_large_step_is_one_turn() -> None:
    loop = Loop()
    loop.turns.add(Work(loop, "a", 3, 50 * BUDGET_US))
    assert [len(loop.goes_round()) for _ in range(3)] == [1, 1, 0]


def test_work_that_is_caused_for_later_counts() -> None:
    loop = Loop()
    work = Work(loop, "a", 10, 10)
    loop.turns.add(work)
    loop.goes_round()

    class Charging(Work):
        def step(self) -> bool:
            loop.turns.charge(40)
            return super().step()

    loop.turns.add(Charging(loop, "b", 10, 10))
    assert loop.done == ["b", "b"]


def test_work_that_causes_work_does_not_nest() -> None:
    loop = Loop()

    class Parent(Work):
        def step(self) -> bool:
            loop.turns.add(Work(loop, "child", 1, 1))
            return super().step()

    loop.turns.add(Parent(loop, "parent", 1, 1))
    assert loop.done == ["parent"]
    assert loop.goes_round() == ["child"]
