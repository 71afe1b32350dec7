"""What clients did and were told, with real-time intervals: the evidence that the checkers judge."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

OPEN = -1
"""The operation had not returned when the run ended."""

OK, REJECTED, REFUSED, TAKEN, UNKNOWN = "ok", "rejected", "refused", "taken", "unknown"
"""Outcomes. `rejected`: the expected version was not met. `refused`: it surely was never tried (no
owner, no majority). `taken`: its event ids are stored in other company. These promise that nothing
happened; `unknown` promises nothing."""

LINEARIZABLE, LOCAL, TOKEN = "linearizable", "local", "token"
"""Kinds of reads. `token`: local, and not before the append that a token came from is there."""

WHOLE_PARTITION = ""
"""The stream of a read of all events of a partition, in order of position."""


class Intent(NamedTuple):
    """Events for one stream that a client wants to append."""

    stream: str
    expected: int
    ids: tuple[bytes, ...]


class Placed(NamedTuple):
    """Where an acknowledged append is said to be."""

    index: int
    term: int
    first_position: int
    first_versions: tuple[int, ...]
    """One for each intent, in their order."""


class Conflict(NamedTuple):
    """A rejection: this stream is at `actual`."""

    stream: str
    expected: int
    actual: int


@dataclass(slots=True)
class AppendOperation:
    """One append, all its attempts together."""

    client: int
    partition: int
    intents: tuple[Intent, ...]
    invoked: int
    returned: int = OPEN
    outcome: str = UNKNOWN
    placed: Placed | None = None
    conflict: Conflict | None = None


@dataclass(slots=True)
class ReadOperation:
    """One read of a whole stream, or of all events of a partition by position."""

    client: int
    partition: int
    stream: str
    invoked: int
    returned: int = OPEN
    outcome: str = UNKNOWN
    ids: tuple[bytes, ...] = ()
    kind: str = LINEARIZABLE
    token: int = 0
    """Log index of the append that a token read must see."""


class Election(NamedTuple):
    """A node began to lead."""

    partition: int
    term: int
    node: str
    incarnation: int
    at_us: int = 0


@dataclass(slots=True)
class History:
    """Everything that happened as seen from outside, in order of invocation."""

    appends: list[AppendOperation] = field(default_factory=list)
    reads: list[ReadOperation] = field(default_factory=list)
    elections: list[Election] = field(default_factory=list)
