"""The PostgreSQL backend of nodes against the contract, and against what only a server can do."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from time import monotonic
from typing import Any

import pytest

from allsource.storage.model.entry import Mark
from allsource.storage.model.errors import (
    AllsourceError,
    Corrupt,
    DirectoryInUse,
    DiskFull,
    ForeignDirectory,
    Overloaded,
    StorageFault,
)
from allsource.storage.model.log import HardState, PartitionWrite
from allsource.storage.open import open_storage
from allsource.storage.postgres.driver import connect, parse_target
from allsource.storage.postgres.overlay import Layer
from allsource.storage.postgres.seen import BloomFilter, Seen
from allsource.storage.postgres.storage import PostgresStorage
from tests.storage.contract import PARTITIONS, Backend, RandomHistory, StorageContract, check_equal
from tests.storage.logs import LogModel
from tests.storage.postgres_server import LossyProxy, PostgresServer


def open_postgres(url: str, **changed: object) -> PostgresStorage:
    wanted: dict = {"cluster_id": "c", "node_id": "n1", "partition_count": PARTITIONS}
    return PostgresStorage(parse_target(url), **{**wanted, **changed})


def drop(storage: PostgresStorage) -> None:
    """Leave a storage as a killed process does: its connections are gone, nothing else happens."""
    storage._closed = True
    storage._session.close()


def sql(url: str, statements: str) -> Any:
    """Run statements; the first value of what the last one answers."""

    async def run() -> Any:
        connection = await connect(parse_target(url))
        try:
            if statements.startswith("SELECT"):
                return await connection.fetchval(statements)
            return await connection.execute(statements)
        finally:
            await connection.close()

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, run()).result()


def wait_for(url: str, question: str, wanted: object) -> None:
    deadline = monotonic() + 60
    while (found := sql(url, question)) != wanted:
        assert monotonic() < deadline, f"{question}: {found}"


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The contract's histories cut off what is committed, which no cluster does and copying stumbles over:
    let nobody wait for its next try."""
    monkeypatch.setattr("allsource.storage.postgres.projection.RETRY_AFTER_S", 0.01)


class PostgresBackend:
    def __init__(self, url: str) -> None:
        self._url = url

    def open(self) -> PostgresStorage:
        return open_postgres(self._url)

    def crash(self, storage: PostgresStorage, random: Random) -> PostgresStorage:
        drop(storage)
        return self.open()

    def reopens(self) -> bool:
        return True


class TestPostgresContract(StorageContract):
    @pytest.fixture
    def backend(self, postgres_url: str) -> Backend:
        return PostgresBackend(postgres_url)


# -- a sync that is under way


class InFlight(PostgresBackend):
    """Each sync is still under way until the next one: the server has not got it yet, or has it and has
    not said so. What is written and read meanwhile sees three layers deep."""

    def __init__(self, url: str, random: Random) -> None:
        super().__init__(url)
        self._random = random
        self._finish: Callable[[], None] = lambda: None

    def open(self) -> PostgresStorage:
        storage = super().open()
        sync, flush, close = storage.sync, storage._session.flush, storage.close
        gate = threading.Event()

        def held(layer: Layer) -> None:
            first, second = self._random.choice([(gate.wait, flush), (flush, gate.wait)])
            first(*([layer] if first is flush else []))
            second(*([layer] if second is flush else []))

        def begin() -> None:
            self._finish()
            gate.clear()
            thread = threading.Thread(target=sync)
            thread.start()

            def finish() -> None:
                gate.set()
                thread.join()

            self._finish = finish

        def close_all() -> None:
            self._finish()
            gate.set()
            storage.sync = sync
            close()

        storage._session.flush, storage.sync, storage.close = held, begin, close_all
        return storage

    def crash(self, storage: PostgresStorage, random: Random) -> PostgresStorage:
        self._finish()
        return super().crash(storage, random)


@pytest.mark.parametrize("seed", range(4))
def test_reads_are_right_while_a_sync_is_under_way(postgres_url: str, seed: int) -> None:
    """Replay one alone: `pytest -k 'under_way and [SEED]'` with this file."""
    RandomHistory(InFlight(postgres_url, Random(seed)), seed).run(steps=80)


