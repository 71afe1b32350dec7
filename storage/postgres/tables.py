"""Writing `events`, `event_streams` and `marks`: one statement, for an append and for a node's copying.

The statement is also the last wall of optimistic locking: a stream is only moved from the version that
the writer saw, a mark only forward, and the statement says how many it moved. A smaller number than was
asked for means that somebody else moved one first: the writer must roll back. Behind that stand the tables'
own constraints.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from allsource.storage.model.chunks import Chunk, unpack_chunks
from allsource.storage.model.entry import Mark, Part
from allsource.storage.model.events import Event
from allsource.storage.model.partition import tag_of

_APPENDED = """
WITH wanted AS (
    SELECT stream_id, partition_id, before, version, expected,
           timestamptz 'epoch' + created_us * interval '1 microsecond' AS created_at,
           timestamptz 'epoch' + updated_us * interval '1 microsecond' AS updated_at
    FROM unnest($1::text[], $2::integer[], $3::bigint[], $4::bigint[], $5::bigint[],
                $6::bigint[], $7::bigint[])
         AS w (stream_id, partition_id, before, version, expected, created_us, updated_us)
), made AS (
    INSERT INTO event_streams AS s
        (stream_id, partition_id, current_version, watermark, expected_version, created_at, updated_at)
    SELECT stream_id, partition_id, version, version, expected, created_at, updated_at
    FROM wanted WHERE before = 0
    ON CONFLICT (stream_id) DO UPDATE
    SET current_version = excluded.current_version, watermark = excluded.watermark,
        expected_version = excluded.expected_version, updated_at = excluded.updated_at
    WHERE s.current_version = 0
    RETURNING 1
), moved AS (
    UPDATE event_streams s
    SET current_version = w.version, watermark = w.version,
        expected_version = w.expected, updated_at = w.updated_at
    FROM wanted w
    WHERE w.before > 0 AND s.stream_id = w.stream_id AND s.current_version = w.before
    RETURNING 1
), ended AS (
    UPDATE partitions p
    SET last_position = e.last_position, last_timestamp_us = e.timestamp_us, log_index = e.log_index
    FROM unnest($8::integer[], $9::bigint[], $10::bigint[], $11::bigint[])
         AS e (partition_id, last_position, timestamp_us, log_index)
    WHERE p.partition_id = e.partition_id
), stored AS (
    INSERT INTO events
        (id, stream_id, version, partition_id, position, tag, tag_number, event_type, payload, metadata,
         timestamp, encoding, data, metadata_bytes, append_position, part_count)
    SELECT encode(e.id, 'hex')::uuid, e.stream_id, ($12::bigint[])[e.part] + e.number,
           ($13::integer[])[e.part], ($14::bigint[])[e.part] + e.number,
           e.tag, CASE WHEN e.tag IS NOT NULL THEN ($15::bigint[])[e.part] + e.number END, e.event_type,
           CASE WHEN e.encoding = 0 THEN try_jsonb(e.data) END,
           CASE WHEN e.metadata <> '' THEN try_jsonb(e.metadata) END,
           timestamptz 'epoch' + ($16::bigint[])[e.part] * interval '1 microsecond',
           e.encoding, e.data, e.metadata, ($17::bigint[])[e.part],
           CASE WHEN e.number = ($18::bigint[])[e.part] THEN ($19::integer[])[e.part] END
    FROM unnest($20::integer[], $21::text[], $22::text[], $23::bytea[], $24::text[],
                $25::bytea[], $26::bytea[], $27::smallint[])
         WITH ORDINALITY AS e (part, stream_id, tag, id, event_type, data, metadata, encoding, number)
)
"""
_COUNT = "SELECT (SELECT count(*) FROM made) + (SELECT count(*) FROM moved)"
_MARKED = """, marked AS (
    INSERT INTO marks AS m (partition_id, name, position, generation, append_position)
    SELECT * FROM unnest($28::integer[], $29::text[], $30::bigint[], $31::bigint[], $32::bigint[])
    ON CONFLICT (partition_id, name) DO UPDATE
    SET position = excluded.position, generation = excluded.generation,
        append_position = excluded.append_position
    WHERE (m.generation, m.position) < (excluded.generation, excluded.position)
    RETURNING 1
)
"""
_RECORD = f"{_APPENDED} {_COUNT}"
_RECORD_WITH_MARKS = f"{_APPENDED} {_MARKED} {_COUNT} + (SELECT count(*) FROM marked)"
"""They take `Recording.arguments()` and answer how many streams and marks were moved.

