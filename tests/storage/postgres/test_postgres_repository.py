"""`PostgresEventStreamRepository` against the contract, and against a server that misbehaves."""

from __future__ import annotations

import asyncio
import pickle
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from allsource.config.schema import Limits
from allsource.node.cli.drill.history import ACKNOWLEDGED
from allsource.storage.model.answers import StreamAppend
from allsource.storage.model.append import AppendRequest, append_part, check_append
from allsource.storage.model.entry import Mark
from allsource.storage.model.errors import (
    DiskFull,
    InvalidRequest,
    MarkRefused,
    NotFound,
    OutcomeUnknown,
    Overloaded,
    StorageFault,
    Unavailable,
    WrongExpectedTag,
)
from allsource.storage.model.events import BINARY, NewEvent
from allsource.storage.model.partition import partition_of, partition_of_tag
from allsource.storage.postgres.appending import Appending
from allsource.storage.postgres.driver import connect, parse_target
from allsource.storage.postgres.repository import TRIES, PostgresEventStreamRepository
from allsource.storage.repository import EventStreamRepository, open_repository
from tests.storage.postgres_server import LossyProxy, PostgresServer
from tests.storage.repository_contract import Clock, RepositoryBackend, RepositoryContract, new
from tests.storage.rivals import MANY, ONE, PROCESSES, Rivals
from tests.waiting import DEADLINE_S

BUSY_S = 0.5
"""For what must run into its timeout: much longer than the statements beside it take on a busy machine."""


class PostgresRepositoryBackend:
    """A kill drops every connection where it stands."""

    def __init__(self, url: str) -> None:
        self._url = url

    def make(self, *, limits: Limits | None = None, clock: Clock | None = None) -> EventStreamRepository:
        made = PostgresEventStreamRepository(self._url, limits=limits)
        made._clock_us = clock or made._clock_us
        return made

    async def kill(self, events: EventStreamRepository) -> EventStreamRepository | None:
        assert isinstance(events, PostgresEventStreamRepository)
        events._pool.terminate()
        return self.make()

    def reopens(self) -> bool:
        return True


class TestPostgresRepository(RepositoryContract):
    @pytest.fixture
    def backend(self, postgres_url: str) -> RepositoryBackend:
        return PostgresRepositoryBackend(postgres_url)


# -- a server that misbehaves


@pytest.fixture
async def other(own_url: str) -> AsyncIterator[Any]:
    """Somebody else's connection to the same schema, which exists."""
    async with PostgresEventStreamRepository(own_url):
        pass
    connection = await connect(parse_target(own_url, ""))
    yield connection
    if not connection.is_closed():
        await connection.close()


@asynccontextmanager
async def repository(url: str, **options: Any) -> AsyncIterator[PostgresEventStreamRepository]:
    async with PostgresEventStreamRepository(url, **options) as events:
        yield events


async def hold_partition(connection: Any, stream: str) -> None:
    await connection.execute(
        f"BEGIN; SELECT FROM partitions WHERE partition_id = {partition_of(stream)} FOR NO KEY UPDATE"
    )


