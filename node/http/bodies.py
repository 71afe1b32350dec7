"""Request bodies, read strictly: what two parsers could understand differently is refused.

JSON that holds the same key twice, `NaN`, or a broken UTF-8 sequence means different things to
different libraries (RFC 8259 §4, §6, §8); an event store would keep the misunderstanding for ever.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import Any, NoReturn

import msgpack
from aiohttp import web

from allsource.storage.errors import InvalidRequest

MSGPACK = "application/msgpack"


class UnsupportedBody(InvalidRequest):
    """The body is of a kind that is not read here."""

    code = "unsupported_body"


async def read_body(request: web.Request) -> Any:
    """The body as plain values, by its Content-Type: msgpack if it says so, else JSON.

    curl's default Content-Type is that of a form, so that only msgpack has to be named.
    """
    body = await _received(request)
    if request.content_type == MSGPACK:
        return parse_msgpack(body)
    return parse_json(body)


async def _received(request: web.Request) -> bytes:
    encoding = request.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding != "identity":
        raise UnsupportedBody(
            "send the body as it is: a compressed one (Content-Encoding) is not unpacked here, "
            "because a few bytes of it can become gigabytes"
        )
    try:
        return await request.read()
    except (web.RequestPayloadError, ConnectionError):
        # The client hung up in mid-body, or its chunks are no chunks. Usually nobody reads this answer.
        raise InvalidRequest("the body ended early, or is not framed as HTTP asks") from None


def parse_json(body: bytes) -> Any:
    """Strict JSON in UTF-8; raises `InvalidRequest` with the place."""
    try:
        return _JSON.decode(body.decode())
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"the body is not UTF-8 (byte {error.start})") from error
    except RecursionError as error:
        raise InvalidRequest("the JSON body is nested too deeply") from error
    except ValueError as error:  # JSONDecodeError, a repeated key, NaN, an integer of 5000 digits
        raise InvalidRequest(f"the body is not valid JSON: {error}") from error


def parse_msgpack(body: bytes) -> Any:
    """One msgpack value without extension types; raises `InvalidRequest`.

    `skip` walks the bytes first and builds nothing: `unpackb` makes room for as many elements as a
    header *claims*, so that a few nested headers could ask for gigabytes.
    """
    try:
        walker = msgpack.Unpacker(max_buffer_size=len(body) or 1)
        walker.feed(body)
        walker.skip()
        return msgpack.unpackb(body, object_pairs_hook=_unique, max_ext_len=0)
    except msgpack.OutOfData as error:
        raise InvalidRequest("the body is not valid msgpack: it ends too early") from error
    except Exception as error:  # msgpack raises ValueError, its own classes, and UnicodeDecodeError
        raise InvalidRequest(f"the body is not valid msgpack: {error or type(error).__name__}") from error


def is_json(text: bytes) -> bool:
    """Whether stored bytes are one JSON value (a native client may have stored others as JSON)."""
    try:
        _LENIENT_KEYS.decode(text.decode())
    except (ValueError, RecursionError):
        return False
    return True


def _unique(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        [(twice, _)] = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"the key {twice!r} stands twice in one object")
    return found


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON value")


_JSON = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_refuse_constant)
_LENIENT_KEYS = json.JSONDecoder(parse_constant=_refuse_constant)
