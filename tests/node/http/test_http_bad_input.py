"""What the HTTP door refuses: each kind gets its documented error, and nothing reaches the service."""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import AsyncIterator
from io import BytesIO
from typing import Any

import msgpack
import pytest
from aiohttp.test_utils import TestClient, TestServer
from structlog.testing import capture_logs

from allsource.config.schema import Limits
from allsource.node.http import rawjson
from allsource.node.http.app import make_app
from allsource.node.http.errors import retry_after_s
from allsource.node.http.json_bodies import one_stream
from allsource.storage.model import errors
from allsource.storage.model.errors import InvalidRequest
from tests.toy_service import ToyService

ID = "0b6f5c1e-3d7a-4f7e-9a51-0c7d1f0a2b3c"
EVENT = {"type": "T", "data": 1}
SMALL = Limits(event_bytes_max=1024, append_bytes_max=4096, append_events_max=5)

Http = TestClient[Any, Any]


@pytest.fixture
def service() -> ToyService:
    return ToyService()


@pytest.fixture
async def http(service: ToyService) -> AsyncIterator[Http]:
    app = make_app(service, limits=SMALL, metrics_render=lambda: (b"", "text/plain"), readiness=list)
    async with TestClient(TestServer(app), headers={"Content-Type": "application/json"}) as client:
        yield client


async def refused(answer: Any, status: int, code: str, *words: str) -> dict[str, Any]:
    """Check the one error shape, and that the message names what is wrong."""
    body = json.loads(await answer.read())
    assert (answer.status, body["error"]) == (status, code), body
    assert body["definite"] is True
    for word in words:
        assert word in body["message"], body["message"]
    return dict(body)


BAD_BODIES: list[tuple[Any, list[str]]] = [
    (b"", ["not valid JSON"]),
    (b"{", ["not valid JSON"]),
    (b"{'a': 1}", ["not valid JSON"]),
    (b"\xff\xfe", ["not UTF-8", "byte 0"]),
    ('{"events":[]}'.encode("utf-16"), ["not UTF-8"]),
    (b"[" * 10, ["must be an object"]),
    (b"[1]", ["the body: must be an object"]),
    (b'{"events":[{"type":"T","data":NaN}]}', ["not valid JSON", "byte 30"]),
    (b'{"events":[{"type":"T","data":-Infinity}]}', ["not valid JSON", "byte 31"]),
    (b'{"events":[{"type":"T","data":"\x01"}]}', ["not valid JSON", "byte 31"]),
    (b'{"events":[{"type":"T","type":"U","data":1}]}', ["events[0].type: a key stands twice"]),
    ({}, ["the body", "'events' is missing"]),
    ({"events": []}, ["events: must be a list of at least one"]),
    ({"events": {}}, ["events: must be a list"]),
    ({"events": [EVENT], "expectedversion": 3}, ["the body: unknown key 'expectedversion'"]),
    ({"events": [EVENT, {"data": 1}]}, ["events[1]", "'type' is missing"]),
    ({"events": [{"type": "T"}]}, ["events[0]", "'data' is missing"]),
    ({"events": [EVENT, 7]}, ["events[1]: must be an object"]),
    ({"events": [{**EVENT, "version": 7}]}, ["events[0]: unknown key 'version'"]),
    ({"events": [{"type": "", "data": 1}]}, ["events[0].type"]),
    ({"events": [{"type": 5, "data": 1}]}, ["events[0].type"]),
    ({"events": [{"type": "a\nb", "data": 1}]}, ["events[0].type", "control characters"]),
    ({"events": [{"type": "t" * 129, "data": 1}]}, ["events[0].type", "128 bytes"]),
    ({"events": [{**EVENT, "id": "7"}]}, ["events[0].id", "UUID"]),
    ({"events": [{**EVENT, "id": 7}]}, ["events[0].id", "UUID"]),
    ({"events": [{**EVENT, "id": "{" + ID + "}"}]}, ["events[0].id", "UUID"]),
    ({"events": [{**EVENT, "id": ID}, {**EVENT, "id": ID}]}, ["same id"]),
    ({"events": [{**EVENT, "encoding": "hex"}]}, ["events[0].encoding", "base64"]),
    ({"events": [{**EVENT, "encoding": "base64"}]}, ["events[0].data", "base64 is a string"]),
    ({"events": [{"type": "T", "data": "a-b_", "encoding": "base64"}]}, ["events[0].data", "base64"]),
    ({"events": [{"type": "T", "data": "abc", "encoding": "base64"}]}, ["events[0].data", "base64"]),
    ({"events": [{**EVENT, "metadata": "=", "metadata_encoding": "base64"}]}, ["events[0].metadata"]),
    ({"events": [EVENT], "expected_version": "never"}, ["expected_version", "no_stream", "'never'"]),
    ({"events": [EVENT], "expected_version": -1}, ["expected_version"]),
    ({"events": [EVENT], "expected_version": 1.0}, ["expected_version"]),
    ({"events": [EVENT], "expected_version": True}, ["expected_version"]),
    ({"events": [EVENT], "expected_version": None}, ["expected_version"]),
    ({"events": [EVENT], "expected_version": 2**63}, ["expected_version"]),
]


