"""What a user gives `allsource append` to store: on the command line, or piped in.

JSON stays as it is written. What is piped in is read when there is no DATA, as any filter does. A command
that is run at a terminal without DATA does not wait in silence, and empty input is an error, not an event.
"""

from __future__ import annotations

import os
import sys
from uuid import UUID

import click

from allsource.storage.model.errors import InvalidRequest
from allsource.storage.model.events import JSON, NewEvent, new_event_id
from allsource.storage.model.json_text import members, parse_json
from allsource.storage.model.printable import printable

_KEYS = {"type", "data", "metadata", "id"}


def given_data(data: str | None) -> bytes:
    """The bytes of DATA: the argument's, or standard input's if it is `-` or missing."""
    if data is not None and data != "-":
        return os.fsencode(data)
    if data is None and (sys.stdin is None or sys.stdin.isatty()):
        raise click.UsageError(
            "append what? Give DATA, one JSON value like '{\"total\": 42}', or pipe it in"
        )
    raw = sys.stdin.buffer.read()
    if not raw.strip():
        raise click.UsageError("append what? There is no DATA, and nothing came on standard input")
    return raw


def events_of_lines(raw: bytes) -> list[NewEvent]:
    """An event for each line that is not empty; raises `InvalidRequest` that names the line."""
    return [_event(line, number) for number, line in enumerate(raw.splitlines(), 1) if line.strip()]


def _event(line: bytes, number: int) -> NewEvent:
    what = f"line {number}"
    match parse_json(line, what):
        case {"type": str(type_), "data": _, **others} if others.keys() <= _KEYS:
            text = members(line.decode())
            metadata = b"" if others.get("metadata") is None else text["metadata"].encode()
            try:
                return NewEvent(type_, text["data"].encode(), metadata, JSON, _id(others.get("id")))
            except InvalidRequest as error:
                raise InvalidRequest(f"{what}: {error.message}") from None
        case dict(found):
            wrong = [key for key in ("type", "data") if key not in found] or sorted(found.keys() - _KEYS)
            shown = f" (look at {', '.join(map(repr, wrong))})" if wrong else ""
            raise InvalidRequest(
                f'{what} is not {{"type": text, "data": value, "metadata"?: value, "id"?: UUID}}{shown}'
            )
    raise InvalidRequest(f"{what} is not a JSON object but {printable(line.decode())[:60]}")


def _id(value: object) -> bytes:
    if value is None:
        return new_event_id()
    try:
        return UUID(value).bytes if isinstance(value, str) else b""
    except ValueError:
        raise InvalidRequest(f"id {value!r} is not a UUID") from None
