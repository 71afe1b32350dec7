"""msgpack bodies: read value by value, each where it belongs, into drafts of an append (`appends`).

Nothing is unpacked "whatever it is": a map or list where none belongs is refused at its first byte, so that
sixteen megabytes of empty arrays cost what the first of them costs. Keys that stand twice are seen, too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgpack

from allsource.node.http import rawjson
from allsource.node.http.appends import (
    AppendDraft,
    Content,
    EventDraft,
    MarkDraft,
    StreamDraft,
    as_json,
    content_encoding,
    placed,
)
from allsource.storage.model.append import MARKS_MAX, too_many_marks
from allsource.storage.model.errors import InvalidRequest
from allsource.storage.model.events import BINARY, too_many_events


def one_stream(body: bytes, events_max: int) -> AppendDraft:
    """The body of an append to one stream."""
    reader = _Reader(body, events_max)
    fields = {"expected_version": reader.scalar, "events": reader.events}
    draft: AppendDraft = reader.whole(lambda: AppendDraft([reader.stream(fields, "")]))
    return draft


def several_streams(body: bytes, events_max: int) -> AppendDraft:
    """The body of an append to several."""
    reader = _Reader(body, events_max)
    known = {
        "streams": reader.streams,
        "expected_tag": reader.scalar,
        "marks": reader.marks,
        "partition": reader.scalar,
    }
    found: dict[str, Any] = reader.whole(lambda: reader.fields(known, ""))
    return AppendDraft(
        found.get("streams", []), found.get("expected_tag"), found.get("marks", []), found.get("partition")
    )


def name_in(body: bytes) -> Any:
    """The value of `{"name": ...}`."""
    reader = _Reader(body, 0)
    return reader.whole(lambda: reader.fields({"name": reader.scalar}, "").get("name"))


_Read = Callable[[str], Any]


class _Reader:
    """One body. Methods named after a thing read that thing; their argument is its place, for errors."""

    def __init__(self, body: bytes, events_max: int) -> None:
        self._body = body
        self._unpacker = msgpack.Unpacker(max_buffer_size=len(body) or 1, max_ext_len=0)
        self._unpacker.feed(body)
        self._events_max = events_max
        self._events_left = events_max

    def whole(self, read: Callable[[], Any]) -> Any:
        """What `read` reads, if that is all there is; raises `InvalidRequest`."""
        try:
            found = read()
        except msgpack.OutOfData as error:
            raise InvalidRequest("the body is not valid msgpack: it ends too early") from error
        except (ValueError, msgpack.UnpackException) as error:
            what = str(error)[:200] or type(error).__name__
            raise InvalidRequest(f"the body is not valid msgpack: {what}") from error
        if self._unpacker.tell() != len(self._body):
            raise InvalidRequest("the body is not valid msgpack: something follows behind its value")
        return found

    def fields(self, known: Mapping[str, _Read], where: str) -> dict[str, Any]:
        """A map of ours."""
        what = where[:-1] or "the body"
        if not self._next_is(0x80, 0x8F, 0xDE, 0xDF):
            raise InvalidRequest(f"{what} must be an object with {', '.join(sorted(known))}")
        found: dict[str, Any] = {}
        for _ in range(self._unpacker.read_map_header()):
            key = self.scalar(f"a key of {what}")
            if key not in known:
                shown = str(key)[:100]
                raise InvalidRequest(f"{what}: unknown key {shown!r}; known are {', '.join(sorted(known))}")
            if key in found:
                raise InvalidRequest(f"{where}{key}: the key {key!r} stands twice in one object")
            found[key] = known[key](f"{where}{key}")
        return found

    def scalar(self, where: str) -> Any:
        """Text, bytes, a number, true, false or nil."""
        if self._next_is(0x80, 0x9F, 0xDC, 0xDF):
            raise InvalidRequest(f"{where}: must not be a list or a map")
        return self._unpacker.unpack()

    def items(self, read: _Read, where: str) -> list[Any]:
        """A list of ours. Each item ends up being an event or having one."""
        claimed = self.length(where)
        if claimed > self._events_left:
            asked = self._events_max - self._events_left + claimed
            raise placed(where, too_many_events(self._events_max, asked))
        return [read(f"{where}[{i}].") for i in range(claimed)]

    def length(self, where: str) -> int:
        """The length that a list of ours claims."""
        if not self._next_is(0x90, 0x9F, 0xDC, 0xDD):
            raise InvalidRequest(f"{where}: must be a list of at least one")
        claimed: int = self._unpacker.read_array_header()
        return claimed

    def streams(self, where: str) -> list[StreamDraft]:
        known = {"stream": self.scalar, "expected_version": self.scalar, "events": self.events}
        return self.items(lambda place: self.stream(known, place), where)

    def marks(self, where: str) -> list[MarkDraft]:
        claimed = self.length(where)
        if claimed > MARKS_MAX:
            raise placed(where, too_many_marks(claimed))
        return [self.mark(f"{where}[{i}].") for i in range(claimed)]

    def mark(self, where: str) -> MarkDraft:
        found = self.fields(dict.fromkeys(("name", "position", "generation"), self.scalar), where)
        for key in ("name", "position"):
            if key not in found:
                raise InvalidRequest(f"{where[:-1]}: {key!r} is missing")
        return MarkDraft(found["name"], found["position"], found.get("generation", 0))

    def stream(self, known: Mapping[str, _Read], where: str) -> StreamDraft:
        found = self.fields(known, where)
        return StreamDraft(
            found.get("stream"), found.get("expected_version", "any"), found.get("events", ())
        )

    def events(self, where: str) -> list[EventDraft]:
        found = self.items(self.event, where)
        self._events_left -= len(found)
        return found

    def event(self, where: str) -> EventDraft:
        names = ("id", "type", "data", "metadata", "encoding", "metadata_encoding")
        found = self.fields(dict.fromkeys(names, self.scalar), where)
        for key in ("type", "data"):
            if key not in found:
                raise InvalidRequest(f"{where[:-1]}: {key!r} is missing")
        data = _content(found, "data", "encoding", where)
        metadata = None
        if found.get("metadata") is not None:
            metadata = _content(found, "metadata", "metadata_encoding", where)
        return EventDraft(found["type"], data, metadata, found.get("id"))

    def _next_is(self, low: int, high: int, other_low: int, other_high: int) -> bool:
        """Whether the next byte is in one of the two ranges."""
        at: int = self._unpacker.tell()
        if at >= len(self._body):
            raise msgpack.OutOfData
        byte = self._body[at]
        return low <= byte <= high or other_low <= byte <= other_high


def _content(fields: Mapping[str, Any], key: str, encoding_key: str, where: str) -> Content:
    value, encoding = fields[key], content_encoding(fields.get(encoding_key), f"{where}{encoding_key}")
    if encoding == "base64":
        if not isinstance(value, str):
            raise InvalidRequest(f"{where}{key}: base64 is a string")
        return Content(value.encode(), BINARY, is_base64=True)
    if not isinstance(value, bytes):
        raise InvalidRequest(
            f'{where}{key}: in msgpack this is bin: any bytes, or JSON text with "{encoding_key}": "json"'
        )
    if encoding is None:
        return Content(value, BINARY)
    try:
        rawjson.check_json(value)
    except InvalidRequest as error:
        raise InvalidRequest(f"{where}{key}: {error.message}") from error
    return as_json(value)
