"""A repository's connections: a bounded pool, single statements, and transactions with honest outcomes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar

from allsource.storage.model.errors import OutcomeUnknown, Overloaded, StorageFault
from allsource.storage.postgres.driver import (
    CONNECT_TIMEOUT_S,
    Target,
    connection_errors,
    driver,
    explain,
    is_lost,
    session_settings,
)

T = TypeVar("T")


class Pool:
    """Connections to one schema: none before `open`, none after `close`."""

    def __init__(
        self,
        target: Target,
        *,
        size: int,
        acquire_timeout_s: float,
        statement_timeout_s: float,
        durability: str,
    ) -> None:
        self._target = target
        self._size = size
        self._acquire_timeout_s = acquire_timeout_s
        self._statement_timeout_s = statement_timeout_s
        self._durability = durability
        self._pool: Any = None

    async def open(self) -> None:
        """From now on connections are made when they are wanted."""
        milliseconds = str(int(self._statement_timeout_s * 1000))
        settings = {
            "statement_timeout": milliseconds,
            "lock_timeout": milliseconds,
            "synchronous_commit": "on" if self._durability == "fsync" else "off",
        }
        self._pool = await driver().create_pool(
            self._target.dsn,
            min_size=0,
            max_size=self._size,
            timeout=CONNECT_TIMEOUT_S,
            # The server ends a statement in time; this is for a server that says nothing any more.
            command_timeout=self._statement_timeout_s + 5,
            reset=_leave_as_it_is,
            server_settings=session_settings(self._target, **settings),
        )

    async def close(self) -> None:
        """Wait for what is under way, then close every connection."""
        pool, self._pool = self._pool, None
        if pool is not None:
            await pool.close()

    def terminate(self) -> None:
        """Break every connection off where it stands."""
        self._pool.terminate()

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Any]:
        """A connection; raises `Overloaded` if none becomes free in time."""
        pool = self._pool  # closing forgets it, and waits for what is under way
        if pool is None:
            raise StorageFault("this repository is not open; use it in `async with`")
        try:
            # Not acquire's own timeout: before Python 3.12 that is a task, a tenth of a small read.
            async with asyncio.timeout(self._acquire_timeout_s):
                connection = await pool.acquire()
        except TimeoutError as error:
            raise Overloaded(
                f"{self._target.shown}: no connection became free within {self._acquire_timeout_s:g} s;"
                f" the pool has {self._size}"
            ) from error
        except connection_errors() as error:
            raise explain(error, self._target) from error
        try:
            yield connection
        finally:
            await pool.release(connection)

    async def fetch(self, query: str, *arguments: Any) -> list[Any]:
        """The rows of a query. Asked once more, on another connection, if the first one is lost."""
        for left in (1, 0):
            try:
                async with self.connection() as connection:
                    rows: list[Any] = await connection.fetch(query, *arguments)
                    return rows
            except connection_errors() as error:
                if left == 0 or not is_lost(error):
                    raise explain(error, self._target) from error
        raise AssertionError("the last try returns or raises")

    async def transaction(self, work: Callable[[Any], Awaitable[T]]) -> T:
        """Do the work in one transaction. What this raises, except `OutcomeUnknown`, is definite: nothing
        happened."""
        async with self.connection() as connection:
            try:
                await connection.execute("BEGIN")
                done = await work(connection)
            except Exception:
                await _roll_back(connection)
                raise
            except BaseException:  # cancelled: there is no time for a conversation
                _drop(connection)
                raise
            await self._commit(connection)
            return done

    async def _commit(self, connection: Any) -> None:
        try:
            await connection.execute("COMMIT")
        except connection_errors() as error:
            if is_lost(error):
                _drop(connection)  # it may still be in the transaction, and the pool does not ask
                raise OutcomeUnknown(
                    f"{self._target.shown} was lost while it committed ({error});"
                    " retry with the same event ids"
                ) from error
            await _roll_back(connection)
            raise
        except BaseException:
            _drop(connection)
            raise


async def _leave_as_it_is(connection: Any) -> None:
    """We change nothing in a session, so there is nothing to reset (it would be one more round trip)."""


async def _roll_back(connection: Any) -> None:
    try:
        await connection.execute("ROLLBACK")
    except connection_errors():
        _drop(connection)
    except BaseException:
        _drop(connection)
        raise


def _drop(connection: Any) -> None:
    """Break it off; the server rolls back what it has lost."""
    with suppress(driver().InterfaceError):  # it broke by itself, and the pool has it back already
        connection.terminate()
