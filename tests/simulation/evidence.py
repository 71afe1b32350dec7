"""What the checkers judge by: a history and the logs that it left, with what several of them look up."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import NamedTuple

from allsource.storage.model.entry import Entry, Mark
from allsource.storage.model.partition import tag_of
from tests.simulation.disk import ids_of, parts_of
from tests.simulation.history import (
    A_TAG,
    OK,
    OPEN,
    WHOLE_PARTITION,
    AppendOperation,
    Content,
    History,
    ReadOperation,
)

Logs = Mapping[int, Sequence[Entry]]
"""By partition, its committed entries."""


class Stored(NamedTuple):
    """One event as the final log holds it."""

    stream: str
    version: int
    position: int
    index: int


class Where(NamedTuple):
    """Where an append is; compared as its place is."""

    index: int  # type: ignore[assignment]  # a field, not tuple.index
    ordinal: int
    first_position: int
    """Of its first event; without events, of the next one."""


class Evidence:
    """A history and the final logs."""

    def __init__(
        self,
        history: History,
        logs: Logs,
        replicas: Mapping[tuple[str, int], Sequence[Entry]] | None = None,
    ) -> None:
        self.history = history
        self.logs = logs
        self.replicas = replicas or {}
        """By (node, partition): the committed entries that a node holds."""
        self.stored: dict[bytes, list[Stored]] = {}
        self.numbers: dict[bytes, int] = {}
        """The number of each event under its stream's tag, 0 without one."""
        self.streams: dict[str, list[bytes]] = {}
        """Event ids of each stream in the order of the log; of each tag too, under its name for reads."""
        self.partitions: dict[int, list[bytes]] = {partition: [] for partition in logs}
        """Event ids of each partition in the order of the log."""
        self.appends: dict[Content, Where] = {}
        """Where each append is, by what it holds."""
        self.marks: dict[tuple[int, str], list[tuple[Mark, Where]]] = {}
        """By (partition, name): all moves of a mark in the order of the log."""
        for entries in logs.values():
            for entry in entries:
                self._add_events(entry)
                self._add_appends(entry)

    def _add_events(self, entry: Entry) -> None:
        position = entry.first_position
        for part, ids in parts_of(entry):
            tag = tag_of(part.stream)
            for offset, event_id in enumerate(ids):
                self.partitions[entry.partition].append(event_id)
                stored = Stored(part.stream, part.first_version + offset, position, entry.index)
                self.stored.setdefault(event_id, []).append(stored)
                self.numbers[event_id] = part.first_tag_number and part.first_tag_number + offset
                self.streams.setdefault(part.stream, []).append(event_id)
                if tag:
                    self.streams.setdefault(name_of_tag(tag), []).append(event_id)
                position += 1

    def _add_appends(self, entry: Entry) -> None:
        position = entry.first_position
        for ordinal, append in enumerate(entry.appends):
            where = Where(entry.index, ordinal, position)
            self.appends.setdefault(content_of(entry, ordinal), where)
            for mark in append.marks:
                self.marks.setdefault((entry.partition, mark.name), []).append((mark, where))
            position += sum(part.count for part in append.parts)

    def acknowledged(self) -> Iterator[AppendOperation]:
        """Appends that were answered with a place."""
        return (o for o in self.history.appends if o.outcome == OK)

    def author(self, event_id: bytes) -> AppendOperation | None:
        """The first append that had this event."""
        return self.authors.get(event_id)

    @cached_property
    def authors(self) -> dict[bytes, AppendOperation]:
        """By event id."""
        found: dict[bytes, AppendOperation] = {}
        for operation in self.history.appends:
            for intent in operation.intents:
                for event_id in intent.ids:
                    found.setdefault(event_id, operation)
        return found

    def events_of(self, read: ReadOperation) -> list[bytes]:
        """All events that the read could return, in order."""
        if read.stream == WHOLE_PARTITION:
            return self.partitions[read.partition]
        return self.streams.get(read.stream, [])


def content_of(entry: Entry, ordinal: int) -> Content:
    """What one append of an entry holds."""
    return Content(entry.partition, tuple(ids_of(entry, ordinal)), entry.appends[ordinal].marks)


def name_of_tag(tag: str) -> str:
    """What a read of a tag has as its stream."""
    return f"{A_TAG}{tag}}}"


def name_of(operation: AppendOperation | ReadOperation) -> str:
    """How a complaint calls it."""
    end = "…" if operation.returned == OPEN else operation.returned
    what = "append" if isinstance(operation, AppendOperation) else "read"
    when = f"{operation.invoked}-{end}"
    return f"{what} of client {operation.client} in partition {operation.partition} ({when})"
