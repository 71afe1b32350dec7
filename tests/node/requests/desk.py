"""The write path of an owner for tests: over a core that a test plays, a loop turn at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from allsource.cluster.budgets.turns import AtOnce
from allsource.cluster.consensus.messages import Role, RoleChange
from allsource.cluster.protocol.requests import AppendRequest
from allsource.config.schema import Limits
from allsource.node.observe.measures import Measures
from allsource.node.observe.metrics import LockFreeMetrics
from allsource.node.requests.entries import RecentEntries
from allsource.node.requests.ingest import Ingest
from allsource.node.requests.queue import LockFreeEventQueue
from allsource.node.requests.tickets import Ticket
from allsource.storage.memory import MemoryStorage
from allsource.storage.model.chunks import pack_events
from allsource.storage.model.entry import EVENTS, Entry, NewAppend, make_entry
from allsource.storage.model.errors import Corrupt
from allsource.storage.model.log import PartitionWrite
from tests.node.appends import events
from tests.storage.logs import new_append

P = 0


class Core:
    """Leads partition 0 in a term; commits when the test says so."""

    def __init__(self, storage: MemoryStorage) -> None:
        self.storage = storage
        self.term = 1
        self.leads = True
        self.moving = False
        self.quorum = True
        self.room = True
        self.log: list[Entry] = []
        self.unwritten: list[Entry] = []
        self.commit = 0
        self.reads: list[tuple[Any, int]] = []
        self.scheduled = 0
        self.quarantined: list[tuple[int, Corrupt]] = []

    def quarantine(self, partition: int, found: Corrupt) -> None:
        self.quarantined.append((partition, found))
        self.leads = False

    def is_leader(self, partition: int) -> bool:
        return self.leads

    def can_propose(self, partition: int) -> bool:
        return self.leads and self.room and not self.moving

    def is_handing_over(self, partition: int) -> bool:
        return self.moving

    def quorum_is_up(self, partition: int) -> bool:
        return self.quorum

    def commit_index(self, partition: int) -> int:
        return self.commit

    def entry_term(self, partition: int, index: int) -> int | None:
        return self.log[index - 1].term if 0 < index <= len(self.log) else None

    def next_index(self, partition: int) -> int:
        return len(self.log) + 1

    def propose(self, partition: int, appends: Sequence[NewAppend], timestamp_us: int) -> Entry:
        assert self.can_propose(partition), "consensus takes nothing now"
        entry = make_entry(
            partition=P,
            index=len(self.log) + 1,
            term=self.term,
            kind=EVENTS,
            first_position=sum(entry.count for entry in self.log) + 1,
            timestamp_us=timestamp_us,
            appends=appends,
        )
        self.log.append(entry)
        self.unwritten.append(entry)
        return entry

    def schedule(self) -> None:
        self.scheduled += 1

    def read(self, partition: int, ticket: object, min_index: int) -> None:
        self.reads.append((ticket, min_index))


class Desk:
    """The write path, a loop turn at a time."""

    def __init__(self, turns: AtOnce | None = None, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self.storage = MemoryStorage(partition_count=1)
        self.entries = RecentEntries(self.storage)
        self.core = Core(self.storage)
        self.metrics = LockFreeMetrics()
        self.retried: list[Ticket] = []
        self.now = 0
        self.turns = AtOnce() if turns is None else turns
        self.ingest = Ingest(
            self.core,
            self.storage,
            self.entries,
            LockFreeEventQueue(2000),
            self.limits,
            Measures(self.metrics),
            retry=self.retried.append,
            now_us=lambda: self.now,
            wall_us=lambda: 1000,
            turns=self.turns,
        )

    def ask(self, request: AppendRequest, within_us: int = 5_000_000) -> tuple[Ticket, list[Any]]:
        answers: list[Any] = []
        ticket = Ticket(request, P, self.now, self.now + within_us, False, answers.append)
        self.ingest.submit(ticket)
        return ticket, answers

    def turn(self) -> bool:
        more = self.ingest.pump()
        if self.core.unwritten:
            self.storage.write([PartitionWrite(P, entries=self.core.unwritten)])
            self.core.unwritten = []
        return more

    def commit(self, index: int) -> None:
        self.core.commit = index
        self.ingest.committed(P, index)

    def counted(self, name: str) -> int:
        """What a counter stands at."""
        return self.metrics.counter(name)

    def proposed(self) -> list[int]:
        """How many appends each entry has."""
        return [len(entry.appends) for entry in self.core.log]

    def settle(self) -> None:
        """Everything that was asked is decided, committed and confirmed."""
        while self.turn():
            pass
        self.commit(len(self.core.log))
        reads, self.core.reads = self.core.reads, []
        for ticket, index in reads:
            ticket.confirmed(index, ok=True)

    def depose(self) -> None:
        self.core.leads = False
        self.core.term += 1
        self.ingest.changed(RoleChange(P, self.core.term, Role.FOLLOWER, "n2"))

    def truncate(self, index: int) -> None:
        """The next owner overwrote what was not committed."""
        del self.core.log[index - 1 :]
        self.storage.write([PartitionWrite(P, truncate_from=index)])

    def overwritten(self, stream: str, appends: int = 1) -> None:
        """Another owner appends in place of what was not committed."""
        chunks = pack_events(events())
        self.core.propose(P, [new_append((stream, n + 1, 0, chunks)) for n in range(appends)], 0)

    def lead_again(self) -> None:
        self.core.leads = True
        self.core.term += 1
        self.ingest.changed(RoleChange(P, self.core.term, Role.LEADER, "n1"))
