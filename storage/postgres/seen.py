"""`Seen`: what is surely not in the database, known without asking it.

A round trip costs fifty times what an append may cost, and the answer to "has this event id been appended
before?", which every append asks, is nearly always no. A Bloom filter over all ids, streams and tags of the
log, with 10 bits for each, says no with certainty, or "perhaps", wrongly for one key in a hundred. Only
then is the database asked.
"""

from __future__ import annotations

_PROBES = 6
_BITS_PER_KEY = 10
_FILTER_KEYS_MIN = 1 << 16
_WORD = (1 << 64) - 1


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


def tag_key(tag: str) -> str:
    """The key of a tag, which is no stream's that is likely."""
    return f"{{{tag}}}"


class Seen:
    """Whether a stream, a tag or an event id can be in the database at all.

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

    def add_tag(self, partition: int, tag: str) -> None:
        """The first event under this tag was appended."""
        self.add(partition, tag_key(tag))

    def may_hold_tag(self, partition: int, tag: str) -> bool:
        """As `may_hold`."""
        return self.may_hold(partition, tag_key(tag))

    def may_hold(self, partition: int, key: str | bytes) -> bool:
        """False: surely not."""
        stored = self._stored
        if stored is None:
            return True
        number = hash((partition, key))
        return number in stored or any(number in one for one in self._since)
