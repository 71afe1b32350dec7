"""One partition's Raft group at one node: a state machine without I/O, clock or chance of its own.

Raft as in Ongaro and Ousterhout's paper (figure 2), with pre-vote and leadership transfer (Ongaro's
thesis §9.6, §3.10) and CheckQuorum, but without heartbeats of its own: the node's beats carry one
line for each group (`beat`), and the node's failure detector says when a leader's node is gone
(`leader_down`). The rules quoted in comments are those of RULES.md.

The invariant that everything else rests on: *what a message says is durable before it is sent*
(rule 1). The one exception is a leader's own `Append`, which claims nothing about the leader's disk.
So the outbox has two sides: `now`, and `durable`, which the node holds back until the write that the
message rests on is synced.
"""

from __future__ import annotations

from allsource.cluster.consensus.environment import Environment
from allsource.cluster.consensus.leadership import Leadership
from allsource.cluster.consensus.log import LogReader, RaftLog
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
from allsource.cluster.consensus.quorum import cannot_win, has_majority
from allsource.cluster.consensus.sense import (
    PeerNonsense,
    check_append,
    check_commit,
    check_follows,
    check_reply,
    check_term,
    check_vote,
)
from allsource.storage.model.entry import EVENTS, NOOP, Entry, Part, make_entry
from allsource.storage.model.log import HardState, PartitionState, PartitionWrite

NEVER = 1 << 62

LET_OTHERS_SUSPICIONS = 2
"""A leader that could not replicate leaves the next election to the others for so many suspicion times;
twice as long each further time, up to four times that."""
VAIN_LEADERSHIPS_MAX = 2
"""From this many vain leaderships on, waiting grows no longer."""
WANT_AGAIN_GROWTH = 4
"""As its owner (rule 36) it asks for the leadership back after the same time at first, and after so many
times as long each further time: others lead meanwhile."""


ELECTION_SYNCS = 3
"""An election takes two syncs one after the other, the candidate's and the voters', and may find each disk
busy with another."""


