"""The log entry: what one turn of a partition's owner adds to its log, and its bytes (log format 2).

A record is a fixed header, the heads, and the chunks, big-endian::

    crc32          u32   of everything behind it up to the end of the heads
    format         u8    2
    kind           u8    EVENTS, NOOP or CONFIG; others are refused, not skipped
    flags          u8    0
    partition      u16
    term           u64
    index          u64   from 1, without gaps
    first_position u64   position of the first event; for an entry without events, of the next one
    count          u32   number of events
    timestamp_us   u64   microseconds since 1970, never decreasing in a partition (`events.Event`)
    heads_bytes    u32   length of the heads
    heads                EVENTS: msgpack [append, ...]
                         CONFIG: msgpack {"voters": [...], "learners": [...], "outgoing": [...]}
                         NOOP:   empty
    chunks               the chunks' bytes (`chunks`), one behind the other, in the order of the heads

    append = [[part, ...], [mark, ...]]
    part   = [stream, first_version, count, first_id, first_tag_number, [type, ...], [chunk, ...]]
    chunk  = [count, raw_size, stored_size, codec, crc32]
    mark   = [name, position, generation]

An entry carries *all* appends that its partition was given in one turn. Each of them keeps its own place
in it: `(index, ordinal)` names an append (`Place`), and acknowledgement, retry, conflict and read are cut
along its boundaries. Each chunk has a checksum of its own, in the heads, and the header's covers the heads:
so a follower verifies everything, and a reader no more than it shows.

The same bytes go to disk, to the followers and (the chunks) to readers: an entry is encoded once, by the
owner. A follower decodes the heads, which its indexes need, never the events.

A record comes from a disk or a peer. It is decoded by its type, every number and length in it has a
bound, and what the heads say must agree with itself and with the bytes behind them: else it is `Corrupt`.
In memory it becomes its own bytes and some thirty times its heads, at most, whatever it holds.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Annotated, NamedTuple

import msgspec

from allsource.storage.model.arguments import NUMBER_MAX
from allsource.storage.model.chunks import (
    CHUNK_EVENTS_MAX,
    CHUNK_RAW_MAX,
    EVENT_RAW_MAX,
    PLAIN,
    ZSTD,
    Chunk,
    array_length,
    decode_chunk,
)
from allsource.storage.model.errors import Corrupt, InvalidRequest
from allsource.storage.model.events import EVENT_TYPE_BYTES_MAX, Event
from allsource.storage.model.packing import pack
from allsource.storage.model.partition import STREAM_ID_BYTES_MAX, check_name, tag_of

EVENTS, NOOP, CONFIG = 1, 2, 3
_KINDS = frozenset((EVENTS, NOOP, CONFIG))

FORMAT = 2
_HEADER = struct.Struct(">IBBBHQQQIQI")
_BODY = struct.Struct(">BBBHQQQIQI")
_CRC = struct.Struct(">I")
_SPAN = struct.Struct(">QI")
_SPAN_AT = _HEADER.size - 24  # first_position and count are followed by timestamp and heads' length
_PLACE = struct.Struct(">H8xQ")
_PLACE_AT = _CRC.size + 3  # the partition, and behind the term the index
_HEADS_BYTES_AT = _HEADER.size - 4
HEADER_BYTES = _HEADER.size

APPENDS_MAX = 100_000
"""Appends of one entry, and parts and marks of one append: far more than a turn takes."""
NUMBERS_END = 1 << 62
"""Terms, indexes, positions, versions, numbers and times of a record lie below: what is counted on from
them still fits into eight signed bytes, as databases and other languages have them."""

_VALUES_PER_BYTE = 10  # measured: a part of 60 bytes becomes tuples and strings of 620
_ENTRY_BYTES = 300

_Number = Annotated[int, msgspec.Meta(ge=1, lt=NUMBERS_END)]
_Natural = Annotated[int, msgspec.Meta(ge=0, lt=NUMBERS_END)]
_Any = Annotated[int, msgspec.Meta(ge=0, le=NUMBER_MAX)]
_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=STREAM_ID_BYTES_MAX)]
_Type = Annotated[str, msgspec.Meta(min_length=1, max_length=EVENT_TYPE_BYTES_MAX)]


class ChunkHead(NamedTuple):
    """A chunk as the heads have it (`chunks.Chunk`), with the checksum of its `stored_size` bytes."""

    count: Annotated[int, msgspec.Meta(ge=1, le=CHUNK_EVENTS_MAX)]  # type: ignore[assignment]  # a field
    raw_size: Annotated[int, msgspec.Meta(ge=1, le=EVENT_RAW_MAX)]
    stored_size: Annotated[int, msgspec.Meta(ge=1, le=EVENT_RAW_MAX)]
    codec: Annotated[int, msgspec.Meta(ge=PLAIN, le=ZSTD)]
    crc32: Annotated[int, msgspec.Meta(ge=0, lt=1 << 32)]


class Part(NamedTuple):
    """What an append adds to one stream: `count` events from `first_version`.

    `first_tag_number` is 0 for a stream without a tag; `types` has each event type once.
    """

    stream: _Name
    first_version: _Number
    count: _Number  # type: ignore[assignment]
    first_id: Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]
    first_tag_number: _Natural
    types: Annotated[tuple[_Type, ...], msgspec.Meta(min_length=1)]
    chunks: tuple[ChunkHead, ...]

    @property
    def last_version(self) -> int:
        return self.first_version + self.count - 1


class Mark(NamedTuple):
    """A named number of the partition, moved by an append: `position` of `generation`."""

    name: _Name
    position: _Any
    generation: _Any


class Append(NamedTuple):
    """One append of an entry: all or nothing. It names each stream once, and each mark."""

    parts: Annotated[tuple[Part, ...], msgspec.Meta(max_length=APPENDS_MAX)]
    marks: Annotated[tuple[Mark, ...], msgspec.Meta(max_length=APPENDS_MAX)] = ()


class Place(NamedTuple):
    """Where an append is: the entry at `index`, its append number `ordinal` (from 0)."""

    index: int  # type: ignore[assignment]  # a field, not tuple.index
    ordinal: int


class NewAppend(NamedTuple):
    """An append that is to be stored: its heads, and the bytes of its chunks in their order."""

    append: Append
    data: tuple[bytes, ...]

    @property
    def event_count(self) -> int:
        return sum([part.count for part in self.append.parts])


class StoredAppend(NamedTuple):
    """An append that is in a log. `index` is 0 where there is none."""

    partition: int
    index: int  # type: ignore[assignment]
    first_position: int
    parts: tuple[Part, ...]


class PlacedPart(NamedTuple):
    """A part of an entry, and where in it: the position of its first event, and its first chunk's byte."""

    part: Part
    first_position: int
    at: int


