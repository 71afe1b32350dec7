"""A fake cluster of three, and a client of it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from allsource.client import Client
from tests.client.fake_node import SECRET, FakeCluster


@pytest.fixture
async def cluster() -> AsyncIterator[FakeCluster]:
    cluster = await FakeCluster("n1", "n2", "n3").start()
    yield cluster
    await cluster.stop()


@pytest.fixture
async def client(cluster: FakeCluster) -> AsyncIterator[Client]:
    addresses = [node.address for node in cluster.nodes.values()]
    async with Client.connect(addresses, secret=SECRET) as client:
        yield client
