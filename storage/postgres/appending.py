"""One append inside a transaction: take the partition's lock, decide, and write.

The decision is `storage.model.append`'s, put to what is there *after* the lock was taken. The statement
that writes (`tables.RECORD`) moves a stream only from the version that was seen then. So those who change
streams by hand, without the lock, are noticed: `LostRace`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from allsource.storage.model.answers import AppendResult
from allsource.storage.model.append import AppendPart, Known, Unmet, answer_again, decide, result_of
from allsource.storage.model.entry import Part
from allsource.storage.model.errors import EventIdConflict
from allsource.storage.model.events import Event, encode_blob
from allsource.storage.postgres.driver import driver
from allsource.storage.postgres.tables import EVENT_COLUMNS, RECORD, Recording, events_of

_LOOK = "SELECT * FROM lock_for_append($1, $2, $3)"
_APPENDED = f"""
    SELECT {EVENT_COLUMNS} FROM events
    WHERE partition_id = $1 AND append_position = $2 AND position BETWEEN $2 AND $2 + $3
    ORDER BY position
"""


class LostRace(Exception):
    """Somebody moved a stream without its partition's lock. Look again."""


class _Log:
    """A partition's log for `model.append.decide`, as the holder of the partition's lock sees it."""

    def __init__(self, versions: Mapping[str, int], known: int | None) -> None:
        """`known`: the position of the oldest append that has one of the ids."""
        self._versions = versions
        self._known = known

    def index_of_append(self, first_event_id: bytes) -> int | None:
        return self._known

    def head(self, stream: str) -> tuple[int, int]:
        return self._versions[stream], 0


@dataclass(frozen=True, slots=True)
class _Stored:
    """An append in the tables (`model.append.Stored`)."""

    partition: int
    first_position: int
    parts: tuple[Part, ...]
    index: int = 0

    @property
    def count(self) -> int:
        return sum(part.count for part in self.parts)


@dataclass(frozen=True, slots=True)
class Appending:
    """An append that is wanted; `checked` is what `check_append` said of its parts."""

    partition: int
    parts: Sequence[AppendPart]
    checked: Sequence[tuple[int, bytes]]
    clock_us: Callable[[], int]

    async def run(self, connection: Any) -> AppendResult:
        """Do it in the transaction that this connection is in. Raises what is decided, or `LostRace`."""
        streams = [part.stream for part in self.parts]
        ids = [UUID(bytes=first_id) for _, first_id in self.checked]
        position, timestamp_us, versions, known = await connection.fetchrow(
            _LOOK, self.partition, streams, ids
        )
        log = _Log(dict(zip(streams, versions, strict=True)), known)
        match decide(self.parts, self.checked, log):
            case Known(place):
                answer = answer_again(self.parts, await self._stored(connection, place))
                if isinstance(answer, EventIdConflict):
                    raise answer
                return answer
            case Unmet(error):
                raise error
            case decided:
                new = _Stored(self.partition, position + 1, decided)
                await self._write(connection, new, max(self.clock_us(), timestamp_us))
                return result_of(new, duplicate=False)

    async def _write(self, connection: Any, new: _Stored, timestamp_us: int) -> None:
        recording = Recording()
        recording.add(
            self.partition,
            new.parts,
            new.first_position,
            timestamp_us,
            expected=[part.expected if part.expected >= 0 else None for part in self.parts],
        )
        try:
            moved = await connection.fetchval(RECORD, *recording.arguments())
        except driver().UniqueViolationError as error:
            raise LostRace from error
        if moved != recording.stream_count:
            raise LostRace

    async def _stored(self, connection: Any, position: int) -> _Stored:
        """The append at this position; of a longer one than ours, one event more than we have."""
        count = sum(count for count, _ in self.checked)
        streams: dict[str, list[Event]] = {}
        for event in events_of(await connection.fetch(_APPENDED, self.partition, position, count)):
            streams.setdefault(event.stream, []).append(event)
        parts = [
            Part(stream, events[0].version, len(events), events[0].id, encode_blob(events))
            for stream, events in streams.items()
        ]
        return _Stored(self.partition, position, tuple(parts))
