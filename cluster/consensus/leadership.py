"""What only a leader has: the progress of its followers, its commit rule, and a transfer under way.

The object exists exactly as long as the leadership of one term does, so that nothing of an older
term can be mistaken for this one's. It decides and builds messages; `Group` owns the log, the term
and the outbox.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

from allsource.cluster.consensus.environment import ConsensusConfig, Environment
from allsource.cluster.consensus.log import RaftLog
from allsource.cluster.consensus.messages import Append, CommitNotice, Message
from allsource.cluster.consensus.progress import REPLICATE, Progress
from allsource.cluster.consensus.quorum import has_majority, stored_by_majority

STUCK_SUSPICIONS_MAX = 10
"""So many suspicion times without a commit end a leadership although followers move: with the defaults 5 s,
when a client's request has given up too."""


class FollowerFigures(NamedTuple):
    """What an operator wants to know of a follower."""

    follower: str
    lag: int | None
    """Entries of the leader's log that it is not known to have on its disk; None until it has
    accepted one of this leader's messages."""
    replicating: bool
    """Whether the log is streamed to it: it is reached, and the leader knows where its log agrees."""


class _Owed(NamedTuple):
    """The log up to `last_index` was not committed at `since_us`, and nothing was committed since."""

    last_index: int
    since_us: int


