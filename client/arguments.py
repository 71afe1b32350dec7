"""From the arguments of a call to the request that is sent, or `InvalidRequest` before anything is.

Every argument of every public call passes through here. A request that comes out can be encoded, and every
node reads it as one: what a caller got wrong costs nobody else on the same connection anything.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, TypeAlias

from allsource.client.addresses import read_address
from allsource.client.cluster_map import Address
from allsource.cluster.protocol.requests import (
    TYPES_MAX,
    ReadMark,
    ReadPartition,
    ReadStream,
    ReadTag,
    parse_token,
)
from allsource.storage.model.append import (
    AppendPart,
    AppendRequest,
    append_parts,
    check_expected_tag,
    check_marks,
)
from allsource.storage.model.arguments import flag, seconds, shown, text, whole_number
from allsource.storage.model.entry import Mark
from allsource.storage.model.errors import InvalidRequest, TooLarge
from allsource.storage.model.events import Events, check_event_type
from allsource.storage.model.expected import ANY, Expectation
from allsource.storage.model.partition import check_name, check_stream_id, check_tag

Consistency: TypeAlias = Literal["linearizable", "local"]

TIMEOUT_S_MAX = 600.0
"""Nodes give up on a request that is older, whatever its caller says."""
SECRET_CHARACTERS_MAX = 1024
NAME_CHARACTERS_MAX = 255
"""As the handshake has it."""


# -- a client


def seeds(addresses: str | Iterable[str]) -> list[Address]:
    """The addresses that a client begins with."""
    given = [addresses] if isinstance(addresses, str) else addresses
    if isinstance(given, bytes) or not isinstance(given, Iterable):
        raise InvalidRequest(f'addresses must be "host:port", or several of them, not {shown(addresses)}')
    found = [read_address(address) for address in given]
    if not found:
        raise InvalidRequest("a client needs the address of at least one node, as host:port")
    return found


def secret_of(value: object) -> str:
    """The secret, which is never shown."""
    if not isinstance(value, str):
        raise InvalidRequest(f"secret must be a string, not a {type(value).__name__}")
    if not value or (not value.isascii() and _has_surrogates(value)):
        raise InvalidRequest("secret is empty or not text: clients prove to the nodes that they know it")
    if len(value) > SECRET_CHARACTERS_MAX:
        raise InvalidRequest(f"secret has at most {SECRET_CHARACTERS_MAX} characters")
    return value


def name_of(argument: str, value: object) -> str:
    """A name that goes into the handshake; may be empty."""
    name = text(argument, value)
    if len(name) > NAME_CHARACTERS_MAX or not name.isprintable():
        raise InvalidRequest(
            f"{argument} has at most {NAME_CHARACTERS_MAX} printable characters, not {shown(value)}"
        )
    return name


def timeout(value: float | None, default_s: float) -> float:
    """How long a call may take."""
    return default_s if value is None else seconds("timeout_s", value, TIMEOUT_S_MAX)


def _has_surrogates(value: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in value)


# -- appending


def packed_parts(
    parts: Iterable[tuple[str, Events, Expectation]], *, compress: bool
) -> tuple[AppendPart, ...]:
    """The events for several streams, packed."""
    if isinstance(parts, str | bytes) or not isinstance(parts, Iterable):
        raise InvalidRequest(f"parts must be several StreamAppend, not {shown(parts)}")
    return tuple(append_parts("parts", parts, compress=compress))


def append_of(
    parts: tuple[AppendPart, ...], expected_tag: int | None, marks: Iterable[tuple[str, int, int]]
) -> AppendRequest:
    """An append of these parts. What it says of streams together is `partition_of_append`'s to check."""
    if expected_tag is None and marks == ():  # by far the most
        return AppendRequest(parts)
    tag = ANY if expected_tag is None else whole_number("expected_tag", expected_tag, 0)
    request = AppendRequest(parts, tag, marks_of(marks))
    if tag != ANY:
        check_expected_tag(request)
    return request


def marks_alone(partition: int, marks: Iterable[tuple[str, int, int]], partitions: int) -> AppendRequest:
    """An append without events."""
    check_partition(partition, partitions)
    found = marks_of(marks)
    if not found:
        raise InvalidRequest("marks is empty: name at least one")
    return AppendRequest((), ANY, found, partition)


