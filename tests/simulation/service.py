"""What the real node does around its core, in its smallest honest form: decide appends, answer them.

The core replicates whatever it is given; that an append finds its expected version, is not stored
twice, and is answered once and rightly, is the work of the node's pump (`node/requests/ingest.py`). This
is a second, independent telling of it: check the ids, then the versions against heads that include what
is not committed, propose, and keep the answer under (partition, term, index) until it is committed or the
leadership is lost (rule 6). A rejection waits for a read barrier, so that a deposed leader never gives
one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, Protocol

from allsource.cluster.consensus.messages import ReadResult, Role, RoleChange
from allsource.storage.model.entry import Entry, Part
from allsource.storage.model.expected import is_met
from tests.simulation.disk import blob_of, ids_of
from tests.simulation.history import LINEARIZABLE, WHOLE_PARTITION, Conflict, Intent, Placed, ReadOperation
from tests.simulation.invariants import Violation
from tests.simulation.network import Wired

if TYPE_CHECKING:
    from tests.simulation.node import SimNode


class NotHere(NamedTuple):
    """This attempt surely did nothing; `owner` may know more."""

    owner: str | None


class Lost(NamedTuple):
    """Nobody knows what became of this attempt."""


class Taken(NamedTuple):
    """Event ids of the append are stored with other content."""


class Seen(NamedTuple):
    """What a read returned: event ids in order."""

    ids: tuple[bytes, ...]


Answer = Placed | Conflict | Taken | NotHere | Lost | Seen


Reply = Callable[[Answer], None]


class _Rejection(NamedTuple):
    conflict: Conflict
    reply: Reply


class _Read(NamedTuple):
    stream: str
    reply: Reply


class Door(Protocol):
    """What a simulated node has around its core: clients and the shell call it."""

    def append(self, partition: int, intents: tuple[Intent, ...], reply: Reply) -> None:
        """Take one attempt to append; `reply` is called once, sooner or later."""

    def read(self, operation: ReadOperation, reply: Reply) -> None:
        """Take a read of a stream or a partition, of any kind."""

    def leaving(self) -> None:
        """The process shuts down: it hands over what it leads, and takes nothing new."""

    def pump(self) -> bool:
        """A turn of the loop begins. True if more is left for another turn."""
        return False

    def hear(self, sender: str, wired: Wired) -> None:
        """Another node's door has said something."""

    def peer_lost(self, peer: str) -> None:
        """A connection with a peer broke."""

    def written(self) -> None:
        """What was proposed is on the disk now."""

    def role_changed(self, change: RoleChange) -> None:
        """A group's role, term or leader changed."""

    def committed(self, partition: int, commit: int) -> None:
        """Everything up to `commit` is committed."""

    def read_confirmed(self, result: ReadResult) -> None:
        """A read barrier ended."""

    def process_died(self) -> None:
        """All connections of clients end."""

    def waiting(self) -> int:
        """How many requests have no answer yet."""
        return 0


