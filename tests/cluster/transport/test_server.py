"""The server: who is served, who is put off, and that a bad connection costs itself alone."""

from __future__ import annotations

import asyncio
import socket
import sys

import msgpack
import pytest

from allsource.cluster.consensus.sense import PeerNonsense
from allsource.cluster.protocol.frames import ProtocolError, encode_frame
from allsource.cluster.protocol.handshake import DiallerConfig, WireLimits
from allsource.cluster.protocol.handshake_frames import Challenge
from allsource.cluster.protocol.kinds import Kind
from allsource.cluster.protocol.node_session import PeerSession
from allsource.cluster.protocol.requests import (
    AppendPart,
    AppendRequest,
    ClusterView,
    DescribeCluster,
    PartitionPage,
    ReadPartition,
)
from allsource.cluster.sockets import connection as connection_module
from allsource.cluster.transport import server_connection
from allsource.cluster.transport.server import CannotListen, Server
from allsource.storage.model.chunks import PLAIN, Chunk
from allsource.storage.model.errors import AllsourceError, InvalidRequest, NotFound, Overloaded
from tests.cluster.live import _OPENED, Caller, Recorder, ended, serve, until
from tests.cluster.protocol.wire_samples import (
    BEAT,
    CLIENT_SECRET,
    MESSAGES,
    RUN,
    acceptor,
    client,
    dialler,
)

pytestmark = pytest.mark.usefixtures("hang_up")


@pytest.fixture
def handler() -> Recorder:
    return Recorder()


async def test_a_client_asks_and_is_answered(handler: Recorder) -> None:
    server = await serve(handler)
    caller = await Caller(client()).connect(server.port)
    assert await caller.ask(1, DescribeCluster()) == ClusterView({"up": True})
    handler.answer = lambda _: NotFound("no stream 's'")
    assert isinstance(await caller.ask(2, DescribeCluster()), NotFound)
    assert handler.asked[0] == (1, 5000, DescribeCluster(), False)
    await server.close()
    assert await caller.refusal() == ""
    caller.close()


async def test_many_requests_are_answered_in_any_order(handler: Recorder) -> None:
    handler.answer = lambda _: None
    server = await serve(handler)
    caller = await Caller(client()).connect(server.port)
    for number in range(2000):
        caller.session.request(number, 5000, DescribeCluster())
    caller.flush()
    await until(lambda: len(handler.waiting) == 2000)
    for connection, request_id, _ in reversed(handler.waiting):
        connection.reply(request_id, ClusterView({"n": request_id}))
    for number in range(2000):
        assert await caller.answer(number) == ClusterView({"n": number})
    caller.close()
    await server.close()


async def test_what_a_peer_asks_is_forwarded_and_what_it_says_is_handed_on(handler: Recorder) -> None:
    server = await serve(handler)
    data = await Caller(dialler()).connect(server.port)
    beats = await Caller(dialler(channel="beat")).connect(server.port)
    data.session.messages(MESSAGES)
    await data.ask(1, DescribeCluster())
    assert handler.asked == [(1, 5000, DescribeCluster(), True)]
    assert handler.messages_of == {"n1": MESSAGES}
    beats.session.beat(BEAT)
    beats.flush()
    await until(lambda: handler.beats_of == {"n1": [BEAT]})
    data.close()
    await until(lambda: handler.news == [("lost", "n1")])
    beats.close()
    await server.close()


async def test_a_client_that_leaves_is_no_news(handler: Recorder) -> None:
    server = await serve(handler)
    caller = await Caller(client()).connect(server.port)
    caller.close()
    await until(lambda: not server.connections)
    assert handler.news == []
    await server.close()


