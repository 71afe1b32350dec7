"""Chunks: the packed events of an append, in pieces that can be read, checked and erased one by one.

A chunk's bytes are one msgpack array of events, each an array of five, compressed or not::

    chunk = [event, ...]
    event = [id: bin 16, type: str, data: bin, metadata: bin, encoding: 0 | 1]

The client library (or the HTTP door) packs it once, the owner checks it once (`check_chunks`), then the
same bytes go to disk, to the followers and to readers. Version, position and timestamp are not in it: they
follow from the log entry that carries the chunk, so that nobody needs to rewrite it.

A chunk holds at most `CHUNK_EVENTS_MAX` events, and at most `CHUNK_RAW_MAX` bytes unless it is one event:
ten events of a stream cost one chunk, however large the append was that they came in.

A chunk comes from outside. It says how large it will be, and is not unpacked beyond that; it is decoded by
its type, never as "whatever msgpack holds": 8 MiB of empty arrays would be eight million objects, where the
typed decoder stops at the first that is no event.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, NamedTuple

import msgspec
import zstandard

from allsource.storage.model.errors import Corrupt, InvalidRequest
from allsource.storage.model.events import (
    BINARY,
    EVENT_TYPE_BYTES_MAX,
    JSON,
    SAME_ID,
    Event,
    NewEvent,
    check_event_type,
    event_too_large,
    too_many_events,
)
from allsource.storage.model.packing import Natural, pack

PLAIN = 0
"""The bytes are the array itself."""
ZSTD = 1
"""The bytes are one zstd frame (RFC 8878) that says its content's size."""

CHUNK_EVENTS_MAX = 256
CHUNK_RAW_MAX = 64 << 10
COMPRESS_FROM = 1 << 10
"""Bytes from which on the client library compresses a chunk, if that makes it smaller by an eighth."""

EVENT_OVERHEAD_BYTES = 64
"""What an event takes in a chunk beside its type, data and metadata, at most."""
EVENT_RAW_MAX = (256 << 20) + EVENT_OVERHEAD_BYTES + EVENT_TYPE_BYTES_MAX
"""Bytes of a chunk of one event as large as a configuration may allow."""
_LEVEL = 1  # the figures of higher levels are in the README: a few per cent less for twice the time

PackedEvent = tuple[
    Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)],
    str,
    bytes,
    bytes,
    Annotated[int, msgspec.Meta(ge=JSON, le=BINARY)],
]
_decode_events = msgspec.msgpack.Decoder(list[PackedEvent]).decode
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError)


class Chunk(NamedTuple):
    """Some events of one stream, packed: `count` of them, `raw_size` bytes before `codec` (`PLAIN`, `ZSTD`)
    made `data` of them."""

    count: Natural  # type: ignore[assignment]  # a field, not tuple.count
    raw_size: Natural
    codec: Natural
    data: bytes


class CheckedEvents(NamedTuple):
    """What is known of an append's events for one stream once they were checked."""

    count: int  # type: ignore[assignment]
    first_id: bytes
    types: tuple[str, ...]
    """Each event type once, in order of appearance."""


# -- packing


def pack_events(
    events: Sequence[NewEvent] | Sequence[Event], *, compress: bool = True
) -> tuple[Chunk, ...]:
    """The chunks of these events, in order."""
    if events and isinstance(events[0], Event):
        events = [NewEvent.again(event) for event in events]  # type: ignore[arg-type]
    return pack_chunks(events, compress=compress)  # type: ignore[arg-type]  # not a mixture of both


def pack_chunks(events: Sequence[PackedEvent], *, compress: bool = True) -> tuple[Chunk, ...]:
    """The same for events as chunks hold them."""
    if len(events) <= CHUNK_EVENTS_MAX:
        raw = pack(events)
        if len(raw) <= CHUNK_RAW_MAX or len(events) == 1:
            return (_chunk(len(events), raw, compress),)
    chunks: list[Chunk] = []
    first = size = 0
    for at, (_, type_, data, metadata, _) in enumerate(events):
        more = EVENT_OVERHEAD_BYTES + 4 * len(type_) + len(data) + len(metadata)
        if at > first and (at - first == CHUNK_EVENTS_MAX or size + more > CHUNK_RAW_MAX):
            chunks.append(_chunk(at - first, pack(events[first:at]), compress))
            first, size = at, 0
        size += more
    chunks.append(_chunk(len(events) - first, pack(events[first:]), compress))
    return tuple(chunks)


