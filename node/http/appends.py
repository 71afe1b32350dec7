"""From the body of an append to an `AppendRequest`, with errors that name the field.

::

    body   = {"expected_version"?: expected, "events": [event, ...]}            one stream, in the path
    body   = {"streams": [{"stream", "expected_version"?, "events"}, ...]}      several, all or nothing
    event  = {"id"?: UUID, "type": str, "data": value, "metadata"?: value,
              "encoding"?: "json" | "base64", "metadata_encoding"?: "json" | "base64"}

`expected_version` is "any" if it is left out. Without an `id` the door makes one, and a retry of the
same body is a second event; who wants safe retries sends ids. In a msgpack body a value of type bin
is binary data (with `"encoding": "json"`: JSON text), every other value is a JSON value.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import Any
from uuid import UUID

import msgpack

from allsource.cluster.requests import AppendPart, AppendRequest
from allsource.config.schema import Limits
from allsource.node.http.bodies import parse_json
from allsource.storage.errors import InvalidRequest, TooLarge
from allsource.storage.events import BINARY, JSON, check_event_type, json_bytes, new_event_id
from allsource.storage.expected import parse_expected
from allsource.storage.partition import check_stream_id, partition_of

_EVENT_KEYS = frozenset(("id", "type", "data", "metadata", "encoding", "metadata_encoding"))
_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


def one_stream(stream: str, body: Any, limits: Limits) -> AppendRequest:
    """The request of `POST /v1/streams/{stream}/events`."""
    fields = _object(body, "the body", {"expected_version", "events"})
    request = AppendRequest((_part(stream, fields, "", limits),))
    _check_size(request, limits)
    return request


def several_streams(body: Any, limits: Limits, partitions: int) -> AppendRequest:
    """The request of `POST /v1/append`; all streams must be of one partition."""
    fields = _object(body, "the body", {"streams"})
    streams = _list(fields, "streams", "")
    request = AppendRequest(tuple(_named_part(item, i, limits) for i, item in enumerate(streams)))
    names = [part.stream for part in request.parts]
    if len(set(names)) != len(names):
        raise InvalidRequest("streams: a stream stands twice in one append; put its events in one list")
    _check_one_partition(names, partitions)
    _check_count(sum(len(item["events"]) for item in streams), limits)
    _check_size(request, limits)
    return request


def _named_part(item: Any, i: int, limits: Limits) -> AppendPart:
    where = f"streams[{i}]"
    fields = _object(item, where, {"stream", "expected_version", "events"})
    stream = fields.get("stream")
    try:
        check_stream_id(stream)
    except InvalidRequest as error:
        raise InvalidRequest(f"{where}.stream: {error.message}") from error
    assert isinstance(stream, str)
    return _part(stream, fields, f"{where}.", limits)


def _check_one_partition(names: list[str], partitions: int) -> None:
    found = {name: partition_of(name, partitions) for name in names}
    if len(set(found.values())) > 1:
        raise InvalidRequest(
            "an append goes to one partition, and these streams are of several; "
            "ids that share a {tag} share a partition",
            partitions=found,
        )


def _check_count(count: int, limits: Limits) -> None:
    if count > limits.append_events_max:
        raise TooLarge(
            f"at most {limits.append_events_max} events in one append; split it",
            limit=limits.append_events_max,
            actual=count,
        )


def _check_size(request: AppendRequest, limits: Limits) -> None:
    size = sum(len(part.blob) for part in request.parts)
    if size > limits.append_bytes_max:
        raise TooLarge(
            f"an append has at most {limits.append_bytes_max} bytes; split it",
            limit=limits.append_bytes_max,
            actual=size,
        )


def _part(stream: str, fields: dict[str, Any], where: str, limits: Limits) -> AppendPart:
    expected = parse_expected(fields.get("expected_version", "any"))
    events = _list(fields, "events", where)
    _check_count(len(events), limits)
    packed = [_event(event, f"{where}events[{i}]", limits) for i, event in enumerate(events)]
    if len({event[0] for event in packed}) != len(packed):
        raise InvalidRequest(f"{where}events: two events of one append have the same id")
    return AppendPart(stream, expected, msgpack.packb(packed))


def _event(event: Any, where: str, limits: Limits) -> list[Any]:
    """One event as the array that a blob holds (see `storage.events`)."""
    fields = _object(event, where, _EVENT_KEYS)
    for key in ("type", "data"):
        if key not in fields:
            raise InvalidRequest(f"{where}: {key!r} is missing")
    try:
        check_event_type(fields["type"])
    except InvalidRequest as error:
        raise InvalidRequest(f"{where}.type: {error.message}") from error
    data, encoding = _content(fields, "data", "encoding", where)
    metadata = b""
    if fields.get("metadata") is not None:
        metadata, _ = _content(fields, "metadata", "metadata_encoding", where)
    if len(data) + len(metadata) > limits.event_bytes_max:
        raise TooLarge(
            f"{where}: an event has at most {limits.event_bytes_max} bytes of data and metadata",
            limit=limits.event_bytes_max,
            actual=len(data) + len(metadata),
        )
    return [_event_id(fields.get("id"), where), fields["type"], data, metadata, encoding]


def _event_id(value: Any, where: str) -> bytes:
    if value is None:
        return new_event_id()
    if isinstance(value, bytes) and len(value) == 16:
        return value
    if isinstance(value, str) and _UUID.fullmatch(value):
        return UUID(value).bytes
    raise InvalidRequest(f"{where}.id: an id is a UUID like 0b6f5c1e-3d7a-4f7e-9a51-0c7d1f0a2b3c")


def _content(fields: dict[str, Any], key: str, encoding_key: str, where: str) -> tuple[bytes, int]:
    """The stored bytes of `data` or `metadata`, and whether they are JSON or binary."""
    value, encoding = fields[key], fields.get(encoding_key)
    if encoding not in (None, "json", "base64"):
        raise InvalidRequest(f'{where}.{encoding_key}: "json" or "base64", not {encoding!r}')
    if encoding == "base64":
        return _base64(value, f"{where}.{key}"), BINARY
    if isinstance(value, bytes):
        if encoding is None:
            return value, BINARY
        value = parse_json(value)
    return _json(value, f"{where}.{key}"), JSON


def _base64(value: Any, where: str) -> bytes:
    if not isinstance(value, str):
        raise InvalidRequest(f"{where}: base64 is a string")
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidRequest(f"{where}: not valid base64: {error}") from error


def _json(value: Any, where: str) -> bytes:
    try:
        return json_bytes(value)
    except InvalidRequest as error:  # 1e999; bytes inside a JSON value of a msgpack body
        raise InvalidRequest(f"{where}: {error.message}") from error


def _object(value: Any, where: str, keys: frozenset[str] | set[str]) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InvalidRequest(f"{where} must be an object with {', '.join(sorted(keys))}")
    for key in value:
        if key not in keys:
            raise InvalidRequest(f"{where}: unknown key {key!r}; known are {', '.join(sorted(keys))}")
    return value


def _list(fields: dict[str, Any], key: str, where: str) -> list[Any]:
    value = fields.get(key)
    if not isinstance(value, list) or not value:
        raise InvalidRequest(f"{where}{key}: must be a list of at least one")
    return value
