"""The blocking face: the same answers, from plain code and from many threads."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from allsource.client import (
    BlockingClient,
    ConnectionRefused,
    NewEvent,
    NotFound,
    OutcomeUnknown,
    Unavailable,
)
from allsource.storage.model.partition import partition_of
from tests.client.fake_node import SECRET, FakeCluster


@pytest.fixture
def fake() -> Iterator[FakeCluster]:
    """A cluster that runs in a thread of its own, as far away from the caller as a real one."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def start() -> FakeCluster:
        return await FakeCluster("n1", "n2").start()

    cluster = asyncio.run_coroutine_threadsafe(start(), loop).result(10)
    yield cluster
    asyncio.run_coroutine_threadsafe(cluster.stop(), loop).result(10)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)
    loop.close()


def test_every_call(fake: FakeCluster) -> None:
    with BlockingClient(fake["n1"].address, secret=SECRET) as client:
        result = client.append("{t}a", [NewEvent.json("T", n) for n in range(5)], "no_stream")
        assert result.streams == (("{t}a", 1, 5),)
        assert client.append_many([("{t}b", NewEvent.json("T", 5), "any")]).first_position == 6
        assert client.read_stream("{t}a", limit=2).next_from == 3
        assert client.stream_info("{t}a").current_version == 5
        assert [e.json() for e in client.stream("{t}a", page=2)] == [0, 1, 2, 3, 4]
        assert [e.json() for e in client.stream("{t}a", backward=True)] == [4, 3, 2, 1, 0]
        assert client.read_partition(partition_of("{t}a")).last_position == 6
        assert [e.json() for e in client.scan(page=4)] == [0, 1, 2, 3, 4, 5]
        assert client.cluster() == fake.store.view
        with pytest.raises(NotFound):
            client.read_stream("nobody")
        with pytest.raises(NotFound):
            list(client.stream("nobody"))


def test_a_long_stream_in_handfuls_and_leaving_it_early(fake: FakeCluster) -> None:
    with BlockingClient(fake["n1"].address, secret=SECRET) as client:
        for first in range(0, 2500, 500):
            client.append("s", [NewEvent.json("T", n) for n in range(first, first + 500)])
        assert [e.json() for e in client.stream("s", page=700)] == list(range(2500))
        events = client.stream("s", page=10)
        assert next(events).version == 1
        del events


def test_many_threads_share_one_client(fake: FakeCluster) -> None:
    with BlockingClient(fake["n1"].address, secret=SECRET) as client, ThreadPoolExecutor(16) as pool:

        def work(thread: int) -> list[int]:
            return [
                client.append(f"s{thread}", NewEvent.json("T", n)).streams[0].last_version
                for n in range(25)
            ]

        assert list(pool.map(work, range(16))) == [list(range(1, 26))] * 16
    assert fake["n1"].accepted == 1


def test_life(fake: FakeCluster) -> None:
    before = threading.active_count()
    client = BlockingClient(fake["n1"].address, secret=SECRET)
    with pytest.raises(Unavailable, match="not open"):
        client.cluster()
    client.open()
    client.close()
    client.close()
    with pytest.raises(Unavailable):
        client.append("s", NewEvent("T"))
    with pytest.raises(ConnectionRefused), BlockingClient(fake["n1"].address, secret="guess"):
        pass
    assert threading.active_count() == before


def test_a_client_that_is_closed_while_others_use_it_leaves_nobody_waiting(fake: FakeCluster) -> None:
    """Whoever comes late is told so; whoever has been heard gets an end. Many rounds: it is a race."""
    for _ in range(20):
        client = BlockingClient(fake["n1"].address, secret=SECRET)
        client.open()
        begun = threading.Barrier(9)

        def use(client: BlockingClient = client, begun: threading.Barrier = begun) -> type[Exception]:
            begun.wait()
            while True:
                try:
                    client.append("s", NewEvent.json("T"))
                    list(client.stream("s", page=1))
                except Exception as error:
                    return type(error)

        with ThreadPoolExecutor(8) as pool:
            ends = [pool.submit(use) for _ in range(8)]
            begun.wait()
            client.close()
            found = {end.result(30) for end in ends}
        assert found <= {Unavailable, OutcomeUnknown}
