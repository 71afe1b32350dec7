"""One run: build the cluster that a plan describes, let it suffer, heal it, judge it.

Phase one is safety: anything may fail, and every invariant is checked at every step. Phase two is
progress: all faults end for a random set of nodes that holds a majority of every partition, and
within a stated time every one of those partitions must take a write and be owned by whom placement
names. The others stay away (crashed, cut off, or as the faults left them), and come back in the end:
then everything must be as if nothing had happened, and the logs are judged.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from unittest import mock

import allsource.cluster.consensus.log as log_module
from allsource.cluster.placement import owners, replica_sets
from tests.simulation.checkers import Evidence, judge
from tests.simulation.clients import Client
from tests.simulation.disk import Index
from tests.simulation.faults import Faults
from tests.simulation.history import OK, AppendOperation, History, ReadOperation
from tests.simulation.invariants import Invariants, Violation
from tests.simulation.network import Network
from tests.simulation.node import SimNode, Tools
from tests.simulation.plan import Plan, stream_of
from tests.simulation.world import World

PROGRESS_SUSPICIONS = 12
"""Healed, a partition takes a write within this many suspicion times (and a few slow syncs)."""
PROGRESS_SYNCS = 100


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
        self.recovery_us = 0
        """How long the healed majority needed until every partition took a write."""

    def _hosted(self, name: str) -> tuple[int, ...]:
        return tuple(p for p, replicas in enumerate(self.replicas) if name in replicas)

    # -- the phases

    def run(self) -> None:
        """All of it."""
        with mock.patch.object(log_module, "TAIL_BYTES_MAX", self.plan.tail_bytes):
            self._run()

    def _run(self) -> None:
        self._suffer()
        self._check_calm()
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
        self.world.run_until(max(self.plan.duration_us, 30_000))

    def _check_calm(self) -> None:
        """Where nothing that counts went wrong, nobody was elected once all were in office (rule 12)."""
        if not self.plan.is_calm():
            return
        settled = 4 * self.plan.consensus.suspicion_us
        for election in self.history.elections:
            if election.at_us > settled + 30_000:
                raise Violation("rule 12, leaders stay", f"{election} in a calm cluster")

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
            elif self.plan.minority == "isolate":
                for other in survivors:
                    self.network.cut(node.name, other.name)
                    self.network.cut(other.name, node.name)
            elif paused:
                node.pause()

    def _demand_progress(self, survivors: Sequence[SimNode]) -> None:
        began = self.world.now
        # A client that asks a paused or isolated node waits out a timeout each time; that is not progress
        # of the cluster. A node left `as_is` may be well, and an owner.
        as_is = self.plan.minority == "as_is"
        asked = [n for n in self.nodes if n in survivors or (as_is and n.alive and not n.paused)]
        writers = self._write_everywhere(asked)
        self._wait("every partition takes a write", lambda: all(o.outcome == OK for o in writers()))
        self.recovery_us = self.world.now - began
        if self.plan.minority != "as_is":
            healthy = {node.name for node in survivors}
            wanted = owners(self.replicas, healthy)
            self._wait("owners are who placement says", lambda: self._owners(survivors) == wanted)

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
        self._wait("owners are back home", lambda: self._owners(self.nodes) == wanted)
        self._demand_that_leadership_yields()
        writers = self._write_everywhere(self.nodes)
        self._wait("every partition takes a write again", lambda: all(o.outcome == OK for o in writers()))
        readers = self._read_everything()
        self._wait("every stream can be read", lambda: all(o.outcome == OK for o in readers()))
        self._wait("all replicas are equal", self._replicas_agree)

    def _demand_that_leadership_yields(self) -> None:
        """A full disk gives its partitions away, as far as others can lead them, and gets them back."""
        node = self.world.random.choice(self.nodes)
        node.yield_leadership(True)
        wanted = owners(self.replicas, self.members, {node.name})
        self._wait(f"{node.name} yields", lambda: self._owners(self.nodes) == wanted)
        node.yield_leadership(False)
        wanted = owners(self.replicas, self.members)
        self._wait(f"{node.name} leads again", lambda: self._owners(self.nodes) == wanted)

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

    def _wait(self, what: str, done: Callable[[], bool]) -> None:
        """Let time pass until something holds; looking costs little, but not nothing, so every 5 ms."""
        plan = self.plan
        syncs = plan.disk.sync_us + plan.disk.jitter_us + plan.network.delay_us + plan.network.jitter_us
        limit = PROGRESS_SUSPICIONS * plan.consensus.suspicion_us + PROGRESS_SYNCS * syncs
        end = self.world.now + limit + plan.load.timeout_us
        while not done():
            if self.world.now >= end:
                raise Violation("progress", f"not so within {limit} us: {what}")
            self.world.run_until(self.world.now + 5_000)

    # -- what is asked of the nodes

    def _owners(self, nodes: Sequence[SimNode]) -> tuple[str | None, ...]:
        leaders: list[str | None] = [None] * self.plan.partitions
        for node in nodes:
            for partition in node.leading:
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
    node.sync_fails = False
    node.resume()
    if not node.alive:
        node.start()
