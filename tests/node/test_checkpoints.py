"""`/v1/checkpoints`: what a node copies, what it refuses, and what it says."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import structlog
from yarl import URL

from allsource.config.schema import Limits, StorageSettings
from allsource.node.checkpoints import Checkpoints
from allsource.node.daemon import start_node
from allsource.storage.files import checkpoint
from allsource.storage.files.directory import CHECKPOINTS, take_lock
from allsource.storage.memory import MemoryStorage
from allsource.storage.model.errors import CheckpointsUnsupported, DiskFull, ForeignDirectory
from allsource.storage.postgres.driver import NO_CHECKPOINTS
from allsource.storage.repository import RocksDBEventStreamRepository
from allsource.storage.rocksdb import checkpoint as rocksdb_checkpoint
from tests.node.test_daemon import Nodes, settings_in
from tests.waiting import held_up, until


@pytest.fixture(autouse=True)
def _quiet() -> None:
    """These nodes log to nowhere: pytest closes what it captures before the last of them is gone."""
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())


async def started(directory: Path, **others: Any) -> Nodes:
    nodes = Nodes(settings_in(directory, 1, **others))
    await nodes.start()
    await nodes.ready()
    return nodes


@pytest.fixture
async def one(tmp_path: Path) -> AsyncIterator[Nodes]:
    """A node that tells its storage what is committed once a minute, as far as beats go."""
    nodes = await started(tmp_path, heartbeat_interval_ms=60_000, suspicion_timeout_ms=300_000)
    yield nodes
    await nodes.stop()


async def append(nodes: Nodes, stream: str = "s") -> None:
    body = {"expected_version": "any", "events": [{"type": "T", "data": 1}]}
    assert (await nodes.http("n1", f"/v1/streams/{stream}/events", body))[0] == 201


async def make(nodes: Nodes, name: Any) -> tuple[int, Any]:
    return await nodes.http("n1", "/v1/checkpoints", {"name": name})


async def count(path: Path, stream: str = "s") -> int:
    async with RocksDBEventStreamRepository(path) as events:
        return len(await events.read_stream(stream))


async def test_it_holds_all_that_was_acknowledged(one: Nodes, tmp_path: Path) -> None:
    for _ in range(5):
        await append(one)
    status, facts = await make(one, "first")
    assert status == 201
    place = tmp_path / "n1" / CHECKPOINTS / "first"
    assert (facts["name"], facts["node"], facts["path"]) == ("first", "n1", str(place))
    assert facts["taken"]
    assert facts["size_bytes"] > 10_000
    await append(one)
    assert (await make(one, "second"))[0] == 201
    assert await count(place) == 5
    assert await count(place.with_name("second")) == 6
    await append(one)  # and the node goes on


async def test_the_list(one: Nodes, tmp_path: Path) -> None:
    assert await one.http("n1", "/v1/checkpoints") == (200, {"node": "n1", "checkpoints": []})
    await append(one)
    made = [(await make(one, name))[1] for name in ("b", "a")]
    status, listed = await one.http("n1", "/v1/checkpoints")
    assert (status, listed["checkpoints"]) == (200, made[::-1])
    assert await count(tmp_path / "n1" / CHECKPOINTS / "a") == 1
    listed = (await one.http("n1", "/v1/checkpoints"))[1]["checkpoints"]
    assert [(info["name"], info["taken"] is None) for info in listed] == [("a", True), ("b", False)]


async def test_a_name_is_taken_once(one: Nodes) -> None:
    assert (await make(one, "x"))[0] == 201
    status, refusal = await make(one, "x")
    assert (status, refusal["error"], refusal["definite"]) == (409, "checkpoint_exists", True)
    assert len((await one.http("n1", "/v1/checkpoints"))[1]["checkpoints"]) == 1


@pytest.mark.parametrize("name", ["", ".hidden", "..", "../../outside", "/tmp/x", "a b", "x" * 65, 5, None])
async def test_bad_names(one: Nodes, tmp_path: Path, name: Any) -> None:
    status, refusal = await make(one, name)
    assert (status, refusal["error"]) == (400, "invalid")
    assert not (tmp_path / "n1" / CHECKPOINTS).exists()


@pytest.mark.parametrize("body", [{"path": "/tmp/x"}, {"name": "x", "path": "/tmp/x"}, ["x"], "x"])
async def test_bodies_that_say_something_else(one: Nodes, body: Any) -> None:
    assert (await one.http("n1", "/v1/checkpoints", body))[0] == 400


async def test_one_at_a_time(one: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go_on = held_up(monkeypatch, rocksdb_checkpoint, "sync_files")
    first = asyncio.create_task(make(one, "first"))
    await until(begun.is_set)
    status, refusal = await make(one, "second")
    assert (status, refusal["error"], refusal["definite"]) == (503, "overloaded", True)
    await append(one)  # the node serves meanwhile
    go_on.set()
    assert (await first)[0] == 201


async def test_a_disk_that_is_nearly_full(one: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rocksdb_checkpoint, "free_bytes", lambda path: 1 << 20)
    status, refusal = await make(one, "x")
    assert (status, refusal["error"], refusal["definite"]) == (503, "disk_full", True)
    assert (await one.http("n1", "/v1/checkpoints"))[1]["checkpoints"] == []


async def test_a_log_that_cannot_be_written(one: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then the commit indexes cannot be stored either, and the copy would hold less than it must."""
    await append(one)
    node = one.running["n1"]
    storage, member = node.parts.storage, node.parts.part.member
    assert member is not None

    def full(writes: object) -> None:
        raise DiskFull("full")

    with monkeypatch.context() as patch:
        patch.setattr(storage, "write", full)
        status, refusal = await make(one, "x")
        assert (status, refusal["error"]) == (503, "disk_full")
    assert (await one.http("n1", "/v1/checkpoints"))[1]["checkpoints"] == []
    await until(lambda: member.replica.stuck is None)
    assert (await make(one, "x"))[0] == 201


