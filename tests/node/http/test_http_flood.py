"""Many connections that want nothing good: the door keeps its places, its bytes and its turns."""

from __future__ import annotations

import asyncio
import gc
import json
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from structlog.testing import capture_logs

from allsource.cluster.protocol.requests import AppendPart, AppendRequest
from allsource.config.schema import Limits
from allsource.node.http import answers, json_bodies
from allsource.node.http.connection import AHEAD_MAX
from allsource.node.http.door import PACKETS_PER_TURN, DoorLimits
from allsource.node.http.patience import Patience
from allsource.storage.model.chunks import pack_events
from allsource.storage.model.events import BINARY, NewEvent
from tests.node.http_door import Door, post
from tests.toy_service import ToyService
from tests.waiting import until

KIB, MIB = 1 << 10, 1 << 20
BODY = json.dumps({"events": [{"type": "T", "data": 1}]}).encode()
GET = b"GET /v1/streams/s/events HTTP/1.1\r\nHost: localhost\r\n\r\n"
HASTY = Patience(head_s=0.1, idle_s=0.1, window_s=0.05, closing_s=0.1, look_s=0.02)
"""Nobody who is slow survives this; only tests that wait for the end use it."""
CALM = Patience(*[600.0] * 3, 0, 600.0, 0.02)


@asynccontextmanager
async def open_door(limits: DoorLimits, of_appends: Limits | None = None) -> AsyncIterator[Door]:
    with capture_logs() as logged:
        door = Door(limits, of_appends)
        door.logged = logged
        await door.server.start()
        try:
            yield door
        finally:
            await door.server.stop()
        assert door.server.held_bytes == 0


Connections = list[tuple[asyncio.StreamReader, asyncio.StreamWriter]]


def hang_up(*connections: tuple[asyncio.StreamReader, asyncio.StreamWriter]) -> None:
    for _, writer in connections:
        writer.transport.abort()


async def ended(door: Door, connections: Connections) -> None:
    """All these connections were closed by the door, and nothing is held for them."""
    await until(lambda: not door.server.connections)
    assert door.server.held_bytes == 0
    hang_up(*connections)


# -- time