async def test_a_peers_nonsense_costs_its_connection_and_is_told(handler: Recorder) -> None:
    """What the core finds senseless, and what is no message at all, ends the connection that said it."""
    told: list[tuple[str, str]] = []

    def senseless(peer: str, _messages: list[object]) -> None:
        raise PeerNonsense("partition 0: term 9223372036854775807 follows 3 by no number of elections")

    handler.messages = senseless  # type: ignore[method-assign]
    server = await serve(handler, on_nonsense=lambda peer, error: told.append((peer, error.code)))
    peer = await Caller(dialler()).connect(server.port)
    beats = await Caller(dialler(channel="beat")).connect(server.port)
    peer.session.messages(MESSAGES)
    peer.flush()
    assert await peer.refusal() == "nonsense"
    beats.session.messages(MESSAGES)  # not on this channel
    beats.flush()
    assert await beats.refusal() == "malformed"
    peer.close()
    beats.close()
    await until(lambda: told == [("n1", "nonsense"), ("n1", "malformed")])
    other = await Caller(client()).connect(server.port)
    assert await other.ask(1, DescribeCluster()) == ClusterView({"up": True})
    other.close()
    await server.close()


async def test_a_peer_that_connects_again_takes_its_own_place(handler: Recorder) -> None:
    heard: list[tuple[str, bool]] = []
    server = await serve(handler, on_peer=lambda hello, again: heard.append((hello.node_id, again)))
    old = await Caller(dialler()).connect(server.port)
    new = await Caller(dialler()).connect(server.port)
    assert await old.refusal() == "superseded"
    await until(lambda: len(server.connections) == 1)
    assert handler.news == [], "the peer was never gone"
    assert await new.ask(1, DescribeCluster()) == ClusterView({"up": True})
    assert heard == [("n1", False), ("n1", True)]
    old.close()
    new.close()
    await server.close()


@pytest.mark.parametrize(
    ("config", "code"),
    [
        (DiallerConfig.client("wrong"), "wrong_secret"),
        (DiallerConfig.client(CLIENT_SECRET, cluster_id="other"), "wrong_cluster"),
        (dialler(expected_node="n3"), "wrong_node"),
    ],
)
async def test_a_refusal_reaches_the_caller(handler: Recorder, config: DiallerConfig, code: str) -> None:
    server = await serve(handler)
    with pytest.raises(ProtocolError) as caught:
        await Caller(config).connect(server.port)
    assert caught.value.code == code
    await server.close()


async def test_a_bad_frame_costs_its_own_connection_only(handler: Recorder) -> None:
    server = await serve(handler)
    good, bad = await Caller(client()).connect(server.port), await Caller(client()).connect(server.port)
    bad.writer.write(encode_frame(b"\xc1"))
    assert await bad.refusal() == "malformed"
    assert await good.ask(1, DescribeCluster()) == ClusterView({"up": True})
    bad.close()
    good.close()
    await server.close()


async def test_the_reason_arrives_though_the_caller_is_still_talking(handler: Recorder) -> None:
    """Closing with unread input resets the connection, and a reset overtakes the last word."""
    server = await serve(handler, accept=acceptor(limits=WireLimits(frame_bytes_max=100_000)))
    caller = await Caller(client()).connect(server.port)
    caller.writer.write(encode_frame(b"x" * 3_000_000))
    assert await caller.refusal() == "frame_too_large"
    caller.close()
    await server.close()


async def test_a_refused_caller_may_finish_its_sentence(handler: Recorder) -> None:
    """The server closes its own end only, so that what is still on its way causes no reset."""
    server = await serve(handler)
    loop = asyncio.get_running_loop()
    with socket.create_connection(("127.0.0.1", server.port)) as caller:
        caller.setblocking(False)
        await loop.sock_sendall(caller, encode_frame(b"\xc1"))
        said = b""
        while piece := await loop.sock_recv(caller, 1000):
            said += piece
        assert b"malformed" in said, "and then the server's end is closed"
        for _ in range(5):  # to a socket that is wholly closed, the second of these would fail
            await loop.sock_sendall(caller, b"more")
            await asyncio.sleep(0)
    await server.close()


async def test_who_does_not_shake_hands_is_put_out(
    handler: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_module, "HANDSHAKE_TIMEOUT_S", 0.05)
    server = await serve(handler)
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    assert b"timeout" in await ended(reader)
    writer.close()
    await server.close()


async def test_an_idle_client_is_put_out_and_a_busy_one_is_not(handler: Recorder) -> None:
    handler.answer = lambda _: None
    server = await serve(handler, client_idle_s=0.05)
    waits, idles = await Caller(client()).connect(server.port), await Caller(client()).connect(server.port)
    waits.session.request(1, 5000, DescribeCluster())
    waits.flush()
    assert await idles.refusal() == "idle"
    (connection, request_id, _) = handler.waiting[0]
    connection.reply(request_id, ClusterView({}))
    assert await waits.answer(1) == ClusterView({})
    idles.close()
    waits.close()
    await server.close()


