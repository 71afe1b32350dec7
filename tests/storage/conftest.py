"""Fixtures of the storage room: a PostgreSQL server, and a schema of its own in it for each test."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from itertools import count

import asyncpg
import pytest

from tests.storage.postgres_server import DSN_VARIABLE, PostgresServer


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A server that is ours to stop and start; whoever stops it starts it again."""
    server = PostgresServer()
    server.start()
    try:
        yield server
    finally:
        server.remove()


@pytest.fixture(scope="session")
def postgres_schemas(request: pytest.FixtureRequest) -> Iterator[Iterator[str]]:
    """URLs of schemas that do not exist yet."""
    named = os.environ.get(DSN_VARIABLE)
    dsn = named or request.getfixturevalue("postgres_server").dsn
    made: list[str] = []

    def urls() -> Iterator[str]:
        for number in count():
            made.append(f"allsource_test_{os.getpid()}_{number}")
            yield f"{dsn}{'&' if '?' in dsn else '?'}schema={made[-1]}"

    yield urls()
    if named:
        asyncio.run(_drop(named, made))


async def _drop(dsn: str, schemas: list[str]) -> None:
    connection = await asyncpg.connect(dsn)
    for schema in schemas:
        await connection.execute(f'DROP SCHEMA IF EXISTS "{schema}" CASCADE')
    await connection.close()


@pytest.fixture
def postgres_url(postgres_schemas: Iterator[str]) -> str:
    """A schema for this test alone."""
    return next(postgres_schemas)
