"""Requests and results as msgpack: what clients and nodes ask of each other, on the wire.

A payload is one msgpack array `[kind, ...]`. Requests and results travel in batches, `[kind, [item,
...]]`: what is sent within one loop turn goes as one frame and is unpacked in one call (64 requests
in 64 frames cost 0.25 us each to unpack, in one frame 0.14 us, before the frames' own cost).
Items are packed one by one, so that one that cannot be packed fails its own caller only, and the
cutting into frames knows exact sizes. Consensus messages are in `message_codec.py`, which a client
does not need. PROTOCOL.md describes every field.

API: `encode_request` / `encode_result` give one item's bytes, `batch_prefix` what goes before the items
of a frame, `unpack` opens a payload, `decode_requests` / `decode_results` read a batch's items.

Nothing here trusts its input: whatever the bytes, the answer is values of the exact types declared, or
`ProtocolError`, which ends the connection; a request whose id can be read fails alone. Memory is bounded
as well. msgpack allocates an array as soon as it is *claimed*, and an empty array of one byte becomes an
object of 80: 16 MiB could ask for 1.2 GiB (tried). So small payloads are unpacked with a limit on every
array, and of a large one the skeleton is walked first, allocating nothing: large frames are large because
of the events in them, not of many small values.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgpack

from allsource.cluster.protocol.frames import ProtocolError
from allsource.cluster.protocol.requests import (
    AppendedStream,
    AppendPart,
    AppendRequest,
    AppendResult,
    Chunk,
    ClusterView,
    DescribeCluster,
    PartitionPage,
    PassOn,
    ReadPartition,
    ReadStream,
    Request,
    Result,
    StreamPage,
)
from allsource.storage.model.errors import AllsourceError, InvalidRequest
from allsource.storage.model.expected import EXISTS


class Kind:
    """The first element of every payload."""

    HELLO: Final = 1
    CHALLENGE: Final = 2
    PROOF: Final = 3
    WELCOME: Final = 4
    REFUSED: Final = 5
    IDENTITY: Final = 6
    ACCEPTED: Final = 7
    MESSAGES: Final = 16
    BEAT: Final = 17
    REQUESTS: Final = 32
    RESULTS: Final = 33


class Op:
    """What a request asks, and (from APPEND on, with 0 for an error) what a result answers."""

    ERROR: Final = 0
    APPEND: Final = 1
    READ_STREAM: Final = 2
    READ_PARTITION: Final = 3
    DESCRIBE_CLUSTER: Final = 4
    PASS_ON: Final = 5


BATCH_ITEMS_MAX = 1024
"""Items in one frame; more are cut into several."""
BATCH_BYTES = 60_000
"""A frame takes no further item when this many bytes are in it (one item may be larger)."""
TIMEOUT_MS_MAX = 3_600_000
UINT_MAX = 2**63 - 1

SMALL_BYTES = 65_536
SMALL_ARRAY_MAX = 4_096
LARGE_VALUES_MAX = 131_072
"""Values in the skeleton of a payload above SMALL_BYTES, from a dialler (answers have no such limit)."""
DEPTH_MAX = 8
MAP_ITEMS_MAX = 1_024

RequestItem = tuple[int, int, Request | InvalidRequest]
"""`(request_id, timeout_ms, request)`; or, of a request that is none, what is wrong with it."""
ResultItem = tuple[int, Result | AllsourceError]
"""`(request_id, what came of it)`."""


def pack(value: Any) -> bytes:
    """`value` as msgpack. Raises `InvalidRequest` for what msgpack cannot say (a lone surrogate, 2**64)."""
    try:
        packed: bytes = msgpack.packb(value)
        return packed
    except (ValueError, OverflowError, TypeError) as error:  # UnicodeEncodeError is a ValueError
        raise InvalidRequest(f"this cannot be sent: {error}") from error


# -- batches


def batch_prefix(kind: int, count: int) -> bytes:
    """The head of a payload `[kind, [item, ...]]`; `count` packed items follow it."""
    return bytes((0x92, kind, 0xDC, count >> 8, count & 0xFF))


def unpack(payload: bytes | memoryview, *, answers: bool = False) -> list[Any]:
    """Open a payload: a list whose first element is an int, the kind. Raises `ProtocolError`.

    `answers`: the payload is from a server that we chose and asked; its large pages hold as many
    values as we asked for, and are not walked first.
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


def batch(frame: list[Any]) -> list[Any]:
    """The items of an unpacked `[kind, [item, ...]]`."""
    if len(frame) != 2 or type(frame[1]) is not list:
        raise malformed("a batch is [kind, [item, ...]]")
    return frame[1]


# -- requests


