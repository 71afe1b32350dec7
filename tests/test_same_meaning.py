"""One meaning of an argument: HTTP, the client and a repository accept and refuse the same values, and
understand in the same way what they accept."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import aiohttp
import pytest
import structlog

from allsource.client import Client, NewEvent
from allsource.storage.model.errors import AllsourceError
from allsource.storage.model.partition import partition_of
from allsource.storage.repository import EventStreamRepository, open_repository
from tests.node.test_daemon import Nodes, settings_in

STREAM = "order-1"
NUMBER_MAX = 2**63 - 1
LEFT_OUT = object()


class Doors(NamedTuple):
    """The same three events behind each of them."""

    http: Callable[[str, Any], Awaitable[tuple[int, Any]]]
    client: Client
    repository: EventStreamRepository
    partition: int
    token: str


@pytest.fixture
async def doors(tmp_path: Path) -> AsyncIterator[Doors]:
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    nodes = Nodes(settings_in(tmp_path, 1))
    await nodes.start()
    await nodes.ready()
    port = nodes.settings.nodes[0].http_port
    async with (
        aiohttp.ClientSession() as session,
        nodes.client() as client,
        open_repository("memory://") as repository,
    ):

        async def http(path: str, body: Any = None) -> tuple[int, Any]:
            url = f"http://127.0.0.1:{port}{path}"
            ask = session.get(url) if body is None else session.post(url, json=body)
            async with ask as answer:
                return answer.status, json.loads(await answer.read())

        events = [NewEvent.json("T", n) for n in (1, 2, 3)]
        result = await client.append(STREAM, events)
        await repository.append_to_stream(STREAM, events)
        count = nodes.settings.partitions
        yield Doors(http, client, repository, partition_of(STREAM, count), result.token)
    await nodes.stop()


async def outcome(call: Awaitable[Any]) -> Any:
    """What a caller gets: the versions or positions read, or an error's code."""
    try:
        found = await call
    except AllsourceError as error:
        return error.code
    return [event.version for event in getattr(found, "events", found)]


async def over_http(doors: Doors, path: str, **parameters: Any) -> Any:
    given = {name: value for name, value in parameters.items() if value is not LEFT_OUT}
    query = "&".join(f"{name}={quote(str(value))}" for name, value in given.items())
    status, answer = await doors.http(f"{path}?{query}", None)
    return [event["version"] for event in answer["events"]] if status == 200 else answer["error"]


def given(**arguments: Any) -> dict[str, Any]:
    return {name: value for name, value in arguments.items() if value is not LEFT_OUT}


NUMBERS = [LEFT_OUT, 1, 2, 3, 4, 99, NUMBER_MAX]
NO_NUMBERS = [
    0,
    -1,
    NUMBER_MAX + 1,
    10**5000,
    1.5,
    1.0,
    True,
    "",
    "x",
    "+1",
    " 1",
    "1e3",
    "0x1",
    "1_0",
    "\u0661",
]


@pytest.mark.parametrize("backward", [False, True])
async def test_where_a_read_of_a_stream_begins(doors: Doors, backward: bool) -> None:
    direction = "backward" if backward else "forward"
    for value in NUMBERS + NO_NUMBERS:
        by_http = await over_http(
            doors, f"/v1/streams/{STREAM}/events", direction=direction, **{"from": written(value)}
        )
        arguments = given(from_version=value, backward=backward)
        by_client = await outcome(doors.client.read_stream(STREAM, **arguments))
        by_repository = await outcome(doors.repository.read_stream(STREAM, **arguments))
        assert by_http == by_client == by_repository, value
        assert (by_http == "invalid") == (value in NO_NUMBERS and not is_one_of(value, NUMBERS)), value


async def test_where_a_read_of_a_partition_begins(doors: Doors) -> None:
    for value in NUMBERS + NO_NUMBERS:
        path = f"/v1/partitions/{doors.partition}/events"
        by_http = await over_http(doors, path, **{"from": written(value)})
        arguments = given(from_position=value)
        by_client = await outcome(doors.client.read_partition(doors.partition, **arguments))
        in_repository = partition_of(STREAM)
        by_repository = await outcome(doors.repository.read_partition(in_repository, **arguments))
        assert by_http == by_client == by_repository, value


async def test_how_much_is_read(doors: Doors) -> None:
    for value in NUMBERS + NO_NUMBERS:
        by_http = await over_http(doors, f"/v1/streams/{STREAM}/events", limit=written(value))
        by_client = await outcome(doors.client.read_stream(STREAM, **given(limit=value)))
        by_repository = await outcome(doors.repository.read_stream(STREAM, **given(limit=value)))
        assert by_http == by_client == by_repository, value