class Service(Door):
    """The model of it."""

    def __init__(self, node: SimNode) -> None:
        self._node = node
        self._pending: dict[int, list[tuple[int, int, Reply]]] = {p: [] for p in node.hosted}
        """By partition: (term of the leadership, index, reply), in order of arrival."""
        self._fresh: dict[int, list[Entry]] = {p: [] for p in node.hosted}
        """Proposed in this turn, and not written to the disk yet."""
        self._tickets: list[Reply] = []
        self._open_reads: dict[int, _Rejection | _Read] = {}
        self._applied = {p: node.disk.load(p).hard.commit for p in node.hosted}
        """Committed, and on the disk where reads see it."""
        self._behind: dict[int, list[tuple[ReadOperation, Reply]]] = {p: [] for p in node.hosted}
        """Token reads that wait for their entry."""
        self._next_ticket = 0

    # -- requests

    def append(self, partition: int, intents: tuple[Intent, ...], reply: Reply) -> None:
        """Take one attempt to append; `reply` is called once, sooner or later."""
        core = self._node.core
        if partition not in self._pending or not core.is_leader(partition):
            reply(NotHere(core.leader_of(partition)))
            return
        for intent in intents:
            stored = self._find(partition, intent.ids[0])
            if stored is not None:
                self._answer_when_committed(partition, stored, _only_if_same(intents, stored, reply))
                return
        for intent in intents:
            actual, index = self._head(partition, intent.stream)
            if not is_met(intent.expected, actual):
                conflict = Conflict(intent.stream, intent.expected, actual)
                self._after_barrier(partition, index, _Rejection(conflict, reply))
                return
        if not core.can_propose(partition):
            reply(NotHere(None))
            return
        self._propose(partition, intents, reply)

    def read(self, operation: ReadOperation, reply: Reply) -> None:
        """Take a read of a stream or a partition, of any kind."""
        core, partition, stream = self._node.core, operation.partition, operation.stream
        if operation.kind != LINEARIZABLE and partition in self._applied:
            if operation.token <= self._applied[partition]:
                reply(self._seen(partition, stream, self._applied[partition]))
            else:
                self._behind[partition].append((operation, reply))
            return
        if partition not in self._pending or not core.is_leader(partition):
            reply(NotHere(core.leader_of(partition)))
            return
        self._after_barrier(partition, 0, _Read(stream, reply))

    def _propose(self, partition: int, intents: tuple[Intent, ...], reply: Reply) -> None:
        parts = tuple(
            Part(i.stream, self._head(partition, i.stream)[0] + 1, len(i.ids), i.ids[0], blob_of(i.ids))
            for i in intents
        )
        entry = self._node.core.propose(partition, parts, self._node.clock())
        self._fresh[partition].append(entry)
        self._pending[partition].append((entry.term, entry.index, reply))

    def _answer_when_committed(self, partition: int, entry: Entry, reply: Reply) -> None:
        """Answer a retry: its entry is in the log, perhaps of an older term, perhaps uncommitted."""
        if entry.index <= self._node.core.commit_index(partition):
            reply(_placed(entry))
        else:
            leading = self._node.leading.get(partition, 0)
            self._pending[partition].append((leading, entry.index, reply))

    def _after_barrier(self, partition: int, index: int, waiting: _Rejection | _Read) -> None:
        self._next_ticket += 1
        self._open_reads[self._next_ticket] = waiting
        self._node.core.read(partition, self._next_ticket, index, self._node.clock())

    # -- what the log holds, uncommitted entries included

    def _find(self, partition: int, first_id: bytes) -> Entry | None:
        for entry in self._fresh[partition]:
            if any(part.first_id == first_id for part in entry.parts):
                return entry
        index = self._node.disk.index[partition].appends.get(first_id)
        return None if index is None else self._node.disk.view[partition].at(index)

    def _head(self, partition: int, stream: str) -> tuple[int, int]:
        """Version of the stream, and index of the entry that holds it."""
        for entry in reversed(self._fresh[partition]):
            for part in entry.parts:
                if part.stream == stream:
                    return part.last_version, entry.index
        index = self._node.disk.index[partition]
        return index.version(stream), index.head_index(stream)

    # -- what the core tells

    def written(self) -> None:
        """What was proposed is on the disk now, where `_find` and `_head` see it."""
        for fresh in self._fresh.values():
            fresh.clear()

    def role_changed(self, change: RoleChange) -> None:
        """Answers that wait on a leadership which is over end as unknown (rule 6)."""
        pending = self._pending[change.partition]
        leading = change.term if change.role == Role.LEADER else None
        self._pending[change.partition] = [waiting for waiting in pending if waiting[0] == leading]
        for term, _, reply in pending:
            if term != leading:
                reply(Lost())

    def committed(self, partition: int, commit: int) -> None:
        """Answer everything up to `commit`."""
        self._applied[partition] = commit
        behind = self._behind[partition]
        if behind:
            self._behind[partition] = [item for item in behind if item[0].token > commit]
            for operation, reply in behind:
                if operation.token <= commit:
                    reply(self._seen(partition, operation.stream, commit))
        pending = self._pending[partition]
        if not pending:
            return
        self._pending[partition] = [waiting for waiting in pending if waiting[1] > commit]
        for _, index, reply in pending:
            if index <= commit:
                entry = self._node.disk.view[partition].at(index)
                assert entry is not None
                reply(_placed(entry))

    def read_confirmed(self, result: ReadResult) -> None:
        """Serve or refuse a read, or give a rejection that waited for it."""
        assert isinstance(result.ticket, int)
        waiting = self._open_reads.pop(result.ticket)
        if not result.ok:
            waiting.reply(NotHere(None))
        elif isinstance(waiting, _Rejection):
            waiting.reply(waiting.conflict)
        else:
            if result.index > self._node.core.commit_index(result.partition):
                raise Violation(
                    "reads see what is committed",
                    f"{self._node.name} reads {result.partition} up to {result.index}",
                )
            waiting.reply(self._seen(result.partition, waiting.stream, result.index))

    def _seen(self, partition: int, stream: str, commit: int) -> Seen:
        disk = self._node.disk
        if stream == WHOLE_PARTITION:
            entries = disk.view[partition].entries[:commit]
            return Seen(tuple([i for entry in entries for part in entry.parts for i in ids_of(part.blob)]))
        return Seen(disk.index[partition].events_up_to(stream, commit))

    def process_died(self) -> None:
        """All connections of clients end."""
        for pending in self._pending.values():
            for _, _, reply in pending:
                reply(Lost())
        for waiting in self._open_reads.values():
            waiting.reply(Lost())
        for behind in self._behind.values():
            for _, reply in behind:
                reply(Lost())

    def waiting(self) -> int:
        """How many requests have no answer yet."""
        return len(self._open_reads) + sum(map(len, self._pending.values()))


def _only_if_same(intents: tuple[Intent, ...], stored: Entry, reply: Reply) -> Reply:
    """The same append again gets its answer; other content under an id that is taken does not."""
    same = [(i.stream, i.ids) for i in intents] == [
        (part.stream, tuple(ids_of(part.blob))) for part in stored.parts
    ]
    return reply if same else lambda answer: reply(Taken() if isinstance(answer, Placed) else answer)


def _placed(entry: Entry) -> Placed:
    return Placed(
        entry.index, entry.term, entry.first_position, tuple([part.first_version for part in entry.parts])
    )
