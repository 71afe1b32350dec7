"""What the real node does around its core, in its smallest honest form: decide appends, answer them.

The core replicates whatever it is given; that an append finds its expected version, is not stored
twice, and is answered once and rightly, is the work of the node's pump (`node/requests/ingest.py`). This
is a second, independent telling of it: gather the appends of a turn, decide each behind those before it
(`draft`), propose them as one entry, and keep each answer under (partition, term, index) and its number in
the entry until that is committed or the leadership is lost (rule 6). A rejection waits for a read barrier,
so that a deposed leader never gives one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

from allsource.cluster.consensus.messages import ReadResult, Role, RoleChange
from allsource.storage.model.entry import Entry, Place
from tests.simulation.disk import Held, ids_of, parts_of
from tests.simulation.draft import Draft, Refused, stored_as
from tests.simulation.history import (
    A_MARK,
    A_TAG,
    LINEARIZABLE,
    WHOLE_PARTITION,
    AppendOperation,
    Conflict,
    Placed,
    ReadOperation,
    Unmoved,
)
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
    """What a read returned: event ids in order, with their numbers; or a mark: `(generation, position)`."""

    ids: tuple[bytes, ...] = ()
    numbers: tuple[int, ...] = ()
    mark: tuple[int, int] = (0, 0)


Answer = Placed | Conflict | Unmoved | Taken | NotHere | Lost | Seen


Reply = Callable[[Answer], None]


class _Pending(NamedTuple):
    """An append that waits to be committed: `term` is that of the leadership."""

    term: int
    place: Place
    reply: Reply


class _Rejection(NamedTuple):
    conflict: Conflict | Unmoved
    reply: Reply


class _Read(NamedTuple):
    stream: str
    reply: Reply


class Door(Protocol):
    """What a simulated node has around its core: clients and the shell call it."""

    def append(self, operation: AppendOperation, reply: Reply) -> None:
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

    drafts: type[Draft] = Draft

    def __init__(self, node: SimNode) -> None:
        self._node = node
        self._pending: dict[int, list[_Pending]] = {p: [] for p in node.hosted}
        """By partition, in order of arrival."""
        self._drafts = {p: self.drafts(node.disk.index[p]) for p in node.hosted}
        self._queue: list[tuple[AppendOperation, Reply]] = []
        """Appends of this turn."""
        self._refused: list[tuple[int, int, _Rejection]] = []
        """Partition, index that it rests on, rejection: of this turn."""
        self._tickets: list[Reply] = []
        self._open_reads: dict[int, _Rejection | _Read] = {}
        self._applied = {p: node.disk.load(p).hard.commit for p in node.hosted}
        """Committed, and on the disk where reads see it."""
        self._behind: dict[int, list[tuple[ReadOperation, Reply]]] = {p: [] for p in node.hosted}
        """Token reads that wait for their entry."""
        self._next_ticket = 0

    # -- requests

    def append(self, operation: AppendOperation, reply: Reply) -> None:
        """Take one attempt to append; `reply` is called once, sooner or later."""
        core, partition = self._node.core, operation.partition
        if partition not in self._pending or not core.is_leader(partition):
            reply(NotHere(core.leader_of(partition)))
        else:
            self._queue.append((operation, reply))

    def pump(self) -> bool:
        """Decide and propose what came since the last turn."""
        queue, self._queue = self._queue, []
        for operation, reply in queue:
            self._take(operation, reply)
        for partition, draft in self._drafts.items():
            self._propose(partition, draft)
        refused, self._refused = self._refused, []
        for partition, index, rejection in refused:  # behind what they may rest on
            self._after_barrier(partition, index, rejection)
        return False

    def _take(self, operation: AppendOperation, reply: Reply) -> None:
        core, partition = self._node.core, operation.partition
        draft = self._drafts[partition]
        if not core.is_leader(partition):
            reply(NotHere(core.leader_of(partition)))
            return
        if len(draft.group) == self._node.plan.group_max:
            self._propose(partition, draft)
        may_propose = core.can_propose(partition)
        place = Place(core.next_index(partition), len(draft.group))
        decided = draft.decide(operation, place.index)
        if isinstance(decided, Place):
            self._answer_again(operation, decided, reply)
        elif isinstance(decided, Refused):
            self._refused.append((partition, decided.index, _Rejection(decided.conflict, reply)))
        elif may_propose:
            self._pending[partition].append(_Pending(core.term_of(partition), place, reply))
        else:
            draft.take_back()
            reply(NotHere(None))

    def _propose(self, partition: int, draft: Draft) -> None:
        if draft.group:
            self._node.core.propose(partition, draft.group, self._node.clock())
            draft.group = []

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

    def _answer_again(self, operation: AppendOperation, place: Place, reply: Reply) -> None:
        """Answer a retry: its append is in the log, perhaps of an older term, perhaps uncommitted."""
        partition = operation.partition
        reply = self._only_if_same(operation, place, reply)
        if place.index <= self._node.core.commit_index(partition):
            reply(self._placed(partition, place))
        else:
            leading = self._node.leading.get(partition, 0)
            self._pending[partition].append(_Pending(leading, place, reply))

    def _only_if_same(self, operation: AppendOperation, place: Place, reply: Reply) -> Reply:
        """The same append again gets its answer; other content under an id that is taken does not."""

        def look(answer: Answer) -> None:
            if isinstance(answer, Placed) and operation.intents:
                stored = ids_of(self._entry(operation.partition, place.index), place.ordinal)
                if stored != [(intent.stream, intent.ids) for intent in operation.intents]:
                    answer = Taken()
            elif isinstance(answer, Placed):  # known by its marks, which an append of events may have moved
                answer = answer._replace(first_versions=())
            reply(answer)

        return look

    def _after_barrier(self, partition: int, index: int, waiting: _Rejection | _Read) -> None:
        self._next_ticket += 1
        self._open_reads[self._next_ticket] = waiting
        self._node.core.read(partition, self._next_ticket, index, self._node.clock())

    def _entry(self, partition: int, index: int) -> Entry:
        entry = self._node.disk.view[partition].at(index)
        assert entry is not None
        return entry

    def _placed(self, partition: int, place: Place) -> Placed:
        """The answer to the append at that place."""
        entry = self._entry(partition, place.index)
        position, parts = stored_as(entry, place.ordinal)
        return Placed(entry.index, entry.term, position, tuple([part.first_version for part in parts]))

    # -- what the core tells

    def written(self) -> None:
        """What was proposed is on the disk now, and so in its indexes."""
        for draft in self._drafts.values():
            draft.written()

    def role_changed(self, change: RoleChange) -> None:
        """Answers that wait on a leadership which is over end as unknown (rule 6)."""
        pending = self._pending[change.partition]
        leading = change.term if change.role == Role.LEADER else None
        self._pending[change.partition] = [waiting for waiting in pending if waiting.term == leading]
        for waiting in pending:
            if waiting.term != leading:
                waiting.reply(Lost())

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
        self._pending[partition] = [waiting for waiting in pending if waiting.place.index > commit]
        for waiting in pending:
            if waiting.place.index <= commit:
                waiting.reply(self._placed(partition, waiting.place))

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
        index = self._node.disk.index[partition]
        if stream == WHOLE_PARTITION:
            return _events(_in_order(self._node.disk.view[partition].entries[:commit]))
        if stream.startswith(A_MARK):
            mark = index.mark(stream.removeprefix(A_MARK), commit)
            return Seen(mark=(mark.generation, mark.position) if mark is not None else (0, 0))
        if stream.startswith(A_TAG):
            return _events(index.tagged_up_to(stream[1:-1], commit))
        return _events(index.events_up_to(stream, commit))

    def process_died(self) -> None:
        """All connections of clients end."""
        for _, reply in self._queue:
            reply(Lost())
        for pending in self._pending.values():
            for one in pending:
                one.reply(Lost())
        for waiting in self._open_reads.values():
            waiting.reply(Lost())
        for behind in self._behind.values():
            for _, reply in behind:
                reply(Lost())

    def waiting(self) -> int:
        """How many requests have no answer yet."""
        return len(self._queue) + len(self._open_reads) + sum(map(len, self._pending.values()))


def _in_order(entries: Sequence[Entry]) -> list[Held]:
    """All events of these entries."""
    return [
        Held(entry.index, id_, part.first_tag_number and part.first_tag_number + n)
        for entry in entries
        for part, ids in parts_of(entry)
        for n, id_ in enumerate(ids)
    ]


def _events(held: Sequence[Held]) -> Seen:
    return Seen(tuple([event.id for event in held]), tuple([event.number for event in held]))
