"""What reads return: events, and where to read on."""

from __future__ import annotations

from dataclasses import dataclass

from allsource.storage.model.answers import StreamInfo
from allsource.storage.model.events import Event


@dataclass(frozen=True, slots=True)
class StreamEvents:
    """A page of a stream, in reading order. `next_from` is 0 when there is nothing further."""

    info: StreamInfo
    events: list[Event]
    next_from: int

    @property
    def current_version(self) -> int:
        """The stream's version when it was read."""
        return self.info.current_version


@dataclass(frozen=True, slots=True)
class TagEvents:
    """A page of a tag in reading order, each event with its `tag_number`. `last_number` is the newest
    event's when it was read: what an append may expect. `next_from` is 0 when there is nothing further."""

    tag: str
    partition: int
    events: list[Event]
    last_number: int
    next_from: int


@dataclass(frozen=True, slots=True)
class PartitionEvents:
    """A page of a partition, by position. At its end, `next_from` is `last_position` + 1."""

    partition: int
    events: list[Event]
    last_position: int
    next_from: int
