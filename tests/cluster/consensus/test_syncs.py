"""How long a node's writes wait for their syncs is measured: elections must have that time (rule 13)."""

from __future__ import annotations

from allsource.cluster.consensus.multiraft import ConsensusConfig, MultiRaft
from tests.simulation.disk import SimDisk
from tests.storage.logs import part


class Alone:
    """The only voter of its one partition; a sync takes as long as a test says."""

    def __init__(self) -> None:
        self.now = 0
        self.disk = SimDisk([0])
        self.core = MultiRaft(
            "a",
            ("a",),
            {0: self.disk.load(0)},
            self.disk,
            config=ConsensusConfig(),
            replication_factor=1,
            partition_count=1,
            incarnation=1,
            seed=1,
            now=self.now,
        )
        while not self.core.can_propose(0):
            self.now += 10_000
            self.core.tick(self.now)
            self.turn(0)

    def turn(self, sync_us: int) -> None:
        number = 0
        while (ready := self.core.ready()) is not None:
            self.disk.write(ready.writes)
            number = ready.number or number
        self.now += sync_us
        if number:
            self.core.persisted(number, self.now)

    def append(self, sync_us: int) -> None:
        number = self.core.commit_index(0) + 1
        self.core.propose(0, [part("s", number)], self.now)
        self.turn(sync_us)


def test_a_slow_sync_counts_at_once_and_is_forgotten_by_degrees() -> None:
    node = Alone()
    assert node.core.sync_us() == 0
    node.append(1_000)
    assert node.core.sync_us() == 1_000
    node.append(80_000)
    node.append(1_000)
    assert node.core.sync_us() == 70_000
    for _ in range(100):
        node.append(1_000)
    assert node.core.sync_us() < 2_000


def test_a_write_that_waits_for_another_ones_sync_waits_for_both() -> None:
    node = Alone()
    core = node.core
    core.propose(0, [part("s", 1)], node.now)
    first = core.ready()
    node.now += 20_000
    core.tick(node.now)
    core.propose(0, [part("s", 2)], node.now)
    second = core.ready()
    assert first is not None
    assert second is not None
    core.persisted(first.number, node.now + 5_000)
    assert core.sync_us() == 25_000
    core.persisted(second.number, node.now + 30_000)
    assert core.sync_us() == 30_000
