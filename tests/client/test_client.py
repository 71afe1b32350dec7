"""What a client does when all goes well: append, read, page, scan, and go straight to the owner."""

from __future__ import annotations

import asyncio
from random import Random

import pytest

from allsource.client import (
    Client,
    EventIdConflict,
    InvalidRequest,
    NewEvent,
    NotFound,
    QueueFull,
    StreamInfo,
    TooLarge,
    Unavailable,
    WrongExpectedVersion,
)
from allsource.cluster.protocol.handshake_frames import WireLimits
from allsource.cluster.protocol.requests import AppendRequest, DescribeCluster, ReadPartition, ReadStream
from allsource.storage.model.events import BINARY
from allsource.storage.model.partition import partition_of
from tests.client.fake_node import SECRET, FakeCluster
from tests.toy_service import START_US, ToyService
from tests.waiting import until


def numbered(count: int, first: int = 0) -> list[NewEvent]:
    return [NewEvent.json("N", n) for n in range(first, first + count)]


def incompressible(size: int) -> NewEvent:
    return NewEvent("T", Random(size).randbytes(size), encoding=BINARY)


async def test_append_and_read_back(client: Client) -> None:
    events = [NewEvent.json("Opened", {"owner": "Ada"}, metadata={"by": 1}), NewEvent.json("Closed")]
    result = await client.append("account-1", events, "no_stream")
    partition = partition_of("account-1")
    assert (result.partition, result.first_position, result.last_position) == (partition, 1, 2)
    assert result.streams == (("account-1", 1, 2),)
    assert (result.token, result.duplicate) == (f"{partition}:1", False)
    page = await client.read_stream("account-1")
    assert [(e.id, e.type, e.data, e.metadata) for e in page.events] == [
        (e.id, e.type, e.data, e.metadata) for e in events
    ]
    assert [(e.version, e.position) for e in page.events] == [(1, 1), (2, 2)]
    assert page.events[0].json() == {"owner": "Ada"}
    assert page.info == StreamInfo("account-1", partition, 2, START_US, START_US)
    assert (page.current_version, page.next_from) == (2, 0)


async def test_binary_data_comes_back_as_it_was(client: Client) -> None:
    raw = bytes(range(256)) * 300
    await client.append("s", NewEvent("Raw", raw, metadata=b"\xff\x00", encoding=BINARY))
    [event] = (await client.read_stream("s")).events
    assert (event.data, event.metadata, event.encoding) == (raw, b"\xff\x00", BINARY)


async def test_a_conflict_says_what_the_version_is(client: Client) -> None:
    await client.append("s", numbered(3))
    with pytest.raises(WrongExpectedVersion) as caught:
        await client.append("s", numbered(1), 7)
    assert caught.value.details == {"stream": "s", "expected": 7, "actual": 3}
    assert caught.value.definite


async def test_appending_the_same_events_again_is_one_append(client: Client) -> None:
    events = numbered(2)
    first = await client.append("s", events, "no_stream")
    again = await client.append("s", events, "no_stream")
    assert (first.duplicate, again.duplicate) == (False, True)
    assert again.streams == first.streams
    with pytest.raises(EventIdConflict):
        await client.append("s", [NewEvent("Other", id=events[0].id)])


async def test_append_many_is_one_append(client: Client, cluster: FakeCluster) -> None:
    result = await client.append_many(
        [("{t}from", numbered(2), "no_stream"), ("{t}to", NewEvent.json("In"), "any")]
    )
    assert result.streams == (("{t}from", 1, 2), ("{t}to", 1, 1))
    assert (result.first_position, result.last_position) == (1, 3)
    with pytest.raises(WrongExpectedVersion):
        await client.append_many([("{t}new", numbered(1), "any"), ("{t}to", numbered(1), 5)])
    with pytest.raises(NotFound):
        await client.stream_info("{t}new")


async def test_an_append_that_no_frame_can_hold_is_refused_here(cluster: FakeCluster) -> None:
    for node in cluster.nodes.values():
        node.limits = WireLimits(frame_bytes_max=10_000)
    async with Client(cluster["n1"].address, secret=SECRET) as client:
        with pytest.raises(TooLarge):
            await client.append("s", incompressible(10_000))
        await client.append("s", incompressible(9_000))


