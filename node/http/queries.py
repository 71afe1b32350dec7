"""What a URL says: stream ids, partitions, query parameters, and how long the caller will wait.

A parameter that is unknown, given twice or out of range is refused with what is allowed.
"""

from __future__ import annotations

import re
from urllib.parse import unquote_to_bytes

from aiohttp import web

from allsource.cluster.protocol.requests import TYPES_MAX
from allsource.config.schema import Limits
from allsource.storage.model.errors import InvalidRequest
from allsource.storage.model.events import check_event_type
from allsource.storage.model.expected import VERSION_MAX
from allsource.storage.model.partition import check_name, check_stream_id, check_tag

TIMEOUT_MS_MAX = 60_000

_DURATION = re.compile(r"([0-9]{1,6})(ms|s)?")
_NAME_SEGMENT = 3  # of ("/", "v1", "streams", STREAM, ...), and of tags
_MARK_SEGMENT = 5  # of ("/", "v1", "partitions", PARTITION, "marks", NAME)


def stream_of(request: web.Request) -> str:
    """The stream id in the path; `%2F` is a slash in it, `%7Btag%7D` or `{tag}` a hash tag."""
    stream = _segment(request, _NAME_SEGMENT, "stream id")
    check_stream_id(stream)
    return stream


def tag_in(request: web.Request) -> str:
    """The tag in the path, without braces."""
    tag = _segment(request, _NAME_SEGMENT, "tag")
    check_tag(tag)
    return tag


def mark_in(request: web.Request) -> str:
    """The mark's name in the path."""
    name = _segment(request, _MARK_SEGMENT, "mark's name")
    check_name(name, "a mark")
    return name


def _segment(request: web.Request, number: int, what: str) -> str:
    segment = request.rel_url.raw_parts[number]
    try:
        return unquote_to_bytes(segment).decode()
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"the {what} {segment!r} is not UTF-8 when it is decoded") from error


def partition_in(request: web.Request, partitions: int) -> int:
    """The partition number in the path."""
    text = request.match_info["partition"]
    if not (text.isascii() and text.isdigit() and len(text) <= 6 and int(text) < partitions):
        raise InvalidRequest(f"partition {text!r} is out of range: 0 to {partitions - 1}")
    return int(text)


class Query:
    """The query parameters of one request, checked as they are asked for."""

    def __init__(self, request: web.Request, *known: str, repeated: str = "") -> None:
        """`repeated`: the one that may be given several times."""
        allowed = ("timeout", *known, *((repeated,) if repeated else ()))
        for name in request.query:
            if name not in allowed:
                raise InvalidRequest(f"unknown query parameter {name!r}; known here: {', '.join(allowed)}")
            if name != repeated and len(request.query.getall(name)) > 1:
                raise InvalidRequest(f"query parameter {name!r} is given twice")
        self._values = request.query
        self._headers = request.headers

    def number(self, name: str, default: int, highest: int = VERSION_MAX) -> int:
        """A whole number from 1 to `highest`."""
        text = self._values.get(name)
        if text is None:
            return default
        if text.isascii() and text.isdigit() and len(text) <= 19 and 1 <= int(text) <= highest:
            return int(text)
        raise InvalidRequest(
            f"query parameter {name!r} must be a whole number from 1 to {highest}, not {text!r}"
        )

    def choice(self, name: str, default: str, other: str) -> bool:
        """Whether the parameter has its `default` value; it may also be `other`."""
        text = self._values.get(name, default)
        if text not in (default, other):
            raise InvalidRequest(f'query parameter {name!r} is "{default}" or "{other}", not {text!r}')
        return text == default

    def text(self, name: str) -> str:
        """The parameter as it is, empty if it is not given."""
        return self._values.get(name, "")

    def types(self, name: str) -> tuple[str, ...]:
        """The event types that a parameter names, which may be given several times."""
        found = tuple(self._values.getall(name, ()))
        if len(found) > TYPES_MAX:
            raise InvalidRequest(f"query parameter {name!r} is given at most {TYPES_MAX} times")
        for one in found:
            check_event_type(one)
        return found

    def timeout_ms(self, limits: Limits) -> int:
        """How long the caller waits: `timeout=` or `X-Request-Timeout:`, as `1500ms`, `2s` or `1500`."""
        text = self._values.get("timeout") or self._headers.get("X-Request-Timeout")
        if text is None:
            return limits.request_timeout_ms
        match = _DURATION.fullmatch(text.strip())
        if match:
            milliseconds = int(match[1]) * (1000 if match[2] == "s" else 1)
            if 1 <= milliseconds <= TIMEOUT_MS_MAX:
                return milliseconds
        raise InvalidRequest(
            f"a timeout is 1ms to {TIMEOUT_MS_MAX // 1000}s, like 1500ms or 2s, not {text!r}"
        )
