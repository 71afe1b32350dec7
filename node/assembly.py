"""Builds a node and a member from their parts. Nothing begins here: no task, no socket, no turn.

What is built is whole: each part gets what it needs when it is made. Two circles are closed here, and only
here. The member needs the links, which tell what makes a member, so the links are given a way to have one
made. And a driver needs the work that asks it for turns, so it has the work made.
"""

from __future__ import annotations

import asyncio
import os
import random
import resource
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from structlog.typing import FilteringBoundLogger

from allsource.cluster.budgets.descriptors import caps_for
from allsource.cluster.budgets.turns import Turns
from allsource.cluster.consensus.multiraft import ConsensusConfig, MultiRaft
from allsource.cluster.membership.clocks import ClusterClock
from allsource.cluster.membership.placement import hosted_by, replica_sets
from allsource.cluster.membership.router import RequestRouter
from allsource.cluster.protocol.acquaintance import LogEnd
from allsource.cluster.protocol.handshake import AcceptorConfig, DiallerConfig
from allsource.cluster.protocol.handshake_frames import WireLimits
from allsource.cluster.protocol.kinds import PEER
from allsource.cluster.shell.replica import Links
from allsource.cluster.transport.peers import PeerLinks
from allsource.cluster.transport.server import Server
from allsource.config.schema import Settings
from allsource.node.checkpoints import Checkpoints
from allsource.node.formation.acquaintances import Acquaintances
from allsource.node.formation.encounters import Encounters
from allsource.node.formation.formation import Formation
from allsource.node.http.app import make_app
from allsource.node.http.door import DoorLimits
from allsource.node.http.guards import Hosts
from allsource.node.http.server import HttpServer
from allsource.node.member.damage import DamagedPartitions
from allsource.node.member.driver import Driver
from allsource.node.member.member import Member
from allsource.node.member.watch import ClockWatch, DiskWatch, PeerWatch, Rounds
from allsource.node.observe.leadership import LeadershipNews
from allsource.node.observe.measures import Measures
from allsource.node.observe.metrics import LockFreeMetrics
from allsource.node.observe.prometheus import render
from allsource.node.part import Part
from allsource.node.requests.faults import Faults, Nonsense
from allsource.node.requests.forwarding import Forwarding, Peers
from allsource.node.requests.ingest import Ingest
from allsource.node.requests.pages import Pages
from allsource.node.requests.parking import Parking
from allsource.node.requests.queue import LockFreeEventQueue
from allsource.node.requests.reads import Reads
from allsource.node.requests.service import Service
from allsource.node.requests.tickets import Ticket
from allsource.node.wire.door import WireDoor
from allsource.storage.interface import Storage
from allsource.storage.model.identity import Identity
from allsource.storage.model.log import PartitionState
from allsource.storage.open import open_storage

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


def clock_us() -> int:
    """Microseconds that never go back and go on while the machine sleeps (RULES.md rule 19)."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000


def wall_us() -> int:
    """Microseconds since 1970, for the events' timestamps alone."""
    return time.time_ns() // 1000


# -- a member


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
        pages = Pages(storage, settings.limits)
        service, ingest = _build_requests(ground, driver, pages, cluster_clock)
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
            news=LeadershipNews(lambda *what, **facts: log.info(*what, **facts), ground.loop.call_later),
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
    ground: Ground, driver: Driver[Member], pages: Pages, cluster_clock: ClusterClock
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


# -- a node


class Parts(NamedTuple):
    """A node's parts, in the order in which they come to life."""

    storage: Storage
    server: Server
    http: HttpServer
    encounters: Encounters
    links: PeerLinks
    part: Part