async def test_calls_go_straight_to_the_owner(client: Client, cluster: FakeCluster) -> None:
    assert client._dispatcher is not None
    await until(client._dispatcher.routes.all_owners_are_connected)
    for n in range(64):
        await client.append(f"s{n}", numbered(1))
        await client.read_stream(f"s{n}")
    for node_id, node in cluster.nodes.items():
        asked = [r for r in node.requests if not isinstance(r, DescribeCluster)]
        streams = {r.parts[0].stream if isinstance(r, AppendRequest) else r.stream for r in asked}  # type: ignore[union-attr]
        assert {cluster.owners[partition_of(stream)] for stream in streams} == {node_id}
        assert len(asked) == 2 * len(streams)


async def test_the_other_nodes_are_learned_from_one(cluster: FakeCluster) -> None:
    async with Client(f"localhost:{cluster.addresses['n2'][1]}", secret=SECRET):
        await until(lambda: all(len(node.connections) == 1 for node in cluster.nodes.values()))
    assert cluster["n2"].accepted == 1, "the name it was given and the address it was told are one node"


async def test_a_node_under_two_addresses_keeps_one_connection(cluster: FakeCluster) -> None:
    port = cluster.addresses["n1"][1]
    async with Client([f"localhost:{port}", f"127.0.0.1:{port}"], secret=SECRET) as client:
        await until(lambda: cluster["n1"].accepted >= 2 and len(cluster["n1"].connections) == 1)
        await client.append("s", numbered(1))
        await until(lambda: all(len(node.connections) == 1 for node in cluster.nodes.values()))


async def test_many_calls_in_flight_share_frames(client: Client, cluster: FakeCluster) -> None:
    results = await asyncio.gather(*[client.append(f"s{n % 100}", numbered(1)) for n in range(3000)])
    assert len(results) == 3000
    assert sum(result.duplicate for result in results) == 0
    assert cluster.store.event_count() == 3000
    batches = [size for node in cluster.nodes.values() for size in node.batches if size > 1]
    assert max(batches) > 100


async def test_what_a_slow_node_does_not_read_is_not_piled_up_behind_the_socket(
    client: Client, cluster: FakeCluster
) -> None:
    await until(lambda: all(len(node.connections) == 1 for node in cluster.nodes.values()))
    owner = cluster.owner_of(partition_of("s"))
    await client.append("s", numbered(1))
    owner.freeze()
    assert client._dispatcher is not None
    connection = client._dispatcher.routes.open[owner.node_id]
    calls = []
    for _ in range(100):
        large = incompressible(200_000)
        calls.append(asyncio.create_task(client.append("s", large)))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    assert connection._transport is not None
    assert connection._transport.get_write_buffer_size() < 4_000_000
    owner.thaw()
    await asyncio.gather(*calls)
    assert cluster.store.version("s") == 101


async def test_no_more_calls_are_on_their_way_than_allowed(cluster: FakeCluster) -> None:
    held = []
    for node in cluster.nodes.values():
        node.service.meet = lambda request, reply: (
            ToyService.PASS
            if isinstance(request, DescribeCluster)
            else held.append((request, reply)) or ToyService.SWALLOW
        )
    async with Client(cluster["n1"].address, secret=SECRET, inflight_max=10) as client:
        calls = [asyncio.create_task(client.append(f"s{n}", numbered(1))) for n in range(25)]
        await until(lambda: len(held) == 10)
        calls[24].cancel()  # one that waits
        while not all(call.done() for call in calls):
            assert len([call for call in calls if not call.done()]) > 0
            await until(lambda: bool(held) or all(call.done() for call in calls))
            for request, reply in held:
                reply(cluster.store.answer(request))
            assert len(held) <= 10
            held.clear()
        await asyncio.gather(*calls[:24])
    assert calls[24].cancelled()


async def test_who_waits_for_room_until_the_deadline_was_never_sent(cluster: FakeCluster) -> None:
    for node in cluster.nodes.values():
        node.service.meet = lambda request, reply: ToyService.SWALLOW
    async with Client(cluster["n1"].address, secret=SECRET, inflight_max=1) as client:
        first = asyncio.create_task(client.append("a", numbered(1), timeout_s=0.5))
        await asyncio.sleep(0)
        with pytest.raises(QueueFull):
            await client.append("b", numbered(1), timeout_s=0.05)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first


