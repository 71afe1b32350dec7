"""Starting the nodes of a file, watching them, starting them again, and stopping them in order.

Each child has one task that tends it for as long as the launch lives: start it, pass on what it
says, note how it ended, and with `restart` begin again after a growing wait, until it has failed
`FAILURES_MAX` times in a row: what it says about a taken port or a damaged directory will be the same the
next time. What happens is told to a `Display`; the supervisor itself prints nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from allsource.node.cli.control.picture import ClusterPicture
from allsource.node.cli.control.processes import NodeProcess, kill_all, stop_all, until
from allsource.node.cli.launch.overview import ChildState

STOP_GRACE_S = 15.0
"""A node gives its leaderships away before it leaves; after this long it is killed."""

_BACKOFF_FIRST_S, _BACKOFF_MAX_S = 0.5, 10.0
_WELL_AFTER_S = 30.0
"""A child that lived this long starts again without the wait that its earlier deaths had earned."""
FAILURES_MAX = 5
"""How often in a row a child may end itself with an error soon after its start until it is given up. The
waits between are 7.5 s together: long enough for a port that an earlier process is about to free. A child
that somebody killed did not fail."""

_LINE_BYTES_MAX = 64 * 1024
_COMPLAINT = re.compile(r'\[(warning|error|critical)\s*\]|"level":\s*"(warning|error|critical)"')


@dataclass(slots=True)
class Child:
    """A node as the launch sees it."""

    node: NodeProcess
    address: str
    http_url: str
    data_dir: Path | None = None
    """Where its events are, if that is a directory of this machine."""
    state: ChildState = ChildState.STARTING
    starts: int = 0
    failures: int = 0
    """How often in a row it has ended itself with an error, soon after it was started."""
    ended_as_before: bool = False
    """Whether its last end was like the one before: the same status, the same words."""
    _ending: tuple[int | None, str] | None = None
    was_live: bool = False
    """Whether it has ever answered."""
    exit_status: int | None = None
    last_words: str = ""
    """The last line that it said."""
    last_complaint: str = ""
    """The last warning or error that it logged; once it has ended, its last words, or the signal that
    killed it."""
    complained_at: float = 0.0
    """When it did, in seconds of the monotonic clock."""
    picture: ClusterPicture | None = None
    """The cluster as the node at its address sees it, whoever started that; None if none answers."""
    is_ready: bool = False
    """Whether that node says that it is ready."""

    @property
    def id(self) -> str:
        return self.node.node_id

    @property
    def is_up(self) -> bool:
        """Whether its process exists."""
        return self.node.running

    @property
    def is_by_hand(self) -> bool:
        """Whether the node at its address is another process than ours."""
        return self.picture is not None and self.picture.pid != self.node.pid

    @property
    def serves(self) -> bool:
        """Whether its process has answered that it is ready."""
        return self.state is ChildState.READY

    @property
    def is_given_up(self) -> bool:
        """Whether it has failed too often to be started again."""
        return self.failures >= FAILURES_MAX

    def seen(self, *, is_ready: bool, picture: ClusterPicture | None) -> None:
        """What the node at its address has just answered, if any has."""
        self.is_ready, self.picture = is_ready, picture
        if not self.is_up:
            return
        if picture is not None and not self.is_by_hand:
            self.was_live = True
            self.state = ChildState.READY if is_ready else ChildState.RUNNING
        elif self.state is ChildState.READY:
            self.state = ChildState.RUNNING

    def has_ended(self, lived_s: float) -> None:
        """Count an ending, after so long a life."""
        ending = (self.exit_status, self.last_words)
        self.ended_as_before = ending == self._ending
        self._ending = ending
        failed = (self.exit_status or 0) > 0 and lived_s < _WELL_AFTER_S
        self.failures = self.failures + 1 if failed else 0


class Display(Protocol):
    """Who is told what happens."""

    def started(self, child: Child) -> None: ...

    def said(self, child: Child, line: str) -> None: ...

    def ended(self, child: Child, again_in_s: float | None) -> None:
        """`again_in_s`: after what wait it will be started again, None if it will not."""

    def ready(self, seconds: float) -> None: ...

    def stopping(self) -> None: ...


class Supervisor:
    """See the module's page. `run` does everything; `stop` and `hurry` are for signal handlers."""

    def __init__(self, children: Sequence[Child], display: Display, *, restart: bool) -> None:
        self.children = list(children)
        self._display = display
        self._restart = restart
        self._stop = asyncio.Event()

    def stop(self) -> None:
        """Stop all children in order; a second call no longer waits for them."""
        if self._stop.is_set():
            for child in self.children:
                child.node.kill()
        self._stop.set()

    async def run(self) -> int:
        """Run until `stop`, or until no child is left; the exit status of the launch."""
        tending = [asyncio.create_task(self._tend(child)) for child in self.children]
        stopped = asyncio.create_task(self._stop.wait())
        try:
            await self._until_over(tending, stopped)
            asked = self._stop.is_set()
            if asked:
                self._display.stopping()
            self._stop.set()
            await stop_all([child.node for child in self.children], STOP_GRACE_S)
            await asyncio.gather(*tending)
            return 0 if asked else 1
        finally:
            stopped.cancel()
            kill_all([child.node for child in self.children])

    async def _until_over(self, tasks: list[asyncio.Task[None]], stopped: asyncio.Task[bool]) -> None:
        """Wait until we are asked to stop, or all children are gone for good."""
        tending = set(tasks)
        while tending and not stopped.done():
            waiting: set[asyncio.Task[Any]] = {stopped, *tending}
            done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            tending -= done
            for task in done:
                task.result()

    async def _tend(self, child: Child) -> None:
        backoff = _BACKOFF_FIRST_S
        while not self._stop.is_set():
            begun = time.monotonic()
            await self._live_through(child)
            if self._stop.is_set():
                return
            lived_s = time.monotonic() - begun
            child.has_ended(lived_s)
            if lived_s > _WELL_AFTER_S:
                backoff = _BACKOFF_FIRST_S
            status = child.exit_status or 0
            # Who was killed had no time to say why: what it said before is about something else.
            self._complained(child, child.last_words if status >= 0 else f"killed by signal {-status}")
            again = self._restart and not child.is_given_up
            self._display.ended(child, backoff if again else None)
            if not again:
                return
            child.state = ChildState.WAITING
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), backoff)
            backoff = min(2 * backoff, _BACKOFF_MAX_S)

    async def _live_through(self, child: Child) -> None:
        """One life of a child, from its start until it has ended."""
        child.node.start()
        child.starts += 1
        child.state, child.exit_status, child.picture = ChildState.STARTING, None, None
        self._display.started(child)
        async for line in _lines(child.node):
            child.last_words = line
            if _COMPLAINT.search(line):
                self._complained(child, line)
            self._display.said(child, line)
        await until(lambda: not child.is_up, STOP_GRACE_S, f"{child.id} to end")  # its output is closed
        child.exit_status, child.state, child.picture = child.node.exit_status, ChildState.ENDED, None

    @staticmethod
    def _complained(child: Child, what: str) -> None:
        child.last_complaint, child.complained_at = what, time.monotonic()


async def _lines(node: NodeProcess) -> AsyncIterator[str]:
    """What the process says, line by line, until it has ended; a line without end is cut."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=_LINE_BYTES_MAX)
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), node.output)
    try:
        while True:
            try:
                raw = await reader.readuntil(b"\n")
            except asyncio.LimitOverrunError as error:
                raw = await reader.readexactly(max(1, error.consumed))
            except asyncio.IncompleteReadError as error:
                raw = error.partial
                if not raw:
                    return
            if line := raw.decode(errors="replace").rstrip():
                yield line
    finally:
        transport.close()
