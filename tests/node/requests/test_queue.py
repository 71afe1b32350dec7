"""The ingest queue: its small promises one by one, then under many threads."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

import pytest

from allsource.node.requests.queue import LockFreeEventQueue
from allsource.storage.model.errors import QueueFull, Unavailable


def run_together(*jobs: Callable[[], None]) -> None:
    """Run jobs in a thread each; the first exception of any of them is raised here."""
    failures: list[BaseException] = []
    barrier = threading.Barrier(len(jobs))

    def guarded(job: Callable[[], None]) -> None:
        barrier.wait()
        try:
            job()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive(), "stuck"
    if failures:
        raise failures[0]


def test_first_in_first_out() -> None:
    queue: LockFreeEventQueue[int] = LockFreeEventQueue(3)
    assert queue.is_empty
    assert queue.try_pop() is None
    for item in (1, 2, 3):
        queue.try_push(item)
    assert (len(queue), queue.is_full, queue.is_empty, queue.fill_ratio) == (3, True, False, 1.0)
    assert [queue.try_pop(), queue.try_pop()] == [1, 2]
    queue.try_push(4)
    assert (len(queue), queue.is_full, queue.capacity) == (2, False, 3)
    assert [queue.try_pop(), queue.try_pop(), queue.try_pop()] == [3, 4, None]


def test_full_is_definite_and_changes_nothing() -> None:
    queue: LockFreeEventQueue[str] = LockFreeEventQueue(2)
    queue.try_push("a")
    queue.try_push("b")
    for _ in range(3):
        with pytest.raises(QueueFull, match="2 requests") as caught:
            queue.try_push("c")
        assert caught.value.definite
        assert isinstance(caught.value, Unavailable)
        assert caught.value.details == {"capacity": 2}
    assert queue.drain() == ["a", "b"]
    queue.try_push("d")
    queue.try_push("e")
    assert queue.is_full, "every drained item gave back one place, no more"


def test_none_and_falsy_items() -> None:
    queue: LockFreeEventQueue[object] = LockFreeEventQueue(4)
    with pytest.raises(TypeError, match="None"):
        queue.try_push(None)
    assert queue.is_empty
    for item in (0, "", False):
        queue.try_push(item)
    assert queue.drain() == [0, "", False]


def test_drain_takes_the_oldest_up_to_a_number() -> None:
    queue: LockFreeEventQueue[int] = LockFreeEventQueue(10)
    for item in range(6):
        queue.try_push(item)
    assert queue.drain(4) == [0, 1, 2, 3]
    assert queue.drain(0) == []
    assert queue.drain(100) == [4, 5]
    assert queue.drain() == []


@pytest.mark.parametrize("capacity", [0, -1])
def test_a_queue_without_places_is_refused(capacity: int) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        LockFreeEventQueue(capacity)


def test_a_drain_that_is_overtaken_keeps_what_it_took() -> None:
    """Another consumer empties the queue behind the drain's back: the length that it saw is stale."""

    class Overtaken(deque[int]):
        def __len__(self) -> int:
            return super().__len__() + 3

    queue: LockFreeEventQueue[int] = LockFreeEventQueue(5)
    queue._items = Overtaken()
    queue.try_push(1)
    queue.try_push(2)
    assert queue.drain() == [1, 2]
    assert len(queue._permits) == 5


def test_a_push_under_way_has_its_place_already() -> None:
    """Between a look at the length and an append, a second push would come in."""
    entered, go = threading.Event(), threading.Event()

    class Slow(deque[str]):
        def append(self, item: str) -> None:
            if item == "first":
                entered.set()
                assert go.wait(60)
            super().append(item)

    queue: LockFreeEventQueue[str] = LockFreeEventQueue(1)
    queue._items = Slow()

    def second() -> None:
        assert entered.wait(60)
        try:
            with pytest.raises(QueueFull):
                queue.try_push("second")
            assert queue.is_full
        finally:
            go.set()

    run_together(lambda: queue.try_push("first"), second)
    assert queue.drain() == ["first"]


@pytest.mark.usefixtures("eager_switching")
@pytest.mark.parametrize("batch", [None, 1, 7])
def test_many_producers_and_consumers_lose_and_double_nothing(batch: int | None) -> None:
    producers, consumers, each, capacity = 6, 4, 3000, 64
    queue: LockFreeEventQueue[tuple[int, int]] = LockFreeEventQueue(capacity)
    taken: list[list[tuple[int, int]]] = [[] for _ in range(consumers)]
    done = threading.Event()
    refused = [0] * producers

    def produce(me: int) -> None:
        for number in range(each):
            while True:
                try:
                    queue.try_push((me, number))
                    break
                except QueueFull:
                    refused[me] += 1
                    filled.set()

    filled = threading.Event()

    def consume(mine: list[tuple[int, int]]) -> None:
        assert filled.wait(60)
        while not (done.is_set() and queue.is_empty):
            if batch == 1:
                item = queue.try_pop()
                mine += [item] if item is not None else []
            else:
                mine += queue.drain(batch)

    def supervise() -> None:
        run_together(*[lambda me=me: produce(me) for me in range(producers)])  # type: ignore[misc]
        done.set()

    def watch() -> None:
        while not done.is_set():
            assert len(queue) <= capacity, "over capacity"
            assert 0.0 <= queue.fill_ratio <= 1.0

    run_together(supervise, watch, *[lambda mine=mine: consume(mine) for mine in taken])  # type: ignore[misc]
    everything = [item for mine in taken for item in mine]
    assert len(everything) == producers * each
    assert set(everything) == {(p, n) for p in range(producers) for n in range(each)}
    for mine in taken:
        for producer in range(producers):
            numbers = [n for p, n in mine if p == producer]
            assert numbers == sorted(numbers), "one producer's items arrive in order"
    assert sum(refused) > 0
    assert queue.is_empty
    assert len(queue._permits) == capacity


@pytest.mark.usefixtures("eager_switching")
def test_capacity_is_exact_when_many_threads_fill_it() -> None:
    for _ in range(20):
        capacity, pushed = 1000, [0] * 8
        queue: LockFreeEventQueue[int] = LockFreeEventQueue(capacity)

        def fill(me: int, queue: LockFreeEventQueue[int] = queue, pushed: list[int] = pushed) -> None:
            while True:
                try:
                    queue.try_push(me)
                except QueueFull:
                    return
                pushed[me] += 1

        run_together(*[lambda me=me: fill(me) for me in range(8)])  # type: ignore[misc]
        assert sum(pushed) == len(queue) == capacity
        assert queue.is_full
