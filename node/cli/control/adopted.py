"""A node that somebody else started on this machine: found by the port that it listens on.

For drills against a running cluster. Who listens is the kernel's knowledge (`/proc/net/tcp`), so no pid
file can be wrong about whom a drill kills. A killed node is left to its supervisor; if nobody starts it
again, the drill does, and leaves it running.

A supervisor that is known (`launch --restart`, the parent of the node) is waited for as long as it lives:
how long it takes is a matter of its back-off and of how busy the machine is, and a node that the drill
starts beside it would take its ports and directory. Others (systemd) get a moment.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from allsource.config.schema import NodeSettings
from allsource.node.cli.control.processes import cpu_seconds, node_command

_LISTEN = "0A"
_SUPERVISOR_S = 3.0
"""For a supervisor that cannot be told from somebody who just started a process."""
_LISTENS_S = 60.0
"""For a node to come back, its supervisor's back-off (10 s at most) and a busy machine included."""
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


def restarter(pid: int) -> int | None:
    """The process that will start this one again: its parent, if that is a `launch --restart`."""
    parent = _parent(pid)
    if parent is None:
        return None
    try:
        words = Path(f"/proc/{parent}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return None
    return parent if b"launch" in words and b"--restart" in words else None


def _parent(pid: int) -> int | None:
    fields = _stat(pid)
    return int(fields[1]) if fields else None


def _stat(pid: int) -> list[str]:
    """The fields of `/proc/PID/stat` from the third one on (state, parent, ...); none if it is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return []
    return stat[stat.rindex(")") + 2 :].split()


def _lives(pid: int) -> bool:
    """Whether the process exists and is not merely waiting to be reaped by its parent."""
    fields = _stat(pid)
    return bool(fields) and fields[0] not in "ZX"


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
        self._found(found)

    def _found(self, pid: int) -> None:
        self.pid = pid
        self._restarter = restarter(pid)

    @property
    def running(self) -> bool:
        """Whether the process exists and is not merely waiting to be reaped by its parent."""
        return _lives(self.pid)

    @property
    def exit_status(self) -> None:
        """Its parent's to know."""
        return None

    def start(self) -> None:
        """Wait for its supervisor to start it again; else start it, detached from this process."""
        if not self._is_started_again():
            self._log.parent.mkdir(parents=True, exist_ok=True)
            with self._log.open("ab") as log:
                subprocess.Popen(
                    node_command(self._config, self.node_id),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            _wait(self._listens, _LISTENS_S)
        self._found(listener(self._port) or self.pid)

    def _listens(self) -> bool:
        return listener(self._port) is not None

    def _is_started_again(self) -> bool:
        known = self._restarter
        if known is None:
            return _wait(self._listens, _SUPERVISOR_S)
        _wait(lambda: self._listens() or not _lives(known), _LISTENS_S)
        return self._listens() or _lives(known)

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
