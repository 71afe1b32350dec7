"""JSON whose values stay as they were written.

An event's data is its writer's: `123456789012345678901234567890.1234`, `1e999`, the order of keys,
white space and `"\\ud800"` mean something to somebody, and a parser that builds values keeps none of
them. It also builds a million objects out of three megabytes of `[]`. So a body is decoded by its shape
(msgspec, in C): the objects and lists that are ours become structs, and everything else is skipped
over, checked and kept as bytes (`Raw`).

Two things msgspec does not do are done here:

* **A key that stands twice** in an object of ours is refused (RFC 8259 §4: parsers differ in which one they
  take). `_Walk` goes along the text again beside the structs. Each value must stand in the text where the
  walk expects it, and where two complete JSON values begin at one place and end before a comma or bracket,
  they are the same value; so the walk either stays in step and sees every key, or finds that a later value
  has taken the place of an earlier one.
* **Half a surrogate pair** (`"\\ud800"`) is a JSON string's right (§8.2), and msgspec refuses it. When
  a text is refused and has such escapes, it is decoded once more with `\\u0061` in their places, which
  are as long; the bytes that are kept are those of the text.

Nothing here takes more than a few nanoseconds for a byte, whatever the bytes are.
"""

from __future__ import annotations

import codecs
import json
import re
import threading
from functools import lru_cache
from typing import Any, TypeVar

import msgspec

from allsource.storage.model.errors import InvalidRequest
from allsource.storage.model.events import too_many_events

DEPTH_ROOM = 300
"""Python 3.11 lets C code recurse about a thousand deep, its own frames included (later ones some ten
thousand). What comes in must leave so much of that unused, so that it can go out again by any path."""

SURROGATES_MAX = 10_000
"""Escapes of surrogates in one text that has half a pair: each takes a microsecond."""

_UTF8_STEP = 64 << 10
_MESSAGE_MAX = 300
_WS = rb"[ \t\n\r]*"
_KEY = rb'"((?:[^"\\]|\\.)*)"' + _WS + rb":" + _WS
_OBJECT = re.compile(rb"\{" + _WS + rb"(?:" + _KEY + rb"|\})")
_NEXT_KEY = re.compile(_WS + rb"(?:," + _WS + _KEY + rb"|\})")
_LIST = re.compile(rb"\[" + _WS + rb"\]?")
_ITEM = re.compile(_WS + rb"," + _WS)
_LAST_ITEM = re.compile(_WS + rb"\]")
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F][0-9a-fA-F]{2}")
_PLACE = re.compile(r"^(.*) - at `\$\.?(.*)`$", re.DOTALL)

_skip = msgspec.json.Decoder(msgspec.Raw).decode

_T = TypeVar("_T", bound=msgspec.Struct)


class _Room(threading.local):
    """How many more items may be made in the decoding that is under way: there is one in each thread."""

    left = 0
    most = 0


_room = _Room()


class Item(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """An object in a list of ours. Counted as it is made: msgspec looks at a list's length when it is
    too late, and twelve megabytes have room for 600,000 small ones."""

    def __post_init__(self) -> None:
        _room.left -= 1
        if _room.left < 0:
            raise too_many_events(_room.most, _room.most + 1)


def decode(text: bytes, shape: type[_T], items_max: int) -> dict[str, Any]:
    """The object in the text as a dictionary: of each struct in `shape` a dictionary, of each list a
    list, of each `Raw` the bytes of the value. Raises `InvalidRequest` with the place, and `TooLarge`
    if there are more than `items_max` `Item`s."""
    _check_utf8(text)
    try:
        _room.most = items_max
        found, plain = _decode(text, _decoder(shape))
    except RecursionError as error:
        raise InvalidRequest("the JSON body is nested too deeply") from error
    except msgspec.ValidationError as error:
        raise InvalidRequest(_placed(str(error)[:_MESSAGE_MAX])) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"the body is not valid JSON: {error}") from error
    return _Walk(text, plain).tree(found)


def is_json(text: bytes) -> bool:
    """Whether the bytes are one JSON value, which can stand in a document as they are."""
    try:
        _check_utf8(text)
        _decode(text, _skip)
    except (InvalidRequest, msgspec.DecodeError, RecursionError):
        return False
    return True


def check_json(text: bytes) -> None:
    """Raise `InvalidRequest` unless the bytes are one JSON value, and no deeper than `DEPTH_ROOM`
    allows."""
    _check_utf8(text)
    try:
        _decode(text, _skip)
        check_depth(text)
    except RecursionError as error:
        raise InvalidRequest("the JSON value is nested too deeply") from error
    except msgspec.DecodeError as error:
        raise InvalidRequest(f"not valid JSON: {error}") from error


def check_depth(value: bytes) -> None:
    """Raise `RecursionError` if a value that is JSON leaves less than `DEPTH_ROOM` levels."""
    if value.count(b"[") + value.count(b"{") > DEPTH_ROOM:
        _decode(b"[" * DEPTH_ROOM + value + b"]" * DEPTH_ROOM, _skip)


