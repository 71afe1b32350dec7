"""The replicated log in the database: its statements, and what they take and answer.

`log_indexes` has what its indexes are asked. A question that takes a `bound` counts only rows with a
smaller log index: the others were cut off by a truncation that is still in memory (`overlay`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from allsource.storage.model.entry import CONFIG, Configuration, Entry, decode_entry
from allsource.storage.model.log import ConfigurationAt, HardState, LogMarks, TermStart
from allsource.storage.model.partition import tag_of
from allsource.storage.postgres.overlay import Layer

WRITE = f"SELECT write_log({', '.join(f'${n}' for n in range(1, 33))})"
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
    cuts, hards = [], []
    entries: list[tuple[Any, ...]] = []
    parts: list[tuple[Any, ...]] = []
    marks: list[tuple[Any, ...]] = []
    for partition, share in layer.partitions.items():
        if share.cuts:
            cuts.append((partition, share.floor))
        if share.hard is not None:
            hards.append((partition, *share.hard))
        for entry, opens_term in zip(share.entries, share.opens_term, strict=True):
            place = (partition, entry.index, entry.term, entry.kind, entry.first_position, entry.count)
            entries.append((*place, entry.timestamp_us, opens_term, entry.record))
            _add_appends(len(entries), entry, parts, marks)
    return [
        *_columns(cuts, 2),
        *_columns(entries, 9),
        *_columns(parts, 9),
        *_columns(marks, 5),
        *_columns(hards, 4),
        list(layer.meta),
        list(layer.meta.values()),
    ]


def _add_appends(
    number: int, entry: Entry, parts: list[tuple[Any, ...]], marks: list[tuple[Any, ...]]
) -> None:
    """Add the index rows of an entry, whose number among those of the call is `number`."""
    part_number = 0
    for ordinal, append in enumerate(entry.appends):
        for stream, first_version, count, first_id, first_tag_number, _, _ in append.parts:
            numbered = (tag_of(stream), first_tag_number) if first_tag_number else (None, None)
            parts.append((number, ordinal, part_number, stream, first_version, count, first_id, *numbered))
            part_number += 1
        for mark in append.marks:
            marks.append((number, ordinal, *mark))


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


async def meta(connection: Any, name: str) -> bytes | None:
    """The value of `Storage.put_meta`."""
    found: bytes | None = await connection.fetchval("SELECT value FROM meta WHERE name = $1", name)
    return found
