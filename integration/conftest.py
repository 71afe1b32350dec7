"""Fixtures of the stories, and the promise that they leave no process behind."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from integration.harness import Clusters
from tests.orphans import _leaves_no_process, _session_leaves_no_process
from tests.storage.postgres_server import PostgresServer

__all__ = ["_leaves_no_process", "_session_leaves_no_process"]


@pytest.fixture
async def clusters(tmp_path: Path) -> AsyncIterator[Clusters]:
    """Start clusters with `await clusters.start(3)`; they are gone when the test is."""
    async with AsyncExitStack() as stack:
        yield Clusters(tmp_path, stack)


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    """A PostgreSQL server for this test alone."""
    with PostgresServer() as server:
        yield server