def test_a_thread_may_sync_while_another_writes(postgres_url: str) -> None:
    storage = open_postgres(postgres_url)
    log = LogModel(0)
    done = threading.Event()

    def sync_for_ever() -> None:
        while not done.is_set():
            storage.sync()

    with ThreadPoolExecutor(1) as thread:
        syncing = thread.submit(sync_for_ever)
        try:
            i, deadline = 0, monotonic() + 20
            while i < 200 or storage.properties()["postgres_syncs"] < 20:
                i += 1
                assert monotonic() < deadline
                if i % 7 == 6:
                    log.cut(len(log.entries) - 1)
                    storage.write([log.write(truncate_from=len(log.entries) + 1)])
                storage.write([log.write(log.events((f"s{i % 5}", 1 + i % 3), term=1 + i, seed=i))])
                assert storage.head(0, f"s{i % 5}") == log.head(f"s{i % 5}")
        finally:
            done.set()
        syncing.result()
    check_equal(storage, [log])
    storage.close()
    again = open_postgres(postgres_url)
    check_equal(again, [log])
    again.close()


# -- one process at a time


def test_a_schema_that_is_in_use_is_refused(postgres_url: str) -> None:
    storage = open_postgres(postgres_url)
    with pytest.raises(DirectoryInUse, match="in use by another process"):
        open_postgres(postgres_url, lock_patience_s=0.1)
    drop(storage)
    open_postgres(postgres_url).close()


def test_a_process_that_lost_its_connection_cannot_write_any_more(postgres_url: str) -> None:
    storage, log = open_postgres(postgres_url), LogModel(0)
    pid = storage._session._writer.get_server_pid()
    sql(postgres_url, f"SELECT pg_terminate_backend({pid})")
    successor = open_postgres(postgres_url)
    storage.write([log.write(log.noop())])
    with pytest.raises(StorageFault, match="the process must exit"):
        storage.sync()
    successor.sync()
    assert successor.load(0).last_index == 0
    successor.close()
    drop(storage)


def test_a_process_that_was_replaced_is_fenced_off(postgres_url: str) -> None:
    """Also where a pooler made two sessions of one, and the lock with them."""
    storage, log = open_postgres(postgres_url), LogModel(0)
    sql(postgres_url, "UPDATE store SET incarnation = incarnation + 1")
    storage.write([log.write(log.noop())])
    with pytest.raises(StorageFault, match="taken this schema over"):
        storage.sync()
    drop(storage)
    assert sql(postgres_url, "SELECT count(*) FROM log") == 0


@pytest.mark.parametrize("other", [{"cluster_id": "d"}, {"node_id": "n2"}, {"partition_count": 4}])
def test_a_schema_of_somebody_else_is_refused(postgres_url: str, other: dict[str, Any]) -> None:
    open_postgres(postgres_url).close()
    with pytest.raises(ForeignDirectory):
        open_postgres(postgres_url, **other)


# -- a server that misbehaves


def test_a_server_that_goes_ends_the_storage_and_the_next_start_finds_what_was_synced(
    own_url: str, postgres_server: PostgresServer
) -> None:
    storage, log = open_postgres(own_url), LogModel(0)
    storage.write([log.write(log.events(("a", 2)))])
    storage.sync()
    synced = log.copy()
    storage.write([log.write(log.events(("a", 1)))])
    postgres_server.restart()
    for _ in range(2):
        with pytest.raises(StorageFault, match="the process must exit"):
            storage.sync()
    with pytest.raises(StorageFault, match="the process must exit"):
        storage.write([log.write(log.noop())])
    assert storage.head(0, "a") is not None
    assert storage.streams(0), "reads find a new connection"
    storage.close()
    again = open_postgres(own_url)
    check_equal(again, [synced])
    again.close()


async def test_a_sync_whose_answer_is_lost_is_fatal_and_the_log_tells(own_url: str) -> None:
    async with LossyProxy(own_url) as proxy:
        storage = await asyncio.to_thread(open_postgres, proxy.url)
        log = LogModel(0)
        write = log.write(log.events(("a", 1), data=b"the one that is lost"))
        await asyncio.to_thread(storage.write, [write])
        proxy.swallow_answer_to(b"the one that is lost")
        with pytest.raises(StorageFault, match="unknown"):
            await asyncio.to_thread(storage.sync)
        await asyncio.to_thread(storage.close)
    again = open_postgres(own_url)
    check_equal(again, [log])
    again.close()


def fail_writes(url: str, sqlstate: str, times: int) -> None:
    """Let the first `times` writes of the log fail in the server."""
    sql(
        url,
        f"""
        CREATE SEQUENCE fails;
        CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF nextval('fails') <= {times} THEN
                RAISE EXCEPTION 'told to' USING ERRCODE = '{sqlstate}';
            END IF;
            RETURN NEW;
        END $$;
        CREATE TRIGGER fail BEFORE INSERT ON log FOR EACH STATEMENT EXECUTE FUNCTION fail();
        """,
    )


