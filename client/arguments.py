"""From the arguments of a call to the request that is sent, or `InvalidRequest` before anything is.

Every argument of every public call passes through here. A request that comes out can be encoded, and every
node reads it as one: what a caller got wrong costs nobody else on the same connection anything.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, TypeAlias

from allsource.client.addresses import read_address
from allsource.client.cluster_map import Address
from allsource.cluster.protocol.requests import ReadPartition, ReadStream, parse_token
from allsource.storage.model.append import AppendPart, append_parts, partition_of_append
from allsource.storage.model.arguments import flag, seconds, shown, text, whole_number
from allsource.storage.model.errors import InvalidRequest
from allsource.storage.model.events import Events
from allsource.storage.model.expected import Expectation
from allsource.storage.model.partition import check_stream_id

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
    parts: Iterable[tuple[str, Events, Expectation]], partitions: int
) -> tuple[AppendPart, ...]:
    """The events for several streams of one partition, packed."""
    if isinstance(parts, str | bytes) or not isinstance(parts, Iterable):
        raise InvalidRequest(f"parts must be several StreamAppend, not {shown(parts)}")
    packed = append_parts("parts", parts)
    partition_of_append(packed, partitions)
    return tuple(packed)


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