_decode_appends = msgspec.msgpack.Decoder(tuple[Append, ...]).decode


@dataclass(slots=True, eq=False)
class Entry:
    """One log entry. `record` is its bytes as above; the other fields are read from it.

    `appends` is empty unless `kind` is EVENTS. Entries are never changed after they are made.
    """

    partition: int
    index: int
    term: int
    kind: int
    first_position: int
    count: int
    timestamp_us: int
    appends: tuple[Append, ...]
    record: bytes
    _placed: list[PlacedPart] | None = field(default=None, repr=False)

    @property
    def next_position(self) -> int:
        """The position of the first event behind this entry."""
        return self.first_position + self.count

    @property
    def parts(self) -> tuple[Part, ...]:
        """The parts of all its appends, in order."""
        if len(self.appends) == 1:
            return self.appends[0].parts
        return tuple(chain.from_iterable([append.parts for append in self.appends]))

    @property
    def memory_bytes(self) -> int:
        """About what it takes in memory: its record, and the values that its heads became."""
        return len(self.record) + _VALUES_PER_BYTE * _heads_bytes(self.record) + _ENTRY_BYTES

    def placed(self) -> list[PlacedPart]:
        """The parts of all its appends with their places."""
        if self._placed is None:
            self._placed = placed = []
            position, at = self.first_position, HEADER_BYTES + _heads_bytes(self.record)
            for part in self.parts:
                placed.append(PlacedPart(part, position, at))
                position += part.count
                for head in part.chunks:
                    at += head.stored_size
        return self._placed

    def chunks(self, placed: PlacedPart) -> list[Chunk]:
        """The chunks of one of its parts; raises `Corrupt`."""
        at = placed.at
        found = []
        for head in placed.part.chunks:
            found.append(self.chunk(head, at))
            at += head.stored_size
        return found

    def chunk(self, head: ChunkHead, at: int) -> Chunk:
        """The chunk with this head, whose bytes begin at `at`; raises `Corrupt` if they are not its own."""
        data = self.record[at : at + head.stored_size]
        if zlib.crc32(data) != head.crc32:
            raise Corrupt(
                f"log record {self.partition}/{self.index}: a chunk fails its CRC", partition=self.partition
            )
        return Chunk(head.count, head.raw_size, head.codec, data)

    def stored(self, ordinal: int) -> StoredAppend:
        """The append with this number."""
        position = self.first_position
        for append in self.appends[:ordinal]:
            for part in append.parts:
                position += part.count
        return StoredAppend(self.partition, self.index, position, self.appends[ordinal].parts)

    def content(self, ordinal: int) -> list[list[Chunk]]:
        """The chunks of each part of the append with this number; raises `Corrupt`."""
        first = sum([len(append.parts) for append in self.appends[:ordinal]])
        parts = self.placed()[first : first + len(self.appends[ordinal].parts)]
        return [self.chunks(placed) for placed in parts]

    def events(self, stream: str | None = None) -> list[Event]:
        """The entry's events (or one stream's) with versions, positions and time, in order."""
        return [
            event
            for placed in self.placed()
            if stream is None or placed.part.stream == stream
            for event in self.events_of(placed)
        ]

    def events_of(self, placed: PlacedPart) -> list[Event]:
        """The events of one of its parts."""
        return self.some_events(placed, 0, placed.part.count - 1)

    def some_events(self, placed: PlacedPart, low: int, high: int) -> list[Event]:
        """The events `low` to `high` (from 0, inclusive) of one of its parts. Only the chunks that hold
        them are verified and unpacked. Raises `Corrupt`."""
        part, position, at = placed
        found: list[Event] = []
        first = 0
        for head in part.chunks:
            behind = first + head.count
            if behind > low and first <= high:
                events = decode_chunk(
                    self.chunk(head, at),
                    stream=part.stream,
                    partition=self.partition,
                    first_version=part.first_version + first,
                    first_position=position + first,
                    first_tag_number=part.first_tag_number and part.first_tag_number + first,
                    timestamp_us=self.timestamp_us,
                )
                if low <= first and high >= behind - 1:
                    found += events
                else:
                    found += events[max(0, low - first) : high - first + 1]
            first, at = behind, at + head.stored_size
        return found

    def payload(self) -> bytes:
        """The heads' bytes: of a CONFIG entry, its configuration."""
        return self.record[HEADER_BYTES : HEADER_BYTES + _heads_bytes(self.record)]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Entry) and self.record == other.record

    def __hash__(self) -> int:
        return hash(self.record)


