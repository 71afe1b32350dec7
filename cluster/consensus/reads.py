"""Linearizable reads: ReadIndex (Raft §8; Ongaro's thesis §6.4) for all groups of a node at once.

A leader may answer a read with its commit index if, after the read arrived, a majority confirmed that
it still leads. One question, a round, asks that for every group with waiting reads. No clock lease is
used (rule 14), and every attempt has a round number of its own, so that no old answer can confirm a
newer read (etcd #20418). That holds across restarts too: rounds begin at `incarnation << 32`, and an
answer names the term that it confirms (rule 34).

Invariant: a read of group g is confirmed only by a majority of g's voters that were in the leader's
term after the read had arrived, and then sees at least the commit index of when its round began.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from allsource.cluster.consensus.group import Group
from allsource.cluster.consensus.messages import Message, ReadResult, ReadRound, ReadRoundReply
from allsource.cluster.consensus.quorum import has_majority

ROUNDS_MAX = 2
"""Rounds under way at once, late ones not counted; reads that arrive meanwhile share the next one."""

INCARNATION_SHIFT = 32
"""Each start of a node has 2**32 round numbers of its own."""


@dataclass(slots=True)
class _Read:
    """A read that waits. `index` is what it must see: its own minimum, and its round's commit index."""

    ticket: object
    index: int


class _Early(NamedTuple):
    """A confirmed read that must see more than is committed yet. Ordered by what it waits for."""

    must_see: int
    arrival: int
    read: _Read


@dataclass(slots=True)
class _Share:
    """One group's part of a round."""

    term: int
    reads: list[_Read]
    agreed: set[str]


@dataclass(slots=True)
class _Round:
    """A question and who has answered it. After `patience_us` it is asked afresh."""

    number: int
    sent_us: int
    patience_us: int
    shares: dict[int, _Share] = field(default_factory=dict)