@lru_cache(maxsize=8)
def _decoder(shape: type[msgspec.Struct]) -> Any:
    return msgspec.json.Decoder(shape).decode


def _decode(text: bytes, decoder: Any) -> tuple[Any, bytes]:
    """What the decoder makes of the text, and the text that it was given."""
    try:
        _room.left = _room.most
        return decoder(text), text
    except msgspec.ValidationError:
        raise
    except msgspec.DecodeError:
        plain = _without_surrogates(text)
        if plain is None:
            raise
        _room.left = _room.most
        return decoder(plain), plain


def _without_surrogates(text: bytes) -> bytes | None:
    """The text with `\\u0061` in the place of each escape of a surrogate; None if it has none."""
    escapes = text.count(b"\\ud") + text.count(b"\\uD")
    if escapes > SURROGATES_MAX:
        raise InvalidRequest(
            f"not valid JSON, or half a surrogate pair among more than {SURROGATES_MAX} such escapes"
        )
    plain, behind = bytearray(text), 0
    for escape in _SURROGATE.finditer(text) if escapes else ():
        before = text[behind : escape.start()]
        if (len(before) - len(before.rstrip(b"\\"))) % 2 == 0:  # else the backslash is itself escaped
            plain[escape.start() : escape.end()] = b"\\u0061"
        behind = escape.start() + 1
    return bytes(plain) if escapes else None


def _check_utf8(text: bytes) -> None:
    """Raise `InvalidRequest` unless the bytes are UTF-8. In steps: a string of all may take four times
    the room."""
    if text.isascii():
        return
    decoder = codecs.getincrementaldecoder("utf-8")()
    view, at = memoryview(text), 0
    try:
        for at in range(0, len(text), _UTF8_STEP):
            decoder.decode(view[at : at + _UTF8_STEP])
        decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"the body is not UTF-8 (near byte {at + error.start})") from error


_WORDING = (
    (re.compile(r"^Object contains unknown field `(.*)`$", re.DOTALL), r"unknown key '\1'"),
    (re.compile(r"^Object missing required field `(.*)`$"), r"'\1' is missing"),
    (re.compile(r"^Expected `object`, got `(.*)`$"), r"must be an object, not \1"),
    (re.compile(r"^Expected `array`, got `(.*)`$"), r"must be a list, not \1"),
)


def _placed(message: str) -> str:
    """msgspec's message in our words, with our way to name a place: `events[0]: ...`."""
    match = _PLACE.match(message)
    what, where = (match[1], match[2]) if match else (message, "")
    for pattern, words in _WORDING:
        what = pattern.sub(words, what)
    return f"{where or 'the body'}: {what}"


class _Walk:
    """Along a text, beside what was decoded from it. `plain` is as long as `text`, and is what was
    decoded."""

    def __init__(self, text: bytes, plain: bytes) -> None:
        self._text = text
        self._plain = plain
        self._is_plain = text is plain
        self._at = 0

    def tree(self, top: msgspec.Struct) -> dict[str, Any]:
        self._at = self._plain.index(b"{")
        return self._object(top, "")

    def _object(self, struct: msgspec.Struct, where: str) -> dict[str, Any]:
        found: dict[str, Any] = {}
        plain = self._plain
        match = _in_step(_OBJECT.match(plain, self._at), where)
        while key := match[1]:  # the closing brace has none, and no key of ours is empty
            name = key.decode() if b"\\" not in key else json.loads(b'"' + key + b'"')
            value = getattr(struct, name)
            if name in found:
                raise _twice(f"{where}{name}")
            start = match.end()
            if type(value) is msgspec.Raw:
                raw = bytes(value)
                end = start + len(raw)
                if not plain.startswith(raw, start):
                    raise _twice(f"{where}{name}")
                found[name] = raw if self._is_plain else self._text[start:end]
            elif type(value) is list:
                self._at = start
                found[name] = self._list(value, f"{where}{name}")
                end = self._at
            else:  # a list whose place another one took, in which this key is not
                raise _twice(f"{where}{name}")
            match = _in_step(_NEXT_KEY.match(plain, end), where)
        self._at = match.end()
        return found

    def _list(self, items: list[msgspec.Struct], where: str) -> list[dict[str, Any]]:
        match = _in_step(_LIST.match(self._plain, self._at), where)
        found = []
        for number, item in enumerate(items):
            self._at = match.end()
            found.append(self._object(item, f"{where}[{number}]."))
            behind = _LAST_ITEM if number + 1 == len(items) else _ITEM
            match = _in_step(behind.match(self._plain, self._at), where)
        if not items and not match[0].endswith(b"]"):
            raise _twice(where)
        self._at = match.end()
        return found


def _in_step(match: re.Match[bytes] | None, where: str) -> re.Match[bytes]:
    if match is None:
        raise _twice(where.rstrip("."))
    return match


def _twice(where: str) -> InvalidRequest:
    return InvalidRequest(f"{where or 'the body'}: a key stands twice in one object")
