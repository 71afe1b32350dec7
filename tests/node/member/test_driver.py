"""Turns: orders in their order, outcomes acted on, and no word after something raised."""

from __future__ import annotations

import asyncio
import threading
from itertools import pairwise
from typing import Any

import pytest

from allsource.cluster.consensus.messages import Beat, CommitNotice, ReadResult, Ready, Role, RoleChange
from allsource.cluster.consensus.sense import PeerNonsense
from allsource.cluster.shell.replica import DISK_FULL_RETRY_US, Outcome
from allsource.node.member.driver import Driver
from allsource.storage.files.sync_thread import SyncThread
from allsource.storage.model.errors import Corrupt, DiskFull
from allsource.storage.model.log import HardState, PartitionState, PartitionWrite
from tests.node.members import clock, until

SUSPICION_US = 100_000
WRITE = PartitionWrite(0, HardState(1, "", 0))
BEAT = Beat(1, [])


class Core:
    """A core that gives the orders which a test put into it."""

    def __init__(self) -> None:
        self.orders: list[Ready] = []
        self.done: list[Any] = []
        self.ticks = 0
        self.deadline = clock() + 60_000_000
        self.groups: dict[int, Any] = {}

    def ready(self) -> Ready | None:
        return self.orders.pop(0) if self.orders else None

    def persisted(self, number: int, now: int) -> None:
        self.done.append(number)

    def lanes_in_doubt(self) -> list[str]:
        return []

    def tick(self, now: int) -> None:
        self.ticks += 1
        self.deadline = now + 60_000_000

    def next_deadline(self) -> int:
        return self.deadline

    def receive(self, peer: str, messages: list[Any], now: int) -> None:
        raise AssertionError("two leaders in term 4 of partition 0")

    receive_beat = peer_connected = receive

    def is_leader(self, partition: int) -> bool:
        return False

    can_propose = is_leader
    propose = is_leader
    entry_term = is_leader
    next_index = is_leader


class World:
    """Storage, links and work in one, writing down what is done to them."""

    def __init__(self) -> None:
        self.story: list[Any] = []
        self.more = 0
        self.gate = threading.Event()
        self.gate.set()
        self.syncs = 0
        self.sync_error: Exception | None = None
        self.full = False
        self.driver: Driver[World] | None = None
        self.raises: dict[str, Exception] = {}
        """What the work raises, by the kind of outcome that it acts on."""

    def told(self, name: str, words: str) -> None:
        self.story.append(words)
        if error := self.raises.get(name):
            raise error

    # storage
    def write(self, writes: list[PartitionWrite]) -> None:
        if self.full:
            raise DiskFull("no space left")
        self.story.append("write")

    def sync(self) -> None:
        assert self.gate.wait(10)
        if self.sync_error is not None:
            raise self.sync_error
        self.syncs += 1

    # links
    def send_messages(self, peer: str, messages: list[Any]) -> None:
        self.story.append(f"send {peer}")

    def send_beat(self, peer: str, beat: Beat) -> None:
        self.story.append(f"beat {peer}")

    # work
    def pump(self) -> bool:
        self.story.append("pump")
        self.more -= 1
        return self.more > 0

    def act(self, outcome: Outcome) -> None:
        assert self.driver is not None
        for _ in outcome.changes:
            self.told("changes", "changed")
        for partition, commit in outcome.committed:
            self.told("committed", f"committed {commit}, told {self.driver.commit_index(partition)}")
        for _ in outcome.reads:
            self.told("reads", "read")
        if outcome.beats and (error := self.raises.get("beats")):
            raise error

    def synced(self, took_us: int) -> None:
        if error := self.raises.get("synced"):
            raise error

    def stuck(self, error: DiskFull | None) -> None:
        self.story.append("stuck" if error else "unstuck")

    def sync_failed(self, error: BaseException) -> None:
        self.told("sync_failed", f"sync failed: {error}")

    def broken(self, error: Exception) -> None:
        assert self.driver is not None
        self.driver.schedule()  # nothing may come of it
        self.driver.beat("n2", BEAT)
        self.told("broken", f"broken: {error}")


class Shell:
    def __init__(self, *, sync_inline: bool = False) -> None:
        self.core = Core()
        self.world = World()
        world: Any = self.world
        core: Any = self.core
        self.driver: Driver[World] = Driver(
            core,
            world,
            world,
            {0: PartitionState(0, HardState(1, "", 7))},
            loop=asyncio.get_running_loop(),
            clock=clock,
            suspicion_us=SUSPICION_US,
            work=lambda _: self.world,
            sync_inline=sync_inline,
        )
        self.world.driver = self.driver

    @property
    def sync_thread(self) -> SyncThread:
        assert self.driver._sync_thread is not None
        return self.driver._sync_thread

    def order(self, *orders: Ready) -> None:
        self.core.orders += orders
        self.driver.schedule()


