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
    with PostgresServer() as server:
        yield server


@pytest.fixture(scope="session")
def postgres_own_schemas(postgres_server: PostgresServer) -> Iterator[str]:
    """URLs of schemas that do not exist yet, on the server that is ours to stop."""
    return (url_of(postgres_server.dsn, f"own_{number}") for number in count())


@pytest.fixture(scope="session")
def postgres_schemas(request: pytest.FixtureRequest) -> Iterator[Iterator[str]]:
    """URLs of schemas that do not exist yet, on the server that tests were told to use, else on ours."""
    named = os.environ.get(DSN_VARIABLE)
    if not named:
        yield request.getfixturevalue("postgres_own_schemas")
        return
    made: list[str] = []

    def urls() -> Iterator[str]:
        for number in count():
            made.append(f"allsource_test_{os.getpid()}_{number}")
            yield url_of(named, made[-1])

    yield urls()
    asyncio.run(_drop(named, made))


def url_of(dsn: str, schema: str) -> str:
    return f"{dsn}{'&' if '?' in dsn else '?'}schema={schema}"


async def _drop(dsn: str, schemas: list[str]) -> None:
    connection = await asyncpg.connect(dsn)
    for schema in schemas:
        await connection.execute(f'DROP SCHEMA IF EXISTS "{schema}" CASCADE')
    await connection.close()


@pytest.fixture
def postgres_url(postgres_schemas: Iterator[str]) -> str:
    """A schema for this test alone."""
    return next(postgres_schemas)


@pytest.fixture
def own_url(postgres_own_schemas: Iterator[str]) -> str:
    """A schema for this test alone, on the server that is ours to stop."""
    return next(postgres_own_schemas)