class ReadRounds:
    """The waiting reads of one node, in three queues: not yet asked, asked, confirmed but too early."""

    def __init__(self, node_id: str, groups: Mapping[int, Group], retry_us: int, incarnation: int) -> None:
        """`retry_us`: how long a first attempt waits for its answers. `incarnation`: how often this node
        has started; no two processes of it may have the same."""
        self._node_id = node_id
        self._groups = groups
        self._retry_us = retry_us
        self._waiting: dict[int, list[_Read]] = {}
        self._rounds: dict[int, _Round] = {}
        self._confirmed: dict[int, list[_Early]] = {}
        """By partition, a heap: a commit looks at what it serves."""
        self._early = 0
        self._last_number = incarnation << INCARNATION_SHIFT
        self._results: list[ReadResult] = []

    def ask(self, partition: int, ticket: object, min_index: int) -> None:
        """A read arrived. Without leadership it is refused at once."""
        group = self._groups.get(partition)
        if group is None or group.leadership is None:
            self._results.append(ReadResult(ticket, partition, 0, False))
        else:
            self._waiting.setdefault(partition, []).append(_Read(ticket, min_index))

    def lost(self, partition: int) -> None:
        """This node's leadership of the group ended (or began anew): refuse what waited for it."""
        refused = self._waiting.pop(partition, [])
        refused += [read for _, _, read in self._confirmed.pop(partition, [])]
        for round_ in self._rounds.values():
            share = round_.shares.pop(partition, None)
            if share is not None:
                refused += share.reads
        self._results += [ReadResult(read.ticket, partition, 0, False) for read in refused]
        self._drop_empty_rounds()

    def begin(self, now: int) -> Iterator[tuple[str, Message]]:
        """Start a round for the reads that wait, if there is room for one: `(peer, question)`."""
        if not self._waiting or self._is_full(now):
            return
        round_ = _Round(self._last_number + 1, now, self._retry_us)
        questions: dict[str, list[tuple[int, int]]] = {}
        for partition in list(self._waiting):
            group = self._groups[partition]
            if group.leadership is None or not group.committed_in_term:
                continue
            reads = self._waiting.pop(partition)
            for read in reads:
                read.index = max(read.index, group.commit)
            share = _Share(group.term, reads, {self._node_id})
            if has_majority(group.log.configuration, share.agreed):
                self._confirm(partition, reads)
                continue
            round_.shares[partition] = share
            # As long again as they have waited: where answers are slow, an attempt must not be given up
            # before they can come.
            round_.patience_us = max(round_.patience_us, now - group.leadership.asked(now))
            for peer in group.other_voters():
                questions.setdefault(peer, []).append((partition, group.term))
        if round_.shares:
            self._last_number += 1
            self._rounds[round_.number] = round_
        for peer, groups in questions.items():
            yield peer, ReadRound(round_.number, groups)

    def _is_full(self, now: int) -> bool:
        """Whether new reads wait for a later round. One whose answers are late holds nobody up."""
        fresh = [r for r in self._rounds.values() if now - r.sent_us < self._retry_us]
        return len(fresh) >= ROUNDS_MAX

    def on_reply(self, sender: str, reply: ReadRoundReply, now: int) -> bool:
        """A peer confirmed some groups of a round; it may be the vote that was missing. True if the round
        is under way: what we send the peer arrives there."""
        round_ = self._rounds.get(reply.round)
        if round_ is None:
            return False
        for partition, term in reply.groups:
            share = round_.shares.get(partition)
            group = self._groups.get(partition)
            if share is None or group is None or term != share.term:
                continue
            if group.leadership is None or group.term != term:
                continue
            group.leadership.heard(sender, now)
            share.agreed.add(sender)
            if has_majority(group.log.configuration, share.agreed):
                reads = self._take_up_to(round_.number, partition, term)
                more = any(partition in other.shares for other in self._rounds.values())
                group.leadership.answered(now, more=more)
                self._confirm(partition, reads)
        self._drop_empty_rounds()
        return True

    def _take_up_to(self, number: int, partition: int, term: int) -> list[_Read]:
        """The reads of this round and of those before it. Their answers may be lost, and theirs were asked
        for earlier: that this node leads after they came is what they wait to hear."""
        reads: list[_Read] = []
        for round_ in self._rounds.values():
            share = round_.shares.get(partition)
            if round_.number <= number and share is not None and share.term == term:
                reads += share.reads
                del round_.shares[partition]
        return reads

    def retry(self, now: int) -> bool:
        """Put the reads of rounds that stay unanswered into a fresh one. True if there were any."""
        late = [r for r in self._rounds.values() if now - r.sent_us >= r.patience_us]
        for round_ in late:
            del self._rounds[round_.number]
            for partition, share in round_.shares.items():
                self._waiting.setdefault(partition, []).extend(share.reads)
        return bool(late)

    def committed(self, partition: int) -> None:
        """The group's commit index moved: some confirmed reads may be served now."""
        early = self._confirmed.get(partition)
        if early is None:
            return
        commit = self._groups[partition].commit
        while early and early[0][0] <= commit:
            index, _, read = heapq.heappop(early)
            self._results.append(ReadResult(read.ticket, partition, index, True))
        if not early:
            del self._confirmed[partition]

    def take_results(self) -> list[ReadResult]:
        """Reads that may be served, or were refused."""
        taken, self._results = self._results, []
        return taken

    def _confirm(self, partition: int, reads: Iterable[_Read]) -> None:
        """The leadership is proved: the log holds whatever was acknowledged before these reads came.

        An index beyond its end is therefore nobody's, and is not waited for: the result says how far
        everything is committed, which is less than what was asked for.
        """
        group = self._groups[partition]
        commit, last_index = group.commit, group.log.last_index
        for read in reads:
            if read.index <= commit:
                self._results.append(ReadResult(read.ticket, partition, read.index, True))
            elif read.index > last_index:
                self._results.append(ReadResult(read.ticket, partition, commit, True))
            else:
                self._early += 1
                early = self._confirmed.setdefault(partition, [])
                heapq.heappush(early, _Early(read.index, self._early, read))

    def _drop_empty_rounds(self) -> None:
        for number in [n for n, round_ in self._rounds.items() if not round_.shares]:
            del self._rounds[number]