class Leadership:
    """One term of office in one group.

    `first_index` is the index of the term's first entry, its no-op: until that is committed, the
    leader does not know what is, and answers no linearizable read (rules 3 and 14).
    """

    def __init__(self, term: int, log: RaftLog, environment: Environment, now: int) -> None:
        self.term = term
        self.first_index = log.last_index + 1
        self.progress: dict[str, Progress] = {}
        self.successor: str | None = None
        self.transfer_deadline = 0
        self.told_successor = False
        self.uncommitted_bytes = 0
        self._sizes: deque[tuple[int, int]] = deque()
        self._log = log
        self._environment = environment
        self._config: ConsensusConfig = environment.config
        self._configuration_index = -1
        self._seen_commit = -1
        self._owed: _Owed | None = None
        self._asked_us: int | None = None
        """Since when a majority owes an answer to a read round, and has answered none."""
        self.follow_configuration(now)

    # -- followers

    def follow_configuration(self, now: int) -> None:
        """Have one Progress for each other member of the configuration in force (rule 8)."""
        if self._configuration_index == self._log.configuration_index:
            return
        self._configuration_index = self._log.configuration_index
        members = self._log.configuration.members()
        self.progress = {
            peer: self.progress.get(peer) or Progress(self._log.last_index + 1, now)
            for peer in members
            if peer != self._environment.node_id
        }

    def heard(self, peer: str, now: int) -> None:
        """The peer answered in our term, or its beat says that it follows us."""
        progress = self.progress.get(peer)
        if progress is not None:
            progress.contact_us = now

    def arrived(self, peer: str, last: int) -> bool:
        """By its beat, the peer's log ends at `last`. True if it has grown: what we send arrives there."""
        progress = self.progress.get(peer)
        if progress is None or last <= progress.arrived:
            return False
        progress.arrived = last
        return True

    def followers(self) -> Iterator[FollowerFigures]:
        """The figures of each."""
        for peer, progress in self.progress.items():
            yield FollowerFigures(
                peer,
                self._log.last_index - progress.match if progress.match else None,
                progress.state == REPLICATE and self._environment.reaches(peer),
            )

    def quorum_lasts_until(self, now: int) -> int:
        """CheckQuorum (rule 11): when a majority will have been silent for the suspicion time, unless
        somebody is heard."""
        contacts = {peer: progress.contact_us for peer, progress in self.progress.items()}
        contacts[self._environment.node_id] = now
        return stored_by_majority(self._log.configuration, contacts) + self._config.suspicion_us

    def cannot_replicate(self, commit: int, now: int) -> bool:
        """Rule 35: whether entries or reads have waited in vain for a suspicion time, or would, if there
        were any: a lane that nothing is under way on shows by echoes that it carries. To be asked often.

        Being heard is not enough: beats have a connection of their own, and the one that carries
        entries, and the questions of reads, may hang while they pass. But who is merely slow is not
        deposed, for its successor would be as slow: a voter whose log grows (acknowledged, or only
        arrived and waiting for its disk, for whatever group) or that answers reads counts as reached.
        When even so nothing is committed, or no read confirmed, for many suspicion times, somebody
        else may try.
        """
        return (
            self._reaches_no_majority(now)
            or self._entries_wait_in_vain(commit, now)
            or self._reads_wait_in_vain(now)
        )

    def _reaches_no_majority(self, now: int) -> bool:
        """Whether a majority lives, as far as this node can know, and what is sent to it does not arrive.
        Where none lives, CheckQuorum is the one to judge."""
        environment, configuration = self._environment, self._log.configuration
        living = [peer for peer in self.progress if environment.reaches(peer)]
        reached = [peer for peer in living if environment.lane_carries(peer, now)]
        return (
            len(reached) < len(living)
            and has_majority(configuration, (environment.node_id, *living))
            and not has_majority(configuration, (environment.node_id, *reached))
        )

    def _entries_wait_in_vain(self, commit: int, now: int) -> bool:
        if commit != self._seen_commit or self._owed is None:
            self._seen_commit = commit
            last = self._log.last_index
            self._owed = _Owed(last, now) if commit < last else None
            return False
        owed, since = self._owed
        if now - since < self._config.suspicion_us:
            return False
        arrived = {
            peer
            for peer, progress in self.progress.items()
            if max(progress.match, progress.arrived) >= owed  # it may wait for the disk there
        }
        return self._waits_in_vain(since, arrived, now)

    def _reads_wait_in_vain(self, now: int) -> bool:
        since = self._asked_us
        if since is None or now - since < self._config.suspicion_us:
            return False
        return self._waits_in_vain(since, set(), now)

    def _waits_in_vain(self, since: int, arrived: set[str], now: int) -> bool:
        """Whether what has waited since then for a majority is to be given up. `arrived`: the peers that it
        has come to; it is coming to those whose lane moves."""
        moves = self._environment.lane_moves
        reached = {peer for peer in self.progress if peer in arrived or moves(peer, now)}
        if has_majority(self._log.configuration, {self._environment.node_id, *reached}):
            return now - since >= STUCK_SUSPICIONS_MAX * self._config.suspicion_us and bool(self.progress)
        return True

    def asked(self, now: int) -> int:
        """A read round asks for the majority's word. Since when it has been asked for in vain."""
        if self._asked_us is None:
            self._asked_us = now
        return self._asked_us

    def answered(self, now: int, *, more: bool) -> None:
        """A majority confirmed a read round of this leadership. `more`: another one is under way."""
        self._asked_us = now if more else None

    def forgive(self, gap: int, now: int) -> None:
        """This process slept for `gap`: the silence of that time was ours, not theirs (rule 26)."""
        for progress in self.progress.values():
            progress.forgive(gap, now)
        if self._owed is not None:
            self._owed = _Owed(self._owed.last_index, min(now, self._owed.since_us + gap))
        if self._asked_us is not None:
            self._asked_us = min(now, self._asked_us + gap)
        self.transfer_deadline = min(now + self._config.suspicion_us, self.transfer_deadline + gap)

    # -- committing

    def committable(self, durable: int) -> int:
        """The index that may be committed: stored by a majority, and of our own term (rule 3).

        `durable`: the last index that this node's own disk has; it votes like any other (rule 1).
        """
        match = {peer: progress.match for peer, progress in self.progress.items()}
        match[self._environment.node_id] = durable
        index = stored_by_majority(self._log.configuration, match)
        return index if self._log.term_at(index) == self.term else 0

    def proposed(self, index: int, size: int) -> None:
        """An entry of `size` bytes was appended and is not committed yet."""
        self._sizes.append((index, size))
        self.uncommitted_bytes += size

    def committed(self, index: int, now: int) -> None:
        """Everything up to `index` is committed, which is news."""
        sizes = self._sizes
        while sizes and sizes[0][0] <= index:
            self.uncommitted_bytes -= sizes.popleft()[1]
        self._transfer_moved(now)

    # -- sending

    def appends(self, commit: int, partition: int, now: int) -> Iterator[tuple[str, Append]]:
        """All that may be sent now, `(peer, message)`, as far as every follower's window allows."""
        for peer, progress in self.progress.items():
            if not self._environment.reaches(peer):
                continue
            while progress.may_send(self._config.inflight_messages_max, self._config.inflight_bytes_max):
                if progress.next > self._log.last_index and progress.state == REPLICATE:
                    break
                message = self._append_to(progress, commit, partition, now)
                if message is None:
                    break
                yield peer, message

    def _append_to(self, progress: Progress, commit: int, partition: int, now: int) -> Append | None:
        """The next message to a follower. What is no longer in memory passes from the disk to the wire
        as it is: its records are checked, not decoded, here."""
        log = self._log
        first, last = progress.next, log.last_index
        from_disk = first <= last and not log.in_memory(first)
        if not self._environment.may_send(partition, now, from_disk=from_disk):
            return None
        prev_term = log.term_at(first - 1)
        assert prev_term is not None, "a follower's next index is never past the log's end + 1"
        message = Append(partition, self.term, first - 1, prev_term, commit, [])
        if from_disk:
            message.records = log.records(first, last, self._config.append_bytes_max)
            size = sum(map(len, message.records))
        else:
            message.entries = log.slice(first, last, self._config.append_bytes_max)
            size = sum([len(entry.record) for entry in message.entries])
        self._environment.sent(size, from_disk=from_disk)
        progress.commit_sent = commit
        progress.sent(first - 1 + len(message.records) + len(message.entries), size, now)
        return message

    def notices(self, commit: int, partition: int) -> list[tuple[str, Message]]:
        """Notices of the commit index, for followers that no append has told of it."""
        notices: list[tuple[str, Message]] = []
        for peer, progress in self.progress.items():
            if progress.commit_sent < commit and self._environment.reaches(peer):
                progress.commit_sent = commit
                notices.append((peer, CommitNotice(partition, self.term, commit)))
        return notices

    def retry_silent(self, now: int) -> bool:
        """Probe again where a message was lost (a connection may take some with it). True if any."""
        oldest = now - self._config.suspicion_us // 2
        found = False
        for progress in self.progress.values():
            since = progress.silent_since()
            if since is not None and since <= oldest:
                progress.probe()
                found = True
        return found

    # -- handing over (Ongaro's thesis §3.10, rule 20)

    def start_transfer(self, successor: str, now: int) -> None:
        """Stop proposing; as soon as the successor has everything, `Group` tells it to stand.

        It is given up when it has not moved for a suspicion time. It moves with each commit of what was
        proposed before: that has an end, and what would be proposed now would wait for it too. And it moves
        when the successor is told, whose election needs its time (rule 13): whatever is proposed during it
        makes the successor's log the shorter one, and its election vain.
        """
        self.successor = successor
        self.told_successor = False
        self._transfer_moved(now)

    def told(self, now: int) -> None:
        """The successor has everything, and was told to stand."""
        self.told_successor = True
        self._transfer_moved(now)

    def _transfer_moved(self, now: int) -> None:
        self.transfer_deadline = now + self._config.suspicion_us

    def end_transfer(self) -> None:
        """It did not happen in time: propose again."""
        self.successor = None
        self.told_successor = False

    def successor_is_ready(self) -> bool:
        """Whether the successor should be told now."""
        if self.successor is None or self.told_successor:
            return False
        progress = self.progress.get(self.successor)
        return progress is not None and progress.match == self._log.last_index

    def best_successor(self, candidates: tuple[str, ...]) -> str | None:
        """The first of the candidates that votes and lacks least of the log."""
        voters = self._log.configuration.voters
        known = [c for c in candidates if c in self.progress and c in voters]
        return max(known, key=lambda c: self.progress[c].match, default=None)
