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
from allsource.cluster.consensus.messages import Append
from allsource.cluster.consensus.progress import REPLICATE, Progress
from allsource.cluster.consensus.quorum import has_majority, stored_by_majority


class FollowerFigures(NamedTuple):
    """What an operator wants to know of a follower."""

    follower: str
    lag: int | None
    """Entries of the leader's log that it is not known to have on its disk; None until it has
    accepted one of this leader's messages."""
    replicating: bool
    """Whether the log is streamed to it: it is reached, and the leader knows where its log agrees."""


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
        self.checked_us = now
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
        """The peer answered in our term."""
        progress = self.progress.get(peer)
        if progress is not None:
            progress.contact_us = now

    def followers(self) -> Iterator[FollowerFigures]:
        """The figures of each."""
        for peer, progress in self.progress.items():
            yield FollowerFigures(
                peer,
                self._log.last_index - progress.match if progress.match else None,
                progress.state == REPLICATE and self._environment.reaches(peer),
            )

    def quorum_answers(self, now: int) -> bool:
        """CheckQuorum (rule 11): whether a majority answered within the suspicion time."""
        oldest = now - self._config.suspicion_us
        active = {peer for peer, p in self.progress.items() if p.contact_us >= oldest}
        active.add(self._environment.node_id)
        return has_majority(self._log.configuration, active)

    def forgive(self, gap: int) -> None:
        """This process slept for `gap`: the silence of that time was ours, not theirs (rule 26)."""
        for progress in self.progress.values():
            progress.contact_us += gap
        self.checked_us += gap

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

    def committed(self, index: int) -> None:
        """Everything up to `index` is committed."""
        sizes = self._sizes
        while sizes and sizes[0][0] <= index:
            self.uncommitted_bytes -= sizes.popleft()[1]

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
        log = self._log
        first, last = progress.next, log.last_index
        from_disk = first <= last and not log.in_memory(first)
        if from_disk and not self._environment.may_catch_up(partition, now):
            return None
        entries = log.slice(first, last, self._config.append_bytes_max)
        prev_term = log.term_at(first - 1)
        assert prev_term is not None, "a follower's next index is never past the log's end + 1"
        progress.commit_sent = commit
        size = sum([len(entry.record) for entry in entries])
        if from_disk:
            self._environment.caught_up(size)
        progress.sent(entries[-1].index if entries else first - 1, size, now)
        return Append(partition, self.term, first - 1, prev_term, commit, entries)

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
        """Stop proposing; as soon as the successor has everything, `Group` tells it to stand."""
        self.successor = successor
        self.told_successor = False
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
