"""What can go wrong, one function for each kind; each returns what ends it.

A fault strikes at its time and is undone when it has lasted, or when everything is healed, whichever
comes first. Faults overlap freely: pause A, kill B, resume A needs no kind of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import permutations, product

from tests.simulation.network import BEAT, BOTH, DATA, Network
from tests.simulation.node import SimNode
from tests.simulation.plan import Fault, Plan
from tests.simulation.world import World

Undo = Callable[[], None]


class Faults:
    """The faults of one run: it schedules them, undoes them, and ends them all at once to heal."""

    def __init__(self, world: World, plan: Plan, nodes: Sequence[SimNode], network: Network) -> None:
        self._world = world
        self._plan = plan
        self._nodes = nodes
        self._network = network
        self._active: dict[int, Undo] = {}
        self._traps: list[tuple[int, int, Fault]] = []
        """`(partition, number, fault)` of the traps that nobody fell into yet."""
        self._over = False

    def schedule(self) -> None:
        """Put the plan's faults on the heap."""
        for number, fault in enumerate(self._plan.faults):
            self._world.at(fault.at_us, self._strike, number, fault)

    def end_all(self) -> None:
        """Undo what still lasts, and let nothing strike any more."""
        self._over = True
        self._traps.clear()
        for number in list(self._active):
            self._end(number)

    def _strike(self, number: int, fault: Fault) -> None:
        if self._over:
            return
        self._world.tell(f"-- fault {number}: {fault}")
        if fault.kind.endswith(("_election", "_commit")):
            self._traps.append((fault.targets[0] % self._plan.partitions, number, fault))
        else:
            self._hit(number, fault, self._targets(fault))

    def elected(self, node: SimNode, partition: int) -> None:
        """A node has just begun to lead: it may step into a trap, and fall a moment later."""
        network, disk = self._plan.network, self._plan.disk
        a_while = network.delay_us + network.jitter_us + disk.sync_us + disk.jitter_us
        self._step_on("election", node, partition, a_while)

    def committed(self, node: SimNode, partition: int) -> None:
        """A node has just learnt of a commit: it may step into a trap, and fall very soon."""
        self._step_on("commit", node, partition, self._plan.network.delay_us // 2)

    def _step_on(self, event: str, node: SimNode, partition: int, mean_delay_us: int) -> None:
        for trap in self._traps:
            if trap[0] == partition and trap[2].kind.endswith(event):
                self._traps.remove(trap)
                delay = int(self._world.random.expovariate(1.0) * mean_delay_us)
                self._world.after(delay, self._hit, trap[1], trap[2], [node])
                return

    def _hit(self, number: int, fault: Fault, targets: list[SimNode]) -> None:
        if targets and not self._over:
            self._active[number] = STRIKES[fault.kind](self, targets, fault)
            self._world.after(fault.lasts_us, self._end, number)

    def _end(self, number: int) -> None:
        undo = self._active.pop(number, None)
        if undo is not None:
            self._world.tell(f"-- fault {number} ends")
            undo()

    def _targets(self, fault: Fault) -> list[SimNode]:
        if fault.kind.endswith("_leader"):
            partition = fault.targets[0] % self._plan.partitions
            return [node for node in self._nodes if partition in node.leading]
        if fault.kind.endswith("_follower"):
            idle = [node for node in self._nodes if not node.leading]
            return [idle[fault.targets[0] % len(idle)]] if idle else []
        return [self._nodes[number] for number in fault.targets if number < len(self._nodes)]

    # -- processes

    def _crash(self, targets: list[SimNode], _fault: Fault) -> Undo:
        for node in targets:
            node.crash()

        def restart() -> None:
            for node in targets:
                node.start()

        return restart

    def _shut_down(self, targets: list[SimNode], fault: Fault) -> Undo:
        for node in targets:
            node.leave()

        def restart() -> None:
            for node in targets:
                node.crash()
                node.start()

        return restart

    def _pause(self, targets: list[SimNode], _fault: Fault) -> Undo:
        for node in targets:
            if node.alive:
                node.pause()

        def resume() -> None:
            for node in targets:
                node.resume()

        return resume

    # -- network

    def _cut(self, links: Iterable[tuple[SimNode, SimNode]], lanes: Sequence[int] = BOTH) -> Undo:
        pairs = [(a.name, b.name) for a, b in links]
        for source, target in pairs:
            self._network.cut(source, target, lanes)

        def mend() -> None:
            for source, target in pairs:
                self._network.mend(source, target, lanes)

        return mend

    def _isolate(self, targets: list[SimNode], _fault: Fault) -> Undo:
        return self._cut(_both_ways(targets, [node for node in self._nodes if node not in targets]))

    def _isolate_and_stall(self, targets: list[SimNode], fault: Fault) -> Undo:
        """Nobody hears it, its disk hangs, and it goes on proposing: its syncs come back after it
        was deposed, for entries that it then has to give up (rule 2)."""
        mend = self._isolate(targets, fault)
        end = self._stalled_disk(targets, fault)

        def undo() -> None:
            mend()
            end()

        return undo

    def _minority(self, targets: list[SimNode], _fault: Fault) -> Undo:
        """A leader and one follower alone: what it accepts there, the others' leader will undo."""
        two = [targets[0], self._next_to(targets[0])]
        return self._cut(_both_ways(two, [node for node in self._nodes if node not in two]))

    def _minority_echo(self, targets: list[SimNode], fault: Fault) -> Undo:
        """The same; shortly before it ends the others elect another leader, which undoes all that. What the
        follower acknowledged is heard again when the first leader is back in office (rule 34)."""
        leader, follower = targets[0], self._next_to(targets[0])
        mend = self._minority(targets, fault)
        self._network.hoard(follower.name, leader.name, copied=True)
        beat_us = self._plan.consensus.heartbeat_us
        others = [node for node in self._nodes if node not in (leader, follower)]
        self._world.after(fault.lasts_us * 9 // 10, self._give_up, leader, others)

        def end() -> None:
            mend()
            self._network.release(follower.name, leader.name, 2 * beat_us, 6 * beat_us)

        return end

    def _give_up(self, leader: SimNode, others: Sequence[SimNode]) -> None:
        for node in others:
            node.peer_lost(leader.name)
            node.peer_refused(leader.name)

    def _usurped(self, targets: list[SimNode], fault: Fault) -> Undo:
        """A leader is given up by all others at once, and does not know. The last answers to it are on
        their way until then, and arrive when another is in office (rules 14 and 34)."""
        leader = targets[0]
        others = [node for node in self._nodes if node is not leader]
        suspicion_us = self._plan.consensus.suspicion_us
        mends: list[Undo] = []
        for node in others:
            self._network.hoard(node.name, leader.name, copied=False)

        def usurp() -> None:
            if over:
                return
            mends.append(self._isolate([leader], fault))
            for node in others:
                self._network.release(node.name, leader.name, suspicion_us // 20, suspicion_us)
            self._give_up(leader, others)

        def end() -> None:
            nonlocal over
            over = True  # it may be healed before it has begun, and must not begin afterwards
            for mend in mends:
                mend()

        over = False
        self._world.after(suspicion_us // 8, usurp)
        return end

    def _minority_asleep(self, targets: list[SimNode], fault: Fault) -> Undo:
        """A leader is heard by one follower alone, which sleeps: it wakes to the words of two leaders."""
        follower = self._next_to(targets[0])
        others = [node for node in self._nodes if node not in (targets[0], follower)]
        mend = self._cut(_both_ways(targets, others))
        wake = self._pause([follower], fault)
        self._world.after(fault.lasts_us // 4, self._give_up, targets[0], others)

        def end() -> None:
            wake()
            self._world.after(self._plan.turn_us, mend)

        return end

    def _next_to(self, node: SimNode) -> SimNode:
        return self._nodes[(node.number + 1) % len(self._nodes)]

    def _halves(self, targets: list[SimNode], _fault: Fault) -> Undo:
        middle = len(targets) // 2
        return self._cut(_both_ways(targets[:middle], targets[middle:]))

    def _bridge(self, targets: list[SimNode], _fault: Fault) -> Undo:
        """Two halves that only one node can see both of."""
        middle = len(targets) // 2
        return self._cut(_both_ways(targets[:middle], targets[middle + 1 :]))

    def _one_way(self, targets: list[SimNode], _fault: Fault) -> Undo:
        """One node is not heard by another, or, when it is alone in the list, by anybody."""
        if len(targets) == 2:
            return self._cut([(targets[0], targets[1])])
        return self._cut((targets[0], node) for node in self._nodes if node is not targets[0])

    def _link(self, targets: list[SimNode], _fault: Fault) -> Undo:
        """Two nodes do not reach each other; all others reach both."""
        return self._cut(_both_ways(targets[:1], targets[1:]))

    def _deafen(self, targets: list[SimNode], _fault: Fault) -> Undo:
        """Everybody hears it, it hears nobody."""
        return self._cut((node, targets[0]) for node in self._nodes if node is not targets[0])

    def _cut_data(self, targets: list[SimNode], _fault: Fault) -> Undo:
        """A data connection hangs and beats pass, or, of a single node, all that it sends on (rule 35)."""
        if len(targets) == 2:
            return self._cut([(targets[0], targets[1])], (DATA,))
        return self._cut(((targets[0], node) for node in self._nodes if node is not targets[0]), (DATA,))

    def _cut_replies(self, targets: list[SimNode], _fault: Fault) -> Undo:
        """One node is sent no data; it hears all beats, and everybody hears it."""
        return self._cut(((node, targets[0]) for node in self._nodes if node is not targets[0]), (DATA,))

    def _cut_beats(self, targets: list[SimNode], _fault: Fault) -> Undo:
        """One node's beats reach nobody, its data does."""
        return self._cut(((targets[0], node) for node in self._nodes if node is not targets[0]), (BEAT,))

    def _flapping(self, targets: list[SimNode], fault: Fault) -> Undo:
        """A halving that comes and goes."""
        pairs = _both_ways(targets[: len(targets) // 2], targets[len(targets) // 2 :])
        state: dict[str, Undo | None] = {"mend": self._cut(pairs)}
        over = False

        def flap() -> None:
            if over:
                return
            mend = state["mend"]
            if mend is not None:
                mend()
                state["mend"] = None
            else:
                state["mend"] = self._cut(pairs)
            self._world.after(fault.lasts_us // 7, flap)

        def end() -> None:
            nonlocal over
            over = True
            mend = state["mend"]
            if mend is not None:
                mend()

        self._world.after(fault.lasts_us // 7, flap)
        return end

    def _slow_link(self, targets: list[SimNode], _fault: Fault) -> Undo:
        pairs = [(a.name, b.name) for a, b in permutations(targets, 2)]
        for pair in pairs:
            self._network.slow_down(*pair, 50)
        return lambda: [self._network.slow_down(*pair, 1) for pair in pairs] and None

    def _reset(self, targets: list[SimNode], _fault: Fault) -> Undo:
        for one, other in permutations(targets, 2):
            self._network.reset(one.name, other.name)
        return _nothing

    # -- disks and clocks

    def _slow_disk(self, targets: list[SimNode], fault: Fault) -> Undo:
        return self._stall(targets, 100)

    def _stalled_disk(self, targets: list[SimNode], fault: Fault) -> Undo:
        per_sync = self._plan.disk.sync_us + self._plan.disk.jitter_us
        return self._stall(targets, max(1, fault.lasts_us // per_sync))

    def _stall(self, targets: list[SimNode], factor: int) -> Undo:
        for node in targets:
            node.sync_factor = factor

        def end() -> None:
            for node in targets:
                node.mend_disk()

        return end

    def _disk_error(self, targets: list[SimNode], fault: Fault) -> Undo:
        for node in targets:
            node.sync_fails = node.alive

        def restart() -> None:
            for node in targets:
                node.sync_fails = False
                node.start()

        return restart

    def _full_disk(self, targets: list[SimNode], _fault: Fault) -> Undo:
        """Nearly: it still takes what others lead, and wants to lead nothing itself (rule 24)."""
        for node in targets:
            node.yield_leadership(True)

        def end() -> None:
            for node in targets:
                node.yield_leadership(False)

        return end

    def _stuck_disk(self, targets: list[SimNode], _fault: Fault) -> Undo:
        """No room at all: every write fails, until there is room again."""
        for node in targets:
            node.no_room = True

        def end() -> None:
            for node in targets:
                node.no_room = False

        return end

    def _work_raises(self, targets: list[SimNode], _fault: Fault) -> Undo:
        """The node's code raises when it is told something: the process has to end."""
        for node in targets:
            node.work_raises = node.alive

        def restart() -> None:
            for node in targets:
                node.work_raises = False
                if node.is_broken:
                    node.crash()
                node.start()

        return restart

    def _clock_jump(self, targets: list[SimNode], fault: Fault) -> Undo:
        for node in targets:
            node.jump_clock(fault.lasts_us)
        return _nothing

    def _false_alarm(self, targets: list[SimNode], _fault: Fault) -> Undo:
        """One node is told that a living one is gone: a wrong detector deposes nobody (rule 12)."""
        if len(targets) == 2:
            targets[0].peer_lost(targets[1].name)
            targets[0].peer_refused(targets[1].name)
        return _nothing


def _nothing() -> None:
    """The end of a fault that is over as soon as it struck."""


def _both_ways(here: Sequence[SimNode], there: Sequence[SimNode]) -> list[tuple[SimNode, SimNode]]:
    return [*product(here, there), *product(there, here)]


STRIKES: dict[str, Callable[[Faults, list[SimNode], Fault], Undo]] = {
    "crash": Faults._crash,
    "crash_leader": Faults._crash,
    "crash_two": Faults._crash,
    "crash_majority": Faults._crash,
    "crash_all": Faults._crash,
    "shutdown": Faults._shut_down,
    "pause": Faults._pause,
    "pause_leader": Faults._pause,
    "pause_two": Faults._pause,
    "isolate": Faults._isolate,
    "isolate_leader": Faults._isolate,
    "isolate_and_stall_leader": Faults._isolate_and_stall,
    "minority_echo_leader": Faults._minority_echo,
    "usurped_leader": Faults._usurped,
    "minority_asleep_leader": Faults._minority_asleep,
    "crash_on_election": Faults._crash,
    "crash_on_commit": Faults._crash,
    "isolate_on_election": Faults._isolate,
    "isolate_follower": Faults._isolate,
    "deafen_follower": Faults._deafen,
    "halves": Faults._halves,
    "bridge": Faults._bridge,
    "one_way": Faults._one_way,
    "link": Faults._link,
    "data_lane": Faults._cut_data,
    "data_lanes_leader": Faults._cut_data,
    "replies_leader": Faults._cut_replies,
    "beat_lane": Faults._cut_beats,
    "beat_lane_leader": Faults._cut_beats,
    "flapping": Faults._flapping,
    "slow_link": Faults._slow_link,
    "reset": Faults._reset,
    "slow_disk": Faults._slow_disk,
    "stalled_disk": Faults._stalled_disk,
    "disk_error": Faults._disk_error,
    "full_disk": Faults._full_disk,
    "full_disk_leader": Faults._full_disk,
    "stuck_disk": Faults._stuck_disk,
    "stuck_disk_leader": Faults._stuck_disk,
    "work_raises": Faults._work_raises,
    "work_raises_leader": Faults._work_raises,
    "clock_jump": Faults._clock_jump,
    "false_alarm": Faults._false_alarm,
}