def _chunk(count: int, raw: bytes, compress: bool) -> Chunk:
    if compress and len(raw) >= COMPRESS_FROM:
        squeezed = _compressed(raw)
        if len(squeezed) <= len(raw) - len(raw) // 8:
            return Chunk(count, len(raw), ZSTD, squeezed)
    return Chunk(count, len(raw), PLAIN, raw)


# -- unpacking


def unpack_chunk(chunk: Chunk) -> list[PackedEvent]:
    """`(id, type, data, metadata, encoding)` of each event of a chunk that was checked before it was
    stored; raises `Corrupt` if it has gone bad since."""
    try:
        events = _decode_events(_raw(chunk))
    except (*_UNREADABLE, _NotItsSize, zstandard.ZstdError) as error:
        raise Corrupt(f"a log entry holds unreadable events: {error}") from error
    if len(events) != chunk.count:
        raise Corrupt(f"a log entry holds {len(events)} events where {chunk.count} are said to be")
    return events


def unpack_chunks(chunks: Iterable[Chunk]) -> list[PackedEvent]:
    """The same for several chunks, in order."""
    return [event for chunk in chunks for event in unpack_chunk(chunk)]


def decode_chunk(
    chunk: Chunk,
    *,
    stream: str,
    partition: int,
    first_version: int,
    first_position: int,
    first_tag_number: int,
    timestamp_us: int,
) -> list[Event]:
    """The stored events of a chunk that an entry carries. The three numbers are those of its first event;
    `first_tag_number` is 0 for a stream without a tag. Raises `Corrupt`."""
    # The fields are spelled out: with a star it takes a fifth longer, and a scan does little else.
    make = tuple.__new__
    if chunk.count == 1:  # so many chunks are single that this halves what they cost
        ((id_, type_, data, metadata, encoding),) = unpack_chunk(chunk)
        return [
            make(
                Event,
                (
                    stream,
                    first_version,
                    partition,
                    first_position,
                    timestamp_us,
                    id_,
                    type_,
                    data,
                    metadata,
                    encoding,
                    first_tag_number,
                ),
            )
        ]
    ahead = first_position - first_version
    ahead_of_tag, has_tag = first_tag_number - first_version, first_tag_number > 0
    return [
        make(
            Event,
            (
                stream,
                version,
                partition,
                version + ahead,
                timestamp_us,
                id_,
                type_,
                data,
                metadata,
                encoding,
                version + ahead_of_tag if has_tag else 0,
            ),
        )
        for version, (id_, type_, data, metadata, encoding) in enumerate(unpack_chunk(chunk), first_version)
    ]


class _NotItsSize(ValueError):
    """A compressed chunk does not hold as many bytes as it says."""


def _raw(chunk: Chunk) -> bytes:
    """The array of events. Never more than `raw_size` bytes are made."""
    if chunk.codec == PLAIN:
        return chunk.data
    # Asked first: the decompressor makes as much room as the frame claims, whatever limit it is given.
    claimed = zstandard.frame_content_size(chunk.data)
    if claimed != chunk.raw_size or claimed > EVENT_RAW_MAX:
        raise _NotItsSize(f"{chunk.raw_size} bytes are said to be in a zstd frame that claims {claimed}")
    return _decompressed_by_zstd(chunk.data)


def _compressed(raw: bytes) -> bytes:
    try:
        compressor = _compressors.pop()
    except IndexError:
        compressor = zstandard.ZstdCompressor(level=_LEVEL, write_checksum=False)
    try:
        return compressor.compress(raw)
    finally:
        _compressors.append(compressor)


def _decompressed_by_zstd(data: bytes) -> bytes:
    try:
        decompressor = _decompressors.pop()
    except IndexError:
        decompressor = zstandard.ZstdDecompressor()
    try:
        return decompressor.decompress(data, allow_extra_data=False)
    finally:
        _decompressors.append(decompressor)


_compressors: list[zstandard.ZstdCompressor] = []
_decompressors: list[zstandard.ZstdDecompressor] = []
"""Those not in use: two threads must not use one at a time (`pop` and `append` are one step each)."""


# -- checking


