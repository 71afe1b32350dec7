"""A cluster whose nodes keep their logs in PostgreSQL: the same drill, and what SQL shows afterwards."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
from pathlib import Path
from random import Random
from typing import Any

import asyncpg
import pytest

from allsource.node.cli.drill.rounds import KILL, run_round
from integration.harness import PATIENCE_S, Clusters, faults, written_to
from integration.test_command_line import ALLSOURCE, allsource
from tests.storage.postgres_server import PostgresServer

SEED = 20260801
HEALTH = "SELECT health_status, count(*) FROM {}.stream_health GROUP BY 1"
COPIED = """
    SELECT (SELECT count(*) FROM {0}.events) = (SELECT sum(event_count) FROM {0}.log),
           (SELECT sum(total_events) FROM {0}.partition_stats)
"""
NUMBERED = """
    SELECT count(*) > 0 AND bool_and(before = tag_number - 1 AND earlier < position),
           md5(string_agg(id::text || tag || tag_number, ',' ORDER BY tag, tag_number))
    FROM (SELECT id, tag, tag_number, position,
                 lag(tag_number, 1, 0::bigint) OVER (PARTITION BY tag ORDER BY tag_number) AS before,
                 lag(position, 1, 0::bigint) OVER (PARTITION BY tag ORDER BY tag_number) AS earlier
          FROM {}.events WHERE tag IS NOT NULL) AS numbered
"""


async def test_nodes_on_postgres_survive_the_drill_and_it_leaves_no_schema(
    clusters: Clusters, server: PostgresServer
) -> None:
    config = clusters.config(3, storage={"backend": "postgres", "dsn": server.dsn})
    done = await asyncio.to_thread(
        allsource, "drill", "kill-node", "--config", config, "--rounds", "2", "--json"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout)
    assert (report["ok"], report["faults"], report["storage"]) == (True, [], "postgres")
    assert len(report["rounds"]) == 2
    assert report["writes"]["acknowledged"] > 100
    assert await _drilled(server) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_an_interrupted_drill_leaves_nothing(
    clusters: Clusters, server: PostgresServer, number: signal.Signals, tmp_path: Path
) -> None:
    config = clusters.config(3, storage={"backend": "postgres", "dsn": server.dsn})
    place = tmp_path / "place"
    place.mkdir()
    drill = await asyncio.create_subprocess_exec(
        *ALLSOURCE, "drill", "kill-node", "--config", str(config), "--rounds", "1000",
        stderr=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, "TMPDIR": str(place)},
    )  # fmt: skip
    assert drill.stderr is not None
    async with asyncio.timeout(PATIENCE_S):
        while b"round 1/" not in (line := await drill.stderr.readline()):
            assert line, "the drill ended by itself"
        assert len(await _drilled(server)) == 3
        drill.send_signal(number)
        out, err = await drill.communicate()
    assert (drill.returncode, out) == (130, b""), err
    assert b"Traceback" not in err
    assert await _drilled(server) == []
    assert list(place.iterdir()) == []


async def _drilled(server: PostgresServer) -> list[str]:
    """The schemas in the server that belong to drills."""
    connection = await asyncpg.connect(server.dsn)
    try:
        rows = await connection.fetch("SELECT schema_name FROM information_schema.schemata")
    finally:
        await connection.close()
    return sorted(row[0] for row in rows if row[0].startswith("drill_"))


async def test_sql_shows_what_was_committed_also_after_kills(
    clusters: Clusters, server: PostgresServer
) -> None:
    cluster = await clusters.start(3, storage={"backend": "postgres", "dsn": server.dsn})
    async with written_to(cluster, SEED) as writers:
        await run_round(1, KILL, cluster, writers, Random(SEED), victims=1)
    assert await faults(cluster, writers.history) == []
    assert await cluster.stop() == []
    connection = await asyncpg.connect(server.dsn)
    try:
        schemas = [f"allsource_{node_id}" for node_id in cluster.ids]
        shown = [await _shown(connection, schema) for schema in schemas]
        tags = [tuple(await connection.fetchrow(NUMBERED.format(schema))) for schema in schemas]
    finally:
        await connection.close()
    # What is left is committed to the last entry, and was copied before the nodes ended.
    assert [statuses for statuses, _, _ in shown] == [{"HEALTHY"}] * 3
    assert all(whole for _, whole, _ in shown)
    assert len({events for _, _, events in shown}) == 1
    assert [gapless for gapless, _ in tags] == [True] * 3
    assert len({numbers for _, numbers in tags}) == 1


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


@pytest.mark.parametrize(
    ("command", "status"),
    [
        (("node", "{}", "--id", "n1"), 73),
        (("launch", "{}"), 1),
        (("drill", "kill-node", "--config", "{}"), 1),
        (("bench", "--config", "{}"), 1),
        (("config", "check", "{}"), 0),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
async def test_without_the_driver_a_line_says_what_to_install(
    clusters: Clusters, command: tuple[str, ...], status: int, tmp_path: Path
) -> None:
    dsn = "postgresql://me:hunter2@127.0.0.1:1/events"
    config = clusters.config(3, storage={"backend": "postgres", "dsn": dsn})
    (tmp_path / "place").mkdir()
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    (hidden / "asyncpg.py").write_text("raise ImportError('as in the base install')")
    environment = {"PYTHONPATH": str(hidden), "TMPDIR": str(tmp_path / "place")}
    done = await asyncio.to_thread(allsource, *(one.format(config) for one in command), **environment)
    assert done.returncode == status
    (line,) = done.stderr.splitlines()
    assert line.endswith("the PostgreSQL driver is not installed; run: pip install 'allsource[postgres]'")
    assert "hunter2" not in done.stdout + done.stderr
    assert list((tmp_path / "place").iterdir()) == []


async def test_a_drill_never_touches_the_schemas_of_the_cluster_itself(clusters: Clusters) -> None:
    dsn = "postgresql://me:hunter2@127.0.0.1:1/events"
    config = clusters.config(3, storage={"backend": "postgres", "dsn": dsn})
    done = await asyncio.to_thread(
        allsource, "drill", "kill-node", "--config", config, ALLSOURCE__STORAGE__DSN=dsn
    )
    assert done.returncode == 1
    assert "unset ALLSOURCE__STORAGE__DSN" in done.stderr
