"""A cluster whose nodes keep their logs in PostgreSQL: the same drill, and what SQL shows afterwards."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import asyncpg
import pytest

from integration.harness import Clusters
from integration.test_command_line import allsource
from tests.storage.postgres_server import PostgresServer

HEALTH = "SELECT health_status, count(*) FROM {}.stream_health GROUP BY 1"
COPIED = """
    SELECT (SELECT count(*) FROM {0}.events) = (SELECT sum(event_count) FROM {0}.log),
           (SELECT sum(total_events) FROM {0}.partition_stats)
"""


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    server = PostgresServer()
    server.start()
    try:
        yield server
    finally:
        server.remove()


async def test_nodes_on_postgres_survive_the_drill(clusters: Clusters, server: PostgresServer) -> None:
    storage = {"backend": "postgres", "dsn": server.dsn}
    config = clusters.config(3, storage=storage)
    done = await asyncio.to_thread(
        allsource, "drill", "kill-node", "--config", config, "--rounds", "2", "--json"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout)
    assert report["ok"] is True
    assert report["faults"] == []
    assert report["writes"]["acknowledged"] > 100
    connection = await asyncpg.connect(server.dsn)
    try:
        schemas = await connection.fetch("SELECT schema_name FROM information_schema.schemata")
        drilled = sorted(row[0] for row in schemas if row[0].startswith("drill_"))
        assert [name[-2:] for name in drilled] == ["n1", "n2", "n3"]
        shown = [await _shown(connection, schema) for schema in drilled]
    finally:
        await connection.close()
    # What a drill leaves is committed to the last entry, and copied before the nodes ended.
    assert [statuses for statuses, _, _ in shown] == [{"HEALTHY"}] * 3
    assert all(whole for _, whole, _ in shown)
    assert len({events for _, _, events in shown}) == 1


async def _shown(connection: Any, schema: str) -> tuple[set[str], bool, int]:
    statuses = {row[0] for row in await connection.fetch(HEALTH.format(schema))}
    return (statuses, *(await connection.fetchrow(COPIED.format(schema))))


async def test_a_server_that_is_not_there_is_one_clear_line(clusters: Clusters) -> None:
    config = clusters.config(
        1, storage={"backend": "postgres", "dsn": "postgresql://me:hunter2@127.0.0.1:1/events"}
    )
    done = await asyncio.to_thread(allsource, "node", config, "--id", "n1")
    assert done.returncode not in (0, 70)
    assert len(done.stderr.strip().splitlines()) == 1
    assert "cannot be reached" in done.stderr
    assert "hunter2" not in done.stdout + done.stderr


async def test_a_drill_never_touches_the_schemas_of_the_cluster_itself(clusters: Clusters) -> None:
    dsn = "postgresql://me:hunter2@127.0.0.1:1/events"
    config = clusters.config(3, storage={"backend": "postgres", "dsn": dsn})
    done = await asyncio.to_thread(
        allsource, "drill", "kill-node", "--config", config, ALLSOURCE__STORAGE__DSN=dsn
    )
    assert done.returncode == 1
    assert "unset ALLSOURCE__STORAGE__DSN" in done.stderr
