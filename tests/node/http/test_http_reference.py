"""`docs/http.md` against the door: its routes, parameters, bounds and error codes, no more and no fewer."""

from __future__ import annotations

import ast
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from aiohttp.test_utils import TestClient, TestServer

import allsource.node.daemon  # loads every error that a node can raise
from allsource.cluster.protocol.requests import TYPES_MAX
from allsource.config.schema import Limits
from allsource.node.http.app import make_app
from allsource.node.http.errors import status_of
from allsource.node.http.streams import DEFAULT_LIMIT
from allsource.storage.model.errors import AllsourceError, NotOwner, Rejected, StorageFault
from tests.toy_service import ToyService

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs" / "http.md").read_text()
DOOR = ROOT / "node" / "http"

NEVER_ANSWERED = {
    Rejected: "only its kinds are raised",
    NotOwner: "between nodes: the door's node asks the owner itself",
    StorageFault: "a node does not start, or gives the partition up",
}
"""Errors that no HTTP answer carries, with their kinds (but `Rejected`'s), and why."""

LEFT_OUT = ("cannot_listen", "connection_refused", "nonsense", "too_few_descriptors", "unreadable_answer")
"""Codes of errors that end a node's start, a client's call, or a peer's connection."""


class _Checkpoints:
    """No checkpoints, but their routes."""

    async def make(self, name: str) -> dict[str, Any]:
        return {"name": name}

    async def listed(self) -> dict[str, Any]:
        return {"checkpoints": []}

    async def remove(self, name: str) -> dict[str, Any]:
        return {"name": name}


def door() -> Any:
    return make_app(
        ToyService(),
        limits=Limits(),
        metrics_render=lambda: (b"", "text/plain"),
        readiness=list,
        checkpoints=_Checkpoints(),
    )


@pytest.fixture
async def http() -> AsyncIterator[TestClient[Any, Any]]:
    async with TestClient(TestServer(door())) as client:
        yield client


# -- routes


def sections() -> dict[str, str]:
    """Of each route, `METHOD /path`, what the page says."""
    found = re.findall(r"^### `([A-Z]+ /[^`]*)`\n(.*?)(?=^##)", PAGE, re.MULTILINE | re.DOTALL)
    assert len(found) == len(dict(found)), "a route stands there twice"
    return dict(found)


def test_the_page_has_every_route_and_no_other() -> None:
    routes = {
        f"{route.method} {route.resource.canonical}"
        for route in door().router.routes()
        if route.method != "HEAD" and route.resource.canonical != "/v1/"
    }
    assert sections().keys() == routes


# -- parameters


class Parameter(NamedTuple):
    """A row of a table of parameters."""

    name: str
    default: str
    allowed: str


def parameters(section: str) -> list[Parameter]:
    table = section.partition("| parameter |")[2].partition("\n\n")[0]
    rows = [line.strip("|").split("|") for line in table.splitlines()[2:]]
    return [Parameter(*(cell.strip().replace("`", "") for cell in row[:3])) for row in rows]


def url_of(route: str) -> str:
    return (
        route.split()[1]
        .replace("{stream}", "s")
        .replace("{partition}", "1")
        .replace("{name}", "n")
        .replace("{tag}", "t")
    )


ROUTES = [route for route in sections() if "/v1" in route]
WAITING = [route for route in ROUTES if route != "GET /v1" and "checkpoints" not in route]
"""Those that use their timeout."""


@pytest.mark.parametrize("route", ROUTES)
async def test_the_page_has_every_parameter_of_a_route(http: TestClient[Any, Any], route: str) -> None:
    """A door that meets an unknown parameter says which it knows."""
    answer = await http.request(route.split()[0], url_of(route), params={"nonsense": "1"})
    message = (await answer.json())["message"]
    assert answer.status == 400, message
    known = message.partition("known here: ")[2].split(", ")
    assert ["timeout", *(one.name for one in parameters(sections()[route]))] == known


