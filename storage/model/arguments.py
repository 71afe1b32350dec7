"""Arguments of public calls, checked before anything is done, in one wording for every door.

An argument is refused here, where its name is known, rather than at the other end of a connection that
others share. Types are meant strictly: `True` is no number, `"1"` is none, and 1.0 is no version.
What is refused is an `InvalidRequest` that names the argument, what is allowed and what came.
"""

from __future__ import annotations

import math
import reprlib

from allsource.storage.model.errors import InvalidRequest

NUMBER_MAX = 2**63 - 1
"""The largest version, position or limit: what eight signed bytes hold."""

_SHOWN = reprlib.Repr()
_SHOWN.maxstring = _SHOWN.maxother = 60


def whole_number(name: str, value: object, low: int = 1, high: int = NUMBER_MAX) -> int:
    """`value`, if it is a whole number from `low` to `high`."""
    if isinstance(value, int) and not isinstance(value, bool) and low <= value <= high:
        return value
    raise InvalidRequest(f"{name} must be a whole number from {low} to {high}, not {shown(value)}")


def seconds(name: str, value: object, most: float) -> float:
    """`value`, if it is a number of seconds above 0 and up to `most`."""
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= most:
        return value
    raise InvalidRequest(f"{name} must be more than 0 and at most {most:g} seconds, not {shown(value)}")


def flag(name: str, value: object) -> bool:
    """`value`, if it is True or False."""
    if isinstance(value, bool):
        return value
    raise InvalidRequest(f"{name} must be True or False, not {shown(value)}")


def text(name: str, value: object) -> str:
    """`value`, if it is a string (of any length and content)."""
    if isinstance(value, str):
        return value
    raise InvalidRequest(f"{name} must be a string, not {shown(value)}")


def shown(value: object) -> str:
    """A value for an error message: short, whatever it is, with its type where that matters."""
    if isinstance(value, int) and abs(value) > 10**40:
        return f"a number of {math.ceil(value.bit_length() * math.log10(2))} digits"
    if value is None or type(value) in (int, float):
        return repr(value)
    return f"{_SHOWN.repr(value)} (a {type(value).__name__})"
