"""JSON bodies: their shape, and how they become drafts of an append (`appends`, where the grammar
stands)."""

from __future__ import annotations

import json
from typing import Any

import msgspec
from msgspec import UNSET, Raw, UnsetType

from allsource.node.http import rawjson
from allsource.node.http.appends import (
    AppendDraft,
    Content,
    EventDraft,
    MarkDraft,
    StreamDraft,
    as_json,
    content_encoding,
)
from allsource.storage.model.append import MARKS_MAX
from allsource.storage.model.errors import InvalidRequest
from allsource.storage.model.events import BINARY

_SHORT = 1024
"""Bytes of a value that is an id, a type, a stream or the like, as it is written: each character may be an
escape of six."""


class _Event(rawjson.Item):
    type: Raw
    data: Raw
    id: Raw | UnsetType = UNSET
    metadata: Raw | UnsetType = UNSET
    encoding: Raw | UnsetType = UNSET
    metadata_encoding: Raw | UnsetType = UNSET


class _OneStream(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    events: list[_Event]
    expected_version: Raw | UnsetType = UNSET


class _NamedStream(rawjson.Item):
    stream: Raw
    events: list[_Event]
    expected_version: Raw | UnsetType = UNSET


class _Mark(rawjson.Item):
    name: Raw
    position: Raw
    generation: Raw | UnsetType = UNSET


class _Several(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    streams: list[_NamedStream] | UnsetType = UNSET
    expected_tag: Raw | UnsetType = UNSET
    marks: list[_Mark] | UnsetType = UNSET
    partition: Raw | UnsetType = UNSET


class _Name(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    name: Raw


def one_stream(body: bytes, events_max: int) -> AppendDraft:
    """The body of an append to one stream."""
    return AppendDraft([_stream(rawjson.decode(body, _OneStream, events_max), "")])


def several_streams(body: bytes, events_max: int) -> AppendDraft:
    """The body of an append to several."""
    # Streams are counted too, and each has an event.
    found = rawjson.decode(body, _Several, 2 * events_max + MARKS_MAX)
    streams = [_stream(fields, f"streams[{i}].") for i, fields in enumerate(found.get("streams", ()))]
    marks = [_mark(fields, f"marks[{i}].") for i, fields in enumerate(found.get("marks", ()))]
    return AppendDraft(streams, _scalar(found, "expected_tag", ""), marks, _scalar(found, "partition", ""))


def _mark(fields: dict[str, Any], where: str) -> MarkDraft:
    generation = _scalar(fields, "generation", where) if "generation" in fields else 0
    return MarkDraft(_scalar(fields, "name", where), _scalar(fields, "position", where), generation)


def name_in(body: bytes) -> Any:
    """The value of `{"name": ...}`."""
    return _scalar(rawjson.decode(body, _Name, 0), "name", "")


def _stream(fields: dict[str, Any], where: str) -> StreamDraft:
    events = [_event(event, f"{where}events[{i}].") for i, event in enumerate(fields["events"])]
    expected = _scalar(fields, "expected_version", where) if "expected_version" in fields else "any"
    return StreamDraft(_scalar(fields, "stream", where), expected, events)


def _event(fields: dict[str, Any], where: str) -> EventDraft:
    data = _content(fields, "data", "encoding", where)
    metadata = None
    if fields.get("metadata", b"null") != b"null":
        metadata = _content(fields, "metadata", "metadata_encoding", where)
    else:
        content_encoding(_scalar(fields, "metadata_encoding", where), f"{where}metadata_encoding")
    return EventDraft(_scalar(fields, "type", where), data, metadata, _scalar(fields, "id", where))


def _content(fields: dict[str, Any], key: str, encoding_key: str, where: str) -> Content:
    raw: bytes = fields[key]
    encoding = content_encoding(_scalar(fields, encoding_key, where), f"{where}{encoding_key}")
    if encoding == "base64":
        return Content(_base64_in(raw, f"{where}{key}"), BINARY, is_base64=True)
    try:
        rawjson.check_depth(raw)
    except RecursionError as error:
        raise InvalidRequest(f"{where}{key}: nested too deeply") from error
    return as_json(raw)


def _base64_in(raw: bytes, where: str) -> bytes:
    if raw[:1] != b'"':
        raise InvalidRequest(f"{where}: base64 is a string")
    # Base64 has no character that must be escaped; only `\\/` is an escape that some encoders write.
    return raw[1:-1].replace(b"\\/", b"/")


def _scalar(fields: dict[str, Any], key: str, where: str) -> Any:
    """A short value; None if it is not there."""
    raw = fields.get(key)
    if raw is None:
        return None
    if len(raw) > _SHORT or raw[:1] in (b"[", b"{"):
        raise InvalidRequest(f"{where}{key}: must be a short string or number")
    return json.loads(raw)
