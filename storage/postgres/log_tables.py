"""The replicated log in the database: its statements, and what they take and answer.

Every question takes a `bound`: only rows with a smaller log index count. The others were cut off by a
truncation that is still in memory (`overlay`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from allsource.storage.model.entry import CONFIG, Configuration, decode_entry
from allsource.storage.model.log import (
    ConfigurationAt,
    HardState,
    LogMarks,
    StreamHead,
    StreamSlice,
    TermStart,
)
from allsource.storage.postgres.overlay import Layer

WRITE = f"SELECT write_log({', '.join(f'${n}' for n in range(1, 25))})"
ROWS_MAX = 1024

_ENTRIES = f"""
    SELECT log_index, record FROM (
        SELECT log_index, record, sum(octet_length(record)) OVER (ORDER BY log_index) AS total
        FROM log WHERE partition_id = $1 AND log_index BETWEEN $2 AND $3
        ORDER BY log_index LIMIT {ROWS_MAX}
    ) AS found WHERE total <= $4 OR log_index = $2
    ORDER BY log_index
"""
_ENTRIES_AT = "SELECT log_index, record FROM log WHERE partition_id = $1 AND log_index = ANY ($2::bigint[])"
_POSITION = """
    SELECT log_index FROM log
    WHERE partition_id = $1 AND event_count > 0 AND first_position <= $2 AND log_index < $3
    ORDER BY first_position DESC LIMIT 1
"""
_APPEND = (
    "SELECT max(log_index) FROM log_parts WHERE partition_id = $1 AND first_id = $2 AND log_index < $3"
)
# Used twice: for one stream, and for each stream of a page.
_HEAD = """
    SELECT last.first_version + last.event_count - 1, last.log_index, began.timestamp_us, ended.timestamp_us
    FROM (SELECT * FROM log_parts
          WHERE partition_id = $1 AND stream_id = {stream} AND log_index < $2
          ORDER BY first_version DESC LIMIT 1) AS last
    JOIN log_parts AS first
      ON first.partition_id = $1 AND first.stream_id = {stream} AND first.first_version = 1
    JOIN log AS began ON began.partition_id = $1 AND began.log_index = first.log_index
    JOIN log AS ended ON ended.partition_id = $1 AND ended.log_index = last.log_index
"""
_SLICES = """
    SELECT first_version, event_count, log_index FROM log_parts
    WHERE partition_id = $1 AND stream_id = $2 AND log_index < $3 AND first_version {bound}
    ORDER BY first_version {order} LIMIT $5
"""
_FORWARD = _SLICES.format(
    bound="""
        >= coalesce((SELECT max(first_version) FROM log_parts
                     WHERE partition_id = $1 AND stream_id = $2 AND log_index < $3 AND first_version <= $4),
                    0)""",
    order="",
)
_BACKWARD = _SLICES.format(bound="<= $4", order="DESC")
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
    SELECT count(DISTINCT stream_id), count(*), count(DISTINCT first_id) FROM log_parts
    WHERE partition_id = $1 AND log_index < $2
"""
_KNOWN = """
    SELECT count(DISTINCT stream_id) FROM log_parts
    WHERE partition_id = $1 AND log_index < $2 AND stream_id = ANY ($3::text[])
"""


class Loaded(NamedTuple):
    """What a start reads of a partition; the last record is not verified yet."""

    hard: HardState
    last_record: bytes | None
    last_index: int
    marks: LogMarks


async def load(connection: Any, partition: int) -> Loaded:
    """One partition as it stands in the database."""
    hard = await connection.fetchrow(
        "SELECT term, vote, commit_index FROM hard_states WHERE partition_id = $1", partition
    )
    last = await connection.fetchrow(
        "SELECT record, log_index FROM log WHERE partition_id = $1 ORDER BY log_index DESC LIMIT 1",
        partition,
    )
    terms = await connection.fetch(
        "SELECT log_index, term FROM log WHERE partition_id = $1 AND opens_term ORDER BY 1", partition
    )
    configurations = await connection.fetch(
        f"SELECT log_index, record FROM log WHERE partition_id = $1 AND kind = {CONFIG} ORDER BY 1",
        partition,
    )
    return Loaded(
        HardState(*hard) if hard else HardState(),
        last[0] if last else None,
        last[1] if last else 0,
        LogMarks(
            [TermStart(index, term) for index, term in terms],
            [
                ConfigurationAt(index, Configuration.decode(decode_entry(record).payload()))
                for index, record in configurations
            ],
        ),
    )


