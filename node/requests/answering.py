"""Answers to appends that are in the log, as soon as they are committed.

Invariant: an append is answered as committed only if the entry that is committed at its index is its own,
term and all (RULES.md rules 6 and 32), and with its own place in that entry. A leadership that ends takes
all its waiting answers with it: they become "in doubt" and are routed anew with the same event ids, never
guessed. The two do not rest on each other: answers are right even if the news that a leadership ended
never came.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Protocol

from allsource.cluster.budgets.turns import AtOnce
from allsource.cluster.consensus.messages import Role, RoleChange
from allsource.cluster.protocol.requests import AppendRequest
from allsource.node.observe.measures import Measures
from allsource.node.requests.entries import RecentEntries
from allsource.node.requests.lanes import Lane, WaitingRetry
from allsource.node.requests.pace import Pace
from allsource.node.requests.queue import LockFreeEventQueue
from allsource.node.requests.tickets import Ticket
from allsource.storage.model.append import answer_again
from allsource.storage.model.entry import Place
from allsource.storage.model.errors import AllsourceError, Corrupt

ANSWERED_AT_ONCE = 64
"""Appends answered in one step of a turn."""


class Confirmer(Protocol):
    """What answers are asked of consensus; `Driver` has it."""

    def commit_index(self, partition: int) -> int: ...

    def entry_term(self, partition: int, index: int) -> int | None: ...

    def quarantine(self, partition: int, error: Corrupt) -> None: ...

    def schedule(self) -> None: ...


class Answering:
    """See the module's page. `retry` is given tickets whose attempt here has ended without an answer;
    `turns` is the budget for giving answers, of which one commit may allow tens of thousands."""

    def __init__(
        self,
        core: Confirmer,
        entries: RecentEntries,
        queue: LockFreeEventQueue[Ticket],
        pace: Pace,
        measures: Measures,
        *,
        retry: Callable[[Ticket], None],
        now_us: Callable[[], int],
        turns: AtOnce,
    ) -> None:
        self._core = core
        self._entries = entries
        self._queue = queue
        self._pace = pace
        self._measures = measures
        self._retry = retry
        self._now_us = now_us
        self._turns = turns
        self.pending_count = 0
        """Appends that are decided and wait for a majority."""

    def unanswered(self) -> int:
        """How many appends are in the queue, or wait for a majority."""
        return len(self._queue) + self.pending_count

    def committed(self, lane: Lane, commit: int) -> None:
        """Everything up to `commit` is committed: answer what waited for it, when it is its turn."""
        lane.commit = commit
        if lane.pending or lane.waiting:
            self._turns.add(lane)

    def answer(self, lane: Lane) -> bool:
        """Answer some of what is committed, oldest first. True if more of it is left."""
        if lane.pending and lane.pending[0].entry.index <= lane.commit:
            self._answer_pending(lane)
            if lane.pending and lane.pending[0].entry.index <= lane.commit:
                return True
        if lane.waiting:
            self._answer_waiting(lane)
        return False

    def _answer_pending(self, lane: Lane) -> None:
        pending, partition, commit = lane.pending, lane.view.partition, lane.commit
        now = self._now_us()
        waited = self._measures.append_waited
        term_at = self._core.entry_term
        term = term_at(partition, commit)
        taken = appends = events = size = 0
        while pending and pending[0].entry.index <= commit and taken < ANSWERED_AT_ONCE:
            proposed = pending[0]
            entry = proposed.entry
            # The newest committed entry is in the log of its term. What this node proposed earlier in that
            # very term is in the same log; what it proposed in an older term has to be looked up.
            if entry.term != term and term_at(partition, entry.index) != entry.term:
                pending.popleft()
                taken += len(proposed)
                self._lose(proposed.unanswered())
                continue
            answers = proposed.answers(ANSWERED_AT_ONCE - taken)
            if not proposed:
                pending.popleft()
                events += entry.count
                size += len(entry.record)
                self._entries.remember(entry)
            taken += len(answers)
            appends += len(answers)
            for ticket, result in answers:
                ticket.finish(result)
                waited(now - ticket.started_us)
        self.pending_count -= taken
        if len(self._queue):
            self._core.schedule()
        self._measures.appended(appends, events, size)
        self._pace.served(taken, self.unanswered(), now)

    def _answer_waiting(self, lane: Lane) -> None:
        waiting, lane.waiting = lane.waiting, []
        for retry in waiting:
            if retry.place.index > lane.commit:
                lane.waiting.append(retry)
            elif self._core.entry_term(lane.view.partition, retry.place.index) == retry.term:
                self._answer_again(retry.place, retry.ticket)
            else:
                self._lose([retry.ticket])

    def changed(self, lane: Lane, change: RoleChange) -> None:
        """The group's role, term or leader changed. Answers that wait on an older leadership are in doubt
        now; what the lane remembers of the log may be truncated by others."""
        while self.answer(lane):  # what is committed is so whoever leads
            pass
        leads_in = change.term if change.role == Role.LEADER else None
        pending, lane.pending = lane.pending, deque()
        lost: list[Ticket] = []
        for proposed in pending:  # the pump may have proposed in a new term before its beginning is told
            if proposed.entry.term == leads_in:
                lane.pending.append(proposed)
            else:
                lost += proposed.unanswered()
        if not lane.pending:
            lane.view.forget()
        self.pending_count -= len(lost)
        self._core.schedule()
        waiting, lane.waiting = lane.waiting, []
        self._lose(lost + [retry.ticket for retry in waiting])

    def _lose(self, tickets: list[Ticket]) -> None:
        """Their attempts here have ended without an answer: they are in doubt, and routed anew."""
        for ticket in tickets:
            ticket.lost()
            self._retry(ticket)

    def again(self, lane: Lane, place: Place, ticket: Ticket) -> None:
        """Answer a retry from the entry that holds its append, as soon as that is committed."""
        partition = ticket.partition
        if place.index > self._core.commit_index(partition):
            ticket.out = True
            lane.waiting.append(WaitingRetry(self._core.entry_term(partition, place.index), place, ticket))
        else:
            self._answer_again(place, ticket)

    def _answer_again(self, place: Place, ticket: Ticket) -> None:
        """Answer for the one append at `place`, whatever else its entry holds."""
        if ticket.reply is not None:
            request = ticket.request
            assert isinstance(request, AppendRequest)
            try:
                (entry,) = self._entries.at(ticket.partition, [place.index])
                answer = answer_again(request, entry.stored(place.ordinal), entry.content(place.ordinal))
            except Corrupt as error:
                self._core.quarantine(ticket.partition, error)
                self._lose([ticket])
                return
            if isinstance(answer, AllsourceError):
                self.refuse(ticket, answer)
            else:
                self._measures.duplicate()
                ticket.finish(answer)

    def refuse(self, ticket: Ticket, error: AllsourceError) -> None:
        """Answer with an error of the present attempt."""
        self._measures.refused(error)
        ticket.refuse(error)