async def test_pages_forward_and_backward(client: Client) -> None:
    await client.append("s", numbered(10))
    page = await client.read_stream("s", limit=4)
    assert ([e.version for e in page.events], page.next_from) == ([1, 2, 3, 4], 5)
    page = await client.read_stream("s", from_version=9, limit=4)
    assert ([e.version for e in page.events], page.next_from) == ([9, 10], 0)
    page = await client.read_stream("s", backward=True, limit=4)
    assert ([e.version for e in page.events], page.next_from) == ([10, 9, 8, 7], 6)
    page = await client.read_stream("s", backward=True, from_version=2, limit=4)
    assert ([e.version for e in page.events], page.next_from) == ([2, 1], 0)


@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize("page", [1, 3, 5, 100])
async def test_a_whole_stream_over_its_pages(client: Client, backward: bool, page: int) -> None:
    for first in (0, 4, 8):
        await client.append("s", numbered(4, first))
    found = [event.json() async for event in client.stream("s", backward=backward, page=page)]
    assert found == (list(range(11, -1, -1)) if backward else list(range(12)))


async def test_an_iterator_that_is_left_early_leaves_nothing_behind(client: Client) -> None:
    await client.append("s", numbered(10))
    stream = client.stream("s", page=2)
    assert (await anext(stream)).version == 1
    await stream.aclose()
    scan = client.scan(page=2)
    await anext(scan)
    await scan.aclose()
    await until(lambda: client._gate.calls == 0)


async def test_scan_gives_every_event_once_and_in_order_of_position(client: Client) -> None:
    for n in range(40):
        await client.append(f"s{n % 20}", numbered(5, n * 5))
    seen: dict[int, list[int]] = {}
    numbers = []
    async for event in client.scan(page=7):
        seen.setdefault(event.partition, []).append(event.position)
        numbers.append(event.json())
    assert sorted(numbers) == list(range(200))
    assert all(positions == list(range(1, len(positions) + 1)) for positions in seen.values())
    some = sorted(seen)[:2]
    assert {event.partition async for event in client.scan(some)} == set(some)
    packed = [page async for page in client.scan_pages(page=50)]
    assert sum(len(page.events()) for page in packed) == 200


async def test_read_partition(client: Client) -> None:
    await client.append("{t}a", numbered(3))
    await client.append("{t}b", numbered(2))
    partition = partition_of("{t}a")
    page = await client.read_partition(partition, from_position=3, limit=2)
    assert [(e.position, e.stream) for e in page.events] == [(3, "{t}a"), (4, "{t}b")]
    assert (page.last_position, page.next_from) == (5, 5)
    with pytest.raises(InvalidRequest, match="0 to 31"):
        await client.read_partition(32)


async def test_unknown_streams(client: Client) -> None:
    with pytest.raises(NotFound):
        await client.read_stream("nobody")
    with pytest.raises(NotFound):
        await client.stream_info("nobody")
    with pytest.raises(NotFound):
        _ = [event async for event in client.stream("nobody")]


async def test_local_reads_are_spread_over_the_replicas(client: Client, cluster: FakeCluster) -> None:
    token = (await client.append("s", numbered(1))).token
    partition = partition_of("s")
    await until(lambda: all(len(node.connections) == 1 for node in cluster.nodes.values()))
    for _ in range(30):
        await client.read_stream("s", consistency="local", token=token)
        await client.read_partition(partition, consistency="local", token=token)
    for node in cluster.nodes.values():
        local = ReadStream("s", local=True, token=token)
        assert node.requests.count(local) + node.requests.count(
            ReadPartition(partition, local=True, token=token)
        ) in range(15, 26)


async def test_cluster_is_what_a_node_says(client: Client, cluster: FakeCluster) -> None:
    assert await client.cluster() == cluster.store.view


async def test_a_client_that_is_not_open_says_so(cluster: FakeCluster) -> None:
    client = Client(cluster["n1"].address, secret=SECRET)
    with pytest.raises(Unavailable, match="not open"):
        await client.append("s", numbered(1))
    await client.open()
    await client.append("s", numbered(1))
    await client.close()
    with pytest.raises(Unavailable, match="closed"):
        await client.append("s", numbered(1))


async def test_an_idle_node_is_not_silent(client: Client) -> None:
    assert client._dispatcher is not None
    await client.append("s", numbered(1))
    far = asyncio.get_running_loop().time() + 100
    await until(lambda: client._gate.calls == 0)
    assert {c.silence_s(far) for c in client._dispatcher.routes.open.values()} == {0.0}
