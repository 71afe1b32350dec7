"""An event as a line of text, and as the JSON object that the HTTP door shows.

JSON data stands in both as it was written, digit for digit: what a parser would make of it is not the data.
In the line for people everything that is not printable is escaped; the JSON for programs is pure ASCII.
"""

from __future__ import annotations

import base64
import json

from allsource.storage.model.events import BINARY, Event
from allsource.storage.model.json_text import in_ascii, is_json, one_line
from allsource.storage.model.partition import tag_of
from allsource.storage.model.printable import printable
from allsource.storage.model.times import rfc3339


def event_line(event: Event) -> str:
    """Version, time, type and data, tab-separated; binary data as base64."""
    return _line(str(event.version), event)


def partition_line(event: Event) -> str:
    """Position, stream, version, time, type and data, tab-separated."""
    return _line(f"{event.position}\t{printable(event.stream)}\t{event.version}", event)


def tag_line(event: Event) -> str:
    """Tag number, stream, version, time, type and data, tab-separated."""
    return _line(f"{event.tag_number}\t{printable(event.stream)}\t{event.version}", event)


def _line(begin: str, event: Event) -> str:
    text = _text(event.data, binary=event.encoding == BINARY)
    shown = printable(text) if text is not None else f"base64:{base64.b64encode(event.data).decode()}"
    return "\t".join((begin, rfc3339(event.timestamp_us), printable(event.type), shown))


def event_json(event: Event) -> str:
    """The event as DESIGN's JSON on one line; what is not JSON goes as base64 and says so."""
    facts = {
        "id": str(event.uuid),
        "stream": event.stream,
        "version": event.version,
        "partition": event.partition,
        "position": event.position,
        **({"tag": tag_of(event.stream), "tag_number": event.tag_number} if event.tag_number else {}),
        "type": event.type,
        "timestamp": rfc3339(event.timestamp_us),
    }
    members = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in facts.items()]
    members += _json_members("data", "encoding", event.data, binary=event.encoding == BINARY)
    members += _json_members("metadata", "metadata_encoding", event.metadata, binary=False)
    return "{" + ", ".join(members) + "}"


def _json_members(key: str, encoding_key: str, raw: bytes, *, binary: bool) -> list[str]:
    text = _text(raw, binary=binary)
    if text is not None:
        return [f'"{key}": {in_ascii(text)}']
    return [f'"{key}": "{base64.b64encode(raw).decode()}"', f'"{encoding_key}": "base64"']


def _text(raw: bytes, *, binary: bool) -> str | None:
    """The JSON text on one line, None if it is none. No bytes at all are null."""
    if binary:
        return None
    if not raw:
        return "null"
    return one_line(raw.decode()) if is_json(raw) else None  # a client may call anything JSON
