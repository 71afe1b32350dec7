"""JSON as text: is it JSON, strictly, and how to write a value without changing what it says.

Two parsers must not understand stored data differently. So what is refused: a key that stands twice in one
object, `NaN` and `Infinity`, bytes that are not UTF-8 (RFC 8259 §4, §6, §8). A value of Python must *be* a
JSON value as well: a key that is no string would come back as another one, and half a surrogate pair has no
UTF-8. In JSON text `"\\ud800"` is allowed (§8.2), and whoever sends it gets it back.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import Any, NoReturn

from allsource.storage.arguments import shown
from allsource.storage.errors import InvalidRequest

_AROUND_SHOWN = 30
"""Characters before and behind the place of a fault that an error shows."""


def json_of(value: Any, what: str) -> bytes:
    """A value of Python as compact JSON in UTF-8; raises `InvalidRequest`, where `what` is its name."""
    try:
        text = json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        raw = text.encode()
    except UnicodeEncodeError:
        raise InvalidRequest(f"{what} is not JSON: a string holds half a surrogate pair") from None
    except RecursionError:
        raise InvalidRequest(f"{what} is not JSON: it is nested too deeply") from None
    except (TypeError, ValueError) as error:
        reason = "NaN and Infinity are no JSON numbers" if "float values" in str(error) else str(error)
        raise InvalidRequest(f"{what} is not JSON: {reason}") from None
    if isinstance(value, dict | list | tuple):
        _check_keys(value, what)
    return raw


def _check_keys(value: Any, what: str) -> None:
    """`json.dumps` writes a key 1 as "1", and so two different keys as the same: refuse it."""
    pending = [value]
    while pending:
        inside = pending.pop()
        if isinstance(inside, dict):
            for key in inside:
                if not isinstance(key, str):
                    raise InvalidRequest(f"{what} is not JSON: a key must be a string, not {shown(key)}")
            inside = inside.values()
        pending += [one for one in inside if isinstance(one, dict | list | tuple)]


def parse_json(raw: bytes, what: str) -> Any:
    """The value of strict JSON in UTF-8; raises `InvalidRequest` that points at the fault."""
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"{what} is not JSON: byte {error.start + 1} is not UTF-8") from None
    try:
        return _STRICT.decode(text)
    except json.JSONDecodeError as error:
        raise InvalidRequest(f"{what} is not JSON: {_pointer(text, error)}") from None
    except RecursionError:
        raise InvalidRequest(f"{what} is not JSON: it is nested too deeply") from None
    except ValueError as error:  # a repeated key, NaN, an integer of 5000 digits
        raise InvalidRequest(f"{what} is not JSON: {error}") from None


def is_json(raw: bytes) -> bool:
    """Whether stored bytes are one JSON value (a client may have stored others under that name)."""
    try:
        _LENIENT.decode(raw.decode())
    except (ValueError, RecursionError):
        return False
    return True


_TOKEN = re.compile(r'("(?:[^"\\]|\\.)*")|[ \t\r\n]+')


def one_line(text: str) -> str:
    """JSON text without the white space between its values; otherwise the same, digit for digit."""
    return _TOKEN.sub(lambda match: match[1] or "", text)


def in_ascii(text: str) -> str:
    """JSON text that means the same and is pure ASCII (outside strings JSON has no other characters)."""
    if text.isascii():
        return text
    return "".join(c if c < "\x80" else json.dumps(c)[1:-1] for c in text)


def _pointer(text: str, error: json.JSONDecodeError) -> str:
    """What is wrong, where, and the text around it with an arrow."""
    line = text[error.pos - error.colno + 1 :].split("\n", 1)[0]
    start = max(0, error.colno - 1 - _AROUND_SHOWN)
    before = ("..." if start else "") + line[start : error.colno - 1]
    behind = line[error.colno - 1 : error.colno - 1 + _AROUND_SHOWN]
    where = f"at line {error.lineno}, column {error.colno}"
    return f"{error.msg[:1].lower()}{error.msg[1:]} {where}: {before} -->{behind or '(the end)'}"


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        [(twice, _)] = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"the key {shown(twice)} stands twice in one object")
    return found


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON value")


_STRICT = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_refuse_constant)
_LENIENT = json.JSONDecoder(parse_constant=_refuse_constant)
