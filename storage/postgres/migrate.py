"""Bringing a schema up to date, and refusing one that is not ours.

The steps are plain SQL files, `migrations/NNNN_name.sql`, applied in order, each once, all in one
transaction together with the note that they were: a schema is at one version or at the next, never in
between. An advisory lock makes a second process wait until the first has committed, then find nothing
left to do. A file that was released is never changed; what is new goes into a new one.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from typing import Any
from uuid import uuid4

from allsource.storage.model.entry import FORMAT
from allsource.storage.model.errors import ForeignDirectory, FormatTooNew, FormatTooOld, StorageFault
from allsource.storage.model.identity import Identity
from allsource.storage.postgres.driver import Target, quoted

REPOSITORY, NODE = "repository", "node"
SERVER_VERSION_MIN = 14

_LOCK = "SELECT pg_advisory_xact_lock(hashtextextended('allsource migrations ' || $1, 0))"
_TABLE = """
    CREATE TABLE IF NOT EXISTS allsource_migrations (
        version integer PRIMARY KEY, name text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())
"""
_STRANGERS = (
    "SELECT relname FROM pg_class WHERE relnamespace = to_regnamespace($1) ORDER BY relname LIMIT 1"
)


_SAYS_FORMAT = """
    SELECT count(*) FROM pg_attribute WHERE attrelid = to_regclass('store') AND attname = 'log_format'
"""


@dataclass(frozen=True, slots=True)
class Migration:
    """One file."""

    version: int
    name: str
    sql: str


@dataclass(frozen=True, slots=True)
class Wanted:
    """Whose the schema is, or is to be."""

    kind: str
    partitions: int
    cluster_id: str = ""
    node_id: str = ""


def migrations() -> list[Migration]:
    """All that this version of allsource knows, oldest first."""
    folder = resources.files("allsource.storage.postgres") / "migrations"
    found = []
    for file in folder.iterdir():
        number, _, name = file.name.removesuffix(".sql").partition("_")
        if file.name.endswith(".sql"):
            found.append(Migration(int(number), name, file.read_text(encoding="utf-8")))
    return sorted(found, key=lambda migration: migration.version)


async def prepare(connection: Any, target: Target, wanted: Wanted) -> Identity:
    """Make the schema or bring it up to date, check whose it is, and return that.

    May be called at any time, by many at once. Raises `FormatTooNew`, `FormatTooOld` or
    `ForeignDirectory`, having changed nothing, or `StorageFault` for a server that cannot be used.
    """
    await _check_server(connection, target)
    async with connection.transaction():
        await connection.execute(_LOCK, target.schema)
        await _make_schema(connection, target)
        await _migrate(connection, target, wanted.partitions)
        return await _owner(connection, target, wanted)


async def schema_version(connection: Any) -> int:
    """The newest migration that was applied; 0 if none was."""
    if await connection.fetchval("SELECT to_regclass('allsource_migrations')") is None:
        return 0
    return int(await connection.fetchval("SELECT coalesce(max(version), 0) FROM allsource_migrations"))


async def _check_server(connection: Any, target: Target) -> None:
    major = connection.get_server_version().major
    if major < SERVER_VERSION_MIN:
        raise StorageFault(f"{target.shown}: PostgreSQL {major} is too old; it takes {SERVER_VERSION_MIN}")
    encoding = await connection.fetchval("SHOW server_encoding")
    if encoding != "UTF8":
        raise StorageFault(f"{target.shown}: the database is encoded in {encoding}; it must be UTF8")


async def _make_schema(connection: Any, target: Target) -> None:
    name = quoted(target.schema)
    if await connection.fetchval("SELECT to_regnamespace($1)", name) is None:
        await connection.execute(f"CREATE SCHEMA {name}")
    elif await schema_version(connection) == 0:
        stranger = await connection.fetchval(_STRANGERS, name)
        if stranger is not None:
            raise ForeignDirectory(
                f"{target.shown} is not empty and not allsource's (it holds {stranger!r});"
                " name another schema in the URL: ?schema=NAME",
                schema=target.schema,
            )


async def _migrate(connection: Any, target: Target, partitions: int) -> None:
    known = migrations()
    applied = await schema_version(connection)
    if applied > known[-1].version:
        raise FormatTooNew(
            f"{target.shown} is at version {applied}, this version of allsource reads up to"
            f" {known[-1].version}; start the newer version that made it",
            found=applied,
            supported=known[-1].version,
        )
    if applied:
        await _check_format(connection, target)
    await connection.execute(f"SET LOCAL allsource.partitions = {partitions:d}")
    if applied == 0:
        await connection.execute(_TABLE)
    for migration in known[applied:]:
        await connection.execute(migration.sql)
        await connection.execute(
            "INSERT INTO allsource_migrations (version, name) VALUES ($1, $2)",
            migration.version,
            migration.name,
        )


async def _check_format(connection: Any, target: Target) -> None:
    """Refuse what is stored in another format, before anything is changed."""
    says = await connection.fetchval(_SAYS_FORMAT)
    found = await connection.fetchval("SELECT log_format FROM store") if says else 1
    if found > FORMAT:
        raise FormatTooNew(
            f"{target.shown} has log format {found}, this version of allsource reads {FORMAT}; start the"
            " newer version that made it",
            found=found,
            supported=FORMAT,
        )
    if found < FORMAT:
        raise FormatTooOld(
            f"{target.shown} has log format {found}, which this version of allsource does not read;"
            " nothing was changed. Start the version that made it, read its events there and append them,"
            " with their ids, to a new schema (?schema=NAME)",
            found=found,
            supported=FORMAT,
        )


async def _owner(connection: Any, target: Target, wanted: Wanted) -> Identity:
    await connection.execute(
        "INSERT INTO store (log_format, kind, partitions, cluster_id, node_id, replica_id)"
        " VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING",
        FORMAT,
        wanted.kind,
        wanted.partitions,
        wanted.cluster_id,
        wanted.node_id,
        uuid4().hex,
    )
    row = await connection.fetchrow("SELECT * FROM store")
    for column, what in (
        ("kind", "kind of use"),
        ("partitions", "partition count"),
        ("cluster_id", "cluster"),
        ("node_id", "node"),
    ):
        found, ours = row[column], getattr(wanted, column)
        if found != ours:
            raise ForeignDirectory(
                f"{target.shown} belongs to {what} {found!r}, not {ours!r};"
                " name another schema (?schema=NAME), or correct the configuration",
                found=found,
                expected=ours,
            )
    return Identity(row["cluster_id"], row["node_id"], row["replica_id"], row["incarnation"])
