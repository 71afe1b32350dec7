"""The one decision about an append: may it happen, and as what? For every storage and every door.

The questions come in this order, and the order is the contract (RULES.md rule 27):

1. *Is it well formed?* `partition_of_append` looks at the streams, `check_append` at everything else. What
   is wrong is `InvalidRequest` or `TooLarge`, whatever is stored, so also for a retry.
2. *Are its event ids known?* Each stream's part is known by its first event id. A retry gets the first
   answer again, even if its expected version has long passed. The same ids with other content are a
   conflict (`answer_again`).
3. *Does each stream meet its expectation?* The first one that does not refuses the whole append.
4. Then each part goes on behind its stream's version: `first_version = version + 1`.

`decide` puts 2 and 3 to a `Log`. The caller says what counts as being in it. A partition's owner counts
entries that are not committed yet (`node.requests.log_view`), an embedded repository counts what is
written, and PostgreSQL counts what is there while a transaction holds the partition's lock. In the first
two, what an answer rests on may still be lost. So the decision names it (`Known.index`, `Unmet.index`), and
the caller answers when it is safe.

Positions are not given here. They go on behind the end of the log, which is known to whoever writes it.

Pure, and on the path of every append: measure before and after a change.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from allsource.storage.model.answers import AppendedStream, AppendResult
from allsource.storage.model.arguments import shown
from allsource.storage.model.entry import Part
from allsource.storage.model.errors import EventIdConflict, InvalidRequest, TooLarge, WrongExpectedVersion
from allsource.storage.model.events import (
    SAME_ID,
    Events,
    as_events,
    check_blob,
    encode_blob,
    same_content,
    too_many_events,
)
from allsource.storage.model.expected import ANY, EXISTS, Expectation, is_met, parse_expected, show_expected
from allsource.storage.model.partition import check_stream_id, partition_of

STREAMS_MAX = 1024
"""Streams in one append. More than 4096 would not fit into the arrays of a small frame (`codec`): what
one node takes from a caller, the next must be able to read."""


class AppendPart(NamedTuple):
    """Events for one stream: `blob` as in `model.events`, `expected` as in `model.expected`."""

    stream: str
    expected: int
    blob: bytes


class AppendLimits(Protocol):
    """The limits of an append (`config.schema.Limits` has them)."""

    @property
    def append_events_max(self) -> int: ...

    @property
    def append_bytes_max(self) -> int: ...

    @property
    def event_bytes_max(self) -> int: ...


class Log(Protocol):
    """What is known of one partition's log."""

    def index_of_append(self, first_event_id: bytes) -> int | None:
        """Where the append is whose part begins with this event; None if there is none."""
        ...

    def head(self, stream: str) -> tuple[int, int]:
        """`(version, where the append is that made it)`; zeros if there is no such stream."""
        ...


class Stored(Protocol):
    """An append that is stored. A log entry is one."""

    @property
    def partition(self) -> int: ...

    @property
    def index(self) -> int: ...

    @property
    def first_position(self) -> int: ...

    @property
    def count(self) -> int: ...

    @property
    def parts(self) -> tuple[Part, ...]: ...


# -- 1. is it well formed?


def append_part(stream: str, events: Events, expected_version: Expectation) -> AppendPart:
    """The events for one stream, packed, from a caller's values; raises `InvalidRequest`."""
    check_stream_id(stream)
    blob = encode_blob(as_events(events))
    return AppendPart(stream, ANY if expected_version == "any" else parse_expected(expected_version), blob)


def append_parts(argument: str, appends: Iterable[object]) -> list[AppendPart]:
    """The same for several streams. `argument` is what the caller's argument is called."""
    packed = []
    for number, append in enumerate(appends):
        if not isinstance(append, tuple | list) or len(append) != 3:
            raise InvalidRequest(
                f"{argument}[{number}] must be a StreamAppend, or (stream, events, expected_version),"
                f" not {shown(append)}"
            )
        packed.append(append_part(*append))
    return packed


def partition_of_append(parts: Sequence[AppendPart], partition_count: int) -> int:
    """The one partition of an append's streams; raises `InvalidRequest` if there are several, or none."""
    if not parts:
        raise InvalidRequest("an append names at least one stream")
    if len(parts) > STREAMS_MAX:
        raise TooLarge(
            f"an append names at most {STREAMS_MAX} streams; split it", limit=STREAMS_MAX, actual=len(parts)
        )
    stream = parts[0].stream
    check_stream_id(stream)
    partition = partition_of(stream, partition_count)
    if len(parts) > 1:
        _check_streams(parts, partition, partition_count)
    return partition


