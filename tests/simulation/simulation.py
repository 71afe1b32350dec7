"""One run: build the cluster that a plan describes, let it suffer, heal it, judge it.

Phase one is safety: anything may fail, and every invariant is checked at every step. Phase two is
progress: all faults end for a random set of nodes that holds a majority of every partition, and
within a stated time every one of those partitions must take a write and be owned by whom placement
names. The others stay away (crashed, cut off, or as the faults left them), and come back in the end:
then everything must be as if nothing had happened, and the logs are judged.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import permutations
from unittest import mock

import allsource.cluster.consensus.log as log_module
import allsource.node.requests.lanes as lanes_module
from allsource.cluster.consensus.leadership import STUCK_SUSPICIONS_MAX
from allsource.cluster.membership.placement import owners, replica_sets
from tests.simulation.availability import Availability
from tests.simulation.checkers import Evidence, judge
from tests.simulation.clients import Client
from tests.simulation.disk import Index
from tests.simulation.faults import Faults
from tests.simulation.history import OK, AppendOperation, History, ReadOperation
from tests.simulation.invariants import Invariants, Violation
from tests.simulation.network import BEAT, BOTH, DATA, Network
from tests.simulation.node import SimNode, Tools
from tests.simulation.plan import Plan, stream_of
from tests.simulation.world import World

PROGRESS_SUSPICIONS = 12
"""Healed, a partition takes a write within this many suspicion times (and a few slow syncs)."""
PROGRESS_SYNCS = 100

QUIET_SUSPICIONS = 2
"""How long a cluster in which all is well is watched, when it has settled: nobody is elected any more."""
PARTLY_PROGRESS_SUSPICIONS = PROGRESS_SUSPICIONS + STUCK_SUSPICIONS_MAX
"""Where only acknowledgements are cut, a leader whose followers' logs grow is deposed that much later."""
PARTLY_SETTLED_SUSPICIONS = 3
PARTLY_QUIET_SUSPICIONS = 5
PARTLY_ELECTIONS_MAX = 6
"""Where some links stay cut, views differ, and leadership may still move in the second of these spans. It
must not go to and fro (rule 36): two polite leaders did so twenty-five times in it."""

HAND_OVER_TERMS_MAX = 4
"""Terms in which a partition is given away and comes back: two, and as many for what may go wrong."""


