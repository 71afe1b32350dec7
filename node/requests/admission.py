"""Whether one append may happen, and as what: the owner's decision, without any I/O of its own.

The order of the questions is the contract (RULES.md rule 27): first whether these event ids are
known, then what version each stream has. So a retry gets the answer of the first attempt instead of
a conflict with itself.

Both questions are put to the log *with what is not committed yet*, because a second append must line
up behind the first before the first is confirmed. Answers that rest on uncommitted entries are held
back by the caller until those are committed; here they are only named (`Known.index`, `Unmet.index`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from allsource.cluster.protocol.requests import AppendedStream, AppendPart, AppendRequest, AppendResult
from allsource.config.schema import Limits
from allsource.storage.model.entry import Entry, Part
from allsource.storage.model.errors import EventIdConflict, InvalidRequest, TooLarge, WrongExpectedVersion
from allsource.storage.model.events import check_blob, same_content
from allsource.storage.model.expected import ANY, EXISTS, is_met, show_expected
from allsource.storage.model.log import StreamHead
from allsource.storage.model.partition import check_stream_id, partition_of

STREAMS_MAX = 1024
"""Streams in one append. More than 4096 would not fit into the arrays of a small frame (`codec`): what
one node takes from a caller, the next must be able to read."""
HEADS_MAX = 4096
"""Stream heads remembered for each partition, in each of two generations."""


class Indexes(Protocol):
    """The part of `Storage` that admission reads."""

    def head(self, partition: int, stream: str) -> StreamHead | None: ...

    def index_of_append(self, partition: int, first_event_id: bytes) -> int | None: ...


class LogView:
    """The newest stream heads and event ids of one partition at its owner, uncommitted ones included.

    Invariant: what it says equals a replay of the log in the core's memory. Storage has the log up
    to the last turn's write; what was proposed since is kept here until `written`. The heads that
    it remembers beyond that save a look into storage; two generations make a cheap "recently used".
    """

    __slots__ = ("_ids", "_indexes", "_old", "_young", "partition")

    def __init__(self, indexes: Indexes, partition: int) -> None:
        self.partition = partition
        self._indexes = indexes
        self._young: dict[str, tuple[int, int]] = {}
        self._old: dict[str, tuple[int, int]] = {}
        self._ids: dict[bytes, int] = {}

    def head(self, stream: str) -> tuple[int, int]:
        """`(version, index of the entry that holds it)`; zeros if there is no such stream."""
        found = self._young.get(stream)
        if found is None:
            found = self._old.get(stream)
            if found is None:
                head = self._indexes.head(self.partition, stream)
                found = (head.version, head.index) if head is not None else (0, 0)
            self._young[stream] = found
        return found

    def index_of_append(self, first_event_id: bytes) -> int | None:
        """Index of the entry whose append has this first event id."""
        found = self._ids.get(first_event_id)
        if found is None:
            found = self._indexes.index_of_append(self.partition, first_event_id)
        return found

    def proposed(self, entry: Entry) -> None:
        """The core took this entry; storage gets it with this turn's write."""
        index = entry.index
        for part in entry.parts:
            self._young[part.stream] = (part.first_version + part.count - 1, index)
            self._ids[part.first_id] = index

    def written(self) -> None:
        """Storage has everything that was proposed before."""
        self._ids.clear()
        if len(self._young) > HEADS_MAX:
            self._old = self._young
            self._young = {}

    def forget(self) -> None:
        """Leadership changed: others may have truncated or appended."""
        self._young.clear()
        self._old.clear()
        self._ids.clear()


@dataclass(slots=True, frozen=True)
class Known:
    """These event ids are in the log already, in the entry at `index`."""

    index: int


@dataclass(slots=True, frozen=True)
class Unmet:
    """The expectation fails; true for sure once `index`, which the actual version rests on, is
    committed and the leadership is confirmed."""

    error: WrongExpectedVersion
    index: int


