"""A node whose disk is nearly full (CONSENSUS.md rule 24): others lead for it, and it goes on storing."""

from __future__ import annotations

import pytest

from allsource.cluster.requests import AppendResult, ReadStream
from allsource.node import member as member_module
from allsource.storage.errors import DiskFull, Overloaded
from allsource.storage.interface import Refusal
from tests.node.members import Cluster, append, events, until

FULL = Refusal(DiskFull, "12 MiB free of 256 MiB wanted")


@pytest.fixture(autouse=True)
def leads_again_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(member_module, "_ROOM_US", 0)


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
    monkeypatch.setattr(member_module, "_ROOM_US", 60_000_000)
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
    monkeypatch.setattr(member_module, "_ROOM_US", 60_000_000)
    async with Cluster(3) as cluster:
        press(cluster, FULL, "n2")
        await until(lambda: not led_by(cluster, "n2"), "n2 to lead nothing")
        member = cluster.members["n2"]

        def no_room(_: object) -> None:
            raise DiskFull("no space left")

        monkeypatch.setattr(cluster.storages["n2"], "write", no_room)
        for number in range(8):
            await cluster.ask("n1", append((f"s-{number}", events())))
        await until(lambda: member.replica.is_stuck, "n2 to be stuck")
        seen = member._full_at
        await until(lambda: member._full_at > seen, "n2 to look at its disk")


async def test_where_all_are_full_somebody_leads_and_reads_go_on() -> None:
    async with Cluster(3) as cluster:
        assert isinstance(await cluster.ask("n1", append(("a", events()))), AppendResult)
        press(cluster, FULL, "n1", "n2", "n3")
        await until(
            lambda: all(node.yields for node in cluster.members["n1"].core.registry.all_nodes()),
            "n1 to know that all are full",
        )
        assert type(await cluster.ask("n1", append(("a", events())))) is DiskFull
        assert (await cluster.ask("n2", ReadStream("a"))).current_version == 1
