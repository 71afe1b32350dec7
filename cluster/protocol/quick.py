"""The quick way to read a frame: batches of one kind, decoded by their type in C.

Nearly all frames are a batch of appends, of their answers, or of pages, packed as `payload.batch_prefix`
says. For those msgspec checks and makes in one pass what `payload.unpack` and `shapes` do in two, in a
third of the time. It is a way, not a rule: whatever it does not take, for whatever reason, is left to
`codec`, which says what is wrong. What it takes, `codec` would have read as the same values, within the
same bounds of memory; a test holds the two against each other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import msgspec

from allsource.cluster.protocol.codec import TIMEOUT_MS_MAX, Op, RequestItem, ResultItem
from allsource.cluster.protocol.kinds import Kind
from allsource.cluster.protocol.payload import LARGE_VALUES_MAX, SMALL_ARRAY_MAX, SMALL_BYTES, UINT_MAX
from allsource.cluster.protocol.requests import (
    AppendedStream,
    AppendPart,
    AppendRequest,
    AppendResult,
    PartitionPage,
    Run,
    StreamPage,
)
from allsource.cluster.protocol.shapes import PARTITION_MAX
from allsource.storage.model.entry import Mark
from allsource.storage.model.packing import Natural

_FIRST_ITEM_AT = 5  # behind `batch_prefix`
_FIXARRAY = 0x90
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError)


def _exactly(number: int) -> Any:
    return Annotated[int, msgspec.Meta(ge=int(number), le=int(number))]


def _array_of(*elements: Any) -> Any:
    """The type of an array of just these."""
    return tuple.__class_getitem__(elements)


def _batch(kind: Kind, *elements: Any) -> Callable[[bytes | memoryview], Any]:
    """Decodes a frame of this kind whose items are arrays of these elements."""
    item = _array_of(*elements)
    items: Any = Annotated[_array_of(item, ...), msgspec.Meta(max_length=SMALL_ARRAY_MAX)]
    return msgspec.msgpack.Decoder(_array_of(_exactly(kind), items)).decode


_Runs = Annotated[tuple[Run, ...], msgspec.Meta(max_length=LARGE_VALUES_MAX)]

_appends = _batch(
    Kind.REQUESTS,
    Natural,
    Annotated[int, msgspec.Meta(ge=0, le=TIMEOUT_MS_MAX)],
    _exactly(Op.APPEND),
    tuple[AppendPart, ...],
    Annotated[int, msgspec.Meta(ge=-1, le=UINT_MAX)],
    tuple[Mark, ...],
    Annotated[int, msgspec.Meta(ge=-1, le=PARTITION_MAX)],
)


def _answers(op: Op, *elements: Any) -> Callable[[bytes | memoryview], Any]:
    return _batch(Kind.RESULTS, Natural, _exactly(op), *elements)


_ANSWERS: dict[int, tuple[type[Any], Callable[[bytes | memoryview], Any]]] = {
    # By the number of an item's elements, which its first byte says.
    _FIXARRAY + 8: (
        AppendResult,
        _answers(Op.APPEND, Natural, Natural, Natural, Natural, tuple[AppendedStream, ...], bool),
    ),
    _FIXARRAY + 10: (
        StreamPage,
        _answers(Op.READ_STREAM, str, Natural, Natural, Natural, Natural, Natural, bool, _Runs),
    ),
    _FIXARRAY + 6: (
        PartitionPage,
        _answers(Op.READ_PARTITION, Natural, Natural, Natural, _Runs),
    ),
}
_APPEND_HEAD = _FIXARRAY + 7
_new = tuple.__new__


def quick_requests(payload: bytes | memoryview) -> list[RequestItem] | None:
    """The requests of a small REQUESTS frame of appends alone; None: ask `codec`."""
    if not _FIRST_ITEM_AT < len(payload) <= SMALL_BYTES or payload[_FIRST_ITEM_AT] != _APPEND_HEAD:
        return None
    try:
        _, items = _appends(payload)
    except _UNREADABLE:
        return None
    return [
        (id_, timeout_ms, _new(AppendRequest, (parts, expected_tag, marks, partition)))
        for id_, timeout_ms, _, parts, expected_tag, marks, partition in items
    ]


def quick_results(payload: bytes | memoryview) -> list[ResultItem] | None:
    """The results of a RESULTS frame of one kind; None: ask `codec`."""
    found = _ANSWERS.get(payload[_FIRST_ITEM_AT]) if len(payload) > _FIRST_ITEM_AT else None
    if found is None:
        return None
    make, decode = found
    try:
        _, items = decode(payload)
    except _UNREADABLE:
        return None
    return [(item[0], _new(make, item[2:])) for item in items]
