"""What a client does when nodes refuse, move, stop or vanish; and what it tells its caller then."""

from __future__ import annotations

import asyncio
import struct
import time
from collections.abc import AsyncIterator
from itertools import pairwise
from typing import Any

import msgpack
import pytest

from allsource.client import (
    Client,
    ConnectionRefused,
    NewEvent,
    NoMajority,
    NoOwner,
    OutcomeUnknown,
    Unavailable,
    UnreadableAnswer,
    WrongExpectedVersion,
)
from allsource.client.opening import connect_to_one
from allsource.client.watch import SILENT_S
from allsource.cluster.protocol.frames import ProtocolError
from allsource.cluster.protocol.requests import (
    AppendRequest,
    AppendResult,
    DescribeCluster,
    PartitionPage,
    Run,
)
from allsource.storage.model.chunks import PLAIN, Chunk, unpack_chunks
from allsource.storage.model.errors import NotOwner, Overloaded, ShuttingDown
from allsource.storage.model.partition import partition_of
from tests.client.fake_node import SECRET, FakeCluster, FakeNode
from tests.toy_service import ToyService
from tests.waiting import DEADLINE_S, until


def event() -> NewEvent:
    return NewEvent.json("T", 1)


def refuse_with(error: Any) -> Any:
    """A behaviour that answers appends with an error, and tells the map as usual."""
    return lambda request, reply: ToyService.PASS if isinstance(request, DescribeCluster) else error


def swallow(held: list[Any]) -> Any:
    """A behaviour that keeps requests (not those for the map) unanswered in `held`."""

    def meet(request: Any, reply: Any) -> Any:
        if isinstance(request, DescribeCluster):
            return ToyService.PASS
        held.append((request, reply))
        return ToyService.SWALLOW

    return meet


def appends(node: FakeNode) -> list[AppendRequest]:
    return [request for request in node.requests if isinstance(request, AppendRequest)]


def first_ids(request: AppendRequest) -> list[bytes]:
    return [event[0] for event in unpack_chunks(request.parts[0].chunks)]


@pytest.fixture
async def ready(client: Client, cluster: FakeCluster) -> Client:
    """The client, once it is connected to all nodes and knows the owners."""
    await until(lambda: all(len(node.connections) == 1 for node in cluster.nodes.values()))
    assert client._dispatcher is not None
    routes = client._dispatcher.routes
    await until(routes.all_owners_are_connected)
    return client


# -- the owner is another one


async def test_not_owner_with_a_hint_goes_to_the_hinted_node(ready: Client, cluster: FakeCluster) -> None:
    partition = partition_of("s")
    old, new = cluster.owner_of(partition), cluster[f"n{(partition + 1) % 3 + 1}"]
    assert old is not new
    old.service.meet = refuse_with(NotOwner("moved", owner=new.node_id))
    cluster.store.view = {"nodes": [], "partitions": []}  # the hint is all that there is to go by
    result = await ready.append("s", event())
    assert not result.duplicate
    assert appends(old) == appends(new)
    await ready.append("s", event())
    assert (len(appends(old)), len(appends(new))) == (1, 2)


async def test_not_owner_without_a_hint_asks_the_others(ready: Client, cluster: FakeCluster) -> None:
    old = cluster.owner_of(partition_of("s"))
    old.service.meet = refuse_with(NotOwner("moved", owner=None))
    await ready.append("s", event())
    assert len(appends(old)) == 1
    assert sum(len(appends(node)) for node in cluster.nodes.values()) == 2


async def test_nodes_that_point_at_each_other_do_not_trap_a_call(
    ready: Client, cluster: FakeCluster
) -> None:
    order = ["n1", "n2", "n3", "n1"]
    for here, there in pairwise(order):
        cluster[here].service.meet = refuse_with(NotOwner("not me", owner=there))
    # As on a busy machine, which gives its time to others just now.
    asyncio.get_running_loop().call_soon(time.sleep, 0.5)
    with pytest.raises(NoOwner) as caught:
        await ready.append("s", event(), timeout_s=0.3)
    assert caught.value.definite
    asked = sum(len(appends(node)) for node in cluster.nodes.values())
    assert 4 < asked < 100


