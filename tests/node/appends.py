"""Appends for tests of a node, as its doors make them."""

from __future__ import annotations

from collections.abc import Sequence

from allsource.cluster.protocol.requests import AppendPart, AppendRequest
from allsource.storage.model.chunks import pack_events
from allsource.storage.model.entry import Mark
from allsource.storage.model.events import NewEvent
from allsource.storage.model.expected import ANY


def append(
    *parts: tuple[str, list[NewEvent]] | tuple[str, list[NewEvent], int],
    expected: int = ANY,
    expected_tag: int = ANY,
    marks: Sequence[Mark] = (),
    compress: bool = False,
) -> AppendRequest:
    """An append to one or several streams; a part may bring its own expected version. Not compressed, so
    that it is as large as its events."""
    return AppendRequest(
        tuple(
            AppendPart(p[0], p[2] if len(p) > 2 else expected, pack_events(p[1], compress=compress))
            for p in parts
        ),
        expected_tag,
        tuple(marks),
    )


def marks_alone(*marks: Mark, partition: int = 0) -> AppendRequest:
    """An append that only moves marks."""
    return AppendRequest((), marks=marks, partition=partition)


def events(count: int = 1, size: int = 10, type: str = "Tested") -> list[NewEvent]:
    return [NewEvent(type, b'"' + b"x" * size + b'"') for _ in range(count)]