@pytest.fixture
async def shell() -> Any:
    shell = Shell()
    shell.sync_thread.start()
    yield shell
    shell.world.gate.set()
    shell.driver.stop()


def full_ready(number: int = 1) -> Ready:
    return Ready(
        writes=[WRITE],
        number=number,
        send={"n2": [CommitNotice(0, 1, 1)]},
        beats={"n2": BEAT},
        changes=[RoleChange(0, 1, Role.LEADER, "n1")],
        committed=[(0, 9)],
        reads=[ReadResult(None, 0, 9, True)],
    )


async def test_orders_are_carried_out_in_their_order(shell: Shell) -> None:
    assert shell.driver.commit_index(0) == 7
    shell.order(full_ready())
    await until(lambda: shell.core.done)
    assert shell.world.story[:8] == [
        "pump",
        "write",
        "send n2",
        "beat n2",
        "changed",
        "committed 9, told 9",
        "read",
        "pump",
    ]
    assert shell.core.done == [1]


async def test_many_reasons_make_one_turn(shell: Shell) -> None:
    for _ in range(10):
        shell.driver.schedule()
    await asyncio.sleep(0.005)
    assert shell.world.story == ["pump"]


async def test_what_one_turn_cannot_do_another_does(shell: Shell) -> None:
    shell.world.more = 3
    shell.driver.schedule()
    await until(lambda: len(shell.world.story) == 3)
    assert shell.world.story == ["pump"] * 3


async def test_writes_during_a_sync_share_the_next_one(shell: Shell) -> None:
    shell.world.gate.clear()
    shell.order(Ready(writes=[WRITE], number=1))
    await until(lambda: shell.sync_thread.running_for(clock()))
    for number in (2, 3, 4, 5):
        shell.order(Ready(writes=[WRITE], number=number))
        await asyncio.sleep(0)
    assert shell.core.done == []
    shell.world.gate.set()
    await until(lambda: shell.core.done == [1, 5])
    assert shell.world.syncs == 2


async def test_a_node_whose_disk_stalls_does_not_look_alive(shell: Shell) -> None:
    shell.world.gate.clear()
    shell.order(Ready(writes=[WRITE], number=1))
    await until(lambda: shell.sync_thread.running_for(clock()) > SUSPICION_US)
    shell.order(Ready(beats={"n2": BEAT}))
    await asyncio.sleep(0)
    assert "beat n2" not in shell.world.story
    shell.world.gate.set()
    await until(lambda: shell.core.done)
    shell.order(Ready(beats={"n2": BEAT}))
    await until(lambda: "beat n2" in shell.world.story)


