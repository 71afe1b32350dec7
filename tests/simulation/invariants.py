"""What must hold at every step, checked the moment it could break.

These see more than any node can: all disks, what is durable on each, and everything ever committed.
Each check is small and incremental, because it runs at every message.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from allsource.cluster.consensus.messages import Append, AppendReply, Message, RequestVote, VoteReply
from allsource.storage.model.entry import Entry, Part
from allsource.storage.model.log import HardState, PartitionWrite
from allsource.storage.model.partition import tag_of
from tests.simulation.disk import SimDisk
from tests.simulation.history import Election, History
from tests.simulation.world import World


class Violation(AssertionError):
    """A promise was broken; the message begins with the promise's name."""

    def __init__(self, promise: str, what: str) -> None:
        super().__init__(f"{promise}: {what}")
        self.promise = promise


class Process(Protocol):
    """What the checks look at in a node."""

    name: str
    incarnation: int
    hosted: tuple[int, ...]
    disk: SimDisk
    leading: dict[int, int]


class Canon:
    """The one history of a partition: every entry that was ever committed, by index."""

    __slots__ = ("durable", "entries", "marks", "numbers", "position", "time", "versions")

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.position = 1
        self.time = 0
        self.versions: dict[str, int] = {}
        self.numbers: dict[str, int] = {}
        """The newest number of each tag."""
        self.marks: dict[str, tuple[int, int]] = {}
        """Each mark, as `(generation, position)`."""
        self.durable = 0
        """Up to here it was seen to be durable on a majority."""


