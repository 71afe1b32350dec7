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
OWN = "$"
"""What the names of the store's own streams begin with."""


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
    check_name(value, "a stream id")


def check_own_stream(stream: str) -> None:
    """Raise `InvalidRequest` if only the store itself appends to this stream."""
    if stream[:1] == OWN:
        raise InvalidRequest(
            f"stream {stream!r}: names that begin with {OWN} are the store's own; choose another name"
        )


def check_name(value: object, what: str) -> None:
    """Raise `InvalidRequest` unless `value` may name a stream, a tag or a mark: 1-128 bytes of UTF-8, no
    control characters, no white space at the ends. `what` is how the sentence begins."""
    if not isinstance(value, str):
        raise InvalidRequest(f"{what} is a string, not {type(value).__name__}")
    if not value:
        raise InvalidRequest(f"{what} must not be empty")
    if len(value) > STREAM_ID_BYTES_MAX:  # first: the sentences below show it
        raise _too_long(what)
    if not (value.isascii() and value.isprintable()):
        _check_characters(value, what)
    if value[0].isspace() or value[-1].isspace():
        raise InvalidRequest(f"{what.removeprefix('a ')} {value!r} must not begin or end with white space")
    if not value.isascii() and len(value.encode()) > STREAM_ID_BYTES_MAX:
        raise _too_long(what)


def _too_long(what: str) -> InvalidRequest:
    return InvalidRequest(f"{what} has at most {STREAM_ID_BYTES_MAX} bytes of UTF-8")


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


def tag_of(stream: str) -> str:
    """The stream's `{tag}`, which numbers its events; empty if it has none, or is the store's own."""
    if "{" not in stream or stream[0] == OWN:
        return ""
    tag = hash_tag(stream)
    return tag if len(tag) < len(stream) else ""


def partition_of_tag(tag: str, partition_count: int = PARTITION_COUNT) -> int:
    """The partition of all streams with this `{tag}`."""
    return zlib.crc32(tag.encode()) % partition_count


def check_tag(value: object) -> None:
    """Raise `InvalidRequest` unless there may be a stream with this `{tag}`."""
    if not isinstance(value, str) or not value or "}" in value:
        raise InvalidRequest("a tag is a string that is not empty, without braces: order-7, not {order-7}")
    check_name(f"{{{value}}}", "a tag in its braces")  # in them, a tag may end in white space


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
