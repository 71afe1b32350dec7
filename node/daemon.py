"""A node's life in one process: boot and shutdown, each to be read as a story.

Exit statuses of `run_node`::

    0    stopped in order, by SIGTERM or SIGINT
    1    the settings do not allow it to start (no such node)
    73   the data directory cannot be used as it is (EX_CANTCREAT): at the start, or when a peer shows that
         it is an older copy, or when its disk is full; the message says what to do
    69   an address cannot be listened on (EX_UNAVAILABLE)
    70   the node found its own state wrong and ended at once (EX_SOFTWARE); not for a damaged record, which
         costs its partition alone (`damage`; RULES.md rule 17)
    74   a sync failed and the process ended at once (EX_IOERR; rule 16)

Whatever prevents a start is one line on standard error, never a traceback.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import os
import random
import resource
import shlex
import signal
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path

import uvloop
from aiohttp import web
from structlog.typing import FilteringBoundLogger

from allsource.cluster.membership.placement import hosted_by, replica_sets
from allsource.cluster.protocol.acquaintance import REGRESSED, LogEnd
from allsource.cluster.protocol.frames import ProtocolError
from allsource.cluster.protocol.handshake import AcceptorConfig, DiallerConfig, Welcome
from allsource.cluster.protocol.handshake_frames import WireLimits
from allsource.cluster.protocol.kinds import PEER
from allsource.cluster.transport.peers import PeerLinks
from allsource.cluster.transport.server import Server
from allsource.config.exposure import is_open_to_others
from allsource.config.promise import promise_of
from allsource.config.schema import Settings
from allsource.node.acquaintances import Acquaintances
from allsource.node.checkpoints import Checkpoints
from allsource.node.damage import DamagedPartitions, Suspect
from allsource.node.ending import EXIT_STORAGE
from allsource.node.formation import Formation
from allsource.node.front import Front
from allsource.node.http.app import make_app
from allsource.node.http.door import DoorLimits
from allsource.node.http.guards import Hosts
from allsource.node.http.server import HttpServer
from allsource.node.limits import caps_for, wanted
from allsource.node.member import Member
from allsource.node.observe.logging import node_log
from allsource.node.observe.measures import Measures
from allsource.node.observe.metrics import LockFreeMetrics
from allsource.node.observe.prometheus import render
from allsource.node.requests.faults import Faults, Nonsense
from allsource.node.requests.queue import LockFreeEventQueue
from allsource.node.requests.tickets import Ticket
from allsource.node.view import View
from allsource.node.wire.door import WireDoor
from allsource.storage.interface import Storage
from allsource.storage.model.errors import AllsourceError, DiskFull, StorageFault
from allsource.storage.model.identity import Identity
from allsource.storage.model.printable import printable_lines
from allsource.storage.open import open_storage

EXIT_OK, EXIT_SETTINGS, EXIT_LISTEN = 0, 1, 69

LEAVE_TIMEOUT_S = 2.0
"""How long a node that stops may take to give its leaderships away and answer what is under way."""

SWITCH_INTERVAL_S = 0.0005
"""How long the sync thread waits for the interpreter when its sync is done. Python's default of 5 ms
would be ten times the sync itself, and would stand in every commit of a busy node."""


def run_node(settings: Settings, node_id: str, *, warnings: Sequence[str] = ()) -> int:
    """Run one node until SIGTERM or SIGINT; the exit status as above. `warnings`: what to log first."""
    with node_log(settings.log, node_id) as log:
        try:
            settings.node(node_id)
        except LookupError as error:
            return _refuse(node_id, str(error), EXIT_SETTINGS)
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        _raise_descriptors()
        for sentence in warnings:
            log.warning(sentence)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(_live(settings, node_id, log))


async def _live(settings: Settings, node_id: str, log: FilteringBoundLogger) -> int:
    signals = _Signals(asyncio.get_running_loop())
    node = Node(settings, node_id, log)
    try:
        await node.start()
    except (StorageFault, DiskFull) as error:
        await node.stop()
        return _refuse(node_id, error.message, EXIT_STORAGE)
    except AllsourceError as error:
        await node.stop()
        return _refuse(node_id, error.message, EXIT_LISTEN)
    _settle_memory()
    await signals.stop.wait()
    log.info("stopping")
    leaving = asyncio.create_task(node.leave(LEAVE_TIMEOUT_S))
    hurried = asyncio.create_task(signals.hurry.wait())
    await asyncio.wait((leaving, hurried), return_when=asyncio.FIRST_COMPLETED)
    leaving.cancel()
    hurried.cancel()
    await asyncio.wait((leaving, hurried))
    await node.stop()
    log.info("stopped")
    return EXIT_OK


def _raise_descriptors() -> None:
    """May open as many files as the system allows without asking anybody (`node.limits`)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):  # then the caps are worked out from what there is
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted(soft, hard, resource.RLIM_INFINITY), hard))


