"""The one decision about an append: may it happen, and as what? For every storage and every door.

The questions come in this order, and the order is the contract (RULES.md rule 27):

1. *Is it well formed?* `partition_of_append` looks at the streams, `check_append` at everything else. What
   is wrong is `InvalidRequest` or `TooLarge`, whatever is stored, so also for a retry.
2. *Is it known?* Each stream's part is known by its first event id. A retry gets the first answer again,
   even if what it expects has long passed; its marks are not looked at, they were moved with its events.
   The same ids with other events are a conflict (`answer_again`). An append that only moves marks has no
   event ids: it is known if every mark is exactly where it would move it.
3. *Is everything as expected?* First each mark, which must lie behind (`moves`), then the tag at its
   number, then each stream at its version. The first that is not refuses the whole append.
4. Then each part goes on behind its stream's version: `first_version = version + 1`, and its events get the
   next numbers of its tag.

`decide` puts 2 and 3 to a `Log`. The caller says what counts as being in it. A partition's owner counts
entries that are not committed yet (`node.requests.log_view`), an embedded repository counts what is
written, and PostgreSQL counts what is there while a transaction holds the partition's lock. In the first
two, what an answer rests on may still be lost. So the decision names it (`Known.place`, `Unmet.index`), and
the caller answers when it is safe.

Positions are not given here. They go on behind the end of the log, which is known to whoever writes it.

Pure, and on the path of every append: measure before and after a change.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, NamedTuple, Protocol

import msgspec

from allsource.storage.model.answers import AppendedStream, AppendResult
from allsource.storage.model.arguments import NUMBER_MAX, shown
from allsource.storage.model.chunks import (
    CheckedEvents,
    Chunk,
    check_chunks,
    pack_events,
    same_content,
)
from allsource.storage.model.entry import Append, Mark, NewAppend, Part, Place, StoredAppend, chunk_heads
from allsource.storage.model.errors import (
    EventIdConflict,
    InvalidRequest,
    MarkRefused,
    TooLarge,
    WrongExpectedTag,
    WrongExpectedVersion,
)
from allsource.storage.model.events import SAME_ID, Events, as_events, too_many_events
from allsource.storage.model.expected import ANY, EXISTS, Expectation, is_met, parse_expected, show_expected
from allsource.storage.model.log import MarkAt
from allsource.storage.model.partition import (
    check_name,
    check_own_stream,
    check_stream_id,
    partition_of,
    tag_of,
)

MARKS_MAX = 1024
"""Marks that one append may move."""
STREAMS_MAX = 1024
"""Streams in one append. More than 4096 would not fit into the arrays of a small frame (`codec`): what
one node takes from a caller, the next must be able to read."""


class AppendPart(NamedTuple):
    """Events for one stream: packed as in `model.chunks`, `expected` as in `model.expected`."""

    stream: str
    expected: Annotated[int, msgspec.Meta(ge=EXISTS, le=NUMBER_MAX)]
    chunks: tuple[Chunk, ...]

    @property
    def size(self) -> int:
        """Bytes of its chunks, compressed or not, whichever is more."""
        return size_of(self.chunks)


def size_of(chunks: Sequence[Chunk]) -> int:
    """`AppendPart.size`."""
    size = 0
    for _, raw_size, _, data in chunks:
        stored = len(data)
        size += raw_size if raw_size > stored else stored
    return size


class AppendRequest(NamedTuple):
    """Append to one or several streams of one partition, and move marks of it: all or nothing. A tuple,
    because every door makes one of each append.

    `expected_tag`: the number of the newest event of the streams' tag; `ANY` for whatever it is.
    `partition`: must be said where there are no streams to say it; -1 otherwise.
    """

    parts: tuple[AppendPart, ...]
    expected_tag: int = ANY
    marks: tuple[Mark, ...] = ()
    partition: int = -1


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

    def place_of_append(self, first_event_id: bytes) -> Place | None:
        """Where the append is whose part begins with this event; None if there is none."""
        ...

    def head(self, stream: str) -> tuple[int, int]:
        """`(version, where the append is that made it)`; zeros if there is no such stream."""
        ...

    def tag(self, tag: str) -> tuple[int, int]:
        """`(newest number, where the append is that made it)`; zeros if the tag has no event."""
        ...

    def mark(self, name: str) -> MarkAt | None:
        """The mark, None if it was never set."""
        ...


# -- 1. is it well formed?


def append_part(
    stream: str, events: Events, expected_version: Expectation, *, compress: bool = True
) -> AppendPart:
    """The events for one stream, packed, from a caller's values; raises `InvalidRequest`."""
    check_stream_id(stream)
    check_own_stream(stream)
    chunks = pack_events(as_events(events), compress=compress)
    return AppendPart(
        stream, ANY if expected_version == "any" else parse_expected(expected_version), chunks
    )


