"""What the indexes of the replicated log answer from the database: streams, event ids, tags and marks.

Every question takes a `bound`: only rows with a smaller log index count. The others were cut off by a
truncation that is still in memory (`overlay`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from allsource.storage.model.audit import IndexCounts
from allsource.storage.model.entry import Place
from allsource.storage.model.log import MarkAt, StreamHead, StreamSlice, TagHead, TagSlice

_APPEND = """
    SELECT log_index, ordinal FROM log_parts
    WHERE partition_id = $1 AND first_id = $2 AND log_index < $3
    ORDER BY log_index DESC, ordinal DESC LIMIT 1
"""
# Used twice: for one stream, and for each stream of a page.
_HEAD = """
    SELECT last.first_version + last.event_count - 1, last.log_index, first.timestamp_us, last.timestamp_us
    FROM (SELECT * FROM log_parts
          WHERE partition_id = $1 AND stream_id = {stream} AND log_index < $2
          ORDER BY first_version DESC LIMIT 1) AS last
    JOIN log_parts AS first
      ON first.partition_id = $1 AND first.stream_id = {stream} AND first.first_version = 1
"""
_TAG_HEAD = """
    SELECT first_tag_number + event_count - 1, log_index FROM log_parts
    WHERE partition_id = $1 AND tag = $2 AND log_index < $3
    ORDER BY first_tag_number DESC LIMIT 1
"""
_MARK = """
    SELECT position, generation, log_index, ordinal FROM log_marks
    WHERE partition_id = $1 AND name = $2 AND log_index < $3
    ORDER BY log_index DESC, ordinal DESC LIMIT 1
"""


class _Slices:
    """The two statements that say where the events of a stream, or of a tag, are."""

    def __init__(self, columns: str, key: str, number: str) -> None:
        every = f"""
            FROM log_parts WHERE partition_id = $1 AND {key} = $2 AND log_index < $3 AND {number}"""
        self.forward = f"""
            SELECT {columns} {every} >= coalesce((SELECT max({number}) {every} <= $4), 0)
            ORDER BY {number} LIMIT $5
        """
        self.backward = f"SELECT {columns} {every} <= $4 ORDER BY {number} DESC LIMIT $5"


_STREAM_SLICES = _Slices(
    "first_version, event_count, log_index, part, timestamp_us", "stream_id", "first_version"
)
_TAG_SLICES = _Slices("first_tag_number, event_count, log_index, part", "tag", "first_tag_number")
# Jumps through the index from one name to the next, however many slices each stream has.
_STREAMS = f"""
    WITH RECURSIVE names AS (
        (SELECT stream_id FROM log_parts
         WHERE partition_id = $1 AND log_index < $2 AND stream_id > $3 AND stream_id >= $4
         ORDER BY stream_id LIMIT 1)
        UNION ALL
        SELECT (SELECT p.stream_id FROM log_parts p
                WHERE p.partition_id = $1 AND p.log_index < $2 AND p.stream_id > names.stream_id
                ORDER BY p.stream_id LIMIT 1)
        FROM names WHERE names.stream_id IS NOT NULL
    )
    SELECT page.stream_id, head.* FROM (
        SELECT stream_id FROM names WHERE starts_with(stream_id, $4) LIMIT $5
    ) AS page CROSS JOIN LATERAL ({_HEAD.format(stream="page.stream_id")})
    AS head (version, log_index, created_us, updated_us)
    ORDER BY page.stream_id
"""
_COUNTS = """
    SELECT count(DISTINCT stream_id), count(*), count(DISTINCT first_id), count(tag),
           (SELECT count(*) FROM log_marks WHERE partition_id = $1 AND log_index < $2)
    FROM log_parts WHERE partition_id = $1 AND log_index < $2
"""
_KNOWN = """
    SELECT count(DISTINCT stream_id) FROM log_parts
    WHERE partition_id = $1 AND log_index < $2 AND stream_id = ANY ($3::text[])
"""


async def place_of_append(
    connection: Any, partition: int, first_event_id: bytes, bound: int
) -> Place | None:
    """Where the append is whose part begins with the event of this id."""
    row = await connection.fetchrow(_APPEND, partition, first_event_id, bound)
    return Place(*row) if row else None


async def head(connection: Any, partition: int, stream: str, bound: int) -> StreamHead | None:
    """The stream's head."""
    row = await connection.fetchrow(_HEAD.format(stream="$3"), partition, bound, stream)
    return StreamHead(*row) if row else None


async def slices(
    connection: Any, partition: int, stream: str, version: int, bound: int, *, forward: bool, most: int
) -> list[StreamSlice]:
    """As `Storage.slices`."""
    rows = await _slices(connection, _STREAM_SLICES, partition, stream, version, bound, forward, most)
    return [StreamSlice(*row) for row in rows]


async def tag_slices(
    connection: Any, partition: int, tag: str, number: int, bound: int, *, forward: bool, most: int
) -> list[TagSlice]:
    """As `Storage.tag_slices`."""
    rows = await _slices(connection, _TAG_SLICES, partition, tag, number, bound, forward, most)
    return [TagSlice(*row) for row in rows]


async def _slices(
    connection: Any,
    statements: _Slices,
    partition: int,
    key: str,
    start: int,
    bound: int,
    forward: bool,
    most: int,
) -> list[Any]:
    if not forward:
        found: list[Any] = await connection.fetch(statements.backward, partition, key, bound, start, most)
        return found
    # One more than asked for, because the first slice may end before the start.
    rows = await connection.fetch(statements.forward, partition, key, bound, start, most + 1)
    return [row for row in rows if row[0] + row[1] > start][:most]


async def streams(
    connection: Any, partition: int, prefix: str, after: str, bound: int, limit: int
) -> list[tuple[str, StreamHead]]:
    """As `Storage.streams`."""
    rows = await connection.fetch(_STREAMS, partition, bound, after, prefix, limit)
    return [(row[0], StreamHead(*row[1:])) for row in rows]


async def tag_head(connection: Any, partition: int, tag: str, bound: int) -> TagHead | None:
    """The tag's newest event."""
    row = await connection.fetchrow(_TAG_HEAD, partition, tag, bound)
    return TagHead(*row) if row else None


async def mark(connection: Any, partition: int, name: str, bound: int) -> MarkAt | None:
    """The mark as the newest append left it."""
    row = await connection.fetchrow(_MARK, partition, name, bound)
    return MarkAt(*row) if row else None


async def counts(
    connection: Any, partition: int, bound: int, above: Sequence[str]
) -> tuple[IndexCounts, int]:
    """How many rows the database holds, and how many of the streams `above` it holds."""
    row = await connection.fetchrow(_COUNTS, partition, bound)
    return IndexCounts(*row), await connection.fetchval(_KNOWN, partition, bound, above)
