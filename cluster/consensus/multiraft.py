"""All the groups of one node as one machine without I/O: groups, failure detector, placement, reads.

A node has 32 groups or fewer and one of everything else: one failure detector, one registry, one
write to storage and one sync for all groups that changed in a loop turn, one frame for each peer.
That is what makes many small Raft groups cheap (RabbitMQ's Ra and CockroachDB's store liveness are the
models); this module is where the groups meet.

The shell's loop is the same few calls in order: feed what happened (messages, beats, connections,
the time, proposals, finished syncs), then take `ready()` and carry out its orders. Every input takes
`now` in microseconds of one monotonic clock. Nothing here blocks, reads a clock or draws a random
number that was not seeded.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

from allsource.cluster.consensus.balance import Balance
from allsource.cluster.consensus.environment import ConsensusConfig
from allsource.cluster.consensus.flow import SendBudget
from allsource.cluster.consensus.group import Group
from allsource.cluster.consensus.lanes import Lanes, Traffic
from allsource.cluster.consensus.log import LogReader
from allsource.cluster.consensus.messages import (
    Append,
    AppendReply,
    Beat,
    CommitNotice,
    Damage,
    Echo,
    GroupBeat,
    GroupMessage,
    Message,
    NodeMessage,
    ReadRound,
    ReadRoundReply,
    Ready,
    RequestVote,
    Role,
    RoleChange,
    TimeoutNow,
    VoteReply,
    is_of,
    size_of,
)
from allsource.cluster.consensus.questions import Questions
from allsource.cluster.consensus.reads import INCARNATION_SHIFT, ReadRounds
from allsource.cluster.consensus.sense import PeerNonsense, check_echo, check_term
from allsource.cluster.consensus.syncs import LogEnd, Syncs
from allsource.cluster.consensus.voter import NEVER
from allsource.cluster.membership.liveness import DOWN, UP, FailureDetector
from allsource.cluster.membership.registry import NodeRegistry, Readiness
from allsource.storage.model.entry import CONFIG, Configuration, Entry, NewAppend, make_entry
from allsource.storage.model.errors import Corrupt
from allsource.storage.model.log import PartitionState

__all__ = ["ConsensusConfig", "LogReader", "MultiRaft"]

OF_A_GROUP = (Append, AppendReply, CommitNotice, VoteReply, RequestVote, TimeoutNow)
"""`GroupMessage` as a tuple, which is quicker to ask about, the most frequent first."""
BOOTSTRAP_INDEX = 1
"""The entry that every replica writes alike when its log is new: the first configuration."""


class MultiRaft(Questions):
    """See the module's page. `registry` and `detector` are this node's own directed view."""

    def __init__(
        self,
        node_id: str,
        members: tuple[str, ...],
        states: Mapping[int, PartitionState],
        reader: LogReader,
        *,
        config: ConsensusConfig,
        replication_factor: int,
        partition_count: int,
        incarnation: int,
        seed: int,
        now: int,
    ) -> None:
        """`members`: all node ids of the cluster in the order of the YAML. `states`: one for every
        partition that this node hosts (placement says which). An empty log is bootstrapped with the
        configuration entry that every replica writes alike (index 1, term 0, committed). `incarnation`:
        the number of this start of the node; one that an earlier process had would make stale reads
        possible (rule 34).
        """
        self.node_id = node_id
        self.config = config
        self.registry = NodeRegistry(partition_count, replication_factor, members=members)
        self._peers = tuple(member for member in members if member != node_id)
        self.detector = FailureDetector(
            node_id,
            self._peers,
            heartbeat_us=config.heartbeat_us,
            suspicion_us=config.suspicion_us,
            now=now,
        )
        self._random = random.Random(seed)
        self._now = now
        self._deadline = now
        self._ticked = now
        self._dirty: dict[int, None] = {}
        self._out: dict[str, list[Message]] = {}
        self._syncs = Syncs()
        self._changes: list[RoleChange] = []
        """Of groups that are no longer there to tell them."""
        self._damaged: list[Damage] = []
        hosted = self.registry.hosted_by(node_id)
        self.damaged: dict[str, tuple[int, ...]] = {node_id: tuple(p for p in hosted if p not in states)}
        """By node, the partitions that it should keep and takes no part in, because its copy is damaged."""
        self._beat_due = now
        self._beat_sequence = incarnation << INCARNATION_SHIFT
        self._beats_heard: dict[str, int] = {}
        """The newest beat of each peer, by its number."""
        self._notice_due = NEVER
        self._notice_for: dict[int, None] = {}
        self._beat_now = False
        self._save_commits = False
        self._led: set[int] = set()
        self._lanes = Lanes(self._peers, config.suspicion_us, incarnation << INCARNATION_SHIFT)
        self._renew: list[str] = []
        self._budget = SendBudget(config.catch_up_bytes_per_s, now)
        self._starved: dict[int, None] = {}
        self.groups: dict[int, Group] = {}
        for partition in sorted(states):
            self.groups[partition] = Group(states[partition], reader, self, now)
        for partition, group in self.groups.items():
            if not group.log.last_index:
                self._bootstrap(group)
                self.touch(partition)
        self._balance = Balance(node_id, self.groups, self.registry, config)
        self._rounds = ReadRounds(node_id, self.groups, config.heartbeat_us, incarnation)

    def _bootstrap(self, group: Group) -> None:
        voters = tuple(sorted(self.registry.replicas_of(group.partition)))
        entry = make_entry(
            partition=group.partition,
            index=BOOTSTRAP_INDEX,
            term=0,
            kind=CONFIG,
            first_position=1,
            timestamp_us=0,
            payload=Configuration(voters).encode(),
        )
        group.bootstrap(entry)

    # ------------------------------------------------------------------ what a group may ask (Environment)

    def touch(self, partition: int) -> None:
        self._dirty[partition] = None

    def wake_at(self, when: int) -> None:
        if when < self._deadline:
            self._deadline = when

    def jitter(self, span: int) -> int:
        return self._random.randint(0, span)

    def reaches(self, peer: str) -> bool:
        return self.detector.state(peer) != DOWN

    def lane_moved(self, peer: str, now: int) -> None:
        self._lanes.moved(peer, now)

    def lane_moves(self, peer: str, now: int) -> bool:
        return self.reaches(peer) and self._lanes.moves(peer, self._inflight_bytes(peer), now)

    def lane_carries(self, peer: str, now: int) -> bool:
        if not self._lanes.awaits_echo(peer):
            return True
        return self._lanes.carries(peer, self._inflight_bytes(peer), now)

    def _inflight_bytes(self, peer: str) -> int:
        return sum([group.inflight_bytes(peer) for group in self.groups.values()])

    def may_stand(self) -> bool:
        return self._readiness is not Readiness.LEAVES and not self.detector.distrusts_itself(self._now)

    @property
    def _readiness(self) -> Readiness:
        return self.registry.readiness(self.node_id)

    def sync_us(self) -> int:
        return self._syncs.longest_us

    def rank(self, partition: int) -> int | None:
        succession = self.registry.succession(partition)
        return succession.index(self.node_id) if self.node_id in succession else None

    def may_send(self, partition: int, now: int, *, from_disk: bool) -> bool:
        opens_at = self._budget.opens_at(now, from_disk=from_disk)
        if opens_at <= now:
            return True
        self._starved[partition] = None
        self.wake_at(opens_at)
        return False

    def sent(self, size: int, *, from_disk: bool) -> None:
        self._budget.sent(size, from_disk=from_disk)

    # ------------------------------------------------------------------ inputs

    def receive(self, sender: str, messages: list[Message], now: int) -> None:
        """Messages from a peer's data connection, in order. Raises `PeerNonsense` at the first that makes
        no sense: those before it have been taken, those behind it are not."""
        self._now = now
        if self._lanes.awaits_echo(sender):
            self._lanes.received(sender, sum(map(size_of, messages)))
        for message in messages:
            if isinstance(message, OF_A_GROUP):
                group = self.groups.get(message.partition)
                if group is not None:
                    self._step(group, sender, message, now)
            else:
                self._hear_node(sender, message, now)

    def _hear_node(self, sender: str, message: NodeMessage, now: int) -> None:
        if isinstance(message, ReadRound):
            self._on_read_round(sender, message)
        elif isinstance(message, ReadRoundReply):
            if self._rounds.on_reply(sender, message, now):
                self._lanes.moved(sender, now)
        elif isinstance(message, Echo):
            self._lanes.asked(sender, message.number)
        else:
            check_echo(message, self._lanes.newest)
            if self._lanes.echoed(sender, message.number, now):
                self.registry.set_node_reached(sender, True)

    def _step(self, group: Group, sender: str, message: GroupMessage, now: int) -> None:
        try:
            group.step(sender, message, now)
        except Corrupt as error:  # a truncation reads what it makes the log's end
            self.quarantine(group.partition, error.message, now)

    def _on_read_round(self, sender: str, ask: ReadRound) -> None:
        """Confirm the groups in which we still are in the asker's term: we have voted for nobody since, so
        as far as we are concerned it still leads."""
        groups = self.groups
        agreed = [(p, term) for p, term in ask.groups if p in groups and groups[p].term == term]
        if agreed:
            self._send(sender, ReadRoundReply(ask.round, agreed))

    def receive_beat(self, sender: str, beat: Beat, now: int) -> None:
        """A heartbeat from a peer. Raises `PeerNonsense`.

        A beat that a newer one has overtaken is ignored. It may say that its sender does not lead, because
        the sender was not elected yet.
        """
        if beat.sequence <= self._beats_heard.get(sender, -1):
            return
        self._beats_heard[sender] = beat.sequence
        self._now = now
        self.detector.heard(sender, now)
        self.registry.set_node_readiness(sender, beat.readiness)
        self.damaged[sender] = beat.damaged
        self._balance.beat(sender, beat)
        self._judge(now)
        for line in beat.groups:
            self.registry.hearsay.heard(sender, line.partition, line.leader, line.term)
            group = self.groups.get(line.partition)
            if group is not None:
                group.beat(sender, line, now)
            elif not line.partition < self.registry.partition_count:
                raise PeerNonsense(f"no partition {line.partition}")
            elif line.leader == sender:
                check_term(line.term, self.registry.term_of(line.partition), line.partition)
                self.registry.record_leader(line.partition, sender, line.term)
            elif self.registry.leader_of(line.partition) == sender:
                self.registry.record_leader(line.partition, None, line.term)

    def peer_connected(self, peer: str, now: int) -> None:
        """A handshake with the peer finished (our connection to it): it is alive and hears us."""
        self._now = now
        self.detector.heard(peer, now)
        self._lanes.connected(peer, now)
        self.registry.set_node_reached(peer, True)
        self._judge(now)
        for group in self.groups.values():
            group.peer_reachable(peer, now)
        self._beat_now = True

    def peer_lost(self, peer: str, now: int) -> None:
        """EOF or reset on a connection with the peer: a hint, not a death (rule 29)."""
        self._now = now
        self.detector.lost(peer, now)
        self._judge(now)

    def peer_refused(self, peer: str, now: int) -> None:
        """A reconnect was refused: its process is gone."""
        self._now = now
        self.detector.refused(peer, now)
        self._judge(now)

    def tick(self, now: int) -> None:
        """Let time pass. Call at `next_deadline()`, and at least every heartbeat interval."""
        self._now = now
        gap = now - self._ticked
        self._ticked = now
        self._judge(now)
        if gap > self.config.suspicion_us // 2:
            self._lanes.forgive(gap, now)
            for group in self.groups.values():
                group.forgive(gap, now)
        if now < self._deadline:
            return
        if now >= self._beat_due:
            self._beat(now)
        if now >= self._notice_due:
            self._send_notices()
        if self._starved:  # before the others: who took the last turn's budget may want this one's too
            self._dirty = self._starved | self._dirty
            self._starved = {}
        for group in self.groups.values():
            group.tick(now)
        self._rounds.retry(now)
        self._deadline = min(
            self._beat_due,
            self._notice_due,
            self.detector.next_deadline(),
            min([group.deadline for group in self.groups.values()], default=NEVER),
        )

    def _beat(self, now: int) -> None:
        self._beat_now = True
        self._beat_due = now + self.config.heartbeat_us
        self._look_at_lanes(now)
        for partition, group in self.groups.items():
            if group.commit_is_unsaved:
                self.touch(partition)
        self._give_away(now)

    def _look_at_lanes(self, now: int) -> None:
        """Ask silent lanes for an echo, note which do not carry, and have those renewed."""
        for peer in self._peers:
            if not self.reaches(peer):
                continue
            self._lanes.ask(peer, now)
            carries = self.lane_carries(peer, now)
            self.registry.set_node_reached(peer, carries)
            if not carries and self._lanes.renewal_due(peer, now):
                self._renew.append(peer)

    def lanes_in_doubt(self) -> list[str]:
        """The peers of whose data connections the core wants to know more: see `lane_traffic`."""
        return list(self._lanes.in_doubt())

    def lane_traffic(self, peer: str, traffic: Traffic, now: int) -> None:
        """What the data connection to a peer tells of itself."""
        self._lanes.traffic(peer, traffic, now)

    def _send_notices(self) -> None:
        self._notice_due = NEVER
        for partition in self._notice_for:
            for peer, notice in self.groups[partition].take_notices():
                self._send(peer, notice)
        self._notice_for.clear()

    def persisted(self, number: int, now: int) -> None:
        """A sync that began after write `number` has returned (so all lower numbers are durable)."""
        self._now = now
        for held in self._syncs.persisted(number, now):
            for peer, message in held.messages:
                if peer == self.node_id and isinstance(message, VoteReply):  # a sole voter's vote
                    self.groups[message.partition].step(peer, message, now)
                elif not self._is_outlived(message):
                    self._send(peer, message)
            for partition, term, index in held.ends:
                self.groups[partition].persisted(term, index, now)

    def _is_outlived(self, message: Message) -> bool:
        """Whether the message acknowledges entries of a leader whose term ended here while it waited for
        the sync. The write that was synced with the entries may also have truncated them, and then the
        acknowledgement rests on nothing (rules 1 and 2). `Voter._enter_term` drops those that were not
        taken from the group yet.
        """
        return (
            isinstance(message, AppendReply)
            and message.accepted
            and message.term < self.groups[message.partition].term
        )

    def propose(self, partition: int, appends: Sequence[NewAppend], timestamp_us: int) -> Entry:
        """Append an entry at this node, which must lead the partition (`can_propose`). The appends were
        decided by the caller, one after the other, over a log that includes what is not committed.
        How much shares an entry is the caller's to bound: it travels in one piece (rule 21).
        The returned entry's `(term, index)` is the key of the pending answers, with each append's number
        in the entry."""
        return self.groups[partition].propose(appends, timestamp_us)

    def can_propose(self, partition: int) -> bool:
        """Leader, not handing leadership over, and uncommitted bytes below the limit."""
        group = self.groups.get(partition)
        return group is not None and group.can_propose()

    def read(self, partition: int, ticket: object, min_index: int, now: int) -> None:
        """Ask for a linearizable read at the leader. `ReadResult(ticket, ...)` comes in a later Ready,
        not before everything up to `min_index` (0 for none) is committed too, unless the log ends before
        it (see `ReadResult`). Not leader: `ok` False."""
        self._now = now
        self._rounds.ask(partition, ticket, min_index)

    def hand_over(self, now: int) -> bool:
        """Shutting down: move every leadership to a caught-up peer. True when none is left here (or
        none can be moved); call again after further Readys. Once called, this node no longer campaigns."""
        self._now = now
        self._set_readiness(Readiness.LEAVES)
        self._give_away(now)
        led = [group.leadership for group in self.groups.values() if group.leadership is not None]
        return all(leadership.successor is None for leadership in led)

    def yield_leadership(self, yields: bool, now: int) -> None:
        """Lead only where no other healthy replica can, until told otherwise (rule 24). The others hear
        it with the next beat, and what is led here moves with it, as any partition does to its owner."""
        self._now = now
        if self._readiness is not Readiness.LEAVES:
            self._set_readiness(Readiness.YIELDS if yields else Readiness.WILLING)

    def _set_readiness(self, readiness: Readiness) -> None:
        if readiness is not self._readiness:
            self.registry.set_node_readiness(self.node_id, readiness)
            self._beat_now = True
            self._beat_due = self._now
            self.wake_at(self._now)

    def quarantine(self, partition: int, reason: str, now: int) -> None:
        """A record of this node's copy of the partition is damaged: take no part in it any more (rule 17).

        From now on this node treats the partition as one that it does not keep: it gives no vote, no
        acknowledgement and no read, and its beats have no line for it. If it leads, it steps down at once
        and tells the follower that has most of the log to stand. Messages that were about to go out for
        the partition are dropped. Nothing happens if it is not kept here, or was given up before.
        """
        group = self.groups.pop(partition, None)
        if group is None:
            return
        self._now = now
        self._drop_messages_of(partition)
        if group.leadership is not None:
            heir = self._balance.heir(group.leadership, partition)
            if heir is not None:
                self._send(heir, TimeoutNow(partition, group.term))
        change = RoleChange(partition, group.term, Role.FOLLOWER, None)
        self._changes.append(change)
        self._role_changed(change)
        self._damaged.append(Damage(partition, reason))
        self.damaged[self.node_id] = tuple(sorted((*self.damaged[self.node_id], partition)))
        self._beat_now = True

    def _drop_messages_of(self, partition: int) -> None:
        self._dirty.pop(partition, None)
        self._notice_for.pop(partition, None)
        self._starved.pop(partition, None)
        for peer, messages in self._out.items():
            self._out[peer] = [m for m in messages if not is_of(m, partition)]
        self._syncs.forget(partition)

    # ------------------------------------------------------------------ liveness and placement

    def _judge(self, now: int) -> None:
        """Let the detector speak, and the registry and the groups hear it."""
        changes = self.detector.tick(now)
        for peer in self._peers:  # first the registry: the groups ask it for their rank
            self.registry.set_node_health(peer, self.reaches(peer))
        for peer, state in changes:
            if state == DOWN:
                self._balance.peer_down(peer)
                self._lanes.forget_echoes(peer)
                self.registry.set_node_reached(peer, True)
                for group in self.groups.values():
                    group.leader_down(peer, now)
            elif state == UP:
                self._balance.peer_up(peer, now)
                for group in self.groups.values():
                    group.peer_reachable(peer, now)
        self.wake_at(self.detector.next_deadline())

    def _give_away(self, now: int) -> None:
        """Hand each partition over that another node should lead by now (`balance` says which)."""
        for partition, group in self.groups.items():
            successor = self._balance.successor(group, now)
            if successor is not None:
                self._balance.given(partition, now)
                group.transfer(successor, now)

    def save_commits(self) -> None:
        """Have the next `ready` store every commit index that storage does not know yet."""
        for partition, group in self.groups.items():
            if group.commit_is_unsaved:
                self._save_commits = True
                self.touch(partition)

    # ------------------------------------------------------------------ outputs

    def ready(self) -> Ready | None:
        """The orders since the last call, None if there are none. Ends a batch: see `Ready`."""
        ready = Ready()
        now = self._now
        if self._dirty:
            dirty, self._dirty = self._dirty, {}
            with_commit = self._beat_now or self._save_commits
            self._save_commits = False
            held: list[tuple[str, Message]] = []
            ends: list[LogEnd] = []
            for partition in dirty:
                try:
                    self._collect(self.groups[partition], ready, held, ends, with_commit=with_commit)
                except Corrupt as error:  # a follower needs what cannot be read here
                    self.quarantine(partition, error.message, now)
            if ready.writes:
                ready.number = self._syncs.written(ready.writes)
            if held or ends:
                self._syncs.hold(held, ends, now)
        for peer, question in self._rounds.begin(now):
            if self.reaches(peer):  # one that is down has nothing to wait in
                self._send(peer, question)
        ready.reads = self._rounds.take_results()
        if self._changes or self._damaged:
            ready.changes += self._changes
            ready.damaged = self._damaged
            self._changes, self._damaged = [], []
        if self._beat_now:
            self._beat_now = False
            ready.beats = self._make_beats()
        for peer, echo in self._lanes.take_echoes():
            self._send(peer, echo)
        if self._renew:
            ready.renew, self._renew = self._renew, []
        if self._out:
            ready.send, self._out = self._out, {}
        if ready.writes or ready.send or ready.beats or ready.changes or ready.committed or ready.reads:
            return ready
        return ready if ready.damaged or ready.renew else None

    def _collect(
        self,
        group: Group,
        ready: Ready,
        held: list[tuple[str, Message]],
        ends: list[LogEnd],
        *,
        with_commit: bool,
    ) -> None:
        partition = group.partition
        change = group.take_change()
        if change is not None:
            ready.changes.append(change)
            self._role_changed(change)
        for peer, message in group.take_messages(self._now):
            self._send(peer, message)
        write = group.take_write(with_commit=with_commit)
        if write is not None:
            ready.writes.append(write)
            if write.entries:
                last = write.entries[-1]
                ends.append(LogEnd(partition, last.term, last.index))
        if group.durable_out:
            durable, group.durable_out = group.durable_out, []
            if write is not None or self._syncs.is_awaited(partition):
                held += durable
            else:
                for peer, message in durable:
                    self._send(peer, message)
        commit = group.take_commit()
        if commit is not None:
            ready.committed.append((partition, commit))
            self._rounds.committed(partition)
            if group.leadership is not None:
                self._notice_for[partition] = None
                if self._notice_due == NEVER:
                    self._notice_due = self._now + self.config.notice_us
                    self.wake_at(self._notice_due)

    def _role_changed(self, change: RoleChange) -> None:
        self._rounds.lost(change.partition)
        self.registry.record_leader(change.partition, change.leader, change.term)
        leads = change.role is Role.LEADER
        if leads != (change.partition in self._led):
            # Everybody learns at once where to go, and whom to follow no more.
            self._beat_now = True
            (self._led.add if leads else self._led.discard)(change.partition)
            if leads:
                self._balance.leads(change.partition, self._now)

    def _send(self, peer: str, message: Message) -> None:
        self._out.setdefault(peer, []).append(message)

    def _make_beats(self) -> dict[str, Beat]:
        self._beat_sequence += 1
        hears = tuple([peer for peer in self._peers if self.reaches(peer)])
        may_stand = self.may_stand()
        lines = [self._line(group, may_stand) for group in self.groups.values()]
        damaged = self.damaged[self.node_id]
        readiness = self._readiness
        leaving, yields = readiness is Readiness.LEAVES, readiness is Readiness.YIELDS
        beat = Beat(self._beat_sequence, lines, leaving, yields, hears, damaged)
        return dict.fromkeys(self._peers, beat)

    def _line(self, group: Group, may_stand: bool) -> GroupBeat:
        return GroupBeat(
            group.partition,
            group.term,
            group.leader or "",
            group.commit,
            group.log.last_index,
            may_stand and self._balance.wants(group, self._now),
        )

    def next_deadline(self) -> int:
        """When `tick` has something to do, at the latest."""
        return self._deadline
