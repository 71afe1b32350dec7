"""Errors of our own that are met while serving one request: they cost that request, and are told.

A bug that some request reaches must not end the process that serves all the others, nor fill its log: the
caller gets `internal`, the log a line a second at most, with how many there were. Only work that changes
nothing (parsing, checking, reading) may fail so; anything else that goes wrong ends the process (rule 31).
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import NamedTuple

from structlog.typing import FilteringBoundLogger

from allsource.cluster.protocol.frames import ProtocolError
from allsource.node.observe.measures import Measures
from allsource.storage.model.errors import AllsourceError

OnFault = Callable[[Exception], AllsourceError]
"""What `Faults.met` is to the paths that call it."""

EVERY_US = 1_000_000
NONSENSE_EVERY_US = 10_000_000
_SHOWN_CHARS = 200


class Faults:
    """See the module's page. `now_us`: microseconds of a monotonic clock."""

    def __init__(self, log: FilteringBoundLogger, measures: Measures, now_us: Callable[[], int]) -> None:
        self._log = log
        self._measures = measures
        self._now_us = now_us
        self._count = 0
        self._told_us = -EVERY_US

    def met(self, error: Exception) -> AllsourceError:
        """Count the error, log it now and then, and give what its caller is told."""
        self._measures.failed()
        self._count += 1
        now = self._now_us()
        if now - self._told_us >= EVERY_US:
            where = traceback.extract_tb(error.__traceback__)[-1:]
            self._log.error(
                "a request met an error of ours; this is a bug, please report it",
                error=f"{type(error).__name__}: {error}"[:_SHOWN_CHARS],
                where=[f"{frame.filename}:{frame.lineno}" for frame in where],
                times=self._count,
            )
            self._told_us, self._count = now, 0
        return AllsourceError("an unexpected error, logged by the node; nothing was changed")


class _Told(NamedTuple):
    """When the log was last told of a peer, and how often it happened since."""

    at_us: int
    times: int


_NEVER = _Told(-NONSENSE_EVERY_US, 0)


class Nonsense:
    """Peers that said what no healthy peer says (RULES.md rule 38). Each such peer loses its connection,
    and has one line in the log in ten seconds."""

    def __init__(self, log: FilteringBoundLogger, measures: Measures, now_us: Callable[[], int]) -> None:
        self._log = log
        self._measures = measures
        self._now_us = now_us
        self._told: dict[str, _Told] = {}

    def heard(self, peer: str, error: ProtocolError) -> None:
        """Count it, and log it now and then."""
        self._measures.failed()
        now = self._now_us()
        told_us, times = self._told.get(peer, _NEVER)
        times += 1
        if now - told_us >= NONSENSE_EVERY_US:
            self._log.error(
                "a peer said what no node in order says, and its connection was ended. Is it of another "
                "version, is its data an old copy, or does somebody else know the secret?",
                peer=peer,
                reason=str(error)[:_SHOWN_CHARS],
                times=times,
            )
            told_us, times = now, 0
        self._told[peer] = _Told(told_us, times)


def not_expected(error: Exception) -> AllsourceError:
    """For tests and simulations: an error of ours is raised, not answered."""
    raise error