async def test_clients_are_limited_and_peers_get_in_all_the_same(handler: Recorder) -> None:
    server = await serve(handler, connections_max=2)
    callers = [await Caller(client()).connect(server.port) for _ in range(2)]
    third = Caller(client())
    with pytest.raises(ProtocolError) as caught:
        await (await third.connect(server.port)).ask(1, DescribeCluster())
    assert caught.value.code == "too_many_connections"
    peer = await Caller(dialler()).connect(server.port)
    assert await peer.ask(1, DescribeCluster()) == ClusterView({"up": True})
    for caller in (*callers, third, peer):
        caller.close()
    await server.close()


async def test_a_request_that_is_none_is_answered_and_the_others_on_its_connection_as_well(
    handler: Recorder,
) -> None:
    server = await serve(handler)
    for config in (client(), dialler()):
        caller = await Caller(config).connect(server.port)
        items = [[1, 9, 2, "s", -1, 9, True, False, ""], [2, 9, 4], [3, 2**60, 4], [4, 9, 99]]
        caller.writer.write(encode_frame(msgpack.packb([Kind.REQUESTS, items])))
        assert await caller.answer(2) == ClusterView({"up": True})
        for bad in (1, 3, 4):
            assert type(await caller.answer(bad)) is InvalidRequest
        assert await caller.ask(5, DescribeCluster()) == ClusterView({"up": True})
        caller.close()
    await server.close()


async def test_a_handler_that_raises_fails_one_request_and_no_connection(handler: Recorder) -> None:
    def answer(request: object) -> ClusterView:
        if isinstance(request, ReadPartition):
            raise RuntimeError("a bug of ours")
        return ClusterView({"up": True})

    handler.answer = answer
    met: list[Exception] = []

    def on_fault(error: Exception) -> AllsourceError:
        met.append(error)
        return AllsourceError("ours")

    server = await serve(handler, on_fault=on_fault)
    peer = await Caller(dialler()).connect(server.port)
    peer.session.request(1, 5000, ReadPartition(0))
    assert (await peer.ask(2, DescribeCluster())) == ClusterView({"up": True})
    error = await peer.answer(1)
    assert isinstance(error, AllsourceError)
    assert error.code == "internal"
    assert [str(one) for one in met] == ["a bug of ours"]
    peer.close()
    await server.close()


# -- back-pressure


async def test_a_client_has_so_many_requests_answered_at_a_time(handler: Recorder) -> None:
    handler.answer = lambda _: None
    limits = WireLimits(inflight_requests_max=10)
    server = await serve(handler, accept=acceptor(limits=limits))
    caller = await Caller(client()).connect(server.port)
    other = await Caller(client()).connect(server.port)
    for number in range(100):
        caller.session.request(number, 5000, DescribeCluster())
    caller.flush()
    await until(lambda: len(handler.waiting) == 10)
    for number in range(100):  # more than enough turns for an eleventh to slip through
        other.session.request(number, 5000, DescribeCluster())
    other.flush()
    await until(lambda: len(handler.waiting) == 20)
    assert [request_id for _, request_id, _ in handler.waiting[:10]] == list(range(10))
    for done in range(200):
        await until(lambda at=done: len(handler.waiting) > at)  # type: ignore[misc]
        connection, request_id, _ = handler.waiting[done]
        connection.reply(request_id, ClusterView({"n": request_id}))
        assert len(handler.waiting) <= done + 21
    for number in range(100):
        assert await caller.answer(number) == ClusterView({"n": number})
        assert await other.answer(number) == ClusterView({"n": number})
    caller.close()
    other.close()
    await server.close()


