"""What clients did and were told, with real-time intervals: the evidence that the checkers judge."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from allsource.storage.model.entry import Mark
from allsource.storage.model.expected import ANY

OPEN = -1
"""The operation had not returned when the run ended."""

OK, REJECTED, REFUSED, TAKEN, UNKNOWN = "ok", "rejected", "refused", "taken", "unknown"
"""Outcomes. `rejected`: what was expected was not so. `refused`: it surely was never tried (no
owner, no majority). `taken`: its event ids are stored in other company. These promise that nothing
happened; `unknown` promises nothing."""

LINEARIZABLE, LOCAL, TOKEN = "linearizable", "local", "token"
"""Kinds of reads. `token`: local, and not before the append that a token came from is there."""

WHOLE_PARTITION = ""
"""The stream of a read of all events of a partition, in order of position."""
A_TAG, A_MARK = "{", "#"
"""How the stream of a read begins that is of a tag's events, in order of number, and of a mark."""


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
    """A rejection: this stream, or tag (its name then begins with `A_TAG`), is at `actual`."""

    stream: str
    expected: int
    actual: int


class Unmoved(NamedTuple):
    """A rejection: the mark was not moved, for it is already there."""

    name: str
    position: int
    generation: int


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
    conflict: Conflict | Unmoved | None = None
    expected_tag: int = ANY
    marks: tuple[Mark, ...] = ()
    """Each is moved so by nobody else, and by no other append."""

    @property
    def content(self) -> Content:
        """What the log holds where it is stored."""
        streams = tuple([(intent.stream, intent.ids) for intent in self.intents])
        return Content(self.partition, streams, self.marks)


class Content(NamedTuple):
    """What one append adds to a log."""

    partition: int
    streams: tuple[tuple[str, tuple[bytes, ...]], ...]
    """With their event ids."""
    marks: tuple[Mark, ...]


@dataclass(slots=True)
class ReadOperation:
    """One read of a whole stream, of all events of a partition by position or of a tag by number, or of a
    mark (see `A_TAG`, `A_MARK`)."""

    client: int
    partition: int
    stream: str
    invoked: int
    returned: int = OPEN
    outcome: str = UNKNOWN
    ids: tuple[bytes, ...] = ()
    numbers: tuple[int, ...] = ()
    """The number of each event under its stream's tag, 0 without one."""
    mark: tuple[int, int] = (0, 0)
    """`(generation, position)` of the mark; zeros if it was never set."""
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
