"""An event as a line of text, and as the JSON object that the HTTP door shows."""

from __future__ import annotations

import base64
import json
from typing import Any

from allsource.node.http.answers import rfc3339
from allsource.storage.events import BINARY, Event


def event_line(event: Event) -> str:
    """Version, time, type and data, tab-separated; binary data as base64."""
    data, encoding = _shown(event.data, binary=event.encoding == BINARY)
    text = json.dumps(data, ensure_ascii=False) if not encoding else f"base64:{data}"
    return "\t".join((str(event.version), rfc3339(event.timestamp_us), event.type, text))


def event_json(event: Event) -> dict[str, Any]:
    """The event as DESIGN's JSON; what is not JSON goes as base64 and says so."""
    found: dict[str, Any] = {
        "id": str(event.uuid),
        "stream": event.stream,
        "version": event.version,
        "partition": event.partition,
        "position": event.position,
        "type": event.type,
        "timestamp": rfc3339(event.timestamp_us),
    }
    for key, raw in (("data", event.data), ("metadata", event.metadata)):
        value, encoding = _shown(raw, binary=key == "data" and event.encoding == BINARY)
        found[key] = value
        if encoding:
            found["encoding" if key == "data" else "metadata_encoding"] = encoding
    return found


def _shown(raw: bytes, *, binary: bool) -> tuple[Any, str]:
    """The value and how it is encoded (empty: it is JSON). No bytes at all are null."""
    if not binary:
        try:
            return (json.loads(raw) if raw else None), ""
        except ValueError:  # a client may call anything JSON
            pass
    return base64.b64encode(raw).decode(), "base64"
