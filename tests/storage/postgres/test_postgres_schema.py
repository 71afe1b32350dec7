"""The schema: made once however many try, refused when it is not ours, and what its views say."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest

from allsource.storage.model.errors import (
    ForeignDirectory,
    FormatTooNew,
    FormatTooOld,
    StorageFault,
    Unavailable,
)
from allsource.storage.postgres.driver import (
    Target,
    connect,
    driver,
    node_target,
    parse_target,
    with_schema,
)
from allsource.storage.postgres.migrate import (
    NODE,
    REPOSITORY,
    Wanted,
    migrations,
    prepare,
    schema_version,
)

OURS = Wanted(REPOSITORY, 32)
PREPARE = """
import asyncio, sys
from allsource.storage.postgres.driver import connect, parse_target
from allsource.storage.postgres.migrate import REPOSITORY, Wanted, prepare

async def main():
    target = parse_target(sys.argv[1], "")
    connection = await connect(target)
    sys.stdin.readline()
    print((await prepare(connection, target, Wanted(REPOSITORY, 32))).replica_id)
    await connection.close()

asyncio.run(main())
"""
STREAM = "INSERT INTO event_streams (stream_id, partition_id, current_version, watermark) VALUES "
EVENT = """
    INSERT INTO events (id, stream_id, version, partition_id, position, event_type, payload, metadata,
                        timestamp, encoding, data, metadata_bytes, append_position)
    VALUES (gen_random_uuid(), $1, $2, 0, $3, 'tested', try_jsonb($4), try_jsonb($5), now(), 0, $4, $5, $3)
