"""The write path at the owner: queue, pump, and the answers that wait for a majority.

Nothing here awaits one append at a time. Appends gather in the bounded `LockFreeEventQueue`; once per
loop turn the pump drains it and proposes everything, so that one write, one sync and one frame per
peer carry them all; when the core says that a partition is committed up to an index, everything that
waited for it is answered in one go.

Invariant: an append is answered as committed only from `committed`, and only if the entry that is
committed at its index is its own, term and all (RULES.md rules 6 and 32). A leadership that ends takes
all its waiting answers with it: they become "in doubt" and are routed anew with the same event ids, never
guessed. The two do not rest on each other: answers are right even if the news that a leadership ended
never came.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import NamedTuple, Protocol

from allsource.cluster.budgets.turns import AtOnce
from allsource.cluster.consensus.messages import Role, RoleChange
from allsource.cluster.protocol.requests import AppendRequest
from allsource.config.schema import Limits
from allsource.node.observe.measures import Measures
from allsource.node.requests.faults import OnFault, not_expected
from allsource.node.requests.log_view import Indexes, LogView
from allsource.node.requests.pace import Pace
from allsource.node.requests.queue import LockFreeEventQueue
from allsource.node.requests.tickets import Ticket
from allsource.storage.interface import Refusal
from allsource.storage.model.append import Known, Unmet, answer_again, check_append, decide, result_of
from allsource.storage.model.entry import Entry, Part
from allsource.storage.model.errors import (
    AllsourceError,
    Corrupt,
    InvalidRequest,
    NoMajority,
    Overloaded,
    QueueFull,
    WrongExpectedVersion,
)

PUMP_US = 10_000
"""About how long one turn's pump may take. An append may cost 20 us or, with thousands of events, ten
milliseconds; the beats must go out in between, and what is left in the queue is the back-pressure."""
PENDING_MAX = 2_048
PENDING_US = 250_000
"""Appends that may wait for a majority at once: so many, or what is committed in so long, whichever is
more. The rest waits in the queue, where it can be refused definitely; what is proposed and not confirmed
in time ends as unknown."""
DRAIN_AT_ONCE = 16
ANSWERED_AT_ONCE = 64
"""Appends answered in one step of a turn."""


class Proposer(Protocol):
    """What the write path asks of consensus; `Driver` has it."""

    def is_leader(self, partition: int) -> bool: ...

    def can_propose(self, partition: int) -> bool: ...

    def is_handing_over(self, partition: int) -> bool: ...

    def quorum_is_up(self, partition: int) -> bool: ...

    def commit_index(self, partition: int) -> int: ...

    def entry_term(self, partition: int, index: int) -> int | None: ...

    def propose(self, partition: int, parts: tuple[Part, ...], timestamp_us: int) -> Entry: ...

    def quarantine(self, partition: int, error: Corrupt) -> None: ...

    def read(self, partition: int, ticket: object, min_index: int) -> None: ...

    def schedule(self) -> None: ...


class Store(Indexes, Protocol):
    """The part of `Storage` that the write path reads."""

    def entries_at(self, partition: int, indexes: list[int]) -> list[Entry]: ...

    def pressure(self) -> Refusal | None: ...


class WaitingRetry(NamedTuple):
    """A retry of an append that is in the log and not committed yet."""

    term: int | None
    """Of the entry, when the retry came."""
    log_index: int
    ticket: Ticket


class Lane:
    """One partition's waiting answers. `answer` gives some of them, and says whether more can be given."""

    __slots__ = ("_answer", "commit", "pending", "view", "waiting")

    def __init__(self, view: LogView, answer: Callable[[Lane], bool]) -> None:
        self.view = view
        self._answer = answer
        self.commit = 0
        """Up to which index everything is committed, and is to be answered."""
        self.pending: deque[tuple[Entry, Ticket]] = deque()
        """Indexes only grow within a term, so commits pop from the left."""
        self.waiting: list[WaitingRetry] = []

    def step(self) -> bool:
        """Answer some (`turns.Worker`)."""
        return self._answer(self)