async def test_no_owner_is_tried_again_until_there_is_one(ready: Client, cluster: FakeCluster) -> None:
    tries = 0

    def meet(request: Any, reply: Any) -> Any:
        nonlocal tries
        if isinstance(request, AppendRequest):
            tries += 1
            if tries < 4:
                return NoOwner("an election is under way", partition=0)
        return ToyService.PASS

    for node in cluster.nodes.values():
        node.service.meet = meet
    result = await ready.append("s", event())
    assert (tries, result.duplicate) == (4, False)


@pytest.mark.parametrize("error", [NoOwner("m", partition=1), Overloaded("m"), ShuttingDown("m")])
async def test_what_stays_unavailable_is_a_definite_no_at_the_deadline(
    ready: Client, cluster: FakeCluster, error: Unavailable
) -> None:
    for node in cluster.nodes.values():
        node.service.meet = refuse_with(error)
    started = asyncio.get_running_loop().time()
    with pytest.raises(type(error)) as caught:
        await ready.append("s", event(), timeout_s=0.3)
    assert caught.value.definite
    assert 0.25 < asyncio.get_running_loop().time() - started < 2


async def test_a_node_that_leaves_hands_its_calls_on(ready: Client, cluster: FakeCluster) -> None:
    owner = cluster.owner_of(partition_of("s"))
    owner.service.meet = refuse_with(ShuttingDown("leaving"))
    started = asyncio.get_running_loop().time()
    await ready.append("s", event())
    assert asyncio.get_running_loop().time() - started < 0.2
    assert len(appends(owner)) == 1


async def test_no_majority_is_told_once_every_node_says_so(ready: Client, cluster: FakeCluster) -> None:
    for node in cluster.nodes.values():
        node.service.meet = refuse_with(NoMajority("two of three are down"))
    started = asyncio.get_running_loop().time()
    with pytest.raises(NoMajority, match="two of three") as caught:
        await ready.append("s", event())
    assert asyncio.get_running_loop().time() - started < 1
    assert caught.value.definite
    assert [len(appends(node)) for node in cluster.nodes.values()] == [1, 1, 1]


async def test_no_majority_after_a_lost_attempt_proves_nothing(ready: Client, cluster: FakeCluster) -> None:
    owner = cluster.owner_of(partition_of("s"))
    held: list[Any] = []
    for node in cluster.nodes.values():
        node.service.meet = refuse_with(NoMajority("two of three are down"))
    owner.service.meet = swallow(held)
    call = asyncio.create_task(ready.append("s", event(), timeout_s=0.4))
    await until(lambda: bool(held))
    await owner.kill()
    with pytest.raises(OutcomeUnknown):
        await call


async def test_one_node_without_a_majority_is_not_the_cluster(ready: Client, cluster: FakeCluster) -> None:
    cluster.owner_of(partition_of("s")).service.meet = refuse_with(NoMajority("cut off"))
    assert not (await ready.append("s", event())).duplicate


# -- connections that end


async def test_connection_lost_in_flight_is_sent_elsewhere_with_the_same_ids(
    ready: Client, cluster: FakeCluster
) -> None:
    owner = cluster.owner_of(partition_of("s"))
    held: list[Any] = []
    owner.service.meet = swallow(held)
    call = asyncio.create_task(ready.append("s", [event(), event()]))
    await until(lambda: bool(held))
    await owner.kill()
    result = await call
    assert not result.duplicate
    again = [r for node in cluster.nodes.values() if node is not owner for r in appends(node)]
    assert again == appends(owner)
    assert first_ids(again[0]) == first_ids(appends(owner)[0])


async def test_an_append_that_was_committed_before_its_answer_was_lost_is_a_success(
    ready: Client, cluster: FakeCluster
) -> None:
    owner = cluster.owner_of(partition_of("s"))
    held: list[Any] = []
    owner.service.meet = swallow(held)
    call = asyncio.create_task(ready.append("s", event(), "no_stream"))
    await until(lambda: bool(held))
    stored = cluster.store.append(held[0][0])
    await owner.kill()
    result = await call
    assert not result.duplicate, "it is this call's own first attempt that stored it"
    assert (result.streams, result.first_position) == (stored.streams, stored.first_position)
    assert cluster.store.version("s") == 1


async def test_a_thousand_calls_in_flight_survive_their_owner(ready: Client, cluster: FakeCluster) -> None:
    held: list[Any] = []
    cluster["n2"].service.meet = swallow(held)
    calls = [asyncio.create_task(ready.append(f"s{n}", event())) for n in range(1000)]
    await until(lambda: len(held) > 200)
    for request, _ in held[::2]:
        cluster.store.append(request)
    await cluster["n2"].kill()
    results = await asyncio.gather(*calls)
    assert sum(result.duplicate for result in results) == 0, "no earlier call appended any of them"
    assert cluster.store.event_count() == 1000