class Group:
    """See the module's page. Every input may `touch` the node, which then collects the outputs."""

    def __init__(
        self, state: PartitionState, reader: LogReader, environment: Environment, now: int
    ) -> None:
        self.partition = state.partition
        self.node_id = environment.node_id
        self.term, self.vote, self.commit = state.hard
        self.role = Role.FOLLOWER
        self.leader: str | None = None
        self.log = RaftLog(state, reader)
        self.leadership: Leadership | None = None
        self.durable_index = state.last_index
        self.leader_commit = self.commit
        """The highest commit index that a leader told, which this log may not reach yet."""
        self.deadline = now
        self.now_out: list[tuple[str, Message]] = []
        self.durable_out: list[tuple[str, Message]] = []
        self._environment = environment
        self._saved = state.hard
        self._granted: set[str] = set()
        self._refused: set[str] = set()
        self._transferred = False
        self._led_by: str | None = None
        """Who led, or leads, the present term, as far as this process knows. Nobody else does in it."""
        self._leader_contact_us = 0
        self._verified = 0
        self._vain_terms = 0
        self._vain_leaderships = 0
        self._stands_again_us = 0
        self._wants_again_us = 0
        self._told = RoleChange(self.partition, self.term, self.role, self.leader)
        self._commit_told = self.commit
        self._stand_soon(now)

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
            elif self.role == Role.LEADER:
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

    # ------------------------------------------------------------------ time and the registry's word

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
            self._let_others_lead(now)
        else:
            self._wake(min(now + config.suspicion_us // 4, lasts_until))

    def _let_others_lead(self, now: int) -> None:
        """Heard but not able to replicate (rule 35): step down, and leave the next election to others."""
        vain = self._vain_leaderships
        wait = LET_OTHERS_SUSPICIONS * self._environment.config.suspicion_us << vain
        self._vain_leaderships = min(vain + 1, VAIN_LEADERSHIPS_MAX)
        self._stands_again_us = now + wait
        self._wants_again_us = now + wait * WANT_AGAIN_GROWTH**vain
        self._follow(self.term, None, now)

    def lets_others_lead(self, now: int) -> bool:
        """Whether this node led lately and could not replicate: it does not want to be given the group."""
        return self.lets_others_lead_for(now) > 0

    def lets_others_lead_for(self, now: int) -> int:
        """For how many microseconds more; 0 if it does not."""
        return max(0, self._wants_again_us - now)

    def _tick_follower(self, now: int) -> None:
        if now < self._stands_again_us:
            self._wake(self._stands_again_us)
        elif self.node_id not in self.log.configuration.voters:
            self._wake(now + self._environment.config.suspicion_us)
        elif self._environment.may_stand():
            self._stand(now)
        else:
            self._stand_soon(now)

    def leader_down(self, node: str, now: int) -> None:
        """Our own registry says that the node is down: if it led, forget it (rule 12), and stand
        when our rank says so (rule 13)."""
        if self.leader == node and self.leadership is None:
            self._forget_leader(now)

    def _forget_leader(self, now: int) -> None:
        self.leader = None
        self._environment.touch(self.partition)
        self._stand_by_rank(now)

    def peer_reachable(self, peer: str, now: int) -> None:
        """The peer is back: what was under way to it is lost, and a vote may be won now."""
        self._stands_again_us = min(self._stands_again_us, now)  # perhaps it can be replicated to now
        if self.leadership is not None:
            progress = self.leadership.progress.get(peer)
            if progress is not None:
                progress.probe()
                self._environment.touch(self.partition)
        elif self.leader is None:
            self._stand_by_rank(now)

    def forgive(self, gap: int, now: int) -> None:
        """This process slept for `gap` microseconds: nobody else is to blame for that (rule 26)."""
        self._leader_contact_us = min(now, self._leader_contact_us + gap)
        if self.leadership is not None:
            self.leadership.forgive(gap, now)
        elif self.leader is not None:
            self._await_leader(now)
        else:
            self._stand_soon(now)

    def _wake(self, when: int) -> None:
        self.deadline = when
        self._environment.wake_at(when)

    def _await_leader(self, now: int) -> None:
        """The fallback timeout of Raft §5.2, randomised; the registry's word usually comes first."""
        span = self._environment.config.suspicion_us
        self._wake(now + span + self._environment.jitter(span))

    def _stand_soon(self, now: int) -> None:
        """No leader is known: stand after a short random while, later ranks later.

        An election must have the time that it needs (the broadcast time of Raft §5.6), and each vote
        waits for a sync. Where a sync takes longer than a retry, a candidate would else give itself up
        before the first vote can be there, and leadership fall to whoever stands in the luckiest term,
        not to whom it was handed. The others' disks are taken for like ours; if they are slower, or
        votes are split, elections that came to nothing double the while. The suspicion time bounds it.
        """
        config = self._environment.config
        rank = self._environment.rank(self.partition)
        needed = max(
            config.retry_us << max(0, self._vain_terms - 1), ELECTION_SYNCS * self._environment.sync_us()
        )
        span = min(needed, config.suspicion_us)
        wait = span + self._environment.jitter(span)
        self._wake(now + wait + (3 if rank is None else rank) * config.stagger_us)

    def _stand_by_rank(self, now: int) -> None:
        rank = self._environment.rank(self.partition)
        if rank is None:
            self._stand_soon(now)
        else:
            self._wake(min(self.deadline, now + rank * self._environment.config.stagger_us))

    # ------------------------------------------------------------------ standing for election

    def _stand(self, now: int, *, transferred: bool = False) -> None:
        """Campaign: ask first whether we would win (pre-vote), unless the old leader chose us."""
        self.leader = None
        self.leadership = None
        self._transferred = transferred
        if transferred:
            self._stand_for_real(now)
            return
        self.role = Role.PRECANDIDATE
        self._ask_for_votes(self.term + 1, now)

    def _stand_for_real(self, now: int) -> None:
        self.role = Role.CANDIDATE
        self._enter_term(self.term + 1, self.node_id)
        self._ask_for_votes(self.term, now)

    def _ask_for_votes(self, term: int, now: int) -> None:
        self._granted, self._refused = {self.node_id}, set()
        self._environment.touch(self.partition)
        self._stand_soon(now)
        pre = self.role == Role.PRECANDIDATE
        if has_majority(self.log.configuration, self._granted):
            if pre:
                self._won(now)
            else:
                # Alone, our own vote decides, so it has to be durable first (rule 1): a crash would
                # let us forget the term, and lead it twice. It comes back to us like a peer's.
                own = VoteReply(self.partition, term, True, pre)
                self.durable_out.append((self.node_id, own))
                self.deadline = NEVER
            return
        ask = RequestVote(
            self.partition, term, self.log.last_index, self.log.last_term, pre, self._transferred
        )
        for peer in self.other_voters():
            self.durable_out.append((peer, ask))

    def other_voters(self) -> list[str]:
        """Whose vote counts in the configuration in force, this node aside."""
        configuration = self.log.configuration
        return sorted({*configuration.voters, *configuration.outgoing} - {self.node_id})

    def _on_vote_reply(self, sender: str, reply: VoteReply, now: int) -> None:
        standing = Role.PRECANDIDATE if reply.pre else Role.CANDIDATE
        if not reply.granted and reply.term > self.term:
            self._follow(reply.term, None, now)
            return
        asked = self.term + 1 if reply.pre else self.term
        if self.role != standing or (reply.granted and reply.term != asked):
            return
        if sender != self.node_id:
            self._environment.lane_moved(sender, now)
        (self._granted if reply.granted else self._refused).add(sender)
        if has_majority(self.log.configuration, self._granted):
            self._won(now)
        elif cannot_win(self.log.configuration, self._refused):
            self.role = Role.FOLLOWER
            self._environment.touch(self.partition)

    def _won(self, now: int) -> None:
        if self.role == Role.PRECANDIDATE:
            self._stand_for_real(now)
        else:
            self._lead(now)

    def _lead(self, now: int) -> None:
        """Take office: an entry of the own term is what makes older ones committable (rule 3)."""
        self.role = Role.LEADER
        self.leader = self._led_by = self.node_id
        self._vain_terms = 0
        self.leadership = Leadership(self.term, self.log, self._environment, now)
        self._append_own(NOOP, (), self.log.last_timestamp_us)
        self._wake(now + self._environment.config.suspicion_us // 4)

    # ------------------------------------------------------------------ voting

    def _on_request_vote(self, sender: str, ask: RequestVote, now: int) -> None:
        check_vote(ask)
        if not self._both_vote(sender) or ask.term < self.term or (ask.pre and ask.term == self.term):
            self._answer_vote(sender, ask, granted=False)
            return
        if not ask.transfer and self._sticks_to_leader(now):
            # Rule 12: a live leader is not deposed by somebody who merely cannot hear it. A pre-vote
            # is answered so that the asker stops hoping; a real one must not move our term.
            if ask.pre:
                self._answer_vote(sender, ask, granted=False)
            return
        if not ask.pre and ask.term > self.term:
            self._follow(ask.term, None, now)
        current = self.log.is_current(ask.last_index, ask.last_term)
        free = ask.pre or self.vote in ("", sender)
        if current and free and (ask.pre or self.role == Role.FOLLOWER):
            if not ask.pre:
                self.vote = sender
                self._environment.touch(self.partition)
                self._stand_soon(now)
            self._answer_vote(sender, ask, granted=True)
            return
        self._answer_vote(sender, ask, granted=False)
        if not current and self.leader is None:
            # Rule 13: its log is behind ours, so it cannot win; do not wait for our turn.
            self._wake(min(self.deadline, now + self._environment.jitter(2_000)))

    def _both_vote(self, candidate: str) -> bool:
        """Rule 39: who is no voter in our log neither gives a vote nor gets one, and moves no term."""
        configuration = self.log.configuration
        voters = {*configuration.voters, *configuration.outgoing}
        return self.node_id in voters and candidate in voters

    def _sticks_to_leader(self, now: int) -> bool:
        if self.leadership is not None:
            return now < self.leadership.quorum_lasts_until(now)
        return (
            self.leader is not None
            and now - self._leader_contact_us < self._environment.config.suspicion_us
        )

    def _answer_vote(self, sender: str, ask: RequestVote, *, granted: bool) -> None:
        term = ask.term if granted else self.term
        self.durable_out.append((sender, VoteReply(self.partition, term, granted, ask.pre)))
        self._environment.touch(self.partition)

    def _enter_term(self, term: int, vote: str) -> None:
        """What was verified against an older leader says nothing about a new one (rule 5)."""
        self.term = term
        self.vote = vote
        self._led_by = None
        self._verified = 0
        # An entry that an older leader's append brought in this very turn may be truncated before it is
        # ever written: then its acknowledgement would rest on nothing (rule 1).
        self.durable_out = [(peer, m) for peer, m in self.durable_out if not _is_accepted(m)]
        self._vain_terms = min(self._vain_terms + 1, 8)

    # ------------------------------------------------------------------ following

    def _follow(self, term: int, leader: str | None, now: int) -> None:
        """Become a follower in `term`; a new term comes with a vote to give."""
        assert term >= self.term
        if term > self.term:
            self._enter_term(term, "")
        self.role = Role.FOLLOWER
        self.leader = leader
        self.leadership = None
        self._environment.touch(self.partition)
        if leader is None:
            self._stand_soon(now)
        else:
            self._led_by = leader
            self._vain_terms = 0
            self._leader_contact_us = now
            self._await_leader(now)

    def _hear_leader(self, sender: str, now: int) -> None:
        """A message or beat of the leader of the current term. A second one is not believed."""
        if self._led_by not in (None, sender):
            raise PeerNonsense(
                f"partition {self.partition}: it leads term {self.term}, which {self._led_by} led"
            )
        if self.leader != sender or self.role != Role.FOLLOWER:
            self._follow(self.term, sender, now)
            return
        self._leader_contact_us = now
        if self.deadline - now < self._environment.config.suspicion_us:
            self._await_leader(now)

    def _on_append(self, sender: str, message: Append, now: int) -> None:
        check_append(message)
        if message.term < self.term:
            # Rule 11: an old leader is told, so that it frees itself.
            self._reply_append(sender, accepted=False, index=0, hint_term=0)
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
            self._reply_append(sender, accepted=False, index=index, hint_term=term)
            return
        self._take(message.entries, prev)
        last = prev + len(message.entries)
        self._verified = max(self._verified, last)
        self._follow_commit(message.commit)
        self._reply_append(sender, accepted=True, index=last, hint_term=0)

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

    def _reply_append(self, sender: str, *, accepted: bool, index: int, hint_term: int) -> None:
        out = self.durable_out
        if accepted and out and out[-1][0] == sender:
            last = out[-1][1]
            if isinstance(last, AppendReply) and last.accepted and last.term == self.term:
                last.index = max(last.index, index)  # one answer to many messages of one turn
                return
        out.append((sender, AppendReply(self.partition, self.term, accepted, index, hint_term)))
        self._environment.touch(self.partition)

    def _on_commit_notice(self, sender: str, notice: CommitNotice, now: int) -> None:
        check_commit(notice)
        if notice.term == self.term:
            self._hear_leader(sender, now)
            self._follow_commit(notice.commit)

    def _on_timeout_now(self, sender: str, message: TimeoutNow, now: int) -> None:
        """Only who leads the term gives it away, and only to a voter."""
        if message.term == self.term and self._led_by in (None, sender) and self._both_vote(sender):
            self._stand(now, transferred=True)

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

    def can_propose(self) -> bool:
        """Leading, not handing over, and not too much uncommitted (rule 21)."""
        leadership = self.leadership
        return (
            leadership is not None
            and leadership.successor is None
            and leadership.uncommitted_bytes < self._environment.config.uncommitted_bytes_max
        )

    def propose(self, parts: tuple[Part, ...], timestamp_us: int) -> Entry:
        """Append an entry with these events; the time is raised to the partition's last if need be."""
        assert self.can_propose()
        return self._append_own(EVENTS, parts, max(timestamp_us, self.log.last_timestamp_us))

    def _append_own(self, kind: int, parts: tuple[Part, ...], timestamp_us: int) -> Entry:
        assert self.leadership is not None
        entry = make_entry(
            partition=self.partition,
            index=self.log.last_index + 1,
            term=self.term,
            kind=kind,
            first_position=self.log.next_position,
            timestamp_us=timestamp_us,
            parts=parts,
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
            progress.refused(index + 1)
            self._environment.touch(self.partition)
            return
        if progress.accepted(reply.index):
            self._environment.lane_moved(sender, now)
            self._try_commit(leadership)
        if leadership.successor == sender:
            self._tell_successor(leadership)
        if progress.next <= self.log.last_index:
            self._environment.touch(self.partition)

    def _try_commit(self, leadership: Leadership) -> None:
        commit = leadership.committable(self.durable_index)
        if commit > self.commit:
            self._vain_leaderships = 0
            leadership.committed(commit)
            self._advance_commit(commit)

    def persisted(self, term: int, index: int) -> None:
        """Our own log is durable up to `index`, an entry of `term`: nothing is said of an entry that
        took its place since (rule 2)."""
        if index > self.durable_index and self.log.term_at(index) == term:
            self.durable_index = index
            if self.leadership is not None:
                self._try_commit(self.leadership)

    def transfer(self, successor: str, now: int) -> None:
        """Hand leadership to `successor` (rule 20)."""
        leadership = self.leadership
        if leadership is not None and leadership.successor is None:
            leadership.start_transfer(successor, now)
            self._tell_successor(leadership)
            self._environment.touch(self.partition)

    def _tell_successor(self, leadership: Leadership) -> None:
        if leadership.successor is not None and leadership.successor_is_ready():
            leadership.told_successor = True
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
        if self.leadership is None:
            return []
        notices: list[tuple[str, Message]] = []
        for peer, progress in self.leadership.progress.items():
            if progress.commit_sent < self.commit and self._environment.reaches(peer):
                progress.commit_sent = self.commit
                notices.append((peer, CommitNotice(self.partition, self.term, self.commit)))
        return notices

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
        if self.term == told.term and self.role == told.role and self.leader == told.leader:
            return None
        self._told = RoleChange(self.partition, self.term, self.role, self.leader)
        return self._told

    def take_commit(self) -> int | None:
        """The commit index if it moved since the last call."""
        if self.commit == self._commit_told:
            return None
        self._commit_told = self.commit
        return self.commit


def _is_accepted(message: Message) -> bool:
    return isinstance(message, AppendReply) and message.accepted
