"""`EventStream`: one stream as an aggregate, with its invariants, apart from any storage.

A stream's versions count from 1 without gaps. Two of them matter: `current_version`, the newest that
was appended here, and `watermark`, up to which events are stored for good. Between them lie the
`pending` events, which a repository's `save_stream` stores, expecting the stream still to be at the
watermark: a copy that went stale is refused, never merged.

Pure: time, ids and storage come from outside.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from allsource.storage.model.errors import InvalidRequest, WrongExpectedVersion
from allsource.storage.model.events import Event, NewEvent
from allsource.storage.model.expected import ExpectedVersion, is_met, parse_expected, show_expected
from allsource.storage.model.partition import PARTITION_COUNT, EntityId, PartitionKey


class VersionedEvent(NamedTuple):
    """An event of a stream and its version. `stored` is what the storage made of it, None while pending."""

    version: int
    event: NewEvent
    stored: Event | None


class EventStream:
    """See the module's page. Not shared between tasks or threads: load a copy each."""

    def __init__(self, entity_id: str, *, partition_count: int = PARTITION_COUNT) -> None:
        """A stream without events; raises `InvalidRequest` for an id that no stream may have."""
        self._entity_id = EntityId(entity_id)
        self._partition_key = PartitionKey.from_entity_id(self._entity_id, partition_count)
        self._events: list[VersionedEvent] = []
        self._watermark = 0
        self._expected: ExpectedVersion | None = None

    @classmethod
    def reconstruct(
        cls,
        entity_id: str,
        events: Sequence[Event],
        *,
        current_version: int,
        watermark: int,
        expected_version: str | int | None = None,
        partition_count: int = PARTITION_COUNT,
    ) -> EventStream:
        """Rebuild a stream from what a storage holds, believing nothing.

        Raises `InvalidRequest` if the watermark lies behind the version, the number of events differs
        from it, the versions are not 1, 2, 3..., or an event is of another stream.
        """
        stream = cls(entity_id, partition_count=partition_count)
        if not 0 <= watermark <= current_version:
            raise InvalidRequest(
                f"watermark {watermark} is not between 0 and the version {current_version}"
            )
        if len(events) != current_version:
            raise InvalidRequest(f"{len(events)} events for a stream at version {current_version}")
        for version, event in enumerate(events, 1):
            if event.version != version or event.stream != entity_id:
                raise InvalidRequest(
                    f"event {version} of stream {entity_id!r} claims to be {event.stream!r}/{event.version}"
                )
            stored = event if version <= watermark else None
            stream._events.append(VersionedEvent(version, NewEvent.again(event), stored))
        stream._watermark = watermark
        if expected_version is not None:
            stream.expect_version(expected_version)
        return stream

    # -- what it is

    @property
    def entity_id(self) -> EntityId:
        return self._entity_id

    @property
    def partition_key(self) -> PartitionKey:
        return self._partition_key

    @property
    def current_version(self) -> int:
        """The version of the newest event, pending ones included; 0 without events."""
        return len(self._events)

    @property
    def watermark(self) -> int:
        """The version up to which all events are stored for good."""
        return self._watermark

    @property
    def pending(self) -> list[NewEvent]:
        """The events behind the watermark, in order."""
        return [item.event for item in self._events[self._watermark :]]

    def events_from(self, version: int) -> list[VersionedEvent]:
        """The events from this version on; none for 0 or for a version past the end."""
        return self._events[version - 1 :] if version >= 1 else []

    def is_gapless(self) -> bool:
        """Whether the versions are 1, 2, 3... and everything up to the watermark is stored."""
        return all(
            item.version == version and (item.stored is not None) == (version <= self._watermark)
            for version, item in enumerate(self._events, 1)
        )

    # -- changing it

    @property
    def expected_version(self) -> str | int | None:
        """What the next append expects, None if nothing."""
        return None if self._expected is None else show_expected(self._expected)

    def expect_version(self, expected: str | int) -> None:
        """Let the *next* append happen only at this version ("any", "no_stream", "exists" or a number).

        An append that succeeds uses the expectation up; one that fails leaves it in place.
        """
        self._expected = parse_expected(expected)

    def clear_expected_version(self) -> None:
        """Expect nothing."""
        self._expected = None

    def append_event(self, event: NewEvent) -> int:
        """Add a pending event and return its version; raises `WrongExpectedVersion`."""
        if self._expected is not None and not is_met(self._expected, self.current_version):
            raise WrongExpectedVersion(self._entity_id, show_expected(self._expected), self.current_version)
        self._expected = None
        version = self.current_version + 1
        self._events.append(VersionedEvent(version, event, None))
        return version

    def committed(self, stored: Iterable[Event]) -> None:
        """The storage has stored these, the oldest pending events, for good: move the watermark.

        Raises `InvalidRequest`, having changed nothing, if they are not those events.
        """
        confirmed = []
        for version, event in enumerate(stored, self._watermark + 1):
            if version > self.current_version or event.version != version:
                raise InvalidRequest(
                    f"stream {self._entity_id!r}: version {event.version} was stored, but the watermark"
                    f" is {self._watermark} and the newest version {self.current_version}"
                )
            own = self._events[version - 1].event
            if own.id != event.id:
                raise InvalidRequest(
                    f"stream {self._entity_id!r}: another event was stored at version {version}"
                )
            confirmed.append(VersionedEvent(version, own, event))
        self._events[self._watermark : self._watermark + len(confirmed)] = confirmed
        self._watermark += len(confirmed)

    def __len__(self) -> int:
        return len(self._events)

    def __repr__(self) -> str:
        return (
            f"<EventStream {self._entity_id!r} {self._partition_key}"
            f" version {self.current_version}, watermark {self._watermark}>"
        )
