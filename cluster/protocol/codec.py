"""Requests and results as msgpack: what clients and nodes ask of each other, on the wire.

Two tables have a row for each of them: its number, its class, and its elements in their order. The codec
works from these rows (`shapes` says how), and a test compares them with PROTOCOL.md. Consensus messages
have a table of their own in `message_codec`, which a client does not need.

API: `encode_request` / `encode_result` give one item's bytes, `decode_requests` / `decode_results` read a
batch's items.

Nothing here trusts its input: whatever the bytes, the answer is values of the exact types declared, or
`ProtocolError`, which ends the connection; a request whose id can be read fails alone.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from typing import Any, NamedTuple

from allsource.cluster.protocol.frames import ProtocolError
from allsource.cluster.protocol.payload import UINT_MAX, batch, malformed, pack, shown
from allsource.cluster.protocol.requests import (
    TYPES_MAX,
    AppendedStream,
    AppendPart,
    AppendRequest,
    AppendResult,
    ClusterView,
    DescribeCluster,
    MarkState,
    PartitionPage,
    PassOn,
    ReadMark,
    ReadPartition,
    ReadStream,
    ReadTag,
    Request,
    Result,
    Run,
    StreamPage,
    TagPage,
)
from allsource.cluster.protocol.shapes import (
    BIN,
    BOOL,
    EXPECTED,
    EXPECTED_TAG,
    MAP,
    PARTITION_IF_SAID,
    STR,
    UINT,
    Element,
    Shape,
    array,
    nested,
)
from allsource.storage.model.chunks import Chunk
from allsource.storage.model.entry import Mark
from allsource.storage.model.errors import AllsourceError, InvalidRequest

TIMEOUT_MS_MAX = 3_600_000

RequestItem = tuple[int, int, Request | InvalidRequest]
"""`(request_id, timeout_ms, request)`; or, of a request that is none, what is wrong with it."""
ResultItem = tuple[int, Result | AllsourceError]
"""`(request_id, what came of it)`."""


class Op(IntEnum):
    """What a request asks, and (from APPEND on, with 0 for an error) what a result answers."""

    ERROR = 0
    APPEND = 1
    READ_STREAM = 2
    READ_PARTITION = 3
    DESCRIBE_CLUSTER = 4
    PASS_ON = 5
    READ_TAG = 6
    READ_MARK = 7


class Row(NamedTuple):
    """One request or result: the values of `cls` are said in `shape`."""

    op: Op
    cls: type[Any]
    shape: Shape


def _request(op: Op, name: str, cls: type[Any], elements: dict[str, Element]) -> Row:
    return Row(op, cls, Shape(name, cls, elements, head=("id", "timeout_ms", "op"), number=op))


def _result(
    op: Op, name: str, cls: type[Any], elements: dict[str, Element], make: Callable[..., Any] | None = None
) -> Row:
    return Row(op, cls, Shape(name, make or cls, elements, head=("id", "op"), number=op))


# -- the tables

CHUNK = Shape("a chunk", Chunk, {"count": UINT, "raw_size": UINT, "codec": UINT, "data": BIN})
PART = Shape(
    "a part", AppendPart, {"stream": STR, "expected": EXPECTED, "chunks": array(CHUNK, called="chunk")}
)
MARK = Shape("a mark", Mark, {"name": STR, "position": UINT, "generation": UINT})
APPENDED = Shape("a stream", AppendedStream, {"stream": STR, "first_version": UINT, "last_version": UINT})
RUN = Shape(
    "a run",
    Run,
    {
        "stream": STR,
        "first_version": UINT,
        "first_position": UINT,
        "first_tag_number": UINT,
        "timestamp_us": UINT,
        "skip": UINT,
        "take": UINT,
        "chunk": nested(CHUNK),
    },
)
RUNS = array(RUN, called="run")

REQUESTS = (
    _request(
        Op.APPEND,
        "append",
        AppendRequest,
        {
            "parts": array(PART),
            "expected_tag": EXPECTED_TAG,
            "marks": array(MARK),
            "partition": PARTITION_IF_SAID,
        },
    ),
    _request(
        Op.READ_STREAM,
        "read a stream",
        ReadStream,
        {
            "stream": STR,
            "from_version": UINT,
            "limit": UINT,
            "forward": BOOL,
            "local": BOOL,
            "token": STR,
        },
    ),
    _request(
        Op.READ_PARTITION,
        "read a partition",
        ReadPartition,
        {"partition": UINT, "from_position": UINT, "limit": UINT, "local": BOOL, "token": STR},
    ),
    _request(Op.DESCRIBE_CLUSTER, "describe the cluster", DescribeCluster, {}),
    _request(
        Op.READ_TAG,
        "read a tag",
        ReadTag,
        {
            "tag": STR,
            "from_number": UINT,
            "limit": UINT,
            "forward": BOOL,
            "types": array(STR, most=TYPES_MAX),
            "local": BOOL,
            "token": STR,
        },
    ),
    _request(
        Op.READ_MARK,
        "read a mark",
        ReadMark,
        {"partition": UINT, "name": STR, "local": BOOL, "token": STR},
    ),
)
"""All but PASS_ON, which is another request behind an op of its own."""

RESULTS = (
    _result(
        Op.ERROR,
        "error",
        AllsourceError,
        {"code": STR, "message": STR, "details": MAP},
        lambda *said: AllsourceError.from_wire(list(said)),
    ),
    _result(
        Op.APPEND,
        "appended",
        AppendResult,
        {
            "partition": UINT,
            "index": UINT,
            "first_position": UINT,
            "last_position": UINT,
            "streams": array(APPENDED),
            "duplicate": BOOL,
        },
    ),
    _result(
        Op.READ_STREAM,
        "a stream's page",
        StreamPage,
        {
            "stream": STR,
            "partition": UINT,
            "current_version": UINT,
            "created_us": UINT,
            "updated_us": UINT,
            "next_from": UINT,
            "forward": BOOL,
            "runs": RUNS,
        },
    ),
    _result(
        Op.READ_PARTITION,
        "a partition's page",
        PartitionPage,
        {
            "partition": UINT,
            "last_position": UINT,
            "next_from": UINT,
            "runs": RUNS,
        },
    ),
    _result(Op.DESCRIBE_CLUSTER, "the cluster", ClusterView, {"value": MAP}),
    _result(
        Op.READ_TAG,
        "a tag's page",
        TagPage,
        {
            "tag": STR,
            "partition": UINT,
            "last_number": UINT,
            "next_from": UINT,
            "forward": BOOL,
            "runs": RUNS,
        },
    ),
    _result(
        Op.READ_MARK,
        "a mark's state",
        MarkState,
        {"partition": UINT, "name": STR, "position": UINT, "generation": UINT, "index": UINT},
    ),
)

_LIST_REQUEST = {row.cls: row.shape.listed for row in REQUESTS}
_READ_REQUEST = {int(row.op): row.shape.read for row in REQUESTS}
_READ_PASSED_ON = {op: read for op, read in _READ_REQUEST.items() if op != Op.DESCRIBE_CLUSTER}
_LIST_RESULT = {row.cls: row.shape.listed for row in RESULTS if row.op is not Op.ERROR}
_READ_RESULT = {int(row.op): row.shape.read for row in RESULTS}
_PASS_ON = int(Op.PASS_ON)
_ERROR = int(Op.ERROR)


# -- requests


def encode_request(request_id: int, timeout_ms: int, request: Request) -> bytes:
    """One item of a REQUESTS frame. Raises `InvalidRequest` if it cannot be said in msgpack."""
    if type(request) is PassOn:
        inner = request.request
        asked = _LIST_REQUEST[type(inner)](request_id, timeout_ms, inner)
        return pack((*asked[:2], _PASS_ON, *asked[2:]))
    return pack(_LIST_REQUEST[type(request)](request_id, timeout_ms, request))


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
            request = _read_request(item)
        except ProtocolError as error:
            timeout_ms, request = 0, InvalidRequest(error.message)
        found.append((request_id, timeout_ms, request))
    return found


def _read_request(item: list[Any]) -> Request:
    op = item[2]
    read = _READ_REQUEST.get(op) if type(op) is int else None  # `True == 1`
    if read is not None:
        request: Request = read(item)
        return request
    if type(op) is int and op == _PASS_ON and len(item) > 3:
        return _read_passed_on(item)
    raise malformed(f"no such request: {shown(op)} with {len(item) - 3} fields")


def _read_passed_on(item: list[Any]) -> PassOn:
    """Looks one op further and no more: an item may consist of thousands of them."""
    op = item[3]
    read = _READ_PASSED_ON.get(op) if type(op) is int else None
    if read is None:
        raise malformed("an append or a read may be passed on, once")
    return PassOn(read([*item[:2], *item[3:]]))


# -- results


def encode_result(request_id: int, result: Result | AllsourceError) -> bytes:
    """One item of a RESULTS frame. Raises `InvalidRequest` if it cannot be said in msgpack."""
    listed = _LIST_RESULT.get(type(result))
    if listed is not None:
        return pack(listed(request_id, result))
    assert isinstance(result, AllsourceError)
    return pack((request_id, _ERROR, *result.to_wire()))


def decode_results(frame: list[Any]) -> list[ResultItem]:
    """The results of an unpacked RESULTS frame, in order."""
    found: list[ResultItem] = []
    for item in batch(frame):
        if type(item) is not list or len(item) < 3:
            raise malformed("a result is [id, op, ...]")
        request_id, op = item[0], item[1]
        if type(request_id) is not int or not 0 <= request_id <= UINT_MAX:
            raise malformed("a result's id is an integer from 0 to 2**63 - 1")
        read = _READ_RESULT.get(op) if type(op) is int else None
        if read is None:
            raise malformed(f"no such result: {shown(op)}")
        found.append((request_id, read(item)))
    return found
