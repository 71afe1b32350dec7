"""A payload as a whole: one msgpack array, packed, and opened within bounds of memory.

A payload is one msgpack array `[kind, ...]`. Messages, requests and results travel in batches, `[kind,
[item, ...]]`: what is sent within one loop turn goes as one frame and is unpacked in one call (64 requests
in 64 frames cost 0.25 us each to unpack, in one frame 0.14 us, before the frames' own cost). Items are
packed one by one, so that one that cannot be packed fails its own caller only, and the cutting into frames
knows exact sizes.

Nothing here trusts its input, and memory is bounded. msgpack allocates an array as soon as it is *claimed*,
and an empty array of one byte becomes an object of 80: 16 MiB could ask for 1.2 GiB (tried). So small
payloads are unpacked with a limit on every array, and of a large one the skeleton is walked first,
allocating nothing: large frames are large because of the events in them, not of many small values.

API: `pack` gives bytes, `batch_prefix` what goes before the items of a frame, `unpack` opens a payload,
`batch` gives a batch's items.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgpack

from allsource.cluster.protocol.frames import ProtocolError
from allsource.storage.model import packing
from allsource.storage.model.errors import InvalidRequest

BATCH_ITEMS_MAX = 1024
"""Items in one frame; more are cut into several."""
BATCH_BYTES = 60_000
"""A frame takes no further item when this many bytes are in it (one item may be larger)."""
UINT_MAX = 2**63 - 1

SMALL_BYTES = 65_536
SMALL_ARRAY_MAX = 4_096
LARGE_VALUES_MAX = 131_072
"""Values in the skeleton of a payload above SMALL_BYTES, from a dialler (answers have no such limit)."""
DEPTH_MAX = 8
MAP_ITEMS_MAX = 1_024


def pack(value: Any) -> bytes:
    """`value` as msgpack. Raises `InvalidRequest` for what msgpack cannot say (a lone surrogate, 2**64)."""
    try:
        return packing.pack(value)
    except (ValueError, OverflowError, TypeError) as error:  # UnicodeEncodeError is a ValueError
        raise InvalidRequest(f"this cannot be sent: {error}") from error


def batch_prefix(kind: int, count: int) -> bytes:
    """The head of a payload `[kind, [item, ...]]`; `count` packed items follow it."""
    return bytes((0x92, kind, 0xDC, count >> 8, count & 0xFF))


def unpack(payload: bytes | memoryview, *, answers: bool = False) -> list[Any]:
    """Open a payload: a list whose first element is an int, the kind. Raises `ProtocolError`.

    `answers`: the payload comes from a node that we asked. Its large pages hold as many values as we asked
    for, so they are not walked first.
    """
    size = len(payload)
    array_max = SMALL_ARRAY_MAX
    if size > SMALL_BYTES:
        if not answers:
            _walk(payload)
        array_max = min(size, LARGE_VALUES_MAX)
    try:
        value = msgpack.unpackb(
            payload,
            max_array_len=array_max,
            max_map_len=MAP_ITEMS_MAX,
            max_ext_len=0,
            ext_hook=_no_extensions,
        )
    except (ValueError, TypeError) as error:  # msgpack's own classes are ValueErrors
        raise malformed(f"not one msgpack value: {error or type(error).__name__}") from error
    if type(value) is not list or not value or type(value[0]) is not int:
        raise malformed("a payload is an array that begins with its kind")
    return value


def _no_extensions(code: int, data: bytes) -> Any:
    raise ValueError(f"extension type {code}")


def _walk(payload: bytes | memoryview) -> None:
    """Refuse a large payload whose skeleton is too wide or too deep, without building any of it."""
    walker = msgpack.Unpacker(max_buffer_size=len(payload))
    walker.feed(payload)
    budget = LARGE_VALUES_MAX
    pending = [1]
    try:
        while pending:
            pending[-1] -= 1
            if pending[-1] < 0:
                pending.pop()
                continue
            head = payload[walker.tell()]
            if 0x90 <= head <= 0x9F or head in (0xDC, 0xDD):
                inside = walker.read_array_header()
            elif 0x80 <= head <= 0x8F or head in (0xDE, 0xDF):
                inside = 2 * walker.read_map_header()
            else:
                walker.skip()
                continue
            budget -= inside
            if budget < 0 or len(pending) > DEPTH_MAX:
                raise malformed(
                    f"a large frame of more than {LARGE_VALUES_MAX} values or {DEPTH_MAX} levels"
                )
            pending.append(inside)
    except (ValueError, IndexError, msgpack.OutOfData) as error:
        raise malformed("not one msgpack value: incomplete input") from error


def malformed(what: str) -> ProtocolError:
    """The error for a payload whose shape is not what PROTOCOL.md says."""
    return ProtocolError("malformed", what)


def check_uints(values: Iterable[Any]) -> None:
    """Refuse anything but integers from 0 to 2**63 - 1 (`True` is not one)."""
    for value in values:
        if type(value) is not int or not 0 <= value <= UINT_MAX:
            raise malformed(f"{shown(value)} should be an integer from 0 to 2**63 - 1")


def shown(value: Any) -> str:
    """A value for a sentence; of what may be large, its type."""
    return repr(value) if isinstance(value, int | float | None) else f"a {type(value).__name__}"


def batch(frame: list[Any]) -> list[Any]:
    """The items of an unpacked `[kind, [item, ...]]`."""
    if len(frame) != 2 or type(frame[1]) is not list:
        raise malformed("a batch is [kind, [item, ...]]")
    return frame[1]
