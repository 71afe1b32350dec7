"""What a node sends its followers has a budget for each turn, over all its groups (rules 23 and 37)."""

from __future__ import annotations

from allsource.cluster.consensus.flow import TURN_BYTES_MAX, TURN_DISK_BYTES_MAX, TURN_US, SendBudget
from allsource.cluster.consensus.messages import Append, AppendReply, Message, Ready, Role, VoteReply
from allsource.cluster.consensus.multiraft import ConsensusConfig, MultiRaft
from allsource.storage.model.entry import CONFIG, Configuration, Entry, make_entry
from allsource.storage.model.log import HardState, PartitionWrite
from tests.simulation.disk import SimDisk
from tests.storage.logs import part

SECOND = 1_000_000
PARTITIONS = 8
ENTRIES = 1_000


def test_a_turns_budget_is_for_everything_and_a_smaller_one_for_the_disk() -> None:
    budget = SendBudget(1 << 30, 0)
    budget.sent(TURN_DISK_BYTES_MAX, from_disk=True)
    assert budget.opens_at(0, from_disk=True) == TURN_US
    assert budget.opens_at(0, from_disk=False) == 0
    budget.sent(TURN_BYTES_MAX - TURN_DISK_BYTES_MAX, from_disk=False)
    assert budget.opens_at(0, from_disk=False) == TURN_US
    assert budget.opens_at(TURN_US, from_disk=True) == TURN_US


def test_a_seconds_budget_of_the_disk_drips() -> None:
    budget = SendBudget(1000, 0)
    budget.sent(1500, from_disk=True)
    opens_at = budget.opens_at(0, from_disk=True)
    assert opens_at == SECOND // 2 + 1
    assert budget.opens_at(SECOND // 2, from_disk=True) > SECOND // 2
    assert budget.opens_at(opens_at, from_disk=True) <= opens_at + 1000
    assert budget.opens_at(opens_at, from_disk=False) == opens_at


class Node:
    """Node a, which leads many partitions of some hundred kilobytes, all of them on its disk alone."""

    def __init__(self) -> None:
        self.disk = SimDisk(range(PARTITIONS))
        for partition in range(PARTITIONS):
            entries = [_first(partition), *(_entry(partition, i) for i in range(2, ENTRIES + 2))]
            self.disk.write([PartitionWrite(partition, HardState(1, "", ENTRIES + 1), None, entries)])
        self.now = SECOND
        states = {partition: self.disk.load(partition) for partition in range(PARTITIONS)}
        self.core = MultiRaft(
            "a",
            ("a", "b", "c"),
            states,
            self.disk,
            config=ConsensusConfig(),
            replication_factor=3,
            partition_count=PARTITIONS,
            incarnation=1,
            seed=1,
            now=self.now,
        )
        for peer in ("b", "c"):
            self.core.peer_connected(peer, self.now)
        self.turn()
        while not all(self.core.is_leader(partition) for partition in range(PARTITIONS)):
            self.elect()

    def elect(self) -> None:
        self.now += 20_000
        self.core.tick(self.now)
        self.turn()
        for partition, group in self.core.groups.items():
            for role, pre in ((Role.PRECANDIDATE, True), (Role.CANDIDATE, False)):
                if group.role == role:
                    self.hear(VoteReply(partition, group.term + pre, True, pre))

    def hear(self, message: Message) -> None:
        self.core.receive("b", [message], self.now)
        self.turn()

    def turn(self) -> list[Append]:
        """Carry out all orders, as the shell does in one turn of the loop; what goes to c."""
        appends: list[Append] = []
        while (ready := self.core.ready()) is not None:
            appends += self._carry_out(ready)
        return appends

    def _carry_out(self, ready: Ready) -> list[Append]:
        self.disk.write(ready.writes)
        if ready.number:
            self.core.persisted(ready.number, self.now)
        return [m for m in ready.send.get("c", ()) if isinstance(m, Append)]


def _first(partition: int) -> Entry:
    return make_entry(
        partition=partition,
        index=1,
        term=0,
        kind=CONFIG,
        first_position=1,
        timestamp_us=0,
        payload=Configuration(("a", "b", "c")).encode(),
    )


def _entry(partition: int, index: int) -> Entry:
    return make_entry(
        partition=partition,
        index=index,
        term=1,
        kind=1,
        first_position=index - 1,
        timestamp_us=index,
        appends=[part(f"s{partition}", index - 1, data=bytes(400))],
    )


def test_a_follower_that_is_far_behind_in_all_groups_is_served_over_many_turns() -> None:
    """One turn once collected everything: a second of work for the loop, and two suspicion times."""
    node = Node()
    config = node.core.config
    for partition, group in node.core.groups.items():
        assert group.leadership is not None
        probed = group.leadership.progress["c"].next - 1
        node.core.receive("c", [AppendReply(partition, group.term, False, 1, 0, probed)], node.now)
    reached = dict.fromkeys(range(PARTITIONS), 1)
    served: list[set[int]] = []
    for _ in range(100):
        appends = node.turn()
        size = sum(len(record) for m in appends for record in m.records)
        assert size <= TURN_DISK_BYTES_MAX + config.append_bytes_max
        served.append({m.partition for m in appends if m.records})
        for message in appends:
            last = message.prev_index + len(message.records) + len(message.entries)
            reached[message.partition] = max(reached[message.partition], last)
            reply = AppendReply(message.partition, message.term, True, last, 0)
            node.core.receive("c", [reply], node.now)
        node.now = max(node.now + 1, node.core.next_deadline())
        node.core.tick(node.now)
        if all(last >= ENTRIES + 1 for last in reached.values()):
            break
    assert all(last >= ENTRIES + 1 for last in reached.values()), reached
    assert len([partitions for partitions in served if partitions]) >= 8
    assert set.union(*served[:6]) == set(range(PARTITIONS)), "each group has its turn"
