"""The driver, where the server is, and what its errors mean to a caller.

asyncpg is an extra (`pip install 'allsource[postgres]'`), so nothing imports it before somebody asks for
PostgreSQL; everybody here gets it from `driver()`.

An error of the server before COMMIT is definite: the transaction is rolled back, whatever was the matter.
A connection that breaks before COMMIT is sent is definite too, for the same reason. Only a connection that
breaks while COMMIT is under way leaves the outcome unknown. `explain` cannot tell that: whoever sent the
COMMIT must (`pool`).
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from types import ModuleType
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from allsource.storage.model.errors import AllsourceError, DiskFull, Overloaded, StorageFault, Unavailable

SCHEMA = "allsource"
SCHEMA_BYTES_MAX = 63
NO_CHECKPOINTS = "use pg_dump, or copy the server's data directory as PostgreSQL's manual says"
CONNECT_TIMEOUT_S = 10.0
MISSING_DRIVER = "the PostgreSQL driver is not installed; run: pip install 'allsource[postgres]'"


def driver() -> ModuleType:
    """asyncpg; raises `StorageFault` with the line that installs it."""
    try:
        return importlib.import_module("asyncpg")
    except ImportError:
        raise StorageFault(MISSING_DRIVER) from None


@dataclass(frozen=True, slots=True)
class Target:
    """A schema in a database."""

    dsn: str
    """For asyncpg (libpq's form). Holds a password: never printed."""
    schema: str

    @property
    def shown(self) -> str:
        """How messages name it."""
        parts = urlsplit(self.dsn)
        host = parts.hostname or dict(parse_qsl(parts.query)).get("host") or "the local server"
        return f"schema {self.schema!r} of {parts.path.strip('/') or 'the default database'} at {host}"


def parse_target(url: str, schema: str = SCHEMA) -> Target:
    """Read `postgresql://user:password@host/database?schema=NAME`; `schema` if the URL names none.

    Raises `StorageFault`, without the password in it.
    """
    try:
        parts = urlsplit(url)
        query = parse_qsl(parts.query, keep_blank_values=True)
    except ValueError as error:
        raise StorageFault(f"the PostgreSQL URL cannot be read: {error}") from None
    if parts.scheme not in ("postgresql", "postgres"):
        raise StorageFault("a PostgreSQL URL looks like postgresql://user:password@host/database")
    for name, value in query:
        if name == "schema":
            schema = value
    _check_schema(schema)
    rest = urlencode([(name, value) for name, value in query if name != "schema"])
    return Target(urlunsplit(parts._replace(query=rest)), schema)


def with_schema(url: str, schema: str) -> str:
    """The same database, another schema."""
    parts = urlsplit(parse_target(url).dsn)
    return urlunsplit(parts._replace(query=urlencode([*parse_qsl(parts.query), ("schema", schema)])))


def node_target(url: str, node_id: str) -> Target:
    """Where a node keeps its log: nodes share the URL of their configuration, each has its own schema."""
    shared = parse_target(url)
    _check_schema(schema := f"{shared.schema}_{node_id}")
    return Target(shared.dsn, schema)


def _check_schema(schema: str) -> None:
    if not schema or "\0" in schema or len(schema.encode()) > SCHEMA_BYTES_MAX or schema.startswith("pg_"):
        raise StorageFault(
            f"{schema!r} cannot be a schema: 1 to {SCHEMA_BYTES_MAX} bytes, not beginning with pg_"
        )


def quoted(name: str) -> str:
    """An identifier as SQL writes it."""
    return '"' + name.replace('"', '""') + '"'


def session_settings(target: Target, **more: str) -> dict[str, str]:
    """What every session of ours is started with.

    We choose the isolation level. Under a stricter default of the user's, an append that got its lock
    would read what was there before it had it. Our statements are lookups by key, so they are planned
    once, for any argument (planning an append took as long as doing it), and never by the size of a table
    that was empty at the time.
    """
    return {
        "search_path": quoted(target.schema),
        "application_name": "allsource",
        "default_transaction_isolation": "read committed",
        "jit": "off",
        "plan_cache_mode": "force_generic_plan",
        "enable_seqscan": "off",
        "enable_hashjoin": "off",
        "enable_mergejoin": "off",
        "timezone": "UTC",
        **more,
    }


async def connect(target: Target, **settings: str) -> Any:
    """A connection with our session settings; raises `Unavailable` or `StorageFault`."""
    asyncpg = driver()
    try:
        return await asyncpg.connect(
            target.dsn, timeout=CONNECT_TIMEOUT_S, server_settings=session_settings(target, **settings)
        )
    except ValueError as error:  # a malformed port, an unknown option
        raise StorageFault(f"the connection string of {target.shown} cannot be used: {error}") from None
    except connection_errors() as error:
        raise explain(error, target) from error


def connection_errors() -> tuple[type[BaseException], ...]:
    """What asyncpg raises for trouble with the server, the connection or the statement."""
    asyncpg = driver()
    return (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError)


def all_errors() -> tuple[type[BaseException], ...]:
    """Those, and ours."""
    return (*connection_errors(), AllsourceError)


def is_lost(error: BaseException) -> bool:
    """Whether the connection broke, or the server went away: what it was doing may or may not be done."""
    asyncpg = driver()
    lost = (
        asyncpg.PostgresConnectionError,
        asyncpg.OperatorInterventionError,  # 57: shut down, crashed, starting up ...
        asyncpg.InterfaceError,
        OSError,
        TimeoutError,
    )
    # ... but a cancelled statement ends only itself, and a value that could not be encoded was never sent.
    return isinstance(error, lost) and not isinstance(error, (asyncpg.QueryCanceledError, ValueError))


def is_passing(error: BaseException) -> bool:
    """Whether the same transaction may well succeed at once: deadlocks and serialization failures."""
    asyncpg = driver()
    return isinstance(error, (asyncpg.SerializationError, asyncpg.DeadlockDetectedError))


def is_full(error: BaseException) -> bool:
    """Whether the server's disk is full (SQLSTATE 53100)."""
    full: type[BaseException] = driver().DiskFullError
    return isinstance(error, full)


def explain(error: BaseException, target: Target) -> AllsourceError:
    """The error of our family for something that surely did not happen."""
    asyncpg = driver()
    where, said = target.shown, str(error) or type(error).__name__
    if is_full(error):
        return DiskFull(f"the disk of the PostgreSQL server is full ({said}); reads go on")
    if isinstance(error, asyncpg.QueryCanceledError):
        return Overloaded(f"{where}: a statement took too long and was rolled back ({said})")
    if isinstance(error, asyncpg.LockNotAvailableError):
        return Overloaded(f"{where}: others hold its locks for too long ({said}); try again")
    if isinstance(error, asyncpg.TooManyConnectionsError):
        return Overloaded(f"{where}: the server takes no more connections ({said}); raise max_connections")
    if is_passing(error):
        return Overloaded(f"{where}: rolled back again and again ({said}); try again")
    if isinstance(error, (asyncpg.InvalidAuthorizationSpecificationError, asyncpg.InvalidCatalogNameError)):
        return StorageFault(f"{where}: {said}; correct the connection string")
    if isinstance(error, asyncpg.InsufficientPrivilegeError):
        return StorageFault(f"{where}: {said}; grant this user CREATE on the database, or on its schema")
    if is_lost(error):
        return Unavailable(
            f"{where}: the server cannot be reached, or went away ({said}); nothing happened"
        )
    return StorageFault(f"{where}: {said}")