def partition_of_append(request: AppendRequest, partition_count: int) -> int:
    """The one partition of an append's streams; raises `InvalidRequest` if there are several."""
    parts = request.parts
    if not parts:
        raise InvalidRequest("an append names at least one stream")
    if len(parts) > STREAMS_MAX:
        raise TooLarge(
            f"an append names at most {STREAMS_MAX} streams", limit=STREAMS_MAX, actual=len(parts)
        )
    stream = parts[0].stream
    check_stream_id(stream)
    partition = partition_of(stream, partition_count)
    if len(parts) > 1:
        _check_streams(parts, partition, partition_count)
    return partition


def _check_streams(parts: tuple[AppendPart, ...], partition: int, partition_count: int) -> None:
    for part in parts[1:]:
        check_stream_id(part.stream)
        other = partition_of(part.stream, partition_count)
        if other != partition:
            raise InvalidRequest(
                f"an append is atomic within one partition: stream {parts[0].stream!r} is in partition "
                f"{partition}, {part.stream!r} in {other}; give them a common {{tag}}",
                reason="cross_partition",
            )
    if len({part.stream for part in parts}) != len(parts):
        raise InvalidRequest("an append names each stream once")


def check_append(request: AppendRequest, limits: Limits) -> list[tuple[int, bytes]]:
    """Check what a caller sent, once, at the owner: `(events, first event id)` of each part.

    Raises `InvalidRequest` or `TooLarge`.
    """
    parts = request.parts
    size = 0
    for part in parts:
        size += len(part.blob)
        expected = part.expected
        if type(expected) is not int or expected < EXISTS:
            raise InvalidRequest(f"an expected version is a version or one of the words, not {expected!r}")
    if size > limits.append_bytes_max:
        raise TooLarge(
            f"an append has at most {limits.append_bytes_max} bytes",
            limit=limits.append_bytes_max,
            actual=size,
        )
    events_max, event_bytes_max = limits.append_events_max, limits.event_bytes_max
    checked = [check_blob(p.blob, events_max=events_max, event_bytes_max=event_bytes_max) for p in parts]
    if len(checked) > 1:
        events = sum([count for count, _ in checked])
        if events > events_max:
            raise TooLarge(f"at most {events_max} events in one append", limit=events_max, actual=events)
        if len({first_id for _, first_id in checked}) != len(checked):
            raise InvalidRequest("two events of one append have the same id")
    return checked


def admit(
    request: AppendRequest, checked: list[tuple[int, bytes]], view: LogView
) -> tuple[Part, ...] | Known | Unmet:
    """The parts to propose, with their versions; or why not."""
    for _, first_id in checked:
        index = view.index_of_append(first_id)
        if index is not None:
            return Known(index)
    admitted: list[Part] = []
    for part, (count, first_id) in zip(request.parts, checked, strict=True):
        version, index = view.head(part.stream)
        expected = part.expected
        if expected != ANY and not is_met(expected, version):
            error = WrongExpectedVersion(part.stream, show_expected(expected), version)
            return Unmet(error, index)
        admitted.append(Part(part.stream, version + 1, count, first_id, part.blob))
    return tuple(admitted)


def result_of(entry: Entry, *, duplicate: bool) -> AppendResult:
    """The answer to the append that a committed entry holds."""
    position = entry.first_position
    return AppendResult(
        entry.partition,
        entry.index,
        position,
        position + entry.count - 1,
        tuple(
            [AppendedStream(p.stream, p.first_version, p.first_version + p.count - 1) for p in entry.parts]
        ),
        duplicate,
    )


def answer_again(request: AppendRequest, entry: Entry) -> AppendResult | EventIdConflict:
    """The answer to a retry of the append that a committed entry holds, if it is one."""
    stored = {part.stream: part.blob for part in entry.parts}
    same = len(stored) == len(request.parts) and all(
        part.stream in stored and same_content(stored[part.stream], part.blob) for part in request.parts
    )
    if same:
        return result_of(entry, duplicate=True)
    return EventIdConflict(
        f"the event ids of this append are already stored in partition {entry.partition}, position "
        f"{entry.first_position}, with other content; a new append needs new event ids",
        partition=entry.partition,
        first_position=entry.first_position,
    )
