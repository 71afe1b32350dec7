"""What groups say to each other, and what a node must do about it.

Messages are facts that travel (Raft §5, figure 2, plus the pre-vote of Ongaro's thesis §9.6 and the
leadership transfer of §3.10). `Ready` is the list of orders that the pure machine gives its shell, in
the manner of etcd/raft; the comments on its fields are the contract between the two.

Times are integers of microseconds from one monotonic clock; they are compared, never sent.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from allsource.cluster.membership.registry import Readiness
from allsource.storage.model.entry import Entry
from allsource.storage.model.log import PartitionWrite


@dataclass(slots=True)
class RequestVote:
    """A candidate asks for a vote. `pre`: would you? (it changes nothing at the receiver).

    `transfer`: the old leader told the candidate to stand (TimeoutNow), so stickiness does not apply.
    """

    partition: int
    term: int
    """The candidate's term; in a pre-vote, the term it would stand in."""
    last_index: int
    last_term: int
    pre: bool
    transfer: bool


@dataclass(slots=True)
class VoteReply:
    """`term` is the term asked for if granted, else the voter's own term."""

    partition: int
    term: int
    granted: bool
    pre: bool


@dataclass(slots=True)
class Append:
    """The leader's entries behind `(prev_index, prev_term)`; without entries it is a probe."""

    partition: int
    term: int
    prev_index: int
    prev_term: int
    commit: int
    entries: list[Entry]
    records: list[bytes] = field(default_factory=list)
    """At the sender, instead of `entries`: records from its disk that were not decoded. They arrive as
    entries; the receiver decodes and verifies."""


@dataclass(slots=True)
class AppendReply:
    """Sent only when what it says is durable at the sender (rules 1 and 2).

    Accepted: the log equals the leader's up to `index`. Refused: `index` and `hint_term` are where
    the leader should look next (rule 22): the follower's newest entry at or before the refused
    `prev_index` whose term is not above the leader's `prev_term`. A refusal names that `prev_index`, so
    that a late one says nothing of a later append (rule 34). An acceptance has 0 there, and so has the
    refusal of an old term.
    """

    partition: int
    term: int
    accepted: bool
    index: int
    hint_term: int
    prev_index: int = 0


@dataclass(slots=True)
class CommitNotice:
    """The leader's commit index, for followers that got no entries to learn it from."""

    partition: int
    term: int
    commit: int


@dataclass(slots=True)
class TimeoutNow:
    """Stand for election at once: you are the chosen successor and your log is complete."""

    partition: int
    term: int


@dataclass(slots=True)
class ReadRound:
    """ "Am I still the leader of these?" One question for all groups with waiting reads (rule 14)."""

    round: int
    """Fresh for each attempt, and never used by an earlier process of this node: rounds begin at
    `incarnation << 32` (rule 34)."""
    groups: list[tuple[int, int]]
    """`(partition, term)`."""


@dataclass(slots=True)
class ReadRoundReply:
    """The shares of the round in which the sender still is in the asker's term (rule 34)."""

    round: int
    groups: list[tuple[int, int]]
    """`(partition, term)`, as they were asked."""


@dataclass(slots=True)
class Echo:
    """ "Does this arrive?" Asked on a data connection that was silent for a while (rule 35)."""

    number: int
    """Higher than that of any echo that the sender sent before. Numbers begin at `incarnation << 32`."""


@dataclass(slots=True)
class EchoReply:
    """It did: on the receiver's own data connection, the way of its acknowledgements."""

    number: int
    """Of the echo, or of the newest of several that came together."""


GroupMessage = RequestVote | VoteReply | Append | AppendReply | CommitNotice | TimeoutNow
"""What one group says to its like at another node."""

NodeMessage = ReadRound | ReadRoundReply | Echo | EchoReply
"""What one node says to another, for all of its groups or for none."""

Message = GroupMessage | NodeMessage


def is_of(message: Message, partition: int) -> bool:
    """Whether the message is one of this partition alone."""
    return not isinstance(message, NodeMessage) and message.partition == partition


def size_of(message: Message) -> int:
    """The bytes of the entries that the message carries."""
    return sum([len(entry.record) for entry in message.entries]) if isinstance(message, Append) else 0