async def somebody_waits(connection: Any) -> None:
    """Until an append waits for a lock that `connection` (or another one) holds."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + 10
    query = (
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND pid <> pg_backend_pid()"
    )
    while not await connection.fetchval(query):
        assert loop.time() < deadline
        # Not a transaction's snapshot of the statistics, but the present.
        await connection.execute("SELECT pg_stat_clear_snapshot()")


async def fail_inserts(connection: Any, sqlstate: str, times: int) -> None:
    """Let the first `times` inserts of events fail in the server."""
    await connection.execute(
        f"""
        CREATE SEQUENCE fails;
        CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF nextval('fails') <= {times} THEN  -- sequences are not rolled back
                RAISE EXCEPTION 'told to' USING ERRCODE = '{sqlstate}';
            END IF;
            RETURN NEW;
        END $$;
        CREATE TRIGGER fail BEFORE INSERT ON events FOR EACH STATEMENT EXECUTE FUNCTION fail();
        """
    )


async def wait_in_commit(connection: Any) -> None:
    """Let appends wait in COMMIT, where deferred triggers run, as long as `connection` holds its lock."""
    await connection.execute(
        """
        CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN PERFORM pg_advisory_xact_lock(7); RETURN NULL; END $$;
        CREATE CONSTRAINT TRIGGER wait AFTER INSERT ON events DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW EXECUTE FUNCTION wait();
        SELECT pg_advisory_lock(7);
        """
    )


async def test_a_server_that_goes_before_commit_has_stored_nothing(
    own_url: str, other: Any, postgres_server: PostgresServer
) -> None:
    sent = new(2)
    async with repository(own_url) as events:
        await hold_partition(other, "a")
        append = asyncio.create_task(events.append_to_stream("a", sent))
        await somebody_waits(other)
        postgres_server.restart()
        with pytest.raises(Unavailable, match="nothing happened") as caught:
            await append
        assert caught.value.definite
        assert "released" not in caught.value.message, "what went wrong first is what counts"
        with pytest.raises(NotFound):
            await events.read_stream("a")
        assert not (await events.append_to_stream("a", sent, "no_stream")).duplicate


async def test_a_server_that_goes_during_commit_leaves_it_unknown(
    own_url: str, other: Any, postgres_server: PostgresServer
) -> None:
    await wait_in_commit(other)
    sent = new()
    async with repository(own_url) as events:
        append = asyncio.create_task(events.append_to_stream("a", sent))
        await somebody_waits(other)
        postgres_server.restart()
        with pytest.raises(OutcomeUnknown, match="same event ids") as caught:
            await append
        assert not caught.value.definite
        # Here it did not happen, and the retry tells.
        assert not (await events.append_to_stream("a", sent, "no_stream")).duplicate


async def test_a_commit_whose_answer_is_lost_is_unknown_and_the_retry_tells(
    own_url: str, other: Any
) -> None:
    sent = new(3)
    async with LossyProxy(own_url) as proxy, repository(proxy.url) as events:
        proxy.swallow_answer_to(b"COMMIT")
        with pytest.raises(OutcomeUnknown):
            await events.append_to_stream("a", sent, "no_stream")
        again = await events.append_to_stream("a", sent, "no_stream")
        assert again.duplicate
        assert again.streams[0][1:] == (1, 3)
        assert await events.get_watermark("a") == 3


@pytest.mark.parametrize("sqlstate", ["40001", "40P01"])
async def test_deadlocks_and_serialization_failures_are_retried(
    own_url: str, other: Any, sqlstate: str
) -> None:
    await fail_inserts(other, sqlstate, TRIES - 1)
    async with repository(own_url) as events:
        assert (await events.append_to_stream("a", new())).first_position == 1


async def test_retries_end(own_url: str, other: Any) -> None:
    await fail_inserts(other, "40001", TRIES)
    async with repository(own_url) as events:
        with pytest.raises(Overloaded, match="again and again"):
            await events.append_to_stream("a", new())
        assert (await events.append_to_stream("a", new())).first_position == 1, "a position was lost"


async def test_a_full_disk_is_said_and_reads_go_on(own_url: str, other: Any) -> None:
    async with repository(own_url) as events:
        await events.append_to_stream("a", new())
        await fail_inserts(other, "53100", 1)
        with pytest.raises(DiskFull) as caught:
            await events.append_to_stream("a", new())
        assert caught.value.definite
        assert len(await events.read_stream("a")) == 1
        assert (await events.append_to_stream("a", new())).first_position == 2


async def test_an_exhausted_pool_refuses(own_url: str, other: Any) -> None:
    async with repository(own_url, pool_size=1, acquire_timeout_s=BUSY_S) as events:
        await hold_partition(other, "a")
        first = asyncio.create_task(events.append_to_stream("a", new()))
        await somebody_waits(other)
        with pytest.raises(Overloaded, match="the pool has 1"):
            await events.append_to_stream("elsewhere", new())
        await other.execute("COMMIT")
        assert (await first).first_position == 1
        with pytest.raises(NotFound):
            await events.read_stream("elsewhere")


async def test_a_statement_that_takes_too_long_is_rolled_back(own_url: str, other: Any) -> None:
    async with repository(own_url, statement_timeout_s=BUSY_S) as events:
        await hold_partition(other, "a")
        with pytest.raises(Overloaded):
            await events.append_to_stream("a", new())
        await other.execute("COMMIT")
        assert (await events.append_to_stream("a", new(), "no_stream")).first_position == 1


async def test_while_the_server_is_down_everything_is_refused(
    own_url: str, other: Any, postgres_server: PostgresServer
) -> None:
    async with repository(own_url) as events:
        await events.append_to_stream("a", new())
        postgres_server.stop()
        try:
            for ask in (events.append_to_stream("a", new()), events.read_stream("a")):
                with pytest.raises(Unavailable, match="cannot be reached"):
                    await ask
        finally:
            postgres_server.start()
        assert len(await events.read_stream("a")) == 1


async def test_a_cancelled_append_leaves_no_lock_behind(own_url: str, other: Any) -> None:
    async with repository(own_url, pool_size=1) as events:
        await hold_partition(other, "a")
        append = asyncio.create_task(events.append_to_stream("a", new()))
        await somebody_waits(other)
        append.cancel()
        with pytest.raises(asyncio.CancelledError):
            await append
        await other.execute("COMMIT")
        assert (await events.append_to_stream("a", new(), "no_stream")).first_position == 1


async def test_closing_waits_for_what_is_under_way(own_url: str, other: Any) -> None:
    async with repository(own_url) as events:
        await hold_partition(other, "a")
        append = asyncio.create_task(events.append_to_stream("a", new()))
        await somebody_waits(other)
        closing = asyncio.create_task(events.__aexit__(None, None, None))
        await other.execute("COMMIT")  # closing has begun when this is answered
        assert events._pool._pool is None
        assert (await append).first_position == 1
        await asyncio.wait_for(closing, DEADLINE_S)
    async with repository(own_url) as events:
        assert await events.get_watermark("a") == 1


async def test_a_connection_that_was_left_in_its_commit_is_not_used_again(own_url: str, other: Any) -> None:
    await wait_in_commit(other)
    async with repository(own_url, pool_size=1) as events:
        before = await events._pool.fetch("SELECT pg_backend_pid()")
        append = asyncio.create_task(events.append_to_stream("a", new()))
        await somebody_waits(other)
        append.cancel()
        with pytest.raises(asyncio.CancelledError):
            await append
        assert await events._pool.fetch("SELECT pg_backend_pid()") != before
        await other.execute("SELECT pg_advisory_unlock(7)")
        assert (await events.append_to_stream("a", new())).first_position in (1, 2)


async def test_a_commit_that_takes_too_long_is_rolled_back(own_url: str, other: Any) -> None:
    await wait_in_commit(other)
    async with repository(own_url, pool_size=1, statement_timeout_s=BUSY_S) as events:
        with pytest.raises(Overloaded):
            await events.append_to_stream("a", new())
        await other.execute("SELECT pg_advisory_unlock(7)")
        assert (await events.append_to_stream("a", new(), "no_stream")).first_position == 1


async def test_a_stream_that_is_changed_by_hand_is_looked_at_again(own_url: str, other: Any) -> None:
    """Without the partition's lock: then the database's own condition is what notices."""
    async with repository(own_url) as events:
        await other.execute(
            "BEGIN; INSERT INTO event_streams (stream_id, partition_id, current_version)"
            f" VALUES ('a', {partition_of('a')}, 7)"
        )
        append = asyncio.create_task(events.append_to_stream("a", new()))
        await somebody_waits(other)
        await other.execute("COMMIT")
        assert (await append).streams[0].first_version == 8
        assert not await events.verify_gapless("a")


async def test_so_is_one_that_is_moved_on_by_hand(own_url: str, other: Any) -> None:
    async with repository(own_url) as events:
        await events.append_to_stream("a", new())
        await other.execute("BEGIN; UPDATE event_streams SET current_version = 7 WHERE stream_id = 'a'")
        append = asyncio.create_task(events.append_to_stream("a", new(), "exists"))
        await somebody_waits(other)
        await other.execute("COMMIT")
        assert (await append).streams[0].first_version == 8


async def test_a_tags_number_that_was_taken_by_hand_is_looked_at_again(own_url: str, other: Any) -> None:
    """Numbers are given under the partition's lock; the index is what notices who went without it."""
    async with repository(own_url) as events:
        await events.append_to_stream("a{t}", new())
        await other.execute(
            "BEGIN; INSERT INTO events (id, stream_id, version, partition_id, position, tag, tag_number,"
            " event_type, timestamp, encoding, data, metadata_bytes, append_position)"
            f" VALUES (gen_random_uuid(), 'a{{t}}', 9, {partition_of_tag('t')}, 9, 't', 2, 'Other', now(),"
            " 0, '1', '', 9)"
        )
        append = asyncio.create_task(events.append_to_stream("b{t}", new()))
        await somebody_waits(other)
        await other.execute("COMMIT")
        await append
        assert [(e.tag_number, e.type) for e in await events.read_tag("t")] == [
            (1, "Tested"),
            (2, "Other"),
            (3, "Tested"),
        ]