"""


@pytest.fixture
def target(postgres_url: str) -> Target:
    return parse_target(postgres_url, "")


@pytest.fixture
async def bare(target: Target) -> AsyncIterator[Any]:
    """A connection to a schema that was not made yet."""
    connection = await connect(target)
    yield connection
    await connection.close()


@pytest.fixture
async def made(bare: Any, target: Target) -> Any:
    await prepare(bare, target, OURS)
    return bare


async def event(
    connection: Any, stream: str, version: int, position: int, data: bytes = b"{}", metadata: bytes = b""
) -> None:
    await connection.execute(EVENT, stream, version, position, data, metadata)


# -- migrations


def test_migrations_are_numbered_without_gaps() -> None:
    assert [migration.version for migration in migrations()] == list(range(1, len(migrations()) + 1))


async def test_migrations_may_be_run_again(bare: Any, target: Target) -> None:
    assert await schema_version(bare) == 0
    first = await prepare(bare, target, OURS)
    assert await schema_version(bare) == len(migrations())
    await bare.execute(STREAM + "('a', 0, 0, 0)")
    assert await prepare(bare, target, OURS) == first
    assert await bare.fetchval("SELECT count(*) FROM event_streams") == 1


async def test_two_processes_at_once_make_one_schema(postgres_url: str, target: Target) -> None:
    processes = [
        await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            PREPARE,
            postgres_url,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        for _ in range(4)
    ]
    answers = await asyncio.gather(*[process.communicate(b"go\n") for process in processes])
    assert [process.returncode for process in processes] == [0] * 4
    assert len({out for out, _ in answers}) == 1, "each saw another owner"


async def test_a_migration_that_fails_leaves_nothing(
    bare: Any, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = migrations()
    broken[-1] = type(broken[-1])(broken[-1].version, "broken", broken[-1].sql + "SELECT 1/0;")
    monkeypatch.setattr("allsource.storage.postgres.migrate.migrations", lambda: broken)
    with pytest.raises(asyncpg.DivisionByZeroError):
        await prepare(bare, target, OURS)
    monkeypatch.undo()
    assert await schema_version(bare) == 0
    await prepare(bare, target, OURS)


async def test_a_newer_schema_is_refused_and_left_alone(made: Any, target: Target) -> None:
    newer = len(migrations()) + 1
    await made.execute("INSERT INTO allsource_migrations VALUES ($1, 'from the future')", newer)
    with pytest.raises(FormatTooNew, match="start the newer version"):
        await prepare(made, target, OURS)
    assert await schema_version(made) == newer


@pytest.mark.parametrize("of_it", ["ALTER TABLE store DROP log_format", "UPDATE store SET log_format = 1"])
async def test_an_older_log_format_is_refused_and_left_alone(made: Any, target: Target, of_it: str) -> None:
    """Also by a version that knows a further migration: it must not begin to apply it."""
    await made.execute(of_it)
    await made.execute("DELETE FROM allsource_migrations WHERE version > 1; DROP TABLE log")
    with pytest.raises(FormatTooOld, match=r"log format 1.*Start the version that made it.*\?schema=NAME"):
        await prepare(made, target, OURS)
    assert await schema_version(made) == 1
    assert await made.fetchval("SELECT to_regclass('log')") is None


async def test_a_newer_log_format_is_refused(made: Any, target: Target) -> None:
    await made.execute("UPDATE store SET log_format = log_format + 1")
    with pytest.raises(FormatTooNew, match=r"log format 3.*start the newer version"):
        await prepare(made, target, OURS)


async def test_an_older_schema_is_brought_up_to_date(
    bare: Any, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("allsource.storage.postgres.migrate.migrations", lambda: migrations()[:1])
    await prepare(bare, target, OURS)
    assert await bare.fetchval("SELECT to_regclass('log')") is None
    monkeypatch.undo()
    await prepare(bare, target, OURS)
    assert await bare.fetchval("SELECT to_regclass('log')") is not None


@pytest.mark.parametrize(
    "other",
    [Wanted(NODE, 32), Wanted(REPOSITORY, 8), Wanted(REPOSITORY, 32, "c"), Wanted(NODE, 32, "", "n")],
)
async def test_a_schema_of_somebody_else_is_refused(made: Any, target: Target, other: Wanted) -> None:
    with pytest.raises(ForeignDirectory, match="belongs to"):
        await prepare(made, target, other)


async def test_a_schema_with_foreign_tables_is_refused(bare: Any, target: Target) -> None:
    await bare.execute(f"CREATE SCHEMA {target.schema}; CREATE TABLE events (mine text)")
    with pytest.raises(ForeignDirectory, match="holds 'events'"):
        await prepare(bare, target, OURS)
    assert await bare.fetchval("SELECT count(*) FROM events") == 0


# -- where it is


def test_urls_are_read() -> None:
    target = parse_target("postgresql://me:pw@db:5433/shop?schema=orders&sslmode=require", "default")
    assert target == Target("postgresql://me:pw@db:5433/shop?sslmode=require", "orders")
    assert parse_target("postgres://db/shop", "default").schema == "default"
    assert "pw" not in target.shown
    assert "db" in target.shown


def test_nodes_share_a_url_and_no_schema() -> None:
    url = "postgresql://me:pw@db/shop?sslmode=require"
    assert node_target(url, "n1") == Target(url, "allsource_n1")
    assert node_target(url + "&schema=other", "n1") == Target(url, "other_n1")
    assert node_target(with_schema(url + "&schema=other", "third"), "n2") == Target(url, "third_n2")
    with pytest.raises(StorageFault, match="cannot be a schema"):
        node_target(url, "n" * 60)


@pytest.mark.parametrize(
    "url", ["mysql://a/b", "postgresql://a/b?schema=", "postgresql://a/b?schema=pg_x", "postgresql://[a/b"]
)
def test_urls_that_cannot_be_right_are_refused(url: str) -> None:
    with pytest.raises(StorageFault):
        parse_target(url, "default")


async def test_a_server_that_is_not_there(tmp_path: Any) -> None:
    with pytest.raises(Unavailable, match="cannot be reached"):
        await connect(parse_target(f"postgresql://me:hunter2@/x?host={tmp_path}", "s"))


async def test_a_database_that_is_not_there(target: Target) -> None:
    absent = Target(urlunsplit(urlsplit(target.dsn)._replace(path="/absent")), "s")
    with pytest.raises(StorageFault, match="correct the connection string"):
        await connect(absent)


def test_without_the_driver_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "asyncpg", None)
    with pytest.raises(StorageFault, match=r"^[^\n]*pip install 'allsource\[postgres\]'$"):
        driver()


# -- what the tables refuse


@pytest.mark.parametrize(
    "row", ["('a', 0, -1, -1)", "('a', 0, 1, -1)", "('a', 0, 1, 2)", "('a', -1, 0, 0)", "('a', 32, 0, 0)"]
)
async def test_streams_that_cannot_be(made: Any, row: str) -> None:
    with pytest.raises(asyncpg.CheckViolationError):
        await made.execute(STREAM + row)


async def test_the_last_partition_is_in_range(made: Any) -> None:
    await made.execute(STREAM + "('a', 31, 0, 0)")


async def test_events_that_cannot_be(made: Any) -> None:
    with pytest.raises(asyncpg.ForeignKeyViolationError):
        await event(made, "a", 1, 1)
    await made.execute(STREAM + "('a', 0, 2, 2)")
    await event(made, "a", 1, 1)
    for version, position, error in (
        (0, 2, asyncpg.CheckViolationError),
        (2, 0, asyncpg.CheckViolationError),
        (1, 2, asyncpg.UniqueViolationError),
        (2, 1, asyncpg.UniqueViolationError),
    ):
        with pytest.raises(error):
            await event(made, "a", version, position)


async def test_marks_and_tags_that_cannot_be(made: Any) -> None:
    await made.execute(STREAM + "('a{t}', 0, 2, 2), ('b{t}', 0, 1, 1)")
    tagged = "UPDATE events SET tag = $3, tag_number = $4 WHERE stream_id = $1 AND version = $2"
    for position, (stream, version) in enumerate([("a{t}", 1), ("a{t}", 2), ("b{t}", 1)], 1):
        await event(made, stream, version, position)
    await made.execute(tagged, "a{t}", 1, "t", 1)
    for tag, number, error in (
        ("t", 1, asyncpg.UniqueViolationError),
        ("t", 0, asyncpg.CheckViolationError),
        ("t", None, asyncpg.CheckViolationError),
        (None, 2, asyncpg.CheckViolationError),
    ):
        with pytest.raises(error):
            await made.execute(tagged, "b{t}", 1, tag, number)
    await made.execute("INSERT INTO marks VALUES (0, 'm', 0, 0, 1)")
    for row in ("(0, 'm', 1, 0, 1)", "(0, 'n', -1, 0, 1)", "(0, 'n', 0, -1, 1)"):
        with pytest.raises(asyncpg.IntegrityConstraintViolationError):
            await made.execute(f"INSERT INTO marks VALUES {row}")


# -- what the views say


async def test_health_tells_healthy_empty_and_gaps(made: Any) -> None:
    await made.execute(
        STREAM + "('empty', 0, 0, 0), ('well', 0, 2, 2), ('late', 0, 1, 0), ('gap', 0, 3, 3)"
    )
    there = [("well", 1), ("well", 2), ("late", 1), ("gap", 1), ("gap", 3)]
    for position, (stream, version) in enumerate(there, 1):
        await event(made, stream, version, position)
    rows = await made.fetch("SELECT stream_id, gap_size, health_status FROM stream_health ORDER BY 1")
    assert [tuple(row) for row in rows] == [
        ("empty", 0, "EMPTY"),
        ("gap", 1, "GAPS"),
        ("late", 0, "UNCOMMITTED"),
        ("well", 0, "HEALTHY"),
    ]
    gapless = {
        stream: await made.fetchval("SELECT verify_stream_gapless($1)", stream)
        for stream in ("empty", "gap", "late", "well", "absent")
    }
    assert gapless == {"empty": True, "gap": False, "late": True, "well": True, "absent": None}
    await made.execute("DELETE FROM events WHERE stream_id = 'well' AND version = 2")
    assert await made.fetchval("SELECT health_status FROM stream_health WHERE stream_id = 'well'") == "GAPS"
    assert await made.fetchval("SELECT verify_stream_gapless('well')") is False


async def test_a_version_beyond_the_last_is_no_health_either(made: Any) -> None:
    await made.execute(STREAM + "('a', 0, 1, 1)")
    await event(made, "a", 2, 1)
    assert await made.fetchval("SELECT health_status FROM stream_health") == "GAPS"
    assert await made.fetchval("SELECT verify_stream_gapless('a')") is False


async def test_partition_stats(made: Any) -> None:
    await made.execute(STREAM + "('a', 3, 4, 4), ('b', 3, 2, 2), ('c', 5, 0, 0)")
    rows = await made.fetch(
        "SELECT partition_id, stream_count, total_events, avg_events_per_stream, max_events_per_stream"
        " FROM partition_stats ORDER BY 1"
    )
    assert [tuple(row) for row in rows] == [(3, 2, 6, 3, 4), (5, 1, 0, 0, 0)]
    row = await made.fetchrow("SELECT oldest_update, newest_update FROM partition_stats LIMIT 1")
    assert row["oldest_update"] <= row["newest_update"]


async def test_the_trigger_keeps_updated_at_unless_told(made: Any) -> None:
    await made.execute(STREAM + "('a', 0, 0, 0)")
    read = "SELECT updated_at FROM event_streams"
    before = await made.fetchval(read)
    await made.execute("UPDATE event_streams SET current_version = 1")
    changed = await made.fetchval(read)
    assert changed > before
    await made.execute("UPDATE event_streams SET current_version = 1")
    assert await made.fetchval(read) == changed, "nothing changed, so nothing was updated"
    await made.execute("UPDATE event_streams SET updated_at = '2020-01-01Z'")
    assert (await made.fetchval(read)).year == 2020


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b'{"a": [1, 2.50]}', '{"a": [1, 2.50]}'),
        (b"null", "null"),
        (b"", None),
        (b'{"a": "\\u0000"}', None),
        (b'"\\ud800"', None),
        (b"\xff\xfe", None),
        (b"{", None),
        (b"[" * 100_000, None),
        (b"1e999999", None),
    ],
)
async def test_jsonb_or_null_but_never_an_error(made: Any, data: bytes, found: str | None) -> None:
    assert await made.fetchval("SELECT try_jsonb($1)", data) == found


async def test_payloads_are_queryable_and_a_tenant_is_found_in_the_metadata(made: Any) -> None:
    await made.execute(STREAM + "('a', 0, 4, 4)")
    await event(made, "a", 1, 1, b'{"total": 5}', b'{"tenant_id": "acme"}')
    await event(made, "a", 2, 2, b'{"total": 50}')
    await event(made, "a", 3, 3, b'{"total": 7}', b'["no", "object"]')
    await event(made, "a", 4, 4, b"[]", b'{"tenant_id": "' + b"x" * 9000 + b'"}')
    rows = await made.fetch("SELECT tenant_id, entity_id FROM events ORDER BY version")
    assert [row["tenant_id"] for row in rows] == ["acme", "default", "default", "x" * 128]
    assert {row["entity_id"] for row in rows} == {"a"}
    found = await made.fetch("SELECT version FROM events WHERE (payload ->> 'total')::int > 6 ORDER BY 1")
    assert [row["version"] for row in found] == [2, 3]


async def test_the_indexes_that_were_asked_for(made: Any, target: Target) -> None:
    rows = await made.fetch(
        "SELECT indexname FROM pg_indexes"
        " WHERE schemaname = $1 AND tablename IN ('events', 'event_streams')",
        target.schema,
    )
    assert {row["indexname"] for row in rows} == {
        *("event_streams_pkey", "event_streams_by_partition", "event_streams_active"),
        *("events_pkey", "events_stream_version", "events_first_ids"),
        *("events_by_tag", "events_by_tenant", "events_by_entity", "events_by_type", "events_by_time"),
    }
