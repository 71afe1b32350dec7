"""`Recent`: a bounded cache of what was used last, at a dict's price.

Two generations instead of a list in order of use. New values go into the young generation. When that is
full it becomes the old one, and the old one is dropped. A value that is asked for and found in the old one
moves back up. So whatever was used since the last two changes of generation is still there.

Invariant: a young value hides an old one of the same key, so an outdated value is never found. Each
generation takes up `size_max`, plus what was added between two calls of `age` (`put` calls it each time).
Nothing that was added since the last call of `age` is dropped: an owner's newest stream heads depend on
that, which storage does not have yet.

The young generation is the dict itself, because hits are on the path of every append: `cache[key]` finds a
young value without running any Python. Only a miss comes to `__missing__`.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Recent(dict[K, V | None], Generic[K, V]):
    """See the module's page. `cache[key]` is the value, or None if it is not known. A dict's other
    questions (`in`, `get`, `len`) are about the young generation alone."""

    __slots__ = ("_old", "_size", "_size_max", "_size_of")

    def __init__(self, size_max: int, size_of: Callable[[V], int] | None = None) -> None:
        """`size_max`: how much a generation holds, in values, or in the sum of what `size_of` says of each
        (for which every value must come by `put`)."""
        super().__init__()
        self._old: dict[K, V | None] = {}
        self._size_max = size_max
        self._size_of = size_of
        self._size = 0

    def __missing__(self, key: K) -> V | None:
        found = self._old.pop(key, None)
        if found is not None:
            self[key] = found
            if self._size_of is not None:
                self._size += self._size_of(found)
        return found

    def put(self, key: K, value: V) -> None:
        """Remember a value; may begin a new generation."""
        if self._size_of is not None:
            self._size += self._size_of(value)
        self[key] = value
        self.age()

    def age(self) -> None:
        """Begin a new generation if the young one is full. From here on everything may be dropped that was
        put before."""
        full = len(self) if self._size_of is None else self._size
        if full >= self._size_max:
            self._old = dict(self)
            super().clear()
            self._size = 0

    def drop(self, keys: Iterable[K]) -> None:
        """Forget these."""
        for key in keys:
            self.pop(key, None)
            self._old.pop(key, None)

    def clear(self) -> None:
        """Forget everything."""
        super().clear()
        self._old.clear()
        self._size = 0