def encode_request(request_id: int, timeout_ms: int, request: Request) -> bytes:
    """One item of a REQUESTS frame. Raises `InvalidRequest` if it cannot be said in msgpack."""
    return pack((request_id, timeout_ms, *_op_and_fields(request)))


def _op_and_fields(request: Request) -> tuple[Any, ...]:
    if isinstance(request, AppendRequest):
        return Op.APPEND, request.parts
    if isinstance(request, ReadStream):
        return (
            Op.READ_STREAM,
            request.stream,
            request.from_version,
            request.limit,
            request.forward,
            request.local,
            request.token,
        )
    if isinstance(request, ReadPartition):
        return (
            Op.READ_PARTITION,
            request.partition,
            request.from_position,
            request.limit,
            request.local,
            request.token,
        )
    if isinstance(request, PassOn):
        return Op.PASS_ON, *_op_and_fields(request.request)
    return (Op.DESCRIBE_CLUSTER,)


def decode_requests(frame: list[Any]) -> list[RequestItem]:
    """The requests of an unpacked REQUESTS frame, in order.

    One that has an id but breaks another rule is that request's failure alone: it comes as the
    `InvalidRequest` to answer it with. Without an id nobody could be told: `ProtocolError`.
    """
    found: list[RequestItem] = []
    for item in batch(frame):
        if type(item) is not list or len(item) < 3:
            raise malformed("a request is [id, timeout_ms, op, ...]")
        request_id, timeout_ms = item[0], item[1]
        if type(request_id) is not int or not 0 <= request_id <= UINT_MAX:
            raise malformed("a request's id is an integer from 0 to 2**63 - 1")
        request: Request | InvalidRequest
        try:
            if type(timeout_ms) is not int or not 0 <= timeout_ms <= TIMEOUT_MS_MAX:
                raise malformed(f"a request's timeout_ms is an integer from 0 to {TIMEOUT_MS_MAX}")
            request = _request(item)
        except ProtocolError as error:
            timeout_ms, request = 0, InvalidRequest(error.message)
        found.append((request_id, timeout_ms, request))
    return found


def _request(item: list[Any]) -> Request:
    op = item[2]
    if type(op) is not int:  # `True == 1`
        raise malformed(f"a request's op is an integer, not {_shown(op)}")
    if op == Op.APPEND and len(item) == 4:
        return AppendRequest(_append_parts(item[3]))
    if op == Op.READ_STREAM:
        return _read_stream(item)
    if op == Op.READ_PARTITION:
        return _read_partition(item)
    if op == Op.DESCRIBE_CLUSTER and len(item) == 3:
        return DescribeCluster()
    if op == Op.PASS_ON and len(item) > 3:
        inner = _request([*item[:2], *item[3:]])
        if isinstance(inner, DescribeCluster | PassOn):
            raise malformed("an append or a read may be passed on, once")
        return PassOn(inner)
    raise malformed(f"no such request: {_shown(op)} with {len(item) - 3} fields")


def _append_parts(parts: Any) -> tuple[AppendPart, ...]:
    if type(parts) is not list:
        raise malformed("an append's parts are an array")
    found = []
    for part in parts:
        if type(part) is not list or len(part) != 3:
            raise malformed("an append's part is [stream, expected, blob]")
        stream, expected, blob = part
        if type(stream) is not str or type(blob) is not bytes:
            raise malformed("an append's stream is a string and its blob is bytes")
        if type(expected) is not int or not EXISTS <= expected <= UINT_MAX:
            raise malformed("an append's expected version is an integer from -2 to 2**63 - 1")
        found.append(AppendPart(stream, expected, blob))
    return tuple(found)


def _read_stream(item: list[Any]) -> ReadStream:
    match item:
        case [_, _, _, str(stream), int(start), int(limit), bool(forward), bool(local), str(token)]:
            check_uints((start, limit))
            return ReadStream(stream, start, limit, forward, local, token)
    raise malformed("a stream read is [.., stream, from_version, limit, forward, local, token]")


def _read_partition(item: list[Any]) -> ReadPartition:
    match item:
        case [_, _, _, int(partition), int(start), int(limit), bool(local), str(token)]:
            check_uints((partition, start, limit))
            return ReadPartition(partition, start, limit, local, token)
    raise malformed("a partition read is [.., partition, from_position, limit, local, token]")


def check_uints(values: Any) -> None:
    """Refuse anything but integers from 0 to 2**63 - 1 (`True` is not one)."""
    for value in values:
        if type(value) is not int or not 0 <= value <= UINT_MAX:
            raise malformed(f"{_shown(value)} should be an integer from 0 to 2**63 - 1")


