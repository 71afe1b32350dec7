"""A node that takes part: the core, its shell, the write path, the reads and the service, connected.

It is also where outcomes fan out (`cluster.shell.replica.Owner`): each reaches the paths that wait for it,
the log, and the metrics. No socket and no file is opened here, so a whole cluster of members can run
inside one test, over a storage and links of the test's own.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol

from structlog.typing import FilteringBoundLogger

from allsource.cluster.budgets.turns import Turns
from allsource.cluster.consensus.messages import Beat, Message, Role, RoleChange
from allsource.cluster.consensus.multiraft import ConsensusConfig, MultiRaft
from allsource.cluster.membership.clocks import DIFFERENCE_MAX_US, ClusterClock
from allsource.cluster.membership.placement import hosted_by, replica_sets
from allsource.cluster.membership.router import RequestRouter
from allsource.cluster.protocol.acquaintance import LogEnd
from allsource.cluster.protocol.requests import Request, Result
from allsource.cluster.shell.replica import EXIT_BROKEN, EXIT_SYNC_FAILED, Links, Replica
from allsource.config.schema import Settings
from allsource.node.damage import ADVICE, DamagedPartitions
from allsource.node.ending import EXIT_STORAGE, end_process
from allsource.node.observe.leadership import LeadershipNews
from allsource.node.observe.measures import Measures
from allsource.node.observe.reminder import Reminder
from allsource.node.requests.faults import Faults
from allsource.node.requests.ingest import Ingest
from allsource.node.requests.pages import Pages
from allsource.node.requests.queue import LockFreeEventQueue
from allsource.node.requests.reads import Reads
from allsource.node.requests.service import Peers, Service
from allsource.node.requests.tickets import Source, Ticket
from allsource.node.view import View
from allsource.storage.interface import Storage
from allsource.storage.model.errors import AllsourceError, Corrupt, DiskFull, DiskRanFull

_LEAVING_STEP_S = 0.005
_ROOM_US = 10_000_000
"""How long a disk that was nearly full must have had room until its node leads again: leaderships should
not follow every file that comes and goes."""

_DAMAGED_AT_LARGE = (
    "this node ends at once: its database met damage and takes no write any more. Start it again: it then "
    "looks through all that it stores, and goes on without the partitions that are damaged"
)
PARKED_MAX = 8192
"""Requests that may wait for an owner at once. All of them are sent on in one loop turn when it is
known, which must not take so long that the node looks dead."""


UNDER_WAY_MAX = 65_536
"""Requests without an answer, unless the queue may hold more: what an election, a lost link or a commit
sets free at once must be no more than the loop can deal with between two beats."""
READS_US = 10_000
"""About how long the reads of one loop turn may take, storage and encoding (rule 37)."""
ANSWERS_US = 20_000
"""The same for answers to what was committed: 64 MiB of small appends may be committed at once."""
AGAIN_US = 5_000
"""The same for requests that are routed anew."""


class PeerNetwork(Links, Peers, Protocol):
    """The part of `PeerLinks` that a member sends on."""

    def renew(self, peer: str) -> None:
        """The peer is silent: dial it afresh. Of no effect on what is being dialled anyway."""


class Member:
    """See the module's page."""

    def __init__(
        self,
        settings: Settings,
        node_id: str,
        storage: Storage,
        network: PeerNetwork,
        view: View,
        queue: LockFreeEventQueue[Ticket],
        measures: Measures,
        log: FilteringBoundLogger,
        *,
        loop: asyncio.AbstractEventLoop,
        clock: Callable[[], int],
        wall_us: Callable[[], int],
        seed: int,
    ) -> None:
        """`clock`: microseconds of CLOCK_BOOTTIME; `wall_us`: microseconds since 1970, for the
        events' timestamps; `seed`: for the core's randomised timeouts."""
        self._log = log
        self._measures = measures
        self._news = LeadershipNews(lambda *what, **facts: self._log.info(*what, **facts), loop.call_later)
        members = tuple(node.id for node in settings.nodes)
        groups = replica_sets(members, settings.partitions, settings.replication_factor)
        self.damage = DamagedPartitions(storage, hosted_by(node_id, groups))
        states = self.damage.states()
        self.log_ends = [LogEnd(p, state.hard.term, state.last_index) for p, state in states.items()]
        """How far the logs went when they were opened, durably."""
        self.core = MultiRaft(
            node_id,
            members,
            states,
            storage,
            config=ConsensusConfig(
                heartbeat_us=settings.heartbeat_interval_ms * 1000,
                suspicion_us=settings.suspicion_timeout_ms * 1000,
                uncommitted_bytes_max=settings.limits.uncommitted_bytes_max,
            ),
            replication_factor=settings.replication_factor,
            partition_count=settings.partitions,
            incarnation=storage.identity.incarnation,
            seed=seed,
            now=clock(),
        )
        self.replica = Replica(
            self.core,
            storage,
            network,
            states,
            loop=loop,
            clock=clock,
            suspicion_us=settings.suspicion_timeout_ms * 1000,
            sync_inline=storage.sync_is_short,
            wall_us=wall_us,
        )
        self._cluster_clock = ClusterClock()
        self._wall_us = wall_us
        self._clock_differs = Reminder(clock)
        self.service = Service(
            self.replica,
            RequestRouter(self.core.registry, node_id),
            network,
            loop=loop,
            now_us=clock,
            partition_count=settings.partitions,
            parked_max=min(settings.limits.queue_capacity, PARKED_MAX),
            describe=view.describe,
            measures=measures,
            turns=Turns(loop.call_soon, clock, AGAIN_US),
            under_way_max=max(settings.limits.queue_capacity, UNDER_WAY_MAX),
            held_bytes_max=settings.limits.held_bytes_max,
        )
        faults = Faults(log, measures, clock)
        self.ingest = Ingest(
            self.replica,
            storage,
            queue,
            settings.limits,
            measures,
            retry=self.service.retry,
            now_us=clock,
            wall_us=lambda: self._cluster_clock.time(wall_us(), clock()),
            turns=Turns(loop.call_soon, clock, ANSWERS_US),
            on_fault=faults.met,
        )
        pages = Pages(storage, settings.limits)
        reads = Reads(
            self.replica,
            pages,
            measures,
            retry=self.service.retry,
            now_us=clock,
            turns=Turns(loop.call_soon, clock, READS_US),
            on_fault=faults.met,
        )
        self.service.connect(self.ingest, reads)
        self.replica.owner = self
        view.join(self.replica, pages, self.damage.found)
        self._network = network
        self._storage = storage
        self._clock = clock
        self._loop = loop
        self._look_every_s = settings.heartbeat_interval_ms / 1000
        self._disk_timer: asyncio.TimerHandle | None = None
        self._full_at = 0
        self._stuck = Reminder(clock)
        self._told_stuck = False
        self._states: dict[str, str] = {}
        self._led: set[int] = set()
        self.pump = self.ingest.pump
        self.read_ended = self.service.read_ended
        self.committed = self.service.committed

    # -- life

    def start(self) -> None:
        """Take part from now on."""
        for partition, reason in self.damage.found.items():
            self._log.error("a partition is damaged: " + ADVICE, partition=partition, found=reason)
        self.replica.start()
        self._watch_disk()

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
            if self.replica.hand_over() and not self.service.under_way():
                return
            await asyncio.sleep(_LEAVING_STEP_S)

    def stop(self) -> None:
        """The end: answer what is left, and let the sync thread finish."""
        if self._disk_timer is not None:
            self._disk_timer.cancel()
        self.service.close()
        self.replica.stop()
        self._news.tell()

    # -- from the transport

    def submit(
        self,
        request: Request,
        *,
        timeout_ms: int,
        forwarded: bool,
        reply: Callable[[Result | AllsourceError], None],
        source: Source | None = None,
    ) -> None:
        """A request from a door; see `Service.submit`."""
        self.service.submit(request, timeout_ms=timeout_ms, forwarded=forwarded, reply=reply, source=source)

    def messages(self, peer: str, messages: list[Message]) -> None:
        """Consensus messages from a peer."""
        self.replica.messages(peer, messages)

    def beat(self, peer: str, beat: Beat) -> None:
        """A peer's heartbeat."""
        self.replica.beat(peer, beat)
        if beat.wall_us:
            self._cluster_clock.heard(peer, beat.wall_us, self._clock())
        self._measures.beat_received()
        self._look_at_peers()

    def connected(self, peer: str, incarnation: int) -> None:
        """The peer is reached."""
        self.core.registry.record_incarnation(peer, incarnation)
        self.replica.connected(peer)
        self._look_at_peers()

    def lost(self, peer: str) -> None:
        """A connection with the peer broke."""
        self.replica.lost(peer)
        self._look_at_peers()

    def refused(self, peer: str) -> None:
        """The peer's address refuses connections."""
        self.replica.refused(peer)
        self._look_at_peers()

    # -- from the replica (`cluster.shell.replica.Owner`); `pump`, `read_ended`, `committed` are bound above

    def changed(self, change: RoleChange) -> None:
        """A group's role, term or leader changed: first whoever waits, then the log (rule 31)."""
        self.service.changed(change)
        self._tell_leadership(change)

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

    def damaged(self, partition: int, reason: str) -> None:
        """A record of the partition is damaged: this node takes no part in it any more (rule 17)."""
        self.service.damaged(partition)
        with suppress(DiskFull):  # then the next start has to find it again
            self.damage.add(partition, reason)
        self._measures.failed()
        self._log.error("a partition is damaged: " + ADVICE, partition=partition, found=reason)

    def beats_sent(self, n: int) -> None:
        """Heartbeats went out."""
        self._measures.beats_sent(n)
        self._look_at_peers()

    def synced(self, took_us: int) -> None:
        """A sync returned."""
        self._measures.synced(took_us)

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
        if isinstance(error, DiskRanFull):
            self._ran_full(error)
        try:
            self._log.critical(
                "the disk failed to sync; this process ends at once, since nothing it holds can be trusted "
                "to be stored. Check the disk, then start the node again",
                error=repr(error),
            )
        finally:
            os._exit(EXIT_SYNC_FAILED)

    def broken(self, error: Exception) -> None:
        """An assertion of ours failed, or the storage did: go no further."""
        if isinstance(error, DiskRanFull):
            self._ran_full(error)
        if isinstance(error, Corrupt):
            end_process(EXIT_STORAGE, lambda: self._log.critical(_DAMAGED_AT_LARGE, found=error.message))
        try:
            self._log.critical(
                "this node found its own state wrong and ends at once, before it does harm; `allsource "
                "verify` checks its data, and the others go on without it",
                exc_info=error,
            )
        finally:
            os._exit(EXIT_BROKEN)

    def _ran_full(self, error: DiskRanFull) -> None:
        end_process(
            EXIT_STORAGE,
            lambda: self._log.critical("this node ends at once: its disk ran full", reason=error.message),
        )

    def _watch_disk(self) -> None:
        """For ever, and not with the beats: a single node sends none, nor does one that cannot write."""
        try:
            self._look_at_disk()
            self._look_at_clock()
        finally:
            self._disk_timer = self._loop.call_later(self._look_every_s, self._watch_disk)

    def _look_at_disk(self) -> None:
        """Have others lead while appends are refused here for want of room (rule 24)."""
        refusal, now = self._storage.pressure(), self._clock()
        yields = self.core.registry.yields(self.core.node_id)
        if refusal is not None and refusal.error is DiskFull:
            self._full_at = now
            if not yields:
                self.replica.yield_leadership(True)
                self._log.warning(
                    "leads no partition that another node can lead, until there is room",
                    reason=refusal.reason,
                )
        elif yields and now - self._full_at >= _ROOM_US:
            self.replica.yield_leadership(False)
            self._log.info("there is room again: leads as before")

    def _look_at_clock(self) -> None:
        """Tell people when this node's clock is not the cluster's."""
        difference_us = self._cluster_clock.difference(self._wall_us(), self._clock())
        if abs(difference_us) > DIFFERENCE_MAX_US and self._clock_differs.holds():
            self._log.warning(
                "this node's clock is not the cluster's; set it right: events that it takes are dated by "
                "the median of the nodes' clocks",
                ahead_s=round(difference_us / 1e6, 1),
            )

    def _look_at_peers(self) -> None:
        """Log and count changes of the failure detector's word."""
        for node in self.core.registry.all_nodes():
            if node.id == self.core.node_id:
                continue
            state = self.core.detector.state(node.id)
            before = self._states.get(node.id)
            if state != before:
                self._states[node.id] = state
                if state == "down":
                    self._network.renew(node.id)
                if before is None and state == "suspect":
                    continue  # it was never heard of yet: no news
                if before is not None and state != "up":
                    self._measures.suspected(state)
                level: Any = self._log.info if state == "up" else self._log.warning
                level("peer is " + state, peer=node.id)
