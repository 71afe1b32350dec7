"""From the body of an append to an `AppendRequest`, with errors that name the field.

::

    body   = {"expected_version"?: expected, "events": [event, ...]}            one stream, in the path
    body   = {"streams"?: [{"stream", "expected_version"?, "events"}, ...],     several, all or nothing
              "expected_tag"?: number, "marks"?: [mark, ...], "partition"?: number}
    mark   = {"name": str, "position": number, "generation"?: number}
    event  = {"id"?: UUID, "type": str, "data": value, "metadata"?: value,
              "encoding"?: "json" | "base64", "metadata_encoding"?: "json" | "base64"}

`expected_version` is "any" if it is left out. Without an `id` the door makes one, and a retry of the
same body is a second event; who wants safe retries sends ids. In a JSON body `data` is any JSON value, and
what is stored is its bytes, as they stand there. In a msgpack body it is bin: binary data, or JSON text
with `"encoding": "json"`. Marks may stand without streams; then `partition` says whose they are.

The two kinds of body are read by `json_bodies` and `msgpack_bodies` into the same `Draft`s, of which
requests are made here.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from typing import Any, NamedTuple
from uuid import UUID

from allsource.cluster.protocol.requests import AppendRequest
from allsource.config.schema import Limits
from allsource.storage.model.append import (
    AppendPart,
    check_expected_tag,
    check_marks,
    partition_of_append,
    too_many_bytes,
)
from allsource.storage.model.arguments import NUMBER_MAX, shown
from allsource.storage.model.chunks import pack_chunks
from allsource.storage.model.entry import Mark
from allsource.storage.model.errors import InvalidRequest, TooLarge
from allsource.storage.model.events import (
    BINARY,
    JSON,
    SAME_ID,
    check_event_type,
    event_too_large,
    new_event_id,
    too_many_events,
)
from allsource.storage.model.expected import ANY, parse_expected
from allsource.storage.model.partition import check_own_stream, check_stream_id

_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")

NO_PARTITION = -1


class Content(NamedTuple):
    """An event's data or metadata as it came."""

    raw: bytes
    """The bytes that are stored, unless `is_base64`."""
    encoding: int
    is_base64: bool = False
    """`raw` is base64 of the bytes that are stored."""


class EventDraft(NamedTuple):
    """An event of a body; nothing of it is checked but that `type` and `data` are there."""

    type: Any
    data: Content
    metadata: Content | None
    id: Any


class StreamDraft(NamedTuple):
    """What a body appends to one stream. `stream` is None where the URL says it."""

    stream: Any
    expected: Any
    events: Sequence[EventDraft]


class MarkDraft(NamedTuple):
    """A mark of a body; nothing of it is checked."""

    name: Any
    position: Any
    generation: Any


class AppendDraft(NamedTuple):
    """What a body appends. What a caller left out is None, or empty."""

    streams: Sequence[StreamDraft]
    expected_tag: Any = None
    marks: Sequence[MarkDraft] = ()
    partition: Any = None


def request_of(
    draft: AppendDraft, limits: Limits, partitions: int, stream: str | None = None
) -> AppendRequest:
    """The request of `POST /v1/append`, or of `POST /v1/streams/{stream}/events` with that `stream`."""
    if stream is not None:
        check_own_stream(stream)
        parts = [_part(stream, draft.streams[0], "", limits)]
    elif draft.streams or draft.marks:
        parts = [_named_part(one, f"streams[{i}]", limits) for i, one in enumerate(draft.streams)]
    else:
        raise InvalidRequest("streams: must be a list of at least one, unless there are marks")
    marks = tuple([Mark(*mark) for mark in draft.marks])
    check_marks(marks)
    request = AppendRequest(tuple(parts), _expected_tag(draft), marks, _partition(draft))
    if request.expected_tag != ANY:
        check_expected_tag(request)
    partition_of_append(request, partitions)
    _check_count(sum(len(one.events) for one in draft.streams), limits)
    size = sum(part.size for part in parts)
    if size > limits.append_bytes_max:
        raise too_many_bytes(limits.append_bytes_max, size)
    return request


