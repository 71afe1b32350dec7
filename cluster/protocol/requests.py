"""What can be asked of a cluster, and the answers: one vocabulary for doors, peers and clients.

The HTTP door, the msgpack door and a node that forwards all make these values and hand them to the same
service. The codec carries them over the wire unchanged. What there are many of are tuples: a frozen
dataclass of eight fields takes a microsecond to make.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from allsource.storage.model.answers import AppendedStream as AppendedStream
from allsource.storage.model.answers import AppendResult as AppendResult
from allsource.storage.model.answers import make_token as make_token
from allsource.storage.model.append import AppendPart as AppendPart
from allsource.storage.model.append import AppendRequest as AppendRequest
from allsource.storage.model.chunks import Chunk, decode_chunk
from allsource.storage.model.errors import InvalidRequest
from allsource.storage.model.events import Event
from allsource.storage.model.packing import Natural


class ReadStream(NamedTuple):
    """Read a stream from a version; `limit` 0 asks for the stream's facts alone.

    `from_version` 0 means the natural end: the first event forward, the newest backward.
    `local`: from this replica without asking the others; `token` ("" for none) makes any replica
    wait until it holds the append that the token came from.
    """

    stream: str
    from_version: int = 0
    limit: int = 100
    forward: bool = True
    local: bool = False
    token: str = ""


class ReadPartition(NamedTuple):
    """Committed events of a partition by position, from `from_position` (at least 1)."""

    partition: int
    from_position: int = 1
    limit: int = 1000
    local: bool = False
    token: str = ""


TYPES_MAX = 256
"""Event types that one read may ask for."""


class ReadTag(NamedTuple):
    """Committed events of all streams with a `{tag}`, by the numbers that they have under it.

    `from_number` 0 means the natural end: the first event forward, the newest backward. `types`: only
    events of these types; empty for all.
    """

    tag: str
    from_number: int = 0
    limit: int = 100
    forward: bool = True
    types: tuple[str, ...] = ()
    local: bool = False
    token: str = ""


class ReadMark(NamedTuple):
    """Where a mark of a partition is."""

    partition: int
    name: str
    local: bool = False
    token: str = ""


ReadRequest = ReadStream | ReadPartition | ReadTag | ReadMark


@dataclass(slots=True, frozen=True)
class DescribeCluster:
    """What `GET /v1/cluster` shows, as the asked node sees it."""


@dataclass(slots=True, frozen=True)
class PassOn:
    """A node asks a peer to pass a request on to the leader, which it cannot reach itself.

    It is passed on as it is: a second hop, and never a third.
    """

    request: AppendRequest | ReadRequest


Request = AppendRequest | ReadRequest | DescribeCluster | PassOn


class Run(NamedTuple):
    """Events of one stream as they are stored: `take` events of a chunk, behind the first `skip`.

    `first_version`, `first_position` and `first_tag_number` (0: no tag) are those of the chunk's first
    event, skipped or not.
    """

    stream: str
    first_version: Natural
    first_position: Natural
    first_tag_number: Natural
    timestamp_us: Natural
    skip: Natural
    take: Natural
    chunk: Chunk

    def events(self, partition: int) -> list[Event]:
        """The run's events, in ascending order."""
        stream, first_version, first_position, first_tag_number, timestamp_us, skip, take, chunk = self
        found = decode_chunk(
            chunk,
            stream=stream,
            partition=partition,
            first_version=first_version,
            first_position=first_position,
            first_tag_number=first_tag_number,
            timestamp_us=timestamp_us,
        )
        return found if take == chunk.count else found[skip : skip + take]


class StreamPage(NamedTuple):
    """A stream's facts and a page of its events.

    `runs` come in reading order; of a backward read, the newest first (and the events in each of them
    still ascending). `next_from` is 0 when there is nothing further in this direction.
    """

    stream: str
    partition: int
    current_version: int
    created_us: int
    updated_us: int
    next_from: int
    forward: bool
    runs: tuple[Run, ...]

    def events(self) -> list[Event]:
        """The page's events in reading order (descending if the read was backward)."""
        return _events(self.runs, self.partition, self.forward)


class PartitionPage(NamedTuple):
    """A page of a partition's events by position; `last_position` is the newest committed one."""

    partition: int
    last_position: int
    next_from: int
    """Where to read on; `last_position + 1` when the page reached the end."""
    runs: tuple[Run, ...]

    def events(self) -> list[Event]:
        """The page's events in order of position."""
        return _events(self.runs, self.partition, True)


class TagPage(NamedTuple):
    """A page of a tag's events by number; `last_number` is the newest committed one.

    `runs` as in `StreamPage`; of a read by types they may hold events of other types too. `next_from` is 0
    when there is nothing further in this direction.
    """

    tag: str
    partition: int
    last_number: int
    next_from: int
    forward: bool
    runs: tuple[Run, ...]

    def events(self) -> list[Event]:
        """The events of its runs in reading order (descending if the read was backward)."""
        return _events(self.runs, self.partition, self.forward)


def _events(runs: Sequence[Run], partition: int, forward: bool) -> list[Event]:
    found: list[Event] = []
    for run in runs:
        events = run.events(partition)
        found += events if forward else reversed(events)
    return found


class MarkState(NamedTuple):
    """A mark. `position` and `generation` are 0 if it was never set (`index` is 0 then)."""

    partition: int
    name: str
    position: int
    generation: int
    index: int  # type: ignore[assignment]  # a field, not tuple.index
    """Log index of the append that moved it last."""


@dataclass(slots=True, frozen=True)
class ClusterView:
    """The cluster as one node sees it, as the JSON of `GET /v1/cluster`."""

    value: dict[str, Any]


Result = AppendResult | StreamPage | PartitionPage | TagPage | MarkState | ClusterView


_TOKEN = re.compile(r"([0-9]{1,6}):([0-9]{1,19})")
_INDEX_MAX = 2**63 - 1
_SHOWN_CHARS = 40


def parse_token(token: str, partition: int) -> int:
    """The log index that a token of this partition asks for (0 for no token); else `InvalidRequest`.

    The only place where a token becomes numbers: it comes from outside, and may be anything.
    """
    if not token:
        return 0
    found = _TOKEN.fullmatch(token)
    if found is None or int(found[2]) > _INDEX_MAX:
        raise InvalidRequest(f"token {token[:_SHOWN_CHARS]!r} is not one that an append returned")
    if int(found[1]) != partition:
        raise InvalidRequest(
            f"token {token!r} is of partition {found[1]}; this read is of partition {partition}"
        )
    return int(found[2])