async def test_a_client_that_does_not_read_is_not_read_either(handler: Recorder) -> None:
    """Its pages are refused when too much waits for it; what it asked is answered when it reads."""
    page = PartitionPage(0, 1, 2, (RUN._replace(chunk=Chunk(1, 1_000_000, PLAIN, b"x" * 1_000_000)),))
    handler.answer = lambda _: page
    server = await serve(handler, outgoing_bytes_max=8 << 20)
    caller = await Caller(client()).connect(server.port)
    caller.writer.transport.pause_reading()  # type: ignore[attr-defined]
    for number in range(300):
        caller.session.request(number, 5000, ReadPartition(0))
        if number % 10 == 9:
            caller.flush()
            await asyncio.sleep(0)
    (connection,) = server.connections
    await until(lambda: connection.write_paused)
    assert connection.outgoing_bytes() < 8 << 20
    caller.writer.transport.resume_reading()  # type: ignore[attr-defined]
    results = [await caller.answer(number) for number in range(300)]
    refused = [result for result in results if isinstance(result, Overloaded)]
    assert [result for result in results if not isinstance(result, Overloaded)] == [page] * (
        300 - len(refused)
    )
    assert len(refused) < 300
    caller.close()
    await server.close()


async def test_who_never_reads_is_dropped(handler: Recorder) -> None:
    view = ClusterView({"much": "x" * 1_000_000})
    handler.answer = lambda _: view
    server = await serve(handler, outgoing_bytes_max=4 << 20)
    peer = await Caller(dialler()).connect(server.port)
    peer.writer.transport.pause_reading()  # type: ignore[attr-defined]
    for number in range(100):
        peer.session.request(number, 5000, DescribeCluster())
    (connection,) = server.connections
    peer.flush()
    await until(lambda: handler.news == [("lost", "n1")])
    assert connection.error is not None, "not merely lost to the kernel's patience, ten seconds later"
    assert connection.error.code == "slow_reader"
    assert len(server.connections) == 0
    peer.close()
    await server.close()


async def test_a_frame_of_a_thousand_requests_is_taken_in_steps_between_which_the_loop_goes_round(
    handler: Recorder,
) -> None:
    """Every request takes a millisecond, so ten to sixteen of them are a turn; a caller with one request
    is answered in between, and so is a peer."""
    clock = [0]

    def answer(_: object) -> ClusterView:
        clock[0] += 1000
        return ClusterView({"up": True})

    handler.answer = answer
    server = await serve(handler, now_us=lambda: clock[0])
    greedy, modest = (
        await Caller(client()).connect(server.port),
        await Caller(client()).connect(server.port),
    )
    peer = await Caller(dialler()).connect(server.port)
    per_turn: list[int] = []
    loop = asyncio.get_running_loop()

    def count(before: int) -> None:
        per_turn.append(len(handler.asked) - before)
        if len(handler.asked) < 2050:
            loop.call_soon(count, len(handler.asked))

    for number in range(1024):
        greedy.session.request(number, 5000, ReadPartition(1))
        peer.session.request(number, 5000, ReadPartition(2))
    loop.call_soon(count, 0)
    greedy.flush()
    peer.flush()
    await until(lambda: len(handler.asked) > 20)
    for caller in (modest, peer):
        caller.session.request(9999, 5000, ReadPartition(3))
        caller.flush()
    await until(lambda: len(handler.asked) == 2050)
    assert max(per_turn) <= 10 + 2 * 16
    asked = [request for _, _, request, _ in handler.asked]
    assert asked.index(ReadPartition(3)) < 1000, "it did not wait for all that came before it"
    for caller in (greedy, modest, peer):
        caller.close()
    await server.close()


async def test_the_time_that_a_request_waits_for_its_turn_is_its_own(handler: Recorder) -> None:
    clock = [0]

    def answer(_: object) -> ClusterView:
        clock[0] += 1000
        return ClusterView({"up": True})

    handler.answer = answer
    server = await serve(handler, now_us=lambda: clock[0])
    for config in (client(), dialler()):
        handler.asked.clear()
        caller = await Caller(config).connect(server.port)
        for number in range(400):
            caller.session.request(number, 200, ReadPartition(1))
        caller.flush()
        results = [await caller.answer(number) for number in range(400)]
        late = [result for result in results if isinstance(result, Overloaded)]
        assert 150 <= len(late) <= 250, "who waits 200 ms is told so, and not served"
        assert all(timeout_ms <= 200 for _, timeout_ms, _, _ in handler.asked)
        assert min(timeout_ms for _, timeout_ms, _, _ in handler.asked) < 50
        caller.close()
    await server.close()


