"""No test may leave a process behind: what is left is ended, and the test that left it fails.

pytest's process makes itself the reaper of its descendants (Linux), so that a process whose parent has
ended, also one that left its session to live on, becomes a child of ours. What is a child after a test and
was none before it was left behind. The conftests import both fixtures.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

_PR_SET_CHILD_SUBREAPER = 36
_ENDING_S = 20.0
"""For a process that was told to end and has not got round to it on a busy machine."""
_SHARED = ("postgres", "initdb")
"""Programs of servers that all tests of a session share; who leaves one is found at the session's end."""


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def children() -> dict[int, str]:
    """Our children that live, with their command lines; without multiprocessing's own helpers."""
    found: dict[int, str] = {}
    for listed in Path("/proc/self/task").glob("*/children"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # a thread that has just ended
            for pid in map(int, listed.read_text().split()):
                if (command := _command(pid)) is not None and "multiprocessing" not in command:
                    found[pid] = command
    return found


def _command(pid: int) -> str | None:
    """The command line of a process, None if it has ended."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
        line = Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return (
        None if stat[stat.rindex(")") + 2] in "ZX" else line.replace(b"\0", b" ").decode(errors="replace")
    )


def left_behind(before: dict[int, str], *, shared: bool = False) -> list[str]:
    """End what was left since `before`, and what that leaves in turn; its command lines."""

    def new() -> dict[int, str]:
        return {
            pid: command
            for pid, command in children().items()
            if pid not in before and (shared or not _is_shared(command))
        }

    deadline = time.monotonic() + _ENDING_S
    while new() and time.monotonic() < deadline:
        time.sleep(0.01)
    told = []
    while left := new():
        told += [f"{pid}: {command}" for pid, command in left.items()]
        for pid in left:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        for pid in left:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)
    return told


def _is_shared(command: str) -> bool:
    program = Path(command.split(" ", 1)[0]).name.rstrip(":")
    return program in _SHARED


@pytest.fixture(autouse=True)
def _leaves_no_process() -> Iterator[None]:
    """See the module's page."""
    before = children()
    yield
    left = left_behind(before)
    assert not left, "left running: " + "; ".join(left)


@pytest.fixture(autouse=True, scope="session")
def _session_leaves_no_process() -> Iterator[None]:
    """The same for what a session shares."""
    adopt_orphans()
    before = children()
    yield
    left = left_behind(before, shared=True)
    assert not left, "left running: " + "; ".join(left)