def marks_of(marks: Iterable[tuple[str, int, int]]) -> tuple[Mark, ...]:
    """The marks that an append moves."""
    if isinstance(marks, str | bytes) or not isinstance(marks, Iterable):
        raise InvalidRequest(f"marks must be several Mark, not {shown(marks)}")
    found = []
    for number, mark in enumerate(marks):
        if not isinstance(mark, tuple | list) or len(mark) != 3:
            raise InvalidRequest(
                f"marks[{number}] must be a Mark, or (name, position, generation), not {shown(mark)}"
            )
        found.append(Mark(*mark))
    check_marks(found)
    return tuple(found)


# -- reading


def stream_read(
    stream: str,
    from_version: int | None,
    limit: int,
    *,
    backward: bool,
    consistency: Consistency,
    token: str,
    limit_name: str = "limit",
) -> ReadStream:
    """A page of a stream. The token is checked by `check_token`, once the number of partitions is known."""
    check_stream_id(stream)
    start = 0 if from_version is None else whole_number("from_version", from_version)
    return ReadStream(
        stream,
        start,
        whole_number(limit_name, limit),
        not flag("backward", backward),
        is_local(consistency),
        text("token", token),
    )


def stream_facts(stream: str, *, consistency: Consistency, token: str) -> ReadStream:
    """A stream's facts without its events."""
    check_stream_id(stream)
    return ReadStream(stream, limit=0, local=is_local(consistency), token=text("token", token))


def partition_read(
    partition: int,
    from_position: int,
    limit: int,
    *,
    consistency: Consistency,
    token: str = "",
    limit_name: str = "limit",
) -> ReadPartition:
    """A page of a partition."""
    return ReadPartition(
        whole_number("partition", partition, 0),
        whole_number("from_position", from_position),
        whole_number(limit_name, limit),
        is_local(consistency),
        text("token", token),
    )


def tag_read(
    tag: str,
    from_number: int | None,
    limit: int,
    *,
    backward: bool,
    types: Iterable[str],
    consistency: Consistency,
    token: str,
) -> ReadTag:
    """A page of a tag."""
    check_tag(tag)
    return ReadTag(
        tag,
        0 if from_number is None else whole_number("from_number", from_number),
        whole_number("limit", limit),
        not flag("backward", backward),
        _types_of(types),
        is_local(consistency),
        text("token", token),
    )


def _types_of(types: Iterable[str]) -> tuple[str, ...]:
    if isinstance(types, str | bytes) or not isinstance(types, Iterable):
        raise InvalidRequest(f"types must be several event types, not {shown(types)}")
    found = tuple(types)
    for one in found:
        check_event_type(one)
    if len(found) > TYPES_MAX:
        raise TooLarge(f"types names at most {TYPES_MAX} event types", limit=TYPES_MAX, actual=len(found))
    return found


def mark_read(partition: int, name: str, *, consistency: Consistency, token: str) -> ReadMark:
    """Where a mark is."""
    check_name(name, "a mark")
    return ReadMark(
        whole_number("partition", partition, 0), name, is_local(consistency), text("token", token)
    )


def partition_numbers(partitions: Iterable[int] | None) -> list[int] | None:
    """The partitions to be scanned; None for all."""
    if partitions is None:
        return None
    if isinstance(partitions, str | bytes) or not isinstance(partitions, Iterable):
        raise InvalidRequest(f"partitions must be partition numbers, not {shown(partitions)}")
    return [whole_number("partitions", one, 0) for one in partitions]


def check_partition(partition: int, partitions: int) -> None:
    """Whether the cluster has such a partition."""
    whole_number("partition", partition, 0, partitions - 1)


def check_token(token: str, partition: int) -> None:
    """Whether a token is one of this partition, or none."""
    if token:
        parse_token(token, partition)


def is_local(consistency: Consistency) -> bool:
    """Whether any replica may answer."""
    if isinstance(consistency, str) and consistency in ("linearizable", "local"):
        return consistency == "local"
    raise InvalidRequest(f'consistency must be "linearizable" or "local", not {shown(consistency)}')
