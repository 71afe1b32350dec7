"""A node whose disk is nearly full (RULES.md rule 24): others lead for it, and it goes on storing."""

from __future__ import annotations

import asyncio
import os

import pytest
import structlog
from structlog.testing import LogCapture

from allsource.cluster.consensus.messages import Message, ReadRound
from allsource.cluster.membership.registry import Readiness
from allsource.cluster.protocol.requests import AppendResult, ReadStream, StreamPage
from allsource.cluster.shell.replica import DISK_FULL_RETRY_US
from allsource.node.member import watch
from allsource.node.member.ending import EXIT_STORAGE
from allsource.storage.interface import Refusal
from allsource.storage.model.errors import DiskFull, DiskRanFull, OutcomeUnknown, Overloaded
from tests.node.appends import append, events
from tests.node.members import Cluster, clock, streams_in, until

FULL = Refusal(DiskFull, "12 MiB free of 256 MiB wanted")


@pytest.fixture(autouse=True)
def leads_again_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "_ROOM_US", 0)


def press(cluster: Cluster, refusal: Refusal | None, *nodes: str) -> None:
    for node in nodes:
        cluster.storages[node].pressure = lambda: refusal  # type: ignore[method-assign]


def led_by(cluster: Cluster, node: str) -> list[int]:
    return [p for p in range(8) if cluster.members[node].replica.is_leader(p)]


def commits(cluster: Cluster, node: str) -> list[int]:
    return [cluster.members[node].replica.commit_index(p) for p in range(8)]


async def test_its_partitions_take_appends_elsewhere_and_come_home() -> None:
    async with Cluster(3) as cluster:
        home = led_by(cluster, "n2")
        assert home
        press(cluster, FULL, "n2")
        await until(lambda: not led_by(cluster, "n2"), "n2 to lead nothing")
        await cluster.settled()
        for view in cluster.views.values():
            assert [node["yields"] for node in view.describe()["nodes"]] == [False, True, False]
        for number in range(20):
            result = await cluster.ask("n2", append((f"s-{number}", events())))
            assert isinstance(result, AppendResult)
        await until(
            lambda: commits(cluster, "n2") == commits(cluster, "n1"), "n2 to store what others lead"
        )
        press(cluster, None, "n2")
        await until(lambda: led_by(cluster, "n2") == home, "n2 to lead again")
        await cluster.settled()


async def test_it_follows_neither_a_slow_disk_nor_every_moment_of_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(watch, "_ROOM_US", 60_000_000)
    async with Cluster(3) as cluster:
        press(cluster, Refusal(Overloaded, "4 write buffers wait"), "n1")
        press(cluster, FULL, "n2")
        await until(lambda: not led_by(cluster, "n2"), "n2 to lead nothing")
        press(cluster, None, "n2")
        beats = cluster.metrics["n2"].counter("heartbeats", "sent")
        await until(lambda: cluster.metrics["n2"].counter("heartbeats", "sent") > beats + 10)
        assert not led_by(cluster, "n2")
        assert led_by(cluster, "n1"), "slowness passes by itself, and would only move on"


async def test_a_single_node_says_it_too() -> None:
    async with Cluster(1) as cluster:
        press(cluster, FULL, "n1")
        await until(
            lambda: cluster.views["n1"].describe()["nodes"][0]["yields"], "n1 to say that it is full"
        )
        assert type(await cluster.ask("n1", append(("a", events())))) is DiskFull
        press(cluster, None, "n1")
        await until(lambda: not cluster.views["n1"].describe()["nodes"][0]["yields"], "n1 to have room")
        assert isinstance(await cluster.ask("n1", append(("a", events()))), AppendResult)


