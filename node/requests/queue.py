"""The bounded queue in front of the partition pump: back-pressure before anything is promised.

Doors push what came in; the pump takes all of it once per loop turn. When the queue is full, `QueueFull`
goes back to the caller at once (503, definite: nothing happened), instead of memory growing until the
process dies.

Any number of threads may push and pop, and no Python lock is taken. What makes it exact is a second
deque, of *permits*: as many as there are places. A push first pops a permit (none left: full), then
appends the item; a pop first takes the item, then gives the permit back. So

    items held <= capacity - permits left        at every moment,

because between the two steps of either operation a permit is missing, never one too many. A bare
length check before an append would let two threads pass it together. The price is a second pair of
deque operations for each item, about 30 ns (`scripts/bench_queue.py`, which also says what two Python
calls cost before they do anything).

Free-threaded Pythons: `deque` is documented as safe for appends and pops from either side by many threads,
and its methods lock the deque itself where there is no GIL (since 3.13). Nothing here rests on more
than one such step being atomic: `extend` of permits may be seen half done, which only makes a push wait for
its place; each item that `drain` takes is one `popleft`; `len` is one read. (Argued, not run: no such
interpreter was at hand.)

Order: items leave in the order in which they were appended, so each producer's items stay in order.
"""

from __future__ import annotations

from collections import deque
from itertools import repeat, starmap
from typing import Generic, TypeVar

from allsource.storage.model.errors import QueueFull

T = TypeVar("T")


class LockFreeEventQueue(Generic[T]):
    """See the module's page. None cannot be pushed: `try_pop` returns it when there is nothing."""

    __slots__ = ("_capacity", "_items", "_permits")

    def __init__(self, capacity: int) -> None:
        if capacity < 1:
            raise ValueError(f"a queue's capacity is at least 1, not {capacity}")
        self._capacity = capacity
        self._items: deque[T] = deque()
        self._permits: deque[None] = deque(repeat(None, capacity))

    def try_push(self, item: T) -> None:
        """Append an item. Raises `QueueFull`, and `TypeError` for None."""
        if item is None:
            raise TypeError("None means an empty queue and cannot be pushed")
        try:
            self._permits.pop()
        except IndexError:
            raise QueueFull(
                f"the ingest queue is full ({self._capacity} requests); nothing was done, retry soon",
                capacity=self._capacity,
            ) from None
        self._items.append(item)

    def try_pop(self) -> T | None:
        """The oldest item, None if there is none."""
        try:
            item = self._items.popleft()
        except IndexError:
            return None
        self._permits.append(None)
        return item

    def drain(self, items_max: int | None = None) -> list[T]:
        """Up to `items_max` items (None: all that are there now), oldest first.

        Several threads may drain at once; each item goes to one of them. The loop runs in C (15 ns an
        item, and half a microsecond for each drain); if another consumer gets ahead of it, it ends
        early, and `list.extend` keeps what it has taken so far.
        """
        count = len(self._items)
        if items_max is not None and items_max < count:
            count = items_max
        if not count:  # the pump asks in every turn of the loop
            return []
        taken: list[T] = []
        try:  # noqa: SIM105 - `suppress` would triple the cost of draining one item
            taken.extend(starmap(self._items.popleft, repeat((), count)))
        except IndexError:
            pass
        self._permits.extend(repeat(None, len(taken)))
        return taken

    def __len__(self) -> int:
        """How many items are waiting."""
        return len(self._items)

    @property
    def is_empty(self) -> bool:
        """Whether nothing is waiting."""
        return not self._items

    @property
    def is_full(self) -> bool:
        """Whether a push would be refused now."""
        return not self._permits

    @property
    def capacity(self) -> int:
        """How many items it holds at most."""
        return self._capacity

    @property
    def fill_ratio(self) -> float:
        """Items waiting / capacity, 0.0 to 1.0."""
        return len(self._items) / self._capacity