def _shown(value: Any) -> str:
    """A value for a sentence; of what may be large, its type."""
    return repr(value) if isinstance(value, int | float | None) else f"a {type(value).__name__}"


# -- results


def encode_result(request_id: int, result: Result | AllsourceError) -> bytes:
    """One item of a RESULTS frame."""
    if isinstance(result, AppendResult):
        return pack(
            (
                request_id,
                Op.APPEND,
                result.partition,
                result.index,
                result.first_position,
                result.last_position,
                result.streams,
                result.duplicate,
            )
        )
    if isinstance(result, StreamPage):
        return pack(
            (
                request_id,
                Op.READ_STREAM,
                result.stream,
                result.partition,
                result.current_version,
                result.created_us,
                result.updated_us,
                result.next_from,
                result.forward,
                result.chunks,
            )
        )
    if isinstance(result, PartitionPage):
        return pack(
            (
                request_id,
                Op.READ_PARTITION,
                result.partition,
                result.last_position,
                result.next_from,
                result.chunks,
            )
        )
    if isinstance(result, ClusterView):
        return pack((request_id, Op.DESCRIBE_CLUSTER, result.value))
    return pack((request_id, Op.ERROR, *result.to_wire()))


def decode_results(frame: list[Any]) -> list[ResultItem]:
    """The results of an unpacked RESULTS frame, in order."""
    found: list[ResultItem] = []
    for item in batch(frame):
        if type(item) is not list or len(item) < 3:
            raise malformed("a result is [id, op, ...]")
        request_id, op = item[0], item[1]
        if type(request_id) is not int or not 0 <= request_id <= UINT_MAX:
            raise malformed("a result's id is an integer from 0 to 2**63 - 1")
        decode = _RESULTS.get(op) if type(op) is int else None
        if decode is None:
            raise malformed(f"no such result: {_shown(op)}")
        found.append((request_id, decode(item)))
    return found


def _append_result(item: list[Any]) -> AppendResult:
    if len(item) != 8:
        raise malformed("an append's result has 8 elements")
    _, _, partition, index, first, last, streams, duplicate = item
    check_uints((partition, index, first, last))
    if type(streams) is not list or type(duplicate) is not bool:
        raise malformed("an append's result ends with its streams and whether it is a duplicate")
    return AppendResult(
        partition, index, first, last, tuple([_appended(stream) for stream in streams]), duplicate
    )


def _appended(value: Any) -> AppendedStream:
    if type(value) is not list or len(value) != 3 or type(value[0]) is not str:
        raise malformed("an appended stream is [stream, first_version, last_version]")
    check_uints(value[1:])
    return AppendedStream(*value)


def _stream_page(item: list[Any]) -> StreamPage:
    if len(item) != 10 or type(item[2]) is not str or type(item[8]) is not bool:
        raise malformed("a stream's page has 10 elements")
    check_uints(item[3:8])
    _, _, stream, partition, version, created_us, updated_us, next_from, forward, chunks = item
    return StreamPage(
        stream, partition, version, created_us, updated_us, next_from, forward, _chunks(chunks)
    )


def _partition_page(item: list[Any]) -> PartitionPage:
    if len(item) != 6:
        raise malformed("a partition's page has 6 elements")
    check_uints(item[2:5])
    _, _, partition, last_position, next_from, chunks = item
    return PartitionPage(partition, last_position, next_from, _chunks(chunks))


def _chunks(value: Any) -> tuple[Chunk, ...]:
    if type(value) is not list:
        raise malformed("a page's chunks are an array")
    found = []
    for chunk in value:
        if type(chunk) is not list or len(chunk) != 7:
            raise malformed("a chunk has 7 elements")
        stream, version, position, timestamp_us, skip, take, blob = chunk
        if type(stream) is not str or type(blob) is not bytes:
            raise malformed("a chunk's stream is a string and its blob is bytes")
        check_uints((version, position, timestamp_us, skip, take))
        found.append(Chunk(stream, version, position, timestamp_us, skip, take, blob))
    return tuple(found)


def _cluster_view(item: list[Any]) -> ClusterView:
    if len(item) != 3 or type(item[2]) is not dict:
        raise malformed("a view of the cluster is one map")
    return ClusterView(item[2])


def _error(item: list[Any]) -> AllsourceError:
    match item[2:]:
        case [str(), str(), dict()]:
            return AllsourceError.from_wire(item[2:])
    raise malformed("an error is [code, message, details]")


_RESULTS: dict[int, Callable[[list[Any]], Result | AllsourceError]] = {
    Op.ERROR: _error,
    Op.APPEND: _append_result,
    Op.READ_STREAM: _stream_page,
    Op.READ_PARTITION: _partition_page,
    Op.DESCRIBE_CLUSTER: _cluster_view,
}