Each event has the number of its part. What the events of a part share is sent once for each part, in arrays
of their own (a third less to send for a hundred events). Subscripts, because a join's plan would depend on
how many there are; streams and tags are repeated, because a subscript into an array of texts is a search.
"""

EVENT_COLUMNS = (
    "stream_id, version, partition_id, position,"
    # Exact until the year 2106 (2^32 seconds), and a tenth of the cost of a numeric.
    " (date_part('epoch', timestamp) * 1000000)::bigint,"
    " uuid_send(id), event_type, data, metadata_bytes, encoding, coalesce(tag_number, 0)"
)
"""The fields of an `Event`, in its order."""


def events_of(rows: Iterable[Iterable[Any]]) -> list[Event]:
    """The events in rows of `EVENT_COLUMNS`."""
    make = tuple.__new__
    return [make(Event, row) for row in rows]


@dataclass(slots=True)
class _Moved:
    """How a recording moves one stream."""

    partition: int
    before: int
    version: int
    expected: int | None
    created_us: int
    updated_us: int


@dataclass(slots=True)
class _End:
    """Where a recording leaves a partition."""

    last_position: int
    timestamp_us: int
    log_index: int


class _Part(NamedTuple):
    """What the events of one part share. An event's number in the recording, plus a base, is its version,
    its position or its number under its tag."""

    version_base: int
    partition: int
    position_base: int
    tag_base: int
    timestamp_us: int
    append_position: int
    first_number: int
    event_count: int


@dataclass(slots=True)
class Recording:
    """Appends to be recorded together, in order."""

    _streams: dict[str, _Moved] = field(default_factory=dict)
    _ends: dict[int, _End] = field(default_factory=dict)
    _parts: list[_Part] = field(default_factory=list)
    _events: list[tuple[Any, ...]] = field(default_factory=list)
    _marks: dict[tuple[int, str], tuple[int, int, int]] = field(default_factory=dict)
    """Position, generation and the append's position."""

    def __len__(self) -> int:
        return len(self._events)

    @property
    def moved_count(self) -> int:
        """How many streams and marks the statement must move."""
        return len(self._streams) + len(self._marks)

    def add(
        self,
        partition: int,
        parts: Iterable[tuple[Part, Sequence[Chunk]]],
        marks: Iterable[Mark],
        first_position: int,
        timestamp_us: int,
        *,
        expected: Sequence[int | None] | None = None,
    ) -> None:
        """One append: its parts with their chunks, and its marks."""
        position = first_position
        for number, (part, chunks) in enumerate(parts):
            self._move(part, partition, timestamp_us, expected[number] if expected else None)
            first = len(self._events) + 1
            self._parts.append(
                _Part(
                    part.first_version - first,
                    partition,
                    position - first,
                    part.first_tag_number - first,
                    timestamp_us,
                    first_position,
                    first,
                    part.count,
                )
            )
            place = (len(self._parts), part.stream, tag_of(part.stream) if part.first_tag_number else None)
            self._events += [(*place, *event) for event in unpack_chunks(chunks)]
            position += part.count
        for name, mark_position, generation in marks:
            self._marks[partition, name] = (mark_position, generation, first_position)
        self.end(partition, position - 1, timestamp_us)

    def end(self, partition: int, last_position: int, timestamp_us: int, log_index: int = 0) -> None:
        """The partition ends so. (`add` says it, too.)"""
        self._ends[partition] = _End(last_position, timestamp_us, log_index)

    def _move(self, part: Part, partition: int, timestamp_us: int, expected: int | None) -> None:
        moved = self._streams.get(part.stream)
        if moved is None:
            self._streams[part.stream] = _Moved(
                partition, part.first_version - 1, part.last_version, expected, timestamp_us, timestamp_us
            )
        else:
            moved.version, moved.updated_us = part.last_version, timestamp_us

    @property
    def statement(self) -> str:
        """What records it."""
        return _RECORD_WITH_MARKS if self._marks else _RECORD

    def arguments(self) -> list[Any]:
        """What the statement takes."""
        moved, ends = self._streams.values(), self._ends.values()
        return [
            list(self._streams),
            [one.partition for one in moved],
            [one.before for one in moved],
            [one.version for one in moved],
            [one.expected for one in moved],
            [one.created_us for one in moved],
            [one.updated_us for one in moved],
            list(self._ends),
            [end.last_position for end in ends],
            [end.timestamp_us for end in ends],
            [end.log_index for end in ends],
            *_columns(self._parts, 8),
            *_columns(self._events, 8),
            *(_columns([(*key, *mark) for key, mark in self._marks.items()], 5) if self._marks else ()),
        ]


def _columns(rows: Sequence[tuple[Any, ...]], width: int) -> list[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)] or [[] for _ in range(width)]