async def test_a_full_disk_stops_everything_until_there_is_room(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("allsource.cluster.shell.replica.DISK_FULL_RETRY_US", 1000)
    shell.world.full = True
    shell.order(full_ready(1), Ready(writes=[WRITE], number=2))
    await until(lambda: shell.world.story.count("stuck") >= 3)
    assert shell.driver.replica.stuck is not None
    assert set(shell.world.story) == {"pump", "stuck"}
    assert shell.core.done == []
    shell.world.full = False
    await until(lambda: 2 in shell.core.done)
    assert shell.world.story.count("write") == 2
    assert "unstuck" in shell.world.story
    assert shell.driver.replica.stuck is None


async def test_a_full_disk_is_tried_four_times_a_second_whatever_happens(shell: Shell) -> None:
    """It was tried with every turn: 900 times a second under load."""
    tries: list[int] = []

    def full(writes: list[PartitionWrite]) -> None:
        tries.append(clock())
        raise DiskFull("no space left")

    shell.world.write = full  # type: ignore[method-assign]
    shell.order(full_ready())
    await until(lambda: bool(tries))
    while clock() - tries[0] < DISK_FULL_RETRY_US:
        shell.driver.schedule()
        shell.driver.messages("n2", [])  # not for the core, which would raise
        shell.driver.read(0, None, 0)
        await asyncio.sleep(0)
    assert len(tries) <= 2
    assert shell.core.ticks == 0
    await until(lambda: len(tries) >= 3)
    assert all(later - earlier >= DISK_FULL_RETRY_US for earlier, later in pairwise(tries))
    assert shell.world.story.count("read") > 0


async def test_a_short_sync_needs_no_thread() -> None:
    shell = Shell(sync_inline=True)
    shell.driver.start()
    shell.order(Ready(writes=[WRITE], number=1), Ready(writes=[WRITE], number=2))
    await asyncio.sleep(0)
    assert shell.core.done == [1, 2]
    assert shell.world.syncs == 2
    shell.driver.stop()


async def test_a_peers_nonsense_is_for_its_connection_and_ends_nothing() -> None:
    """Rule 38: what came before it is carried out, and the next message is heard as ever."""
    shell = Shell()

    def senseless(_peer: str, _said: Any, _now: int) -> None:
        shell.core.orders.append(Ready(committed=[(0, 7)]))
        raise PeerNonsense("two leaders in one term")

    shell.core.receive = shell.core.receive_beat = senseless  # type: ignore[method-assign]
    for hear, said in ((shell.driver.messages, []), (shell.driver.beat, BEAT)):
        shell.world.story.clear()
        with pytest.raises(PeerNonsense):
            hear("n2", said)  # type: ignore[operator]
        await until(lambda: len(shell.world.story) >= 2)
        assert shell.world.story == ["pump", "committed 7, told 7"]


async def test_broken_rules_end_the_process() -> None:
    """In the test the work does not end it, so the error goes on."""
    shell = Shell()
    found: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: found.append(context))

    def write(writes: list[PartitionWrite]) -> None:
        raise Corrupt("record 7 fails its CRC")

    shell.world.write = write  # type: ignore[method-assign]
    shell.order(full_ready())
    await until(lambda: bool(found))
    shell.driver.messages("n2", [])  # nothing is fed to what is broken
    assert shell.world.story == ["pump", "broken: record 7 fails its CRC"]
    assert len(found) == 1

    other = Shell()
    with pytest.raises(AssertionError):
        other.driver.messages("n2", [])
    assert other.world.story == ["broken: two leaders in term 4 of partition 0"]


@pytest.mark.parametrize("name", ["changes", "committed", "reads", "beats"])
async def test_work_that_raises_stops_the_driver_before_anybody_is_told(shell: Shell, name: str) -> None:
    """Half of a Ready was carried out: no later turn may confirm what this one dropped (rules 31, 32)."""
    quiet(asyncio.get_running_loop())
    shell.world.raises = {name: OSError(32, "Broken pipe"), "broken": OSError(32, "Broken pipe")}
    shell.order(full_ready(), Ready(committed=[(0, 10)]))
    await until(lambda: any("broken" in words for words in shell.world.story))
    told = list(shell.world.story)
    shell.driver.schedule()
    shell.driver.messages("n2", [])
    shell.driver.connected("n2")
    for _ in range(5):
        await asyncio.sleep(0)
    assert shell.world.story == told
    assert told[-1] == "broken: [Errno 32] Broken pipe"
    assert "committed 10, told 10" not in told


@pytest.mark.parametrize("sync_inline", [False, True])
async def test_a_failed_sync_stops_the_driver_though_its_teller_fails(sync_inline: bool) -> None:
    """Rule 16 with a dead standard error: the sync thread was the only thing that ended."""
    shell = Shell(sync_inline=sync_inline)
    quiet(asyncio.get_running_loop())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threading, "excepthook", lambda _: None)
        shell.driver.start()
        shell.world.sync_error = OSError(5, "Input/output error")
        shell.world.raises = {"sync_failed": OSError(32, "Broken pipe")}
        shell.order(Ready(writes=[WRITE], number=1))
        await until(lambda: any("sync failed" in words for words in shell.world.story))
        told = list(shell.world.story)
        shell.order(Ready(writes=[WRITE], number=2, beats={"n2": BEAT}))
        for _ in range(5):
            await asyncio.sleep(0)
        assert shell.world.story == told
        assert shell.core.done == []
        shell.driver.stop()


async def test_metrics_come_behind_the_consequences(shell: Shell) -> None:
    quiet(asyncio.get_running_loop())
    shell.world.raises = {"synced": RuntimeError("no more memory for counters")}
    shell.order(full_ready())
    await until(lambda: shell.core.done == [1])
    assert shell.world.story.count("committed 9, told 9") == 1


def quiet(loop: asyncio.AbstractEventLoop) -> None:
    """What the replica raises ends the process of a real node; here the loop would print it."""
    loop.set_exception_handler(lambda *_: None)


async def test_time_passes_at_the_deadline(shell: Shell) -> None:
    shell.core.deadline = clock() + 2000
    shell.driver.schedule()
    await until(lambda: shell.core.ticks == 1)
    shell.core.deadline = clock() + 2000
    shell.driver.schedule()  # earlier than the timer that is set: it is set anew
    await until(lambda: shell.core.ticks == 2)
