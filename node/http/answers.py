"""Results as bodies: JSON, or the same maps as msgpack for callers that send `Accept: application/msgpack`.

Stored JSON is spliced into a JSON answer byte for byte, after a look whether it *is* JSON: the msgpack port
does not parse what its clients call JSON, and a body must not be broken by what one of them stored. What is
not JSON goes out as base64. In msgpack, data is bin, and `"encoding": "json"` says that it is JSON text.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Collection, Mapping
from typing import Any
from uuid import UUID

import msgpack
from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

from allsource.cluster.protocol.requests import (
    AppendResult,
    MarkState,
    PartitionPage,
    StreamPage,
    TagPage,
    make_token,
)
from allsource.node.http.bodies import MSGPACK
from allsource.node.http.holder import holder_of
from allsource.node.http.rawjson import is_json
from allsource.storage.model.events import BINARY, Event
from allsource.storage.model.partition import tag_of
from allsource.storage.model.times import rfc3339

JSON_TYPE = "application/json"
_quote = json.encoder.encode_basestring


class Answer(web.Response):
    """An answer that tells its connection when it begins and ends to be written."""

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        self._holder = holder_of(request)
        self._holder.answering(self.content_length or 0)
        return await super().prepare(request)

    async def write_eof(self, data: bytes = b"") -> None:
        try:
            await super().write_eof(data)
        finally:
            self._holder.answered(is_last=not self.keep_alive)


def respond(
    request: web.BaseRequest,
    value: Mapping[str, Any],
    status: int = 200,
    headers: Mapping[str, str] | None = None,
) -> web.Response:
    """An answer in the form that the caller accepts."""
    if wants_msgpack(request):
        return answer(_pack(value, default=str), MSGPACK, status, headers)
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False, default=str)
    # Ends its line: a terminal prints its prompt behind what curl shows.
    return answer(text.encode(errors="replace") + b"\n", JSON_TYPE, status, headers)


def answer(
    body: bytes, form: str, status: int = 200, headers: Mapping[str, str] | None = None
) -> web.Response:
    """An answer with a body that is made already. `form`: its media type."""
    return Answer(body=body, status=status, headers=headers, content_type=form)


def form_of(request: web.BaseRequest) -> str:
    """The media type of answers to this request: JSON unless msgpack is asked for."""
    return MSGPACK if wants_msgpack(request) else JSON_TYPE


def _page(form: str, facts: Mapping[str, Any], events: list[Event]) -> bytes:
    if form == MSGPACK:
        return _pack({**facts, "events": list(map(_event_map, events))})
    head = json.dumps(facts, separators=(",", ":"), ensure_ascii=False).encode()
    return b'%b,"events":[%b]}\n' % (head[:-1], b",".join(map(_event_json, events)))


def wants_msgpack(request: web.BaseRequest) -> bool:
    """Whether the caller asked for msgpack; without a word it gets JSON."""
    return MSGPACK in request.headers.get("Accept", "")


def appended(result: AppendResult, *, several: bool) -> dict[str, Any]:
    """The body of a committed append; a retry gets the same."""
    common = {
        "partition": result.partition,
        "first_position": result.first_position,
        "last_position": result.last_position,
        "token": result.token,
    }
    streams = [part._asdict() for part in result.streams]
    return {"streams": streams, **common} if several else {**streams[0], **common}


def stream_facts(page: StreamPage) -> dict[str, Any]:
    """The body of `GET /v1/streams/{stream}`."""
    return {
        "stream": page.stream,
        "partition": page.partition,
        "current_version": page.current_version,
        "created_at": rfc3339(page.created_us),
        "updated_at": rfc3339(page.updated_us),
    }


def stream_page(form: str, page: StreamPage) -> bytes:
    """The body of the answer to a read of a stream; `next_from` is null when there is nothing further."""
    facts = {
        "stream": page.stream,
        "partition": page.partition,
        "current_version": page.current_version,
        "next_from": page.next_from or None,
    }
    return _page(form, facts, page.events())


def tag_page(form: str, page: TagPage, types: Collection[str]) -> bytes:
    """The body of the answer to a read by tag; of these types alone, if there are any."""
    facts = {
        "tag": page.tag,
        "partition": page.partition,
        "last_number": page.last_number,
        "next_from": page.next_from or None,
    }
    events = page.events()
    if types:
        events = [event for event in events if event.type in types]
    return _page(form, facts, events)


def mark(state: MarkState) -> dict[str, Any]:
    """The body of the answer to a read of a mark; `token` is null if it was never moved."""
    return {
        "partition": state.partition,
        "name": state.name,
        "position": state.position,
        "generation": state.generation,
        "token": make_token(state.partition, state.index) if state.index else None,
    }


def partition_page(form: str, page: PartitionPage) -> bytes:
    """The body of the answer to a read of a partition."""
    facts = {
        "partition": page.partition,
        "last_position": page.last_position,
        "next_from": page.next_from,
    }
    return _page(form, facts, page.events())


def _event_json(event: Event) -> bytes:
    """One event. Its data stands in it as it was written, if it is JSON."""
    extra = b""
    if event.encoding == BINARY or not is_json(event.data):
        data, extra = _base64(event.data), b',"encoding":"base64"'
    else:
        data = event.data
    metadata = b"null"
    if event.metadata and is_json(event.metadata):
        metadata = event.metadata
    elif event.metadata:
        metadata, extra = _base64(event.metadata), extra + b',"metadata_encoding":"base64"'
    tag = ""
    if event.tag_number:
        tag = f'"tag":{_quote(tag_of(event.stream))},"tag_number":{event.tag_number},'
    head = (
        f'{{"id":"{UUID(bytes=event.id)}","stream":{_quote(event.stream)},"version":{event.version},'
        f'"partition":{event.partition},"position":{event.position},{tag}"type":{_quote(event.type)},'
        f'"timestamp":"{rfc3339(event.timestamp_us)}"'
    )
    return b'%b,"data":%b,"metadata":%b%b}' % (head.encode(), data, metadata, extra)


def _base64(raw: bytes) -> bytes:
    return b'"%b"' % base64.b64encode(raw)


def _event_map(event: Event) -> dict[str, Any]:
    """One event for msgpack: data and metadata are bin, and `encoding` says which of them are JSON text."""
    found: dict[str, Any] = {
        "id": str(event.uuid),
        "stream": event.stream,
        "version": event.version,
        "partition": event.partition,
        "position": event.position,
        "type": event.type,
        "timestamp": rfc3339(event.timestamp_us),
        "data": event.data,
        "metadata": event.metadata or None,
    }
    if event.tag_number:
        found["tag"], found["tag_number"] = tag_of(event.stream), event.tag_number
    if event.encoding != BINARY and is_json(event.data):
        found["encoding"] = "json"
    if event.metadata and is_json(event.metadata):
        found["metadata_encoding"] = "json"
    return found


def _pack(value: Mapping[str, Any], default: Callable[[Any], Any] | None = None) -> bytes:
    packed: bytes = msgpack.packb(value, default=default)
    return packed