def tries() -> Iterator[tuple[str, str, str, bool]]:
    """`(route, parameter, value, allowed)`, by what the page says is allowed."""
    for route in WAITING:
        yield from ((route, "timeout", value, True) for value in ("1ms", "60s", "1500ms", "2s", "1500"))
        yield from ((route, "timeout", value, False) for value in ("0ms", "60001ms", "1m"))
        for name, _, allowed in parameters(sections()[route]):
            if allowed == "from 1":
                yield from ((route, name, value, True) for value in ("1", str(2**63 - 1)))
                yield from ((route, name, value, False) for value in ("0", "-1", str(2**63), "x"))
            elif name == "token":
                yield route, name, "nonsense", False
            elif name == "type":
                assert allowed == f"up to {TYPES_MAX} types"
                yield from ((route, name, value, True) for value in ("T", "ü", "x" * 128))
                yield from ((route, name, value, False) for value in ("", "x" * 129, "\x00"))
            else:
                yield from ((route, name, value, True) for value in allowed.split(", "))
                yield route, name, "nonsense", False


async def test_what_the_page_allows_is_allowed_and_nothing_else(http: TestClient[Any, Any]) -> None:
    for route, name, value, allowed in tries():
        if not route.startswith("GET"):
            continue  # their bodies are looked at first; their parameters are read by the same code
        answer = await http.get(url_of(route), params={name: value})
        refused = answer.status == 400
        assert refused is not allowed, (route, name, value, await answer.text())


def test_the_page_says_the_default_limit() -> None:
    defaults = {
        one.default for text in sections().values() for one in parameters(text) if one.name == "limit"
    }
    assert defaults == {str(DEFAULT_LIMIT)}


# -- errors


class Row(NamedTuple):
    """A row of the table of errors."""

    status: str
    code: str
    definite: str


def rows() -> list[Row]:
    table = PAGE.partition("| status | code |")[2].partition("\n\n")[0]
    found = [line.strip("|").split("|") for line in table.splitlines()[2:]]
    return [Row(*(cell.strip().strip("`") for cell in row[:3])) for row in found]


def kinds(cls: type[AllsourceError]) -> Iterator[type[AllsourceError]]:
    """The class and its subclasses that are loaded, without those that no answer carries."""
    if cls not in NEVER_ANSWERED:
        yield cls
    if cls not in NEVER_ANSWERED or cls is Rejected:
        for sub in cls.__subclasses__():
            yield from kinds(sub)


def spelled() -> set[str]:
    """Codes that the door writes itself: `"error": "..."`, and a variable `code`."""
    found = set()
    for path in DOOR.glob("*.py"):
        text = path.read_text()
        found |= set(re.findall(r'"error": ?"([a-z_]+)"', text)) | set(
            re.findall(r'"error":"([a-z_]+)"', text)
        )
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Assign):
                found |= set(_codes(node))
    return found


def _codes(node: ast.Assign) -> Iterator[str]:
    """The value for a name `code` in `code = "x"` and `code, message = "x", ...`."""
    for target in node.targets:
        names = target.elts if isinstance(target, ast.Tuple) else [target]
        values = node.value.elts if isinstance(node.value, ast.Tuple) else [node.value]
        for name, value in zip(names, values, strict=False):
            if isinstance(name, ast.Name) and name.id == "code" and isinstance(value, ast.Constant):
                yield str(value.value)


def test_the_page_has_every_error_code_and_no_other() -> None:
    raised = {cls.code for cls in kinds(AllsourceError)} - set(LEFT_OUT)
    assert allsource.node.daemon
    codes = [row.code for row in rows()]
    assert len(codes) == len(set(codes))
    assert set(codes) == raised | spelled()


def test_the_page_says_the_status_of_each_error_and_whether_it_is_definite() -> None:
    classes = {cls.code: cls for cls in kinds(AllsourceError)}
    for row in rows():
        if row.code in classes:
            error = classes[row.code].__new__(classes[row.code])
            assert row.status == str(status_of(error)), row
            assert row.definite == ("yes" if error.definite else "no"), row


async def test_the_doors_own_refusals_are_as_the_page_says(http: TestClient[Any, Any]) -> None:
    told = {(row.status, row.code) for row in rows()}
    for method, url in (("GET", "/nowhere"), ("PUT", "/v1"), ("POST", "/v1/append")):
        answer = await http.request(method, url)
        body = await answer.json()
        assert (str(answer.status), body["error"]) in told, body
        assert body["definite"] is True
