"""What users ask for and are answered with, in a repository as in a cluster: plain values."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from allsource.storage.model.events import Events
from allsource.storage.model.expected import Expectation
from allsource.storage.model.packing import Natural
from allsource.storage.model.times import as_datetime


class StreamAppend(NamedTuple):
    """Events for one stream of an atomic append."""

    stream: str
    events: Events
    expected_version: Expectation = "any"


class AppendedStream(NamedTuple):
    """The versions that an append's events got in one stream."""

    stream: str
    first_version: Natural
    last_version: Natural


class AppendResult(NamedTuple):
    """An append that is committed (or, in a repository, durable).

    `duplicate`: an earlier call had appended these very events; this is its answer again. (Where one call
    had to be sent twice on its way, that alone does not make it a duplicate.)
    """

    partition: int
    index: int  # type: ignore[assignment]  # a field, not tuple.index
    """Log index of its entry, 0 where there is no log (PostgreSQL without a cluster)."""
    first_position: int
    last_position: int
    streams: tuple[AppendedStream, ...]
    duplicate: bool

    @property
    def token(self) -> str:
        """Opaque to callers: a read with it sees this append, on any replica. Empty without a log."""
        return make_token(self.partition, self.index) if self.index else ""


def make_token(partition: int, index: int) -> str:
    """The position token for an entry (`cluster.protocol.requests.parse_token` reads it)."""
    return f"{partition}:{index}"


class StreamInfo(NamedTuple):
    """A stream's facts. Times are microseconds since 1970 (UTC), and as `datetime`s beside them."""

    stream: str
    partition: int
    current_version: int
    created_us: int
    updated_us: int

    @property
    def created_at(self) -> datetime:
        """When its first event was appended."""
        return as_datetime(self.created_us)

    @property
    def updated_at(self) -> datetime:
        """When its newest event was appended."""
        return as_datetime(self.updated_us)


class PartitionStats(NamedTuple):
    """Figures of one partition. Times are microseconds since 1970 (UTC), and `datetime`s beside them; None
    if the partition holds no stream."""

    partition: int
    stream_count: int
    total_events: int
    avg_events_per_stream: float
    max_events_per_stream: int
    oldest_update_us: int | None
    newest_update_us: int | None

    @property
    def oldest_update(self) -> datetime | None:
        """When the stream was appended to that has been left alone for longest."""
        return None if self.oldest_update_us is None else as_datetime(self.oldest_update_us)

    @property
    def newest_update(self) -> datetime | None:
        """When its newest event was appended."""
        return None if self.newest_update_us is None else as_datetime(self.newest_update_us)
