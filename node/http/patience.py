"""How long a connection may take for what it is doing. Pure: times and bytes are told.

A caller that sends or reads nothing costs a place and what it holds; one that sends or reads a byte now
and then costs the same. So a head must be complete in time, and a body or an answer must get on: in
each window so many bytes. Who waits for an answer of ours waits as long as the request's own deadline
says.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple


class Phase(Enum):
    """What a connection is doing."""

    HEAD = "sends the head of a request"
    BODY = "sends a body"
    WORKING = "waits for its answer"
    ANSWER = "reads its answer"
    IDLE = "may send another request"
    CLOSING = "has got its last answer"


class Patience(NamedTuple):
    """Times in seconds."""

    head_s: float = 10.0
    """From the connection, or from the first byte of a further request, to the end of the head."""
    idle_s: float = 75.0
    """Between two requests: more than the 60 s that proxies keep their connections for."""
    window_s: float = 5.0
    bytes_per_s: int = 16 << 10
    """In each window a body or an answer must have got on by this: a slow mobile network does."""
    closing_s: float = 10.0
    look_s: float = 1.0
    """How often connections are looked at; less than a window."""


class Watch:
    """The clock of one connection. `now` is in monotonic seconds everywhere."""

    def __init__(self, patience: Patience, now: float) -> None:
        self._patience = patience
        self.enter(Phase.HEAD, now)

    def enter(self, phase: Phase, now: float) -> None:
        """The connection does something else from now on."""
        self.phase = phase
        self._since = now
        self._moved = 0

    def moved(self, size: int) -> None:
        """So many bytes were received or read."""
        self._moved += size

    def is_overdue(self, now: float) -> bool:
        """Whether the connection has used up our patience. To be asked more often than once in a window."""
        waited, patience = now - self._since, self._patience
        match self.phase:
            case Phase.HEAD:
                return waited > patience.head_s
            case Phase.IDLE:
                return waited > patience.idle_s
            case Phase.CLOSING:
                return waited > patience.closing_s
            case Phase.WORKING:
                return False
        if waited < patience.window_s:
            return False
        is_slow = self._moved < waited * patience.bytes_per_s
        self._since, self._moved = now, 0
        return is_slow
