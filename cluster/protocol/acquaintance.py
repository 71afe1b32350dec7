"""What nodes remember of each other's starts, and how an old copy of a data directory gives itself away.

A vote and an acknowledgement are promises for ever, and they are kept in the data directory. Two things can
make a node forget them, and it notices neither by itself: its directory is empty
(`node.formation.formation`), or it is an *older copy* of the one that it had. A copy has the right replica
id, and once started it counts up to the very incarnation that the original had. So:

* Every start has a number (the incarnation) and a random nonce, both durable before a word is said. A node
  keeps the nonces of all its starts: its *history*.
* Every node durably remembers the newest start that it met of each other node, before anything of that node
  is acted on.
* In each handshake either side asks the other for the nonce of the start that it remembers, by its number.
  The true directory knows it. A copy from before that start does not: it never had a start of that number,
  or it gave the number a nonce of its own. It stays so however often the copy is started afterwards.
* A leader knows more: what this replica acknowledged to it. The first time that it meets a new start, it
  compares that with the end of the log that the start shows (a log's end, as term and index together,
  never moves back). This notices a copy from within the newest start, too.

What nobody can notice: a copy that was put back within one start, when no leader that lives heard what was
acknowledged after it; and a copy from before starts that those who are up now never met (they were down
or cut off all the while). PROTOCOL.md says how it is asked; this module decides.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple, Protocol

from allsource.cluster.protocol.frames import ProtocolError
from allsource.storage.model.identity import Identity

START_NONCE_BYTES = 16
REGRESSED = "regressed"
"""Code of the refusal of an older copy. Only one who has proved the peers' secret can say it with
effect."""

_WHAT_WORKS = (
    "stop this node and put back the newest directory that it had; if that is gone, the replica is lost: "
    "leave it stopped, the others go on (replacing a replica is for a later version). An empty directory "
    "is refused too"
)


class Start(NamedTuple):
    """One start of a node's process over its data directory."""

    replica_id: str
    incarnation: int
    nonce: bytes
    """START_NONCE_BYTES random bytes, made at that start."""


class LogEnd(NamedTuple):
    """How far a replica's log of one partition goes, durably. `(term, last_index)` never moves back."""

    partition: int
    term: int
    """The newest term that the replica knows (not that of its last entry)."""
    last_index: int


class Memory(Protocol):
    """What a node must remember for its handshakes. Every call is short."""

    def nonce_of(self, incarnation: int) -> bytes | None:
        """The nonce of one of our own starts; None if this directory knows no start of that number."""
        ...

    def log_ends(self) -> Sequence[LogEnd]:
        """How far our logs go, durably: of each partition that we keep."""
        ...

    def remembered(self) -> Mapping[str, Start]:
        """The newest start that was met of each peer."""
        ...

    def meet(
        self, peer: str, start: Start, log_ends: Sequence[LogEnd], asked: Start | None
    ) -> ProtocolError | None:
        """Remember durably, before this returns, or say why that start is refused. `asked`: the start of
        which this one has just shown to know (None: none was remembered)."""
        ...


class NoMemory:
    """For who is no peer: a client, or a node that serves clients alone."""

    def nonce_of(self, incarnation: int) -> bytes | None:
        return bytes(START_NONCE_BYTES)

    def log_ends(self) -> Sequence[LogEnd]:
        return ()

    def remembered(self) -> Mapping[str, Start]:
        return {}

    def meet(
        self, peer: str, start: Start, log_ends: Sequence[LogEnd], asked: Start | None
    ) -> ProtocolError | None:
        return None


# -- the decisions


def check_other(me: Identity, node_id: str, replica_id: str) -> None:
    """Refuse ourselves, and a second process under our own name."""
    if replica_id == me.replica_id:
        raise ProtocolError(
            "self", f"node {me.node_id} is connected to itself; check the addresses of the configuration"
        )
    if node_id == me.node_id:
        raise ProtocolError(
            "identity_changed",
            f"two processes call themselves node {node_id}, from different data directories; stop one",
        )


def check_member(node_id: str, members: Collection[str]) -> None:
    """Refuse a peer that is not a member."""
    if node_id not in members:
        raise ProtocolError(
            "unknown_node",
            f"{node_id} is not a member of this cluster ({', '.join(sorted(members))}); "
            "give all nodes the same configuration",
        )


def check_replica(node_id: str, replica_id: str, remembered: Start | None) -> None:
    """Refuse another directory under a known name."""
    if remembered is not None and remembered.replica_id != replica_id:
        raise ProtocolError(
            "identity_changed",
            f"node {node_id} was replica {remembered.replica_id} and now says it is {replica_id}: its data "
            "directory was wiped or swapped, or it was restarted with its storage in memory. A node that "
            f"has forgotten what it promised must not vote: {_WHAT_WORKS}",
        )


def check_history(node_id: str, remembered: Start | None, answer: bytes) -> None:
    """Refuse an older copy: `answer` is what the peer says when asked for the nonce of that start."""
    if remembered is not None and remembered.nonce != answer:
        raise ProtocolError(
            REGRESSED,
            f"the data directory of node {node_id} is an older copy: it does not know start number "
            f"{remembered.incarnation} of this node, which was met. It has forgotten what it promised "
            f"since, so it must not vote: {_WHAT_WORKS}",
        )


def outpaced(
    node_id: str, start: Start, asked: Start | None, remembered: Start | None
) -> ProtocolError | None:
    """The refusal of a handshake during which another one told of another start: it showed too little."""
    if remembered in (asked, start):
        return None
    return ProtocolError(
        "superseded", f"another start of node {node_id} was met during this handshake; connect again"
    )


def lost_acknowledgement(
    node_id: str, acknowledged: Sequence[LogEnd], shown: Sequence[LogEnd]
) -> ProtocolError | None:
    """The refusal of a new start that shows less than its replica acknowledged to this node before it.

    Only partitions that it shows are compared: a node may have set a damaged one aside.
    """
    ends = {end.partition: (end.term, end.last_index) for end in shown}
    for partition, term, index in acknowledged:
        if partition in ends and ends[partition] < (term, index):
            return ProtocolError(
                REGRESSED,
                f"the data directory of node {node_id} is an older copy: it acknowledged entry {index} of "
                f"partition {partition} (term {term}), and its log does not reach that any more, so it "
                f"must not vote: {_WHAT_WORKS}",
            )
    return None