def _refuse(node_id: str, message: str, status: int) -> int:
    print(f"allsource: {node_id}: {printable_lines(message)}", file=sys.stderr)
    return status


LARGE_BYTES = 1 << 20
"""Memory for anything larger (bodies, pages) is asked of the system by itself, and given back when it is
free. glibc's own threshold grows with what was freed, up to 32 MiB: a few large bodies, and the heap keeps
the holes that they leave (mallopt(3))."""
_M_MMAP_THRESHOLD = -3


def _settle_memory() -> None:
    """What boot made stays for ever: take it out of the collector's sight. And collect the young less
    often: requests make objects by the thousand, hardly any in cycles, and each full collection would
    be a pause of milliseconds."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    with contextlib.suppress(OSError, AttributeError):  # another C library than glibc has no such knob
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, LARGE_BYTES)


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


class _Signals:
    """Requests to stop: the first one stops the node in order, a second one hurries it."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.stop = asyncio.Event()
        self.hurry = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._arrived)

    def _arrived(self) -> None:
        (self.hurry if self.stop.is_set() else self.stop).set()


def clock_us() -> int:
    """Microseconds that never go back and go on while the machine sleeps (RULES.md rule 19)."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000


def wall_us() -> int:
    """Microseconds since 1970, for the events' timestamps alone."""
    return time.time_ns() // 1000


