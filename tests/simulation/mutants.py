"""The core with one rule broken on purpose, to show that the simulation would notice.

A checker that cannot fail is a defect (RULES.md). Each mutant here is a mistake that somebody
made in a real system, or could; the simulation must catch every one within a bounded number of seeds
(`test_mutants.py`). `scripts/simulate --mutant NAME` runs one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any
from unittest import mock

from allsource.cluster.consensus.balance import Balance
from allsource.cluster.consensus.candidacy import Candidacy
from allsource.cluster.consensus.group import Group
from allsource.cluster.consensus.lanes import Lanes
from allsource.cluster.consensus.leadership import Leadership
from allsource.cluster.consensus.log import RaftLog
from allsource.cluster.consensus.messages import (
    Append,
    AppendReply,
    CommitNotice,
    GroupBeat,
    Message,
    ReadRound,
    RequestVote,
    VoteReply,
)
from allsource.cluster.consensus.multiraft import MultiRaft
from allsource.cluster.consensus.quorum import stored_by_majority
from allsource.cluster.consensus.reads import ReadRounds
from allsource.storage.model.entry import Entry
from allsource.storage.model.log import PartitionState
from tests.simulation.node import Tools
from tests.simulation.node_mutants import NODE_MUTANTS, NODE_THEMES
from tests.simulation.service_mutants import SERVICE_MUTANTS


@dataclass(frozen=True)
class Mutant:
    """What is broken, and how to break it for a while."""

    what: str
    tools: type[Tools] = Tools
    broken: Callable[[], AbstractContextManager[object]] = nullcontext
    theme: str = ""
    """The theme that is after this mistake; without one, any seed should do."""


def _patched(owner: type, name: str, replacement: object) -> Callable[[], AbstractContextManager[object]]:
    return lambda: mock.patch.object(owner, name, replacement)


# -- rules 1 and 2: durability


class _InstantSync(Tools):
    instant_sync = True


def _count_own_log_unsynced(self: Leadership, _durable: int) -> int:
    return _committable(self, self._log.last_index)


_committable = Leadership.committable


def _persisted_by_index(self: Group, _term: int, index: int, now: int) -> None:
    if index > self.durable_index:
        self.durable_index = index
        if self.leadership is not None:
            self._try_commit(self.leadership, now)


class _ForgetfulCore(MultiRaft):
    """Loses its vote over a restart."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        node_id, members, states, reader = arguments
        super().__init__(node_id, members, _without_votes(states), reader, **keywords)


def _without_votes(states: Mapping[int, PartitionState]) -> dict[int, PartitionState]:
    return {p: replace(state, hard=state.hard._replace(vote="")) for p, state in states.items()}


class _Forgetful(Tools):
    core = _ForgetfulCore


def _count_own_vote_unsynced(self: Group, term: int, now: int) -> None:
    """A sole voter takes office before its disk knows of the term."""
    _ask_for_votes(self, term, now)
    for peer, message in list(self.durable_out):
        if peer == self.node_id and isinstance(message, VoteReply):
            self.durable_out.remove((peer, message))
            self.step(peer, message, now)


_ask_for_votes = Group._ask_for_votes


# -- rules 3 to 5: what is committed, what is truncated


def _commit_any_term(self: Leadership, durable: int) -> int:
    match = {peer: progress.match for peer, progress in self.progress.items()}
    match[self._environment.node_id] = durable
    return stored_by_majority(self._log.configuration, match)


def _always_truncate(self: Group, entries: list[Entry], prev: int) -> None:
    """What a naive follower does: drop everything behind `prev`, then append."""
    if entries and self.log.last_index > prev:
        self.log.truncate(prev + 1)
        self.durable_index = min(self.durable_index, prev)
    for entry in entries:
        self.log.append(entry)
    self._environment.touch(self.partition)


def _beat_commits_unverified(self: Group, sender: str, line: GroupBeat, now: int) -> None:
    _beat(self, sender, line, now)
    if line.leader == sender and line.term == self.term and self.leadership is None:
        self._advance_commit(min(line.commit, self.log.last_index))


_beat = Group.beat


def _notice_commits_unverified(self: Group, sender: str, notice: CommitNotice, now: int) -> None:
    if notice.term == self.term and self.leadership is None:
        self._hear_leader(sender, now)
        self._advance_commit(min(notice.commit, self.log.last_index))


def _append_commits_its_tail(self: Group, sender: str, message: Append, now: int) -> None:
    """Everything that the follower holds counts as verified, whatever the message reached or agreed to."""
    _on_append(self, sender, message, now)
    if message.term == self.term:
        self._advance_commit(min(message.commit, self.log.last_index))


_on_append = Group._on_append


@contextmanager
def _kept_acknowledgements() -> Iterator[None]:
    with (
        mock.patch.object(Group, "_enter_term", _enter_with_acknowledgements),
        mock.patch.object(MultiRaft, "_is_outlived", return_value=False),
    ):
        yield


