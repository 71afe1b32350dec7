"""What a partition's owner has under way: the group that is open, and answers that wait for a majority.

All appends that one turn decides for a partition become one entry (`storage.model.entry`), as far as they
fit: a *group*. Until it is proposed its appends are nowhere but here and in the `LogView`; then they wait
as one `Proposed`, and each is answered for itself.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from allsource.node.requests.log_view import LogView
from allsource.node.requests.tickets import Ticket
from allsource.storage.model.answers import AppendResult
from allsource.storage.model.append import result_of
from allsource.storage.model.entry import Entry, NewAppend, Place, StoredAppend

GROUP_BYTES_MAX = 256 << 10
"""What a group's appends add to a record at most. One append that is larger has an entry of its own: so no
entry is larger than an append or a group may be."""
GROUP_APPENDS_MAX = 1_024
_PART_ROOM = 64
"""Bytes of a part's head, or a mark, beside its names; about."""


class WaitingRetry(NamedTuple):
    """A retry of an append that is in the log and not committed yet."""

    term: int | None
    """Of the entry, when the retry came."""
    place: Place
    ticket: Ticket


class Proposed:
    """An entry that waits for a majority, and who waits for its appends, in the order of them."""

    __slots__ = ("_answered", "_position", "_tickets", "entry")

    def __init__(self, entry: Entry, tickets: list[Ticket]) -> None:
        self.entry = entry
        self._tickets = tickets
        self._answered = 0
        self._position = entry.first_position

    def __len__(self) -> int:
        """How many wait."""
        return len(self._tickets) - self._answered

    def unanswered(self) -> list[Ticket]:
        """Those who wait."""
        return self._tickets[self._answered :]

    def answers(self, most: int) -> list[tuple[Ticket, AppendResult]]:
        """The answers of the next `most` appends, each its own; they do not wait any more."""
        entry, position = self.entry, self._position
        first = self._answered
        end = min(first + most, len(self._tickets))
        found = []
        for ordinal in range(first, end):
            stored = StoredAppend(entry.partition, entry.index, position, entry.appends[ordinal].parts)
            result = result_of(stored, duplicate=False)
            position = result.last_position + 1
            found.append((self._tickets[ordinal], result))
        self._answered, self._position = end, position
        return found


class Lane:
    """See the module's page. `answer` gives some of the answers, and says whether more can be given."""

    __slots__ = (
        "_answer",
        "_appends",
        "_size",
        "_tickets",
        "commit",
        "index",
        "pending",
        "view",
        "waiting",
    )

    def __init__(self, view: LogView, answer: Callable[[Lane], bool]) -> None:
        self.view = view
        self._answer = answer
        self.commit = 0
        """Up to which index everything is committed, and is to be answered."""
        self.pending: deque[Proposed] = deque()
        """Indexes only grow within a term, so commits pop from the left."""
        self.waiting: list[WaitingRetry] = []
        self.index = 0
        """The index that the open group will have."""
        self._appends: list[NewAppend] = []
        self._tickets: list[Ticket] = []
        self._size = 0

    def step(self) -> bool:
        """Answer some (`turns.Worker`)."""
        return self._answer(self)

    # -- the open group

    @property
    def is_open(self) -> bool:
        """Whether something was decided that is not proposed yet."""
        return bool(self._appends)

    def has_room(self, size: int) -> bool:
        """Whether an append of this size still fits into the open group."""
        return self._size + size <= GROUP_BYTES_MAX and len(self._appends) < GROUP_APPENDS_MAX

    def join(self, new: NewAppend, ticket: Ticket, size: int) -> None:
        """Add an append that was decided, to be proposed at `index`."""
        self.view.decided(new, Place(self.index, len(self._appends)))
        self._appends.append(new)
        self._tickets.append(ticket)
        self._size += size

    def close(self) -> tuple[list[NewAppend], list[Ticket]]:
        """The group as it is; from now on there is none."""
        group = self._appends, self._tickets
        self._appends, self._tickets, self._size = [], [], 0
        return group

    def drop(self, term_at: Callable[[int, int], int | None]) -> list[Ticket]:
        """Give the open group up, with what the view knows of it; those who waited for it. `term_at`: the
        term of a partition's entry in this node's log."""
        _, tickets = self.close()
        self.view.forget()
        for proposed in self.pending:  # of this turn perhaps, and then storage does not have it
            if term_at(self.view.partition, proposed.entry.index) == proposed.entry.term:
                self.view.proposed(proposed.entry)
        return tickets

    def under_way(self) -> int:
        """How many wait here."""
        return sum(map(len, self.pending)) + len(self.waiting) + len(self._tickets)


def size_in_record(new: NewAppend) -> int:
    """About what an append adds to a record: bytes of its chunks, and of its heads, which may be more."""
    (parts, marks), data = new
    size = _PART_ROOM * (len(parts) + len(marks))
    for chunk in data:
        size += len(chunk)
    for part in parts:
        size += len(part.stream) + sum(map(len, part.types))
    for mark in marks:
        size += len(mark.name)
    return size
