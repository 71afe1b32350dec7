"""JSON as text: is it JSON, strictly, and how to write a value without changing what it says.

JSON text is its writer's and is kept byte for byte, so it is only checked: one value in UTF-8 (RFC 8259),
no `NaN` or `Infinity`. A value of Python must *be* a JSON value: a key that is no string would come back as
another one, and half a surrogate pair has no UTF-8. In JSON text `"\\ud800"` is allowed (§8.2).
"""

from __future__ import annotations

import json
import re
from collections import Counter
from math import isfinite
from typing import Any, NoReturn

import msgspec

from allsource.storage.model.arguments import shown
from allsource.storage.model.errors import InvalidRequest

_AROUND_SHOWN = 30
"""Characters before and behind the place of a fault that an error shows."""


def json_of(value: Any, what: str) -> bytes:
    """A value of Python as compact JSON in UTF-8; raises `InvalidRequest`, where `what` is its name."""
    try:
        raw = _encode_quickly(value)  # it ends what has no end, and takes more than is JSON
        if _is_plain(value):
            return raw
    except (TypeError, ValueError, OverflowError, RecursionError):
        pass  # the other way says what is wrong, or knows how
    try:
        raw = _encode(value).encode()
    except UnicodeEncodeError:
        raise InvalidRequest(f"{what} is not JSON: a string holds half a surrogate pair") from None
    except RecursionError:
        raise InvalidRequest(f"{what} is not JSON: it is nested too deeply") from None
    except (TypeError, ValueError) as error:
        reason = "NaN and Infinity are no JSON numbers" if "float values" in str(error) else str(error)
        raise InvalidRequest(f"{what} is not JSON: {reason}") from None
    if isinstance(value, _CONTAINERS):
        _check_keys(value, what)
    return raw


_CONTAINERS = (dict, list, tuple)
_SCALARS = frozenset((str, int, bool, type(None)))


def _is_plain(value: Any) -> bool:
    """Whether these are the types of JSON themselves, and no number is infinite or none."""
    pending: list[Any] = [(value,)]
    while pending:
        inside = pending.pop()
        if type(inside) is dict:
            for key in inside:
                if type(key) is not str:
                    return False
            inside = inside.values()
        for one in inside:
            kind = type(one)
            if kind in _SCALARS:
                continue
            if kind is dict or kind is list or kind is tuple:
                pending.append(one)
            elif kind is not float or not isfinite(one):
                return False
    return True


def _check_keys(value: Any, what: str) -> None:
    """`json.dumps` writes a key 1 as "1", and so two different keys as the same: refuse it."""
    pending = [value]
    while pending:
        inside = pending.pop()
        if isinstance(inside, dict):
            for key in inside:
                if type(key) is not str and not isinstance(key, str):
                    raise InvalidRequest(f"{what} is not JSON: a key must be a string, not {shown(key)}")
            inside = inside.values()
        for one in inside:
            if isinstance(one, _CONTAINERS):
                pending.append(one)


def check_json(raw: bytes, what: str) -> None:
    """Raise `InvalidRequest` that points at the fault, unless the bytes are one JSON value in UTF-8."""
    try:
        if not raw.isascii():
            raw.decode()
        _skip(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        _parse(raw, what, _LENIENT)  # it knows the place, and what is right about half a surrogate pair


def parse_json(raw: bytes, what: str) -> Any:
    """The value of JSON text in which no object has a key twice; else `InvalidRequest` with a pointer."""
    return _parse(raw, what, _STRICT)


def _parse(raw: bytes, what: str, decoder: json.JSONDecoder) -> Any:
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"{what} is not JSON: byte {error.start + 1} is not UTF-8") from None
    try:
        return decoder.decode(text)
    except json.JSONDecodeError as error:
        raise InvalidRequest(f"{what} is not JSON: {_pointer(text, error)}") from None
    except RecursionError:
        raise InvalidRequest(f"{what} is not JSON: it is nested too deeply") from None
    except ValueError as error:  # a repeated key, NaN, an integer of 5000 digits
        raise InvalidRequest(f"{what} is not JSON: {error}") from None


def is_json(raw: bytes) -> bool:
    """Whether stored bytes are one JSON value (a client may have stored others under that name)."""
    try:
        check_json(raw, "")
    except InvalidRequest:
        return False
    return True


_DELETE = "\x7f"
_TOKEN = re.compile(r'("(?:[^"\\]|\\.)*")|[ \t\r\n]+')


def one_line(text: str) -> str:
    """JSON text without the white space between its values; otherwise the same, digit for digit."""
    return _TOKEN.sub(lambda match: match[1] or "", text)


def in_ascii(text: str) -> str:
    """JSON text that means the same in printable ASCII (only strings hold anything else)."""
    if text.isascii() and _DELETE not in text:
        return text
    return "".join(c if c < _DELETE else json.dumps(c)[1:-1] for c in text)


_SPACE = re.compile(r"[ \t\r\n]*")


def members(text: str) -> dict[str, str]:
    """The members of the JSON object `text`, each value as the text that stands there. `text` was parsed
    before, and is an object."""
    found: dict[str, str] = {}
    at = _behind_space(text, _behind_space(text, 0) + 1)
    while text[at] != "}":
        key, at = _STRICT.raw_decode(text, at)
        start = _behind_space(text, _behind_space(text, at) + 1)
        _, at = _STRICT.raw_decode(text, start)
        found[key] = text[start:at]
        at = _behind_space(text, at)
        if text[at] == ",":
            at = _behind_space(text, at + 1)
    return found


def _behind_space(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    assert match is not None
    return match.end()


def _pointer(text: str, error: json.JSONDecodeError) -> str:
    """What is wrong, where, and the text around it with an arrow."""
    line = text[error.pos - error.colno + 1 :].split("\n", 1)[0]
    start = max(0, error.colno - 1 - _AROUND_SHOWN)
    before = ("..." if start else "") + line[start : error.colno - 1]
    before += " " if before else ""
    behind = line[error.colno - 1 : error.colno - 1 + _AROUND_SHOWN]
    where = f"at line {error.lineno}, column {error.colno}"
    return f"{error.msg[:1].lower()}{error.msg[1:]} {where}: {before}-->{behind or '(the end)'}"


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        [(twice, _)] = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"the key {shown(twice)} stands twice in one object")
    return found


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON value")


_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode
_encode_quickly = msgspec.json.Encoder().encode
_STRICT = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_refuse_constant)
_LENIENT = json.JSONDecoder(parse_constant=_refuse_constant)
_skip = msgspec.json.Decoder(msgspec.Raw).decode
