"""A node that somebody else started on this machine: found by the port that it listens on.

For drills against a running cluster. Who listens is the kernel's knowledge (`/proc/net/tcp`), so no pid
file can be wrong about whom a drill kills. A killed node is left to its supervisor for a moment
(`launch --restart`, systemd); if nobody starts it again, the drill does, and leaves it running.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from allsource.config.schema import NodeSettings
from allsource.node.cli.processes import cpu_seconds, node_command

_LISTEN = "0A"
_SUPERVISOR_S = 3.0
_GONE_S = 10.0
_POLL_S = 0.02


def listener(port: int) -> int | None:
    """The pid of this user's process that listens on a TCP port, if there is one (Linux)."""
    inodes = {f"socket:[{inode}]" for inode in _listening_inodes(port)}
    for process in Path("/proc").iterdir() if inodes else ():
        if process.name.isdigit() and _holds(process / "fd", inodes):
            return int(process.name)
    return None


def _listening_inodes(port: int) -> list[str]:
    found = []
    for table in ("tcp", "tcp6"):
        path = Path("/proc/net", table)
        for line in path.read_text().splitlines()[1:] if path.exists() else ():
            fields = line.split()
            if fields[3] == _LISTEN and int(fields[1].rpartition(":")[2], 16) == port:
                found.append(fields[9])
    return found


def _holds(directory: Path, sockets: set[str]) -> bool:
    try:
        return any(os.readlink(file) in sockets for file in directory.iterdir())
    except OSError:  # another user's, or gone meanwhile
        return False


class AdoptedNode:
    """A running node of somebody else's; the same handles as `processes.NodeProcess`."""

    def __init__(self, settings: NodeSettings, config: Path) -> None:
        """Raises `LookupError` if nobody listens on the node's port here."""
        self.node_id = settings.id
        self._port = settings.port
        self._config = config
        self._log = settings.data_dir.parent / f"{settings.id}.drill.log"
        found = listener(self._port)
        if found is None:
            raise LookupError(
                f"no process of this user listens on port {self._port}: is {settings.id} running here?"
            )
        self.pid = found

    @property
    def running(self) -> bool:
        """Whether the process exists and is not merely waiting to be reaped by its parent."""
        try:
            stat = Path(f"/proc/{self.pid}/stat").read_text()
        except FileNotFoundError:
            return False
        return stat[stat.rindex(")") + 2] not in "ZX"

    @property
    def exit_status(self) -> None:
        """Its parent's to know."""
        return None

    def start(self) -> None:
        """Wait for its supervisor to start it again; else start it, detached from this process."""
        if not _wait(lambda: listener(self._port) is not None, _SUPERVISOR_S):
            self._log.parent.mkdir(parents=True, exist_ok=True)
            with self._log.open("ab") as log:
                subprocess.Popen(
                    node_command(self._config, self.node_id),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            _wait(lambda: listener(self._port) is not None, _GONE_S)
        self.pid = listener(self._port) or self.pid

    def kill(self) -> None:
        """`kill -9`."""
        os.kill(self.pid, signal.SIGKILL)

    def reap(self) -> None:
        """Wait until the process is gone."""
        _wait(lambda: not self.running, _GONE_S)

    def terminate(self) -> None:
        """SIGTERM."""
        os.kill(self.pid, signal.SIGTERM)

    def pause(self) -> None:
        """SIGSTOP."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        os.kill(self.pid, signal.SIGCONT)

    def cpu_seconds(self) -> float:
        """CPU time that it has used."""
        return cpu_seconds(self.pid)


def _wait(condition: Callable[[], bool], timeout_s: float) -> bool:
    deadline = time.monotonic() + timeout_s
    while not (met := condition()) and time.monotonic() < deadline:
        time.sleep(_POLL_S)
    return met