@pytest.mark.parametrize("begins", [False, True])
async def test_a_mark_that_was_moved_by_hand_is_looked_at_again(
    own_url: str, other: Any, begins: bool
) -> None:
    async with repository(own_url) as events:
        if not begins:
            await events.move_marks(3, [Mark("m", 1, 1)])
            await other.execute("BEGIN; UPDATE marks SET position = 5")
        else:
            await other.execute("BEGIN; INSERT INTO marks VALUES (3, 'm', 5, 1, 1)")
        move = asyncio.create_task(events.move_marks(3, [Mark("m", 4, 1)]))
        await somebody_waits(other)
        await other.execute("COMMIT")
        with pytest.raises(MarkRefused) as caught:
            await move
        assert caught.value.details["position"] == 5
        assert await events.get_mark(3, "m") == Mark("m", 5, 1)


async def test_of_rivals_for_a_tag_one_wins_each_number(postgres_url: str) -> None:
    async def write(events: EventStreamRepository, name: str, wins: int) -> int:
        tries = 0
        while wins:
            newest = await events.read_tag("t", limit=1, backward=True)
            number = newest[0].tag_number if newest else 0
            tries += 1
            try:
                await events.append(
                    StreamAppend(f"{name}{{t}}", new(1 + tries % 2), "any"),
                    expected_tag=number,
                    marks=[Mark("decided", number, 1)] if number else [],
                )
            except (WrongExpectedTag, MarkRefused):
                continue
            wins -= 1
        return tries

    async with repository(postgres_url) as one, repository(postgres_url) as other:
        writers = [write((one, other)[n % 2], f"w{n}", 6) for n in range(6)]
        tries = sum(await asyncio.gather(*writers))
        assert tries > 36, "nobody met anybody"
        found = await one.read_tag("t", limit=None)
        assert [event.tag_number for event in found] == list(range(1, len(found) + 1))
        assert [event.position for event in found] == sorted(event.position for event in found)
        decided = await one.get_mark(partition_of_tag("t"), "decided")
        assert decided is not None
        assert 0 < decided.position < len(found)


