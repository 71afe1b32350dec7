"""One partition's Raft group at one node: a state machine without I/O, clock or chance of its own.

Raft as in Ongaro and Ousterhout's paper (figure 2). `voter`, on which this builds, decides who leads
(§5.2); here is what happens to the log (§5.3): a follower's part, a leader's, and what the node takes from
both. The rules quoted in comments are those of RULES.md.

The invariant that everything else rests on: *what a message says is durable before it is sent*
(rule 1). The one exception is a leader's own `Append`, which claims nothing about the leader's disk.
So the outbox has two sides: `now_out`, and `durable_out`, which the node holds back until the write that
the message rests on is synced.
"""

from __future__ import annotations

from collections.abc import Sequence

from allsource.cluster.consensus.environment import Environment
from allsource.cluster.consensus.leadership import Leadership
from allsource.cluster.consensus.log import LogReader
from allsource.cluster.consensus.messages import (
    Append,
    AppendReply,
    CommitNotice,
    GroupBeat,
    GroupMessage,
    Message,
    RequestVote,
    Role,
    RoleChange,
    TimeoutNow,
    VoteReply,
)
from allsource.cluster.consensus.sense import (
    PeerNonsense,
    check_append,
    check_commit,
    check_follows,
    check_reply,
    check_term,
)
from allsource.cluster.consensus.voter import Voter
from allsource.storage.model.entry import EVENTS, NOOP, Entry, NewAppend, make_entry
from allsource.storage.model.log import HardState, PartitionState, PartitionWrite