def chunk_heads(chunks: Sequence[Chunk]) -> tuple[ChunkHead, ...]:
    """The heads of an append's chunks of one stream."""
    if len(chunks) == 1:  # by far the most, and on the path of every append
        return (_head_of(chunks[0]),)
    return tuple([_head_of(chunk) for chunk in chunks])


def _head_of(chunk: Chunk) -> ChunkHead:
    count, raw_size, codec, data = chunk
    # As the class itself does it, in half the time.
    return tuple.__new__(ChunkHead, (count, raw_size, len(data), codec, zlib.crc32(data)))


def make_entry(
    *,
    partition: int,
    index: int,
    term: int,
    kind: int,
    first_position: int,
    timestamp_us: int,
    appends: Sequence[NewAppend] = (),
    payload: bytes = b"",
) -> Entry:
    """Build an entry and its record. `payload` is for kinds other than EVENTS."""
    count = 0
    heads: tuple[Append, ...] = ()
    chunks: list[bytes] = []
    if kind == EVENTS:
        heads = tuple([new.append for new in appends])
        payload = pack(heads)
        for (parts, _), data in appends:
            for part in parts:
                count += part.count
            chunks += data
    body = (
        _BODY.pack(
            FORMAT, kind, 0, partition, term, index, first_position, count, timestamp_us, len(payload)
        )
        + payload
    )
    record = b"".join([_CRC.pack(zlib.crc32(body)), body, *chunks])
    return Entry(partition, index, term, kind, first_position, count, timestamp_us, heads, record)