async def test_what_clients_do_not_read_is_bounded_in_sum(handler: Recorder) -> None:
    """The worst are let go; who reads is served on."""
    page = PartitionPage(0, 1, 2, (RUN._replace(chunk=Chunk(1, 1_000_000, PLAIN, b"x" * 1_000_000)),))
    handler.answer = lambda _: page
    server = await serve(handler, held_bytes_max=16 << 20)
    deaf = []
    for _ in range(30):
        caller = await Caller(client()).connect(server.port)
        caller.writer.transport.pause_reading()  # type: ignore[attr-defined]
        for number in range(20):
            caller.session.request(number, 5000, ReadPartition(0))
        caller.flush()
        deaf.append(caller)
    await until(lambda: server.holdings.total > 1 << 20)
    await until(lambda: len(server.connections) < 30)
    assert server.holdings.total <= 16 << 20
    honest = await Caller(client()).connect(server.port)
    for number in range(20):
        assert await honest.ask(number, ReadPartition(0)) == page
        assert sum(connection.held_bytes() for connection in server.connections) <= 20 << 20
    for caller in (*deaf, honest):
        caller.close()
    await server.close()


async def test_frames_that_are_never_completed_are_bounded_in_sum(handler: Recorder) -> None:
    server = await serve(handler, held_bytes_max=4 << 20)
    honest = await Caller(client()).connect(server.port)
    greedy = []
    for _ in range(10):
        caller = await Caller(client()).connect(server.port)
        caller.writer.write((10 << 20).to_bytes(4, "big") + b"x" * (1 << 20))
        greedy.append(caller)
    await until(lambda: len(server.connections) <= 5)
    assert server.holdings.total <= 4 << 20
    assert await honest.ask(1, DescribeCluster()) == ClusterView({"up": True})
    for caller in (*greedy, honest):
        caller.close()
    await server.close()


async def test_who_neither_reads_nor_goes_on_is_let_go(
    handler: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_connection, "STALLED_S", 0.3)
    view = ClusterView({"much": "x" * 1_000_000})
    handler.answer = lambda _: view
    server = await serve(handler)
    deaf, slow = await Caller(client()).connect(server.port), await Caller(client()).connect(server.port)
    deaf.writer.transport.pause_reading()  # type: ignore[attr-defined]
    for number in range(40):
        deaf.session.request(number, 5000, DescribeCluster())
    deaf.flush()
    slow.writer.write((10 << 20).to_bytes(4, "big") + b"x" * 100_000)
    await until(lambda: not server.connections)
    for caller in (deaf, slow):
        caller.close()
    await server.close()


async def test_an_answer_after_the_end_is_of_no_effect(handler: Recorder) -> None:
    handler.answer = lambda _: None
    server = await serve(handler)
    caller = await Caller(client()).connect(server.port)
    caller.session.request(1, 5000, AppendRequest((AppendPart("s", -1, ()),)))
    caller.flush()
    await until(lambda: handler.waiting)
    caller.close()
    await until(lambda: not server.connections)
    connection, request_id, _ = handler.waiting[0]
    connection.reply(request_id, ClusterView({}))
    await server.close()


# -- listening


async def test_a_port_in_use_is_said_clearly(handler: Recorder) -> None:
    server = await serve(handler)
    with pytest.raises(CannotListen, match="the port is in use: is the node running already"):
        await Server(handler, acceptor(), "127.0.0.1", server.port).start()
    await server.close()


@pytest.mark.parametrize(
    ("host", "advice"),
    [("192.0.2.1", "does not have that address"), ("no-such-host.invalid", "host name has no address")],
)
async def test_an_address_that_is_not_ours_is_said_clearly(
    handler: Recorder, host: str, advice: str
) -> None:
    with pytest.raises(CannotListen, match=advice):
        await Server(handler, acceptor(), host, 0).start()


async def test_small_packets_do_not_wait(handler: Recorder) -> None:
    server = await serve(handler)
    caller = await Caller(client()).connect(server.port)
    (connection,) = server.connections
    assert connection._transport is not None
    sock = connection._transport.get_extra_info("socket")
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) != 0
    if sys.platform == "linux":
        assert (
            sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == connection_module.DEAD_AFTER_MS
        )
    caller.close()
    await server.close()


