"""What a repository is asked for and answers with: plain values, and times as people use them."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from allsource.storage.events import Events


class StreamAppend(NamedTuple):
    """Events for one stream of an atomic append."""

    stream: str
    events: Events
    expected_version: str | int = "any"


class AppendedTo(NamedTuple):
    """The versions that an append's events got in one stream."""

    stream: str
    first_version: int
    last_version: int


class Appended(NamedTuple):
    """A durable append. `duplicate`: it was stored before, and this is the first answer again."""

    partition: int
    first_position: int
    last_position: int
    streams: tuple[AppendedTo, ...]
    duplicate: bool


class StreamInfo(NamedTuple):
    """A stream's facts."""

    stream: str
    partition: int
    current_version: int
    created_at: datetime
    updated_at: datetime


class PartitionStats(NamedTuple):
    """Figures of one partition; the times are None if it holds no stream."""

    partition: int
    stream_count: int
    total_events: int
    avg_events_per_stream: float
    max_events_per_stream: int
    oldest_update: datetime | None
    newest_update: datetime | None
