"""Tags and marks through the client: what it sends, what comes back, and how a refusal ends a call."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from allsource.client import (
    BlockingClient,
    Client,
    InvalidRequest,
    Mark,
    MarkRefused,
    MarkState,
    NewEvent,
    OutcomeUnknown,
    WrongExpectedTag,
)
from allsource.cluster.protocol.requests import AppendRequest
from allsource.storage.model.chunks import PLAIN, ZSTD
from allsource.storage.model.partition import partition_of, partition_of_tag
from tests.client.fake_node import SECRET, FakeCluster
from tests.client.test_failures import refuse_with, swallow
from tests.waiting import until

T = partition_of_tag("t")


def numbered(count: int, first: int = 0) -> list[NewEvent]:
    return [NewEvent.json(f"T{n % 2}", n) for n in range(first, first + count)]


def sent(cluster: FakeCluster) -> list[AppendRequest]:
    return [r for node in cluster.nodes.values() for r in node.requests if isinstance(r, AppendRequest)]


# -- tags


async def test_a_tag_counts_the_events_of_all_its_streams(client: Client) -> None:
    await client.append("{t}a", numbered(2))
    await client.append_many([("{t}b", numbered(1, 2), "any"), ("{t}a", numbered(2, 3), 2)])
    await client.append("without", numbered(1))
    page = await client.read_tag("t")
    assert [(e.tag_number, e.stream, e.version, e.json()) for e in page.events] == [
        (1, "{t}a", 1, 0),
        (2, "{t}a", 2, 1),
        (3, "{t}b", 1, 2),
        (4, "{t}a", 3, 3),
        (5, "{t}a", 4, 4),
    ]
    assert (page.tag, page.partition, page.last_number, page.next_from) == ("t", T, 5, 0)
    assert [e.tag_number for e in (await client.read_stream("{t}b")).events] == [3]
    assert [e.tag_number for e in (await client.read_stream("without")).events] == [0]


async def test_a_tag_is_read_in_pages_both_ways_and_by_types(client: Client) -> None:
    await client.append("{t}a", numbered(7))
    page = await client.read_tag("t", limit=3)
    assert ([e.json() for e in page.events], page.next_from) == ([0, 1, 2], 4)
    page = await client.read_tag("t", from_number=page.next_from, limit=9)
    assert ([e.json() for e in page.events], page.next_from) == ([3, 4, 5, 6], 0)
    page = await client.read_tag("t", backward=True, limit=3)
    assert ([e.json() for e in page.events], page.next_from) == ([6, 5, 4], 4)
    page = await client.read_tag("t", types=["T1"])
    assert [e.json() for e in page.events] == [1, 3, 5]
    page = await client.read_tag("t", types=["another"])
    assert (page.events, page.last_number) == ([], 7)
    empty = await client.read_tag("nobody", consistency="local")
    assert (empty.events, empty.last_number, empty.next_from) == ([], 0, 0)


async def test_an_append_may_expect_the_tags_number(client: Client) -> None:
    await client.append("{t}a", numbered(2), expected_tag=0)
    await client.append_many([("{t}b", numbered(1), "any")], expected_tag=2)
    for expected in (0, 2, 4):
        with pytest.raises(WrongExpectedTag) as caught:
            await client.append("{t}a", numbered(1), expected_tag=expected)
        assert caught.value.details == {"tag": "t", "expected": expected, "actual": 3}
        assert caught.value.definite


async def test_an_append_that_was_lost_and_expected_a_tag(client: Client, cluster: FakeCluster) -> None:
    """It was stored: its retry gets the first answer, though the tag has gone on."""
    owner = cluster.owner_of(T)
    held: list[Any] = []
    await until(lambda: all(len(node.connections) == 1 for node in cluster.nodes.values()))
    owner.service.meet = swallow(held)
    call = asyncio.create_task(client.append("{t}a", numbered(1), expected_tag=0))
    await until(lambda: bool(held))
    cluster.store.append(held[0][0])
    await owner.kill()
    assert not (await call).duplicate


# -- marks


async def test_marks_move_with_events_and_alone(client: Client) -> None:
    assert await client.read_mark(T, "m") == MarkState(T, "m", 0, 0, 0)
    result = await client.append("{t}a", numbered(1), marks=[Mark("m", 5, 1), ("n", 0, 0)])
    assert await client.read_mark(T, "m") == MarkState(T, "m", 5, 1, result.index)
    result = await client.append_many([("{t}a", numbered(1), 1)], marks=(Mark("m", 6, 1),))
    result = await client.move_marks(T, [("m", 7, 1)])
    assert (result.streams, result.duplicate, result.partition) == ((), False, T)
    assert result.last_position == result.first_position - 1
    mark = await client.read_mark(T, "m", token=result.token, consistency="local")
    assert mark == MarkState(T, "m", 7, 1, result.index)
    assert (await client.move_marks(T, [("m", 7, 1)])).duplicate
    assert not (await client.move_marks(T, [("m", 2, 2)])).duplicate, "a newer generation begins anywhere"


@pytest.mark.parametrize(("position", "generation"), [(5, 2), (4, 2), (9, 1)])
async def test_a_mark_that_lies_behind_refuses_the_whole_append(
    client: Client, position: int, generation: int
) -> None:
    await client.append("{t}a", numbered(1), marks=[Mark("m", 5, 2)])
    with pytest.raises(MarkRefused) as caught:
        await client.append("{t}a", numbered(1), marks=[Mark("new", 1, 1), Mark("m", position, generation)])
    assert caught.value.details == {"name": "m", "position": 5, "generation": 2}
    assert (await client.stream_info("{t}a")).current_version == 1
    assert (await client.read_mark(T, "new")).index == 0


async def test_marks_alone_that_were_refused_after_a_lost_attempt_may_have_moved(
    client: Client, cluster: FakeCluster
) -> None:
    owner = cluster.owner_of(T)
    held: list[Any] = []
    await until(lambda: all(len(node.connections) == 1 for node in cluster.nodes.values()))
    owner.service.meet = swallow(held)
    for node in cluster.nodes.values():
        if node is not owner:
            node.service.meet = refuse_with(MarkRefused("m", 9, 1))
    call = asyncio.create_task(client.move_marks(T, [("m", 3, 1)], timeout_s=0.4))
    await until(lambda: bool(held))
    await owner.kill()
    with pytest.raises(OutcomeUnknown):
        await call


async def test_a_refused_mark_of_an_append_with_events_settles_it(
    client: Client, cluster: FakeCluster
) -> None:
    owner = cluster.owner_of(T)
    held: list[Any] = []
    await until(lambda: all(len(node.connections) == 1 for node in cluster.nodes.values()))
    owner.service.meet = swallow(held)
    for node in cluster.nodes.values():
        if node is not owner:
            node.service.meet = refuse_with(MarkRefused("m", 9, 1))
    call = asyncio.create_task(client.append("{t}a", numbered(1), marks=[("m", 3, 1)]))
    await until(lambda: bool(held))
    await owner.kill()
    with pytest.raises(MarkRefused):
        await call


_NAMES = st.text(st.characters(exclude_categories=("Cc", "Cs", "Z")), min_size=1, max_size=30)
_NUMBERS = st.integers(0, 2**63 - 1)


@given(st.lists(st.tuples(_NAMES, _NUMBERS, _NUMBERS), min_size=1, max_size=5, unique_by=lambda m: m[0]))
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
async def test_any_marks_arrive_as_they_were(
    client: Client, cluster: FakeCluster, marks: list[tuple[str, int, int]]
) -> None:
    for log in cluster.store.logs:
        log._marks.clear()
    await client.append("{t}a", NewEvent("T"), marks=marks)
    assert sent(cluster)[-1].marks == tuple(Mark(*mark) for mark in marks)
    for name, position, generation in marks:
        found = await client.read_mark(T, name)
        assert (found.position, found.generation) == (position, generation)


# -- what is sent


async def test_events_are_compressed_where_it_pays_unless_told_otherwise(cluster: FakeCluster) -> None:
    large = NewEvent.json("T", "x" * 2000)
    plainly = Client(cluster["n1"].address, secret=SECRET, compression=False)
    async with Client(cluster["n1"].address, secret=SECRET) as client, plainly:
        await client.append("s", large)
        await client.append_many([("s", NewEvent.json("T", "small"), "any")])
        await plainly.append("s", NewEvent.json("T", "x" * 2000))
        await plainly.append_many([("s", NewEvent.json("T", "x" * 2000), "any")])
        page = await client.read_stream("s")
        assert (await client.append("s", large)).duplicate
        assert (await plainly.append("s", large)).duplicate, "the same events, however they are packed"
    assert [request.parts[0].chunks[0].codec for request in sent(cluster)[:4]] == [
        ZSTD,
        PLAIN,
        PLAIN,
        PLAIN,
    ]
    assert [len(event.json()) for event in page.events] == [2000, 5, 2000, 2000]


async def test_many_events_go_in_chunks_and_come_back_as_one_stream(client: Client) -> None:
    await client.append("{t}s", numbered(1000))
    found = [event async for event in client.stream("{t}s", page=333)]
    assert [(e.version, e.tag_number, e.json()) for e in found] == [(n + 1, n + 1, n) for n in range(1000)]


async def test_what_the_store_keeps_for_itself_is_refused_here(
    client: Client, cluster: FakeCluster
) -> None:
    for stream in ("$", "$s", "$s{t}"):
        with pytest.raises(InvalidRequest, match="store's own"):
            await client.append(stream, numbered(1))
    assert sent(cluster) == []


# -- without await


async def test_the_blocking_client_does_the_same(cluster: FakeCluster) -> None:
    def work() -> None:
        with BlockingClient(cluster["n1"].address, secret=SECRET, compression=False) as client:
            client.append("{t}a", numbered(2), expected_tag=0, marks=[("m", 1, 1)])
            client.append_many([("{t}a", numbered(1), 2)], expected_tag=2, marks=[("m", 2, 1)])
            client.move_marks(T, [("m", 3, 1)])
            assert client.read_mark(T, "m").position == 3
            assert [e.tag_number for e in client.read_tag("t", backward=True, limit=2).events] == [3, 2]
            with pytest.raises(WrongExpectedTag):
                client.append("{t}a", numbered(1), expected_tag=1)
            with pytest.raises(MarkRefused):
                client.move_marks(T, [("m", 1, 1)])

    await asyncio.to_thread(work)


def test_the_tag_of_these_tests_is_where_its_streams_are() -> None:
    assert partition_of("{t}a") == T