@pytest.mark.parametrize(
    ("word", "flag"),
    [("forward", False), ("backward", True), ("Backward", "Backward"), ("", ""), ("1", 1), ("None", None)],
)
async def test_in_which_direction(doors: Doors, word: str, flag: Any) -> None:
    by_http = await over_http(doors, f"/v1/streams/{STREAM}/events", direction=word)
    by_client = await outcome(doors.client.read_stream(STREAM, backward=flag))
    by_repository = await outcome(doors.repository.read_stream(STREAM, backward=flag))
    assert by_http == by_client == by_repository


@pytest.mark.parametrize("consistency", ["linearizable", "local", "Local", "", "eventual", 1, None])
async def test_how_consistent(doors: Doors, consistency: Any) -> None:
    by_http = await over_http(doors, f"/v1/streams/{STREAM}/events", consistency=consistency)
    assert await outcome(doors.client.read_stream(STREAM, consistency=consistency)) == by_http
    by_http = await over_http(doors, f"/v1/partitions/{doors.partition}/events", consistency=consistency)
    assert await outcome(doors.client.read_partition(doors.partition, consistency=consistency)) == by_http


@pytest.mark.parametrize("consistency", ["linearizable", "local"])
async def test_with_which_token(doors: Doors, consistency: str) -> None:
    mine = doors.partition
    tokens = ["", doors.token, "x", 5, "5", ":", f"{mine}", f"{mine}:", f"{mine}:-1", f"{mine}:1.0"]
    tokens += [
        f"{mine}:\u0661",
        f"{mine + 1}:1",
        f"{mine}:{10**9}",
        f"{mine}:{2**63}",
        f"{mine}:{'5' * 5000}",
    ]
    refused = 0
    for token in tokens:
        for path, read in (
            (
                f"/v1/streams/{STREAM}/events",
                doors.client.read_stream(STREAM, **wanted(token, consistency)),
            ),
            (
                f"/v1/partitions/{mine}/events",
                doors.client.read_partition(mine, **wanted(token, consistency)),
            ),
        ):
            by_http = await over_http(doors, path, token=token, consistency=consistency, timeout="300ms")
            assert await outcome(read) == by_http, token
            refused += by_http == "invalid"
    assert refused >= 2 * (len(tokens) - 3), "all but none, the right one, and perhaps one not yet here"


@pytest.mark.parametrize("partition", [0, 7, 8, -1, 10**30, "x", "", 1.5, True])
async def test_which_partition(doors: Doors, partition: Any) -> None:
    if partition == "":
        return  # over HTTP that is another path
    by_http = await over_http(doors, f"/v1/partitions/{quote(str(partition))}/events")
    by_client = await outcome(doors.client.read_partition(partition))
    in_repository = partition if partition != 8 else 32  # each has its own number of partitions
    by_repository = await outcome(doors.repository.read_partition(in_repository))
    kinds = [one if isinstance(one, str) else "read" for one in (by_http, by_client, by_repository)]
    assert len(set(kinds)) == 1, kinds


@pytest.mark.parametrize(
    "expected",
    [
        "any",
        "no_stream",
        "exists",
        0,
        2,
        3,
        NUMBER_MAX,
        -1,
        -2,
        2**63,
        1.5,
        True,
        None,
        "3",
        "sometimes",
        [],
    ],
)
async def test_which_version_is_expected(doors: Doors, expected: Any) -> None:
    body = {"expected_version": expected, "events": [{"type": "T", "data": 1}]}
    status, answer = await doors.http(f"/v1/streams/{STREAM}/events", body)
    by_http = answer["error"] if status >= 300 else "appended"
    # The append over HTTP was one more event: the others count from there.
    moved = expected + 1 if by_http == "appended" and type(expected) is int else expected
    outcomes = []
    for append in (
        doors.client.append(STREAM, NewEvent.json("T"), moved),
        doors.repository.append_to_stream(STREAM, [NewEvent.json("T")], expected),
    ):
        try:
            await append
            outcomes.append("appended")
        except AllsourceError as error:
            outcomes.append(error.code)
    assert outcomes == [by_http, by_http]


def written(value: Any) -> Any:
    """The value in a URL; of a number that Python does not print, its digits."""
    return "1" + "0" * 5000 if value == 10**5000 else value


def wanted(token: Any, consistency: str) -> dict[str, Any]:
    return {"token": token, "consistency": consistency, "timeout_s": 0.3}


def is_one_of(value: Any, values: list[Any]) -> bool:
    return any(value is one for one in values)
