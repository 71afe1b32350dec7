"""Which partition a stream belongs to, and the ids that streams may have.

The one hash of the product: CRC-32 (zlib's polynomial, as in Redis Cluster's idea of hash tags and
Kafka's stable partitioner, but defined by RFC 1952 so that every language has it) of the id's UTF-8
bytes, modulo the partition count. It never changes: every stored event depends on it.

It lives in `storage`, not in `cluster`, because a repository that is used without any cluster stores
by partition too, and imports point down.
"""

from __future__ import annotations

import unicodedata
import zlib
from dataclasses import dataclass

from allsource.storage.model.errors import InvalidRequest

PARTITION_COUNT = 32
STREAM_ID_BYTES_MAX = 128


class EntityId(str):
    """A stream's id: 1-128 bytes of UTF-8, no control characters, no white space at the ends.

    An `EntityId` *is* a `str` that was checked once, so that it costs nothing to pass on.
    Raises `InvalidRequest` with the rule that is broken.
    """

    __slots__ = ()

    def __new__(cls, value: str) -> EntityId:
        if type(value) is cls:
            return value
        check_stream_id(value)
        return super().__new__(cls, value)


def check_stream_id(value: object) -> None:
    """Raise `InvalidRequest` unless `value` may be a stream id."""
    if not isinstance(value, str):
        raise InvalidRequest(f"a stream id is a string, not {type(value).__name__}")
    if not value:
        raise InvalidRequest("a stream id must not be empty")
    if len(value) > STREAM_ID_BYTES_MAX:  # first: the sentences below show it
        raise _too_long()
    if not (value.isascii() and value.isprintable()):
        _check_characters(value, "a stream id")
    if value[0].isspace() or value[-1].isspace():
        raise InvalidRequest(f"stream id {value!r} must not begin or end with white space")
    if not value.isascii() and len(value.encode()) > STREAM_ID_BYTES_MAX:
        raise _too_long()


def _too_long() -> InvalidRequest:
    return InvalidRequest(f"a stream id has at most {STREAM_ID_BYTES_MAX} bytes of UTF-8")


def _check_characters(value: str, what: str) -> None:
    for character in value:
        category = unicodedata.category(character)
        if category == "Cc":
            raise InvalidRequest(f"{what} must not hold control characters: {value!r}")
        if category == "Cs":
            raise InvalidRequest(f"{what} must be valid Unicode (found a lone surrogate): {value!r}")


def hash_tag(stream: str) -> str:
    """The part of the id that is hashed: the first non-empty `{tag}`, else the whole id.

    As in Redis Cluster: the first `{` and the first `}` behind it; an empty pair does not count.
    """
    start = stream.find("{")
    if start >= 0:
        end = stream.find("}", start + 1)
        if end > start + 1:
            return stream[start + 1 : end]
    return stream


def partition_of(stream: str, partition_count: int = PARTITION_COUNT) -> int:
    """The partition of a stream: CRC-32 of its hash tag's UTF-8 bytes, modulo the count."""
    tag = hash_tag(stream) if "{" in stream else stream
    return zlib.crc32(tag.encode()) % partition_count


@dataclass(frozen=True, slots=True)
class PartitionKey:
    """A partition's number, 0 <= `partition_id` < `partition_count`; prints as `partition-5/32`."""

    partition_id: int
    partition_count: int = PARTITION_COUNT

    def __post_init__(self) -> None:
        if not 0 <= self.partition_id < self.partition_count:
            raise InvalidRequest(
                f"partition {self.partition_id} is out of range: 0 to {self.partition_count - 1}"
            )

    @classmethod
    def from_entity_id(cls, entity_id: str, partition_count: int = PARTITION_COUNT) -> PartitionKey:
        """The partition that the entity's stream belongs to."""
        return cls(partition_of(EntityId(entity_id), partition_count), partition_count)

    @classmethod
    def from_partition_id(cls, partition_id: int, partition_count: int = PARTITION_COUNT) -> PartitionKey:
        """The partition with this number; raises `InvalidRequest` if there is none."""
        return cls(partition_id, partition_count)

    def __str__(self) -> str:
        return f"partition-{self.partition_id}/{self.partition_count}"