def _check_streams(parts: Sequence[AppendPart], partition: int, partition_count: int) -> None:
    for part in parts[1:]:
        check_stream_id(part.stream)
    partitions = {part.stream: partition_of(part.stream, partition_count) for part in parts}
    for stream, other in partitions.items():
        if other != partition:
            raise InvalidRequest(
                f"an append is atomic within one partition: stream {parts[0].stream!r} is in partition "
                f"{partition}, {stream!r} in {other}; give them a common {{tag}}",
                reason="cross_partition",
                partitions=partitions,
            )
    if len(partitions) != len(parts):
        raise InvalidRequest("an append names each stream once; put a stream's events in one list")


def check_append(parts: Sequence[AppendPart], limits: AppendLimits) -> list[tuple[int, bytes]]:
    """Check what a caller sent, once: `(events, first event id)` of each part.

    Raises `InvalidRequest` or `TooLarge`. The streams are `partition_of_append`'s to check.
    """
    size = 0
    for part in parts:
        size += len(part.blob)
        expected = part.expected
        if type(expected) is not int or expected < EXISTS:
            raise InvalidRequest(f"an expected version is a version or one of the words, not {expected!r}")
    if size > limits.append_bytes_max:
        raise too_many_bytes(limits.append_bytes_max, size)
    events_max, event_bytes_max = limits.append_events_max, limits.event_bytes_max
    checked = [check_blob(p.blob, events_max=events_max, event_bytes_max=event_bytes_max) for p in parts]
    if len(checked) > 1:
        events = sum([count for count, _ in checked])
        if events > events_max:
            raise too_many_events(events_max, events)
        if len({first_id for _, first_id in checked}) != len(checked):
            raise InvalidRequest(SAME_ID)
    return checked


def too_many_bytes(most: int, actual: int) -> TooLarge:
    """The refusal of an append that is larger than `append_bytes_max`."""
    return TooLarge(f"an append has at most {most} bytes; split it", limit=most, actual=actual)


# -- 2. and 3. is it known, and is it what its writer expects?


@dataclass(slots=True, frozen=True)
class Known:
    """Some of these event ids are in the log already; the oldest append that has one is at `index`."""

    index: int


@dataclass(slots=True, frozen=True)
class Unmet:
    """The expectation fails. That may be answered when two things are sure: the append at `index`, which
    made the actual version, stays; and nobody else has appended to this log meanwhile."""

    error: WrongExpectedVersion
    index: int


def decide(
    parts: Sequence[AppendPart], checked: Sequence[tuple[int, bytes]], log: Log
) -> tuple[Part, ...] | Known | Unmet:
    """The parts to append, with their versions; or why not. `checked` is what `check_append` said."""
    known: int | None = None
    for _, first_id in checked:
        index = log.index_of_append(first_id)
        if index is not None and (known is None or index < known):
            known = index
    if known is not None:
        return Known(known)
    decided: list[Part] = []
    for part, (count, first_id) in zip(parts, checked, strict=True):
        version, index = log.head(part.stream)
        expected = part.expected
        if expected != ANY and not is_met(expected, version):
            return Unmet(WrongExpectedVersion(part.stream, show_expected(expected), version), index)
        decided.append(Part(part.stream, version + 1, count, first_id, part.blob))
    return tuple(decided)


# -- the answers


def result_of(stored: Stored, *, duplicate: bool) -> AppendResult:
    """The answer to an append that is stored."""
    position = stored.first_position
    return AppendResult(
        stored.partition,
        stored.index,
        position,
        position + stored.count - 1,
        tuple(
            [AppendedStream(p.stream, p.first_version, p.first_version + p.count - 1) for p in stored.parts]
        ),
        duplicate,
    )


def answer_again(parts: Sequence[AppendPart], stored: Stored) -> AppendResult | EventIdConflict:
    """The answer to an append whose ids are `Known`. A retry (all of its events and no others, its streams
    in whatever order) gets the answer of the first attempt."""
    before = {part.stream: part.blob for part in stored.parts}
    same = len(before) == len(parts) and all(
        part.stream in before and same_content(before[part.stream], part.blob) for part in parts
    )
    if same:
        return result_of(stored, duplicate=True)
    return EventIdConflict(
        f"the event ids of this append are already stored in partition {stored.partition}, position "
        f"{stored.first_position}, with other content; a new append needs new event ids",
        partition=stored.partition,
        first_position=stored.first_position,
    )