class GroupBeat(NamedTuple):
    """One group's line in a beat."""

    partition: int
    term: int
    leader: str
    """Whom the sender follows in this term, itself if it leads, empty if nobody (rule 35)."""
    commit: int
    last: int = 0
    """The last index of the sender's log, on its disk or not yet: what has arrived there."""
    wants: bool = False
    """The sender would lead: placement gives it the partition as it sees the cluster, and it exchanges
    beats with a majority of the voters, both ways (rule 36)."""


@dataclass(slots=True)
class Beat:
    """A node's heartbeat: it is alive, its disk moves, and this is where its groups stand.

    A beat does not vouch for a group that is in another term (rule 25): `groups` is compared line
    by line. It has a connection of its own, so it does not vouch for the data connection either.
    """

    sequence: int
    """Rises from beat to beat, and from process to process: it begins at `incarnation << 32`."""
    groups: list[GroupBeat]
    leaving: bool = False
    """The sender is shutting down."""
    yields: bool = False
    """The sender's disk is nearly full (rule 24). Either way others lead in its place, wherever another
    replica can; it votes and stores as ever."""
    hears: tuple[str, ...] = ()
    """The peers that the sender holds for alive, by name."""
    damaged: tuple[int, ...] = ()
    """The partitions in which the sender takes no part because its copy is damaged (rule 17)."""
    wall_us: int = 0
    """The sender's time, microseconds since 1970, for the dates of events (`clocks`); the core does not
    know it, and whoever sends the beat fills it in. 0: not told."""

    @property
    def readiness(self) -> Readiness:
        """Whether the sender is ready to lead."""
        if self.leaving:
            return Readiness.LEAVES
        return Readiness.YIELDS if self.yields else Readiness.WILLING


class Role(StrEnum):
    """A group's roles, as the paper names them."""

    FOLLOWER = "follower"
    PRECANDIDATE = "precandidate"
    CANDIDATE = "candidate"
    LEADER = "leader"


class RoleChange(NamedTuple):
    """A group's state changed: for logs, metrics, the router, and pending answers.

    When `role` is no longer LEADER, every answer that waits on (partition, older term) that was not
    committed is *unknown* (rule 6).
    """

    partition: int
    term: int
    role: Role
    leader: str | None


class Damage(NamedTuple):
    """A partition whose copy at this node cannot be trusted (rule 17), and what was found."""

    partition: int
    reason: str


@dataclass(slots=True, frozen=True)
class ReadResult:
    """A waiting linearizable read may be served: everything up to `index` is committed (ok), or the
    leadership could not be confirmed (not ok: ask again elsewhere).

    Ok with an `index` below the minimum that was asked for: the log, which holds whatever was ever
    acknowledged, ends before that minimum."""

    ticket: object
    partition: int
    index: int
    ok: bool


@dataclass(slots=True)
class Ready:
    """Orders, to be carried out in the order of the fields."""

    writes: list[PartitionWrite] = field(default_factory=list)
    """1. Give these to `Storage.write` (one call). Then, if `number`, arrange for a `Storage.sync`
    that begins after it, and call `persisted(number)` when it has returned."""
    number: int = 0
    """Number of this write; 0 if `writes` is empty."""
    send: dict[str, list[Message]] = field(default_factory=dict)
    """2. Send these now, by peer. A leader's appends may overtake its own sync; whatever rests on
    the sync is kept back by the machine and comes in a later Ready."""
    beats: dict[str, Beat] = field(default_factory=dict)
    """3. Send these on the heartbeat connections."""
    changes: list[RoleChange] = field(default_factory=list)
    """4. Tell the router, fail pending answers of lost leaderships, log."""
    committed: list[tuple[int, int]] = field(default_factory=list)
    """5. `(partition, commit index)`: all up to it is committed; answer what waits for it."""
    reads: list[ReadResult] = field(default_factory=list)
    """6. Serve or refuse these reads, after 5."""
    damaged: list[Damage] = field(default_factory=list)
    """7. This node takes no part in these partitions any more: remember it durably, and tell people."""
    renew: list[str] = field(default_factory=list)
    """8. Dial these peers afresh: they are heard, and what this node sends them does not arrive."""