class Simulation:
    """A plan made real. `run` raises `Violation` (or the core's own AssertionError) if it fails."""

    def __init__(
        self, plan: Plan, tools: Tools | None = None, trace: Callable[[str], None] | None = None
    ) -> None:
        self.plan = plan
        self.world = World(plan.seed, trace)
        self.history = History()
        self.invariants = Invariants(self.world, self.history, plan.partitions)
        self.members = tuple(f"n{number + 1}" for number in range(plan.nodes))
        self.replicas = replica_sets(self.members, plan.partitions, plan.replication_factor)
        tools = tools or Tools()
        self.nodes = [
            SimNode(number, self.world, plan, self.members, self._hosted(name), tools, self.invariants)
            for number, name in enumerate(self.members)
        ]
        self.invariants.processes.update((node.name, node) for node in self.nodes)
        self.network = Network(self.world, plan.network, self.nodes)
        for node in self.nodes:
            node.network = self.network
        self.clients = [
            Client(number, self.world, plan, self.nodes, self.history)
            for number in range(plan.load.clients)
        ]
        self.faults = Faults(self.world, plan, self.nodes, self.network)
        for node in self.nodes:
            node.elected = self.faults.elected
            node.has_committed = self.faults.committed
        self.availability = Availability(
            self.world, plan, self.nodes, self.network, self.invariants, self.replicas
        )
        self.recovery_us = 0
        """How long the healed majority needed until every partition took a write."""

    def _hosted(self, name: str) -> tuple[int, ...]:
        return tuple(p for p, replicas in enumerate(self.replicas) if name in replicas)

    # -- the phases

    def run(self) -> None:
        """All of it."""
        with (
            mock.patch.object(log_module, "TAIL_BYTES_MAX", self.plan.tail_bytes),
            mock.patch.object(lanes_module, "GROUP_APPENDS_MAX", self.plan.group_max),
        ):
            self._run()

    def _run(self) -> None:
        self._suffer()
        self._check_calm()
        self._check_elections()
        survivors = self._choose_survivors()
        self._heal(survivors)
        self._demand_progress(survivors)
        self._restore_everybody()
        self._demand_agreement()
        self._judge()

    def _suffer(self) -> None:
        for node in self.nodes:
            self.world.at(self.world.random.randrange(20_000), node.start)
        for client in self.clients:
            client.start()
        self.faults.schedule()
        self.world.at(30_000, self.availability.start)
        self.world.run_until(max(self.plan.duration_us, 30_000))

    def _check_calm(self) -> None:
        """Where nothing that counts went wrong, nobody was elected once all were in office (rule 12)."""
        if not self.plan.is_calm():
            return
        settled = 4 * self.plan.consensus.suspicion_us
        for election in self.history.elections:
            if election.at_us > settled + 30_000:
                raise Violation("rule 12, leaders stay", f"{election} in a calm cluster")

    def _check_elections(self) -> None:
        """Leaderships, and the no-ops that they leave in the log, are as many as the faults explain."""
        counts = Counter(election.partition for election in self.history.elections)
        most = max(counts.values(), default=0)
        if most > self.plan.elections_max():
            raise Violation("leaders stay", f"{most} elections for {len(self.plan.faults)} faults")

    def _choose_survivors(self) -> list[SimNode]:
        """A random set of nodes that holds a majority of the voters of every partition."""
        order = self.world.random.sample(self.nodes, len(self.nodes))
        for count in range(len(order) // 2 + 1, len(order) + 1):
            names = [node.name for node in order[:count]]
            if all(sum(voter in names for voter in voters) > len(voters) // 2 for voters in self.replicas):
                return sorted(order[:count], key=lambda node: node.number)
        return list(self.nodes)

    def _heal(self, survivors: Sequence[SimNode]) -> None:
        self.world.tell(f"-- phase two: {', '.join(node.name for node in survivors)} are healed")
        left = [node for node in self.nodes if node not in survivors]
        wrong = {node.name: (node.alive, node.paused) for node in left}
        self.faults.end_all()
        self.network.heal()
        for node in survivors:
            _make_well(node)
        for node in left:
            alive, paused = wrong[node.name]
            if self.plan.minority == "crash" or not alive:
                node.crash()
            elif self.plan.minority == "partly":
                if self.world.random.random() < 0.8:
                    _make_well(node)
                else:
                    node.crash()
            elif self.plan.minority == "isolate":
                for other in survivors:
                    self.network.cut(node.name, other.name)
                    self.network.cut(other.name, node.name)
            elif paused:
                node.pause()
        if self.plan.minority == "partly":
            self._leave_cuts(survivors)

    def _leave_cuts(self, survivors: Sequence[SimNode]) -> None:
        """The survivors reach each other; of the other links some stay cut, one way or in one lane."""
        random = self.world.random
        for one, other in permutations(self.nodes, 2):
            if not (one in survivors and other in survivors) and random.random() < 0.4:
                lanes = random.choice((BOTH, BOTH, (DATA,), (BEAT,)))
                self.world.tell(f"-- {one.name} to {other.name} stays cut, lanes {lanes}")
                self.network.cut(one.name, other.name, lanes)

    def _demand_progress(self, survivors: Sequence[SimNode]) -> None:
        began = self.world.now
        # A client that asks a paused or isolated node waits out a timeout each time; that is not progress
        # of the cluster. A node left `as_is` may be well, and an owner.
        as_is = self.plan.minority in ("as_is", "partly")
        asked = [n for n in self.nodes if n in survivors or (as_is and n.alive and not n.paused)]
        writers = self._write_everywhere(asked)
        partly = self.plan.minority == "partly"
        self._wait(
            "every partition takes a write",
            lambda: all(o.outcome == OK for o in writers()),
            PARTLY_PROGRESS_SUSPICIONS if partly else PROGRESS_SUSPICIONS,
        )
        self.recovery_us = self.world.now - began
        if partly:
            self.world.run_until(
                self.world.now + PARTLY_SETTLED_SUSPICIONS * self.plan.consensus.suspicion_us
            )
            self._demand_quiet(PARTLY_QUIET_SUSPICIONS, PARTLY_ELECTIONS_MAX)
        elif self.plan.minority != "as_is":
            healthy = {node.name for node in survivors}
            wanted = owners(self.replicas, healthy)
            self._wait("owners are who placement says", lambda: self._owners(survivors) == wanted)

    def _demand_quiet(self, suspicions: int, elections_max: int) -> None:
        """For a while nobody is elected without cause: each election is a no-op in the log for ever.
        Where a sync takes a good part of the suspicion time, that is cause enough.

        An election belongs to the time in which its term began. A winner may hear of it late, or tell it
        late: its log found no room for the first entry, or a link that was cut held the last vote. If a
        node knows that term already, the candidate stood before this while began. Where everybody is home,
        nothing else is excused by that: a majority is in the newest term, and gives no vote in an older one
        nor a second vote in its own.
        """
        if not self.plan.disk.is_fast(self.plan.consensus.suspicion_us):
            return
        began = len(self.history.elections)
        known = self._terms([node for node in self.nodes if node.alive])
        self.world.run_until(self.world.now + suspicions * self.plan.consensus.suspicion_us)
        elections = [one for one in self.history.elections[began:] if one.term > known[one.partition]]
        counts = Counter(election.partition for election in elections)
        if counts and max(counts.values()) > elections_max:
            raise Violation("leaders stay", f"{counts} elections without cause: {elections[:6]}")

    def _write_everywhere(self, nodes: Sequence[SimNode]) -> Callable[[], list[AppendOperation]]:
        """One more client for each partition, which appends until one append is acknowledged. It asks
        these nodes alone."""
        patient = [
            Client(
                self.plan.load.clients + partition + 1000 * (1 + self.world.now),
                self.world,
                self.plan,
                nodes,
                self.history,
            )
            for partition in range(self.plan.partitions)
        ]
        newest = [
            client.append_any(partition, self._stream(partition))
            for partition, client in enumerate(patient)
        ]
        for client in patient:
            client.stopped = True

        def look() -> list[AppendOperation]:
            for partition, operation in enumerate(newest):
                if operation.returned >= 0 and operation.outcome != OK:
                    newest[partition] = patient[partition].append_any(partition, self._stream(partition))
            return newest

        return look

    def _restore_everybody(self) -> None:
        self.world.tell("-- everybody is healed")
        self.network.heal()
        for node in self.nodes:
            _make_well(node)
        for client in self.clients:
            client.stopped = True

    def _demand_agreement(self) -> None:
        """Everybody back: owners as if nothing had happened, all replicas equal, reads see it all."""
        wanted = owners(self.replicas, self.members)
        self._let_slow_messages_arrive()
        self._let_everybody_be_heard()
        self._wait("owners are back home", lambda: self._owners(self.nodes) == wanted, late=self._shyness())
        self._demand_quiet(QUIET_SUSPICIONS, 0)
        self._demand_that_leadership_yields()
        writers = self._write_everywhere(self.nodes)
        self._wait("every partition takes a write again", lambda: all(o.outcome == OK for o in writers()))
        readers = self._read_everything()
        self._wait("every stream can be read", lambda: all(o.outcome == OK for o in readers()))
        self._wait("all replicas are equal", self._replicas_agree)
        self._wait("nothing waits any more", lambda: not any(node.waiting() for node in self.nodes))

    def _let_slow_messages_arrive(self) -> None:
        """A slow link is well, but what it took before is still under way, for some hundred milliseconds
        more. As over TCP all that is sent now waits behind it. So a node that is well is rightly held for
        dead (beats wait, rules 12 and 25) or for out of reach (data waits, rule 35), and a leader that
        misses it for a majority steps down: the fault goes on, and an election has its cause.

        With the last of it comes all that waited. Each node's next beat then says whom it follows, which
        takes a heartbeat and less than a suspicion time: whoever still leads is sure of its majority.
        """
        settled_us = self.network.slow_until + self.plan.consensus.suspicion_us
        if settled_us > self.world.now:
            self.world.run_until(settled_us)

    def _let_everybody_be_heard(self) -> None:
        """A silence ends with the next beat, and not with the fault that caused it: for up to a heartbeat
        after the healing a leader that was cut off may rightly be held for dead, whatever its data
        connection carries (rule 25: only beats vouch for a node, and rule 12: two such followers may elect
        each other). So calm begins when each node has heard a beat of each other that was made from now on.

        No more is to be waited for. Such a beat restarts the silence, and whoever had given its sender up
        follows it again, also if it was about to stand. An election that got further shows by its term, and
        has nobody at home until it is won. And each leader is sure of its majority, which has acknowledged
        a write since the first healing.
        """
        made = {node.name: node.core._beat_sequence for node in self.nodes}
        self._wait(
            "everybody hears everybody",
            lambda: all(
                node.core._beats_heard.get(peer, -1) > last
                for node in self.nodes
                for peer, last in made.items()
                if peer != node.name
            ),
        )

    def _demand_that_leadership_yields(self) -> None:
        """A full disk gives its partitions away, as far as others can lead them, and gets them back: by two
        elections, however long a sync takes."""
        node = self.world.random.choice(self.nodes)
        before = self._terms(self.nodes)
        node.yield_leadership(True)
        wanted = owners(self.replicas, self.members, {node.name})
        yielded = f"{node.name} yields"
        self._wait(yielded, lambda: self._owners(self.nodes) == wanted, late=self._shyness())
        node.yield_leadership(False)
        wanted = owners(self.replicas, self.members)
        self._wait(f"{node.name} leads again", lambda: self._owners(self.nodes) == wanted)
        took = [now - then for then, now in zip(before, self._terms(self.nodes), strict=True)]
        if max(took) > HAND_OVER_TERMS_MAX:
            raise Violation("rule 13, elections have their time", f"two hand-overs took {took} terms")

    def _terms(self, nodes: Sequence[SimNode]) -> list[int]:
        """The newest term of each partition that any of these nodes knows."""
        return [
            max(node.core.term_of(partition) for node in nodes) for partition in range(self.plan.partitions)
        ]

    def _stream(self, partition: int, number: int = 0) -> str:
        return stream_of(partition, number, self.plan.partitions)

    def _read_everything(self) -> Callable[[], list[ReadOperation]]:
        streams = [
            (p, self._stream(p, s))
            for p in range(self.plan.partitions)
            for s in range(self.plan.load.streams)
        ]
        readers = [
            Client(2000 + number, self.world, self.plan, self.nodes, self.history)
            for number in range(len(streams))
        ]
        newest = [reader.read(*stream) for reader, stream in zip(readers, streams, strict=True)]
        for reader in readers:
            reader.stopped = True

        def look() -> list[ReadOperation]:
            for number, operation in enumerate(newest):
                if operation.returned >= 0 and operation.outcome != OK:
                    newest[number] = readers[number].read(*streams[number])
            return newest

        return look

    def _shyness(self) -> int:
        """How long whoever led in vain lets others lead: it asks for partitions that it should own, and for
        those of a node that yields, no sooner (rules 35 and 36)."""
        return max(
            (
                group.lets_others_lead_for(node.clock())
                for node in self.nodes
                for group in node.core.groups.values()
            ),
            default=0,
        )

    def _wait(
        self,
        what: str,
        done: Callable[[], bool],
        suspicions: int = PROGRESS_SUSPICIONS,
        *,
        late: int = 0,
    ) -> None:
        """Let time pass until something holds; looking costs little, but not nothing, so every 5 ms.
        `late`: microseconds that are rightly waited first."""
        plan = self.plan
        syncs = plan.disk.sync_us + plan.disk.jitter_us + plan.network.delay_us + plan.network.jitter_us
        limit = late + suspicions * plan.consensus.suspicion_us + PROGRESS_SYNCS * syncs
        end = self.world.now + limit + plan.load.timeout_us
        while not done():
            if self.world.now >= end:
                self.invariants.raise_remembered()
                raise Violation("progress", f"not so within {limit} us: {what}")
            self.world.run_until(self.world.now + 5_000)

    # -- what is asked of the nodes

    def _owners(self, nodes: Sequence[SimNode]) -> tuple[str | None, ...]:
        """Who leads each partition in the newest term that any of them knows; an older one's leader only
        has not noticed yet, also while nobody leads in the newest."""
        leaders: list[str | None] = [None] * self.plan.partitions
        newest = self._terms(nodes)
        for node in nodes:
            for partition, term in node.leading.items():
                if term == newest[partition]:
                    leaders[partition] = node.name
        return tuple(leaders)

    def _replicas_agree(self) -> bool:
        for partition, canon in enumerate(self.invariants.canon):
            for node in self.nodes:
                if partition in node.hosted:
                    replica = node.disk.view[partition]
                    commit = node.core.commit_index(partition)
                    if commit != len(canon.entries) or len(replica.entries) != commit:
                        return False
        return True

    def _judge(self) -> None:
        self.invariants.raise_remembered()
        logs = {partition: canon.entries for partition, canon in enumerate(self.invariants.canon)}
        replicas = {
            (node.name, partition): node.disk.view[partition].entries
            for node in self.nodes
            for partition in node.hosted
        }
        for node in self.nodes:
            for partition in node.hosted:
                if node.disk.index[partition] != Index(node.disk.view[partition].entries):
                    raise Violation("indexes are a replay of the log", f"{node.name}/{partition}")
        complaints = judge(Evidence(self.history, logs, replicas))
        if complaints:
            raise Violation(complaints[0].partition(":")[0], "\n  ".join(complaints[:10]))


def _make_well(node: SimNode) -> None:
    node.mend_disk()
    node.sync_fails = node.no_room = node.work_raises = False
    node.resume()
    if node.is_broken:
        node.crash()
    if not node.alive:
        node.start()