async def test_calls_wait_while_no_node_is_there_and_go_on_when_one_is_back(
    ready: Client, cluster: FakeCluster
) -> None:
    await cluster.stop()
    call = asyncio.create_task(ready.append("s", event()))
    dispatcher = ready._dispatcher
    assert dispatcher is not None
    await until(lambda: not dispatcher.connected.is_set() and len(dispatcher._waiting) == 1)
    dispatcher._waiting[0].retry_at += 100  # it must not need its turn: a node that is back is enough
    await cluster["n3"].start()
    assert not (await call).duplicate


async def test_the_new_owners_are_learned_soon_after_a_loss(ready: Client, cluster: FakeCluster) -> None:
    stream = next(f"s{n}" for n in range(100) if cluster.owner_of(partition_of(f"s{n}")) is cluster["n1"])
    dispatcher = ready._dispatcher
    assert dispatcher is not None
    dispatcher._watch._look_at += 1e9  # it must not need its turn: the loss is enough
    await cluster["n1"].kill()
    cluster.own(lambda partition: "n3")
    started = asyncio.get_running_loop().time()
    before = len(cluster["n3"].requests)
    async with asyncio.timeout(DEADLINE_S):
        while dispatcher.map.owners != ["n3"] * 32:
            await ready.append(stream, event())
    assert asyncio.get_running_loop().time() - started < 1
    assert len(cluster["n3"].requests) > before


async def test_a_node_that_was_away_for_long_is_dialled_as_quickly_as_any(
    ready: Client, cluster: FakeCluster
) -> None:
    node, loop = cluster["n1"], asyncio.get_running_loop()
    dialler = ready._dialler
    assert dialler is not None
    await node.kill()
    failures = {}  # kept, so that no two have the same identity

    def has_failed_often() -> bool:
        failure = dialler.failures.get(cluster.addresses["n1"])
        failures[id(failure)] = failure
        return len(failures) > 6

    await until(has_failed_often)
    await node.start()
    assert ready._dispatcher is not None
    open_now = ready._dispatcher.routes.open
    await until(lambda: "n1" in open_now)  # not before the handshake: cut off in it, it was not met again
    node.hang_up()
    started, accepted = loop.time(), node.accepted
    await until(lambda: node.accepted > accepted)
    assert loop.time() - started < 0.2


async def test_a_lost_node_is_dialled_again(ready: Client, cluster: FakeCluster) -> None:
    node = cluster["n1"]
    await node.kill()
    await node.start()
    await until(lambda: len(node.connections) == 1)
    stream = next(f"s{n}" for n in range(100) if partition_of(f"s{n}") % 3 == 0)
    before = len(appends(node))
    async with asyncio.timeout(DEADLINE_S):
        while len(appends(node)) == before:
            await ready.append(stream, event())


# -- what callers are told at the deadline


async def test_sent_and_not_answered_is_unknown(ready: Client, cluster: FakeCluster) -> None:
    held: list[Any] = []
    cluster.owner_of(partition_of("s")).service.meet = swallow(held)
    with pytest.raises(OutcomeUnknown, match="same ids") as caught:
        await ready.append("s", event(), timeout_s=0.1)
    assert not caught.value.definite
    assert ready._gate.calls == 0


async def test_the_node_is_told_to_answer_before_we_give_up(ready: Client, cluster: FakeCluster) -> None:
    owner = cluster.owner_of(partition_of("s"))
    await ready.append("s", event(), timeout_s=2.0)
    assert 1_800 < owner.service.timeouts_ms[owner.requests.index(appends(owner)[0])] <= 1_950


async def test_a_late_answer_is_dropped(ready: Client, cluster: FakeCluster) -> None:
    owner = cluster.owner_of(partition_of("s"))
    held: list[Any] = []
    owner.service.meet = swallow(held)
    with pytest.raises(OutcomeUnknown):
        await ready.append("s", event(), timeout_s=0.05)
    [(request, reply)] = held
    reply(cluster.store.append(request))
    owner.service.meet = lambda request, reply: ToyService.PASS
    assert (await ready.append("s", event())).streams == (("s", 2, 2),)
    assert len(owner.connections) == 1


