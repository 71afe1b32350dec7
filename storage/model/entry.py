"""The log entry: what one append adds to a partition's log, and its bytes.

A record is a fixed header and a payload, big-endian::

    crc32          u32   of everything behind it, the partition included
    kind           u8    EVENTS, NOOP or CONFIG; others are refused, not skipped
    partition      u16
    term           u64
    index          u64   from 1, without gaps
    first_position u64   position of the first event; for an entry without events, of the next one
    count          u32   number of events
    timestamp_us   u64   microseconds since 1970, never decreasing in a partition (`events.Event`)
    payload              EVENTS: msgpack [[stream, first_version, count, first_id, blob], ...]
                         CONFIG: msgpack {"voters": [...], "learners": [...], "outgoing": [...]}
                         NOOP:   empty

The same bytes go to disk, to the followers and (the blobs within) to readers: an entry is encoded
once, by the owner. A follower decodes the parts' heads, which its indexes need, never the blobs.

A record comes from a disk or a peer, and is decoded by its type: what a payload may become in memory is
bounded by its own bytes and `PARTS_MAX`, whatever it holds.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import Annotated, NamedTuple

import msgspec

from allsource.storage.model.errors import Corrupt
from allsource.storage.model.events import Event, array_length, decode_blob
from allsource.storage.model.packing import pack

EVENTS, NOOP, CONFIG = 1, 2, 3
_KINDS = frozenset((EVENTS, NOOP, CONFIG))

_HEADER = struct.Struct(">IBHQQQIQ")
_BODY = struct.Struct(">BHQQQIQ")
_CRC = struct.Struct(">I")
_SPAN = struct.Struct(">QI")
_SPAN_AT = _HEADER.size - 20  # first_position and count are followed by the timestamp
_PLACE = struct.Struct(">H8xQ")
_PLACE_AT = _CRC.size + 1  # the partition, and behind the term the index
HEADER_BYTES = _HEADER.size


PARTS_MAX = 100_000
"""Parts of one entry: the highest `append_events_max` (config.schema), for each has an event."""

_Number = Annotated[int, msgspec.Meta(ge=1)]


class Part(NamedTuple):
    """What an entry adds to one stream: `count` events from `first_version`, packed in `blob`."""

    stream: str
    first_version: _Number
    count: _Number  # type: ignore[assignment]  # a field, not tuple.count
    first_id: Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]
    blob: bytes

    @property
    def last_version(self) -> int:
        return self.first_version + self.count - 1


_decode_parts = msgspec.msgpack.Decoder(tuple[Part, ...]).decode


@dataclass(slots=True, eq=False)
class Entry:
    """One log entry. `record` is its bytes as above; the other fields are read from it.

    `parts` is empty unless `kind` is EVENTS. Entries are never changed after they are made.
    """

    partition: int
    index: int
    term: int
    kind: int
    first_position: int
    count: int
    timestamp_us: int
    parts: tuple[Part, ...]
    record: bytes

    @property
    def next_position(self) -> int:
        """The position of the first event behind this entry."""
        return self.first_position + self.count

    def events(self, stream: str | None = None) -> list[Event]:
        """The entry's events (or one stream's) with versions, positions and time, in order."""
        found: list[Event] = []
        position = self.first_position
        for part in self.parts:
            if stream is None or part.stream == stream:
                found += decode_blob(
                    part.blob,
                    stream=part.stream,
                    partition=self.partition,
                    first_version=part.first_version,
                    first_position=position,
                    timestamp_us=self.timestamp_us,
                )
            position += part.count
        return found

    def payload(self) -> bytes:
        """The bytes behind the header."""
        return self.record[HEADER_BYTES:]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Entry) and self.record == other.record

    def __hash__(self) -> int:
        return hash(self.record)


def make_entry(
    *,
    partition: int,
    index: int,
    term: int,
    kind: int,
    first_position: int,
    timestamp_us: int,
    parts: tuple[Part, ...] = (),
    payload: bytes = b"",
) -> Entry:
    """Build an entry and its record. `payload` is for kinds other than EVENTS."""
    count = 0
    if kind == EVENTS:
        payload = pack(parts)
        for part in parts:
            count += part.count
    body = _BODY.pack(kind, partition, term, index, first_position, count, timestamp_us) + payload
    record = _CRC.pack(zlib.crc32(body)) + body
    return Entry(partition, index, term, kind, first_position, count, timestamp_us, parts, record)


def decode_entry(record: bytes) -> Entry:
    """Read and verify a record from a disk or a peer; raises `Corrupt` with what is wrong."""
    if len(record) < HEADER_BYTES:
        raise Corrupt(f"log record of {len(record)} bytes is shorter than its header")
    crc, kind, partition, term, index, first_position, count, timestamp_us = _HEADER.unpack_from(record)
    # Slices copy, and are still quicker than memoryviews up to some 10 kB; most records are far smaller.
    if zlib.crc32(record[4:]) != crc:
        raise Corrupt(f"log record fails its CRC (claims partition {partition}, index {index})")
    parts: tuple[Part, ...] = ()
    if kind == EVENTS:
        parts = _parts_of(record, partition, index)
    elif kind not in _KINDS:
        raise Corrupt(f"log record {partition}/{index}: unknown kind {kind}; a newer version wrote it")
    return Entry(partition, index, term, kind, first_position, count, timestamp_us, parts, bytes(record))


def _parts_of(record: bytes, partition: int, index: int) -> tuple[Part, ...]:
    payload = memoryview(record)[HEADER_BYTES:]
    if array_length(payload[:5]) > PARTS_MAX:
        raise Corrupt(f"log record {partition}/{index}: it claims more than {PARTS_MAX} parts")
    try:
        return _decode_parts(payload)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Corrupt(f"log record {partition}/{index}: unreadable parts: {error}") from error


def check_record(record: bytes, partition: int, index: int) -> None:
    """Verify a record that is passed on without being decoded: whole, and the one that it should be.

    Raises `Corrupt`. What is in it, the receiver checks.
    """
    if len(record) < HEADER_BYTES or zlib.crc32(record[4:]) != _CRC.unpack_from(record)[0]:
        raise Corrupt(f"log record {partition}/{index} of {len(record)} bytes fails its CRC")
    if _PLACE.unpack_from(record, _PLACE_AT) != (partition, index):
        raise Corrupt(f"at {partition}/{index} lies the log record of another entry")


def span_of(record: bytes) -> tuple[int, int]:
    """`(first position, count)` of a record, read without verifying it (a search reads many)."""
    first_position, count = _SPAN.unpack_from(record, _SPAN_AT)
    return first_position, count


class Configuration(NamedTuple):
    """Who votes in a group (RULES.md rules 7 and 8).

    `outgoing` is the old voter set while two must agree (joint consensus, Raft §6), else empty;
    `learners` receive the log and do not vote. Node ids, sorted.
    """

    voters: tuple[str, ...]
    learners: tuple[str, ...] = ()
    outgoing: tuple[str, ...] = ()

    def encode(self) -> bytes:
        """The payload of a CONFIG entry."""
        return pack({"voters": self.voters, "learners": self.learners, "outgoing": self.outgoing})

    @classmethod
    def decode(cls, payload: bytes) -> Configuration:
        """Read a CONFIG entry's payload; raises `Corrupt`."""
        try:
            found = _decode_configuration(payload)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise Corrupt(f"unreadable configuration entry: {error}") from error
        return cls(found.voters, found.learners, found.outgoing)

    def members(self) -> tuple[str, ...]:
        """Everybody who receives the log, sorted, each once."""
        return tuple(sorted({*self.voters, *self.learners, *self.outgoing}))


class _Configuration(msgspec.Struct):
    voters: tuple[str, ...]
    learners: tuple[str, ...]
    outgoing: tuple[str, ...]


_decode_configuration = msgspec.msgpack.Decoder(_Configuration).decode
