"""Request bodies: which kinds are read, and how much of them.

Nothing is parsed here. A body is JSON or msgpack and says so; a compressed one, one without a type, and one
that is larger than an append can be, is refused before it is read.
"""

from __future__ import annotations

from typing import NamedTuple

from aiohttp import web

from allsource.config.schema import Limits
from allsource.node.http.holder import holder_of
from allsource.storage.model.errors import InvalidRequest, Overloaded, TooLarge

MSGPACK = "application/msgpack"
JSON = "application/json"


class UnsupportedBody(InvalidRequest):
    """The body is of a kind that is not read here."""

    code = "unsupported_body"


class Body(NamedTuple):
    """A body as it came."""

    data: bytes
    is_msgpack: bool


def body_bytes_max(limits: Limits) -> int:
    """The largest body that is read: base64 makes a third more of an append's bytes, and its ids, types and
    punctuation need room too."""
    return limits.append_bytes_max + limits.append_bytes_max // 2


async def read_body(request: web.Request, most: int) -> Body:
    """The request's body of at most so many bytes; raises `UnsupportedBody`, `TooLarge`, `Overloaded`, or
    `InvalidRequest` if it does not arrive."""
    is_msgpack = _is_msgpack(request)
    length = request.content_length or 0
    if length > most:
        raise _too_large(most, length)
    holder = holder_of(request)
    if not holder.room_for(length):
        raise Overloaded("this node holds as many bytes for HTTP requests as it may; try again later")
    chunks, size = [], 0
    try:
        while chunk := await request.content.readany():
            chunks.append(chunk)
            size += len(chunk)
            if size > most:
                raise _too_large(most, size)
    except (web.RequestPayloadError, ConnectionError):
        # The client hung up in mid-body, or its chunks are no chunks. Usually nobody reads this answer.
        raise InvalidRequest("the body ended early, or is not framed as HTTP asks") from None
    holder.received()
    return Body(b"".join(chunks), is_msgpack)


def _is_msgpack(request: web.Request) -> bool:
    encoding = request.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding != "identity":
        raise UnsupportedBody(
            "send the body as it is: a compressed one (Content-Encoding) is not unpacked here, "
            "because a few bytes of it can become gigabytes"
        )
    kind = request.content_type if "Content-Type" in request.headers else ""
    if kind == MSGPACK:
        return True
    if kind == JSON or (kind.startswith("application/") and kind.endswith("+json")):
        return False
    # A web page may send text/plain or a form to any address without asking; these two types it may not.
    raise UnsupportedBody(
        "say what the body is, with the header 'Content-Type: application/json' "
        f"(curl: -H 'content-type: application/json') or '{MSGPACK}'"
    )


def _too_large(most: int, actual: int | None) -> TooLarge:
    return TooLarge(
        f"a body has at most {most} bytes on this node; split the append", limit=most, actual=actual
    )