def test_while_the_disk_is_full_a_sync_goes_on_trying_and_appends_are_refused(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("allsource.storage.postgres.session.FULL_RETRY_S", 0.05)
    storage, log = open_postgres(postgres_url), LogModel(0)
    fail_writes(postgres_url, "53100", 4)
    storage.write([log.write(log.events(("a", 1)))])
    with ThreadPoolExecutor(1) as thread:
        syncing = thread.submit(storage.sync)
        deadline = monotonic() + 60
        while (refusal := storage.pressure()) is None:
            assert monotonic() < deadline
            assert not syncing.done()
        assert (refusal.error, "full" in refusal.reason) == (DiskFull, True)
        assert storage.head(0, "a") == log.head("a")
        syncing.result()
    assert storage.pressure() is None
    storage.close()
    again = open_postgres(postgres_url)
    check_equal(again, [log])
    again.close()


@pytest.mark.parametrize(("sqlstate", "times"), [("53100", 1_000_000), ("40001", 5), ("22012", 1)])
def test_a_sync_that_cannot_be_done_fails(
    postgres_url: str, sqlstate: str, times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("allsource.storage.postgres.session.FULL_PATIENCE_S", 0.1)
    monkeypatch.setattr("allsource.storage.postgres.session.FULL_RETRY_S", 0.02)
    storage, log = open_postgres(postgres_url), LogModel(0)
    fail_writes(postgres_url, sqlstate, times)
    storage.write([log.write(log.noop())])
    with pytest.raises(StorageFault, match="the process must exit"):
        storage.sync()
    drop(storage)


def test_a_deadlock_is_tried_again(postgres_url: str) -> None:
    storage, log = open_postgres(postgres_url), LogModel(0)
    fail_writes(postgres_url, "40P01", 4)
    storage.write([log.write(log.noop())])
    storage.sync()
    assert sql(postgres_url, "SELECT count(*) FROM log") == 1
    storage.close()


def test_too_much_that_waits_for_a_sync_is_pressure(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("allsource.storage.postgres.storage.UNSYNCED_BYTES_MAX", 1 << 20)
    storage, log = open_postgres(postgres_url), LogModel(0)
    storage.write([log.write(log.events(("a", 1), data=Random(1).randbytes(2 << 20)))])
    error, reason = storage.pressure() or (None, "")
    assert (error, "falls behind" in reason) == (Overloaded, True)
    storage.sync()
    assert storage.pressure() is None
    storage.close()


# -- damage


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ("UPDATE log SET record = set_byte(record, 60, 0) WHERE log_index = 3", "CRC"),
        ("UPDATE log SET log_index = 9 WHERE log_index = 3", "lies the entry 0/3"),
    ],
)
def test_a_damaged_last_record_is_corrupt(postgres_url: str, damage: str, said: str) -> None:
    filled(postgres_url)
    sql(postgres_url, damage)
    storage = open_postgres(postgres_url)
    with pytest.raises(Corrupt, match=said):
        storage.load(0)
    assert said in next(iter(storage.verify(0)))
    drop(storage)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ("UPDATE log SET record = set_byte(record, 60, 0) WHERE log_index = 2", "CRC"),
        ("DELETE FROM log WHERE log_index = 2", "missing"),
        ("DELETE FROM log_parts WHERE log_index = 2", "version index"),
        ("UPDATE log_parts SET first_id = '\\x00' WHERE log_index = 2", "indexed at None"),
        ("INSERT INTO log_parts VALUES (0, 'more', 1, 1, 2, 0, 1, 5, '\\x00')", "the indexes hold"),
        ("UPDATE log SET opens_term = true WHERE log_index = 2", "term starts"),
    ],
)
def test_verify_finds_what_was_tampered_with(postgres_url: str, damage: str, said: str) -> None:
    filled(postgres_url)
    sql(postgres_url, damage)
    storage = open_postgres(postgres_url)
    assert said in " ".join(storage.verify(0))
    storage.close()


def test_a_hole_in_the_log_is_corrupt_wherever_it_is_read(postgres_url: str) -> None:
    filled(postgres_url)
    sql(postgres_url, "DELETE FROM log WHERE log_index = 2")
    storage = open_postgres(postgres_url)
    for ask in (lambda: storage.entries(0, 1, 3, 1 << 20), lambda: storage.entries_at(0, [1, 2])):
        with pytest.raises(Corrupt, match="no entry 2"):
            ask()
    storage.close()


