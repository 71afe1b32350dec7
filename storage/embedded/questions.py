"""What a repository is asked, checked: the same arguments mean the same in every backend.

`EventStreamRepository` makes these of its callers' arguments, and a backend answers them. Whatever is
wrong with an argument is `InvalidRequest` here, before a backend is asked. Times are microseconds since
1970.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import NamedTuple

from allsource.storage.model.arguments import flag, text, whole_number
from allsource.storage.model.partition import EntityId, check_tag, partition_of, partition_of_tag
from allsource.storage.model.times import as_microseconds

NO_LIMIT = 1 << 62
"""`most` of a question that wants all."""


class StreamRead(NamedTuple):
    """Up to `most` events of a stream; raises `NotFound` if there is none of this name."""

    stream: str
    partition: int
    start: int | None
    """The version to begin with; None: the stream's natural end."""
    most: int
    backward: bool
    until_us: int | None
    """Only events of this time or earlier."""

    @classmethod
    def of(
        cls,
        entity_id: str,
        partition_count: int,
        from_version: int | None,
        limit: int | None,
        backward: bool,
        as_of: datetime | None,
    ) -> StreamRead:
        """From a caller's arguments."""
        stream = EntityId(entity_id)
        return cls(
            stream,
            partition_of(stream, partition_count),
            _start_of("from_version", from_version),
            page_size(limit),
            flag("backward", backward),
            _moment(as_of),
        )


class PartitionRead(NamedTuple):
    """Up to `most` events of a partition, by position."""

    partition: int
    start: int | None
    """The position to begin with; None: the partition's natural end."""
    most: int
    backward: bool
    types: Collection[str] | None
    """Only events of these types; None: of all."""
    since_us: int | None
    """Only events of this time or later."""
    until_us: int | None
    """Only events of this time or earlier."""

    @classmethod
    def of(
        cls,
        partition: int,
        partition_count: int,
        from_position: int | None,
        limit: int | None,
        backward: bool,
        types: Collection[str] | None,
        since: datetime | None,
        until: datetime | None,
    ) -> PartitionRead:
        """From a caller's arguments."""
        return cls(
            checked_partition(partition, partition_count),
            _start_of("from_position", from_position),
            page_size(limit),
            flag("backward", backward),
            types,
            _moment(since),
            _moment(until),
        )


class TagRead(NamedTuple):
    """Up to `most` events of all streams with a `{tag}`, by their numbers under it."""

    tag: str
    partition: int
    start: int | None
    """The number to begin with; None: the tag's natural end."""
    most: int
    backward: bool
    types: Collection[str] | None
    """Only events of these types; None: of all."""

    @classmethod
    def of(
        cls,
        tag: str,
        partition_count: int,
        from_number: int | None,
        limit: int | None,
        backward: bool,
        types: Collection[str] | None,
    ) -> TagRead:
        """From a caller's arguments."""
        check_tag(tag)
        return cls(
            tag,
            partition_of_tag(tag, partition_count),
            _start_of("from_number", from_number),
            page_size(limit),
            flag("backward", backward),
            types,
        )


class StreamsRead(NamedTuple):
    """Facts of up to `most` streams, in the order of their names' UTF-8 bytes."""

    partition: int | None
    """None: those of all partitions, in one order."""
    prefix: str
    after: str
    """Only streams behind this name."""
    most: int

    @classmethod
    def of(cls, partition: int | None, prefix: str, after: str, limit: int | None) -> StreamsRead:
        """From a caller's arguments; the partition is checked already."""
        return cls(partition, text("prefix", prefix), text("after", after), page_size(limit))


def checked_partition(partition: int, partition_count: int) -> int:
    """The partition's number, if there is one."""
    return whole_number("partition", partition, 0, partition_count - 1)


def page_size(limit: int | None) -> int:
    """How many a page may hold; None is all. Raises `InvalidRequest` below 1."""
    return NO_LIMIT if limit is None else whole_number("limit", limit)


def _start_of(name: str, value: int | None) -> int | None:
    return None if value is None else whole_number(name, value)


def _moment(time: datetime | None) -> int | None:
    return None if time is None else as_microseconds(time)