def append_parts(argument: str, appends: Iterable[object], *, compress: bool = True) -> list[AppendPart]:
    """The same for several streams. `argument` is what the caller's argument is called."""
    packed = []
    for number, append in enumerate(appends):
        if not isinstance(append, tuple | list) or len(append) != 3:
            raise InvalidRequest(
                f"{argument}[{number}] must be a StreamAppend, or (stream, events, expected_version),"
                f" not {shown(append)}"
            )
        packed.append(append_part(*append, compress=compress))
    return packed


def append_request(
    argument: str,
    appends: Iterable[object],
    expected_tag: int | None,
    marks: Iterable[object],
    partition: int = -1,
    *,
    compress: bool = True,
) -> AppendRequest:
    """The append of a caller's values; raises `InvalidRequest`. `argument` as in `append_parts`."""
    parts = append_parts(argument, appends, compress=compress)
    moved = []
    for number, mark in enumerate(marks):
        if not isinstance(mark, tuple | list) or len(mark) != 3:
            raise InvalidRequest(
                f"marks[{number}] must be a Mark, or (name, position, generation), not {shown(mark)}"
            )
        moved.append(Mark(*mark))
    return AppendRequest(
        tuple(parts), ANY if expected_tag is None else expected_tag, tuple(moved), partition
    )


def partition_of_append(request: AppendRequest, partition_count: int) -> int:
    """The one partition of an append's streams; raises `InvalidRequest` if there are several, or none."""
    parts = request.parts
    if not parts:
        return _partition_of_marks(request, partition_count)
    if len(parts) > STREAMS_MAX:
        raise TooLarge(
            f"an append names at most {STREAMS_MAX} streams; split it", limit=STREAMS_MAX, actual=len(parts)
        )
    stream = parts[0].stream
    check_stream_id(stream)
    partition = partition_of(stream, partition_count)
    if len(parts) > 1:
        _check_streams(parts, partition, partition_count)
    if request.partition not in (-1, partition):
        raise InvalidRequest(
            f"stream {stream!r} is in partition {partition}, not {request.partition}",
            reason="cross_partition",
        )
    return partition


def _partition_of_marks(request: AppendRequest, partition_count: int) -> int:
    if not request.marks:
        raise InvalidRequest("an append names at least one stream")
    if not 0 <= request.partition < partition_count:
        raise InvalidRequest(
            f"an append of marks alone says its partition: 0 to {partition_count - 1}, "
            f"not {request.partition}"
        )
    return request.partition


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


def check_append(request: AppendRequest, limits: AppendLimits) -> list[CheckedEvents]:
    """Check what a caller sent, once, and say what is known of each part's events.

    Raises `InvalidRequest` or `TooLarge`. The partition is `partition_of_append`'s to check.
    """
    parts = request.parts
    size = 0
    for stream, expected, chunks in parts:
        size += size_of(chunks)
        if type(expected) is not int or not EXISTS <= expected <= NUMBER_MAX:
            raise InvalidRequest(
                f"an expected version is a version or one of the words, not {shown(expected)}"
            )
        check_own_stream(stream)
    if size > limits.append_bytes_max:
        raise too_many_bytes(limits.append_bytes_max, size)
    if request.marks:
        check_marks(request.marks)
    if request.expected_tag != ANY:
        check_expected_tag(request)
    events_max, event_bytes_max = limits.append_events_max, limits.event_bytes_max
    checked = [
        check_chunks(p.chunks, events_max=events_max, event_bytes_max=event_bytes_max) for p in parts
    ]
    if len(checked) > 1:
        events = sum([part.count for part in checked])
        if events > events_max:
            raise too_many_events(events_max, events)
        if len({part.first_id for part in checked}) != len(checked):
            raise InvalidRequest(SAME_ID)
    return checked


def check_marks(marks: Sequence[Mark]) -> None:
    """Raise `InvalidRequest` or `TooLarge` unless these may be the marks of an append."""
    if len(marks) > MARKS_MAX:
        raise too_many_marks(len(marks))
    for name, position, generation in marks:
        check_name(name, "a mark")
        for what, number in (("position", position), ("generation", generation)):
            if type(number) is not int or not 0 <= number <= NUMBER_MAX:
                raise InvalidRequest(f"mark {name!r}: its {what} is a number from 0, not {shown(number)}")
    if len({mark.name for mark in marks}) != len(marks):
        raise InvalidRequest("an append moves each mark once")


def check_expected_tag(request: AppendRequest) -> None:
    """Raise `InvalidRequest` unless the append may expect something of its streams' tag."""
    expected = request.expected_tag
    if type(expected) is not int or not 0 <= expected <= NUMBER_MAX:
        raise InvalidRequest(f"expected_tag is a number from 0, not {shown(expected)}")
    tags = {tag_of(part.stream) for part in request.parts}
    if len(tags) != 1 or "" in tags:
        raise InvalidRequest("expected_tag is for an append whose streams all have the same {tag}")


