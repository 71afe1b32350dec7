"""Who leads one partition's group, as one of its voters sees it: terms, votes and roles (Raft §5.2).

With pre-vote (Ongaro's thesis §9.6), leadership transfer (§3.10) and CheckQuorum (§6.2), but without
heartbeats of its own: the node's beats carry one line for each group, and the node's failure detector says
when a leader's node is gone (`leader_down`). What a leader does with the log, and a follower, is `group`'s.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from allsource.cluster.consensus.ballot import Ballot
from allsource.cluster.consensus.candidacy import Candidacy
from allsource.cluster.consensus.environment import Environment
from allsource.cluster.consensus.leadership import Leadership
from allsource.cluster.consensus.log import LogReader, RaftLog
from allsource.cluster.consensus.messages import (
    AppendReply,
    Message,
    RequestVote,
    Role,
    TimeoutNow,
    VoteReply,
)
from allsource.cluster.consensus.sense import PeerNonsense, check_vote
from allsource.storage.model.log import PartitionState

NEVER = 1 << 62


class Voter(ABC):
    """See the module's page. What it says rests on its term and its vote, so all of it goes out through
    `durable_out` (rule 1)."""

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
        self.deadline = now
        """When time has something to do here."""
        self.durable_out: list[tuple[str, Message]] = []
        """What is held back until the write that it rests on is synced."""
        self._environment = environment
        self._candidacy = Candidacy(self.partition, environment)
        self._ballot = Ballot(self.node_id)
        self._transferred = False
        self._led_by: str | None = None
        """Who led, or leads, the present term, as far as this process knows. Nobody else does in it."""
        self._leader_contact_us = 0
        self._verified = 0
        """Up to where the log is known to equal that of the present term's leader (rule 5)."""
        self._stand_soon(now)

    @abstractmethod
    def _lead(self, now: int) -> None:
        """The election is won: take office."""

    # ------------------------------------------------------------------ time and the registry's word

    def lets_others_lead(self, now: int) -> bool:
        """Whether this node led lately and could not replicate: it does not want to be given the group."""
        return self.lets_others_lead_for(now) > 0

    def lets_others_lead_for(self, now: int) -> int:
        """For how many microseconds more; 0 if it does not."""
        return self._candidacy.lets_others_lead_for(now)

    def _tick_follower(self, now: int) -> None:
        if now < self._candidacy.may_stand_us:
            self._wake(self._candidacy.may_stand_us)
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
        self._candidacy.peer_reachable(now)
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
        self._wake(self._candidacy.if_leader_falls_silent(now))

    def _stand_soon(self, now: int) -> None:
        self._wake(self._candidacy.soon(now))

    def _stand_by_rank(self, now: int) -> None:
        self._wake(self._candidacy.by_rank(self.deadline, now))

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
        self._ballot = Ballot(self.node_id)
        self._environment.touch(self.partition)
        self._stand_soon(now)
        pre = self.role is Role.PRECANDIDATE
        if self._ballot.is_won(self.log.configuration):
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
        if self.role is not standing or (reply.granted and reply.term != asked):
            return
        if sender != self.node_id:
            self._environment.lane_moved(sender, now)
        self._ballot.cast(sender, granted=reply.granted)
        if self._ballot.is_won(self.log.configuration):
            self._won(now)
        elif self._ballot.is_lost(self.log.configuration):
            self.role = Role.FOLLOWER
            self._environment.touch(self.partition)

    def _won(self, now: int) -> None:
        if self.role is Role.PRECANDIDATE:
            self._stand_for_real(now)
        else:
            self._lead(now)

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
        if current and free and (ask.pre or self.role is Role.FOLLOWER):
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
        self._candidacy.term_began()

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
            self._candidacy.leader_found()
            self._leader_contact_us = now
            self._await_leader(now)

    def _hear_leader(self, sender: str, now: int) -> None:
        """A message or beat of the leader of the current term. A second one is not believed."""
        if self._led_by not in (None, sender):
            raise PeerNonsense(
                f"partition {self.partition}: it leads term {self.term}, which {self._led_by} led"
            )
        if self.leader != sender or self.role is not Role.FOLLOWER:
            self._follow(self.term, sender, now)
            return
        self._leader_contact_us = now
        if self.deadline - now < self._environment.config.suspicion_us:
            self._await_leader(now)

    def _on_timeout_now(self, sender: str, message: TimeoutNow, now: int) -> None:
        """Only who leads the term gives it away, and only to a voter."""
        if message.term == self.term and self._led_by in (None, sender) and self._both_vote(sender):
            self._stand(now, transferred=True)


def _is_accepted(message: Message) -> bool:
    return isinstance(message, AppendReply) and message.accepted