async def write(connection: Any, incarnation: int, layer: Layer) -> None:
    """Everything of a layer, in one transaction."""
    await connection.execute(WRITE, incarnation, *_arguments(layer))


def _arguments(layer: Layer) -> list[list[Any]]:
    cuts, hards, entries, parts = [], [], [], []
    for partition, share in layer.partitions.items():
        if share.cuts:
            cuts.append((partition, share.floor))
        if share.hard is not None:
            hards.append((partition, *share.hard))
        for entry, opens_term in zip(share.entries, share.opens_term, strict=True):
            index = entry.index
            place = (partition, index, entry.term, entry.kind, entry.first_position, entry.count)
            entries.append((*place, entry.timestamp_us, opens_term, entry.record))
            parts += [
                (partition, part.stream, part.first_version, part.count, index, part.first_id)
                for part in entry.parts
            ]
    return [
        *_columns(cuts, 2),
        *_columns(entries, 9),
        *_columns(parts, 6),
        *_columns(hards, 4),
        list(layer.meta),
        list(layer.meta.values()),
    ]


def _columns(rows: Sequence[tuple[Any, ...]], width: int) -> Iterable[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)] if rows else [[] for _ in range(width)]


async def entries(
    connection: Any, partition: int, first: int, last: int, bytes_max: int
) -> list[tuple[int, bytes]]:
    """`(index, record)` of up to `ROWS_MAX` entries, at least one if there is one, up to `bytes_max`."""
    return [tuple(row) for row in await connection.fetch(_ENTRIES, partition, first, last, bytes_max)]


async def entries_at(connection: Any, partition: int, indexes: Sequence[int]) -> dict[int, bytes]:
    """The records at these indexes, those that exist."""
    return dict(await connection.fetch(_ENTRIES_AT, partition, indexes))


async def index_of_position(connection: Any, partition: int, position: int, bound: int) -> int | None:
    """The newest entry with events that begins at or before this position."""
    found: int | None = await connection.fetchval(_POSITION, partition, position, bound)
    return found


async def index_of_append(connection: Any, partition: int, first_event_id: bytes, bound: int) -> int | None:
    """Index of the append whose first event has this id."""
    found: int | None = await connection.fetchval(_APPEND, partition, first_event_id, bound)
    return found


async def head(connection: Any, partition: int, stream: str, bound: int) -> StreamHead | None:
    """The stream's head."""
    row = await connection.fetchrow(_HEAD.format(stream="$3"), partition, bound, stream)
    return StreamHead(*row) if row else None


async def slices(
    connection: Any,
    partition: int,
    stream: str,
    version: int,
    bound: int,
    *,
    forward: bool,
    slices_max: int,
) -> list[StreamSlice]:
    """As `Storage.slices`."""
    if not forward:
        rows = await connection.fetch(_BACKWARD, partition, stream, bound, version, slices_max)
        return [StreamSlice(*row) for row in rows]
    # One more than asked for, because the first slice may end before the version.
    rows = await connection.fetch(_FORWARD, partition, stream, bound, version, slices_max + 1)
    found = [StreamSlice(*row) for row in rows]
    return [piece for piece in found if piece.first_version + piece.count > version][:slices_max]


async def streams(
    connection: Any, partition: int, prefix: str, after: str, bound: int, limit: int
) -> list[tuple[str, StreamHead]]:
    """As `Storage.streams`."""
    rows = await connection.fetch(_STREAMS, partition, bound, after, prefix, limit)
    return [(row[0], StreamHead(*row[1:])) for row in rows]


async def counts(
    connection: Any, partition: int, bound: int, above: Sequence[str]
) -> tuple[int, int, int, int]:
    """How many streams, slices and ids the database holds, and how many of the streams `above` it holds."""
    row = await connection.fetchrow(_COUNTS, partition, bound)
    return (*row, await connection.fetchval(_KNOWN, partition, bound, above))


async def meta(connection: Any, name: str) -> bytes | None:
    """The value of `Storage.put_meta`."""
    found: bytes | None = await connection.fetchval("SELECT value FROM meta WHERE name = $1", name)
    return found