@pytest.mark.parametrize("head", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nX-A: "])
async def test_a_head_that_never_ends_is_dropped_though_it_goes_on(head: bytes) -> None:
    async with open_door(DoorLimits(patience=HASTY)) as door:
        connections = [await door.send(head) for _ in range(20)]

        async def drip() -> None:
            while True:
                for _, writer in connections if head else []:
                    writer.write(b"x")
                await asyncio.sleep(0.01)

        dripping = asyncio.create_task(drip())
        await until(lambda: not door.server.connections)
        dripping.cancel()
        await ended(door, connections)


async def test_bodies_that_stall_are_dropped_and_hold_nothing_then() -> None:
    async with open_door(DoorLimits(patience=HASTY)) as door:
        connections = [await door.send(post(b" " * 64 * KIB, length=MIB)) for _ in range(20)]
        await ended(door, connections)
        assert door.service.seen == []


async def test_readers_that_do_not_read_are_dropped_and_hold_nothing_then() -> None:
    async with open_door(DoorLimits(patience=HASTY)) as door:
        fill(door.service, MIB, 4)
        connections = []
        for _ in range(10):
            reader, writer = await door.send(b"")
            writer.transport.pause_reading()  # type: ignore[attr-defined]
            writer.write(GET * 20)
            connections.append((reader, writer))
        await ended(door, connections)


async def test_idle_connections_are_closed_in_time() -> None:
    async with open_door(DoorLimits(patience=HASTY)) as door:
        connections = [await door.send(post(BODY, close=False)) for _ in range(5)]
        await until(lambda: door.told == [201] * 5)
        await ended(door, connections)


async def test_a_client_that_is_quick_enough_is_left_alone() -> None:
    async with open_door(DoorLimits(patience=CALM)) as door:
        reader, writer = await door.send(b"")
        for version in range(1, 4):
            for byte in post(BODY, close=False):
                writer.write(bytes((byte,)))
                await writer.drain()
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length: ")[2].split()[0])
            assert json.loads(await reader.readexactly(length))["last_version"] == version
        hang_up((reader, writer))


# -- bytes


def fill(service: ToyService, size: int, events: int) -> None:
    made = [NewEvent("T", b"x" * (size // events), encoding=BINARY) for _ in range(events)]
    service.store.append(AppendRequest((AppendPart("s", -1, pack_events(made)),)))


async def test_bodies_beyond_the_budget_are_503_before_they_are_read() -> None:
    async with open_door(DoorLimits(held_bytes_max=MIB, patience=CALM)) as door:
        stalled = await door.send(post(b" " * 900 * KIB, length=1000 * KIB))
        await until(lambda: door.server.held_bytes > 900 * KIB)
        status, headers, body = await door.answer(post(b"", length=512 * KIB, close=False))
        assert (status, headers["Retry-After"]) == (503, "1")
        answer = json.loads(body)
        assert (answer["error"], answer["definite"]) == ("overloaded", True)
        assert (await door.answer(post(BODY)))[0] == 201
        hang_up(stalled)
        await until(lambda: door.server.held_bytes == 0)
        assert (await door.answer(post(BODY.ljust(512 * KIB))))[0] == 201


async def test_bodies_without_a_length_are_503_when_the_budget_is_used_up() -> None:
    async with open_door(DoorLimits(held_bytes_max=MIB, patience=CALM)) as door:
        head = post(b"").replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
        chunk = b"10000\r\n" + b" " * 64 * KIB + b"\r\n"
        peak = 0

        async def one() -> bytes:
            nonlocal peak
            reader, writer = await door.send(head)
            try:
                for _ in range(40):
                    writer.write(chunk)
                    await writer.drain()
                    peak = max(peak, door.server.held_bytes)
                    await asyncio.sleep(0)
                return await reader.readline()
            except ConnectionError:
                return b""
            finally:
                writer.transport.abort()

        answers = await asyncio.gather(*[one() for _ in range(10)])
        assert peak <= MIB
        assert all(b" 503 " in answer or not answer for answer in answers)
        await until(lambda: not door.server.connections)
        assert (await door.answer(post(BODY)))[0] == 201


async def test_unread_answers_never_hold_more_than_the_budget() -> None:
    limits = DoorLimits(held_bytes_max=8 * MIB, patience=CALM)
    async with open_door(limits) as door:
        fill(door.service, MIB, 4)
        connections = []
        for _ in range(30):
            reader, writer = await door.send(b"")
            writer.transport.pause_reading()  # type: ignore[attr-defined]
            writer.write(GET * 10)
            connections.append((reader, writer))
        await until(lambda: 503 in door.told)
        assert door.server.held_bytes <= 8 * MIB
        hang_up(*connections)
        await until(lambda: door.server.held_bytes == 0)
        assert (await door.answer(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")))[0] == 200


async def test_what_comes_ahead_of_an_answer_is_bounded() -> None:
    async with open_door(DoorLimits(patience=CALM)) as door:
        door.service.meet = lambda request, reply: ToyService.SWALLOW
        reader, writer = await door.send(GET)
        await until(lambda: len(door.service.seen) == 1)
        writer.write(GET * (2 * AHEAD_MAX // len(GET)))
        with suppress(ConnectionError):
            assert await reader.read() == b""
        await until(lambda: door.server.held_bytes == 0)
        hang_up((reader, writer))


# -- places


async def test_idle_connections_make_room_for_new_ones_and_are_never_more_than_allowed() -> None:
    async with open_door(DoorLimits(connections_max=20, patience=CALM)) as door:
        connections: Connections = []
        for number in range(100):
            connections.append(await door.send(b"G" if number % 2 else b""))
            assert len(door.server.connections) <= 20
        for _ in range(5):
            assert (await door.answer(post(BODY)))[0] == 201
            assert len(door.server.connections) <= 20
        hang_up(*connections)
        await until(lambda: not door.server.connections)


async def test_one_newcomer_costs_one_idle_connection_its_place() -> None:
    """It cost two: the second place was made before it was known that nobody waited for it."""
    async with open_door(DoorLimits(connections_max=5, patience=CALM)) as door:
        idle = [await door.send(post(BODY, close=False)) for _ in range(5)]
        for reader, _ in idle:
            await reader.readuntil(b"}\n")
        reader, writer = await door.send(post(BODY, close=False))
        await reader.readuntil(b"}\n")
        assert await idle[0][0].read() == b"", "the one that was idle for longest"
        await asyncio.sleep(0)
        assert len(door.server.connections) == 5
        hang_up(*idle, (reader, writer))


async def test_requests_under_way_are_not_closed_and_new_connections_wait_for_a_place() -> None:
    async with open_door(DoorLimits(connections_max=5, patience=CALM)) as door:
        replies = []

        def later(request: object, reply: object) -> object:
            replies.append((request, reply))
            return ToyService.SWALLOW

        door.service.meet = later  # type: ignore[assignment]
        busy = [asyncio.create_task(door.answer(post(BODY))) for _ in range(5)]
        await until(lambda: len(replies) == 5)
        waits = [asyncio.create_task(door.answer(post(BODY))) for _ in range(3)]
        door.service.meet = lambda request, reply: ToyService.PASS
        for request, reply in replies:
            reply(door.service.store.answer(request))  # type: ignore[operator, arg-type]
        assert [status for status, _, _ in await asyncio.gather(*busy, *waits)] == [201] * 8


# -- turns


async def test_a_thousand_requests_at_once_are_taken_a_few_in_each_turn() -> None:
    """Counted in turns of the loop: what is done in one of them is what a heartbeat waits for."""
    async with open_door(DoorLimits(patience=CALM)) as door:
        loop, turn = asyncio.get_running_loop(), [0]
        is_over = False

        def each_turn() -> None:
            turn[0] += 1
            if not is_over:
                loop.call_soon(each_turn)

        served: list[int] = []

        def count(request: object, reply: object) -> object:
            served.append(turn[0])
            return ToyService.PASS

        door.service.meet = count  # type: ignore[assignment]
        connections = [await door.send(b"") for _ in range(300)]
        await until(lambda: len(door.server.connections) == 300)
        each_turn()
        for _, writer in connections:
            writer.write(post(BODY, close=False))
        await until(lambda: len(door.told) == 300)
        is_over = True
        assert max(served.count(one) for one in set(served)) <= PACKETS_PER_TURN
        hang_up(*connections)


async def test_large_bodies_are_parsed_beside_the_loop_and_small_ones_on_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Ten thousand events take a tenth of a second to parse, and to show: not in one turn of the loop."""
    threads: list[tuple[str, bool]] = []
    loop_thread = threading.get_ident()

    def watched(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            threads.append((name, threading.get_ident() == loop_thread))
            return original(*arguments)

        return call

    monkeypatch.setattr(json_bodies, "one_stream", watched("parse", json_bodies.one_stream))
    monkeypatch.setattr(answers, "stream_page", watched("show", answers.stream_page))
    get = GET.replace(b"/events", b"/events?limit=10000")
    get = get.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    async with open_door(DoorLimits(patience=CALM)) as door:
        for count, is_on_loop in ((1, True), (100, False)):
            threads.clear()
            events = b",".join([b'{"type":"T","data":"%b"}' % (b"x" * 300)] * count)
            assert (await door.answer(post(b'{"events":[' + events + b"]}")))[0] == 201
            status, _, body = await door.answer(get)
            assert (status, len(json.loads(body)["events"])) == (200, count if is_on_loop else count + 1)
            assert threads == [("parse", is_on_loop), ("show", is_on_loop)]


async def test_a_connection_that_is_lost_when_its_request_arrives_says_nothing() -> None:
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    async with open_door(DoorLimits(patience=CALM)) as door:
        for _ in range(5):
            connections = [await door.send(b"") for _ in range(20)]
            await until(lambda: len(door.server.connections) == 20)
            for connection in door.server.connections:
                connection.data_received(GET)
                connection.drop("the test wants it")
            await until(lambda: not door.server.connections)
            hang_up(*connections)
        gc.collect()
        assert complaints == []
        assert {line["event"] for line in door.logged} == {"the test wants it"}


async def test_many_who_ask_for_metrics_wait_for_their_turns() -> None:
    async with open_door(DoorLimits(patience=CALM)) as door:
        loop, turn, rendered, is_over = asyncio.get_running_loop(), [0], list[int](), False

        def each_turn() -> None:
            turn[0] += 1
            if not is_over:
                loop.call_soon(each_turn)

        def render() -> tuple[bytes, str]:
            rendered.append(turn[0])
            return b"", "text/plain"

        door.render = render
        connections = [await door.send(b"") for _ in range(60)]
        await until(lambda: len(door.server.connections) == 60)
        each_turn()
        for _, writer in connections:
            writer.write(GET.replace(b"/v1/streams/s/events", b"/metrics"))
        await until(lambda: len(rendered) == 60)
        is_over = True
        assert max(rendered.count(one) for one in set(rendered)) <= 2
        hang_up(*connections)