class Counted:
    """A connection that counts the statements it is given."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        self.statements: list[str] = []

    def __getattr__(self, name: str) -> Any:
        def run(statement: str, *arguments: Any) -> Any:
            self.statements.append(statement.split()[0])
            return getattr(self.connection, name)(statement, *arguments)

        return run


async def test_an_append_is_one_look_and_one_write_whatever_it_asks(own_url: str, other: Any) -> None:
    parts = tuple(append_part(f"{n}{{t}}", new(2), "no_stream") for n in range(3))
    request = AppendRequest(parts, 0, (Mark("m", 1, 1), Mark("n", 1, 1)))
    counted = Counted(other)
    checked = check_append(request, Limits())
    appending = Appending(partition_of_tag("t"), request, checked, lambda: 7)
    await appending.run(counted)
    assert counted.statements == ["SELECT", "WITH"]
    assert (await appending.run(counted)).duplicate
    assert counted.statements[2:] == ["SELECT", "SELECT"]


async def test_a_tags_newest_number_is_one_look_into_an_index(own_url: str, other: Any) -> None:
    plan = await other.fetch("EXPLAIN SELECT max(tag_number) FROM events WHERE tag = 't'")
    assert "Backward using events_by_tag" in " ".join(row[0] for row in plan)


# -- several processes


@pytest.mark.parametrize("streams", [ONE, MANY], ids=["one stream", "many streams"])
async def test_of_writers_in_four_processes_one_wins_each_version(
    postgres_url: str, streams: tuple[str, ...]
) -> None:
    pipe = asyncio.subprocess.PIPE
    processes = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.storage.rivals", postgres_url, str(number), *streams,
            stdin=pipe, stdout=pipe,
        )
        for number in range(PROCESSES)
    ]  # fmt: skip
    for process in processes:
        assert process.stdout is not None
        assert await process.stdout.readline() == b"ready\n"
    answers = await asyncio.gather(*[process.communicate(b"go\n") for process in processes])
    attempts = [attempt for out, _ in answers for attempt in pickle.loads(bytes.fromhex(out.decode()))]
    async with open_repository(postgres_url) as events:
        rivals = Rivals(events, streams)
        for attempt in sorted(attempts, key=lambda attempt: attempt.ended):
            rivals.history.add(attempt)
        await rivals.check()
    winners = {a.writer.rpartition("-")[0] for a in attempts if a.outcome == ACKNOWLEDGED}
    assert len(winners) == PROCESSES, "each process has won something"


# -- in SQL


async def test_what_a_repository_stores_can_be_asked_for_in_sql(postgres_url: str) -> None:
    async with open_repository(postgres_url) as events:
        await events.append_to_stream(
            "order-1", [NewEvent.json("Placed", {"total": 5}, {"tenant_id": "t"})]
        )
        await events.append_to_stream("order-1", [NewEvent("Seen", b"\x00\xff", b"", BINARY)], 1)
        await events.append_to_stream("order-2", [NewEvent("Odd", b'"\\u0000"')])
    connection = await connect(parse_target(postgres_url, ""))
    try:
        rows = await connection.fetch(
            "SELECT event_type, payload ->> 'total', tenant_id, data FROM events"
            " WHERE stream_id = 'order-1' ORDER BY version"
        )
        assert [tuple(row) for row in rows] == [
            ("Placed", "5", "t", b'{"total":5}'),
            ("Seen", None, "default", b"\x00\xff"),
        ]
        health = await connection.fetch("SELECT stream_id, health_status FROM stream_health ORDER BY 1")
        assert [tuple(row) for row in health] == [("order-1", "HEALTHY"), ("order-2", "HEALTHY")]
        expected = "SELECT expected_version FROM event_streams ORDER BY stream_id"
        assert [row[0] for row in await connection.fetch(expected)] == [1, None]
        assert await connection.fetchval("SELECT sum(total_events) FROM partition_stats") == 3
    finally:
        await connection.close()


async def test_tags_and_marks_can_be_asked_for_in_sql(postgres_url: str) -> None:
    async with open_repository(postgres_url) as events:
        first = await events.append(
            StreamAppend("a{t}", new(2)), StreamAppend("b{t}", new()), marks=[Mark("m", 7, 1)]
        )
        await events.append_to_stream("plain", new())
        await events.append_to_stream("b{t}", new())
        await events.move_marks(first.partition, [Mark("n", 3, 2)])
    connection = await connect(parse_target(postgres_url, ""))
    try:
        rows = await connection.fetch(
            "SELECT tag_number, stream_id, version FROM events WHERE tag = 't' ORDER BY tag_number"
        )
        assert [tuple(row) for row in rows] == [
            (1, "a{t}", 1),
            (2, "a{t}", 2),
            (3, "b{t}", 1),
            (4, "b{t}", 2),
        ]
        plain = "SELECT tag, tag_number FROM events WHERE stream_id = 'plain'"
        assert tuple(await connection.fetchrow(plain)) == (None, None)
        marks = "SELECT partition_id, name, position, generation, append_position FROM marks ORDER BY name"
        assert [tuple(row) for row in await connection.fetch(marks)] == [
            (first.partition, "m", 7, 1, 1),
            (first.partition, "n", 3, 2, 5),
        ]
    finally:
        await connection.close()


async def test_without_the_driver_a_url_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "asyncpg", None)
    events = open_repository("postgresql://me@localhost/shop")
    with pytest.raises(StorageFault, match=r"^[^\n]*pip install 'allsource\[postgres\]'$"):
        await events.__aenter__()


def test_an_unreadable_address_does_not_print_its_password() -> None:
    with pytest.raises(InvalidRequest) as caught:
        open_repository("postgre://me:hunter2@localhost/shop")
    assert "hunter2" not in str(caught.value)