async def test_never_sent_is_a_definite_no(ready: Client, cluster: FakeCluster) -> None:
    await cluster.stop()
    await until(lambda: not ready._dispatcher.connected.is_set())  # type: ignore[union-attr]
    with pytest.raises(NoOwner) as caught:
        await ready.append("s", event(), timeout_s=0.1)
    assert caught.value.definite
    assert caught.value.details == {"partition": partition_of("s")}


async def test_lost_once_and_refused_later_stays_unknown(ready: Client, cluster: FakeCluster) -> None:
    """The first attempt may have happened, whatever the other nodes say of the second."""
    owner = cluster.owner_of(partition_of("s"))
    held: list[Any] = []
    for node in cluster.nodes.values():
        node.service.meet = refuse_with(NoOwner("none", partition=0))
    owner.service.meet = swallow(held)
    call = asyncio.create_task(ready.append("s", event(), timeout_s=0.4))
    await until(lambda: bool(held))
    await owner.kill()
    with pytest.raises(OutcomeUnknown):
        await call


@pytest.mark.parametrize(
    ("expected", "stored", "error"),
    [(3, 5, WrongExpectedVersion), ("no_stream", 1, WrongExpectedVersion), (7, 5, OutcomeUnknown)],
)
async def test_a_conflict_after_a_lost_attempt_counts_only_if_it_is_for_ever(
    ready: Client, cluster: FakeCluster, expected: Any, stored: int, error: type[Exception]
) -> None:
    """A stream that has passed the expected version proves it; one that is not there yet does not."""
    await ready.append("s", [event() for _ in range(stored)])
    owner = cluster.owner_of(partition_of("s"))
    held: list[Any] = []
    owner.service.meet = swallow(held)
    call = asyncio.create_task(ready.append("s", event(), expected, timeout_s=0.4))
    await until(lambda: bool(held))
    await owner.kill()
    with pytest.raises(error):
        await call


async def test_a_read_never_ends_unknown(ready: Client, cluster: FakeCluster) -> None:
    for node in cluster.nodes.values():
        node.service.meet = lambda request, reply: ToyService.SWALLOW
    for read in (ready.read_stream("s", timeout_s=0.05), ready.cluster(timeout_s=0.05)):
        with pytest.raises(Unavailable) as caught:
            await read
        assert caught.value.definite


async def test_closing_ends_what_is_under_way(ready: Client, cluster: FakeCluster) -> None:
    held: list[Any] = []
    for node in cluster.nodes.values():
        node.service.meet = swallow(held)
    append = asyncio.create_task(ready.append("s", event()))
    read = asyncio.create_task(ready.read_stream("s"))
    await until(lambda: len(held) == 2)
    await ready.close()
    with pytest.raises(OutcomeUnknown):
        await append
    with pytest.raises(Unavailable):
        await read
    await until(lambda: not any(node.connections for node in cluster.nodes.values()))


async def test_a_cancelled_call_leaves_no_trace(ready: Client, cluster: FakeCluster) -> None:
    held: list[Any] = []
    cluster.owner_of(partition_of("s")).service.meet = swallow(held)
    call = asyncio.create_task(ready.append("s", event(), timeout_s=5))
    await until(lambda: bool(held))
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await until(lambda: ready._gate.calls == 0)


# -- how often a call is sent


class PassedOn:
    """An append that went to some node while nobody knew an owner; then another node turns out to lead."""

    def __init__(self, client: Client, cluster: FakeCluster) -> None:
        self.client = client
        self.cluster = cluster
        self.held: list[Any] = []

    async def start(self) -> asyncio.Task[AppendResult]:
        for node in self.cluster.nodes.values():
            node.service.meet = swallow(self.held)
        call = asyncio.create_task(self.client.append("s", event()))
        await until(lambda: bool(self.held))
        self.asked = next(node for node in self.cluster.nodes.values() if appends(node))
        self.owner = next(node for node in self.cluster.nodes.values() if node is not self.asked)
        self.owner.service.meet = lambda request, reply: ToyService.PASS
        return call

    async def learn_the_owner(self) -> None:
        dispatcher = self.client._dispatcher
        assert dispatcher is not None
        self.cluster.own(lambda partition: self.owner.node_id)
        await until(dispatcher.routes.all_owners_are_connected)


@pytest.fixture
async def passed_on(cluster: FakeCluster) -> AsyncIterator[PassedOn]:
    cluster.own(lambda partition: None)
    async with Client(cluster["n1"].address, secret=SECRET) as client:
        yield PassedOn(client, cluster)


