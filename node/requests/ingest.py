"""The write path at the owner: queue, pump, and the groups that the pump proposes.

Nothing here awaits one append at a time. Appends gather in the bounded `LockFreeEventQueue`; once per
loop turn the pump drains it, decides about each append, and proposes what was decided for a partition as
*one* entry, so that one entry, one write, one sync and one frame per peer carry them all. When the core
says that a partition is committed up to an index, everything that waited for it is answered in one go
(`answering`).

A group (`lanes`) is proposed at the end of the pump; earlier if it is full, and as soon as an answer rests
on one of its appends, because a read barrier must not ask for an index that does not exist. Until then
nothing of it is in any log: what is given up with a group was surely not appended.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from allsource.cluster.budgets.turns import AtOnce
from allsource.cluster.consensus.messages import RoleChange
from allsource.cluster.protocol.requests import AppendRequest
from allsource.config.schema import Limits
from allsource.node.observe.measures import Measures
from allsource.node.requests.answering import Answering, Confirmer
from allsource.node.requests.entries import RecentEntries
from allsource.node.requests.faults import OnFault, not_expected
from allsource.node.requests.lanes import Lane, Proposed, size_in_record
from allsource.node.requests.log_view import Indexes, LogView
from allsource.node.requests.pace import Pace
from allsource.node.requests.queue import LockFreeEventQueue
from allsource.node.requests.tickets import Ticket
from allsource.storage.interface import Refusal
from allsource.storage.model.append import Known, Unmet, check_append, decide
from allsource.storage.model.entry import Entry, NewAppend
from allsource.storage.model.errors import (
    AllsourceError,
    Corrupt,
    InvalidRequest,
    NoMajority,
    Overloaded,
    QueueFull,
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


class Proposer(Confirmer, Protocol):
    """What the write path asks of consensus; `Driver` has it."""

    def is_leader(self, partition: int) -> bool: ...

    def can_propose(self, partition: int) -> bool: ...

    def is_handing_over(self, partition: int) -> bool: ...

    def quorum_is_up(self, partition: int) -> bool: ...

    def next_index(self, partition: int) -> int:
        """The index that the next proposed entry will have."""
        ...

    def propose(self, partition: int, appends: Sequence[NewAppend], timestamp_us: int) -> Entry: ...

    def read(self, partition: int, ticket: object, min_index: int) -> None: ...


class Store(Indexes, Protocol):
    """The part of `Storage` that the write path reads."""

    def pressure(self) -> Refusal | None: ...


class Ingest:
    """See the module's page. `retry` is given tickets whose attempt here has ended without an answer;
    `now_us` is the monotonic clock of the deadlines, `wall_us` the time that events are stamped with;
    `turns` is the budget for giving answers; `entries` gives the entries that retries are answered from."""

    def __init__(
        self,
        core: Proposer,
        store: Store,
        entries: RecentEntries,
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
        self._pace = Pace()
        self._now = 0
        self._timestamp_us = 0
        self._pressure: Refusal | None = None
        self._on_fault = on_fault
        self._core = core
        self._store = store
        self._queue = queue
        self._limits = limits
        self._retry = retry
        self._now_us = now_us
        self._wall_us = wall_us
        self._answers = Answering(
            core, entries, queue, self._pace, measures, retry=retry, now_us=now_us, turns=turns
        )
        self._lanes: dict[int, Lane] = {}
        self._open: list[Lane] = []
        """Those with a group that was begun since the last turn, perhaps proposed already."""
        self._touched: dict[int, LogView] = {}

    # -- in

    def submit(self, ticket: Ticket) -> None:
        """Queue an append for the next turn's pump. Refused if the queue is full, or so long that it would
        take more than half of the time that the append has."""
        if self._pace.per_us is not None:
            wait_us = self._pace.wait_us(self._answers.unanswered())
            if 2 * wait_us > ticket.deadline_us - self._now_us():
                self._answers.refuse(ticket, _too_late(ticket, wait_us))
                return
        try:
            self._queue.try_push(ticket)
        except QueueFull as error:
            self._answers.refuse(ticket, error)
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
        self._pressure = self._store.pressure()
        self._timestamp_us = self._wall_us()
        self._now = self._now_us()
        end = self._now + PUMP_US
        drained, pending_before = 0, self._answers.pending_count
        while tickets:
            drained += len(tickets)
            for ticket in tickets:
                if ticket.reply is not None:
                    self._take(ticket)
            self._now = self._now_us()
            room = self._room()
            if self._now >= end or room <= 0:
                break
            tickets = self._queue.drain(min(room, DRAIN_AT_ONCE))
        for lane in self._open:
            if lane.is_open:
                self._propose(lane)
        self._open.clear()
        proposed = self._answers.pending_count - pending_before
        self._pace.served(drained - proposed, self._answers.unanswered(), self._now)
        return room > 0 and len(self._queue) > 0

    def _room(self) -> int:
        """How many more may be proposed. When none may, the next answers make room, and ask for a turn."""
        per_us = self._pace.per_us
        most = PENDING_MAX if per_us is None else max(PENDING_MAX, int(PENDING_US * per_us))
        return most - self._answers.pending_count

    def _take(self, ticket: Ticket) -> None:
        """Decide about an append, and do what was decided."""
        partition = ticket.partition
        core = self._core
        if not core.is_leader(partition):
            self._retry(ticket)
            return
        request = ticket.request
        assert isinstance(request, AppendRequest)
        pending_us = self._pace.wait_us(self._answers.pending_count)
        if pending_us and self._now + pending_us > ticket.deadline_us:  # it would end as unknown
            self._answers.refuse(ticket, _too_late(ticket, pending_us))
            return
        lane = self._lanes.get(partition)
        if lane is None:
            lane = self._lanes[partition] = Lane(LogView(self._store, partition), self._answers.answer)
        try:
            checked = check_append(request, self._limits)
        except InvalidRequest as error:
            self._answers.refuse(ticket, error)
            return
        except Exception as error:  # what is checked came from outside, and nothing was decided yet
            self._answers.refuse(ticket, self._on_fault(error))
            return
        try:
            decision = decide(request, checked, lane.view)
        except Corrupt as error:
            core.quarantine(partition, error)
            self._retry(ticket)
            return
        if type(decision) is NewAppend:
            self._join(lane, decision, ticket)
        elif isinstance(decision, Known):
            if self._is_proposed(lane, decision.place.index):
                self._answers.again(lane, decision.place, ticket)
            else:
                self._retry(ticket)
        else:
            assert isinstance(decision, Unmet)
            if self._is_proposed(lane, decision.index):
                # What it rests on may never be committed, or this node may be deposed without knowing: a
                # definite "no" needs the same proof as a linearizable read.
                core.read(partition, _Rejection(self, ticket, decision.error), decision.index)
            else:
                self._retry(ticket)

    # -- groups

    def _join(self, lane: Lane, new: NewAppend, ticket: Ticket) -> None:
        """Put an append that was decided into its partition's group, if something may be appended now."""
        core, partition = self._core, ticket.partition
        size = size_in_record(new)
        if lane.is_open and not lane.has_room(size) and not self._propose(lane):
            self._retry(ticket)
        elif self._pressure is None and core.can_propose(partition) and core.quorum_is_up(partition):
            if not lane.is_open:
                lane.index = core.next_index(partition)
                self._open.append(lane)
            lane.join(new, ticket, size)
            self._answers.pending_count += 1
        else:
            self._put_off(ticket)

    def _is_proposed(self, lane: Lane, index: int) -> bool:
        """An answer rests on the entry at `index`: propose it, if it is the open group. False if that
        cannot be done any more."""
        return not lane.is_open or index < lane.index or self._propose(lane)

    def _propose(self, lane: Lane) -> bool:
        """Propose a lane's group. False if that cannot be done any more, because the partition was given up
        or over since: nothing of it happened, and all of it is tried anew."""
        core, partition = self._core, lane.view.partition
        if not core.can_propose(partition):
            tickets = lane.drop(core.entry_term)
            self._answers.pending_count -= len(tickets)
            for ticket in tickets:
                self._retry(ticket)
            return False
        appends, tickets = lane.close()
        entry = core.propose(partition, appends, self._timestamp_us)
        for ticket in tickets:
            ticket.out = True
        lane.pending.append(Proposed(entry, tickets))
        self._touched[partition] = lane.view
        return True

    def _put_off(self, ticket: Ticket) -> None:
        """Nothing may be appended now; say why, before a version is assigned (rules 21 and 24)."""
        core, partition = self._core, ticket.partition
        error: AllsourceError
        if self._pressure is not None:
            error = self._pressure.as_error(partition)
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
        self._answers.refuse(ticket, error)

    # -- out

    def committed(self, partition: int, commit: int) -> None:
        """Everything up to `commit` is committed."""
        lane = self._lanes.get(partition)
        if lane is not None:
            self._answers.committed(lane, commit)

    def changed(self, change: RoleChange) -> None:
        """A group's role, term or leader changed."""
        lane = self._lanes.get(change.partition)
        if lane is not None:
            self._answers.changed(lane, change)
            if not lane.pending:  # and nothing is remembered that storage would have to get
                self._touched.pop(change.partition, None)

    def under_way(self) -> int:
        """How many appends are queued here, or wait for a majority."""
        return len(self._queue) + sum(lane.under_way() for lane in self._lanes.values())

    def rejection_confirmed(self, ticket: Ticket, error: AllsourceError, *, ok: bool) -> None:
        """The read barrier of a failed expectation ended."""
        if ok:
            self._answers.refuse(ticket, error)
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

    def __init__(self, ingest: Ingest, ticket: Ticket, error: AllsourceError) -> None:
        self._ingest = ingest
        self._ticket = ticket
        self._error = error

    def confirmed(self, index: int, *, ok: bool) -> None:
        """The core's answer; `index` does not matter here."""
        self._ingest.rejection_confirmed(self._ticket, self._error, ok=ok)
