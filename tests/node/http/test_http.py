"""Each row of the table of doors, over a real socket, against a service in memory."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import aiohttp
import msgpack
import pytest
from aiohttp.test_utils import TestClient, TestServer
from yarl import URL

from allsource.cluster.protocol.requests import (
    TYPES_MAX,
    AppendPart,
    AppendRequest,
    ReadPartition,
    ReadStream,
    ReadTag,
)
from allsource.config.schema import Limits
from allsource.node.http.app import make_app
from allsource.node.http.server import HttpServer
from allsource.storage.model.chunks import pack_events
from allsource.storage.model.errors import AllsourceError
from allsource.storage.model.events import BINARY
from allsource.storage.model.partition import partition_of, partition_of_tag
from tests.foreign import foreign_event
from tests.toy_service import ToyService

ID = "0b6f5c1e-3d7a-4f7e-9a51-0c7d1f0a2b3c"


def event(**more: Any) -> dict[str, Any]:
    return {"type": "Opened", "data": {"owner": "Ada"}, **more}


@pytest.fixture
def service() -> ToyService:
    return ToyService()


@pytest.fixture
def missing() -> list[str]:
    """What the node is not ready for."""
    return []


@pytest.fixture
async def http(service: ToyService, missing: list[str]) -> AsyncIterator[TestClient[Any, Any]]:
    app = make_app(
        service,
        limits=Limits(),
        metrics_render=lambda: (b"allsource_up 1\n", "text/plain; version=0.0.4; charset=utf-8"),
        readiness=lambda: missing,
    )
    async with TestClient(TestServer(app), headers={"Content-Type": "application/json"}) as client:
        yield client


async def append(http: TestClient[Any, Any], stream: str, *events: dict[str, Any], **more: Any) -> Any:
    answer = await http.post(f"/v1/streams/{stream}/events", json={"events": list(events), **more})
    return answer.status, await answer.json()


async def get(http: TestClient[Any, Any], url: str) -> Any:
    answer = await http.get(url)
    return answer.status, await answer.json()


async def test_append_answers_201_with_versions_positions_and_token(http: TestClient[Any, Any]) -> None:
    status, body = await append(http, "account-1", event(), event(), expected_version="no_stream")
    partition = partition_of("account-1")
    assert status == 201
    assert body == {
        "stream": "account-1",
        "partition": partition,
        "first_version": 1,
        "last_version": 2,
        "first_position": 1,
        "last_position": 2,
        "token": f"{partition}:1",
    }


async def test_retry_answers_200_with_the_same_body(
    http: TestClient[Any, Any], service: ToyService
) -> None:
    first = await append(http, "account-1", event(id=ID), expected_version="no_stream")
    again = await append(http, "account-1", event(id=ID), expected_version="no_stream")
    assert (first[0], again[0]) == (201, 200)
    assert first[1] == again[1]
    assert service.store.version("account-1") == 1


EXACT = [
    "123456789012345678901234567890.1234",
    "1e999",
    "-0.0",
    "9" * 5000,
    '{ "b" : 1,\n "a":\t[ 2.50 ],"b":1 }',
    '"\\u00fc\\/\\ud83d\\ude00"',
    '"half \\ud800 a pair"',
    '["\\ude00\\ud83d", "\\\\ud800"]',
    '"ü \u2028 😀"',
    "null",
    "[" * 200 + "]" * 200,
]


@pytest.mark.parametrize("text", EXACT)
async def test_json_data_is_kept_byte_for_byte(
    http: TestClient[Any, Any], service: ToyService, text: str
) -> None:
    one = f'{{"type":"T", "data" :{text} ,"metadata":{text}}}'
    raw = f' {{ "events" :[ {one} ,{{"data":{text},"type":"T"}} ] }} '
    answer = await http.post("/v1/streams/s/events", data=raw.encode())
    assert answer.status == 201, await answer.text()
    for stored in service.store.of_stream("s")[0].events(0):
        assert stored.data == text.encode()
        assert stored.metadata in (b"", text.encode() if text != "null" else b"")
    page = await (await http.get("/v1/streams/s/events")).text()
    assert page.count(f'"data":{text},"metadata":') == 2


async def test_a_retry_is_the_same_bytes(http: TestClient[Any, Any]) -> None:
    statuses = []
    for text in ('{"a":2.50}', '{"a":2.50}', '{"a":2.5}'):
        raw = f'{{"events":[{{"id":"{ID}","type":"T","data":{text}}}]}}'
        statuses.append((await http.post("/v1/streams/s/events", data=raw)).status)
    assert statuses == [201, 200, 409]


async def test_conflict_answers_409_with_expected_and_actual(http: TestClient[Any, Any]) -> None:
    await append(http, "account-1", event())
    status, body = await append(http, "account-1", event(), expected_version=7)
    assert status == 409
    assert body.pop("message")
    assert body == {
        "error": "wrong_expected_version",
        "definite": True,
        "stream": "account-1",
        "expected": 7,
        "actual": 1,
    }


async def test_event_id_conflict_answers_409(http: TestClient[Any, Any]) -> None:
    await append(http, "account-1", event(id=ID))
    status, body = await append(http, "account-1", {"id": ID, "type": "Other", "data": 1})
    assert (status, body["error"], body["definite"]) == (409, "event_id_conflict", True)


@pytest.mark.parametrize(
    ("expected", "number"), [("any", -1), ("exists", -2), ("no_stream", 0), (0, 0), (3, 3)]
)
async def test_expected_versions(
    http: TestClient[Any, Any], service: ToyService, expected: Any, number: int
) -> None:
    await append(http, "s", event(), expected_version=expected)
    [request] = service.seen
    assert isinstance(request, AppendRequest)
    assert request.parts[0].expected == number


async def test_atomic_append_to_streams_of_one_partition(http: TestClient[Any, Any]) -> None:
    streams = [
        {"stream": "{a}-from", "expected_version": "no_stream", "events": [event(), event()]},
        {"stream": "{a}-to", "events": [event()]},
    ]
    answer = await http.post("/v1/append", json={"streams": streams})
    partition = partition_of("{a}-from")
    assert answer.status == 201
    assert await answer.json() == {
        "streams": [
            {"stream": "{a}-from", "first_version": 1, "last_version": 2},
            {"stream": "{a}-to", "first_version": 1, "last_version": 1},
        ],
        "partition": partition,
        "first_position": 1,
        "last_position": 3,
        "token": f"{partition}:1",
    }


async def test_append_over_several_partitions_is_400(
    http: TestClient[Any, Any], service: ToyService
) -> None:
    streams = [{"stream": name, "events": [event()]} for name in ("a", "b")]
    answer = await http.post("/v1/append", json={"streams": streams})
    body = await answer.json()
    assert (answer.status, body["error"]) == (400, "invalid")
    assert body["partitions"] == {"a": partition_of("a"), "b": partition_of("b")}
    assert service.seen == []


async def test_read_stream_in_pages_forward(http: TestClient[Any, Any]) -> None:
    await append(http, "s", *[event(data=n) for n in range(5)])
    status, page = await get(http, "/v1/streams/s/events?limit=3")
    assert (status, page["stream"], page["current_version"], page["next_from"]) == (200, "s", 5, 4)
    assert [e["data"] for e in page["events"]] == [0, 1, 2]
    _, rest = await get(http, f"/v1/streams/s/events?from={page['next_from']}")
    assert [e["data"] for e in rest["events"]] == [3, 4]
    assert rest["next_from"] is None


async def test_read_stream_backward(http: TestClient[Any, Any]) -> None:
    await append(http, "s", *[event(data=n) for n in range(5)])
    _, page = await get(http, "/v1/streams/s/events?direction=backward&limit=2")
    assert [e["version"] for e in page["events"]] == [5, 4]
    assert page["next_from"] == 3


async def test_an_event_in_json(http: TestClient[Any, Any]) -> None:
    await append(http, "s", event(id=ID.upper(), metadata={"by": "test", "größe": 1}))
    _, page = await get(http, "/v1/streams/s/events")
    partition = partition_of("s")
    assert page["events"] == [
        {
            "id": ID,
            "stream": "s",
            "version": 1,
            "partition": partition,
            "position": 1,
            "type": "Opened",
            "timestamp": "2023-11-14T22:13:20.000000Z",
            "data": {"owner": "Ada"},
            "metadata": {"by": "test", "größe": 1},
        }
    ]


@pytest.mark.parametrize(
    "data", [None, True, 0, -1.5, "text \u2028 \"'\\", [], {}, 10**30, {"": [None]}, "\ud800"]
)
async def test_data_may_be_any_json_value(http: TestClient[Any, Any], data: Any) -> None:
    await append(http, "s", event(data=data))
    _, page = await get(http, "/v1/streams/s/events")
    assert page["events"][0]["data"] == data
    assert page["events"][0]["metadata"] is None


async def test_binary_data_as_base64(http: TestClient[Any, Any], service: ToyService) -> None:
    raw = bytes(range(256))
    text = base64.b64encode(raw).decode()
    status, _ = await append(http, "s", {"type": "T", "data": text, "encoding": "base64"})
    assert status == 201
    _, page = await get(http, "/v1/streams/s/events")
    assert page["events"][0]["data"] == text
    assert page["events"][0]["encoding"] == "base64"
    assert service.store.of_stream("s")[0].events(0)[0].data == raw


async def test_what_a_native_client_calls_json_and_is_not_goes_out_as_base64(
    http: TestClient[Any, Any], service: ToyService
) -> None:
    evil = b'1},{"id":"forged"'
    chunks = pack_events([foreign_event("T", evil, metadata=b"\xff")])
    service.store.append(AppendRequest((AppendPart("s", -1, chunks),)))
    _, page = await get(http, "/v1/streams/s/events")
    [only] = page["events"]
    assert base64.b64decode(only["data"]) == evil
    assert base64.b64decode(only["metadata"]) == b"\xff"
    assert (only["encoding"], only["metadata_encoding"]) == ("base64", "base64")


async def test_unknown_stream_is_404(http: TestClient[Any, Any]) -> None:
    for url in ("/v1/streams/nobody/events", "/v1/streams/nobody"):
        status, body = await get(http, url)
        assert (status, body["error"], body["definite"]) == (404, "not_found", True)


async def test_stream_facts(http: TestClient[Any, Any], service: ToyService) -> None:
    await append(http, "s", event())
    await append(http, "s", event(), event())
    status, body = await get(http, "/v1/streams/s")
    assert status == 200
    assert body == {
        "stream": "s",
        "partition": partition_of("s"),
        "current_version": 3,
        "created_at": "2023-11-14T22:13:20.000000Z",
        "updated_at": "2023-11-14T22:13:20.000001Z",
    }
    assert service.seen[-1] == ReadStream("s", limit=0)


async def test_partition_by_position(http: TestClient[Any, Any]) -> None:
    await append(http, "{t}a", event(data="a1"))
    await append(http, "{t}b", event(data="b1"), event(data="b2"))
    partition = partition_of("{t}a")
    status, page = await get(http, f"/v1/partitions/{partition}/events?limit=2")
    assert (status, page["partition"], page["last_position"], page["next_from"]) == (200, partition, 3, 3)
    assert [(e["position"], e["stream"], e["data"]) for e in page["events"]] == [
        (1, "{t}a", "a1"),
        (2, "{t}b", "b1"),
    ]
    _, end = await get(http, f"/v1/partitions/{partition}/events?from=4")
    assert (end["events"], end["next_from"]) == ([], 4)


async def test_query_parameters_reach_the_service(http: TestClient[Any, Any], service: ToyService) -> None:
    await append(http, "s", event())
    token = f"{partition_of('s')}:1"
    url = (
        f"/v1/streams/s/events?from=1&limit=9&direction=backward&consistency=local&token={token}&timeout=2s"
    )
    assert (await http.get(url)).status == 200
    assert service.seen[-1] == ReadStream("s", 1, 9, False, True, token)
    assert service.timeouts_ms[-1] == 2000
    assert (await http.get("/v1/partitions/31/events?from=2&limit=3&consistency=local")).status == 200
    assert service.seen[-1] == ReadPartition(31, 2, 3, True, "")


async def test_a_large_limit_is_cut_to_what_a_page_may_hold(
    http: TestClient[Any, Any], service: ToyService
) -> None:
    await http.get("/v1/partitions/0/events?limit=999999999")
    await http.get("/v1/streams/s/events?limit=999999999")
    most = Limits().read_events_max
    assert service.seen == [ReadPartition(0, 1, most), ReadStream("s", limit=most)]


@pytest.mark.parametrize(
    ("given", "milliseconds"),
    [({}, 5000), ({"X-Request-Timeout": "750"}, 750), ({"X-Request-Timeout": "3s"}, 3000)],
)
async def test_request_timeout(
    http: TestClient[Any, Any], service: ToyService, given: dict[str, str], milliseconds: int
) -> None:
    await http.get("/v1/cluster", headers=given)
    assert service.timeouts_ms == [milliseconds]


async def test_cluster(http: TestClient[Any, Any], service: ToyService) -> None:
    service.store.view = {"nodes": [{"id": "n1", "state": "up"}], "partitions": [], "durability": "fsync"}
    assert await get(http, "/v1/cluster") == (200, service.store.view)


@pytest.mark.parametrize(
    "stream", ["orders/2024/1", "{tag}-1", "größe 1", "100%", "a+b", "%2F", "a..b", "?&#"]
)
async def test_stream_ids_are_url_decoded(
    http: TestClient[Any, Any], service: ToyService, stream: str
) -> None:
    from urllib.parse import quote

    from yarl import URL

    url = URL(f"/v1/streams/{quote(stream, safe='')}/events", encoded=True)
    answer = await http.post(url, json={"events": [event()]})
    assert answer.status == 201, await answer.text()
    assert (await answer.json())["stream"] == stream
    assert [s.stream for s in service.store.runs[partition_of(stream)]] == [stream]
    status, page = await get(http, url)  # type: ignore[arg-type]
    assert (status, page["events"][0]["stream"]) == (200, stream)


async def test_health_and_metrics(http: TestClient[Any, Any], missing: list[str]) -> None:
    assert await get(http, "/health/live") == (200, {"status": "live"})
    assert await get(http, "/health/ready") == (200, {"status": "ready"})
    missing += ["partition 3 has no owner", "node n2 was never met"]
    answer = await http.get("/health/ready")
    assert (answer.status, answer.headers["Retry-After"]) == (503, "1")
    assert (await answer.json())["missing"] == missing
    metrics = await http.get("/metrics")
    assert (metrics.status, await metrics.read()) == (200, b"allsource_up 1\n")
    assert metrics.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"


async def test_msgpack_in_and_out(http: TestClient[Any, Any], service: ToyService) -> None:
    raw = bytes(range(256))
    body = {
        "expected_version": "no_stream",
        "events": [
            {"id": UUID(ID).bytes, "type": "Bin", "data": raw, "metadata": b"\x00"},
            {"type": "Text", "data": b'{ "n": 1 }', "encoding": "json"},
            {"type": "Both", "data": b"1e999", "encoding": "json", "metadata": b"[]"}
            | {"metadata_encoding": "json"},
        ],
    }
    answer = await http.post(
        "/v1/streams/s/events",
        data=msgpack.packb(body),
        headers={"Content-Type": "application/msgpack", "Accept": "application/msgpack"},
    )
    assert (answer.status, answer.content_type) == (201, "application/msgpack")
    assert msgpack.unpackb(await answer.read())["last_version"] == 3
    stored = service.store.of_stream("s")[0].events(0)
    assert [(e.encoding, e.data) for e in stored] == [
        (BINARY, raw),
        (0, b'{ "n": 1 }'),
        (0, b"1e999"),
    ]
    headers = {"Accept": "application/msgpack"}
    page = msgpack.unpackb(await (await http.get("/v1/streams/s/events", headers=headers)).read())
    keys = ("data", "encoding", "metadata", "metadata_encoding")
    assert [tuple(e.get(key) for key in keys) for e in page["events"]] == [
        (raw, None, b"\x00", None),
        (b'{ "n": 1 }', "json", None, None),
        (b"1e999", "json", b"[]", "json"),
    ]
    assert page["events"][0]["id"] == ID
    again = {"events": [{key: e[key] for key in ("type", *keys) if key in e} for e in page["events"]]}
    answer = await http.post(
        "/v1/streams/copy/events",
        data=msgpack.packb(again),
        headers={"Content-Type": "application/msgpack"},
    )
    assert answer.status == 201


async def test_errors_as_msgpack(http: TestClient[Any, Any]) -> None:
    answer = await http.get("/v1/streams/nobody", headers={"Accept": "application/msgpack"})
    body = msgpack.unpackb(await answer.read())
    assert (answer.status, body["error"]) == (404, "not_found")


async def test_a_read_page_can_be_appended_again(http: TestClient[Any, Any]) -> None:
    """What a door gives, it takes: data, metadata and their encodings."""
    text = base64.b64encode(b"\xff").decode()
    await append(
        http, "s", event(metadata=text, metadata_encoding="base64"), event(data=text, encoding="base64")
    )
    _, page = await get(http, "/v1/streams/s/events")
    keys = ("type", "data", "metadata", "encoding", "metadata_encoding")
    status, _ = await append(http, "copy", *[{k: e[k] for k in keys if k in e} for e in page["events"]])
    assert status == 201
    _, copy = await get(http, "/v1/streams/copy/events")
    for key in keys:
        assert [e.get(key) for e in copy["events"]] == [e.get(key) for e in page["events"]]


async def test_each_answer_is_told_by_its_status(service: ToyService) -> None:
    told: list[int] = []
    app = make_app(
        service,
        limits=Limits(),
        metrics_render=lambda: (b"", "text/plain"),
        readiness=list,
        answered=told.append,
    )
    async with TestClient(TestServer(app), headers={"Content-Type": "application/json"}) as http:
        await append(http, "s", event())
        await http.post("/v1/streams/s/events", data=b"{")
        await http.get("/v1/streams/unknown")
        await http.get("/nowhere")
        await http.get("/health/live")
    assert told == [201, 400, 404, 404, 200]


async def test_the_server_listens_stops_and_says_when_a_port_is_taken(service: ToyService) -> None:
    def app() -> aiohttp.web.Application:
        return make_app(
            service, limits=Limits(), metrics_render=lambda: (b"", "text/plain"), readiness=list
        )

    first = HttpServer(app(), "127.0.0.1", 0)
    await first.start()
    second = HttpServer(app(), "127.0.0.1", first.port)
    with pytest.raises(AllsourceError, match=f"127.0.0.1:{first.port}.*another http_port"):
        await second.start()
    url = f"http://127.0.0.1:{first.port}/health/live"
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        assert json.loads(await answer.read()) == {"status": "live"}
    await first.stop()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", second._port)


# -- tags and marks


async def several(http: TestClient[Any, Any], body: dict[str, Any]) -> Any:
    answer = await http.post("/v1/append", json=body)
    return answer.status, await answer.json()


def to(stream: str, *types: str) -> dict[str, Any]:
    return {"stream": stream, "events": [{"type": name, "data": name} for name in types]}


async def test_events_of_a_tagged_stream_show_their_tag_and_number(http: TestClient[Any, Any]) -> None:
    await several(http, {"streams": [to("a{t}", "A", "B"), to("b{t}", "A")]})
    await several(http, {"streams": [to("plain", "A")]})
    status, page = await get(http, "/v1/tags/t/events")
    assert status == 200
    assert [(one["stream"], one["tag"], one["tag_number"]) for one in page["events"]] == [
        ("a{t}", "t", 1),
        ("a{t}", "t", 2),
        ("b{t}", "t", 3),
    ]
    assert (page["tag"], page["last_number"], page["next_from"]) == ("t", 3, None)
    _, of_stream = await get(http, "/v1/streams/b%7Bt%7D/events")
    assert of_stream["events"] == page["events"][2:]
    _, plain = await get(http, "/v1/streams/plain/events")
    assert not {"tag", "tag_number"} & plain["events"][0].keys()
    answer = await http.get("/v1/tags/t/events", headers={"Accept": "application/msgpack"})
    unpacked = msgpack.unpackb(await answer.read())
    assert [(one["tag"], one["tag_number"]) for one in unpacked["events"]] == [("t", 1), ("t", 2), ("t", 3)]


async def test_a_tag_is_read_in_pages_in_both_directions_and_by_type(
    http: TestClient[Any, Any], service: ToyService
) -> None:
    await several(http, {"streams": [to("a{t}", "A", "B", "A", "C", "A")]})

    async def numbers(query: str) -> tuple[list[int], int | None]:
        status, page = await get(http, f"/v1/tags/t/events{query}")
        assert status == 200, page
        return [one["tag_number"] for one in page["events"]], page["next_from"]

    assert await numbers("?limit=2") == ([1, 2], 3)
    assert await numbers("?from=3&limit=9") == ([3, 4, 5], None)
    assert await numbers("?direction=backward&limit=2") == ([5, 4], 3)
    assert await numbers("?type=B&type=C") == ([2, 4], None)
    assert await numbers("?type=B&limit=1") == ([], 2)
    assert await numbers("?type=none") == ([], None)
    await numbers("?consistency=local&type=A")
    asked = service.seen[-1]
    assert isinstance(asked, ReadTag)
    assert (asked.local, asked.types) == (True, ("A",))
    assert await get(http, "/v1/tags/nothing/events") == (
        200,
        {"tag": "nothing", "partition": partition_of_tag("nothing"), "last_number": 0, "next_from": None}
        | {"events": []},
    )


@pytest.mark.parametrize(
    "url",
    [
        "/v1/tags/%7Bt%7D/events",
        "/v1/tags/%ff/events",
        "/v1/tags/t/events?from=0",
        "/v1/tags/t/events?from=1&from=2",
        "/v1/tags/t/events?" + "&".join(["type=T"] * (TYPES_MAX + 1)),
        "/v1/tags/t/events?type=",
        "/v1/partitions/32/marks/m",
        "/v1/partitions/1/marks/%20m",
        "/v1/partitions/1/marks/m?from=1",
        "/v1/partitions/1/marks/m?token=2:7",
    ],
)
async def test_tags_and_marks_that_are_none_are_refused(http: TestClient[Any, Any], url: str) -> None:
    answer = await http.get(URL(url, encoded=True))
    assert (answer.status, (await answer.json())["error"]) == (400, "invalid")


async def test_an_expected_tag(http: TestClient[Any, Any]) -> None:
    status, _ = await several(http, {"streams": [to("a{t}", "A", "B")], "expected_tag": 0})
    assert status == 201
    status, refused = await several(http, {"streams": [to("b{t}", "A")], "expected_tag": 1})
    assert status == 409
    assert {key: refused[key] for key in ("error", "tag", "expected", "actual", "definite")} == {
        "error": "wrong_expected_tag",
        "tag": "t",
        "expected": 1,
        "actual": 2,
        "definite": True,
    }
    assert (await several(http, {"streams": [to("b{t}", "A")], "expected_tag": 2}))[0] == 201


@pytest.mark.parametrize("form", ["json", "msgpack"])
async def test_marks_are_moved_with_events_and_alone(http: TestClient[Any, Any], form: str) -> None:
    async def post(value: dict[str, Any]) -> Any:
        if form == "json":
            return await several(http, value)
        for stream in value.get("streams", ()):
            for one in stream["events"]:
                one["data"] = one["data"].encode()
        answer = await http.post(
            "/v1/append", data=msgpack.packb(value), headers={"Content-Type": "application/msgpack"}
        )
        return answer.status, await answer.json()

    partition = partition_of("a")
    url = f"/v1/partitions/{partition}/marks/m"
    never = {"partition": partition, "name": "m", "position": 0, "generation": 0, "token": None}
    assert await get(http, url) == (200, never)
    status, body = await post({"streams": [to("a", "A")], "marks": [{"name": "m", "position": 5}]})
    assert status == 201
    assert await get(http, url) == (200, never | {"position": 5, "token": body["token"]})
    alone = {"partition": partition, "marks": [{"name": "m", "position": 1, "generation": 2}]}
    status, body = await post(alone)
    assert (status, body["streams"], body["partition"]) == (201, [], partition)
    assert (await post(alone))[0] == 200, "they are there already"
    status, refused = await post(
        {"streams": [to("a", "A")], "marks": [{"name": "m", "position": 9, "generation": 1}]}
    )
    assert status == 409
    assert [refused[key] for key in ("error", "name", "position", "generation")] == [
        "mark_refused",
        "m",
        1,
        2,
    ]
    assert (await get(http, "/v1/streams/a"))[1]["current_version"] == 1, "all or nothing"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({}, "at least one"),
        ({"streams": []}, "at least one"),
        ({"marks": []}, "at least one"),
        ({"marks": [{"name": "m", "position": 1}]}, "partition"),
        ({"marks": [{"name": "m", "position": 1}], "partition": 32}, "partition"),
        ({"marks": [{"name": "m", "position": 1}], "partition": -1}, "partition"),
        ({"marks": [{"name": "m", "position": 1}], "partition": "1"}, "partition"),
        ({"marks": [{"name": "m", "position": 1}], "partition": True}, "partition"),
        ({"marks": [{"position": 1}], "partition": 1}, "name"),
        ({"marks": [{"name": "m"}], "partition": 1}, "position"),
        ({"marks": [{"name": "", "position": 1}], "partition": 1}, "empty"),
        ({"marks": [{"name": 7, "position": 1}], "partition": 1}, "a mark is a string"),
        ({"marks": [{"name": "m", "position": -1}], "partition": 1}, "position"),
        ({"marks": [{"name": "m", "position": 2**63}], "partition": 1}, "position"),
        ({"marks": [{"name": "m", "position": 1.0}], "partition": 1}, "position"),
        ({"marks": [{"name": "m", "position": True}], "partition": 1}, "position"),
        ({"marks": [{"name": "m", "position": 1, "generation": None}], "partition": 1}, "generation"),
        ({"marks": [{"name": "m", "position": 1, "more": 1}], "partition": 1}, "more"),
        ({"marks": [{"name": "m", "position": 1}] * 2, "partition": 1}, "once"),
        ({"marks": {"name": "m", "position": 1}, "partition": 1}, "list"),
        ({"streams": [to("a{t}", "A")], "expected_tag": -1}, "expected_tag"),
        ({"streams": [to("a{t}", "A")], "expected_tag": "1"}, "expected_tag"),
        ({"streams": [to("a{t}", "A")], "expected_tag": 2**63}, "expected_tag"),
        ({"streams": [to("a", "A")], "expected_tag": 0}, "same {tag}"),
        ({"streams": [to("$a", "A")]}, "store's own"),
        ({"streams": [to("a", "A")], "partition": 31}, "partition"),
    ],
)
async def test_appends_that_are_none_are_refused(
    http: TestClient[Any, Any], service: ToyService, body: dict[str, Any], words: str
) -> None:
    for data, kind in ((json.dumps(body).encode(), "json"), (msgpack.packb(body), "msgpack")):
        if kind == "msgpack" and b"events" in data:
            continue  # their data is bin there
        answer = await http.post("/v1/append", data=data, headers={"Content-Type": f"application/{kind}"})
        refused = await answer.json()
        assert (answer.status, refused["error"]) == (400, "invalid")
        assert words in refused["message"], kind
    assert service.seen == [], "no node was asked"


async def test_nobody_appends_to_a_stream_of_the_stores_own(
    http: TestClient[Any, Any], service: ToyService
) -> None:
    status, refused = await append(http, "$all", event())
    assert (status, refused["error"]) == (400, "invalid")
    assert service.seen == []
    assert (await get(http, "/v1/streams/$all"))[0] == 404, "it may be read"
