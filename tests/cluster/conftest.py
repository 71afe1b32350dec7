"""The tests of the transport run on both event loops: uvloop, as a node does, and asyncio's own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping

import pytest
import pytest_asyncio
import uvloop

from tests.cluster.live import hang_up_everything

_ON_BOTH_LOOPS = {"test_server.py", "test_peers.py"}


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    if item.path.name in _ON_BOTH_LOOPS:
        return {"uvloop": uvloop.new_event_loop, "asyncio": asyncio.new_event_loop}
    return {"asyncio": asyncio.new_event_loop}


@pytest_asyncio.fixture
async def hang_up() -> AsyncIterator[None]:
    """Whatever a test opened and did not close, also when it failed, is closed behind it."""
    yield
    await hang_up_everything()