async def test_to_learn_of_an_owner_for_the_first_time_sends_nothing_twice(passed_on: PassedOn) -> None:
    """The node that was asked passes the call on by itself."""
    call = await passed_on.start()
    await passed_on.learn_the_owner()
    [(request, reply)] = passed_on.held
    reply(passed_on.cluster.store.append(request))
    assert not (await call).duplicate
    assert appends(passed_on.owner) == []


async def test_a_node_that_should_pass_a_call_on_and_falls_silent_is_left_for_the_owner(
    passed_on: PassedOn,
) -> None:
    call = await passed_on.start()
    passed_on.asked.freeze()
    await passed_on.learn_the_owner()
    loop = asyncio.get_running_loop()
    started = loop.time()
    assert not (await call).duplicate
    assert loop.time() - started < SILENT_S + 1
    assert len(appends(passed_on.owner)) == 1


# -- nodes that fall silent


async def test_a_stopped_owner_is_left_when_another_one_leads(ready: Client, cluster: FakeCluster) -> None:
    partition = partition_of("s")
    owner = cluster.owner_of(partition)
    successor = next(node for node in cluster.nodes.values() if node is not owner)
    owner.freeze()
    loop = asyncio.get_running_loop()
    started = loop.time()
    call = asyncio.create_task(ready.append("s", event()))
    cluster.own(lambda p: successor.node_id)
    await call
    assert loop.time() - started < SILENT_S + 1
    assert len(appends(successor)) == 1


async def test_local_reads_leave_a_stopped_replica(ready: Client, cluster: FakeCluster) -> None:
    await ready.append("s", event())
    cluster["n2"].freeze()
    loop = asyncio.get_running_loop()
    started = loop.time()
    pages = await asyncio.gather(*[ready.read_stream("s", consistency="local") for _ in range(9)])
    assert [len(page.events) for page in pages] == [1] * 9
    assert loop.time() - started < SILENT_S + 1
    started = loop.time()
    await asyncio.gather(*[ready.read_stream("s", consistency="local") for _ in range(9)])
    assert loop.time() - started < SILENT_S / 2