def filled(url: str) -> LogModel:
    """Three entries in partition 0, and nobody there any more."""
    storage, log = open_postgres(url), LogModel(0)
    storage.write([log.write(*[log.events(("a", 2)) for _ in range(3)])])
    storage.close()
    return log


# -- what people see


def test_only_what_is_committed_is_shown(postgres_url: str) -> None:
    storage, log = open_postgres(postgres_url), LogModel(0)
    first, second, third = log.events(("a", 2), ("b", 1)), log.noop(), log.events(("a", 3), ("c", 1))
    storage.write([PartitionWrite(0, HardState(1, "n1", 1), None, [first, second, third])])
    storage.sync()
    shown = "SELECT array_agg(stream_id || version ORDER BY position) FROM events"
    wait_for(postgres_url, shown, ["a1", "a2", "b1"])
    # What was never committed is replaced by another leader's entries.
    log.cut(3)
    other = log.events(("d", 1), term=2)
    storage.write([PartitionWrite(0, HardState(2, "", 2), 3, [other])])
    storage.sync()
    wait_for(postgres_url, "SELECT log_index FROM partitions WHERE partition_id = 0", 2)
    assert sql(postgres_url, shown) == ["a1", "a2", "b1"]
    storage.write([PartitionWrite(0, HardState(2, "", 3))])
    storage.sync()
    wait_for(postgres_url, shown, ["a1", "a2", "b1", "d1"])
    streams = "SELECT array_agg(stream_id || current_version ORDER BY stream_id) FROM event_streams"
    assert sql(postgres_url, streams) == ["a2", "b1", "d1"]
    assert sql(postgres_url, "SELECT array_agg(DISTINCT health_status) FROM stream_health") == ["HEALTHY"]
    assert sql(postgres_url, "SELECT total_events FROM partition_stats") == 4
    times = (
        "SELECT (extract(epoch FROM updated_at) * 1000000)::bigint FROM event_streams WHERE stream_id = 'd'"
    )
    assert sql(postgres_url, times) == other.timestamp_us
    storage.close()


def test_each_append_of_an_entry_is_shown_as_one_with_its_tag_and_marks(postgres_url: str) -> None:
    storage, log = open_postgres(postgres_url), LogModel(0)
    log.appends(
        ([("a{t}", 2), ("b", 1)], [Mark("m", 1, 0)]),
        ([("a{t}", 1)], []),
        ([], [Mark("m", 2, 0), Mark("n", 1, 5)]),
        ([("b", 1), ("c{t}", 1)], []),
    )
    log.events(marks=[Mark("m", 3, 0)])
    log.events(marks=[Mark("m", 4, 0)])
    storage.write([PartitionWrite(0, HardState(1, "n1", 2), None, log.entries)])
    storage.sync()
    wait_for(postgres_url, "SELECT log_index FROM partitions WHERE partition_id = 0", 2)
    rows = sql(
        postgres_url,
        "SELECT array_agg(stream_id || version || ' ' || coalesce(tag || tag_number, '-') || ' '"
        " || append_position || ' ' || coalesce(part_count::text, '-') ORDER BY position) FROM events",
    )
    assert rows == [
        *("a{t}1 t1 1 2", "a{t}2 t2 1 -", "b1 - 1 1"),
        "a{t}3 t3 4 1",
        *("b2 - 5 1", "c{t}1 t4 5 1"),
    ]
    shown = "SELECT array_agg(name || ' ' || position || ' ' || generation ORDER BY name) FROM marks"
    assert sql(postgres_url, shown) == ["m 3 0", "n 1 5"]
    storage.write([PartitionWrite(0, HardState(1, "n1", 3))])
    storage.sync()
    wait_for(postgres_url, shown, ["m 4 0", "n 1 5"])
    assert storage.properties()["postgres_view_failures"] == 0
    assert sql(postgres_url, "SELECT last_position FROM partitions WHERE partition_id = 0") == 6
    storage.close()


def test_showing_catches_up_at_the_next_start(postgres_url: str) -> None:
    storage, log = open_postgres(postgres_url), LogModel(0)
    storage.write([log.write(*[log.events((f"s{i % 7}", 1)) for i in range(2500)])])
    storage.sync()
    sql(postgres_url, "INSERT INTO hard_states VALUES (0, 1, '', 2400)")
    drop(storage)
    assert sql(postgres_url, "SELECT count(*) FROM events") == 0
    storage = open_postgres(postgres_url)
    wait_for(postgres_url, "SELECT count(*) FROM events", 2400)
    assert storage.properties()["postgres_view_lag_entries"] == 0
    storage.close()
    assert sql(postgres_url, "SELECT bool_and(verify_stream_gapless(stream_id)) FROM event_streams")