def _enter_with_acknowledgements(self: Group, term: int, vote: str) -> None:
    kept = self.durable_out
    _enter_term(self, term, vote)
    self.durable_out = kept


_enter_term = Group._enter_term


def _old_replies_count(self: Group, sender: str, reply: AppendReply, now: int) -> None:
    """Whatever was accepted in any earlier term is believed to be there still."""
    _on_append_reply(self, sender, replace(reply, term=max(reply.term, self.term)), now)


_on_append_reply = Group._on_append_reply


# -- rules 11 to 14: elections and reads


@contextmanager
def _no_back_off() -> Iterator[None]:
    with (
        mock.patch.object(Candidacy, "term_began"),
        mock.patch.object(MultiRaft, "sync_us", return_value=0),
    ):
        yield


def _start_by_the_clock(self: Leadership, successor: str, now: int) -> None:
    self.successor = successor
    self.told_successor = False
    self.transfer_deadline = now + self._config.suspicion_us


@contextmanager
def _transfers_by_the_clock() -> Iterator[None]:
    with (
        mock.patch.object(Leadership, "start_transfer", _start_by_the_clock),
        mock.patch.object(Leadership, "_transfer_moved"),
    ):
        yield


def _never_sticks(_self: Group, _now: int) -> bool:
    return False


def _any_log_is_current(_self: RaftLog, _last_index: int, _last_term: int) -> bool:
    return True


def _vote_twice(self: Group, sender: str, ask: RequestVote, now: int) -> None:
    if not ask.pre and ask.term == self.term and self.leadership is None:
        self.vote = ""
    _on_request_vote(self, sender, ask, now)


_on_request_vote = Group._on_request_vote


def _read_without_asking(self: ReadRounds, now: int) -> Iterator[tuple[str, Message]]:
    for partition in list(self._waiting):
        group = self._groups[partition]
        if group.committed_in_term:
            reads = self._waiting.pop(partition)
            for read in reads:
                read.index = max(read.index, group.commit)
            self._confirm(partition, reads)
    return iter(())


@contextmanager
def _rounds_that_keep_their_numbers() -> Iterator[None]:
    """A late round is asked again as it was, with whoever came since (etcd #20418)."""
    with (
        mock.patch.object(ReadRounds, "retry", _ask_late_rounds_again),
        mock.patch.object(ReadRounds, "begin", _begin_with_late_rounds),
    ):
        yield


def _ask_late_rounds_again(self: ReadRounds, now: int) -> bool:
    late = [r for r in self._rounds.values() if now - r.sent_us >= self._retry_us]
    for round_ in late:
        round_.sent_us = now
        for partition, share in round_.shares.items():
            for read in (joins := self._waiting.pop(partition, [])):
                read.index = max(read.index, self._groups[partition].commit)
            share.reads += joins
    self.late = late  # type: ignore[attr-defined]
    return bool(late)


def _begin_with_late_rounds(self: ReadRounds, now: int) -> Iterator[tuple[str, Message]]:
    late, self.late = getattr(self, "late", []), []  # type: ignore[attr-defined]
    for round_ in late:
        for partition, share in round_.shares.items():
            for peer in self._groups[partition].other_voters():
                yield peer, ReadRound(round_.number, [(partition, share.term)])
    yield from _begin(self, now)


_begin = ReadRounds.begin


def _any_beat_vouches(self: Group, sender: str, line: GroupBeat, now: int) -> None:
    """Who says that it leads is followed, in whatever term it says so (rule 25)."""
    _beat(self, sender, line, now)
    if line.leader == sender and line.term < self.term and self.leadership is None:
        self._hear_leader(sender, now)


def _never_gives_up(_self: Leadership, _commit: int, _now: int) -> bool:
    return False


def _no_read_counts(_self: Leadership, _now: int) -> bool:
    return False


def _no_echo(_self: Lanes, _peer: str, _now: int) -> None:
    return None


@contextmanager
def _deaf_to_reads() -> Iterator[None]:
    with (
        mock.patch.object(Leadership, "_reads_wait_in_vain", _no_read_counts),
        mock.patch.object(Lanes, "echo_due", _no_echo),
    ):
        yield


def _give_without_consent(self: Balance, group: Group, now: int) -> str | None:
    """What the leader sees is enough, as long as the other is up and has everything."""
    leadership, owner = group.leadership, self._registry.owner_of(group.partition)
    if leadership is None or leadership.successor is not None or owner in (None, self._node_id):
        return None
    progress = leadership.progress.get(owner)
    up_since = self._up_since.get(owner)
    if progress is None or up_since is None or now - up_since < 2 * self._config.heartbeat_us:
        return None
    return owner if group.committed_in_term and progress.match >= group.commit else None


def _always_knows_the_commit(self: Group) -> bool:
    return self.leadership is not None


