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
import resource
import shlex
import signal
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import uvloop
from structlog.typing import FilteringBoundLogger

from allsource.cluster.budgets.descriptors import wanted
from allsource.config.exposure import is_open_to_others
from allsource.config.promise import promise_of
from allsource.config.schema import Settings
from allsource.node.assembly import Parts, build_node, open_node_storage
from allsource.node.member.damage import DamagedPartitions, Suspect
from allsource.node.member.ending import EXIT_STORAGE
from allsource.node.observe.logging import node_log
from allsource.storage.interface import Storage
from allsource.storage.model.errors import AllsourceError, DiskFull, StorageFault
from allsource.storage.model.printable import printable_lines

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
    """The story: open, listen, join, serve, wait; and undo it."""
    signals = _Signals(asyncio.get_running_loop())
    try:
        node = await start_node(settings, node_id, log)
    except (StorageFault, DiskFull) as error:
        return _refuse(node_id, error.message, EXIT_STORAGE)
    except AllsourceError as error:
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


class Node:
    """A node that serves, as `start_node` made it; `stop` undoes that."""

    def __init__(self, parts: Parts, undo: AsyncExitStack) -> None:
        self.parts = parts
        self._undo = undo

    async def leave(self, timeout_s: float) -> None:
        """Give up every leadership and finish what is under way; new requests are refused."""
        await self.parts.part.now.leave(timeout_s)

    async def stop(self) -> None:
        """Undo the boot, last first; `leave` before it is what makes it gentle."""
        await self._undo.aclose()


async def start_node(settings: Settings, node_id: str, log: FilteringBoundLogger) -> Node:
    """Boot. Raises `AllsourceError` with one clear sentence, and has then undone what it did."""
    async with AsyncExitStack() as undo:
        # Open. The data directory comes first: it is locked, it says who we are, and a node that cannot
        # remember anything may promise nothing to anybody.
        storage = open_node_storage(settings, node_id)
        undo.callback(storage.close)
        # Look for damage now, while nobody waits for us: it may take a while, and is seldom needed.
        _look_for_damage(storage, settings, log)
        parts = build_node(settings, node_id, storage, log)
        undo.callback(lambda: parts.part.now.stop())  # a member that begins while we hang up, too
        # Listen before we take part, so that probes can say what we wait for; and before we dial, so that
        # the others can find us at their first attempt.
        await parts.server.start()
        undo.push_async_callback(parts.server.close)
        await parts.http.start()
        undo.push_async_callback(parts.http.stop)
        _say_what_storage_promises(settings, node_id, log)
        # Join. Only a node that has met everybody once, and that nobody takes for an older copy, may vote
        # (`formation`); any other becomes a member when its peers have accepted it.
        parts.encounters.join()
        parts.links.start()
        undo.push_async_callback(parts.links.close)
        # Stop the member before we hang up: a peer whose connection ends then is not suspect.
        undo.callback(lambda: parts.part.now.stop())
        me = settings.node(node_id)
        log.info("listening", host=me.host, port=me.port, http_port=me.http_port)
        return Node(parts, undo.pop_all())


def _raise_descriptors() -> None:
    """May open as many files as the system allows without asking anybody
    (`cluster.budgets.descriptors`)."""
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


def _look_for_damage(storage: Storage, settings: Settings, log: FilteringBoundLogger) -> None:
    """See whether what was damaged is whole now, and where the database has met new damage, find it."""
    damage = DamagedPartitions(storage, range(settings.partitions))
    for partition in damage.verify_again():
        log.warning("a partition was damaged and is whole now: takes part in it", partition=partition)
    if isinstance(storage, Suspect) and storage.is_suspect and not damage.found:
        log.warning("a damaged block was met: looking through everything that is stored")
        damage.search()
        if not damage.found:
            storage.clear_suspicion()


def _say_what_storage_promises(settings: Settings, node_id: str, log: FilteringBoundLogger) -> None:
    promise = promise_of(settings)
    say = log.warning if promise.is_less else log.info
    place = _place(settings, node_id)
    say(
        "storage is open",
        backend=settings.storage.backend,
        **({"data_dir": place} if place else {}),
        durability=promise.durability,
        means=promise.meaning,
    )
    if place and is_open_to_others(Path(place)):
        log.warning(
            "other users of this machine can enter the data directory",
            run=f"chmod -R go-rwx {shlex.quote(place)}",
        )


def _place(settings: Settings, node_id: str) -> str:
    """Where on this machine the events are, in full: a relative path has misled people."""
    if not settings.storage.traits.in_data_dir:
        return ""
    return str(settings.node(node_id).data_dir.resolve())


class _Signals:
    """Requests to stop: the first one stops the node in order, a second one hurries it."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.stop = asyncio.Event()
        self.hurry = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._arrived)

    def _arrived(self) -> None:
        (self.hurry if self.stop.is_set() else self.stop).set()
