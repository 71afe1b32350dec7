"""A damaged record costs its partition at one node, and nobody else anything (RULES.md rule 17)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import structlog

from allsource.cluster.consensus.messages import (
    Append,
    AppendReply,
    ReadRound,
    RequestVote,
    TimeoutNow,
    VoteReply,
)
from allsource.cluster.protocol.requests import AppendResult, ReadPartition, ReadStream, StreamPage
from allsource.node.cli.app import run as main_run
from allsource.node.member import ending
from allsource.node.member.damage import DamagedPartitions
from allsource.storage.files.directory import claim_existing
from allsource.storage.memory import MemoryStorage
from allsource.storage.model.entry import Entry
from allsource.storage.model.errors import Corrupt
from allsource.storage.model.log import PartitionWrite
from allsource.storage.rocksdb import keys
from allsource.storage.rocksdb.storage import RocksStorage
from tests.node.appends import append, events
from tests.node.members import Cluster, Member, streams_in, until
from tests.node.test_daemon import Nodes, settings_in

P = 0
"""The partition that is damaged in these tests."""


@pytest.fixture(autouse=True)
def exits(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """No process may end for this."""
    statuses: list[int] = []
    monkeypatch.setattr(ending.os, "_exit", statuses.append)
    yield statuses
    assert statuses == []


def damage(cluster: Cluster, node_id: str, partition: int = P) -> None:
    """From now on no record of the partition can be read at this node, and none is at hand."""
    storage = cluster.storages[node_id]
    cluster.members[node_id].pages._entries._recent.clear()
    real_at, real = storage.entries_at, storage.entries

    def entries_at(wanted: int, indexes: Sequence[int]) -> list[Entry]:
        if wanted == partition:
            raise Corrupt("log record fails its CRC")
        return real_at(wanted, indexes)

    def entries(wanted: int, first: int, last: int, bytes_max: int) -> list[Entry]:
        if wanted == partition:
            raise Corrupt("log record fails its CRC")
        return real(wanted, first, last, bytes_max)

    storage.entries_at = entries_at  # type: ignore[method-assign]
    storage.entries = entries  # type: ignore[method-assign]


async def cluster_with_an_event(cluster: Cluster) -> tuple[str, Member, list[str]]:
    """A stream of the partition that has an event, its leader, and the other members."""
    stream = streams_in(P, 1)[0]
    leader = cluster.leader(P)
    result = await cluster.ask(leader.core.node_id, append((stream, events())))
    assert isinstance(result, AppendResult)
    await until(lambda: all(m.replica.commit_index(P) >= result.index for m in cluster.members.values()))
    return stream, leader, [one for one in cluster.members if one != leader.core.node_id]


async def test_a_read_at_the_leader_is_answered_by_another_replica_and_the_leader_gives_up() -> None:
    async with Cluster(3) as cluster:
        stream, leader, others = await cluster_with_an_event(cluster)
        leader_id = leader.core.node_id
        led_before = [p for p in range(8) if leader.replica.is_leader(p)]
        damage(cluster, leader_id)
        page = await cluster.ask(leader_id, ReadStream(stream))
        assert isinstance(page, StreamPage), page
        assert page.current_version == 1
        await until(lambda: cluster.leaders(P) and cluster.leaders(P)[0] in others)
        assert not leader.replica.hosts(P)
        for node in cluster.members:  # every door goes on
            assert isinstance(await cluster.ask(node, append((stream, events()))), AppendResult)
            assert isinstance(await cluster.ask(node, ReadStream(stream, local=True)), StreamPage)
        assert [p for p in range(8) if leader.replica.is_leader(p)] == [p for p in led_before if p != P]


async def test_it_says_so_everywhere() -> None:
    async with Cluster(3) as cluster:
        _, leader, others = await cluster_with_an_event(cluster)
        leader_id = leader.core.node_id
        assert cluster.views[leader_id].is_ready
        damage(cluster, leader_id)
        await cluster.ask(leader_id, ReadPartition(P))
        view = cluster.views[leader_id]
        assert view.waits_for() == [
            f"partition {P} is damaged here, and served by its peers: log record fails its CRC"
        ]
        assert view.describe()["partitions"][P]["damaged"] == "log record fails its CRC"
        assert cluster.metrics[leader_id].counter("errors") == 1

        def told(node: str) -> list[list[int]]:
            return [one["damaged"] for one in cluster.views[node].describe()["nodes"] if one["damaged"]]

        for node in others:
            await until(lambda: told(node) == [[P]], "the others to hear of it")  # noqa: B023
            assert cluster.views[node].describe()["partitions"][P]["damaged"] is None


async def test_a_local_read_at_a_follower_goes_to_another_replica() -> None:
    async with Cluster(3) as cluster:
        stream, leader, (follower, _) = await cluster_with_an_event(cluster)
        damage(cluster, follower)
        for _ in range(3):
            page = await cluster.ask(follower, ReadStream(stream, local=True))
            assert isinstance(page, StreamPage)
        assert not cluster.members[follower].replica.hosts(P)
        assert cluster.leader(P) is leader


async def test_a_local_read_that_waits_for_a_token_is_served_elsewhere() -> None:
    async with Cluster(3) as cluster:
        stream, leader, (follower, other) = await cluster_with_an_event(cluster)
        cluster.cut(leader.core.node_id, follower)
        result = await cluster.ask(leader.core.node_id, append((stream, events())))
        asked = asyncio.ensure_future(
            cluster.ask(follower, ReadStream(stream, local=True, token=f"{P}:{result.index}"))
        )
        await until(lambda: cluster.members[other].replica.commit_index(P) >= result.index)
        cluster.members[follower].driver.quarantine(P, Corrupt("record 1"))
        assert isinstance(await asked, StreamPage)


async def test_a_write_that_meets_damage_costs_only_its_own_partition() -> None:
    async with Cluster(3) as cluster:
        stream, leader, (follower, _) = await cluster_with_an_event(cluster)
        storage = cluster.storages[follower]
        real = storage.write

        def write(writes: Sequence[PartitionWrite]) -> None:
            if any(one.partition == P for one in writes):
                raise Corrupt("an index block", partition=P)
            real(writes)

        storage.write = write  # type: ignore[method-assign]
        streams = [stream, *(streams_in(p, 1)[0] for p in range(1, 8))]
        answers = await asyncio.gather(
            *(cluster.ask(leader.core.node_id, append((one, events()))) for one in streams)
        )
        assert all(isinstance(one, AppendResult) for one in answers), answers
        member = cluster.members[follower]
        await until(lambda: not member.replica.hosts(P))
        for partition in range(1, 8):
            newest = max(other.replica.commit_index(partition) for other in cluster.members.values())
            await until(lambda p=partition, n=newest: member.replica.commit_index(p) >= n)  # type: ignore[misc]


async def test_a_leader_that_cannot_read_what_a_follower_needs_leaves_it_to_another() -> None:
    async with Cluster(3) as cluster:
        stream, leader, (one, other) = await cluster_with_an_event(cluster)
        leader_id = leader.core.node_id
        cluster.kill(one)
        for _ in range(4):
            answer = await cluster.ask(leader_id, append((stream, events(3, size=300_000))))
            assert isinstance(answer, AppendResult)
        damage(cluster, leader_id)
        cluster.start(one)
        await until(lambda: not leader.replica.hosts(P), "the leader to meet the damage")
        await until(lambda: cluster.members[one].replica.commit_index(P) >= answer.index, "catching up")
        assert leader.replica.hosts(1)
        assert cluster.members[other].replica.hosts(P)


async def test_a_retry_whose_first_attempt_cannot_be_read_is_answered_elsewhere() -> None:
    async with Cluster(3) as cluster:
        stream, leader, _ = await cluster_with_an_event(cluster)
        request = append((stream, events()))
        first = await cluster.ask(leader.core.node_id, request)
        damage(cluster, leader.core.node_id)
        again = await cluster.ask(leader.core.node_id, request)
        assert isinstance(again, AppendResult), again
        assert (again.index, again.duplicate) == (first.index, True)


async def test_a_restart_remembers_it_until_all_of_it_is_whole() -> None:
    async with Cluster(3) as cluster:
        stream, leader, _ = await cluster_with_an_event(cluster)
        leader_id = leader.core.node_id
        storage = cluster.storages[leader_id]
        damage(cluster, leader_id)
        await cluster.ask(leader_id, ReadStream(stream))
        cluster.kill(leader_id)
        del storage.entries_at, storage.entries  # readable again; but who knows what else is damaged
        member = cluster.start(leader_id)
        assert not member.replica.hosts(P)
        assert isinstance(await cluster.ask(leader_id, ReadStream(stream)), StreamPage)
        cluster.kill(leader_id)
        assert member.damage.verify_again() == [P]
        member = cluster.start(leader_id)
        assert member.replica.hosts(P)
        await cluster.settled()
        assert isinstance(await cluster.ask(leader_id, ReadStream(stream)), StreamPage)


async def test_a_partition_that_cannot_be_loaded_does_not_keep_the_node_from_starting() -> None:
    async with Cluster(3) as cluster:
        stream, leader, _ = await cluster_with_an_event(cluster)
        leader_id = leader.core.node_id
        cluster.kill(leader_id)
        storage = cluster.storages[leader_id]
        real = storage.load

        def load(partition: int) -> Any:
            if partition == P:
                raise Corrupt("its last record fails its CRC")
            return real(partition)

        storage.load = load  # type: ignore[method-assign]
        member = cluster.start(leader_id)
        assert not member.replica.hosts(P)
        assert isinstance(await cluster.ask(leader_id, append((stream, events()))), AppendResult)


async def test_it_neither_votes_nor_acknowledges_nor_confirms_reads() -> None:
    async with Cluster(3) as cluster:
        await cluster_with_an_event(cluster)
        follower = next(m for m in cluster.members.values() if not m.replica.is_leader(P))
        follower.driver.stop()  # its core alone, from here on
        core = follower.core
        group = core.groups[P]
        now = follower._clock()
        leader = group.leader
        assert leader is not None
        term, last = group.term, group.log.last_index
        core.receive(leader, [Append(P, term, last, group.log.last_term, group.commit, [])], now)
        core.quarantine(P, "record 1", now)
        core.receive(leader, [Append(P, term, last, group.log.last_term, group.commit, [])], now)
        core.receive(leader, [RequestVote(P, term + 1, last, term, False, True)], now)
        core.receive(leader, [ReadRound(1, [(P, term)])], now)
        core.tick(now + 10_000_000)
        said = []
        while (ready := core.ready()) is not None:
            core.persisted(ready.number, now)
            said += [message for messages in ready.send.values() for message in messages]
            assert not any(line.partition == P for beat in ready.beats.values() for line in beat.groups)
            assert not any(write.partition == P for write in ready.writes)
        ours = [one for one in said if getattr(one, "partition", None) == P]
        assert not any(isinstance(one, AppendReply | VoteReply | RequestVote) for one in ours), ours


async def test_a_leader_names_its_successor_before_it_is_silent() -> None:
    async with Cluster(3) as cluster:
        _, leader, _ = await cluster_with_an_event(cluster)
        leader.driver.stop()
        core = leader.core
        core.quarantine(P, "record 1", leader._clock())
        ready = core.ready()
        assert ready is not None
        told = [one for messages in ready.send.values() for one in messages]
        assert [type(one) for one in told if getattr(one, "partition", None) == P] == [TimeoutNow]
        assert [(one.partition, one.role) for one in ready.changes] == [(P, "follower")]


def test_a_suspicion_without_a_culprit_has_everything_looked_through() -> None:
    class Store(MemoryStorage):
        def verify(self, partition: int) -> Iterator[str]:
            if partition == 5:
                yield "a block is damaged"

    store = Store(partition_count=8)
    damage = DamagedPartitions(store, range(8))
    damage.search()
    assert damage.found == {5: "a block is damaged"}
    assert DamagedPartitions(store, range(8)).found == damage.found


# -- on a disk


async def test_a_damaged_record_on_a_disk(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    nodes = Nodes(settings_in(tmp_path, 3))
    stream = streams_in(P, 1)[0]
    path, body = f"/v1/streams/{stream}/events", {"events": [{"type": "T", "data": 1}]}
    await nodes.start()
    try:
        await nodes.ready()
        for version in range(4):
            status, answer = await nodes.http("n2", path, {"expected_version": version, **body})
            assert status == 201
        await nodes.stop("n1")
        index = flip_a_bit(nodes.settings.node("n1").data_dir, stream)
        await nodes.start("n1")
        await nodes.shows("n1", lambda view: all(one["owner"] for one in view["partitions"]))
        status, page = await nodes.http("n1", f"{path}?consistency=local&token={answer['token']}")
        assert (status, len(page["events"])) == (200, 4), page

        await nodes.stop("n1")
        await nodes.start("n1")
        await nodes.shows("n2", lambda view: view["nodes"][0]["damaged"] == [P])
        status, answer = await nodes.http("n1", "/health/ready")
        assert (status, f"partition {P} is damaged here" in answer["message"]) == (503, True)
        assert (await nodes.http("n1", path, {"expected_version": 4, **body}))[0] == 201
    finally:
        await nodes.stop()
    assert main_run(["verify", "--data-dir", str(nodes.settings.node("n1").data_dir)]) == 1
    told = capsys.readouterr().out
    assert f"partition {P}: index {index}: log record {P}/{index} of " in told
    assert f"a chunk of {stream!r} fails its CRC" in told
    found = f"log record {P}/{index}: a chunk fails its CRC"
    assert f"partition {P}: given up by its node, which found: {found}" in told


def flip_a_bit(data_dir: Path, stream: str) -> int:
    """In the record of the stream's first event; its index."""
    storage = RocksStorage(claim_existing(data_dir))
    first = storage.slice_at(P, stream, 1)
    assert first is not None
    key = keys.entry_key(P, first.index)
    record = bytearray(storage._database.events.get(key))
    record[-1] ^= 1
    storage._database.events[key] = bytes(record)
    storage.close()
    return first.index
