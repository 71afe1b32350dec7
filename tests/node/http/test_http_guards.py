"""Web pages may not use the API through somebody's browser: other origins, other names, other types."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer

from allsource.config.schema import Limits
from allsource.node.http.app import make_app
from allsource.node.http.guards import Hosts
from tests.toy_service import ToyService

Http = TestClient[Any, Any]
BODY = b'{"events":[{"type":"T","data":1}]}'
JSON = {"Content-Type": "application/json"}


@pytest.fixture
def service() -> ToyService:
    return ToyService()


@pytest.fixture
async def http(service: ToyService) -> AsyncIterator[Http]:
    app = make_app(
        service,
        limits=Limits(),
        metrics_render=lambda: (b"", "text/plain"),
        readiness=list,
        hosts=Hosts(["n1.internal", "Events.Example.org", "*.wide.example"]),
    )
    async with TestClient(TestServer(app)) as client:
        yield client


async def post(http: Http, headers: dict[str, str]) -> tuple[int, dict[str, Any]]:
    skipped = () if "Content-Type" in headers else ("Content-Type",)
    answer = await http.post("/v1/streams/s/events", data=BODY, headers=headers, skip_auto_headers=skipped)
    return answer.status, await answer.json()


@pytest.mark.parametrize(
    "kind",
    [
        "text/plain",
        "text/plain; charset=application/json",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/octet-stream",
        "text/json",
        "application/jsonx",
        "",
        None,
    ],
)
async def test_a_body_says_that_it_is_json_or_msgpack(
    http: Http, service: ToyService, kind: str | None
) -> None:
    status, answer = await post(http, {} if kind is None else {"Content-Type": kind})
    assert (status, answer["error"], answer["definite"]) == (415, "unsupported_body", True)
    assert "-H 'content-type: application/json'" in answer["message"]
    assert service.seen == []


@pytest.mark.parametrize(
    "kind", ["application/json", "Application/JSON; charset=utf-8", "application/cloudevents+json"]
)
async def test_json_by_any_of_its_names(http: Http, kind: str) -> None:
    assert (await post(http, {"Content-Type": kind}))[0] == 201


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost:3000", "Host": "localhost:8101"},
        {"Origin": "http://localhost", "Host": "localhost:8101"},
        {"Origin": "http://[::1", "Host": "localhost:8101"},
        {"Origin": "http://localhost:99999", "Host": "localhost:8101"},
        {"Origin": "http://localhost:8101.evil.example", "Host": "localhost:8101"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "x", "Origin": "http://localhost:8101", "Host": "localhost:8101"},
    ],
)
async def test_pages_of_other_origins_are_refused(
    http: Http, service: ToyService, headers: dict[str, str]
) -> None:
    status, answer = await post(http, headers | JSON)
    assert (status, answer["error"], answer["definite"]) == (403, "cross_site", True)
    for path in ("/v1/cluster", "/metrics", "/health/live"):
        assert (await http.get(path, headers=headers)).status == 403
    assert service.seen == []


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://localhost:8101", "Host": "localhost:8101", "Sec-Fetch-Site": "same-origin"},
        {"Origin": "https://events.example.org", "Host": "events.example.org"},
        {"Origin": "http://[::1]:8101", "Host": "[::1]:8101"},
        {"Sec-Fetch-Site": "none"},
    ],
)
async def test_the_nodes_own_pages_are_served(http: Http, headers: dict[str, str]) -> None:
    assert (await post(http, headers | JSON))[0] == 201


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8101", "127.0.0.1.evil.example", "wide.example", "xlocalhost", "1.2.3"],
)
async def test_other_names_are_refused(http: Http, service: ToyService, host: str) -> None:
    status, answer = await post(http, {"Host": host} | JSON)
    assert (status, answer["error"]) == (403, "host_refused")
    assert "http.allowed_hosts" in answer["message"]
    assert service.seen == []


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "localhost:8101",
        "LOCALHOST.",
        "app.localhost",
        "127.0.0.1:1",
        "10.1.2.3",
        "[::1]:8101",
        "[fe80::1]",
        "n1.internal:8101",
        "events.example.org",
        "a.wide.example",
    ],
)
async def test_known_names_and_addresses_are_served(http: Http, host: str) -> None:
    assert (await post(http, {"Host": host} | JSON))[0] == 201


def test_any_name_if_the_configuration_says_so() -> None:
    assert "whatever.example" in Hosts(["*"])


async def test_no_preflight_is_answered(http: Http) -> None:
    headers = {"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"}
    answer = await http.options("/v1/streams/s/events", headers=headers)
    assert answer.status == 403
    assert not [name for name in answer.headers if name.lower().startswith("access-control")]


async def test_v1_lists_what_there_is_and_every_answer_ends_its_line(http: Http) -> None:
    for path in ("/v1", "/v1/"):
        answer = await http.get(path)
        assert answer.status == 200
        routes = (await answer.json())["routes"]
        assert "POST /v1/streams/{stream}/events" in routes
        assert "GET /v1/cluster" in routes
    for path in (
        "/v1",
        "/v1/cluster",
        "/health/live",
        "/health/ready",
        "/nowhere",
        "/v1/streams/none/events",
    ):
        text = await (await http.get(path)).text()
        assert text.endswith("}\n")
    answer = await http.get("/v1/nowhere")
    assert answer.status == 404
    assert "GET /v1 lists" in (await answer.json())["message"]
