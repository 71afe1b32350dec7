"""The bytes of RocksDB keys and of the small values, so that byte order is the order we want.

Column families (the user's names first) and what they hold, numbers big-endian::

    events           partition u16, index u64               -> the entry's record (storage.model.entry)
    streams          partition u16, stream                  -> created_us u64
    partition_index  partition u16, stream, 0x00, first u64 -> index u64, part u32, count u32,
                                                               timestamp_us u64
    ids              partition u16, event id (16 bytes)     -> index u64, ordinal u32
    tags             partition u16, tag, 0x00, first u64    -> index u64, part u32, count u32
    marks            partition u16, name, 0x00, index u64, ordinal u32 -> position u64, generation u64
    meta             'h', partition u16                     -> term u64, commit u64, vote
                     't', partition u16, index u64          -> term u64: the first entry of this term
                     'c', partition u16, index u64          -> empty: this entry is a configuration
                     'm', name                              -> a value of `Storage.put_meta`
                     'i'                                    -> incarnation u64, replica id

Names (of streams, tags and marks) are UTF-8 without control characters, so a 0x00 can only be the end of
one: the slices of `a` and `a1` never mix, and those of a stream lie together, ascending by version.

Nothing is ever written over. What a stream's, a tag's or a mark's newest state is, its last slice or move
says; what a truncation takes back, it deletes.
"""

from __future__ import annotations

import struct

from allsource.storage.model.entry import Place
from allsource.storage.model.log import HardState, MarkAt, StreamSlice, TagSlice

EVENTS, STREAMS, PARTITION_INDEX, IDS, META = "events", "streams", "partition_index", "ids", "meta"
TAGS, MARKS = "tags", "marks"
COLUMN_FAMILIES = (EVENTS, STREAMS, PARTITION_INDEX, IDS, TAGS, MARKS, META)

INDEX_MAX = 2**64 - 1

_PARTITION = struct.Struct(">H")
_ENTRY = struct.Struct(">HQ")
_U64 = struct.Struct(">Q")
_SLICE = struct.Struct(">QIIQ")
_TAG_SLICE = struct.Struct(">QII")
_PLACE = struct.Struct(">QI")
_MOVE = struct.Struct(">QQ")
_HARD = struct.Struct(">QQ")
_MARK = struct.Struct(">cHQ")

entry_key = _ENTRY.pack
"""`(partition, index)` -> key in `events`."""
partition_prefix = _PARTITION.pack
"""`(partition)` -> what all keys of a partition begin with, in every family but `meta`."""
pack_u64 = _U64.pack
pack_slice = _SLICE.pack
"""`(index, part, count, timestamp_us)`."""
pack_tag_slice = _TAG_SLICE.pack
"""`(index, part, count)`."""
pack_place = _PLACE.pack
"""`(index, ordinal)`, in a value of `ids` and at the end of a key of `marks`."""
pack_move = _MOVE.pack
"""`(position, generation)`."""

LAST = b"\xff" * 8
"""Behind a prefix: as high as any number."""
INCARNATION = b"i"


def stream_key(partition: int, stream: str) -> bytes:
    """Key in `streams`; with 0x00 and a version behind it, key in `partition_index`."""
    return _PARTITION.pack(partition) + stream.encode()


def prefix_of(partition: int, name: str) -> bytes:
    """What the keys of all slices of this stream or tag, or of all moves of this mark, begin with; and no
    others."""
    return b"%b%b\0" % (_PARTITION.pack(partition), name.encode())


def stream_of(key: bytes) -> str:
    """The stream in a key of `streams`."""
    return key[2:].decode()


def id_key(partition: int, event_id: bytes) -> bytes:
    """Key in `ids`."""
    return _PARTITION.pack(partition) + event_id


def index_of(key: bytes) -> int:
    """The number at the end of a key of `events`, `partition_index`, `tags`, or of a mark in `meta`."""
    index: int = _U64.unpack(key[-8:])[0]
    return index


def unpack_u64(value: bytes) -> int:
    """The number that a value of `streams` or a term mark holds."""
    number: int = _U64.unpack(value)[0]
    return number


def slice_of(key: bytes, value: bytes) -> StreamSlice:
    """What a row of `partition_index` says."""
    index, part, count, timestamp_us = _SLICE.unpack(value)
    return StreamSlice(index_of(key), count, index, part, timestamp_us)


def tag_slice_of(key: bytes, value: bytes) -> TagSlice:
    """What a row of `tags` says."""
    index, part, count = _TAG_SLICE.unpack(value)
    return TagSlice(index_of(key), count, index, part)


def place_of(value: bytes) -> Place:
    """What a value of `ids` says."""
    return Place._make(_PLACE.unpack(value))


def move_of(key: bytes, value: bytes) -> MarkAt:
    """What a row of `marks` says."""
    return MarkAt(*_MOVE.unpack(value), *_PLACE.unpack(key[-_PLACE.size :]))


def hard_key(partition: int) -> bytes:
    """Key of a group's hard state in `meta`."""
    return b"h" + _PARTITION.pack(partition)


def pack_hard(hard: HardState) -> bytes:
    """A hard state's value."""
    return _HARD.pack(hard.term, hard.commit) + hard.vote.encode()


def unpack_hard(value: bytes) -> HardState:
    """What `pack_hard` made."""
    term, commit = _HARD.unpack_from(value)
    return HardState(term, value[_HARD.size :].decode(), commit)


def term_key(partition: int, index: int) -> bytes:
    """Key in `meta` that marks the first entry of a term."""
    return _MARK.pack(b"t", partition, index)


def configuration_key(partition: int, index: int) -> bytes:
    """Key in `meta` that marks a configuration entry."""
    return _MARK.pack(b"c", partition, index)


def named_key(name: str) -> bytes:
    """Key in `meta` of a value that `Storage.put_meta` was given."""
    return b"m" + name.encode()


def pack_incarnation(incarnation: int, replica_id: str) -> bytes:
    """The value under `INCARNATION`."""
    return _U64.pack(incarnation) + replica_id.encode()


def unpack_incarnation(value: bytes) -> tuple[int, str]:
    """`(incarnation, replica id)`."""
    return unpack_u64(value[:8]), value[8:].decode()
