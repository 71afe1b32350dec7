"""What a writer expects of a stream before it appends: optimistic concurrency in one small value.

On the wire and in memory an expectation is one integer, so that the hot path compares integers:
a version >= 1 means exactly that version, 0 means `no_stream`, and two negative numbers stand for
the words. The words are those of the HTTP API.
"""

from __future__ import annotations

from typing import TypeAlias

from allsource.storage.model.arguments import NUMBER_MAX, shown
from allsource.storage.model.errors import InvalidRequest

ANY = -1
"""No expectation."""
EXISTS = -2
"""The stream has at least one event."""
NO_STREAM = 0
"""The stream has no event."""

ExpectedVersion = int

Expectation: TypeAlias = str | int
"""How callers say it: one of the words, or the version. `parse_expected` reads it. (Not a `Literal` of the
words: callers compute what they expect, and their type checker would know it as `str | int`.)"""

_WORDS = {"any": ANY, "exists": EXISTS, "no_stream": NO_STREAM}
_NAMES = {value: word for word, value in _WORDS.items()}
VERSION_MAX = NUMBER_MAX


def parse_expected(value: object) -> ExpectedVersion:
    """Read `"any"`, `"no_stream"`, `"exists"` or a version (0 is `no_stream`); else `InvalidRequest`."""
    if isinstance(value, str) and value in _WORDS:
        return _WORDS[value]
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= VERSION_MAX:
        return value
    raise InvalidRequest(
        f'expected_version must be "any", "no_stream", "exists" or a version from 0, not {shown(value)}'
    )


def show_expected(expected: ExpectedVersion) -> str | int:
    """The word or number that `parse_expected` reads back."""
    return _NAMES.get(expected, expected)


def is_met(expected: ExpectedVersion, actual: int) -> bool:
    """Whether a stream at version `actual` (0: no such stream) meets the expectation."""
    if expected >= 0:
        return actual == expected
    return expected == ANY or actual > 0
