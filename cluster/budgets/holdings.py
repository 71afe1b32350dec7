"""The bytes that a node holds for callers who do not take, or do not finish, what they began.

Answers that are not read and frames that are not complete must wait in memory. Each connection's are
bounded, and a thousand such connections are still too much; so all of them together are bounded as
well. Beyond `bytes_max` the connection that holds most is ended, then the next: honest callers hold
little, and only for a moment.
"""

from __future__ import annotations

from typing import Protocol


class Holder(Protocol):
    """A connection that bytes are held for."""

    def held_bytes(self) -> int:
        """How many bytes are held for it now, exactly."""
        ...

    def drop_as_worst(self, total: int) -> None:
        """End at once: of `total` bytes held for all, this one's are the most."""
        ...


class Holdings:
    """See the module's page. What was noted may be too high by what a transport has sent since. So before a
    connection is ended, all are counted anew."""

    def __init__(self, bytes_max: int) -> None:
        self.bytes_max = bytes_max
        self.total = 0
        self.is_tight = False
        """Whether half of what may be held is: time to hold nothing more for who holds something."""
        self._of: dict[Holder, int] = {}

    def note(self, holder: Holder, size: int) -> None:
        """So many bytes are held for this connection now."""
        of = self._of
        self._set_total(self.total + size - of.get(holder, 0))
        if size:
            of[holder] = size
        else:
            of.pop(holder, None)
        if self.total > self.bytes_max:
            self._relieve()

    def forget(self, holder: Holder) -> None:
        """The connection has ended."""
        self._set_total(self.total - self._of.pop(holder, 0))

    def holders(self) -> tuple[Holder, ...]:
        """Those for whom anything is held."""
        return tuple(self._of)

    def recount(self) -> None:
        """Count anew: ask every connection."""
        self._of = {holder: size for holder in self._of if (size := holder.held_bytes())}
        self._set_total(sum(self._of.values()))

    def _set_total(self, total: int) -> None:
        self.total = total
        self.is_tight = total > self.bytes_max // 2

    def _relieve(self) -> None:
        self.recount()
        while self.total > self.bytes_max:
            worst = max(self._of, key=self._of.__getitem__)
            total = self.total
            self.forget(worst)
            worst.drop_as_worst(total)