class Invariants:
    """All checks of one run. `processes` is filled in when the nodes exist."""

    def __init__(self, world: World, history: History, partitions: int) -> None:
        self.canon = [Canon() for _ in range(partitions)]
        self.processes: dict[str, Process] = {}
        self._world = world
        self._history = history
        self._leaders: dict[tuple[int, int], tuple[str, int]] = {}
        self._verified: dict[tuple[str, int], int] = {}
        """How far each node's committed log was compared with the canon."""
        self._remembered: list[Violation] = []
        self._sent: dict[tuple[str, int], tuple[int, int]] = {}
        """`(term, index)`: how far leaders of a node's newest such term have sent it their log."""

    @contextmanager
    def remembering(self) -> Iterator[None]:
        """For code whose caller goes on whatever it raises: a violation in it is raised again later."""
        try:
            yield
        except Violation as violation:
            self._remembered.append(violation)
            raise

    def remember(self, promise: str, what: str) -> None:
        """Raise this later."""
        self._remembered.append(Violation(promise, what))

    def raise_remembered(self) -> None:
        """Raise the first violation that somebody swallowed."""
        if self._remembered:
            raise self._remembered[0]

    # -- hooks of a node, in the order in which it calls them

    def node_started(self, node: Process) -> None:
        """A process begins with what its disk kept, which must contain all that it ever promised."""
        for partition in node.hosted:
            replica = node.disk.view[partition]
            if replica.hard.commit > len(replica.entries):
                raise Violation(
                    "a log reaches its commit index",
                    f"{node.name} restarts partition {partition} with commit {replica.hard.commit} "
                    f"and {len(replica.entries)} entries",
                )
            self._verified[node.name, partition] = 0
            self._sent.pop((node.name, partition), None)
            self._compare(node, partition, replica.hard.commit)

    def writing(self, node: Process, writes: Sequence[PartitionWrite]) -> None:
        """Term, vote and commit never go back; nothing committed is truncated."""
        for write in writes:
            replica = node.disk.view[write.partition]
            if write.hard is not None:
                self._check_hard(node, write.partition, replica.hard, write.hard)
            if write.truncate_from is not None:
                verified = self._verified[node.name, write.partition]
                if write.truncate_from <= max(replica.hard.commit, verified):
                    raise Violation(
                        "rule 4, nothing committed is truncated",
                        f"{node.name} truncates {write.partition} from {write.truncate_from}, "
                        f"committed up to {verified}",
                    )

    def receiving(self, node: Process, message: Append) -> None:
        """A leader's entries arrive: no other entries may be committed on its word (rule 5)."""
        key = node.name, message.partition
        told = (message.term, message.prev_index + len(message.entries))
        self._sent[key] = max(self._sent.get(key, (0, 0)), told)

    def sending(self, node: Process, peer: str, message: Message) -> None:
        """Rule 1: what a message says is durable at its sender."""
        if isinstance(message, AppendReply):
            self._check_append_reply(node, peer, message)
        elif isinstance(message, VoteReply):
            if message.granted and not message.pre:
                self._check_vote(node, message.partition, message.term, peer)
        elif isinstance(message, RequestVote):
            if not message.pre:
                self._check_vote(node, message.partition, message.term, node.name)
        elif isinstance(message, Append):
            self._check_term(node, message.partition, message.term, "Append")

    def leads(self, node: Process, partition: int, term: int) -> None:
        """At most one leader in each (partition, term), one process at that."""
        holder = (node.name, node.incarnation)
        known = self._leaders.setdefault((partition, term), holder)
        if known != holder:
            raise Violation(
                "one leader in a term", f"{known} and {holder} lead partition {partition} in term {term}"
            )
        if node.leading.get(partition) != term:
            self._history.elections.append(Election(partition, term, *holder, self._world.now))
            self._check_term(node, partition, term, "leadership")

    def follows(self, node: Process, partition: int, term: int, leader: str) -> None:
        """Who is followed in a term leads it (rules 12 and 25)."""
        holder = self._leaders.get((partition, term))
        if holder is None or holder[0] != leader:
            raise Violation(
                "who is followed leads",
                f"{node.name} follows {leader} in term {term} of partition {partition}, led by {holder}",
            )

    def committed(self, node: Process, partition: int, commit: int, *, led: bool) -> None:
        """A commit index moved: the prefix is the canon, and durable where it must be. `led`: the node
        led the partition when it moved."""
        self._compare(node, partition, commit)
        if not led and commit > 1:  # the first entry is everybody's own
            term, sent = self._sent.get((node.name, partition), (0, 0))
            if commit > sent:
                raise Violation(
                    "rule 5, a follower commits what was verified",
                    f"{node.name} commits {partition}/{commit}, its leader of term {term} sent {sent}",
                )
        canon = self.canon[partition]
        if commit > canon.durable:
            entry = node.disk.view[partition].at(commit)
            assert entry is not None
            if entry.term > 0:  # the first entry is written alike by everybody, with no leader
                self._check_majority(node, partition, entry)
            canon.durable = commit

    # -- the checks

    def _check_hard(self, node: Process, partition: int, old: HardState, new: HardState) -> None:
        back = new.term < old.term or new.commit < old.commit
        changed_vote = new.term == old.term and old.vote not in ("", new.vote)
        if back or changed_vote:
            raise Violation(
                "term, vote and commit never go back", f"{node.name}/{partition} stores {new} over {old}"
            )

    def _check_term(self, node: Process, partition: int, term: int, what: str) -> None:
        hard = node.disk.durable[partition].hard
        if hard.term < term:
            raise Violation(
                "rule 1, durability before speech",
                f"{node.name} speaks ({what}) in term {term} of partition {partition}, "
                f"its disk is in term {hard.term}",
            )

    def _check_vote(self, node: Process, partition: int, term: int, candidate: str) -> None:
        hard = node.disk.durable[partition].hard
        if hard.term < term or (hard.term == term and hard.vote != candidate):
            raise Violation(
                "rule 1, durability before speech",
                f"{node.name} votes for {candidate} in term {term} of partition {partition}, "
                f"its disk says {hard}",
            )

    def _check_append_reply(self, node: Process, peer: str, reply: AppendReply) -> None:
        self._check_term(node, reply.partition, reply.term, "AppendReply")
        if not reply.accepted or reply.index == 0:
            return
        durable = node.disk.durable[reply.partition].at(reply.index)
        if durable is None:
            raise Violation(
                "rule 1, durability before speech",
                f"{node.name} accepts {reply.partition}/{reply.index}, its disk does not have it",
            )
        leader = self.processes[peer]
        if leader.leading.get(reply.partition) != reply.term:
            return
        sent = leader.disk.view[reply.partition].at(reply.index)
        if sent is not durable and (sent is None or sent.record != durable.record):
            raise Violation(
                "rule 2, an acknowledgement names what is durable",
                f"{node.name} accepts {reply.partition}/{reply.index} of term {reply.term}, "
                f"its disk has an entry of term {durable.term} there",
            )

    def _compare(self, node: Process, partition: int, commit: int) -> None:
        """The node's committed prefix equals the canon, which grows if this node is the first."""
        canon = self.canon[partition]
        entries = node.disk.view[partition].entries
        if commit > len(entries):
            raise Violation(
                "only what is in the log is committed",
                f"{node.name} commits {partition}/{commit} with {len(entries)} entries",
            )
        verified = self._verified[node.name, partition]
        for entry in entries[verified:commit]:
            if entry.index > len(canon.entries):
                self._extend(canon, entry)
                continue
            known = canon.entries[entry.index - 1]
            if known is not entry and known.record != entry.record:
                raise Violation(
                    "one committed history",
                    f"{node.name} has an entry of term {entry.term} at {partition}/{entry.index}, "
                    f"the canon one of term {known.term}",
                )
        self._verified[node.name, partition] = max(verified, commit)

    def _extend(self, canon: Canon, entry: Entry) -> None:
        """A newly committed entry continues versions, positions, terms and time without a gap."""
        where = f"{entry.partition}/{entry.index}"
        last_term = canon.entries[-1].term if canon.entries else 0
        if entry.index != len(canon.entries) + 1 or entry.term < last_term:
            raise Violation("the log is one sequence", f"{where} of term {entry.term} behind {last_term}")
        if entry.first_position != canon.position or entry.timestamp_us < canon.time:
            raise Violation(
                "positions are gapless, time does not go back",
                f"{where}: position {entry.first_position} for {canon.position}, "
                f"time {entry.timestamp_us} after {canon.time}",
            )
        for part in entry.parts:
            version = canon.versions.get(part.stream, 0)
            if part.first_version != version + 1:
                raise Violation(
                    "versions are gapless",
                    f"{where}: {part.stream} goes from {version} to {part.first_version}",
                )
            canon.versions[part.stream] = part.last_version
            self._count(canon, part, where)
        for append in entry.appends:
            for name, position, generation in append.marks:
                before = canon.marks.get(name)
                if before is not None and (generation, position) <= before:
                    raise Violation(
                        "a mark only moves on", f"{where}: {name} from {before} to {(generation, position)}"
                    )
                canon.marks[name] = (generation, position)
        canon.entries.append(entry)
        canon.position = entry.next_position
        canon.time = entry.timestamp_us

    def _count(self, canon: Canon, part: Part, where: str) -> None:
        """A tag's numbers go on where they ended."""
        tag = tag_of(part.stream)
        if part.first_tag_number != (canon.numbers.get(tag, 0) + 1 if tag else 0):
            raise Violation(
                "tag numbers are gapless",
                f"{where}: {part.stream} goes from {canon.numbers.get(tag, 0)} to {part.first_tag_number}",
            )
        if tag:
            canon.numbers[tag] = part.first_tag_number + part.count - 1

    def _check_majority(self, node: Process, partition: int, entry: Entry) -> None:
        """What is committed is durable on a majority of the configuration in force."""
        _, configuration = node.disk.index[partition].configurations[-1]
        for voters in (configuration.voters, configuration.outgoing):
            if not voters:
                continue
            holders = [voter for voter in voters if self._holds(voter, partition, entry)]
            if len(holders) <= len(voters) // 2:
                raise Violation(
                    "committed means durable on a majority",
                    f"{node.name} commits {partition}/{entry.index} of term {entry.term}, "
                    f"durable on {holders} of {voters}",
                )

    def _holds(self, name: str, partition: int, entry: Entry) -> bool:
        held = self.processes[name].disk.durable[partition].at(entry.index)
        return held is entry or (held is not None and held.record == entry.record)
