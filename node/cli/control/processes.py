"""A node as a child process: start it, signal it, watch it, and never leave one behind.

`launch`, the drills, the benchmark and the integration tests all start nodes through `NodeProcess`, so
that what is killed in a test is what a user runs. Linux is where the figures (`cpu_seconds`) and the
promise that no child outlives its parent come from; elsewhere the rest works.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Protocol

PARENT_VARIABLE = "ALLSOURCE_PARENT_PID"
"""Environment variable by which a parent asks its child to die with it."""

_PR_SET_PDEATHSIG = 1
_POLL_S = 0.01


def node_command(config: Path, node_id: str) -> list[str]:
    """The command line of one node."""
    return [sys.executable, "-m", "allsource.node.cli", "node", str(config), "--id", node_id]


def die_with_parent() -> bool:
    """In a child whose parent set `PARENT_VARIABLE`: ask the kernel to kill us when the parent is gone.
    Whether we have such a parent.

    SIGKILL, because a paused process would keep SIGTERM waiting for ever, and because the store
    survives it: that is its purpose. The child asks itself, after `exec`, so that the parent needs
    no code between `fork` and `exec`; a parent that died before we asked is noticed by its pid.
    """
    parent = os.environ.pop(PARENT_VARIABLE, None)
    if parent is None:
        return False
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(parent):
        raise SystemExit(f"the process that started this one ({parent}) is gone")
    return True


def cpu_seconds(pid: int) -> float:
    """User and system time that the process has used so far, in seconds (`proc(5)`, fields 14 and 15)."""
    stat = Path(f"/proc/{pid}/stat").read_text()
    fields = stat[stat.rindex(")") + 2 :].split()  # the name, in parentheses, may hold spaces
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def uptime_s(pid: int) -> float | None:
    """How long a process has run, in seconds (`proc(5)`, field 22); None if that cannot be told."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    begun = int(stat[stat.rindex(")") + 2 :].split()[19]) / os.sysconf("SC_CLK_TCK")
    return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - begun)


class Killable(Protocol):
    """What `kill_all` needs of a process."""

    def kill(self) -> None: ...

    def reap(self) -> None: ...


class NodeProcess:
    """One node of a cluster as a child of this process; it can be started again after it has ended."""

    def __init__(
        self, node_id: str, command: Sequence[str], *, output: int | Path = subprocess.DEVNULL
    ) -> None:
        """`output`: where standard output and error go together, a file to append to or `PIPE`."""
        self.node_id = node_id
        self._command = list(command)
        self._output = output
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the process; it must not be running."""
        assert not self.running, f"{self.node_id} is running already"
        environment = {**os.environ, PARENT_VARIABLE: str(os.getpid())}
        if isinstance(self._output, Path):
            with self._output.open("ab") as file:
                self._process = self._spawn(environment, file)
        else:
            self._process = self._spawn(environment, self._output)

    def _spawn(self, environment: dict[str, str], output: int | IO[bytes]) -> subprocess.Popen[bytes]:
        # A process group of its own: Ctrl-C at the terminal is for us, who then stop the nodes in order.
        return subprocess.Popen(
            self._command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            process_group=0,
        )

    @property
    def running(self) -> bool:
        """Whether the process exists (a paused one does)."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """The process id of the last start."""
        assert self._process is not None, f"{self.node_id} was never started"
        return self._process.pid

    @property
    def exit_status(self) -> int | None:
        """The status that the process ended with (negative: the signal), None while it runs."""
        return None if self._process is None else self._process.poll()

    @property
    def output(self) -> IO[bytes]:
        """The pipe that the process writes to, if it was started with `PIPE`."""
        assert self._process is not None
        assert self._process.stdout is not None, f"{self.node_id} was not started with PIPE"
        return self._process.stdout

    def kill(self) -> None:
        """`kill -9`; returns at once (see `reap`)."""
        self._signal(signal.SIGKILL)

    def reap(self) -> None:
        """Wait until the kernel has taken a killed process away: its ports are free, its locks gone."""
        if self._process is not None:
            self._process.wait()

    def terminate(self) -> None:
        """Ask it to leave in order (SIGTERM); a paused process is woken to hear it."""
        self._signal(signal.SIGTERM)
        self._signal(signal.SIGCONT)

    def pause(self) -> None:
        """SIGSTOP: it keeps its memory, its sockets and its beliefs, and does nothing."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)

    async def ended(self, timeout_s: float) -> int:
        """Wait until the process has ended; its exit status. Raises `TimeoutError`."""
        await until(lambda: not self.running, timeout_s, f"{self.node_id} to end")
        status = self.exit_status
        assert status is not None
        return status

    def cpu_seconds(self) -> float:
        """CPU time that the running process has used."""
        return cpu_seconds(self.pid)


async def stop_all(nodes: Sequence[NodeProcess], grace_s: float) -> list[str]:
    """SIGTERM to all, wait, SIGKILL to those that are still there after `grace_s`; who had to be killed."""
    for node in nodes:
        node.terminate()
    with contextlib.suppress(TimeoutError):
        await until(lambda: not any(node.running for node in nodes), grace_s, "the nodes to stop")
    late = [node for node in nodes if node.running]
    kill_all(late)
    return [node.node_id for node in late]


def kill_all(nodes: Sequence[Killable]) -> None:
    """`kill -9` of all at once, and wait until they are gone."""
    for node in nodes:
        node.kill()
    for node in nodes:
        node.reap()


async def until(condition: Callable[[], bool], timeout_s: float, what: str) -> None:
    """Wait for a condition; raises `TimeoutError` that says what was waited for."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {timeout_s:g} s for {what}")
        await asyncio.sleep(_POLL_S)
