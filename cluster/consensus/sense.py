"""What a peer may say: input, checked before it changes anything (rule 38).

A peer has proved that it belongs to the cluster, not that it is in its senses. Its disk may have lost
what it promised, its program may have a bug, its secret may be in other hands. So everything that no
peer in order can say is a `PeerNonsense`: it costs the connection on which it came, and nothing else.
Assertions are kept for our own logic.

The bounds are far beyond what a cluster can reach, and near enough that numbers which are added to one
another never overflow (a record has 64 bits for each, the wire 63).
"""

from __future__ import annotations

from allsource.cluster.consensus.messages import (
    Append,
    AppendReply,
    CommitNotice,
    EchoReply,
    GroupBeat,
    RequestVote,
)
from allsource.storage.model.entry import Entry
from allsource.storage.model.errors import AllsourceError

TERM_JUMP_MAX = 1 << 32
"""How far above its own a replica believes a peer's term. Terms rise by one with each election, and only
with a majority's consent (pre-vote): a replica that was away for a year is this far behind only if its
group elected somebody every seven milliseconds all the while."""
TERM_MAX = 1 << 62
"""Where terms end. It takes a thousand million of the largest jumps to get there."""
INDEX_MAX = 1 << 48
"""Bound of indexes, positions and versions: one for each microsecond of nine years."""
TIMESTAMP_US_MAX = 253_402_300_799_999_999
"""The end of the year 9999, which is as far as dates go in most of the languages that read them."""


class PeerNonsense(AllsourceError):
    """A peer said what no peer in order can say; whoever carries its messages ends the connection."""

    code = "nonsense"


def check_term(term: int, own: int, partition: int) -> None:
    """Refuse a term above our `own` that no elections can explain."""
    if term > own + TERM_JUMP_MAX or term > TERM_MAX:
        raise PeerNonsense(f"partition {partition}: term {term} follows {own} by no number of elections")


def check_append(message: Append) -> None:
    """Refuse an append that contradicts itself, whatever our own log says."""
    where = f"partition {message.partition}"
    term = message.prev_term
    if term > message.term or message.prev_index + len(message.entries) > INDEX_MAX:
        raise PeerNonsense(f"{where}: term {message.term} appends behind {message.prev_index}/{term}")
    if message.commit > INDEX_MAX:
        raise PeerNonsense(f"{where}: a commit index of {message.commit}")
    index = message.prev_index
    before: Entry | None = None
    for entry in message.entries:
        index += 1
        if entry.index != index or not term <= entry.term <= message.term:
            raise PeerNonsense(
                f"{where}: entry {entry.index}/{entry.term} in an append of term {message.term}, "
                f"where {index} and a term from {term} on belong"
            )
        if before is not None:
            check_follows(entry, before.next_position, before.timestamp_us)
        term, before = entry.term, entry


def check_follows(entry: Entry, next_position: int, timestamp_us: int) -> None:
    """Refuse an entry that does not continue the positions and times of the log before it."""
    if (
        entry.first_position != next_position
        or entry.next_position > INDEX_MAX
        or not timestamp_us <= entry.timestamp_us <= TIMESTAMP_US_MAX
    ):
        raise PeerNonsense(
            f"entry {entry.partition}/{entry.index} begins at position {entry.first_position} and time "
            f"{entry.timestamp_us}; the log before it ends at {next_position - 1} and {timestamp_us}"
        )


def check_reply(reply: AppendReply, last_index: int) -> None:
    """Refuse an answer to what this leader's log does not hold."""
    if reply.accepted and reply.index > last_index:
        raise PeerNonsense(
            f"partition {reply.partition}: it acknowledges {reply.index}, and the log ends at {last_index}"
        )
    if not reply.accepted and not reply.index <= reply.prev_index <= last_index:
        raise PeerNonsense(
            f"partition {reply.partition}: it refuses an append behind {reply.prev_index} and asks for one "
            f"behind {reply.index}; the log ends at {last_index}"
        )


def check_vote(ask: RequestVote) -> None:
    """Refuse a candidate whose log is newer than its term."""
    if ask.last_term > ask.term or ask.last_index > INDEX_MAX:
        raise PeerNonsense(
            f"partition {ask.partition}: a candidate of term {ask.term} with a log up to "
            f"{ask.last_index}/{ask.last_term}"
        )


def check_commit(said: CommitNotice | GroupBeat) -> None:
    """Refuse a commit index that no log has."""
    if said.commit > INDEX_MAX:
        raise PeerNonsense(f"partition {said.partition}: a commit index of {said.commit}")


def check_echo(reply: EchoReply, newest: int) -> None:
    """Refuse an answer to an echo that this node has not sent yet. `newest`: the number of its last."""
    if reply.number > newest:
        raise PeerNonsense(f"it answers echo {reply.number}, and none above {newest} was sent")
