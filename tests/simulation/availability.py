"""Watches, while the faults go on, whether writes should be possible, and for how long they were not.

A partition takes writes if and only if a majority of its voters are up and connected (contract, line 9).
So as long as one and the same majority is well, and joined by both lanes in both directions, there must
be a leader that commits; elections take their time, and so the gap is bounded, not zero. The longest one
of a run is recorded. What each node holds in memory is looked at on the same occasions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations

from allsource.cluster.consensus.leadership import STUCK_SUSPICIONS_MAX
from tests.simulation.invariants import Invariants, Violation
from tests.simulation.network import Network
from tests.simulation.node import SimNode
from tests.simulation.plan import Plan
from tests.simulation.world import World

GAP_SUSPICIONS = 12 + STUCK_SUSPICIONS_MAX
GAP_SYNCS = 100
"""With a well-connected majority a partition is without a leader that commits for this many suspicion
times, and syncs, at most. The second part is the worst case, a leader outside that majority whose
followers' logs grow and whose acknowledgements are lost."""


class Availability:
    """All partitions of one run. `sample` at intervals."""

    def __init__(
        self,
        world: World,
        plan: Plan,
        nodes: Sequence[SimNode],
        network: Network,
        invariants: Invariants,
        replicas: Sequence[Sequence[str]],
    ) -> None:
        self.longest_gap_us = 0
        self._world = world
        self._network = network
        self._invariants = invariants
        self._nodes = {node.name: node for node in nodes}
        self._replicas = replicas
        self._majorities: list[tuple[str, ...]] = [()] * plan.partitions
        self._since = [0] * plan.partitions
        """Since when this majority is well, or the partition was last seen to take writes."""
        self._committed = [0] * plan.partitions
        self._reads: dict[str, set[object]] = {}
        """By node, the reads that waited for a confirmation when last looked at."""
        self._old_reads: dict[str, set[int]] = {}
        """By node, the partitions whose reads have waited since before that."""
        syncs = plan.disk.sync_us + plan.disk.jitter_us + plan.network.delay_us + plan.network.jitter_us
        self._limit_us = GAP_SUSPICIONS * plan.consensus.suspicion_us + GAP_SYNCS * syncs
        self._every_us = plan.consensus.suspicion_us // 4

    def start(self) -> None:
        """Look now, and again and again."""
        self.sample()
        self._world.after(self._every_us, self.start)

    def sample(self) -> None:
        """Look at every partition once; raises `Violation` if one was without a leader for too long."""
        well = [node.name for node in self._nodes.values() if _is_well(node)]
        self._look_at_reads()
        for partition, voters in enumerate(self._replicas):
            self._look_at(partition, [voter for voter in voters if voter in well], len(voters) // 2 + 1)
        for node in self._nodes.values():
            if node.alive:
                node.check_memory()

    def _look_at_reads(self) -> None:
        for name, node in self._nodes.items():
            waiting = list(_waiting_reads(node)) if node.alive else []
            before = self._reads.get(name, set())
            self._old_reads[name] = {partition for partition, ticket in waiting if ticket in before}
            self._reads[name] = {ticket for _, ticket in waiting}

    def _look_at(self, partition: int, well: list[str], needed: int) -> None:
        majority = self._majorities[partition]
        if not majority or not self._is_joined(majority, well):
            found = (c for c in combinations(well, needed) if self._is_joined(c, well))
            majority = self._majorities[partition] = next(found, ())
            self._since[partition] = self._world.now
        committed = len(self._invariants.canon[partition].entries)
        if committed > self._committed[partition] or self._is_led(partition, well):
            self._committed[partition] = committed
            self._since[partition] = self._world.now
        elif majority:
            gap_us = self._world.now - self._since[partition]
            self.longest_gap_us = max(self.longest_gap_us, gap_us)
            if gap_us > self._limit_us:
                raise Violation(
                    "a connected majority takes writes",
                    f"partition {partition} was without a leader that commits for {gap_us} us, and "
                    f"{', '.join(majority)} were well",
                )

    def _is_joined(self, names: Sequence[str], well: list[str]) -> bool:
        return all(name in well for name in names) and all(
            self._network.joins(a, b) for a, b in combinations(names, 2)
        )

    def _is_led(self, partition: int, well: list[str]) -> bool:
        """Whether somebody leads who could commit, and owes nobody a commit or a read: where nobody asks
        for anything, nobody is kept waiting."""
        for name in well:
            group = self._nodes[name].core.groups.get(partition)
            if group is None or partition in self._old_reads[name] or not self._reaches(name, partition):
                continue
            if group.committed_in_term and group.log.last_index == group.commit:
                return True
        return False

    def _reaches(self, name: str, partition: int) -> bool:
        """Whether data connections carry between this replica and a majority, itself counted."""
        replicas = self._replicas[partition]
        reached = [one for one in replicas if one == name or self._network.carries(name, one)]
        return 2 * len(reached) > len(replicas)


def _waiting_reads(node: SimNode) -> Iterator[tuple[int, object]]:
    """`(partition, ticket)` of each read that no majority has confirmed yet."""
    rounds = node.core._rounds
    for partition, reads in rounds._waiting.items():
        yield from [(partition, (node.incarnation, read.ticket)) for read in reads]
    for round_ in rounds._rounds.values():
        for partition, share in round_.shares.items():
            yield from [(partition, (node.incarnation, read.ticket)) for read in share.reads]


def _is_well(node: SimNode) -> bool:
    fit = node.alive and not node.paused and not node.leaving and not node.is_broken
    return fit and node.sync_factor == 1 and not node.no_room