def check_chunks(chunks: Sequence[Chunk], *, events_max: int, event_bytes_max: int) -> CheckedEvents:
    """Check the chunks of one stream that came from outside.

    Checked are their sizes and shapes, each event's id (16 bytes, no id twice), type, sizes and encoding. A
    type is checked in full only the first time that it is met. JSON data is not parsed here: its encoder
    vouches for it (the client library encodes it, the HTTP door has parsed it). Raises `InvalidRequest` or
    `TooLarge`.
    """
    if len(chunks) == 1:  # by far the most
        events = _checked_chunk(chunks[0], events_max, event_bytes_max)
    else:
        events = _checked_events(chunks, events_max, event_bytes_max)
    types: dict[str, None] = {}
    for _, type_, data, metadata, _ in events:
        size = len(data) + len(metadata)
        if size > event_bytes_max:
            raise event_too_large(event_bytes_max, size)
        if type_ not in types:
            check_event_type(type_)
            types[type_] = None
    count = len(events)
    if count > 1 and len({event[0] for event in events}) != count:
        raise InvalidRequest(SAME_ID)
    return tuple.__new__(CheckedEvents, (count, events[0][0], tuple(types)))  # as its own, in half the time


def _checked_events(chunks: Sequence[Chunk], events_max: int, event_bytes_max: int) -> list[PackedEvent]:
    if not chunks:
        raise InvalidRequest("an append needs at least one event for each stream")
    claimed = sum([chunk.count for chunk in chunks])
    if claimed > events_max:
        raise too_many_events(events_max, claimed)
    return [event for chunk in chunks for event in _checked_chunk(chunk, events_max, event_bytes_max)]


def _checked_chunk(chunk: Chunk, events_max: int, event_bytes_max: int) -> list[PackedEvent]:
    count, raw_size, codec, data = chunk
    if count > events_max:
        raise too_many_events(events_max, count)
    if not 1 <= count <= CHUNK_EVENTS_MAX:
        raise InvalidRequest(f"a chunk has 1 to {CHUNK_EVENTS_MAX} events, not {count}")
    if count == 1:
        largest = event_bytes_max + EVENT_OVERHEAD_BYTES + EVENT_TYPE_BYTES_MAX
        if raw_size > largest:
            raise event_too_large(event_bytes_max, raw_size)
    elif raw_size > CHUNK_RAW_MAX:
        raise InvalidRequest(f"a chunk of several events has at most {CHUNK_RAW_MAX} bytes, not {raw_size}")
    if codec == PLAIN:
        if raw_size != len(data):
            raise InvalidRequest(f"a chunk of {len(data)} bytes is said to have {raw_size}")
    elif codec != ZSTD:
        raise InvalidRequest(f"a chunk's codec is {PLAIN} (none) or {ZSTD} (zstd), not {codec}")
    raw = data if codec == PLAIN else _decompressed(chunk)
    if array_length(raw) != count:  # asked first: what it claims is what is made
        raise InvalidRequest(f"a chunk does not hold the {count} events that it is said to hold")
    try:
        return _decode_events(raw)
    except _UNREADABLE as error:
        raise InvalidRequest(
            "unreadable events: an event is an array [id, type, data, metadata, encoding]; the id is "
            f"16 bytes, data and metadata are bytes, the encoding is 0 or 1 ({error})"
        ) from error


def _decompressed(chunk: Chunk) -> bytes:
    try:
        return _raw(chunk)
    except (_NotItsSize, zstandard.ZstdError) as error:
        raise InvalidRequest(f"a compressed chunk cannot be unpacked: {error}") from error


def array_length(packed: bytes | memoryview) -> int:
    """The length that a msgpack array claims, 0 for anything else. A claim that is too high is refused
    before anything is decoded."""
    kind = packed[0] if packed else 0
    if 0x90 <= kind <= 0x9F:
        return kind - 0x90
    if 0xDC <= kind <= 0xDD:
        return int.from_bytes(packed[1 : 3 if kind == 0xDC else 5], "big")
    return 0


def same_content(one: Sequence[Chunk], other: Sequence[Chunk]) -> bool:
    """Whether two runs of chunks hold the same events, however they were cut and packed."""
    return tuple(one) == tuple(other) or unpack_chunks(one) == unpack_chunks(other)
