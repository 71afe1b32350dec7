"""A simulated node process: the core, its disk, its clock, and the shell loop between them.

The loop is the one that `messages.Ready` prescribes and the real `cluster/shell/replica.py` follows: write,
start a sync, send, beat, tell the changes, answer what is committed, serve reads. Where the plan wants
the node's real code, that file carries the orders out itself (`shell`), and not this one. A node can be
killed (its disk keeps a random part of what was not synced), paused (what arrives waits, the clock
goes on), slowed down, and its clock pushed forward.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from allsource.cluster.consensus.messages import Append, Ready, Role, RoleChange
from allsource.cluster.consensus.multiraft import MultiRaft
from allsource.node.member.driver import Driver
from tests.simulation.disk import SimDisk
from tests.simulation.history import AppendOperation, ReadOperation
from tests.simulation.invariants import Invariants, Violation
from tests.simulation.network import BEAT, DATA, Network, Wired
from tests.simulation.node_code import NodeCode
from tests.simulation.plan import Plan
from tests.simulation.service import Answer, Door, Reply, Service
from tests.simulation.shell import WorkRaised, make_driver
from tests.simulation.world import World

NEVER = 1 << 62


class Tools:
    """What a run builds its nodes from; a mutant replaces one of them."""

    core: type[MultiRaft] = MultiRaft
    service: Callable[[SimNode], Door] | None = None
    """None: as the plan says."""
    instant_sync: bool = False
    """Mutant: `persisted` is told when the sync begins."""


class SimNode:
    """One node. `network` and `invariants` are the whole world around it."""

    def __init__(
        self,
        number: int,
        world: World,
        plan: Plan,
        members: tuple[str, ...],
        hosted: tuple[int, ...],
        tools: Tools,
        invariants: Invariants,
    ) -> None:
        self.number = number
        self.name = members[number]
        self.hosted = hosted
        self.disk = SimDisk(hosted)
        self.network: Network
        self.alive = False
        self.paused = False
        self.incarnation = 0
        self.sync_factor = 1
        self.sync_fails = False
        self.no_room = False
        """Whether every write to the disk fails (in a process with the real `Driver`)."""
        self.work_raises = False
        """Whether the next outcome that is acted on makes the node's code raise."""
        self.is_broken = False
        """Whether it did: the process is about to end."""
        self.driver: Driver[Any] | None = None
        """The real shell, where the plan wants the node's real code; else the loop's turn is told here."""
        self.is_full = False
        """Whether the disk has no room for new appends."""
        self.leaving = False
        self.leading: dict[int, int] = {}
        """Partitions that this process leads, and the terms in which it does."""
        self.core: MultiRaft
        self.service: Door
        self.elected: Callable[[SimNode, int], None] = lambda _node, _partition: None
        """Told when this node begins to lead a partition."""
        self.has_committed: Callable[[SimNode, int], None] = lambda _node, _partition: None
        """Told when a commit index moves at this node."""
        self.world = world
        self.plan = plan
        self._members = members
        self._tools = tools
        self.invariants = invariants
        self._clock_base = world.random.randrange(10**9, 10**12)
        self._skew = plan.skew[number]
        self._inbox: list[tuple[Callable[..., None], tuple[Any, ...]]] = []
        self._turn_due = self._turn_asked = False
        self._timer_at = NEVER
        self._timer = 0
        self._asked = 0
        self._unanswered: set[int] = set()
        """Requests that this process has not answered."""
        self._sync_since: int | None = None
        self._sync_under_way: tuple[int, int] | None = None
        """`(number, covered)` of the sync that the disk is busy with. It ends with the disk; the process
        may hear of it later (`_sync_since`), when it is paused."""

    # -- the clock

    def clock(self) -> int:
        """This node's own monotonic time, microseconds: another base and another speed than the world's."""
        return self._clock_base + int(self.world.now * self._skew)

    def _world_time(self, local: int) -> int:
        return int((local - self._clock_base) / self._skew) + 1

    def jump_clock(self, forward_us: int) -> None:
        """The clock leaps forward, as a suspended virtual machine's does."""
        self._clock_base += forward_us
        self.do(lambda: None)

    # -- the process

    def start(self) -> None:
        """Begin a new process on what the disk holds, if there is none."""
        if self.alive:
            return
        world = self.world
        self.alive, self.paused, self.leaving = True, False, False
        self.incarnation += 1
        self._unanswered.clear()
        self._inbox.clear()
        self._turn_due = self._turn_asked = False
        self._timer_at = NEVER
        self._sync_since = self._sync_under_way = None
        self.leading = {}
        self.invariants.node_started(self)
        self.core = self._tools.core(
            self.name,
            self._members,
            {partition: self.disk.load(partition) for partition in self.hosted},
            self.disk,
            config=self.plan.consensus,
            replication_factor=self.plan.replication_factor,
            partition_count=self.plan.partitions,
            incarnation=self.incarnation,
            seed=world.random.getrandbits(32),
            now=self.clock(),
        )
        make = self._tools.service or (NodeCode if self.plan.real_node else Service)
        self.driver = make_driver(self) if make is NodeCode else None
        self.is_broken = self.work_raises = False
        self.service = make(self)
        if world.trace:
            world.tell(f"{self.name} starts, incarnation {self.incarnation}")
        self.network.node_started(self)
        self._end_turn_later()

    def crash(self) -> None:
        """SIGKILL and a power cut in one."""
        if not self.alive:
            return
        lost = self.disk.crash(self.world.random)
        if self.world.trace:
            self.world.tell(f"{self.name} crashes, {lost} unsynced writes lost")
        self.alive = self.paused = False
        self.leading = {}
        self._inbox.clear()
        self.service.process_died()
        self.network.node_crashed(self)

    def pause(self) -> None:
        """SIGSTOP."""
        self.paused = True
        if self.world.trace:
            self.world.tell(f"{self.name} pauses")

    def resume(self) -> None:
        """SIGCONT: time has passed, and what arrived meanwhile is worked through in order."""
        if not self.paused:
            return
        self.paused = False
        if self.world.trace:
            self.world.tell(f"{self.name} resumes")
        inbox, self._inbox = self._inbox, []
        self._turn_due = False
        for action, arguments in inbox:
            self.do(action, *arguments)
        self._end_turn_later()

    def yield_leadership(self, yields: bool) -> None:
        """The disk is nearly full, or there is room again."""
        self.is_full = yields
        if self.driver is not None:
            self.do(self.driver.yield_leadership, yields)
        else:
            self.do(lambda: self.core.yield_leadership(yields, self.clock()))

    def leave(self) -> None:
        """SIGTERM: hand leadership over, then exit."""
        if self.alive and not self.leaving:
            self.leaving = True
            self.do(self.service.leaving)
            self.world.after(2 * self.plan.consensus.suspicion_us, self._leave_now, self.incarnation)
            self._hand_over(self.incarnation)

    def _hand_over(self, incarnation: int) -> None:
        if not self.alive or self.incarnation != incarnation:
            return
        if not self.paused:
            if self.driver is not None:
                done = self.driver.hand_over()
                self.run(self.driver._turn)
            elif done := self.core.hand_over(self.clock()):
                self._end_turn()
            if done:
                self._leave_now(incarnation)
                return
            self._end_turn_later()
        self.world.after(5_000, self._hand_over, incarnation)

    def _leave_now(self, incarnation: int) -> None:
        if self.incarnation == incarnation:
            self.crash()

    # -- what arrives

    def do(self, action: Callable[..., None], *arguments: Any) -> None:
        """Let the process do something: now, after it is resumed, or never if it is dead."""
        if not self.alive:
            return
        if self.paused:
            self._inbox.append((action, arguments))
            return
        try:
            action(*arguments)
        except WorkRaised:
            return
        self._end_turn_later()

    def run(self, action: Callable[..., None], *arguments: Any) -> None:
        """The same for a callback of the event loop, which asks for a turn itself if it wants one."""
        if self.alive and self.paused:
            self._inbox.append((action, arguments))
        elif self.alive:
            with suppress(WorkRaised):
                action(*arguments)

    def ask(self, operation: AppendOperation | ReadOperation, reply: Reply) -> None:
        """A request of a client. It is answered once, whatever becomes of others that came with it."""
        self._asked += 1
        number, life = self._asked, self.incarnation
        self._unanswered.add(number)

        def answered(answer: Answer) -> None:
            if self.incarnation == life:
                if number not in self._unanswered:
                    raise Violation(
                        "one answer for each request", f"{operation} is answered again: {answer}"
                    )
                self._unanswered.remove(number)
            reply(answer)

        if isinstance(operation, AppendOperation):
            self.service.append(operation, answered)
        else:
            self.service.read(operation, answered)

    def hear(self, lane: int, sender: str, payload: Any) -> None:
        """A batch of messages, or a beat, arrives."""
        self.do(self._take_beat if lane == BEAT else self._take_messages, sender, payload)

    def _take_messages(self, sender: str, messages: list[Any]) -> None:
        if self.world.trace:
            for message in messages:
                self.world.tell(f"{self.name} < {sender} {_brief(message)}")
        for message in messages:
            if isinstance(message, Append) and message.partition in self.disk.view:
                self.invariants.receiving(self, message)
            elif isinstance(message, Wired):
                self.service.hear(sender, message)
        said = [m for m in messages if not isinstance(m, Wired)]
        if self.driver is None:
            self.core.receive(sender, said, self.clock())
        elif said:
            self.driver.messages(sender, said)

    def _take_beat(self, sender: str, beat: Any) -> None:
        if self.driver is not None:
            self.driver.beat(sender, beat)
        else:
            self.core.receive_beat(sender, beat, self.clock())

    def peer_connected(self, peer: str) -> None:
        """See `MultiRaft.peer_connected`."""
        if self.driver is not None:
            self.do(self.driver.connected, peer)
        else:
            self.do(lambda: self.core.peer_connected(peer, self.clock()))

    def peer_renewed(self, peer: str) -> None:
        """A new connection stands in the place of the old one; requests on that have no answer."""
        self.peer_connected(peer)
        self.do(lambda: self.service.peer_lost(peer))

    def peer_lost(self, peer: str) -> None:
        """See `MultiRaft.peer_lost`."""
        if self.driver is not None:
            self.do(self.driver.lost, peer)
        else:
            self.do(lambda: self.core.peer_lost(peer, self.clock()))
        self.do(lambda: self.service.peer_lost(peer))

    def peer_refused(self, peer: str) -> None:
        """See `MultiRaft.peer_refused`."""
        if self.driver is not None:
            self.do(self.driver.refused, peer)
        else:
            self.do(lambda: self.core.peer_refused(peer, self.clock()))

    # -- memory

    def waiting(self) -> int:
        """How many requests, reads and held messages this process keeps."""
        return self.service.waiting() + _core_holds(self.core) + len(self._unanswered)

    def check_memory(self) -> None:
        """What a process holds is bounded by what it was asked lately, not by how long it has run."""
        if not self.paused and (holds := self.waiting()) > self.plan.memory_max():
            raise Violation("memory is bounded", f"{self.name} holds {holds} messages and requests")

    # -- the loop's turn

    def _end_turn_later(self) -> None:
        if self.driver is not None:
            self.driver.schedule()
        elif self.plan.turn_us == 0:
            self._end_turn()
        elif not self._turn_due:
            self._turn_due = True
            self.world.after(self.plan.turn_us, self._turn_ends, self.incarnation)

    def _turn_ends(self, incarnation: int) -> None:
        if self.alive and not self.paused and self.incarnation == incarnation:
            self._turn_due = False
            self._end_turn()

    def end_turn_soon(self) -> None:
        """There is work for another turn."""
        if not self._turn_asked:
            self._turn_asked = True
            self.world.after(0, self._asked_turn, self.incarnation)

    def _asked_turn(self, incarnation: int) -> None:
        if self.incarnation == incarnation:
            self._turn_asked = False
            self.do(lambda: None)

    def _end_turn(self) -> None:
        if self.service.pump():
            self.end_turn_soon()
        while (ready := self.core.ready()) is not None:
            self._carry_out(ready)
            if not self.alive:
                return
        self._set_timer()

    def _carry_out(self, ready: Ready) -> None:
        """The orders of a Ready in the order of its fields."""
        led = set(self.leading)
        if ready.writes:
            self.invariants.writing(self, ready.writes)
            self.disk.write(ready.writes)
            self.service.written()
            self.sync_soon(ready.number)
        for peer, messages in ready.send.items():
            self.send(peer, messages)
        if not self._disk_stalls():
            for peer, beat in ready.beats.items():
                self.network.send_beat(self.name, peer, beat)
        for change in ready.changes:
            self.role_changed(change)
        for partition, commit in ready.committed:
            self.commit_moved(partition, commit, led=partition in led)
        for result in ready.reads:
            self.service.read_confirmed(result)
        for peer in ready.renew:
            self.network.renew(self.name, peer)

    def send(self, peer: str, messages: list[Any]) -> None:
        """Messages of the core go out."""
        for message in messages:
            self.invariants.sending(self, peer, message)
            if self.world.trace:
                self.world.tell(f"{self.name} > {peer} {_brief(message)}")
        self.network.send_data(self.name, peer, messages)

    def commit_moved(self, partition: int, commit: int, *, led: bool) -> None:
        """A commit index moved. `led`: this node led the partition when the turn began."""
        if self.world.trace:
            self.world.tell(f"{self.name} commits {partition}/{commit}")
        self.invariants.committed(self, partition, commit, led=led or partition in self.leading)
        self.service.committed(partition, commit)
        self.has_committed(self, partition)

    def speak(self) -> None:
        """Something goes out of this process."""
        if self.is_broken:
            raise Violation("a stopped replica is silent", f"{self.name} goes on after a turn that broke")

    def broke(self) -> None:
        """A turn broke; the process ends, but not at once."""
        if self.world.trace:
            self.world.tell(f"{self.name} breaks")
        self.is_broken = True
        lasts = self.world.random.randrange(self.plan.consensus.suspicion_us)
        self.world.after(lasts, self._leave_now, self.incarnation)

    def role_changed(self, change: RoleChange) -> None:
        """A group's role, term or leader changed."""
        if self.world.trace:
            self.world.tell(
                f"{self.name} {change.role} of {change.partition} in term {change.term}, "
                f"leader {change.leader}"
            )
        if change.role == Role.LEADER:
            self.invariants.leads(self, change.partition, change.term)
            if self.leading.get(change.partition) != change.term:
                self.leading[change.partition] = change.term
                self.elected(self, change.partition)
        else:
            self.leading.pop(change.partition, None)
            if change.leader is not None:
                self.invariants.follows(self, change.partition, change.term, change.leader)
        self.service.role_changed(change)

    def _set_timer(self) -> None:
        due = max(self._world_time(self.core.next_deadline()), self.world.now + 1)
        due = min(due, self.world.now + self.plan.consensus.heartbeat_us)
        if due < self._timer_at or self._timer_at <= self.world.now:
            self._timer_at = due
            self._timer += 1
            self.world.at(due, self._timer_fires, self._timer)

    def _timer_fires(self, timer: int) -> None:
        if timer != self._timer or not self.alive:
            return
        self._timer_at = NEVER
        self.do(self._tick)

    def _tick(self) -> None:
        self.core.tick(self.clock())

    # -- the sync thread

    def sync_soon(self, number: int) -> None:
        """Have everything up to write `number` synced."""
        self._numbers_written = number
        self._start_sync()

    def sync_runs_for(self) -> int:
        """How long the present sync has been running; 0 if none is."""
        return 0 if self._sync_since is None else self.world.now - self._sync_since

    def _start_sync(self) -> None:
        if self._sync_since is not None:
            return
        self._sync_since = self.world.now
        disk = self.plan.disk
        jitter = int(self.world.random.expovariate(1.0) * disk.jitter_us)
        lasts = (disk.sync_us + jitter) * self.sync_factor
        number, covered = self._numbers_written, self.disk.unsynced()
        if self._tools.instant_sync:
            self.world.after(0, self.do, self._tell_persisted, number)
        self._sync_under_way = (number, covered)
        self.world.after(lasts, self._sync_ends, self.incarnation, number, covered)

    def mend_disk(self) -> None:
        """From now on it is as fast as it was, and a sync that hangs ends too."""
        self.sync_factor = 1
        if self.alive and self._sync_under_way is not None:
            disk = self.plan.disk
            lasts = disk.sync_us + disk.jitter_us
            self.world.after(lasts, self._sync_ends, self.incarnation, *self._sync_under_way)

    def _sync_ends(self, incarnation: int, number: int, covered: int) -> None:
        if not self.alive or self.incarnation != incarnation:
            return
        if self._sync_under_way != (number, covered):
            return  # mended meanwhile: this is the end that did not come to pass
        self._sync_under_way = None
        if self.sync_fails:  # rule 16: fatal, never retried
            self.sync_fails = False
            self.crash()
            return
        self.disk.harden(covered)
        self.do(self._synced, number)

    def _synced(self, number: int) -> None:
        self._sync_since = None
        self._tell_persisted(number)
        if self.disk.unsynced():
            self._start_sync()

    def _tell_persisted(self, number: int) -> None:
        if self.driver is not None:
            self.driver._synced(number, 0)
        else:
            self.core.persisted(number, self.clock())

    def _disk_stalls(self) -> bool:
        """Rule 25: a node whose disk does not move must not look alive."""
        return self.sync_runs_for() > self.plan.consensus.suspicion_us


def _core_holds(core: MultiRaft) -> int:
    """Reads without an answer, and messages that wait for a sync or for the next Ready."""
    rounds = core._rounds
    reads = [*rounds._waiting.values(), *rounds._confirmed.values()]
    reads += [share.reads for round_ in rounds._rounds.values() for share in round_.shares.values()]
    held = [held.messages for held in core._syncs.under_way()]
    out = list(core._out.values())
    return sum(map(len, reads)) + sum(map(len, held)) + sum(map(len, out))


def _brief(message: Any) -> str:
    entries = getattr(message, "entries", None)
    if entries is None:
        return str(message)
    ends = f"{entries[0].index}..{entries[-1].index}" if entries else "nothing"
    return (
        f"Append(partition={message.partition}, term={message.term}, prev={message.prev_index}"
        f"/{message.prev_term}, commit={message.commit}, entries={ends})"
    )


__all__ = ["DATA", "SimNode", "Tools"]
