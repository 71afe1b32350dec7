"""The examples of the README and of this room's pages, one for each backend, run as they stand."""

from __future__ import annotations

import ast
import asyncio
import inspect
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest

import allsource.storage
import allsource.storage.postgres
from tests.examples import README, fenced, literal, replaced
from tests.storage.postgres_server import PostgresServer

POSTGRES = "postgresql://user:password@localhost/shop"


@pytest.fixture
async def shop(postgres_server: PostgresServer) -> str:
    """A database named as the examples name it, empty, on the tests' server."""
    connection = await asyncpg.connect(postgres_server.dsn)
    try:
        await connection.execute("DROP DATABASE IF EXISTS shop WITH (FORCE)")
        await connection.execute("CREATE DATABASE shop")
    finally:
        await connection.close()
    return urlunsplit(urlsplit(postgres_server.dsn)._replace(path="/shop"))


async def test_the_readmes_program_runs_with_each_backend(tmp_path: Path, shop: str) -> None:
    text = README.read_text()
    (program,) = (block for block in fenced(text, "python") if "open_repository" in block)
    (calls,) = (block for block in fenced(text, "sh") if "orders.py" in block)
    (tmp_path / "orders.py").write_text(program)
    calls = replaced(
        calls,
        {
            "python orders.py": f"{sys.executable} orders.py",
            "/var/lib/orders": f"{tmp_path}/orders",
            POSTGRES: f"'{shop}'",
        },
    )
    assert len(calls.splitlines()) == 3
    for call in calls.splitlines():
        done = await asyncio.to_thread(
            subprocess.run, ["sh", "-c", call], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert (done.stdout, done.returncode) == ("1 OrderPlaced {'total': 42}\n", 0), done.stderr
    assert (tmp_path / "orders" / "FORMAT").exists()

    (query,) = fenced(text, "sql")
    connection = await asyncpg.connect(shop)
    try:
        assert [tuple(row) for row in await connection.fetch(query)] == [
            ("order-1", 1, "OrderPlaced", "42")
        ]
    finally:
        await connection.close()


def example_of(page: ModuleType) -> str:
    (example,) = literal(inspect.getdoc(page) or "")
    return example


async def run(example: str) -> None:
    """What `python -m asyncio` does with it."""
    code = compile(example, "example", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    coroutine = eval(code, {})
    await coroutine


async def test_the_pages_example_runs_with_each_backend(
    tmp_path: Path, shop: str, capsys: pytest.CaptureFixture[str]
) -> None:
    places = {"/var/lib/shop": f"{tmp_path}/shop", POSTGRES: shop}
    await run(replaced(example_of(allsource.storage), places))
    assert capsys.readouterr().out.splitlines() == ["1", "[{'total': 42}]", "[{'total': 42}]"]
    assert (tmp_path / "shop" / "FORMAT").exists()


async def test_the_postgres_pages_example_runs(shop: str, capsys: pytest.CaptureFixture[str]) -> None:
    await run(replaced(example_of(allsource.storage.postgres), {POSTGRES: shop}))
    assert capsys.readouterr().out == "[('order-1', '42')]\n"
