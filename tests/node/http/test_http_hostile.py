"""A stranger at the HTTP port, over real sockets: hang-ups, broken framing, what is no HTTP at all.

Whatever arrives costs its own connection at most; the log gets a short line now and then, never a
traceback, a body or a header; and the door goes on serving.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from structlog.testing import LogCapture, capture_logs

from allsource.node.http.complaints import QUIET_S, Complaints
from tests.node.http_door import Door, post
from tests.waiting import until

MARK = "s3cret-of-a-client"
BODY = json.dumps({"events": [{"type": "T", "data": MARK}]}).encode()


@pytest.fixture
async def door() -> AsyncIterator[Door]:
    with capture_logs() as logged:
        door = Door()
        door.logged = logged
        await door.server.start()
        yield door
        await door.server.stop()
    assert not [line for line in logged if "exc_info" in line]
    assert MARK not in repr(logged)


async def test_a_client_that_hangs_up_in_mid_body_is_a_quiet_400(door: Door) -> None:
    for _ in range(20):
        _, writer = await door.send(post(BODY, length=1 << 20))
        await writer.drain()
        writer.transport.abort()
    await until(lambda: door.told == [400] * 20)
    assert door.service.seen == []
    assert door.logged == []


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "x", "gzip, identity"])
@pytest.mark.parametrize("packed", [True, False])
async def test_a_compressed_body_is_not_unpacked(door: Door, encoding: str, packed: bool) -> None:
    body = gzip.compress(BODY) if packed else BODY
    status, _, answer = await door.answer(post(body, f"Content-Encoding: {encoding}"))
    assert (status, json.loads(answer)["error"]) == (415, "unsupported_body")
    assert door.logged == []


async def test_a_body_that_says_it_is_as_it_is(door: Door) -> None:
    status, _, _ = await door.answer(post(BODY, "Content-Encoding: identity"))
    assert status == 201


CHUNKED = (
    b"POST /v1/streams/s/events HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)


@pytest.mark.parametrize(
    "rest",
    [
        b"zz\r\n" + MARK.encode(),
        b"5\r\nabcdefgh\r\n0\r\n\r\n",
        b"-1\r\n\r\n",
        b"ffffffffffffffffff\r\n",
    ],
)
async def test_broken_chunks_are_a_quiet_400(door: Door, rest: bytes) -> None:
    status, _, body = await door.answer(CHUNKED + rest)
    assert status == 400
    assert json.loads(body)["definite"] is True
    assert MARK.encode() not in body
    assert all(len(repr(line)) < 600 for line in door.logged)


@pytest.mark.parametrize(
    "raw",
    [
        MARK.encode() + b"\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + MARK.encode() + b"\r\n\r\n",
        b"GET /" + MARK.encode() + b" HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost localhost " + MARK.encode() + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: " + MARK.encode() * 1000 + b"\r\n\r\n",
        b"GET http://[::1" + MARK.encode() + b" HTTP/1.1\r\nHost: a\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: " + MARK.encode() + b"\r\n\r\n",
    ],
)
async def test_what_is_no_http_is_answered_in_our_shape_and_repeats_nothing(door: Door, raw: bytes) -> None:
    status, headers, body = await door.answer(raw)
    assert status in (400, 404)
    assert headers["Content-Type"].startswith("application/json")
    assert json.loads(body)["definite"] is True
    if status == 400:
        assert MARK.encode() not in body


async def test_an_unknown_expectation_is_not_repeated(door: Door) -> None:
    status, headers, body = await door.answer(post(BODY, f"Expect: {MARK}"))
    assert status == 417
    assert headers["Content-Type"].startswith("application/json")
    assert MARK.encode() not in body


async def test_a_flood_of_nonsense_is_one_line(door: Door) -> None:
    for _ in range(50):
        await door.answer(MARK.encode() + b"\r\n\r\n")
    [line] = door.logged
    assert (line["event"], line["peer"]) == ("HTTP: what a client sent is not HTTP", "127.0.0.1")


async def test_a_flood_of_defects_is_one_line_without_what_the_variables_held(door: Door) -> None:
    def broken(*_: Any) -> None:
        raise ZeroDivisionError("x" * 10_000)

    door.service.meet = broken
    for _ in range(50):
        status, _, _ = await door.answer(post(BODY))
        assert status == 500
    [line] = door.logged
    assert "test_http_hostile.py" in line["where"]
    assert len(repr(line)) < 1000


async def test_an_error_in_handling_a_packet_ends_its_connection_alone(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, writer = await door.send(b"")
    await until(lambda: len(door.server.connections) == 1)
    [connection] = door.server.connections

    def broken(data: bytes) -> None:
        raise RuntimeError("of the parser")

    monkeypatch.setattr(connection, "_parser", type("Broken", (), {"feed_data": staticmethod(broken)})())
    connection.data_received(b"GET")
    assert await reader.read() == b""
    writer.close()
    [line] = door.logged
    assert (line["error"], line["reason"]) == ("RuntimeError", "of the parser")
    assert (await door.answer(post(BODY)))[0] == 201


def test_each_kind_of_complaint_is_said_once_in_a_while_and_counted() -> None:
    now, heard = [100.0], LogCapture()
    import structlog

    complaints = Complaints(structlog.wrap_logger(None, processors=[heard]), lambda: now[0])
    for _ in range(5):
        complaints.client("one")
        complaints.client("other", peer="p")
    now[0] += QUIET_S
    complaints.client("one")
    assert [(e["event"], e.get("more_since_the_last_line")) for e in heard.entries] == [
        ("one", None),
        ("other", None),
        ("one", 4),
    ]