async def test_closing_writes_what_was_answered(handler: Recorder) -> None:
    handler.answer = lambda _: None
    server = await serve(handler)
    caller = await Caller(client()).connect(server.port)
    caller.session.request(1, 5000, DescribeCluster())
    caller.flush()
    await until(lambda: handler.waiting)
    connection, request_id, _ = handler.waiting[0]
    connection.reply(request_id, ClusterView({"last": "words"}))
    await server.close()
    assert await caller.answer(1) == ClusterView({"last": "words"})
    caller.close()


# -- strangers


async def knock(port: int, host: str = "127.0.0.1") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection that says nothing, from an address of this machine."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(host, 0))
    _OPENED.append(writer)
    return reader, writer


async def test_mute_sockets_crowd_nobody_out(handler: Recorder) -> None:
    """9,000 of them once had every place, and peers and clients were refused."""
    server = await serve(handler, strangers_max=4)
    for _ in range(50):
        await knock(server.port)
    for config in (client(), dialler(), dialler(channel="beat")):
        caller = await Caller(config).connect(server.port)
        assert caller.session.welcome is not None
    await until(lambda: len(server.connections) <= 4 + 3, "few of the mute ones are left")
    await server.close()


async def test_the_oldest_of_the_largest_crowd_is_put_out(handler: Recorder) -> None:
    """A slow handshake from another address is not put out by a flood."""
    server = await serve(handler, strangers_max=4)
    slow, _ = await knock(server.port, "127.0.0.2")
    crowd = [await knock(server.port) for _ in range(30)]
    await until(lambda: len(server.connections) == 4)
    for reader, _ in crowd[:-3]:
        assert await ended(reader) == b""
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await slow.read()
    origins = sorted(connection.origin for connection in server.connections)
    assert origins == ["127.0.0.1"] * 3 + ["127.0.0.2"]
    await server.close()


async def test_who_has_proved_a_key_makes_room_for_strangers(handler: Recorder) -> None:
    server = await serve(handler, strangers_max=2)
    callers = [await Caller(client()).connect(server.port) for _ in range(5)]
    for _ in range(10):
        await knock(server.port)
    for caller in callers:
        assert await caller.ask(1, DescribeCluster()) == ClusterView({"up": True})
    await server.close()


async def test_strangers_take_no_places_of_clients(handler: Recorder) -> None:
    server = await serve(handler, connections_max=2, strangers_max=3)
    for _ in range(3):
        await knock(server.port)
    callers = [await Caller(client()).connect(server.port) for _ in range(2)]
    for caller in callers:
        assert await caller.ask(1, DescribeCluster()) == ClusterView({"up": True})
    await server.close()


CHALLENGE_BYTES = len(Challenge(1, bytes(32)).pack())


@pytest.mark.parametrize("frames", [1, 2])
async def test_a_handshake_that_stalls_half_way_is_put_out(
    handler: Recorder, monkeypatch: pytest.MonkeyPatch, frames: int
) -> None:
    """After HELLO, and after a proof of the nodes' key: the key alone is no place for ever."""
    monkeypatch.setattr(connection_module, "HANDSHAKE_TIMEOUT_S", 0.2)
    server = await serve(handler)
    session = PeerSession(dialler(), b"n" * 32)
    reader, writer = await knock(server.port)
    for number in range(frames):
        writer.writelines(session.take())
        if number + 1 < frames:
            assert not list(session.receive(await reader.readexactly(4 + CHALLENGE_BYTES)))
    assert b"timeout" in await ended(reader)
    assert handler.news == []
    await server.close()


async def test_who_has_not_said_which_node_it_is_says_nothing_else(handler: Recorder) -> None:
    """With the nodes' key, but no IDENTITY: it may be an older copy."""
    server = await serve(handler)
    session = PeerSession(dialler(), b"n" * 32)
    reader, writer = await knock(server.port)
    writer.writelines(session.take())
    list(session.receive(await reader.readexactly(4 + CHALLENGE_BYTES)))
    writer.writelines(session.take())
    session.messages(MESSAGES)
    writer.writelines(session.take())
    assert b"malformed" in await ended(reader)
    assert handler.messages_of == {}
    await server.close()