def test_tables_that_were_changed_by_hand_do_not_stop_the_node(postgres_url: str) -> None:
    storage, log = open_postgres(postgres_url), LogModel(0)
    sql(
        postgres_url,
        "INSERT INTO event_streams (stream_id, partition_id, current_version) VALUES ('a', 0, 7)",
    )
    storage.write([PartitionWrite(0, HardState(1, "", 1), None, [log.events(("a", 1))])])
    storage.sync()
    deadline = monotonic() + 60
    while storage.properties()["postgres_view_failures"] < 2:
        assert monotonic() < deadline
    storage.write([log.write(log.events(("a", 1)))])
    storage.sync()
    assert storage.properties()["postgres_view_lag_entries"] == 1
    assert sql(postgres_url, "SELECT count(*) FROM events") == 0
    sql(postgres_url, "DELETE FROM event_streams")
    wait_for(postgres_url, "SELECT count(*) FROM events", 1)
    storage.close()


# -- what is not asked


def test_new_ids_and_new_streams_are_not_asked_for(postgres_url: str) -> None:
    log = filled(postgres_url)
    storage = open_postgres(postgres_url)
    storage.load(0)
    deadline = monotonic() + 60
    while storage._session.seen.may_hold(0, b"certainly not"):
        assert monotonic() < deadline
    before = storage.properties()["postgres_reads"]
    for i in range(100):
        storage.write([log.write(log.events((f"new{i}", 1)))])
        assert storage.place_of_append(0, Random(i).randbytes(16)) is None
        assert storage.head(0, f"other{i}") is None
        assert storage.tag_head(0, f"other{i}") is None
    assert storage.properties()["postgres_reads"] - before < 10
    check_equal(storage, [log])
    storage.close()


def test_a_filter_never_forgets_and_seldom_errs() -> None:
    seen = Seen()
    random = Random(7)
    ids = [random.randbytes(16) for _ in range(200_000)]
    stored = BloomFilter(100_000)
    for one in ids[:100_000]:
        stored.add(hash((1, one)))
    assert seen.may_hold(1, ids[0])
    assert seen.may_hold(1, random.randbytes(16)), "not complete yet"
    seen.complete(stored)
    for one in ids[100_000:]:
        seen.add(1, one)
    assert all(seen.may_hold(1, one) for one in ids)
    wrong = sum(seen.may_hold(1, random.randbytes(16)) for _ in range(20_000))
    assert wrong < 20_000 * 0.03


# -- by name


def test_open_storage_knows_postgres(postgres_url: str) -> None:
    storage = open_storage(backend="postgres", dsn=postgres_url, partitions=4, node_id="n1", cluster_id="c")
    assert isinstance(storage, PostgresStorage)
    assert storage.target.schema == parse_target(postgres_url).schema + "_n1"
    storage.close()
    with pytest.raises(StorageFault, match=r"set storage\.dsn"):
        open_storage(backend="postgres")


def test_without_the_driver_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "asyncpg", None)
    with pytest.raises(StorageFault, match=r"^[^\n]*pip install 'allsource\[postgres\]'$"):
        open_storage(backend="postgres", dsn="postgresql://me@localhost/x", node_id="n1")


def test_a_server_that_is_not_there_is_said_in_a_line_without_the_password(tmp_path: Path) -> None:
    with pytest.raises(AllsourceError, match="cannot be reached") as caught:
        open_storage(backend="postgres", dsn=f"postgresql://me:hunter2@/x?host={tmp_path}", node_id="n1")
    assert "hunter2" not in caught.value.message
    assert "\n" not in caught.value.message


def test_small_named_values_are_durable_whatever_the_durability(postgres_url: str) -> None:
    """A node is known to its peers by them: no power cut may make it forget one that it told."""
    storage = open_postgres(postgres_url, durability="os")
    try:
        for number in range(20):
            before = sql(postgres_url, "SELECT pg_current_wal_insert_lsn()::text")
            storage.put_meta({f"start/{number}": b"nonce"})
            assert sql(postgres_url, f"SELECT pg_current_wal_flush_lsn() > '{before}'::pg_lsn")
    finally:
        storage.close()