def build_node(settings: Settings, node_id: str, storage: Storage, log: FilteringBoundLogger) -> Parts:
    """A node over the storage that was opened for it. Raises `StorageFault` if its data directory was
    formed as part of another membership, `TooFewDescriptors` if this process may open too few files."""
    loop, clocks = asyncio.get_running_loop(), Clocks(clock_us, wall_us)
    metrics = LockFreeMetrics()
    measures = Measures(metrics)
    queue: LockFreeEventQueue[Ticket] = LockFreeEventQueue(settings.limits.queue_capacity)
    formation = Formation(
        storage,
        node_id,
        [node.id for node in settings.nodes],
        settings.partitions,
        settings.replication_factor,
        incarnation=storage.identity.incarnation,
    )
    part = Part(
        settings,
        node_id,
        storage,
        queue,
        missing=formation.missing,
        log_ends=lambda: log_ends_of(
            DamagedPartitions(storage, hosted_partitions(settings, node_id)).states()
        ),
    )
    acquaintances = Acquaintances(
        formation,
        log,
        log_ends=lambda: part.now.log_ends(),
        acknowledged_by=lambda peer: part.now.acknowledged_by(peer),
        takes_part=lambda: part.member is not None,
    )
    encounters = Encounters(
        formation,
        acquaintances,
        part,
        lambda: build_member(
            Ground(
                settings,
                node_id,
                storage,
                links,
                queue,
                part.view.describe,
                measures,
                log,
                loop,
                clocks,
                seed=int.from_bytes(os.urandom(8), "big"),
            )
        ),
        log,
        forgets=not settings.storage.traits.survives_restart,
    )
    links = _build_links(settings, storage.identity, acquaintances, encounters)
    caps = caps_for(resource.getrlimit(resource.RLIMIT_NOFILE)[0], len(settings.nodes))
    me = settings.node(node_id)
    server = Server(
        WireDoor(part),
        _acceptor(settings, storage.identity, acquaintances),
        me.host,
        me.port,
        # A peer that dials us is there: do not wait out the pause between our own attempts.
        on_peer=lambda hello, again: links.nudge(hello.node_id, again=again),
        held_bytes_max=settings.limits.held_bytes_max,
        connections_max=caps.clients,
        strangers_max=caps.strangers,
        on_fault=Faults(log, measures, clocks.steady).met,
        on_refusal=acquaintances.refused_by,
        on_nonsense=Nonsense(log, measures, clocks.steady).heard,
    )
    app = make_app(
        part,
        limits=settings.limits,
        metrics_render=lambda: render(metrics, part.view),
        readiness=part.waits_for,
        answered=measures.http_answered,
        checkpoints=Checkpoints(
            storage,
            node_id,
            me.data_dir,
            lambda: part.now.save_commits(),
            settings.limits.checkpoints_max,
        ),
        partitions=settings.partitions,
        # The names under which a browser may ask us.
        hosts=Hosts(
            [*(node.host for node in settings.nodes), socket.gethostname(), *settings.http.allowed_hosts]
        ),
    )
    http = HttpServer(
        app, me.host, me.http_port, limits=DoorLimits(caps.http, settings.limits.held_bytes_max)
    )
    return Parts(storage, server, http, encounters, links, part)


def _addresses(settings: Settings) -> dict[str, tuple[str, int]]:
    return {node.id: (node.host, node.port) for node in settings.nodes}


def _acceptor(settings: Settings, identity: Identity, memory: Acquaintances) -> AcceptorConfig:
    limits = settings.limits
    return AcceptorConfig(
        settings.secret,
        settings.client_secret,
        identity,
        _addresses(settings),
        settings.partitions,
        WireLimits(
            limits.frame_bytes_max,
            limits.event_bytes_max,
            limits.append_bytes_max,
            limits.append_events_max,
        ),
        memory,
    )


def _build_links(
    settings: Settings, identity: Identity, memory: Acquaintances, encounters: Encounters
) -> PeerLinks:
    return PeerLinks(
        _addresses(settings),
        DiallerConfig(settings.secret, identity, PEER, memory=memory),
        encounters,
        jitter=random.random,
        # A fresh connection must be tried a few times in a suspicion time, not once.
        connect_timeout_s=min(max(0.25, 0.6 * settings.suspicion_timeout_ms / 1000), 2.0),
    )


def open_node_storage(settings: Settings, node_id: str) -> Storage:
    """The storage of a node of this cluster; raises `StorageFault` or `DiskFull` with what to do."""
    return open_storage(
        backend=settings.storage.backend,
        data_dir=settings.node(node_id).data_dir,
        cluster_id=settings.cluster_id,
        node_id=node_id,
        partitions=settings.partitions,
        durability=settings.durability,
        disk_free_bytes_min=settings.limits.disk_free_bytes_min,
        write_buffer_bytes=settings.storage.write_buffer_bytes,
        block_cache_bytes=settings.storage.block_cache_bytes,
        background_jobs=settings.storage.background_jobs,
        dsn=settings.storage.dsn,
    )
