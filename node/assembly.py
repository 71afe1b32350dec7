"""Builds a node from its parts. Nothing begins here: no task, no socket, no turn.

What is built is whole: each part gets what it needs when it is made. One circle is closed here: a member
sends on the links, and the links tell when this node may become a member. So the listener of the links is
given a way to have a member made.
"""

from __future__ import annotations

import asyncio
import os
import random
import resource
import socket
import time
from typing import NamedTuple

from aiohttp import web
from structlog.typing import FilteringBoundLogger

from allsource.cluster.budgets.descriptors import caps_for
from allsource.cluster.protocol.handshake import AcceptorConfig, DiallerConfig
from allsource.cluster.protocol.handshake_frames import WireLimits
from allsource.cluster.protocol.kinds import PEER
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
from allsource.node.member.assembly import Clocks, Ground, build_member, hosted_partitions, log_ends_of
from allsource.node.member.damage import DamagedPartitions
from allsource.node.observe.measures import Measures
from allsource.node.observe.metrics import LockFreeMetrics
from allsource.node.observe.prometheus import render
from allsource.node.part import Part
from allsource.node.requests.faults import Faults, Nonsense
from allsource.node.requests.queue import LockFreeEventQueue
from allsource.node.requests.tickets import Ticket
from allsource.node.wire.door import WireDoor
from allsource.storage.interface import Storage
from allsource.storage.model.identity import Identity
from allsource.storage.open import open_storage


def clock_us() -> int:
    """Microseconds that never go back and go on while the machine sleeps (RULES.md rule 19)."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000


def wall_us() -> int:
    """Microseconds since 1970, for the events' timestamps alone."""
    return time.time_ns() // 1000


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
    http = HttpServer(
        _http_app(settings, node_id, storage, part, metrics, measures),
        me.host,
        me.http_port,
        limits=DoorLimits(caps.http, settings.limits.held_bytes_max),
    )
    return Parts(storage, server, http, encounters, links, part)


def _http_app(
    settings: Settings,
    node_id: str,
    storage: Storage,
    part: Part,
    metrics: LockFreeMetrics,
    measures: Measures,
) -> web.Application:
    limits = settings.limits
    checkpoints = Checkpoints(
        storage,
        node_id,
        settings.node(node_id).data_dir,
        lambda: part.now.save_commits(),
        limits.checkpoints_max,
    )
    # The names under which a browser may ask us.
    hosts = Hosts(
        [*(node.host for node in settings.nodes), socket.gethostname(), *settings.http.allowed_hosts]
    )
    return make_app(
        part,
        limits=limits,
        metrics_render=lambda: render(metrics, part.view),
        readiness=part.waits_for,
        answered=measures.http_answered,
        checkpoints=checkpoints,
        partitions=settings.partitions,
        hosts=hosts,
    )


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