class Node:
    """One node: everything it owns, in the order in which it comes to life."""

    def __init__(self, settings: Settings, node_id: str, log: FilteringBoundLogger) -> None:
        self.settings = settings
        self.node_id = node_id
        self.metrics = LockFreeMetrics()
        self._measures = Measures(self.metrics)
        self.member: Member | None = None
        self._log = log
        self._storage: Storage | None = None
        self._undo: list[Callable[[], Awaitable[None]]] = []
        self._connected: dict[str, Welcome] = {}
        self._complaints: dict[str, str] = {}

    # -- the story

    async def start(self) -> None:
        """Boot. Raises `AllsourceError` with one clear sentence; call `stop` also then."""
        settings, me = self.settings, self.settings.node(self.node_id)
        caps = caps_for(resource.getrlimit(resource.RLIMIT_NOFILE)[0], len(settings.nodes))
        # The data directory comes first: it is locked, it says who we are, and nothing may be promised
        # to anybody by a node that cannot remember it.
        storage = self._storage = open_node_storage(settings, self.node_id)
        self._formation = Formation(
            storage,
            self.node_id,
            [node.id for node in settings.nodes],
            settings.partitions,
            settings.replication_factor,
            incarnation=storage.identity.incarnation,
        )
        self._acquaintances = Acquaintances(
            self._formation,
            self._log,
            log_ends=self._log_ends,
            acknowledged_by=self._acknowledged_by,
            takes_part=lambda: self.member is not None,
        )
        self._look_for_damage(storage)
        self._queue: LockFreeEventQueue[Ticket] = LockFreeEventQueue(settings.limits.queue_capacity)
        self._view = View(settings, self.node_id, storage, self._queue)
        self._front = Front(self._view, self._formation.missing, self._complaints)
        # The doors open before we take part, so that probes can say what we wait for; and we listen
        # before we dial, so that the others can find us at their first attempt.
        self._door = WireDoor(self._front)
        self.links = PeerLinks(
            self._addresses(),
            self._dialler(storage.identity),
            self,
            jitter=random.random,
            # A fresh connection must be tried a few times in a suspicion time, not once.
            connect_timeout_s=min(max(0.25, 0.6 * settings.suspicion_timeout_ms / 1000), 2.0),
        )
        self.server = Server(
            self._door,
            self._acceptor(storage.identity),
            me.host,
            me.port,
            # Who dials us is there: do not wait out the pause between our own attempts.
            on_peer=lambda hello, again: self.links.nudge(hello.node_id, again=again),
            held_bytes_max=self.settings.limits.held_bytes_max,
            connections_max=caps.clients,
            strangers_max=caps.strangers,
            on_fault=Faults(self._log, self._measures, clock_us).met,
            on_refusal=self._acquaintances.refused_by,
            on_nonsense=Nonsense(self._log, self._measures, clock_us).heard,
        )
        await self.server.start()
        self._undo.append(self.server.close)
        door = DoorLimits(caps.http, settings.limits.held_bytes_max)
        self.http = HttpServer(self._http_app(), me.host, me.http_port, limits=door)
        await self.http.start()
        self._undo.append(self.http.stop)
        self._say_what_storage_promises()
        # Only a node that has met everybody once, and that nobody takes for an older copy, may vote
        # (formation.py).
        if self._formation.may_take_part:
            self._take_part()
        elif doubts := self._formation.doubts():
            self._complaints.update((peer, f"{REGRESSED}: {why}") for peer, why in doubts.items())
            self._log.error(
                "takes no part until its peers accept it: its data directory is an older copy, they found",
                doubts=dict(doubts),
            )
        else:
            self._log.info(
                "first start of this cluster: meeting the others", missing=self._formation.missing()
            )
        self.links.start()
        self._undo.append(self.links.close)
        self._log.info("listening", host=me.host, port=me.port, http_port=me.http_port)

    def _look_for_damage(self, storage: Storage) -> None:
        """Before anything else, while nobody waits for us: it may take a while, and is seldom needed."""
        damage = DamagedPartitions(storage, range(self.settings.partitions))
        for partition in damage.verify_again():
            self._log.warning(
                "a partition was damaged and is whole now: takes part in it", partition=partition
            )
        if isinstance(storage, Suspect) and storage.is_suspect and not damage.found:
            self._log.warning("a damaged block was met: looking through everything that is stored")
            damage.search()
            if not damage.found:
                storage.clear_suspicion()

    def _say_what_storage_promises(self) -> None:
        promise = promise_of(self.settings)
        say = self._log.warning if promise.is_less else self._log.info
        place = self._place()
        say(
            "storage is open",
            backend=self.settings.storage.backend,
            **({"data_dir": place} if place else {}),
            durability=promise.durability,
            means=promise.meaning,
        )
        if place and is_open_to_others(Path(place)):
            self._log.warning(
                "other users of this machine can enter the data directory",
                run=f"chmod -R go-rwx {shlex.quote(place)}",
            )

    def _place(self) -> str:
        """Where on this machine the events are, in full: a relative path has misled people."""
        if not self.settings.storage.traits.in_data_dir:
            return ""
        return str(self.settings.node(self.node_id).data_dir.resolve())

    def _take_part(self) -> None:
        assert self._storage is not None
        self.member = Member(
            self.settings,
            self.node_id,
            self._storage,
            self.links,
            self._view,
            self._queue,
            self._measures,
            self._log,
            loop=asyncio.get_running_loop(),
            clock=clock_us,
            wall_us=wall_us,
            seed=int.from_bytes(os.urandom(8), "big"),
        )
        self._front.open(self.member.submit)
        self._door.member = self.member
        self.member.start()
        for peer, welcome in self._connected.items():
            self.member.connected(peer, _incarnation(welcome))
        self._log.info("takes part", partitions=len(self.member.core.groups))

    async def leave(self, timeout_s: float) -> None:
        """Give up every leadership and finish what is under way; new requests are refused."""
        if self.member is not None:
            await self.member.leave(timeout_s)

    async def stop(self) -> None:
        """Undo the boot, last first; `leave` before it is what makes it gentle."""
        if self.member is not None:
            self.member.service.close()
            self._door.member = None  # whose connection ends now is not suspect: we hang up
        while self._undo:
            await self._undo.pop()()
        if self.member is not None:
            self.member.stop()
            self.member = None
        if self._storage is not None:
            self._storage.close()
            self._storage = None

    # -- its parts

    def _addresses(self) -> dict[str, tuple[str, int]]:
        return {node.id: (node.host, node.port) for node in self.settings.nodes}

    def _acceptor(self, identity: Identity) -> AcceptorConfig:
        limits = self.settings.limits
        return AcceptorConfig(
            self.settings.secret,
            self.settings.client_secret,
            identity,
            self._addresses(),
            self.settings.partitions,
            WireLimits(
                limits.frame_bytes_max,
                limits.event_bytes_max,
                limits.append_bytes_max,
                limits.append_events_max,
            ),
            self._acquaintances,
        )

    def _dialler(self, identity: Identity) -> DiallerConfig:
        return DiallerConfig(self.settings.secret, identity, PEER, memory=self._acquaintances)

    # -- what handshakes rest on

    def _log_ends(self) -> list[LogEnd]:
        """How far our logs went when this process opened them."""
        if self.member is not None:
            return self.member.log_ends
        assert self._storage is not None
        members = tuple(node.id for node in self.settings.nodes)
        groups = replica_sets(members, self.settings.partitions, self.settings.replication_factor)
        states = DamagedPartitions(self._storage, hosted_by(self.node_id, groups)).states()
        return [LogEnd(p, state.hard.term, state.last_index) for p, state in states.items()]

    def _acknowledged_by(self, peer: str) -> list[LogEnd]:
        """What a peer's replica may not have lost. With `durability: os` a power cut may shorten a log,
        with the operator's consent: nothing is held against it."""
        if self.member is None or self.settings.durability != "fsync":
            return []
        return [LogEnd(*end) for end in self.member.core.acknowledged_by(peer)]

    def _http_app(self) -> web.Application:
        return make_app(
            self._front,
            limits=self.settings.limits,
            metrics_render=lambda: render(self.metrics, self._view),
            readiness=self._front.waits_for,
            answered=self._measures.http_answered,
            checkpoints=self._checkpoints(),
            partitions=self.settings.partitions,
            hosts=self._hosts(),
        )

    def _hosts(self) -> Hosts:
        """The names under which a browser may ask us."""
        ours = [node.host for node in self.settings.nodes]
        return Hosts([*ours, socket.gethostname(), *self.settings.http.allowed_hosts])

    def _checkpoints(self) -> Checkpoints:
        assert self._storage is not None
        data_dir = self.settings.node(self.node_id).data_dir
        most = self.settings.limits.checkpoints_max
        return Checkpoints(self._storage, self.node_id, data_dir, self._save_commits, most)

    def _save_commits(self) -> None:
        if self.member is not None:  # else nothing was acknowledged yet
            self.member.replica.save_commits()

    # -- what the links tell

    def connected(self, peer: str, welcome: Welcome) -> None:
        """Both our connections to a peer have finished their handshakes."""
        self._connected[peer] = welcome
        self._complaints.pop(peer, None)
        self._view.met(peer, _incarnation(welcome))
        if self._acquaintances.greeted(peer):
            self._take_part()
            self._log.info("met all members, and is doubted by none")
        elif self.member is not None:
            self.member.connected(peer, _incarnation(welcome))

    def lost(self, peer: str) -> None:
        """A connection with a peer broke."""
        self._connected.pop(peer, None)
        if self.member is not None:
            self.member.lost(peer)

    def refused(self, peer: str, error: Exception) -> None:
        """A peer cannot be reached, or will not have us."""
        if isinstance(error, ProtocolError) and error.by_peer:
            self._acquaintances.refused_by(peer, error)
        if self.member is not None:
            self.member.refused(peer)
        if isinstance(error, ProtocolError) and self._complaints.get(peer) != str(error):
            self._complaints[peer] = str(error)
            self._log.error("no agreement with a peer", peer=peer, reason=str(error))
            forgets = not self.settings.storage.traits.survives_restart
            if error.code == "identity_changed" and self.member is None and forgets:
                self._log.error(
                    "this node has forgotten what it held in memory, and its peers do not take it back: "
                    "leave it stopped while they go on, or stop all nodes and begin with an empty cluster"
                )


def _incarnation(welcome: Welcome) -> int:
    assert welcome.start is not None, "peers say which start they are"
    return welcome.start.incarnation