@contextmanager
def _unverified_commits() -> Iterator[None]:
    with (
        mock.patch.object(Group, "beat", _beat_commits_unverified),
        mock.patch.object(Group, "_on_commit_notice", _notice_commits_unverified),
    ):
        yield


MUTANTS: dict[str, Mutant] = {
    "rule-1-speak-before-sync": Mutant(
        "Votes and acknowledgements do not wait for the fsync", _InstantSync
    ),
    "rule-1-count-own-log": Mutant(
        "The leader counts its own log before it is synced",
        broken=_patched(Leadership, "committable", _count_own_log_unsynced),
    ),
    "rule-1-sole-voter": Mutant(
        "Who is alone in a group leads before its own vote is durable",
        broken=_patched(Group, "_ask_for_votes", _count_own_vote_unsynced),
    ),
    "rule-1-forget-vote": Mutant("A restart forgets the vote", _Forgetful),
    "rule-2-index-alone": Mutant(
        "A finished sync acknowledges an index whatever its term",
        broken=_patched(Group, "persisted", _persisted_by_index),
        theme="late_syncs",
    ),
    "rule-3-older-terms": Mutant(
        "The leader commits entries of older terms by counting",
        broken=_patched(Leadership, "committable", _commit_any_term),
        theme="figure_8",
    ),
    "rule-4-truncate": Mutant(
        "A late append truncates what agrees", broken=_patched(Group, "_take", _always_truncate)
    ),
    "rule-5-unverified": Mutant(
        "A follower commits what it has, verified or not", broken=_unverified_commits
    ),
    "rule-5-append-tail": Mutant(
        "An append commits what it did not reach",
        broken=_patched(Group, "_on_append", _append_commits_its_tail),
        theme="old_messages",
    ),
    "rule-2-kept-acknowledgements": Mutant(
        "Acknowledgements that wait for a sync survive a change of term",
        broken=_kept_acknowledgements,
        theme="minorities",
    ),
    "rule-34-old-replies": Mutant(
        "An AppendReply of an old term counts",
        broken=_patched(Group, "_on_append_reply", _old_replies_count),
        theme="minorities",
    ),
    "rule-12-no-stickiness": Mutant(
        "A voter deposes a living leader for anybody",
        broken=_patched(Group, "_sticks_to_leader", _never_sticks),
        theme="calm",
    ),
    "rule-13-no-back-off": Mutant(
        "Elections in vain do not space themselves out",
        broken=_no_back_off,
    ),
    "rule-13-blind-to-syncs": Mutant(
        "An election gets the same time whatever a sync takes",
        broken=_patched(MultiRaft, "sync_us", lambda _self: 0),
        theme="slow_disks",
    ),
    "rule-14-no-round": Mutant(
        "A leader reads without asking whether it still leads",
        broken=_patched(ReadRounds, "begin", _read_without_asking),
        theme="two_leaders",
    ),
    "rule-14-before-noop": Mutant(
        "A new leader reads before an entry of its term is committed",
        broken=_patched(Group, "committed_in_term", property(_always_knows_the_commit)),
    ),
    "rule-14-same-number": Mutant(
        "A retried read round keeps its number",
        broken=_rounds_that_keep_their_numbers,
        theme="usurped",
    ),
    "rule-25-any-term": Mutant(
        "A beat vouches for its sender in any term",
        broken=_patched(Group, "beat", _any_beat_vouches),
        theme="old_messages",
    ),
    "rule-35-gray-leader": Mutant(
        "A leader that is heard but cannot replicate stays",
        broken=_patched(Leadership, "cannot_replicate", _never_gives_up),
        theme="gray",
    ),
    "rule-35-reads-only": Mutant(
        "A leader that owes answers to reads alone stays, where no echo tells of it",
        broken=_deaf_to_reads,
        theme="gray",
    ),
    "rule-35-no-echoes": Mutant(
        "Nobody asks whether an idle connection carries",
        broken=_patched(Lanes, "echo_due", _no_echo),
        theme="idle",
    ),
    "rule-36-polite": Mutant(
        "Leadership is given to whom one's own view names, without consent",
        broken=_patched(Balance, "successor", _give_without_consent),
        theme="views",
    ),
    "rule-20-by-the-clock": Mutant(
        "A transfer is given up after one timeout, whatever has moved",
        broken=_transfers_by_the_clock,
        theme="queues",
    ),
    "vote-for-old-logs": Mutant(
        "A voter does not compare logs (Raft §5.4.1)",
        broken=_patched(RaftLog, "is_current", _any_log_is_current),
    ),
    "vote-twice": Mutant(
        "A voter votes for everybody who asks (Raft §5.2)",
        broken=_patched(Group, "_on_request_vote", _vote_twice),
    ),
    **{name: Mutant(what, tools, theme=theme) for name, (what, tools, theme) in SERVICE_MUTANTS.items()},
    **{
        name: Mutant(what, broken=broken, theme=NODE_THEMES.get(name, "node_code"))
        for name, (what, broken) in NODE_MUTANTS.items()
    },
}