async def test_a_connection_that_stays_silent_is_dialled_again(
    ready: Client, cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("allsource.client.watch.DEAD_S", 0.5)
    node = cluster["n2"]
    accepted = node.accepted
    node.freeze()
    stream = next(f"s{n}" for n in range(100) if cluster.owner_of(partition_of(f"s{n}")) is node)
    assert not (await ready.append(stream, event())).duplicate
    await until(lambda: node.accepted > accepted)


# -- hostile and foreign servers


async def test_wrong_secret_is_told_at_once(cluster: FakeCluster) -> None:
    started = asyncio.get_running_loop().time()
    with pytest.raises(ConnectionRefused, match="secret") as caught:
        async with Client(cluster["n1"].address, secret="guess"):
            pass
    assert asyncio.get_running_loop().time() - started < 2
    assert (caught.value.details, caught.value.definite) == ({"reason": "wrong_secret"}, True)


async def test_wrong_secret_is_told_at_once_also_when_other_nodes_are_down(cluster: FakeCluster) -> None:
    dead = cluster["n2"].address
    await cluster["n2"].kill()
    loop = asyncio.get_running_loop()
    started = loop.time()
    with pytest.raises(ConnectionRefused, match=f"{cluster['n1'].address}.*secret"):
        await Client([dead, cluster["n1"].address], secret="guess", timeout_s=60).open()
    assert loop.time() - started < 10


async def test_one_node_with_another_secret_does_not_keep_a_client_out(cluster: FakeCluster) -> None:
    """Secrets are changed one node after the other."""
    cluster["n1"].secret = "new"
    async with Client([cluster["n1"].address, cluster["n2"].address], secret=SECRET) as client:
        assert client._dispatcher is not None
        assert "n2" in client._dispatcher.routes.open


async def test_a_refusal_that_may_pass_is_waited_out(cluster: FakeCluster) -> None:
    """Too many connections now is not too many for ever."""
    dialler = FullAtFirst()
    news, connected = asyncio.Event(), asyncio.Event()
    address = ("127.0.0.1", 1)
    dialler.failures[address] = ProtocolError("too_many_connections", "full")
    opening = asyncio.create_task(connect_to_one([address], dialler, connected, news, 60))  # type: ignore[arg-type]
    await until(lambda: dialler.dialled == [address])
    connected.set()
    news.set()
    await opening
    with pytest.raises(Unavailable, match="full"):
        await connect_to_one([address], dialler, asyncio.Event(), news, 0.01)  # type: ignore[arg-type]


class FullAtFirst:
    def __init__(self) -> None:
        self.failures: dict[tuple[str, int], Exception] = {}
        self.dialled: list[tuple[str, int]] = []

    def dial(self, addresses: list[tuple[str, int]]) -> None:
        self.dialled += addresses


async def test_wrong_cluster_is_told_at_once(cluster: FakeCluster) -> None:
    with pytest.raises(ConnectionRefused) as caught:
        await Client(cluster["n1"].address, secret=SECRET, cluster_id="another").open()
    assert caught.value.details["reason"] == "wrong_cluster"


async def test_a_cluster_without_partitions_is_none(cluster: FakeCluster) -> None:
    cluster.store.partitions = 0
    with pytest.raises(ConnectionRefused, match="0 partitions") as caught:
        await Client(cluster["n1"].address, secret=SECRET).open()
    assert caught.value.details["reason"] == "malformed"


async def test_nobody_there_says_which_address_and_why(cluster: FakeCluster) -> None:
    address = cluster["n1"].address
    await cluster.stop()
    with pytest.raises(Unavailable, match=f"{address}.*refused|Connect call failed"):
        await Client(address, secret=SECRET, timeout_s=0.2).open()


async def test_an_http_server_is_not_a_node() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        with pytest.raises(ConnectionRefused) as caught:
            await Client(f"127.0.0.1:{port}", secret=SECRET, timeout_s=1).open()
        assert caught.value.details["reason"] == "frame_too_large"
    finally:
        server.close()


GARBAGE = [
    b"\xff" * 64,
    struct.pack(">I", 1 << 31),
    struct.pack(">I", 5) + b"hello",
    struct.pack(">I", 3) + msgpack.packb([99, 1]),
    struct.pack(">I", 6) + b"\x92\x21\xdd\xff\xff\xff",
]


@pytest.mark.parametrize("garbage", GARBAGE)
async def test_garbage_closes_the_connection_and_the_call_goes_elsewhere(
    ready: Client, cluster: FakeCluster, garbage: bytes
) -> None:
    owner = cluster.owner_of(partition_of("s"))
    owner.garbage = garbage
    result = await ready.append("s", event())
    assert not result.duplicate, "the first attempt happened, its answer was garbage"
    assert cluster.store.version("s") == 1
    await until(lambda: owner.accepted > 1)
    assert owner.refusals[0].by_peer, "the node is told what was wrong"


async def test_an_answer_to_another_question_closes_the_connection(
    ready: Client, cluster: FakeCluster
) -> None:
    owner = cluster.owner_of(partition_of("s"))
    page = PartitionPage(0, 0, 1, ())
    owner.service.meet = refuse_with(page)
    assert not (await ready.append("s", event())).duplicate
    await until(lambda: owner.accepted > 1)


async def test_an_answer_that_nobody_waits_for_is_dropped(ready: Client, cluster: FakeCluster) -> None:
    owner = cluster.owner_of(partition_of("s"))
    [connection] = owner.connections
    connection._session.reply(10**15, AppendResult(0, 1, 1, 1, (), False))
    await ready.append("s", event())
    assert owner.connections == {connection}


async def test_unreadable_events_are_an_error_of_the_family(ready: Client, cluster: FakeCluster) -> None:
    partition = partition_of("s")
    owner = cluster.owner_of(partition)
    page = PartitionPage(partition, 1, 2, (Run("s", 1, 1, 0, 0, 0, 1, Chunk(1, 1, PLAIN, b"\xc1")),))
    owner.service.meet = refuse_with(page)
    with pytest.raises(UnreadableAnswer) as caught:
        await ready.read_partition(partition)
    assert caught.value.definite
    await until(lambda: owner.accepted > 1)


async def test_a_page_that_leads_nowhere_ends_a_scan(ready: Client, cluster: FakeCluster) -> None:
    await ready.append("s", [event(), event()])
    partition = partition_of("s")
    run = cluster.store.runs[partition][0]
    page = PartitionPage(partition, 99, 1, (run,))
    cluster.owner_of(partition).service.meet = refuse_with(page)
    with pytest.raises(UnreadableAnswer):
        _ = [event async for event in ready.scan([partition])]