def too_many_marks(actual: int) -> TooLarge:
    """The refusal of an append that moves more than `MARKS_MAX` marks."""
    return TooLarge(f"an append moves at most {MARKS_MAX} marks; split it", limit=MARKS_MAX, actual=actual)


def too_many_bytes(most: int, actual: int) -> TooLarge:
    """The refusal of an append that is larger than `append_bytes_max`."""
    return TooLarge(f"an append has at most {most} bytes; split it", limit=most, actual=actual)


# -- 2. and 3. is it known, and is it what its writer expects?


@dataclass(slots=True, frozen=True)
class Known:
    """Some of these event ids are in the log already; the oldest append that has one is at `place`."""

    place: Place


@dataclass(slots=True, frozen=True)
class Unmet:
    """An expectation fails. That may be answered when two things are sure: the append at `index`, on which
    the refusal rests, stays; and nobody else has appended to this log meanwhile."""

    error: WrongExpectedVersion | WrongExpectedTag | MarkRefused
    index: int


def decide(request: AppendRequest, checked: Sequence[CheckedEvents], log: Log) -> NewAppend | Known | Unmet:
    """The append with its versions; or why not. `checked` is what `check_append` said."""
    known: Place | None = None
    for _, first_id, _ in checked:
        place = log.place_of_append(first_id)
        if place is not None and (known is None or place < known):
            known = place
    if known is not None:
        return Known(known)
    if request.marks and (settled := _decide_marks(request, log)) is not None:
        return settled
    if request.expected_tag != ANY:
        tag = tag_of(request.parts[0].stream)
        number, index = log.tag(tag)
        if number != request.expected_tag:
            return Unmet(WrongExpectedTag(tag, request.expected_tag, number), index)
    make = tuple.__new__  # half the time of the classes themselves
    decided: list[Part] = []
    data: list[bytes] = []
    numbers: dict[str, int] = {}
    for (stream, expected, chunks), (count, first_id, types) in zip(request.parts, checked, strict=True):
        version, index = log.head(stream)
        if expected != ANY and not is_met(expected, version):
            return Unmet(WrongExpectedVersion(stream, show_expected(expected), version), index)
        first_number = 0
        if "{" in stream and (tag := tag_of(stream)):
            first_number = (numbers.get(tag) or log.tag(tag)[0]) + 1
            numbers[tag] = first_number + count - 1
        part = (stream, version + 1, count, first_id, first_number, types, chunk_heads(chunks))
        decided.append(make(Part, part))
        for _, _, _, packed in chunks:
            data.append(packed)
    return make(NewAppend, (make(Append, (tuple(decided), request.marks)), tuple(data)))


def _decide_marks(request: AppendRequest, log: Log) -> Known | Unmet | None:
    """None if every mark may be moved."""
    stored = [log.mark(mark.name) for mark in request.marks]
    if not request.parts and all(
        before is not None and before[:2] == mark[1:]
        for before, mark in zip(stored, request.marks, strict=True)
    ):
        return Known(max(Place(before.index, before.ordinal) for before in stored if before is not None))
    for before, (name, position, generation) in zip(stored, request.marks, strict=True):
        if before is not None and not moves(before, position, generation):
            return Unmet(MarkRefused(name, before.position, before.generation), before.index)
    return None


def moves(before: MarkAt, position: int, generation: int) -> bool:
    """Whether a mark that is there may be moved so: never back, and never by an older generation."""
    return generation > before.generation or (
        generation == before.generation and position > before.position
    )


# -- the answers


def result_of(stored: StoredAppend, *, duplicate: bool) -> AppendResult:
    """The answer to an append that is stored."""
    partition, index, position, parts = stored
    count = 0
    streams = []
    for part in parts:
        count += part.count
        streams.append(AppendedStream(part.stream, part.first_version, part.first_version + part.count - 1))
    return AppendResult(partition, index, position, position + count - 1, tuple(streams), duplicate)


def answer_again(
    request: AppendRequest, stored: StoredAppend, content: Sequence[Sequence[Chunk]]
) -> AppendResult | EventIdConflict:
    """The answer to an append whose ids are `Known`; `content` are the chunks of each part that is stored.
    A retry (all of its events and no others, its streams in whatever order, whatever its marks) gets the
    answer of the first attempt. Raises `Corrupt` if what is stored has gone bad."""
    if not request.parts:
        return result_of(stored._replace(parts=()), duplicate=True)
    parts = request.parts
    before = {part.stream: chunks for part, chunks in zip(stored.parts, content, strict=True)}
    same = len(before) == len(parts) and all(
        part.stream in before and same_content(before[part.stream], part.chunks) for part in parts
    )
    if same:
        return result_of(stored, duplicate=True)
    return EventIdConflict(
        f"the event ids of this append are already stored in partition {stored.partition}, position "
        f"{stored.first_position}, with other content; a new append needs new event ids",
        partition=stored.partition,
        first_position=stored.first_position,
    )