class Ingest:
    """See the module's page. `retry` is given tickets whose attempt here has ended without an answer;
    `now_us` is the monotonic clock of the deadlines, `wall_us` the time that events are stamped with;
    `turns` is the budget for giving answers, of which one commit may allow tens of thousands."""

    def __init__(
        self,
        core: Proposer,
        store: Store,
        queue: LockFreeEventQueue[Ticket],
        limits: Limits,
        measures: Measures,
        *,
        retry: Callable[[Ticket], None],
        now_us: Callable[[], int],
        wall_us: Callable[[], int],
        turns: AtOnce,
        on_fault: OnFault = not_expected,
    ) -> None:
        self._turns = turns
        self._pace = Pace()
        self._pending_count = 0
        self._now = 0
        self._on_fault = on_fault
        self._core = core
        self._store = store
        self._queue = queue
        self._limits = limits
        self._measures = measures
        self._retry = retry
        self._now_us = now_us
        self._wall_us = wall_us
        self._lanes: dict[int, Lane] = {}
        self._touched: dict[int, LogView] = {}

    # -- in

    def submit(self, ticket: Ticket) -> None:
        """Queue an append for the next turn's pump. Refused if the queue is full, or so long that it would
        take more than half of the time that the append has."""
        if self._pace.per_us is not None:
            wait_us = self._pace.wait_us(self._unanswered())
            if 2 * wait_us > ticket.deadline_us - self._now_us():
                self._refuse(ticket, _too_late(ticket, wait_us))
                return
        try:
            self._queue.try_push(ticket)
        except QueueFull as error:
            self._refuse(ticket, error)
        else:
            self._core.schedule()

    def pump(self) -> bool:
        """Propose what the queue holds; storage has everything of earlier turns. True if more can be
        proposed."""
        if self._touched:
            for view in self._touched.values():
                view.written()
            self._touched.clear()
        room = self._room()
        tickets = self._queue.drain(min(room, DRAIN_AT_ONCE)) if room > 0 else []
        if not tickets:
            return False
        pressure = self._store.pressure()
        timestamp_us = self._wall_us()
        self._now = self._now_us()
        end = self._now + PUMP_US
        drained, pending_before = 0, self._pending_count
        while tickets:
            drained += len(tickets)
            for ticket in tickets:
                if ticket.reply is not None:
                    self._take(ticket, timestamp_us, pressure)
            self._now = self._now_us()
            room = self._room()
            if self._now >= end or room <= 0:
                break
            tickets = self._queue.drain(min(room, DRAIN_AT_ONCE))
        proposed = self._pending_count - pending_before
        self._pace.served(drained - proposed, self._unanswered(), self._now)
        return room > 0 and len(self._queue) > 0

    def _room(self) -> int:
        """How many more may be proposed. When none may, the next answers make room, and ask for a turn."""
        per_us = self._pace.per_us
        most = PENDING_MAX if per_us is None else max(PENDING_MAX, int(PENDING_US * per_us))
        return most - self._pending_count

    def _unanswered(self) -> int:
        return len(self._queue) + self._pending_count

    def _take(self, ticket: Ticket, timestamp_us: int, pressure: Refusal | None) -> None:
        partition = ticket.partition
        core = self._core
        if not core.is_leader(partition):
            self._retry(ticket)
            return
        request = ticket.request
        assert isinstance(request, AppendRequest)
        pending_us = self._pace.wait_us(self._pending_count)
        if pending_us and self._now + pending_us > ticket.deadline_us:  # it would end as unknown
            self._refuse(ticket, _too_late(ticket, pending_us))
            return
        lane = self._lanes.get(partition)
        if lane is None:
            lane = self._lanes[partition] = Lane(LogView(self._store, partition), self._answer)
        try:
            checked = check_append(request.parts, self._limits)
        except InvalidRequest as error:
            self._refuse(ticket, error)
            return
        except Exception as error:  # what is checked came from outside, and nothing was decided yet
            self._refuse(ticket, self._on_fault(error))
            return
        try:
            decision = decide(request.parts, checked, lane.view)
        except Corrupt as error:
            core.quarantine(partition, error)
            self._retry(ticket)
            return
        if type(decision) is tuple:
            if pressure is None and core.can_propose(partition) and core.quorum_is_up(partition):
                entry = core.propose(partition, decision, timestamp_us)
                ticket.out = True
                lane.view.proposed(entry)
                lane.pending.append((entry, ticket))
                self._pending_count += 1
                self._touched[partition] = lane.view
            else:
                self._put_off(ticket, pressure)
        elif isinstance(decision, Known):
            self._answer_or_wait(lane, decision.index, ticket)
        else:
            assert isinstance(decision, Unmet)
            # The version may rest on entries that are never committed, or this node may be deposed
            # without knowing: a definite "no" needs the same proof as a linearizable read.
            core.read(partition, _Rejection(self, ticket, decision.error), decision.index)

    def _put_off(self, ticket: Ticket, pressure: Refusal | None) -> None:
        """Nothing may be appended now; say why, before a version is assigned (rules 21 and 24)."""
        core, partition = self._core, ticket.partition
        error: AllsourceError
        if pressure is not None:
            error = pressure.as_error(partition)
        elif not core.quorum_is_up(partition):
            error = NoMajority(
                f"partition {partition} has too few replicas up to commit anything; nothing happened",
                partition=partition,
            )
        elif core.is_handing_over(partition):
            self._retry(ticket)
            return
        else:
            error = Overloaded(
                f"partition {partition} has too many bytes that wait for a majority; try again shortly",
                partition=partition,
            )
        self._refuse(ticket, error)

    # -- out

    def committed(self, partition: int, commit: int) -> None:
        """Everything up to `commit` is committed: answer what waited for it, when it is its turn."""
        lane = self._lanes.get(partition)
        if lane is not None:
            lane.commit = commit
            if lane.pending or lane.waiting:
                self._turns.add(lane)

    def _answer(self, lane: Lane) -> bool:
        """Answer some of what is committed, oldest first. True if more of it is left."""
        if lane.pending and lane.pending[0][0].index <= lane.commit:
            self._answer_pending(lane)
            if lane.pending and lane.pending[0][0].index <= lane.commit:
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
        while pending and pending[0][0].index <= commit and taken < ANSWERED_AT_ONCE:
            entry, ticket = pending.popleft()
            taken += 1
            # The newest committed entry is in the log of its term. What this node proposed earlier in that
            # very term is in the same log; what it proposed in an older term has to be looked up.
            if entry.term != term and term_at(partition, entry.index) != entry.term:
                self._lose(ticket)
                continue
            appends += 1
            events += entry.count
            size += len(entry.record)
            ticket.finish(result_of(entry, duplicate=False))
            waited(now - ticket.started_us)
        self._pending_count -= taken
        if len(self._queue):
            self._core.schedule()
        self._measures.appended(appends, events, size)
        self._pace.served(taken, self._unanswered(), now)

    def _answer_waiting(self, lane: Lane) -> None:
        waiting, lane.waiting = lane.waiting, []
        for retry in waiting:
            if retry.log_index > lane.commit:
                lane.waiting.append(retry)
            elif self._core.entry_term(lane.view.partition, retry.log_index) == retry.term:
                self._answer_again(lane.view.partition, retry.log_index, retry.ticket)
            else:
                self._lose(retry.ticket)

    def changed(self, change: RoleChange) -> None:
        """A group's role, term or leader changed. Answers that wait on an older leadership are in
        doubt now; what the lane remembers of the log may be truncated by others."""
        lane = self._lanes.get(change.partition)
        if lane is None:
            return
        while self._answer(lane):  # what is committed is so whoever leads
            pass
        leads_in = change.term if change.role == Role.LEADER else None
        pending, lane.pending = lane.pending, deque()
        lost = []
        for waits in pending:  # the pump may have proposed in a new term before its beginning is told
            if waits[0].term == leads_in:
                lane.pending.append(waits)
            else:
                lost.append(waits[1])
        if not lane.pending:
            lane.view.forget()
            self._touched.pop(change.partition, None)
        self._pending_count -= len(lost)
        self._core.schedule()
        waiting, lane.waiting = lane.waiting, []
        lost += [retry.ticket for retry in waiting]
        for ticket in lost:
            self._lose(ticket)

    def _lose(self, ticket: Ticket) -> None:
        """Its attempt here has ended without an answer: it is in doubt, and routed anew."""
        ticket.lost()
        self._retry(ticket)

    def under_way(self) -> int:
        """How many appends are queued here, or wait for a majority."""
        return len(self._queue) + sum(
            len(lane.pending) + len(lane.waiting) for lane in self._lanes.values()
        )

    def _answer_or_wait(self, lane: Lane, index: int, ticket: Ticket) -> None:
        """Answer a retry from the entry that holds its append, as soon as that is committed."""
        partition = ticket.partition
        if index > self._core.commit_index(partition):
            ticket.out = True
            lane.waiting.append(WaitingRetry(self._core.entry_term(partition, index), index, ticket))
        else:
            self._answer_again(partition, index, ticket)

    def _answer_again(self, partition: int, index: int, ticket: Ticket) -> None:
        if ticket.reply is not None:
            request = ticket.request
            assert isinstance(request, AppendRequest)
            try:
                entry = self._store.entries_at(partition, [index])[0]
            except Corrupt as error:
                self._core.quarantine(partition, error)
                self._lose(ticket)
                return
            answer = answer_again(request.parts, entry)
            if isinstance(answer, AllsourceError):
                self._refuse(ticket, answer)
            else:
                self._measures.duplicate()
                ticket.finish(answer)

    def _refuse(self, ticket: Ticket, error: AllsourceError) -> None:
        self._measures.refused(error)
        ticket.refuse(error)

    def rejection_confirmed(self, ticket: Ticket, error: WrongExpectedVersion, *, ok: bool) -> None:
        """The read barrier of a failed expectation ended."""
        if ok:
            self._refuse(ticket, error)
        else:
            self._retry(ticket)


def _too_late(ticket: Ticket, wait_us: int) -> QueueFull:
    return QueueFull(
        f"those before it take about {wait_us // 1000} ms, which is too much of the time that this append "
        "has; nothing was done, retry later or wait longer",
        partition=ticket.partition,
        wait_ms=wait_us // 1000,
    )


class _Rejection:
    """The ticket that a failed expectation takes through the read barrier (see `reads.Barrier`)."""

    __slots__ = ("_error", "_ingest", "_ticket")

    def __init__(self, ingest: Ingest, ticket: Ticket, error: WrongExpectedVersion) -> None:
        self._ingest = ingest
        self._ticket = ticket
        self._error = error

    def confirmed(self, index: int, *, ok: bool) -> None:
        """The core's answer; `index` does not matter here."""
        self._ingest.rejection_confirmed(self._ticket, self._error, ok=ok)
