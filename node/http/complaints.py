"""What the HTTP door tells the log about its callers: one short line, and not often.

Whoever reaches the port decides how often something goes wrong here, and what is in it. So a line has a few
short facts, never a body, a header or a traceback, and each kind of line is written once in
`QUIET_S`, with the number of those that were not written in between. Rendering costs microseconds.
"""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Callable
from pathlib import PurePath

import structlog
from structlog.typing import FilteringBoundLogger

QUIET_S = 10.0
"""Seconds between two lines of one kind: a flood of bad requests is 360 lines in an hour."""

_REASON_MAX = 200
_FRAMES_MAX = 3


class Complaints:
    """A log that says each kind of thing at most once in `QUIET_S`. `clock` gives monotonic seconds."""

    def __init__(self, log: FilteringBoundLogger, clock: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        self._clock = clock
        self._next: dict[str, float] = {}
        self._unsaid: dict[str, int] = {}

    def client(self, event: str, **facts: object) -> None:
        """A caller did something that a healthy one does not. The kinds (`event`) are few and ours."""
        if self._may_say(event):
            self._log.warning(event, **facts, **self._since(event))

    def defect(self, event: str, error: BaseException, **facts: object) -> None:
        """Something that must not happen happened: what, and where, without what the variables held."""
        if self._may_say(event):
            self._log.error(
                event,
                error=type(error).__name__,
                reason=str(error)[:_REASON_MAX],
                where=_where(error),
                **facts,
                **self._since(event),
            )

    def _may_say(self, event: str) -> bool:
        now = self._clock()
        if now < self._next.get(event, now):
            self._unsaid[event] = self._unsaid.get(event, 0) + 1
            return False
        self._next[event] = now + QUIET_S
        return True

    def _since(self, event: str) -> dict[str, object]:
        unsaid = self._unsaid.pop(event, 0)
        return {"more_since_the_last_line": unsaid} if unsaid else {}


def _where(error: BaseException) -> str:
    """`file.py:12 in function`, innermost first."""
    frames = traceback.extract_tb(error.__traceback__)[-_FRAMES_MAX:]
    return " < ".join(f"{PurePath(f.filename).name}:{f.lineno} in {f.name}" for f in reversed(frames))


class _Handler(logging.Handler):
    """Takes what aiohttp logs. It logs only what it could not handle: with the request's repr as an
    argument and a traceback, both of which a client can make long."""

    def __init__(self, complaints: Complaints) -> None:
        super().__init__()
        self._complaints = complaints

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        if error is None:
            self._complaints.client("HTTP: a connection went wrong")
        else:
            self._complaints.defect("HTTP: a connection went wrong", error)


def aiohttp_logger(complaints: Complaints) -> logging.Logger:
    """A logger for aiohttp that complains and does nothing else; it is in no hierarchy."""
    logger = logging.Logger("allsource.http", logging.WARNING)
    logger.addHandler(_Handler(complaints))
    return logger


def default_complaints() -> Complaints:
    """Complaints to the process's log."""
    return Complaints(structlog.get_logger("allsource.http"))