class Group(Voter):
    """See the module's page. Every input may `touch` the node, which then collects the outputs."""

    def __init__(
        self, state: PartitionState, reader: LogReader, environment: Environment, now: int
    ) -> None:
        super().__init__(state, reader, environment, now)
        self.durable_index = state.last_index
        self.leader_commit = self.commit
        """The highest commit index that a leader told, which this log may not reach yet."""
        self.now_out: list[tuple[str, Message]] = []
        self._saved = state.hard
        self._told = RoleChange(self.partition, self.term, self.role, self.leader)
        self._commit_told = self.commit

    def bootstrap(self, entry: Entry) -> None:
        """Begin a new log with the entry that every replica writes alike; it counts as committed."""
        assert not self.log.last_index
        self.log.append(entry)
        self._advance_commit(entry.index)

    # ------------------------------------------------------------------ messages

    def step(self, sender: str, message: GroupMessage, now: int) -> None:
        """Take one message of this partition from a peer. Raises `PeerNonsense`."""
        if message.term > self.term:
            check_term(message.term, self.term, self.partition)
        if isinstance(message, Append):
            self._on_append(sender, message, now)
        elif isinstance(message, AppendReply):
            self._on_append_reply(sender, message, now)
        elif isinstance(message, CommitNotice):
            self._on_commit_notice(sender, message, now)
        elif isinstance(message, RequestVote):
            self._on_request_vote(sender, message, now)
        elif isinstance(message, VoteReply):
            self._on_vote_reply(sender, message, now)
        elif isinstance(message, TimeoutNow):
            self._on_timeout_now(sender, message, now)

    def beat(self, sender: str, line: GroupBeat, now: int) -> None:
        """The group's line in a peer's beat: the heartbeat of Raft, carried by the node's own.

        It vouches for the leader only in the very same term (rule 25), and for a follower only if that
        says that it follows (rule 35): who hears nothing of us may still be heard by us.
        """
        check_commit(line)
        if line.term > self.term:
            check_term(line.term, self.term, self.partition)
        if line.term > self.term:
            if line.leader == sender:
                self._follow(line.term, sender, now)
            elif self.role is Role.LEADER:
                self._follow(line.term, None, now)  # it will refuse us; find out who leads
        elif line.term == self.term:
            if line.leader == sender:
                self._hear_leader(sender, now)
                self._follow_commit(line.commit)
            elif self.leadership is not None:
                self._hear_follower(self.leadership, sender, line, now)
            elif self.leader == sender:
                self._forget_leader(now)  # it stepped down, or is another process: it leads no more

    def _hear_follower(self, leadership: Leadership, sender: str, line: GroupBeat, now: int) -> None:
        if line.leader == self.node_id:
            leadership.heard(sender, now)
        if leadership.arrived(sender, line.last):
            self._environment.lane_moved(sender, now)

    # ------------------------------------------------------------------ time

    def tick(self, now: int) -> None:
        """Do what is due."""
        if now < self.deadline:
            return
        if self.leadership is not None:
            self._tick_leader(self.leadership, now)
        else:
            self._tick_follower(now)

    def _tick_leader(self, leadership: Leadership, now: int) -> None:
        config = self._environment.config
        if leadership.retry_silent(now):
            self._environment.touch(self.partition)
        if leadership.successor is not None and now >= leadership.transfer_deadline:
            leadership.end_transfer()
        lasts_until = leadership.quorum_lasts_until(now)
        if now >= lasts_until:
            self._follow(self.term, None, now)
        elif leadership.cannot_replicate(self.commit, now):
            self._candidacy.led_in_vain(now)  # heard, but not able to replicate (rule 35)
            self._follow(self.term, None, now)
        else:
            self._wake(min(now + config.suspicion_us // 4, lasts_until))

    # ------------------------------------------------------------------ following

    def _on_append(self, sender: str, message: Append, now: int) -> None:
        check_append(message)
        if message.term < self.term:
            # Rule 11: an old leader is told, so that it frees itself. It may lead this very term by now,
            # with another log: its term is refused, and not an append of that log (rule 34).
            self._refuse_append(sender, 0, 0, 0)
            return
        if message.term > self.term:
            self._follow(message.term, sender, now)
        self._hear_leader(sender, now)
        prev = message.prev_index
        if self.log.term_at(prev) != message.prev_term:
            if prev <= self.commit:
                raise PeerNonsense(
                    f"partition {self.partition}: its log has {prev}/{message.prev_term}, where a majority "
                    f"stored {prev}/{self.log.term_at(prev)}"
                )
            index, term = self.log.newest_not_above(prev, message.prev_term)
            self._refuse_append(sender, prev, index, term)
            return
        self._take(message.entries, prev)
        last = prev + len(message.entries)
        self._verified = max(self._verified, last)
        self._follow_commit(message.commit)
        self._accept_append(sender, last)

    def _take(self, entries: list[Entry], prev: int) -> None:
        """Keep what agrees, truncate at the first real conflict only, append the rest (rule 4)."""
        for entry in entries:
            if entry.index > self.log.last_index:
                break
            if self.log.term_at(entry.index) != entry.term:
                if entry.index <= self.commit:
                    raise PeerNonsense(
                        f"partition {self.partition}: it overwrites the committed entry {entry.index}"
                    )
                self.log.truncate(entry.index)
                self.durable_index = min(self.durable_index, entry.index - 1)
                break
        else:
            return
        check_follows(entry, self.log.next_position, self.log.last_timestamp_us)
        for new in entries[entry.index - prev - 1 :]:
            self.log.append(new)
        self._environment.touch(self.partition)

    def _accept_append(self, sender: str, index: int) -> None:
        out = self.durable_out
        if out and out[-1][0] == sender:
            last = out[-1][1]
            if isinstance(last, AppendReply) and last.accepted and last.term == self.term:
                last.index = max(last.index, index)  # one answer to many messages of one turn
                return
        out.append((sender, AppendReply(self.partition, self.term, True, index, 0)))
        self._environment.touch(self.partition)

    def _refuse_append(self, sender: str, prev_index: int, index: int, hint_term: int) -> None:
        reply = AppendReply(self.partition, self.term, False, index, hint_term, prev_index)
        self.durable_out.append((sender, reply))
        self._environment.touch(self.partition)

    def _on_commit_notice(self, sender: str, notice: CommitNotice, now: int) -> None:
        check_commit(notice)
        if notice.term == self.term:
            self._hear_leader(sender, now)
            self._follow_commit(notice.commit)

    def _follow_commit(self, commit: int) -> None:
        """The leader's commit index counts as far as our log was verified against its (rule 5)."""
        self.leader_commit = max(self.leader_commit, commit)
        self._advance_commit(min(commit, self._verified))

    def _advance_commit(self, commit: int) -> None:
        if commit > self.commit:  # rule 5: never back
            assert commit <= self.log.last_index
            self.commit = commit
            self._environment.touch(self.partition)

    # ------------------------------------------------------------------ leading

    def _lead(self, now: int) -> None:
        """Take office: an entry of the own term is what makes older ones committable (rule 3)."""
        self.role = Role.LEADER
        self.leader = self._led_by = self.node_id
        self._candidacy.leader_found()
        self.leadership = Leadership(self.term, self.log, self._environment, now)
        self._append_own(NOOP, (), self.log.last_timestamp_us)
        self._wake(now + self._environment.config.suspicion_us // 4)

    def can_propose(self) -> bool:
        """Leading, not handing over, and not too much uncommitted (rule 21)."""
        leadership = self.leadership
        return (
            leadership is not None
            and leadership.successor is None
            and leadership.uncommitted_bytes < self._environment.config.uncommitted_bytes_max
        )

    def propose(self, appends: Sequence[NewAppend], timestamp_us: int) -> Entry:
        """Append an entry of these appends; the time is raised to the partition's last if need be."""
        assert self.can_propose()
        return self._append_own(EVENTS, appends, max(timestamp_us, self.log.last_timestamp_us))

    def _append_own(self, kind: int, appends: Sequence[NewAppend], timestamp_us: int) -> Entry:
        assert self.leadership is not None
        entry = make_entry(
            partition=self.partition,
            index=self.log.last_index + 1,
            term=self.term,
            kind=kind,
            first_position=self.log.next_position,
            timestamp_us=timestamp_us,
            appends=appends,
        )
        self.log.append(entry)
        self.leadership.proposed(entry.index, len(entry.record))
        self._environment.touch(self.partition)
        return entry

    def _on_append_reply(self, sender: str, reply: AppendReply, now: int) -> None:
        if reply.term > self.term:
            self._follow(reply.term, None, now)
            return
        leadership = self.leadership
        if leadership is None or reply.term < self.term:
            return
        progress = leadership.progress.get(sender)
        if progress is None:
            return
        check_reply(reply, self.log.last_index)
        progress.contact_us = now
        if not reply.accepted:
            index, _ = self.log.newest_not_above(reply.index, reply.hint_term)
            before = progress.next
            if progress.refused(reply.prev_index, index + 1):
                if progress.next < before:
                    self._environment.lane_moved(sender, now)
                self._environment.touch(self.partition)
            return
        if progress.accepted(reply.index):
            self._environment.lane_moved(sender, now)
            self._try_commit(leadership, now)
        if leadership.successor == sender:
            self._tell_successor(leadership, now)
        if progress.next <= self.log.last_index:
            self._environment.touch(self.partition)

    def _try_commit(self, leadership: Leadership, now: int) -> None:
        commit = leadership.committable(self.durable_index)
        if commit > self.commit:
            self._candidacy.committed()
            leadership.committed(commit, now)
            self._advance_commit(commit)

    def persisted(self, term: int, index: int, now: int) -> None:
        """Our own log is durable up to `index`, an entry of `term`: nothing is said of an entry that
        took its place since (rule 2)."""
        if index > self.durable_index and self.log.term_at(index) == term:
            self.durable_index = index
            if self.leadership is not None:
                self._try_commit(self.leadership, now)

    def transfer(self, successor: str, now: int) -> None:
        """Hand leadership to `successor` (rule 20)."""
        leadership = self.leadership
        if leadership is not None and leadership.successor is None:
            leadership.start_transfer(successor, now)
            self._tell_successor(leadership, now)
            self._environment.touch(self.partition)

    def _tell_successor(self, leadership: Leadership, now: int) -> None:
        if leadership.successor is not None and leadership.successor_is_ready():
            leadership.told(now)
            self.now_out.append((leadership.successor, TimeoutNow(self.partition, self.term)))
            self._environment.touch(self.partition)

    # ------------------------------------------------------------------ outputs, taken by the node

    @property
    def committed_in_term(self) -> bool:
        """Leading, and the no-op of this term is committed: `commit` is the truth (rule 14)."""
        return self.leadership is not None and self.commit >= self.leadership.first_index

    def inflight_bytes(self, peer: str) -> int:
        """Bytes of entries that this group has under way to the peer."""
        progress = self.leadership.progress.get(peer) if self.leadership is not None else None
        return progress.inflight_bytes if progress is not None else 0

    def take_messages(self, now: int) -> list[tuple[str, Message]]:
        """What may be sent at once, a leader's appends included."""
        taken, self.now_out = self.now_out, []
        if self.leadership is not None:
            self.leadership.follow_configuration(now)
            taken += self.leadership.appends(self.commit, self.partition, now)
        return taken

    def take_notices(self) -> list[tuple[str, Message]]:
        """Commit notices for followers that no append has told."""
        return self.leadership.notices(self.commit, self.partition) if self.leadership is not None else []

    def take_write(self, *, with_commit: bool) -> PartitionWrite | None:
        """What must be stored, None if nothing. The commit index alone can wait (`with_commit`
        False): losing it costs nothing but a little time at the next start."""
        saved = self._saved
        hard = None
        if (
            self.term != saved.term
            or self.vote != saved.vote
            or (with_commit and self.commit != saved.commit)
        ):
            hard = self._saved = HardState(self.term, self.vote, self.commit)
        elif not self.log.has_unwritten:
            return None
        truncate_from, entries = self.log.take_write()
        return PartitionWrite(self.partition, hard, truncate_from, entries)

    @property
    def commit_is_unsaved(self) -> bool:
        """Whether storage knows a lower commit index."""
        return self.commit != self._saved.commit

    def take_change(self) -> RoleChange | None:
        """The change of role, term or leader since the last call."""
        told = self._told
        if self.term == told.term and self.role is told.role and self.leader == told.leader:
            return None
        self._told = RoleChange(self.partition, self.term, self.role, self.leader)
        return self._told

    def take_commit(self) -> int | None:
        """The commit index if it moved since the last call."""
        if self.commit == self._commit_told:
            return None
        self._commit_told = self.commit
        return self.commit
