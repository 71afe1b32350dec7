"""The real `Driver` and `Replica` in the simulation: turns, timer, orders, writes that find no room.

What they stand on is simulated: an event loop that knows `call_soon` and `call_later` in virtual time, a
sync thread that is the node's own, a disk that can be full, and links into the simulated network. Outcomes
go to the node's code, unless a fault lets that raise: then the driver must have stopped before anybody
hears of it, and nothing more comes out of this process (rules 31 and 32).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any
from unittest import mock

import allsource.node.member.driver as driver_module
from allsource.cluster.consensus.lanes import Traffic
from allsource.cluster.consensus.messages import Beat, Message, Role
from allsource.cluster.shell.replica import Outcome
from allsource.node.member.driver import Driver
from allsource.storage.model.errors import DiskFull
from allsource.storage.model.log import PartitionWrite
from tests.simulation.invariants import Violation

if TYPE_CHECKING:
    from tests.simulation.node import SimNode


class WorkRaised(Exception):
    """What the driver works for failed (a fault)."""


def make_driver(node: SimNode) -> Driver[_Work]:
    """The driver of a process that starts."""
    states = {partition: node.disk.load(partition) for partition in node.hosted}
    with mock.patch.object(driver_module, "SyncThread", _SyncThread):
        return Driver(
            node.core,
            _Disk(node),  # type: ignore[arg-type]  # it asks storage for writes alone
            _Links(node),
            states,
            loop=_Loop(node),  # type: ignore[arg-type]  # it asks a loop for turns and timers alone
            clock=node.clock,
            suspicion_us=node.plan.consensus.suspicion_us,
            work=lambda _: _Work(node),
        )


class _Loop:
    """An event loop in the world's time; a dead process's callbacks do not run."""

    def __init__(self, node: SimNode) -> None:
        self.node = node
        self._life = node.incarnation

    def call_soon(self, callback: Callable[..., Any], *arguments: Any) -> None:
        self.node.world.after(self.node.plan.turn_us, self._ring, _Timer(), callback, arguments)

    def call_later(self, delay_s: float, callback: Callable[..., Any], *arguments: Any) -> _Timer:
        timer = _Timer()
        self.node.world.after(int(delay_s * 1_000_000) + 1, self._ring, timer, callback, arguments)
        return timer

    def _ring(self, timer: _Timer, callback: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        if not timer.cancelled and self.node.incarnation == self._life:
            self.node.run(callback, *arguments)


class _Timer:
    cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class _SyncThread:
    """The sync thread: the node has the time that a sync takes."""

    def __init__(self, loop: _Loop, sync: object, *, clock: object, done: object, failed: object) -> None:
        self._node = loop.node

    def start(self) -> None:
        pass

    def stop(self) -> None:
        pass

    def request(self, number: int) -> None:
        self._node.sync_soon(number)

    def running_for(self, _now: int) -> int:
        return self._node.sync_runs_for()


class _Disk:
    """`Storage.write`."""

    def __init__(self, node: SimNode) -> None:
        self._node = node

    def write(self, writes: Sequence[PartitionWrite]) -> None:
        node = self._node
        if node.no_room:
            raise DiskFull("no room on the simulated disk")
        node.invariants.writing(node, writes)
        node.disk.write(writes)
        node.service.written()

    def sync(self) -> None:
        raise AssertionError("the sync thread is simulated")


class _Links:
    """`PeerLinks`."""

    def __init__(self, node: SimNode) -> None:
        self._node = node

    def send_messages(self, peer: str, messages: list[Message]) -> None:
        self._node.speak()
        self._node.send(peer, messages)

    def send_beat(self, peer: str, beat: Beat) -> None:
        self._node.speak()
        self._node.network.send_beat(self._node.name, peer, beat)

    def traffic(self, peer: str) -> Traffic:
        return Traffic(0, 0)

    def renew(self, peer: str) -> None:
        self._node.network.renew(self._node.name, peer)


class _Work:
    """The node's code behind the driver, and what may go wrong in it."""

    def __init__(self, node: SimNode) -> None:
        self._node = node
        self._led: set[int] = set()

    def pump(self) -> bool:
        self._led = set(self._node.leading)
        return self._node.service.pump()

    def act(self, outcome: Outcome) -> None:
        node = self._node
        if node.work_raises:
            # Their messages went out before they are told here: it led all of these, and others may follow.
            for change in outcome.changes:
                if change.role == Role.LEADER:
                    node.invariants.leads(node, change.partition, change.term)
        for change in outcome.changes:
            self._raise_if_told()
            node.role_changed(change)
        for partition, commit in outcome.committed:
            self._raise_if_told()
            node.commit_moved(partition, commit, led=partition in self._led)
        for result in outcome.reads:
            node.service.read_confirmed(result)

    def _raise_if_told(self) -> None:
        if self._node.work_raises:
            self._node.work_raises = False
            raise WorkRaised

    def synced(self, took_us: int) -> None:
        pass

    def stuck(self, error: DiskFull | None) -> None:
        self._node.world.tell(f"{self._node.name}: {error or 'there is room again'}")

    def sync_failed(self, error: BaseException) -> None:
        raise AssertionError("the sync thread is simulated")

    def broken(self, error: Exception) -> None:
        """A process that should end at once, and takes its time: it must be silent until then."""
        if not isinstance(error, WorkRaised):
            raise Violation("no rule of its own is broken", f"{self._node.name}: {error!r}") from error
        self._node.broke()
