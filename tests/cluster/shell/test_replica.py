"""A replica carries out the core's orders in their order, and returns what came of them: nobody is
called."""

from __future__ import annotations

from typing import Any

import pytest

from allsource.cluster.consensus.lanes import Traffic
from allsource.cluster.consensus.messages import (
    Beat,
    CommitNotice,
    Damage,
    ReadResult,
    Ready,
    Role,
    RoleChange,
)
from allsource.cluster.shell.replica import DISK_FULL_RETRY_US, Outcome, Replica, SyncFailed
from allsource.storage.model.errors import Corrupt, DiskFull
from allsource.storage.model.log import HardState, PartitionState, PartitionWrite

SUSPICION_US = 100_000
CHANGE = RoleChange(0, 1, Role.LEADER, "n1")
READ = ReadResult("ticket", 0, 9, True)


class World:
    """Core, storage, links, sync thread and clock in one, writing down what is asked of them."""

    def __init__(self, *, sync_inline: bool = False) -> None:
        self.now = 1_000_000
        self.orders: list[Ready] = []
        self.story: list[str] = []
        self.write_fails: list[Exception] = []
        self.sync_fails: Exception | None = None
        self.sync_runs_for = 0
        self.ticks = 0
        world: Any = self
        states = {p: PartitionState(p, HardState(1, "", 7)) for p in (0, 1)}
        self.replica = Replica(
            world,
            world,
            world,
            states,
            clock=lambda: self.now,
            suspicion_us=SUSPICION_US,
            syncs=None if sync_inline else world,
        )

    # core
    def ready(self) -> Ready | None:
        return self.orders.pop(0) if self.orders else None

    def persisted(self, number: int, now: int) -> None:
        self.story.append(f"persisted {number}")

    def quarantine(self, partition: int, reason: str, now: int) -> None:
        self.story.append(f"quarantine {partition}: {reason}")

    def next_deadline(self) -> int:
        return self.now + 5

    def tick(self, now: int) -> None:
        self.ticks += 1

    def lanes_in_doubt(self) -> list[str]:
        return ["n3"]

    def lane_traffic(self, peer: str, traffic: Traffic, now: int) -> None:
        self.story.append(f"{peer} answered {traffic.answers}")

    def is_leader(self, partition: int) -> bool:
        return False

    can_propose = entry_term = next_index = propose = is_leader

    # storage
    def write(self, writes: list[PartitionWrite]) -> None:
        if self.write_fails:
            raise self.write_fails.pop(0)
        self.story.append(f"write {[one.partition for one in writes]}")

    def sync(self) -> None:
        self.story.append("sync")
        self.now += 200
        if self.sync_fails is not None:
            raise self.sync_fails

    # sync thread
    def request(self, number: int) -> None:
        self.story.append(f"request {number}")

    def running_for(self, now: int) -> int:
        return self.sync_runs_for

    # links
    def send_messages(self, peer: str, messages: list[Any]) -> None:
        self.story.append(f"send {peer} {len(messages)}")

    def send_beat(self, peer: str, beat: Beat) -> None:
        self.story.append(f"beat {peer}")

    def traffic(self, peer: str) -> Traffic:
        return Traffic(answers=7, waiting_bytes=0)

    def renew(self, peer: str) -> None:
        self.story.append(f"renew {peer}")


def full_ready(number: int = 1, *partitions: int) -> Ready:
    return Ready(
        writes=[PartitionWrite(p, HardState(1, "", 0)) for p in partitions or (0,)],
        number=number,
        send={"n2": [CommitNotice(p, 1, 1) for p in partitions or (0,)]},
        beats={"n2": Beat(1, [])},
        changes=[CHANGE],
        committed=[(p, 9) for p in partitions or (0,)],
        reads=[READ],
    )


def test_orders_are_carried_out_in_their_order_and_what_came_of_them_is_returned() -> None:
    world = World()
    world.orders = [full_ready()]
    assert world.replica.commit_index(0) == 7
    assert world.replica.carry_out() == Outcome([CHANGE], [(0, 9)], [READ], [], beats=1)
    assert world.story == ["write [0]", "request 1", "send n2 1", "beat n2"]
    assert world.replica.commit_index(0) == 9, "before anybody acts on it"
    assert world.replica.carry_out() is None


def test_a_sync_without_a_thread_belongs_to_the_orders() -> None:
    world = World(sync_inline=True)
    world.orders = [full_ready(4)]
    outcome = world.replica.carry_out()
    assert outcome is not None
    assert outcome.sync_us == 200
    assert world.story == ["write [0]", "send n2 1", "beat n2", "sync", "persisted 4"]


def test_a_failed_sync_leaves_no_outcome() -> None:
    world = World(sync_inline=True)
    world.orders, world.sync_fails = [full_ready()], OSError(5, "Input/output error")
    with pytest.raises(SyncFailed) as caught:
        world.replica.carry_out()
    assert caught.value.reason is world.sync_fails
    assert "persisted 1" not in world.story


def test_beats_are_withheld_while_the_disk_stalls() -> None:
    world = World()
    world.sync_runs_for = SUSPICION_US + 1
    world.orders = [full_ready()]
    outcome = world.replica.carry_out()
    assert outcome is not None
    assert outcome.beats == 0
    assert "beat n2" not in world.story


def test_without_room_nothing_is_carried_out_until_there_is_some() -> None:
    world = World()
    world.orders = [full_ready(1), full_ready(2)]
    world.write_fails = [DiskFull("no space left"), DiskFull("still none")]
    replica = world.replica
    for why in ("no space left", "still none"):
        assert replica.carry_out() is None
        assert replica.stuck is not None
        assert replica.stuck.message == why
        assert replica.next_deadline == world.now + DISK_FULL_RETRY_US
        world.now += DISK_FULL_RETRY_US - 1
        assert replica.carry_out() is None
        world.now += 1
    replica.tick()
    replica.messages("n2", [])  # deaf: the core would not know this method here
    assert (world.story, world.ticks) == ([], 0)
    assert replica.carry_out() is not None
    assert replica.stuck is None
    assert replica.carry_out() is not None
    assert [words for words in world.story if words.startswith("request")] == ["request 1", "request 2"]


def test_a_write_that_meets_damage_goes_on_without_that_partition() -> None:
    world = World()
    world.orders = [full_ready(1, 0, 1)]
    world.write_fails = [Corrupt("record 7 fails its CRC", partition=0)]
    outcome = world.replica.carry_out()
    assert outcome is not None
    assert outcome.committed == [(1, 9)]
    assert [read.ok for read in outcome.reads] == [False]
    assert world.story[:3] == ["quarantine 0: record 7 fails its CRC", "write [1]", "request 1"]
    assert (world.replica.hosts(0), world.replica.hosts(1)) == (False, True)


def test_damage_that_belongs_to_no_write_is_not_survived() -> None:
    world = World()
    world.orders, world.write_fails = [full_ready()], [Corrupt("a block fails its checksum")]
    with pytest.raises(Corrupt):
        world.replica.carry_out()


def test_a_partition_that_was_given_up_is_given_up_once_and_commits_nothing() -> None:
    world = World()
    for _ in range(2):
        world.replica.quarantine(0, "record 1")
    world.orders = [Ready(committed=[(0, 9), (1, 8)], damaged=[Damage(1, "record 2")])]
    assert world.replica.carry_out() == Outcome([], [(1, 8)], [], [Damage(1, "record 2")])
    assert world.story == ["quarantine 0: record 1"]
    assert (world.replica.hosts(0), world.replica.hosts(1)) == (False, False)
