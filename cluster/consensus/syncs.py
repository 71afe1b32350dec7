"""What waits for which sync: messages that rest on a write, and how far each log is durable by it.

Writes are numbered, one number for all groups that changed in a turn. A message that rests on one is held
back until a sync that began after that write has returned (rules 1 and 2). The same numbers tell how long
writes lately waited for their syncs, time that an election must have (rule 13).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import NamedTuple

from allsource.cluster.consensus.messages import Message, is_of
from allsource.storage.model.log import PartitionWrite

MEMORY_SHIFT = 3
"""After each sync an eighth of what a slower one took is forgotten."""


class LogEnd(NamedTuple):
    """An entry up to which a partition's log is known somewhere."""

    partition: int
    term: int
    last_index: int


@dataclass(slots=True)
class Held:
    """What has waited since `written_us` for the sync of write `number`."""

    number: int
    written_us: int
    messages: list[tuple[str, Message]]
    """By peer. As everywhere on the hot path, a plain pair."""
    ends: list[LogEnd]
    """How far logs are durable when it has returned."""


class Syncs:
    """The writes of one node that are not durable yet. See the module's page."""

    def __init__(self) -> None:
        self.longest_us = 0
        """The longest that a write lately waited for its sync; forgotten by degrees."""
        self._written = 0
        self._persisted = 0
        self._group_written: dict[int, int] = {}
        self._held: deque[Held] = deque()

    def is_awaited(self, partition: int) -> bool:
        """Whether a write of the partition is not durable yet."""
        return self._group_written.get(partition, 0) > self._persisted

    def written(self, writes: list[PartitionWrite]) -> int:
        """Give these writes, which are made together, their number."""
        self._written += 1
        for write in writes:
            self._group_written[write.partition] = self._written
        return self._written

    def hold(self, messages: list[tuple[str, Message]], ends: list[LogEnd], now: int) -> None:
        """Keep these until the newest write is durable."""
        self._held.append(Held(self._written, now, messages, ends))

    def persisted(self, number: int, now: int) -> list[Held]:
        """Everything up to write `number` is durable: what waited for that, oldest first."""
        self._persisted = max(self._persisted, number)
        held = self._held
        freed: list[Held] = []
        while held and held[0].number <= number:
            freed.append(held.popleft())
        if freed:
            took_us = now - freed[0].written_us
            self.longest_us = max(took_us, self.longest_us - (self.longest_us >> MEMORY_SHIFT))
        return freed

    def forget(self, partition: int) -> None:
        """Drop what waits for the partition."""
        for held in self._held:
            held.messages = [(peer, m) for peer, m in held.messages if not is_of(m, partition)]
            held.ends = [end for end in held.ends if end.partition != partition]

    def under_way(self) -> list[Held]:
        """What waits."""
        return list(self._held)
