"""Where log lines go: to a file descriptor. Code that logs never waits for it and meets no exception of it.

Standard error is not ours. Its reader may die (EPIPE), stop reading (a full pipe blocks), its disk may be
full (ENOSPC). A node that waits there looks dead to its peers, and one that meets an exception in the
middle of a decision drops the rest of it: an append was lost that way (RULES.md rule 31). So whoever
logs only puts a line into a bounded queue; a thread of the sink's own writes it. What does not fit, or
cannot be written, is counted and left out, and as soon as writing works again one line says how much is
missing.

Invariant: `write` takes microseconds and never raises, whatever the descriptor does. Only `drain` waits,
and never longer than it is told.
"""

from __future__ import annotations

import os
import select
import threading
import time
from collections.abc import Callable
from typing import Protocol

QUEUED_BYTES_MAX = 1 << 20
"""Bytes that may wait to be written. A node writes some kilobytes a minute, so a reader who is further
behind has given up."""
LINE_BYTES_MAX = 16 << 10
"""A longer line is cut: no single message is worth more of the queue."""
_CUT = b" ... (cut)"

Output = Callable[[bytes], object]
"""Writes bytes, all of them or it raises; may block."""


class HasDescriptor(Protocol):
    """The part of a text stream that a sink needs."""

    def fileno(self) -> int: ...

    def write(self, text: str, /) -> int: ...


class LogSink:
    """See the module's page. `note` words the line that tells how many lines are missing."""

    def __init__(self, output: Output, note: Callable[[int], str]) -> None:
        self._output = output
        self._note = note
        self._lines: list[bytes] = []
        self._queued_bytes = 0
        self._writing = False
        self._missing = 0
        self.lost = 0
        """Lines that were never written, since the start."""
        # A re-entrant lock: a line may be logged by what the interpreter runs while this thread holds it.
        self._changed = threading.Condition(threading.RLock())
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    def write(self, line: str) -> None:
        """Have a line written soon, or not at all."""
        raw = line.encode("utf-8", "backslashreplace")
        if len(raw) > LINE_BYTES_MAX:
            raw = raw[: LINE_BYTES_MAX - len(_CUT)] + _CUT
        with self._changed:
            if self._queued_bytes + len(raw) > QUEUED_BYTES_MAX:
                self._lose(1)
                return
            self._lines.append(raw)
            self._queued_bytes += len(raw)
            self._changed.notify_all()

    def drain(self, timeout_s: float) -> bool:
        """Wait until everything is written or given up; False if that took too long."""
        end = time.monotonic() + timeout_s
        with self._changed:
            while self._lines or self._writing:
                left = end - time.monotonic()
                if left <= 0:
                    return False
                self._changed.wait(left)
        return True

    def _lose(self, lines: int) -> None:
        self._missing += lines
        self.lost += lines

    def _run(self) -> None:
        """The thread. It ends with the process."""
        while True:
            with self._changed:
                while not self._lines:
                    self._changed.wait()
                # The list goes as it is: to copy it may run somebody's finaliser, and that may log.
                lines, missing = self._lines, self._missing
                self._lines = []
                self._queued_bytes = 0
                self._writing = True
            written = self._put(lines, missing)
            with self._changed:
                self._writing = False
                if written:
                    self._missing -= missing
                else:
                    self._lose(len(lines))
                self._changed.notify_all()

    def _put(self, lines: list[bytes], missing: int) -> bool:
        try:
            if missing:
                lines = [*lines, self._note(missing).encode("utf-8", "backslashreplace")]
            self._output(b"\n".join(lines) + b"\n")
        except Exception:  # whatever the reader, the disk or the descriptor is up to: it is only the log
            return False
        return True


def output_to(stream: HasDescriptor) -> Output:
    """Writes to the stream's descriptor, past its buffer and its lock; to the stream if it has none."""
    try:
        descriptor = stream.fileno()
    except (OSError, ValueError):
        return lambda raw: stream.write(raw.decode("utf-8", "backslashreplace"))
    return lambda raw: _write_all(descriptor, raw)


def _write_all(descriptor: int, raw: bytes) -> None:
    left = memoryview(raw)
    while left:
        try:
            left = left[os.write(descriptor, left) :]
        except BlockingIOError:  # somebody who shares the descriptor made it non-blocking
            room = select.poll()
            room.register(descriptor, select.POLLOUT)
            room.poll()


class SinkStream:
    """A text stream over a sink, to stand in for `sys.stderr`: what libraries, warnings and the interpreter
    print while the node runs is subject to the same promise. A line is passed on when it is whole."""

    encoding = "utf-8"
    errors = "backslashreplace"

    def __init__(self, sink: LogSink, instead_of: HasDescriptor) -> None:
        self._sink = sink
        self._instead_of = instead_of
        self._begun = ""

    def write(self, text: str) -> int:
        """Take some text."""
        *lines, self._begun = (self._begun + text).split("\n")
        for line in lines:
            self._sink.write(line)
        if len(self._begun) > LINE_BYTES_MAX:
            self.flush()
        return len(text)

    def flush(self) -> None:
        """Pass on the line that was begun."""
        if self._begun:
            begun, self._begun = self._begun, ""
            self._sink.write(begun)

    def fileno(self) -> int:
        """The descriptor of the stream in whose place this stands."""
        return self._instead_of.fileno()

    def isatty(self) -> bool:
        """False: a program that writes to a terminal would use colours and move the cursor."""
        return False
