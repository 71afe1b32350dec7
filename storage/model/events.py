"""Events: a new one, with its fields checked, and a stored one. `chunks` has how they are packed."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, NamedTuple, Self, TypeAlias
from uuid import UUID

from allsource.storage.model.arguments import shown
from allsource.storage.model.errors import InvalidRequest, TooLarge
from allsource.storage.model.json_text import check_json, json_of
from allsource.storage.model.partition import _check_characters
from allsource.storage.model.times import as_datetime

JSON = 0
"""`data` is one JSON value in UTF-8."""
BINARY = 1
"""`data` is any bytes."""

EVENT_TYPE_BYTES_MAX = 128


_IDS_AT_ONCE = 256
_split = struct.Struct("16s" * _IDS_AT_ONCE).unpack
_VERSION_4 = bytes(byte & 0x0F | 0x40 for byte in range(256))
_VARIANT = bytes(byte & 0x3F | 0x80 for byte in range(256))


def new_event_id() -> bytes:
    """16 random bytes with the version and variant bits of a UUID 4 (RFC 9562 §5.4).

    They are drawn 256 at a time: one at a time, asking the kernel takes longer than all the rest. No two
    threads are given the same (a list's `pop` is one step), and no two processes: a child that is forked
    (`os.fork`) begins without its parent's.
    """
    try:
        return _ids.pop()
    except IndexError:
        ids = _drawn_ids()
        _ids.extend(ids[1:])
        return ids[0]


def _drawn_ids() -> tuple[bytes, ...]:
    raw = bytearray(os.urandom(16 * _IDS_AT_ONCE))
    raw[6::16] = raw[6::16].translate(_VERSION_4)
    raw[8::16] = raw[8::16].translate(_VARIANT)
    return _split(raw)


_ids: list[bytes] = []
if hasattr(os, "register_at_fork"):  # where there is no fork, there is none
    os.register_at_fork(after_in_child=_ids.clear)


class _Fields(NamedTuple):
    """In the order in which a chunk has them (`chunks`), so that an event is packed as it is."""

    id: bytes
    type: str
    data: bytes
    metadata: bytes
    encoding: int


class NewEvent(_Fields):
    """An event that is not stored yet. Made whole or not at all: its fields are checked (`InvalidRequest`).

    `data` is one JSON value in UTF-8, or any bytes with `encoding=BINARY`; `metadata` is any bytes, usually
    JSON. `id` is the UUID's 16 bytes; who keeps it can retry an append safely, for ever.
    """

    __slots__ = ()
    __match_args__ = ("type", "data", "metadata", "encoding", "id")  # as it is made

    def __new__(
        cls,
        type: str,
        data: bytes = b"null",
        metadata: bytes = b"",
        encoding: int = JSON,
        id: bytes | None = None,
    ) -> Self:
        check_event_type(type)
        if data.__class__ is not bytes:
            raise InvalidRequest(f"data must be bytes, not {shown(data)}; NewEvent.json takes values")
        if metadata.__class__ is not bytes:
            raise InvalidRequest(
                f"metadata must be bytes, not {shown(metadata)}; NewEvent.json takes values"
            )
        if encoding.__class__ is not int or encoding not in (JSON, BINARY):
            raise InvalidRequest(f"encoding must be JSON (0) or BINARY (1), not {shown(encoding)}")
        if id is None:
            id = new_event_id()
        else:
            _check_id(id)
        if encoding == JSON:
            check_json(data, "data")
        return tuple.__new__(cls, (id, type, data, metadata, encoding))

    @classmethod
    def json(
        cls, type: str, data: Any = None, metadata: Any = None, id: UUID | bytes | None = None
    ) -> NewEvent:
        """An event whose data (and metadata, unless None) are JSON values: None, bool, int, float (no NaN),
        str, lists, and dicts with string keys. Raises `InvalidRequest` for what is none."""
        check_event_type(type)
        if id is None:
            raw = new_event_id()
        else:
            raw = id.bytes if isinstance(id, UUID) else id
            _check_id(raw)
        packed = b"" if metadata is None else json_of(metadata, "metadata")
        return tuple.__new__(cls, (raw, type, json_of(data, "data"), packed, JSON))

    @classmethod
    def again(cls, event: Event) -> NewEvent:
        """A stored event as a new one, with the same id. It was checked when it was stored."""
        return _made(event.type, event.data, event.metadata, event.encoding, event.id)

    @classmethod
    def _make(cls, fields: Iterable[Any]) -> Self:  # type: ignore[override]
        """What `_replace` makes is checked as well."""
        id, type, data, metadata, encoding = fields
        return cls(type, data, metadata, encoding, id)

    def __getnewargs__(self) -> tuple[Any, ...]:
        return self.type, self.data, self.metadata, self.encoding, self.id


def _made(type: str, data: bytes, metadata: bytes, encoding: int, id: bytes) -> NewEvent:
    """An event of fields that are known to be right."""
    return tuple.__new__(NewEvent, (id, type, data, metadata, encoding))


def _check_id(value: object) -> None:
    if type(value) is not bytes or len(value) != 16:
        raise InvalidRequest(f"id must be a uuid.UUID's 16 bytes, not {shown(value)}")


class Event(NamedTuple):
    """A stored event. A tuple, because a read that makes many of them does little else.

    `version` counts from 1 in its stream, `position` from 1 in its partition, both without gaps;
    `timestamp_us` is microseconds since 1970 (UTC): when the owner took the event, by its own clock
    or, if that is not the cluster's, by the median of the nodes' clocks (`cluster.membership.clocks`);
    never earlier than the event before it in the partition, and the same for all events of an append. It
    is a label: order is `position`. `id` is the UUID's 16 bytes; `metadata` is empty if there is none.
    `tag_number` counts from 1 over all streams with the same `{tag}`, without gaps; 0 without one.
    """

    stream: str
    version: int
    partition: int
    position: int
    timestamp_us: int
    id: bytes
    type: str
    data: bytes
    metadata: bytes
    encoding: int
    tag_number: int = 0

    @property
    def uuid(self) -> UUID:
        """The event's id as a `uuid.UUID`."""
        return UUID(bytes=self.id)

    @property
    def timestamp(self) -> datetime:
        """`timestamp_us` as a time in UTC."""
        return as_datetime(self.timestamp_us)

    def json(self) -> Any:
        """The data as a JSON value; raises `ValueError` if it is none: then `data` has the bytes."""
        if self.encoding != JSON:
            raise ValueError(f"{self._name()} holds binary data, which is not JSON; `data` has its bytes")
        return self._parsed(self.data, "data")

    def metadata_json(self) -> Any:
        """The metadata as a JSON value, None if there is none; raises `ValueError` if it is not JSON."""
        return self._parsed(self.metadata, "metadata") if self.metadata else None

    def _parsed(self, raw: bytes, what: str) -> Any:
        try:
            return json.loads(raw.decode())
        except (ValueError, RecursionError) as error:
            raise ValueError(
                f"{self._name()} holds {what} that is not JSON ({error}); `{what}` has its bytes"
            ) from error

    def _name(self) -> str:
        return f"event {self.version} of stream {self.stream!r}"


Events: TypeAlias = NewEvent | Sequence[NewEvent]
"""What an append takes: one event, or several."""

_MAKE_ONE = 'make one with NewEvent.json("OrderPlaced", {"total": 42})'


def as_events(events: Events) -> Sequence[NewEvent]:
    """The events of an append; raises `InvalidRequest` that says what came instead of them."""
    if isinstance(events, NewEvent):  # first: as a tuple, it is a sequence too
        return (events,)
    if not isinstance(events, Sequence) or isinstance(events, str | bytes | bytearray | memoryview):
        raise InvalidRequest(
            f"events must be a NewEvent or a list of them, not {shown(events)}; {_MAKE_ONE}"
        )
    for number, event in enumerate(events):
        if not isinstance(event, NewEvent):
            raise InvalidRequest(f"events[{number}] must be a NewEvent, not {shown(event)}; {_MAKE_ONE}")
    if not events:
        raise InvalidRequest("events is empty: an append needs at least one event for each stream")
    return events if isinstance(events, list | tuple) else list(events)


def check_event_type(value: object) -> None:
    """Raise `InvalidRequest` unless `value` may be an event type (1-128 bytes, no control characters)."""
    if not isinstance(value, str) or not value:
        raise InvalidRequest("an event's type is a string that is not empty")
    if not (value.isascii() and value.isprintable()):
        _check_characters(value, "an event type")
    if len(value) > EVENT_TYPE_BYTES_MAX or (
        not value.isascii() and len(value.encode()) > EVENT_TYPE_BYTES_MAX
    ):
        raise InvalidRequest(f"an event type has at most {EVENT_TYPE_BYTES_MAX} bytes of UTF-8")


SAME_ID = "two events of one append have the same id"


def too_many_events(most: int, actual: int) -> TooLarge:
    """The refusal of an append with more than `append_events_max` events."""
    return TooLarge(f"at most {most} events in one append; split it", limit=most, actual=actual)


def event_too_large(most: int, actual: int) -> TooLarge:
    """The refusal of an event that is larger than `event_bytes_max`."""
    return TooLarge(f"an event has at most {most} bytes of data and metadata", limit=most, actual=actual)
