"""What a member says of its peers."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import structlog
from structlog.testing import LogCapture

from allsource.cluster.consensus.messages import Beat
from allsource.cluster.protocol.requests import AppendResult, ReadStream
from allsource.node.member import ending
from allsource.node.member.ending import EXIT_BROKEN, EXIT_STORAGE, EXIT_SYNC_FAILED
from allsource.node.member.member import Member
from allsource.storage.memory import MemoryStorage
from allsource.storage.model.errors import Corrupt, DiskRanFull
from tests.node.appends import append, events
from tests.node.members import Cluster, Link, streams_in, until, wall_us


async def test_a_peer_that_was_never_heard_of_is_no_news_until_it_is_down() -> None:
    heard, cluster = LogCapture(), Cluster(3)
    cluster.log = structlog.wrap_logger(None, processors=[heard])
    cluster.storages["n1"] = MemoryStorage(cluster_id="test", node_id="n1", partition_count=8)
    member = cluster.start("n1")
    try:
        await until(lambda: len(heard.entries) >= 2, "both peers to be down")
    finally:
        member.stop()
    assert [(entry["event"], entry["peer"]) for entry in heard.entries] == [
        ("peer is down", "n2"),
        ("peer is down", "n3"),
    ]


async def test_a_peer_that_falls_silent_is_dialled_afresh() -> None:
    async with Cluster(3) as cluster:
        assert cluster.renewed == []
        cluster.cut("n1", "n3")
        await until(lambda: {("n1", "n3"), ("n3", "n1")} <= set(cluster.renewed))
        assert {pair for pair in cluster.renewed if "n2" in pair} == set()


class MortalLog:
    """A log that from when `dead` is set cannot be written and says so by raising, as structlog's does when
    its reader is gone."""

    dead = False

    def __getattr__(self, level: str) -> Any:
        def say(*_: object, **__: object) -> None:
            if self.dead:
                raise BrokenPipeError(32, "Broken pipe")

        return say


async def test_a_log_that_raises_loses_no_append(monkeypatch: pytest.MonkeyPatch) -> None:
    """An owner is cut off with an append under way and deposed; the others go on past its index."""
    exits: list[int] = []
    monkeypatch.setattr(ending.os, "_exit", exits.append)
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    cluster, logs = Cluster(3), {f"n{i}": MortalLog() for i in (1, 2, 3)}
    cluster.logs = logs
    async with cluster:
        old = cluster.leader(0)
        old_id = old.core.node_id
        others = [node for node in cluster.members if node != old_id]
        stream, other_stream = streams_in(0, 2)
        for other in others:
            cluster.cut(old_id, other)
        answers: list[Any] = []
        lost = events()
        old.submit(append((stream, lost)), timeout_ms=60_000, forwarded=False, reply=answers.append)
        await until(lambda: old.core.groups[0].log.last_index > old.replica.commit_index(0))
        logs[old_id].dead = True
        await until(lambda: [node for node in others if cluster.members[node].replica.is_leader(0)])
        new = next(node for node in others if cluster.members[node].replica.is_leader(0))
        for _ in range(3):
            assert isinstance(await cluster.ask(new, append((other_stream, events()))), AppendResult)
        cluster.cuts.clear()
        await until(lambda: bool(answers or exits), "an answer, or the end")
        for _ in range(20):  # were it not stopped, it would hear of this
            assert isinstance(await cluster.ask(new, append((other_stream, events()))), AppendResult)
        assert not any(isinstance(answer, AppendResult) for answer in answers)


def test_a_node_that_must_end_does_so_whatever_its_log_does(monkeypatch: pytest.MonkeyPatch) -> None:
    exits: list[int] = []
    monkeypatch.setattr(ending.os, "_exit", exits.append)
    member = object.__new__(Member)
    member._log = log = MortalLog()  # type: ignore[assignment]
    log.dead = True
    member.sync_failed(OSError(5, "Input/output error"))
    member.sync_failed(DiskRanFull("no space left"))
    member.broken(AssertionError("two leaders"))
    member.broken(DiskRanFull("no space left"))
    member.broken(Corrupt("a block fails its checksum"))
    assert exits == [EXIT_SYNC_FAILED, EXIT_STORAGE, EXIT_BROKEN, EXIT_STORAGE, EXIT_STORAGE]


async def test_a_look_at_the_disk_that_fails_is_not_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    async with Cluster(1) as cluster:
        looks: list[int] = []

        def fails() -> None:
            looks.append(1)
            raise OSError(5, "Input/output error")

        monkeypatch.setattr(cluster.storages["n1"], "pressure", fails)
        await until(lambda: len(looks) >= 3, "further looks")


async def test_nothing_of_a_killed_member_arrives_after_its_end() -> None:
    """Of these tests' own network: a beat that came behind the refusal made the dead one look up again."""
    async with Cluster(3) as cluster:
        Link(cluster, "n1").send_beat("n2", Beat(1_000_000, []))
        cluster.kill("n1")
        for _ in range(3):  # turns of the loop, in which it would have come
            await asyncio.sleep(0)
        assert cluster.members["n2"].core.detector.state("n1") == "down"


YEAR_US = 365 * 86_400 * 1_000_000


async def test_a_clock_that_jumps_ahead_dates_no_event_of_the_future() -> None:
    """One such event pinned the dates of all later ones of its partition."""
    heard, cluster = LogCapture(), Cluster(3)
    cluster.log = structlog.wrap_logger(
        None, processors=[heard], wrapper_class=structlog.make_filtering_bound_logger(0)
    )
    async with cluster:
        owner, stream = cluster.leader(0), streams_in(0, 1)[0]
        node = owner.core.node_id
        await until(lambda: len(owner._cluster_clock._peers) == 2, "beats of both peers")
        before = wall_us()
        cluster.ahead_us[node] = YEAR_US
        assert isinstance(await cluster.ask(node, append((stream, events()))), AppendResult)
        page = await cluster.ask(node, ReadStream(stream))
        assert before - 60_000_000 < page.runs[0].timestamp_us < wall_us() + 60_000_000
        await until(lambda: any("clock" in entry["event"] for entry in heard.entries), "a warning")
