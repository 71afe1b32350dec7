"""Builds a member from its parts; it has to be started.

One circle is closed here: a driver works for a member, and the member's paths ask the driver for turns. So
the driver has the member made.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from structlog.typing import FilteringBoundLogger

from allsource.cluster.budgets.turns import Turns
from allsource.cluster.consensus.multiraft import ConsensusConfig, MultiRaft
from allsource.cluster.membership.clocks import ClusterClock
from allsource.cluster.membership.placement import hosted_by, replica_sets
from allsource.cluster.membership.router import RequestRouter
from allsource.cluster.protocol.acquaintance import LogEnd
from allsource.cluster.shell.replica import Links
from allsource.config.schema import Settings
from allsource.node.member.damage import DamagedPartitions
from allsource.node.member.driver import Driver
from allsource.node.member.member import Member
from allsource.node.member.watch import ClockWatch, DiskWatch, PeerWatch, Rounds
from allsource.node.observe.leadership import LeadershipNews
from allsource.node.observe.measures import Measures
from allsource.node.requests.entries import RecentEntries
from allsource.node.requests.faults import Faults
from allsource.node.requests.forwarding import Forwarding, Peers
from allsource.node.requests.ingest import Ingest
from allsource.node.requests.pages import Pages
from allsource.node.requests.parking import Parking
from allsource.node.requests.queue import LockFreeEventQueue
from allsource.node.requests.reads import Reads
from allsource.node.requests.service import Service
from allsource.node.requests.tickets import Ticket
from allsource.storage.interface import Storage
from allsource.storage.model.log import PartitionState

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


class Clocks(NamedTuple):
    """What a member takes the time from."""

    steady: Callable[[], int]
    """Microseconds of CLOCK_BOOTTIME."""
    wall: Callable[[], int]
    """Microseconds since 1970."""


class Ground(NamedTuple):
    """What a member stands on."""

    settings: Settings
    node_id: str
    storage: Storage
    network: PeerNetwork
    queue: LockFreeEventQueue[Ticket]
    describe: Callable[[], dict[str, Any]]
    """What `GET /v1/cluster` shows."""
    measures: Measures
    log: FilteringBoundLogger
    loop: asyncio.AbstractEventLoop
    clocks: Clocks
    seed: int
    """For the core's randomised timeouts."""

    def turns(self, budget_us: int) -> Turns:
        """A budget for each turn of the loop."""
        return Turns(self.loop.call_soon, self.clocks.steady, budget_us)


def build_member(ground: Ground) -> Member:
    """A member, which has to be started."""
    settings, storage, clocks, log = ground.settings, ground.storage, ground.clocks, ground.log
    damage = DamagedPartitions(storage, hosted_partitions(settings, ground.node_id))
    states = damage.states()
    core = _build_core(ground, states)
    cluster_clock = ClusterClock()

    def work(driver: Driver[Member]) -> Member:
        entries = RecentEntries(storage)
        pages = Pages(storage, entries, settings.limits)
        service, ingest = _build_requests(ground, driver, entries, pages, cluster_clock)
        disk = DiskWatch(storage, core, driver.yield_leadership, clocks.steady, log)
        clock = ClockWatch(cluster_clock, clocks.steady, clocks.wall, log)
        return Member(
            driver,
            service,
            ingest,
            pages,
            damage,
            log_ends=log_ends_of(states),
            promises_last=settings.durability == "fsync",
            peers=PeerWatch(core, ground.network.renew, ground.measures, log),
            rounds=Rounds((disk.look, clock.look), settings.heartbeat_interval_ms / 1000, ground.loop),
            news=LeadershipNews(log.info, ground.loop.call_later),
            cluster_clock=cluster_clock,
            clock=clocks.steady,
            measures=ground.measures,
            log=log,
        )

    driver = Driver(
        core,
        storage,
        ground.network,
        states,
        loop=ground.loop,
        clock=clocks.steady,
        suspicion_us=settings.suspicion_timeout_ms * 1000,
        work=work,
        sync_inline=storage.sync_is_short,
        wall_us=clocks.wall,
    )
    return driver.work


def _build_core(ground: Ground, states: Mapping[int, PartitionState]) -> MultiRaft:
    settings = ground.settings
    return MultiRaft(
        ground.node_id,
        tuple(node.id for node in settings.nodes),
        states,
        ground.storage,
        config=ConsensusConfig(
            heartbeat_us=settings.heartbeat_interval_ms * 1000,
            suspicion_us=settings.suspicion_timeout_ms * 1000,
            uncommitted_bytes_max=settings.limits.uncommitted_bytes_max,
        ),
        replication_factor=settings.replication_factor,
        partition_count=settings.partitions,
        incarnation=ground.storage.identity.incarnation,
        seed=ground.seed,
        now=ground.clocks.steady(),
    )


def _build_requests(
    ground: Ground,
    driver: Driver[Member],
    entries: RecentEntries,
    pages: Pages,
    cluster_clock: ClusterClock,
) -> tuple[Service, Ingest]:
    """The way of a request through this node: service, write path, reads."""
    settings, measures, clocks = ground.settings, ground.measures, ground.clocks
    faults = Faults(ground.log, measures, clocks.steady)
    router = RequestRouter(
        driver.replica.registry,
        ground.node_id,
        leads=driver.is_leader,
        hosts=driver.hosts,
        hands_over=driver.is_handing_over,
    )
    parking = Parking(driver.leader_of, measures, min(settings.limits.queue_capacity, PARKED_MAX))
    forwarding = Forwarding(ground.network, router, measures, clocks.steady, parking.retry)
    ingest = Ingest(
        driver,
        ground.storage,
        entries,
        ground.queue,
        settings.limits,
        measures,
        retry=parking.retry,
        now_us=clocks.steady,
        wall_us=lambda: cluster_clock.time(clocks.wall(), clocks.steady()),
        turns=ground.turns(ANSWERS_US),
        on_fault=faults.met,
    )
    reads = Reads(
        driver,
        pages,
        measures,
        retry=parking.retry,
        now_us=clocks.steady,
        turns=ground.turns(READS_US),
        on_fault=faults.met,
    )
    service = Service(
        router,
        ingest,
        reads,
        forwarding,
        parking,
        loop=ground.loop,
        now_us=clocks.steady,
        partition_count=settings.partitions,
        describe=ground.describe,
        measures=measures,
        turns=ground.turns(AGAIN_US),
        under_way_max=max(settings.limits.queue_capacity, UNDER_WAY_MAX),
        held_bytes_max=settings.limits.held_bytes_max,
    )
    return service, ingest


def hosted_partitions(settings: Settings, node_id: str) -> Sequence[int]:
    """The partitions that a node keeps."""
    members = tuple(node.id for node in settings.nodes)
    return hosted_by(node_id, replica_sets(members, settings.partitions, settings.replication_factor))


def log_ends_of(states: Mapping[int, PartitionState]) -> list[LogEnd]:
    """How far logs went when they were opened."""
    return [LogEnd(p, state.hard.term, state.last_index) for p, state in states.items()]