def _expected_tag(draft: AppendDraft) -> int:
    expected = draft.expected_tag
    if expected is None:
        return ANY
    if type(expected) is not int or not 0 <= expected <= NUMBER_MAX:
        raise InvalidRequest(f"expected_tag: a number from 0, not {shown(expected)}")
    return expected


def _partition(draft: AppendDraft) -> int:
    partition = draft.partition
    if partition is None:
        return NO_PARTITION
    if type(partition) is not int or not 0 <= partition <= NUMBER_MAX:
        raise InvalidRequest(f"partition: a number from 0, not {shown(partition)}")
    return partition


def _named_part(draft: StreamDraft, where: str, limits: Limits) -> AppendPart:
    try:
        check_stream_id(draft.stream)
        check_own_stream(draft.stream)
    except InvalidRequest as error:
        raise InvalidRequest(f"{where}.stream: {error.message}") from error
    return _part(draft.stream, draft, f"{where}.", limits)


def _check_count(count: int, limits: Limits) -> None:
    if count > limits.append_events_max:
        raise too_many_events(limits.append_events_max, count)


def _part(stream: str, draft: StreamDraft, where: str, limits: Limits) -> AppendPart:
    expected = parse_expected(draft.expected)
    if not draft.events:
        raise InvalidRequest(f"{where}events: must be a list of at least one")
    _check_count(len(draft.events), limits)
    packed = [_event(event, f"{where}events[{i}]", limits) for i, event in enumerate(draft.events)]
    if len({event[0] for event in packed}) != len(packed):
        raise InvalidRequest(f"{where}events: {SAME_ID}")
    return AppendPart(stream, expected, pack_chunks(packed, compress=False))


def _event(draft: EventDraft, where: str, limits: Limits) -> tuple[bytes, str, bytes, bytes, int]:
    """One event as a chunk holds it (see `storage.model.chunks`)."""
    try:
        check_event_type(draft.type)
    except InvalidRequest as error:
        raise InvalidRequest(f"{where}.type: {error.message}") from error
    data = _stored(draft.data, f"{where}.data")
    metadata = b"" if draft.metadata is None else _stored(draft.metadata, f"{where}.metadata")
    if len(data) + len(metadata) > limits.event_bytes_max:
        raise placed(where, event_too_large(limits.event_bytes_max, len(data) + len(metadata)))
    encoding = BINARY if draft.data.is_base64 else draft.data.encoding
    return _event_id(draft.id, where), draft.type, data, metadata, encoding


def _event_id(value: Any, where: str) -> bytes:
    if value is None:
        return new_event_id()
    if isinstance(value, bytes) and len(value) == 16:
        return value
    if isinstance(value, str) and _UUID.fullmatch(value):
        return UUID(value).bytes
    raise InvalidRequest(f"{where}.id: an id is a UUID like 0b6f5c1e-3d7a-4f7e-9a51-0c7d1f0a2b3c")


def _stored(content: Content, where: str) -> bytes:
    if not content.is_base64:
        return content.raw
    try:
        return base64.b64decode(content.raw, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidRequest(f"{where}: not valid base64: {error}") from error


def placed(where: str, error: TooLarge) -> TooLarge:
    """The same error with the place in the body before it."""
    return TooLarge(f"{where}: {error.message}", **error.details)


def content_encoding(value: Any, where: str) -> str | None:
    """The value of `encoding` or `metadata_encoding`, checked."""
    if value not in (None, "json", "base64"):
        raise InvalidRequest(f'{where}: "json" or "base64", not {str(value)[:40]!r}')
    found: str | None = value
    return found


def as_json(raw: bytes) -> Content:
    """The content that is this JSON text."""
    return Content(raw, JSON)