async def test_a_fault_says_what_to_do(one: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(checkpoint.os, "link", refuse)
    status, refusal = await make(one, "x")
    assert (status, refusal["error"], refusal["definite"]) == (500, "checkpoint_failed", True)
    assert "Permission denied; let it go to a directory that this user may write" in refusal["message"]


async def test_another_backend_has_none(tmp_path: Path) -> None:
    nodes = Nodes(replace(settings_in(tmp_path, 1), storage=StorageSettings(backend="memory")))
    await nodes.start()
    try:
        for answer in (await make(nodes, "x"), await nodes.http("n1", "/v1/checkpoints")):
            assert (answer[0], answer[1]["error"]) == (501, "not_supported")
            assert "gone when its process ends" in answer[1]["message"]
    finally:
        await nodes.stop()


async def test_postgres_has_its_own_means(tmp_path: Path) -> None:
    class Server(MemoryStorage):
        no_checkpoints = NO_CHECKPOINTS

    checkpoints = Checkpoints(Server(), "n1", tmp_path, lambda: None, 9)
    with pytest.raises(CheckpointsUnsupported, match="use pg_dump"):
        await checkpoints.make("x")


async def test_a_node_is_not_started_from_one(one: Nodes, tmp_path: Path) -> None:
    await append(one)
    assert (await make(one, "x"))[0] == 201
    await one.stop("n1")
    store, copy = tmp_path / "n1", tmp_path / "n1" / CHECKPOINTS / "x"
    copy.rename(tmp_path / "copy")
    store.rename(tmp_path / "old")
    (tmp_path / "copy").rename(store)
    with pytest.raises(ForeignDirectory, match=r"is a checkpoint of node 'n1'.*lose acknowledged events"):
        await start_node(one.settings, "n1", structlog.get_logger())
    assert await count(store) == 1


async def test_before_the_cluster_has_formed(tmp_path: Path) -> None:
    nodes = Nodes(settings_in(tmp_path, 3))
    await nodes.start("n1")
    try:
        assert (await make(nodes, "x"))[0] == 201
    finally:
        await nodes.stop()


async def test_a_caller_that_goes_away_stops_nothing(one: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go_on = held_up(monkeypatch, rocksdb_checkpoint, "sync_files")
    node = one.settings.node("n1")
    async with aiohttp.ClientSession() as session:
        url = f"http://127.0.0.1:{node.http_port}/v1/checkpoints"
        asking = asyncio.create_task(session.post(url, json={"name": "x"}))  # type: ignore[arg-type]
        await until(begun.is_set)
        asking.cancel()
    go_on.set()
    await one.stop("n1")
    assert await count_of_streams(Path(node.data_dir) / CHECKPOINTS / "x") == 0


async def count_of_streams(path: Path) -> int:
    async with RocksDBEventStreamRepository(path) as events:
        return await events.count_streams()


async def test_checkpoints_are_bounded_in_number_and_removable(tmp_path: Path) -> None:
    nodes = await started(tmp_path, limits=Limits(checkpoints_max=2))
    try:
        await append(nodes)
        assert [(await make(nodes, name))[0] for name in ("a", "b")] == [201, 201]
        status, answer = await make(nodes, "c")
        assert (status, answer["error"], answer["limit"]) == (409, "too_many_checkpoints", 2)
        status, answer = await remove(nodes, "a")
        assert (status, answer["name"], answer["node"]) == (200, "a", "n1")
        assert sorted(path.name for path in (tmp_path / "n1" / CHECKPOINTS).iterdir()) == ["b"]
        assert (await make(nodes, "c"))[0] == 201
        assert (await remove(nodes, "a"))[0] == 404
        for name in ("..", ".hidden", "a%2Fb", "x" * 65):
            assert (await remove(nodes, name))[0] in (400, 404)
    finally:
        await nodes.stop()


async def test_what_is_used_or_no_checkpoint_is_not_removed(one: Nodes, tmp_path: Path) -> None:
    await append(one)
    await make(one, "copy")
    place = tmp_path / "n1" / CHECKPOINTS / "copy"
    assert await count(place) == 1  # now it is a repository, and may have events of its own
    status, answer = await remove(one, "copy")
    assert (status, answer["error"]) == (500, "checkpoint_failed")
    assert "opened as a repository" in answer["message"]
    (place.parent / "other").mkdir()
    (place.parent / "other" / "thesis.txt").write_text("not ours")
    (place.parent / "link").symlink_to(place)
    for name, expected in (("other", 500), ("link", 404)):
        assert (await remove(one, name))[0] == expected
    await make(one, "used")
    lock = take_lock(place.parent / "used")
    status, answer = await remove(one, "used")
    os.close(lock)
    assert (status, "in use" in answer["message"]) == (500, True)
    assert sorted(path.name for path in place.parent.iterdir()) == ["copy", "link", "other", "used"]
    assert (await remove(one, "used"))[0] == 200


async def remove(nodes: Nodes, name: str) -> tuple[int, Any]:
    url = f"http://127.0.0.1:{nodes.settings.node('n1').http_port}/v1/checkpoints/{name}"
    async with aiohttp.ClientSession() as session, session.delete(URL(url, encoded=True)) as answer:
        return answer.status, await answer.json()