@pytest.mark.parametrize(("body", "words"), BAD_BODIES)
async def test_bad_append_bodies(http: Http, service: ToyService, body: Any, words: list[str]) -> None:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    await refused(await http.post("/v1/streams/s/events", data=raw), 400, "invalid", *words)
    assert service.seen == []


def nested(levels: int) -> bytes:
    return b'{"events":[{"type":"T","data":' + b"[" * levels + b"]" * levels + b"}]}"


def first_refused() -> int:
    """How deep is too deep depends on the Python: some 700 levels in 3.11, 10,000 in 3.13."""

    def is_refused(levels: int) -> bool:
        try:
            one_stream(nested(levels), 1)
        except InvalidRequest:
            return True
        return False

    return bisect_left(range(100_000), True, key=is_refused)


async def test_json_nested_too_deeply(service: ToyService) -> None:
    limits = Limits(event_bytes_max=2 << 20, append_bytes_max=4 << 20)
    app = make_app(service, limits=limits, metrics_render=lambda: (b"", "text/plain"), readiness=list)
    first = first_refused()
    async with TestClient(TestServer(app), headers={"Content-Type": "application/json"}) as http:
        for levels in (first + rawjson.DEPTH_ROOM // 2, 2 * first, 1_000_000):
            answer = await http.post("/v1/streams/s/events", data=BytesIO(nested(levels)))
            await refused(answer, 400, "invalid", "nested too deeply")
        assert service.seen == []
        assert (await http.post("/v1/streams/s/events", data=nested(first // 2))).status == 201


BAD_SEVERAL: list[tuple[Any, list[str]]] = [
    ({"streams": []}, ["streams: must be a list"]),
    ({"streams": [{"events": [EVENT]}]}, ["streams[0]", "'stream' is missing"]),
    ({"streams": [{"stream": " a", "events": [EVENT]}]}, ["streams[0].stream", "white space"]),
    ({"streams": [{"stream": "a"}]}, ["streams[0]", "'events' is missing"]),
    ({"streams": [{"stream": "a", "events": [EVENT, {"type": "T"}]}]}, ["streams[0].events[1]"]),
    ({"streams": [{"stream": "a", "events": [EVENT]}] * 2}, ["each stream once"]),
    ({"streams": [{"stream": c, "events": [EVENT]} for c in "ab"]}, ["one partition", "{tag}"]),
    ({"stream": "a", "events": [EVENT]}, ["unknown key"]),
]


@pytest.mark.parametrize(("body", "words"), BAD_SEVERAL)
async def test_bad_atomic_appends(http: Http, service: ToyService, body: Any, words: list[str]) -> None:
    await refused(await http.post("/v1/append", json=body), 400, "invalid", *words)
    assert service.seen == []


@pytest.mark.parametrize(
    ("raw", "word"),
    [
        (b"", "ends too early"),
        (b"\xc1", "must be an object"),
        (b"\x81\xa6events", "ends too early"),
        (b"\x80\x80", "not valid msgpack"),
        (b"\xdd\xff\xff\xff\xff" * 400, "must be an object"),
        (b"\xdf\xff\xff\xff\xff\x00", "unknown key"),
        (b"\x82\xa6events\x90\xa6events\x90", "stands twice"),
        (msgpack.packb({"events": [{"type": "T", "data": msgpack.ExtType(5, b"x")}]}), "not valid msgpack"),
        (msgpack.packb({"events": [{"type": "T", "data": {"n": 1}}]}), "events[0].data: must not be"),
        (msgpack.packb({"events": [{"type": "T", "data": [b"x"]}]}), "events[0].data"),
        (msgpack.packb({"events": [{"type": "T", "data": 1.5}]}), "events[0].data: in msgpack this is bin"),
        (msgpack.packb({"events": [{"type": "T", "data": b"{", "encoding": "json"}]}), "not valid JSON"),
        (msgpack.packb({"events": [{"type": "T", "data": b"1", "id": b"short"}]}), "events[0].id"),
    ],
)
async def test_bad_msgpack(http: Http, service: ToyService, raw: bytes, word: str) -> None:
    headers = {"Content-Type": "application/msgpack"}
    answer = await http.post("/v1/streams/s/events", data=raw, headers=headers)
    await refused(answer, 400, "invalid", word)
    assert service.seen == []


@pytest.mark.parametrize(
    ("events", "limit"),
    [
        ([{"type": "T", "data": "x" * 1023}], 1024),
        ([{"type": "T", "data": 1, "metadata": "x" * 1022}], 1024),
        ([{"type": "T", "data": "x" * 1000}] * 5, 4096),
        ([EVENT] * 6, 5),
    ],
)
async def test_too_large_is_413(http: Http, service: ToyService, events: list[Any], limit: int) -> None:
    body = await refused(await http.post("/v1/streams/s/events", json={"events": events}), 413, "too_large")
    assert body["limit"] == limit
    assert body["actual"] > limit
    assert service.seen == []


async def test_events_of_all_streams_count_together(http: Http, service: ToyService) -> None:
    streams = [{"stream": f"{{t}}{i}", "events": [EVENT] * 3} for i in range(2)]
    body = await refused(await http.post("/v1/append", json={"streams": streams}), 413, "too_large")
    assert (body["limit"], body["actual"]) == (5, 6)


async def test_a_body_beyond_all_limits_is_our_413(http: Http, service: ToyService) -> None:
    answer = await http.post("/v1/streams/s/events", data=b" " * 10_000)
    await refused(answer, 413, "too_large", "split the append")
    assert service.seen == []


@pytest.mark.parametrize(
    ("stream", "word"),
    [
        ("%20a", "white space"),
        ("a%00", "control characters"),
        ("%FF", "not UTF-8"),
        ("x" * 129, "128 bytes"),
        ("%C3%BC" * 65, "128 bytes"),
    ],
)
async def test_bad_stream_ids(http: Http, service: ToyService, stream: str, word: str) -> None:
    from yarl import URL

    for path in (f"/v1/streams/{stream}/events", f"/v1/streams/{stream}"):
        await refused(await http.get(URL(path, encoded=True)), 400, "invalid", word)  # type: ignore[arg-type]
    assert service.seen == []


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("/v1/streams/s/events?from=0", ["'from'", "from 1"]),
        ("/v1/streams/s/events?from=-1", ["'from'"]),
        ("/v1/streams/s/events?from=1.5", ["'from'"]),
        ("/v1/streams/s/events?from=٣", ["'from'"]),
        (f"/v1/streams/s/events?from={2**63}", ["'from'"]),
        ("/v1/streams/s/events?limit=0", ["'limit'"]),
        ("/v1/streams/s/events?limit=", ["'limit'"]),
        ("/v1/streams/s/events?direction=up", ["'direction'", "forward", "backward"]),
        ("/v1/streams/s/events?consistency=eventual", ["'consistency'", "linearizable", "local"]),
        ("/v1/streams/s/events?limt=5", ["unknown query parameter 'limt'", "limit"]),
        ("/v1/streams/s/events?limit=5&limit=6", ["'limit' is given twice"]),
        ("/v1/streams/s/events?token=x", ["token 'x'"]),
        ("/v1/streams/s/events?token=0:1", ["partition 0"]),
        ("/v1/streams/s?limit=5", ["unknown query parameter"]),
        ("/v1/cluster?timeout=0", ["a timeout is 1ms to 60s"]),
        ("/v1/cluster?timeout=2m", ["a timeout is"]),
        ("/v1/cluster?timeout=61s", ["a timeout is"]),
        ("/v1/partitions/32/events", ["'32'", "0 to 31"]),
        ("/v1/partitions/-1/events", ["0 to 31"]),
        ("/v1/partitions/x/events", ["0 to 31"]),
        ("/v1/partitions/3/events?direction=backward", ["unknown query parameter"]),
    ],
)
async def test_bad_queries(http: Http, service: ToyService, url: str, words: list[str]) -> None:
    await refused(await http.get(url), 400, "invalid", *words)
    assert service.seen == []


async def test_unknown_route_and_wrong_method(http: Http) -> None:
    for url in ("/", "/v1/stream", "/v1/streams", "/v2/streams/s/events", "/v1/streams/a/b/events"):
        await refused(await http.get(url), 404, "no_such_route", url)
    answer = await http.put("/v1/streams/s/events")
    await refused(answer, 405, "method_not_allowed", "GET", "POST")
    assert answer.headers["Allow"] == "GET, HEAD, POST"


@pytest.mark.parametrize(
    ("error", "status", "retry"),
    [
        (errors.InvalidRequest("m"), 400, False),
        (errors.TooLarge("m", limit=1), 413, False),
        (errors.NotFound("m"), 404, False),
        (errors.EventIdConflict("m"), 409, False),
        (errors.WrongExpectedVersion("s", "any", 3), 409, False),
        (errors.NotOwner("m", owner="n2"), 503, True),
        (errors.NoOwner("m", partition=3), 503, True),
        (errors.NoMajority("m"), 503, True),
        (errors.QueueFull("m"), 503, True),
        (errors.Overloaded("m"), 503, True),
        (errors.DiskFull("m"), 503, True),
        (errors.ShuttingDown("m"), 503, True),
        (errors.OutcomeUnknown("m"), 504, False),
        (errors.StorageFault("m"), 500, False),
    ],
)
async def test_every_error_has_its_status(
    http: Http, service: ToyService, error: errors.AllsourceError, status: int, retry: bool
) -> None:
    service.meet = lambda request, reply: error
    answer = await http.post("/v1/streams/s/events", json={"events": [EVENT]})
    expected = {**error.details, "error": error.code, "message": error.message, "definite": error.definite}
    assert (answer.status, await answer.json()) == (status, expected)
    assert ("Retry-After" in answer.headers) is retry


async def test_details_never_hide_the_error_itself(http: Http, service: ToyService) -> None:
    service.meet = lambda request, reply: errors.NoOwner("m", error="x", definite=False, owner=None)
    body = await (await http.get("/v1/cluster")).json()
    assert body == {"error": "no_owner", "message": "m", "definite": True, "owner": None}


async def test_a_defect_is_a_500_without_a_traceback(http: Http, service: ToyService) -> None:
    def broken(*_: Any) -> None:
        raise ZeroDivisionError("secret detail")

    service.meet = broken
    with capture_logs() as logs:
        answer = await http.get("/v1/cluster")
    body = await answer.json()
    assert (answer.status, body["error"], body["definite"]) == (500, "internal", False)
    assert "secret" not in body["message"]
    [line] = logs
    assert (line["log_level"], line["path"], line["error"]) == ("error", "/v1/cluster", "ZeroDivisionError")
    assert "test_http_bad_input.py" in line["where"]
    assert "exc_info" not in line


@pytest.mark.parametrize(("wait_ms", "seconds"), [(None, 1), (0, 1), (999, 1), (1001, 2), (7200, 8)])
def test_a_full_queue_says_when_there_is_a_chance(wait_ms: int | None, seconds: int) -> None:
    details = {} if wait_ms is None else {"wait_ms": wait_ms}
    assert retry_after_s(errors.QueueFull("later", **details)) == seconds