def decode_entry(record: bytes, *, whole: bool = True) -> Entry:
    """Read and verify a record from a disk or a peer; raises `Corrupt` with what is wrong.

    Not `whole`: the checksum of header and heads alone. That is for records of one's own disk, which were
    verified when they came; the chunks are left to whoever reads them (`Entry.chunk`).
    """
    if len(record) < HEADER_BYTES:
        raise Corrupt(f"log record of {len(record)} bytes is shorter than its header")
    crc, form, kind, flags, partition, term, index, first_position, count, timestamp_us, heads_bytes = (
        _HEADER.unpack_from(record)
    )
    end = HEADER_BYTES + heads_bytes
    # Slices copy, and are still quicker than memoryviews up to some 10 kB; most heads are far smaller.
    if zlib.crc32(record[4:end]) != crc or end > len(record):
        raise Corrupt(f"log record fails its CRC (claims partition {partition}, index {index})")
    if form != FORMAT or flags or kind not in _KINDS:
        raise Corrupt(
            f"log record {partition}/{index}: unknown format {form}, kind {kind} or flags {flags}; "
            "a newer version wrote it"
        )
    if (term | index | first_position | timestamp_us) >= NUMBERS_END:
        raise Corrupt(f"log record {partition}/{index}: a number in its header is too large")
    appends: tuple[Append, ...] = ()
    fault = ""
    if kind == EVENTS:
        appends, fault = _appends_of(record, end)
        if whole and not fault:
            fault = _fault_of(appends, record, end, count)
    elif end != len(record):
        fault = f"{len(record) - end} bytes lie behind its end"
    elif kind == NOOP and heads_bytes:
        fault = f"it has {heads_bytes} bytes of heads, and is of a kind that has none"
    elif count:
        fault = f"it claims {count} events, and is of a kind that has none"
    if fault:
        raise Corrupt(f"log record {partition}/{index} of {len(record)} bytes: {fault}")
    return Entry(partition, index, term, kind, first_position, count, timestamp_us, appends, bytes(record))


def _appends_of(record: bytes, end: int) -> tuple[tuple[Append, ...], str]:
    """The appends, or why they cannot be read."""
    heads = record[HEADER_BYTES:end]
    if array_length(heads) > APPENDS_MAX:
        return (), f"it claims more than {APPENDS_MAX} appends"
    try:
        return _decode_appends(heads), ""
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        return (), f"unreadable heads: {error}"


def _fault_of(appends: Sequence[Append], record: bytes, end: int, count: int) -> str:
    """What is wrong with these heads and their chunks, empty if nothing is. They must account for every
    byte, every event and every chunk's checksum."""
    at, found, crc32 = end, 0, zlib.crc32
    for parts, marks in appends:
        for stream, _, events, _, first_tag_number, _, chunks in parts:
            behind_part = found + events
            for chunk_count, raw_size, stored_size, codec, crc in chunks:
                behind = at + stored_size
                if crc32(record[at:behind]) != crc:
                    return f"a chunk of {stream!r} fails its CRC"
                if (raw_size > CHUNK_RAW_MAX and chunk_count > 1) or (
                    codec == PLAIN and raw_size != stored_size
                ):
                    return f"a chunk of {stream!r} has a size that no chunk has"
                found += chunk_count
                at = behind
            if found != behind_part:
                return f"chunks of {stream!r} hold {found - behind_part + events} events, not {events}"
            if (first_tag_number > 0) != ("{" in stream and tag_of(stream) != ""):
                return f"events of {stream!r} are numbered from {first_tag_number}; a tag counts from 1"
            if not (stream.isascii() and stream.isprintable()) and (fault := _fault_of_name(stream)):
                return fault
        if (marks or len(parts) != 1) and (fault := _fault_of_names(parts, marks)):
            return fault
    if at != len(record):
        return f"its chunks end at byte {at}"
    return "" if found == count else f"it holds {found} events, not {count}"


def _fault_of_names(parts: Sequence[Part], marks: Sequence[Mark]) -> str:
    if len({part.stream for part in parts}) != len(parts):
        return "an append names a stream twice"
    if len({mark.name for mark in marks}) != len(marks):
        return "an append names a mark twice"
    for mark in marks:
        if fault := _fault_of_name(mark.name):
            return fault
    return ""


def _fault_of_name(name: str) -> str:
    try:
        check_name(name, "a name")
    except InvalidRequest as error:
        return error.message
    return ""


def check_record(record: bytes, partition: int, index: int) -> None:
    """Verify that a record that is passed on without being decoded is the one that it should be, by its
    header and heads. Raises `Corrupt`. What is in its chunks, the receiver checks.
    """
    if (
        len(record) < HEADER_BYTES
        or zlib.crc32(record[4 : HEADER_BYTES + _heads_bytes(record)]) != _CRC.unpack_from(record)[0]
    ):
        raise Corrupt(f"log record {partition}/{index} of {len(record)} bytes fails its CRC")
    if _PLACE.unpack_from(record, _PLACE_AT) != (partition, index):
        raise Corrupt(f"at {partition}/{index} lies the log record of another entry")


def span_of(record: bytes) -> tuple[int, int]:
    """`(first position, count)` of a record, read without verifying it (a search reads many)."""
    first_position, count = _SPAN.unpack_from(record, _SPAN_AT)
    return first_position, count


def _heads_bytes(record: bytes) -> int:
    found: int = _CRC.unpack_from(record, _HEADS_BYTES_AT)[0]
    return found


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
