"""One append inside a transaction: take the partition's lock, decide, and write.

The decision is `storage.model.append`'s, put to what is there *after* the lock was taken. The statement
that writes (`tables`) moves a stream only from the version that was seen then. So those who change
streams by hand, without the lock, are noticed: `LostRace`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from allsource.storage.model.answers import AppendResult
from allsource.storage.model.append import AppendRequest, Known, Unmet, answer_again, decide, result_of
from allsource.storage.model.chunks import CheckedEvents, Chunk, pack_events
from allsource.storage.model.entry import NewAppend, Part, Place, StoredAppend
from allsource.storage.model.errors import EventIdConflict
from allsource.storage.model.events import Event
from allsource.storage.model.log import MarkAt
from allsource.storage.model.partition import tag_of
from allsource.storage.postgres.driver import driver
from allsource.storage.postgres.tables import EVENT_COLUMNS, Recording, events_of

_LOOK = "SELECT * FROM lock_for_append($1, $2, $3, $4, $5)"
_APPENDED = f"""
    SELECT {EVENT_COLUMNS} FROM events
    WHERE partition_id = $1 AND append_position = $2 AND position BETWEEN $2 AND $2 + $3
    ORDER BY position
"""


class LostRace(Exception):
    """Somebody moved a stream without its partition's lock. Look again."""


@dataclass(frozen=True, slots=True)
class _Log:
    """A partition's log for `model.append.decide`, as the holder of the partition's lock sees it. There are
    no indexes: a `Place` has the append's position in the place of one."""

    versions: Mapping[str, int]
    known: Place | None
    """Of the oldest append that has one of the ids."""
    tags: Mapping[str, int]
    marks: Mapping[str, MarkAt]

    def place_of_append(self, first_event_id: bytes) -> Place | None:
        return self.known

    def head(self, stream: str) -> tuple[int, int]:
        return self.versions[stream], 0

    def tag(self, tag: str) -> tuple[int, int]:
        return self.tags[tag], 0

    def mark(self, name: str) -> MarkAt | None:
        return self.marks.get(name)


@dataclass(frozen=True, slots=True)
class Appending:
    """An append that is wanted; `checked` is what `check_append` said of its parts."""

    partition: int
    request: AppendRequest
    checked: Sequence[CheckedEvents]
    clock_us: Callable[[], int]

    async def run(self, connection: Any) -> AppendResult:
        """Do it in the transaction that this connection is in. Raises what is decided, or `LostRace`."""
        log, position, timestamp_us = await self._look(connection)
        match decide(self.request, self.checked, log):
            case Known(place):
                stored, content = await self._stored(connection, place.index)
                answer = answer_again(self.request, stored, content)
                if isinstance(answer, EventIdConflict):
                    raise answer
                return answer
            case Unmet(error):
                raise error
            case NewAppend() as decided:
                new = StoredAppend(self.partition, 0, position + 1, decided.append.parts)
                await self._write(connection, new, max(self.clock_us(), timestamp_us))
                return result_of(new, duplicate=False)

    async def _look(self, connection: Any) -> tuple[_Log, int, int]:
        """Take the partition's lock; what is there, and its last position and time."""
        streams = [part.stream for part in self.request.parts]
        ids = [UUID(bytes=part.first_id) for part in self.checked]
        tags = list({tag for stream in streams if "{" in stream and (tag := tag_of(stream))})
        names = [mark.name for mark in self.request.marks]
        position, timestamp_us, versions, known, numbers, *marks = await connection.fetchrow(
            _LOOK, self.partition, streams, ids, tags, names
        )
        log = _Log(
            dict(zip(streams, versions, strict=True)),
            None if known is None else Place(known, 0),
            dict(zip(tags, numbers, strict=True)) if tags else {},
            _marks(names, *marks) if names else {},
        )
        return log, position, timestamp_us

    async def _write(self, connection: Any, new: StoredAppend, timestamp_us: int) -> None:
        recording, parts = Recording(), self.request.parts
        recording.add(
            self.partition,
            zip(new.parts, [part.chunks for part in parts], strict=True),
            self.request.marks,
            new.first_position,
            timestamp_us,
            expected=[part.expected if part.expected >= 0 else None for part in parts],
        )
        try:
            moved = await connection.fetchval(recording.statement, *recording.arguments())
        except driver().UniqueViolationError as error:
            raise LostRace from error
        if moved != recording.moved_count:
            raise LostRace

    async def _stored(self, connection: Any, position: int) -> tuple[StoredAppend, list[tuple[Chunk, ...]]]:
        """The append at this position and its content; of a longer one than ours, one event more than we
        have. One of marks alone has none."""
        count = sum(part.count for part in self.checked)
        streams: dict[str, list[Event]] = {}
        if count:
            for event in events_of(await connection.fetch(_APPENDED, self.partition, position, count)):
                streams.setdefault(event.stream, []).append(event)
        parts = [
            Part(stream, events[0].version, len(events), events[0].id, events[0].tag_number, (), ())
            for stream, events in streams.items()
        ]
        content = [pack_events(events, compress=False) for events in streams.values()]
        return StoredAppend(self.partition, 0, position, tuple(parts)), content


def _marks(
    names: Sequence[str], positions: Sequence[int], generations: Sequence[int], appends: Sequence[int]
) -> dict[str, MarkAt]:
    """Those of the marks that were ever set."""
    return {
        name: MarkAt(position, generation, append, 0)
        for name, position, generation, append in zip(names, positions, generations, appends, strict=True)
        if position is not None
    }
