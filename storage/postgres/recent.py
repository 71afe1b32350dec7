"""Answers that need no look into the database.

A round trip costs fifty times what an append may cost, so the questions that every append asks are
answered from memory:

* "Has this event id been appended before?" is nearly always no. A Bloom filter over all ids (and stream
  names) of the log says no with certainty, 10 bits for each, and "perhaps" for one in a hundred of the
  rest; only then is the database asked.
* "What is this stream's head?" and "give me these entries" are mostly about what was used a moment ago.

Two generations make "recently used" as cheap as a dict: when the young one is full it becomes the old
one, and what is asked for again moves back up.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

_PROBES = 6
_BITS_PER_KEY = 10
_FILTER_KEYS_MIN = 1 << 16
_WORD = (1 << 64) - 1


class Recent(Generic[K, V]):
    """What was used last, up to about twice `size_max` in two generations."""

    def __init__(self, size_max: int, size_of: Callable[[V], int] = lambda _: 1) -> None:
        self._size_max = size_max
        self._size_of = size_of
        self._size = 0
        self._young: dict[K, V] = {}
        self._old: dict[K, V] = {}

    def get(self, key: K, default: V | None = None) -> V | None:
        found = self._young.get(key)
        if found is None and (found := self._old.pop(key, None)) is not None:
            self.put(key, found)
        return default if found is None else found

    def put(self, key: K, value: V) -> None:
        if self._size >= self._size_max:
            self._old, self._young, self._size = self._young, {}, 0
        self._young[key] = value
        self._size += self._size_of(value)

    def drop(self, keys: Iterable[K]) -> None:
        for key in keys:
            self._young.pop(key, None)
            self._old.pop(key, None)

    def clear(self) -> None:
        self._young, self._old, self._size = {}, {}, 0


class BloomFilter:
    """For `capacity` keys, given as any whole numbers that are spread well (as `hash` makes them)."""

    def __init__(self, capacity: int) -> None:
        self.room = max(capacity, _FILTER_KEYS_MIN)
        """How many more keys it takes before it errs more often than one in a hundred."""
        bits = 1 << (self.room * _BITS_PER_KEY - 1).bit_length()
        self._mask = bits - 1
        self._bits = bytearray(bits >> 3)

    def add(self, key: int) -> None:
        self.room -= 1
        at, step = key & _WORD, key >> 32 & 0xFFFFFFFF | 1
        bits, mask = self._bits, self._mask
        for _ in range(_PROBES):
            place = at & mask
            bits[place >> 3] |= 1 << (place & 7)
            at += step

    def __contains__(self, key: int) -> bool:
        at, step = key & _WORD, key >> 32 & 0xFFFFFFFF | 1
        bits, mask = self._bits, self._mask
        for _ in range(_PROBES):
            place = at & mask
            if not bits[place >> 3] >> (place & 7) & 1:
                return False
            at += step
        return True


class Seen:
    """Whether a stream or an event id can be in the database at all.

    What was there when the process started is read in the background; until `complete`, the answer is
    always "perhaps". What is added meanwhile goes into filters of its own, so that two threads never
    write into one.
    """

    def __init__(self) -> None:
        self._stored: BloomFilter | None = None
        self._since = [BloomFilter(0)]

    def complete(self, stored: BloomFilter) -> None:
        """Everything that the database held at the start is in `stored`."""
        self._stored = stored

    def add(self, partition: int, key: str | bytes) -> None:
        """This was appended."""
        newest = self._since[-1]
        if newest.room <= 0:
            newest = BloomFilter(2 * sum(_FILTER_KEYS_MIN << n for n in range(len(self._since))))
            self._since.append(newest)
        newest.add(hash((partition, key)))

    def may_hold(self, partition: int, key: str | bytes) -> bool:
        """False: surely not."""
        stored = self._stored
        if stored is None:
            return True
        number = hash((partition, key))
        return number in stored or any(number in one for one in self._since)
