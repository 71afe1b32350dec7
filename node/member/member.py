"""A member: a node that takes part. It acts on what its replica's turns bring.

What comes of a turn reaches the paths that wait for it first, then the disk's memory of damage, then the
metrics and the log (rule 31). `assembly` builds a member from its parts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress

from structlog.typing import FilteringBoundLogger

from allsource.cluster.consensus.messages import Beat, Role, RoleChange
from allsource.cluster.membership.clocks import ClusterClock
from allsource.cluster.protocol.acquaintance import LogEnd
from allsource.cluster.shell.replica import Outcome
from allsource.node.member.damage import ADVICE, DamagedPartitions
from allsource.node.member.driver import Driver
from allsource.node.member.ending import end_for_broken_state, end_for_failed_sync
from allsource.node.member.watch import PeerWatch, Rounds
from allsource.node.observe.leadership import LeadershipNews
from allsource.node.observe.measures import Measures
from allsource.node.observe.reminder import Reminder
from allsource.node.requests.ingest import Ingest
from allsource.node.requests.pages import Pages
from allsource.node.requests.service import Service
from allsource.storage.model.errors import DiskFull

_LEAVING_STEP_S = 0.005


class Member:
    """See the module's page. It is its driver's `Work`."""

    def __init__(
        self,
        driver: Driver[Member],
        service: Service,
        ingest: Ingest,
        pages: Pages,
        damage: DamagedPartitions,
        *,
        log_ends: Sequence[LogEnd],
        promises_last: bool,
        peers: PeerWatch,
        rounds: Rounds,
        news: LeadershipNews,
        cluster_clock: ClusterClock,
        clock: Callable[[], int],
        measures: Measures,
        log: FilteringBoundLogger,
    ) -> None:
        """`log_ends`: how far the logs went, durably, when they were opened. `promises_last`: what was
        acknowledged survives a power cut (`durability: fsync`). `clock`: microseconds of CLOCK_BOOTTIME."""
        self.driver = driver
        self.replica = driver.replica
        self.core = driver.replica.core
        self.service = service
        self.ingest = ingest
        self.pages = pages
        self.damage = damage
        self._log_ends = log_ends
        self._promises_last = promises_last
        self._peers = peers
        self._rounds = rounds
        self._news = news
        self._cluster_clock = cluster_clock
        self._clock = clock
        self._measures = measures
        self._log = log
        self._stuck = Reminder(clock)
        self._told_stuck = False
        self._led: set[int] = set()
        self.submit = service.submit
        self.eased = service.eased
        self.messages = driver.messages
        self.save_commits = driver.save_commits
        self.pump = ingest.pump
        self.synced = measures.synced

    # -- life

    def start(self) -> None:
        """Take part from now on."""
        for partition, reason in self.damage.found.items():
            self._log.error("a partition is damaged: " + ADVICE, partition=partition, found=reason)
        self.driver.start()
        self._rounds.start()

    async def leave(self, timeout_s: float) -> None:
        """Stop taking requests, finish those that were taken, and give every leadership away; all of
        it within `timeout_s`, as far as it can be done."""
        self.service.close_intake()
        loop = asyncio.get_running_loop()
        end = loop.time() + timeout_s
        # Looking now and then costs less than every answer telling us: this happens once.
        while self.ingest.under_way() and loop.time() < end - timeout_s / 2:  # noqa: ASYNC110
            await asyncio.sleep(_LEAVING_STEP_S)
        while loop.time() < end:
            if self.driver.hand_over() and not self.service.under_way():
                return
            await asyncio.sleep(_LEAVING_STEP_S)

    def stop(self) -> None:
        """The end: answer what is left, and let the sync thread finish."""
        self._rounds.stop()
        self.service.close()
        self.driver.stop()
        self._news.tell()

    # -- what handshakes rest on

    def log_ends(self) -> Sequence[LogEnd]:
        """How far the logs went, durably, when they were opened."""
        return self._log_ends

    def acknowledged_by(self, peer: str) -> Sequence[LogEnd]:
        """What a peer's replica may not have lost. With `durability: os` a power cut may shorten a log,
        with the operator's consent: nothing is held against it."""
        return [LogEnd(*end) for end in self.core.acknowledged_by(peer)] if self._promises_last else ()

    # -- from the transport (consensus messages go to the driver at once)

    def beat(self, peer: str, beat: Beat) -> None:
        """A peer's heartbeat."""
        self.driver.beat(peer, beat)
        if beat.wall_us:
            self._cluster_clock.heard(peer, beat.wall_us, self._clock())
        self._measures.beat_received()
        self._peers.look()

    def connected(self, peer: str, incarnation: int) -> None:
        """The peer is reached."""
        self.core.registry.record_incarnation(peer, incarnation)
        self.driver.connected(peer)
        self._peers.look()

    def lost(self, peer: str) -> None:
        """A connection with the peer broke."""
        self.driver.lost(peer)
        self._peers.look()

    def refused(self, peer: str) -> None:
        """The peer's address refuses connections."""
        self.driver.refused(peer)
        self._peers.look()

    # -- from the driver (`driver.Work`)

    def act(self, outcome: Outcome) -> None:
        """First whoever waits, then what must be remembered, then counters and the log (rule 31)."""
        changes, committed, reads, damaged, beats, sync_us = outcome
        service = self.service
        for change in changes:
            service.changed(change)
        for partition, commit in committed:
            service.committed(partition, commit)
        for result in reads:
            service.read_ended(result)
        for partition, _ in damaged:
            service.damaged(partition)
        for partition, reason in damaged:
            self._remember_damage(partition, reason)
        for change in changes:
            self._tell_leadership(change)
        if beats:
            self._measures.beats_sent(beats)
            self._peers.look()
        if sync_us is not None:
            self._measures.synced(sync_us)

    def _remember_damage(self, partition: int, reason: str) -> None:
        with suppress(DiskFull):  # then the next start has to find it again
            self.damage.add(partition, reason)
        self._measures.failed()
        self._log.error("a partition is damaged: " + ADVICE, partition=partition, found=reason)

    def _tell_leadership(self, change: RoleChange) -> None:
        if change.role == Role.LEADER:
            self._led.add(change.partition)
            self._measures.leadership("gained")
            self._news.changed(change.partition, change.term, gained=True)
        elif change.partition in self._led:
            self._led.discard(change.partition)
            self._measures.leadership("lost")
            self._news.changed(change.partition, change.term, gained=False)
        elif change.role == Role.FOLLOWER and change.leader is not None:
            self._log.debug("follows", partition=change.partition, term=change.term, leader=change.leader)

    def stuck(self, error: DiskFull | None) -> None:
        """The disk is full, or no longer."""
        if error is None:
            if self._told_stuck:
                self._told_stuck = False
                self._log.info("the log is written again")
        elif self._stuck.holds():
            self._told_stuck = True
            self._measures.failed()
            self._log.error("the log cannot be written; this node waits for room", reason=error.message)

    def sync_failed(self, error: BaseException) -> None:
        """RULES.md rule 16: a failed sync is never retried."""
        end_for_failed_sync(self._log, error)

    def broken(self, error: Exception) -> None:
        """An assertion of ours failed, or the storage did: go no further."""
        end_for_broken_state(self._log, error)
