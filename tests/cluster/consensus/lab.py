"""A bench for one group: its node is a small fake, its log lives in memory, time is a number."""

from __future__ import annotations

from collections.abc import Sequence

from allsource.cluster.consensus.environment import ConsensusConfig
from allsource.cluster.consensus.group import Group
from allsource.cluster.consensus.lanes import Lanes
from allsource.cluster.consensus.messages import Append, AppendReply, Message, RequestVote, VoteReply
from allsource.storage.model.entry import CONFIG, EVENTS, NOOP, Configuration, Entry, make_entry
from allsource.storage.model.log import HardState, LogMarks, PartitionState, PartitionWrite
from tests.storage.logs import part

MEMBERS = ("a", "b", "c")
SECOND = 1_000_000


class FakeNode:
    """The Environment of one group, as plain attributes that a test may set."""

    def __init__(self, node_id: str = "a", config: ConsensusConfig | None = None) -> None:
        self.node_id = node_id
        self.config = config or ConsensusConfig()
        self.touched = 0
        self.unreachable: set[str] = set()
        self.trusted = True
        self.sync = 0
        self.place: int | None = 0
        self.disk_budget = True
        self.lanes = Lanes("abcdefg", self.config.suspicion_us, 0)

    def touch(self, partition: int) -> None:
        self.touched += 1

    def wake_at(self, when: int) -> None:
        pass

    def jitter(self, span: int) -> int:
        return 0

    def reaches(self, peer: str) -> bool:
        return peer not in self.unreachable

    def lane_moved(self, peer: str, now: int) -> None:
        self.lanes.moved(peer, now)

    def lane_moves(self, peer: str, now: int) -> bool:
        return self.lanes.moves(peer, 0, now)

    def lane_carries(self, peer: str, now: int) -> bool:
        return self.lanes.carries(peer, 0, now)

    def may_stand(self) -> bool:
        return self.trusted

    def sync_us(self) -> int:
        return self.sync

    def rank(self, partition: int) -> int | None:
        return self.place

    def may_send(self, partition: int, now: int, *, from_disk: bool) -> bool:
        return self.disk_budget or not from_disk

    def sent(self, size: int, *, from_disk: bool) -> None:
        pass


class Disk:
    """What was written, as a LogReader."""

    def __init__(self) -> None:
        self.log: list[Entry] = []

    def write(self, write: PartitionWrite) -> None:
        if write.truncate_from is not None:
            del self.log[write.truncate_from - 1 :]
        for entry in write.entries:
            assert entry.index == len(self.log) + 1
            self.log.append(entry)

    def entries(self, partition: int, first: int, last: int, bytes_max: int) -> list[Entry]:
        found: list[Entry] = []
        size = 0
        for entry in self.log[first - 1 : last]:
            size += len(entry.record)
            if found and size > bytes_max:
                break
            found.append(entry)
        return found

    def records(self, partition: int, first: int, last: int, bytes_max: int) -> list[bytes]:
        return [e.record for e in self.entries(partition, first, last, bytes_max)]


def entry(index: int, term: int, position: int | None = None, stream: str = "s") -> Entry:
    """An entry with one event; by default the log is one configuration and then such entries."""
    at = index - 1 if position is None else position
    return make_entry(
        partition=0,
        index=index,
        term=term,
        kind=EVENTS,
        first_position=at,
        timestamp_us=index,
        appends=[part(stream, at)],
    )


def noop(index: int, term: int) -> Entry:
    return make_entry(
        partition=0, index=index, term=term, kind=NOOP, first_position=index - 1, timestamp_us=index
    )


def first_entry(voters: Sequence[str] = MEMBERS) -> Entry:
    return make_entry(
        partition=0,
        index=1,
        term=0,
        kind=CONFIG,
        first_position=1,
        timestamp_us=0,
        payload=Configuration(tuple(voters)).encode(),
    )


class Bench:
    """One group and its disk; `terms` are those of the entries behind the configuration entry."""

    def __init__(
        self,
        terms: Sequence[int] = (),
        *,
        hard: HardState | None = None,
        voters: Sequence[str] = MEMBERS,
        config: ConsensusConfig | None = None,
    ) -> None:
        self.node = FakeNode(config=config)
        self.disk = Disk()
        self.now = 0
        log = [first_entry(voters)] + [entry(i, term) for i, term in enumerate(terms, 2)]
        self.disk.log = log
        marks = LogMarks()
        for e in log:
            marks.append(e)
        state = PartitionState(
            0,
            hard or HardState(log[-1].term, "", 1),
            log[-1].index,
            log[-1].term,
            marks.terms,
            log[-1].next_position,
            log[-1].timestamp_us,
            marks.configurations,
        )
        self.group = Group(state, self.disk, self.node, self.now)

    def step(self, sender: str, message: Message) -> None:
        self.group.step(sender, message, self.now)

    def write(self) -> PartitionWrite | None:
        """Let the disk take what the group wants stored (not synced yet)."""
        write = self.group.take_write(with_commit=True)
        if write is not None:
            self.disk.write(write)
        return write

    def sync(self) -> None:
        """Write, and tell the group that its log is durable."""
        self.write()
        if self.disk.log:
            self.group.persisted(self.disk.log[-1].term, self.disk.log[-1].index, self.now)
        held, self.group.durable_out = self.group.durable_out, []
        for peer, message in held:
            if peer == self.group.node_id:
                self.step(peer, message)
            else:
                self.group.durable_out.append((peer, message))

    def sent(self) -> list[tuple[str, Message]]:
        """All messages since the last call, those that wait for a sync included."""
        messages = self.group.take_messages(self.now) + self.group.durable_out
        self.group.durable_out = []
        return messages

    def pass_time(self, microseconds: int) -> None:
        self.now += microseconds
        self.group.tick(self.now)

    def elect(self, supporter: str = "b") -> None:
        """Win an election with one supporter; the no-op is written and its messages are dropped."""
        self.now = max(self.now, self.group.deadline)
        self.group.tick(self.now)
        self.step(supporter, VoteReply(0, self.group.term + 1, True, True))
        self.step(supporter, VoteReply(0, self.group.term, True, False))
        assert self.group.leadership is not None
        self.sync()
        self.sent()

    def accept(self, sender: str, index: int | None = None) -> None:
        """The follower has everything up to `index` (by default, all)."""
        last = self.group.log.last_index if index is None else index
        self.step(sender, AppendReply(0, self.group.term, True, last, 0))

    def refuse(self, sender: str, index: int, hint_term: int) -> None:
        """The follower refuses the probe that is under way to it: look at `index` for `hint_term`."""
        assert self.group.leadership is not None
        prev_index = self.group.leadership.progress[sender].next - 1
        self.step(sender, AppendReply(0, self.group.term, False, index, hint_term, prev_index))

    def append(
        self, sender: str, term: int, prev: tuple[int, int], entries: list[Entry], commit: int = 0
    ) -> None:
        self.step(sender, Append(0, term, prev[0], prev[1], commit, entries))

    def ask_vote(
        self, sender: str, term: int, last: tuple[int, int], *, pre: bool = False, transfer: bool = False
    ) -> None:
        self.step(sender, RequestVote(0, term, last[0], last[1], pre, transfer))

    def last_sent(self) -> tuple[str, Message]:
        return self.sent()[-1]