async def test_a_log_that_cannot_be_written_is_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time that a node must have had room begins when it can write again, not with its last beat."""
    monkeypatch.setattr(watch, "_ROOM_US", 60_000_000)
    async with Cluster(3) as cluster:
        press(cluster, FULL, "n2")
        await until(lambda: not led_by(cluster, "n2"), "n2 to lead nothing")
        member = cluster.members["n2"]

        def no_room(_: object) -> None:
            raise DiskFull("no space left")

        monkeypatch.setattr(cluster.storages["n2"], "write", no_room)
        for number in range(8):
            await cluster.ask("n1", append((f"s-{number}", events())))
        await until(lambda: member.replica.stuck is not None, "n2 to be stuck")
        looks, look = [], cluster.storages["n2"].pressure
        monkeypatch.setattr(cluster.storages["n2"], "pressure", lambda: looks.append(1) or look())
        await until(lambda: len(looks) >= 2, "n2 to look at its disk")


async def test_where_all_are_full_somebody_leads_and_reads_go_on() -> None:
    async with Cluster(3) as cluster:
        assert isinstance(await cluster.ask("n1", append(("a", events()))), AppendResult)
        press(cluster, FULL, "n1", "n2", "n3")
        await until(
            lambda: all(
                node.readiness is Readiness.YIELDS
                for node in cluster.members["n1"].core.registry.all_nodes()
            ),
            "n1 to know that all are full",
        )
        assert type(await cluster.ask("n1", append(("a", events())))) is DiskFull
        assert (await cluster.ask("n2", ReadStream("a"))).current_version == 1


# -- no room at all


def fill(cluster: Cluster, node: str) -> list[int]:
    """From now on nothing can be written there; the list grows with each try."""
    tries: list[int] = []

    def full(_: object) -> None:
        tries.append(1)
        raise DiskFull("no space left")

    cluster.storages[node].write = full  # type: ignore[method-assign]
    return tries


async def test_a_follower_without_room_is_patient_quiet_and_grows_nothing() -> None:
    async with Cluster(3) as cluster:
        leader_id = cluster.leader(0).core.node_id
        node = next(one for one in cluster.members if one != leader_id)
        member, heard, stream = cluster.members[node], LogCapture(), streams_in(0, 1)[0]
        member._log = structlog.wrap_logger(
            None, processors=[heard], wrapper_class=structlog.make_filtering_bound_logger(0)
        )
        tries = fill(cluster, node)
        begun = clock()
        while len(tries) < 3:
            assert isinstance(await cluster.ask(leader_id, append((stream, events()))), AppendResult)
            assert isinstance(await cluster.ask(leader_id, ReadStream(stream, limit=1)), StreamPage)
        # Once when the disk filled, and then not more often than four times a second.
        assert len(tries) <= 2 + (clock() - begun) // DISK_FULL_RETRY_US
        stuck = [one for one in heard.entries if one["event"].startswith("the log cannot be written")]
        assert len(stuck) == 1
        assert sum(map(len, member.core._out.values())) == 0
        assert len(member.core._syncs.under_way()) <= 1, "what waits for the write that found no room"
        assert not any(group.durable_out for group in member.core.groups.values())
        # Nor do the others write to it in vain: it is down.
        await until(
            lambda: cluster.members[leader_id].core.detector.state(node) == "down", "it to look dead"
        )
        del cluster.storages[node].write
        await until(lambda: commits(cluster, node) == commits(cluster, leader_id), "catching up")
        await cluster.settled()
        assert "the log is written again" in [one["event"] for one in heard.entries]


async def test_the_doors_of_a_leader_without_room_pass_on() -> None:
    async with Cluster(3) as cluster:
        node = cluster.leader(0).core.node_id
        stream = streams_in(0, 1)[0]
        assert isinstance(await cluster.ask(node, append((stream, events()))), AppendResult)
        fill(cluster, node)
        for request in (append((stream, events())), ReadStream(stream), append((stream, events()))):
            answer = await cluster.ask(node, request)
            if isinstance(answer, OutcomeUnknown):  # it was in the log already when the disk was full
                answer = await cluster.ask(node, request)
            assert isinstance(answer, AppendResult | StreamPage), answer
        assert cluster.members[node].replica.stuck is not None


@pytest.mark.parametrize("at", ["write", "sync"])
async def test_a_node_whose_disk_ran_full_under_it_ends_with_that_reason(
    monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    """The database takes no more until it is opened anew, so waiting would be for ever."""
    exits: list[int] = []
    monkeypatch.setattr(os, "_exit", exits.append)
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    async with Cluster(1) as cluster:

        def ran_full(*_: object) -> None:
            raise DiskRanFull("no inodes are left")

        monkeypatch.setattr(cluster.storages["n1"], at, ran_full)
        cluster.members["n1"].submit(
            append(("a", events())), timeout_ms=5000, forwarded=False, reply=lambda _: None
        )
        await until(lambda: bool(exits))
    assert exits[0] == EXIT_STORAGE


async def test_no_read_round_is_asked_of_a_peer_that_is_down() -> None:
    async with Cluster(3) as cluster:
        leader = cluster.leader(0)
        down, alive = [one for one in cluster.members if one != leader.core.node_id]
        asked: list[str] = []
        real = leader.replica._links.send_messages

        def send(peer: str, messages: list[Message]) -> None:
            asked.extend(peer for one in messages if isinstance(one, ReadRound))
            real(peer, messages)

        leader.replica._links.send_messages = send  # type: ignore[method-assign]
        stream = streams_in(0, 1)[0]
        await cluster.ask(leader.core.node_id, append((stream, events())))
        cluster.kill(down)
        assert isinstance(await cluster.ask(leader.core.node_id, ReadStream(stream)), StreamPage)
        assert asked == [alive]
