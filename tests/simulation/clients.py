"""Clients: they append and read at random, try again elsewhere, and write down what they were told.

A client retries with the same event ids at another node whenever it does not know what became of an
attempt. The outcome of the whole operation is what the contract promises a careful caller: a
rejection after an unknown attempt only counts as definite if that older attempt can no longer be let
in by its expected version.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from allsource.storage.model.entry import Mark
from allsource.storage.model.expected import ANY, EXISTS, NO_STREAM
from allsource.storage.model.partition import tag_of
from tests.simulation.consumer import Consumer
from tests.simulation.evidence import name_of_tag
from tests.simulation.history import (
    A_MARK,
    LINEARIZABLE,
    LOCAL,
    OK,
    REFUSED,
    REJECTED,
    TAKEN,
    TOKEN,
    UNKNOWN,
    WHOLE_PARTITION,
    AppendOperation,
    Conflict,
    History,
    Intent,
    Placed,
    ReadOperation,
    Unmoved,
)
from tests.simulation.plan import MARKS, Plan, stream_of, tags_of
from tests.simulation.service import Answer, Lost, NotHere, Seen, Taken
from tests.simulation.world import World

if TYPE_CHECKING:
    from tests.simulation.node import SimNode

ONE_WAY_US = 100
"""How long a request or an answer is on its way."""


class Client:
    """One client: one operation at a time, until its plan is done or it is told to stop."""

    def __init__(
        self, number: int, world: World, plan: Plan, nodes: Sequence[SimNode], history: History
    ) -> None:
        self.number = number
        self.stopped = False
        self._world = world
        self._plan = plan
        self._nodes = nodes
        self._history = history
        self._versions: dict[str, int] = {}
        """What the client believes of each stream, and of each tag under its name for reads."""
        self._consumer = Consumer(number, world)
        self._owners: dict[int, str] = {}
        self._events = 0
        self._tokens: dict[int, int] = {}
        """By partition, the log index of the newest append that was acknowledged to this client."""
        self._last: AppendOperation | None = None
        self._regrouped: AppendOperation | None = None
        """Not regrouped again: it could become what an earlier one was, and that is a retry."""
        self._left = plan.load.operations
        self._weights = (8, plan.load.exists, 1, 0.3)
        self._attempt = 0
        """Number of the newest attempt; an answer to an older one comes too late."""
        self._tries = 0
        self._dirty = False
        """Whether an attempt of this operation has an unknown outcome."""
        self._operation: AppendOperation | ReadOperation

    # -- choosing what to do

    def start(self) -> None:
        """Begin after a while."""
        self._world.after(self._think(), self._next)

    def _think(self) -> int:
        """How long the client thinks, and waits until others begin too."""
        load = self._plan.load
        thinks = int(self._world.random.expovariate(1.0) * load.think_us) + 1
        return thinks + -(self._world.now + thinks) % load.beat_us

    def _next(self) -> None:
        if self.stopped or self._left == 0:
            return
        self._left -= 1
        random = self._world.random
        partition = random.randrange(self._plan.partitions)
        if random.random() < self._plan.load.reads:
            kind = random.choices((LINEARIZABLE, LOCAL, TOKEN), (6, 2, 2))[0]
            stream = self._pick_what_to_read(partition)
            self.read(partition, stream, kind, self._tokens.get(partition, 0) if kind == TOKEN else 0)
        elif self._last is not None and random.random() < 0.1:
            last, self._last = self._last, None
            self._regrouped = self.append(last.partition, self._regroup(last))
        else:
            marks = self._pick_marks(partition)
            if marks and random.random() < 1 / 3:
                self.append(partition, [], marks=marks)
                return
            count = 2 if random.random() < self._plan.load.two_streams else 1
            intents = [self._intend(stream) for stream in self._pick_streams(partition, count)]
            self.append(partition, intents, self._expect_number(intents), marks)

    def _pick_what_to_read(self, partition: int) -> str:
        random = self._world.random
        dice = random.random()
        if dice < 0.2:
            return WHOLE_PARTITION
        if dice < 0.4:
            return name_of_tag(random.choice(tags_of(partition, self._plan.partitions)))
        if dice < 0.5:
            return A_MARK + random.choice(MARKS)
        return self._pick_streams(partition, 1)[0]

    def _pick_marks(self, partition: int) -> tuple[Mark, ...]:
        random = self._world.random
        if random.random() >= self._plan.load.marks:
            return ()
        names = random.sample(MARKS, random.choice((1, 1, 2)))
        return tuple([self._consumer.move(partition, name) for name in names])

    def _expect_number(self, intents: Sequence[Intent]) -> int:
        """What the append expects of its tag, if its streams have one in common."""
        random = self._world.random
        tags = {tag_of(intent.stream) for intent in intents}
        if random.random() >= self._plan.load.exact_tag or len(tags) != 1 or "" in tags:
            return ANY
        believed = self._versions.get(name_of_tag(*tags), 0)
        return max(0, believed + random.choices((0, 1, -1), (8, 1, 1))[0])

    def _pick_streams(self, partition: int, count: int) -> list[str]:
        plan = self._plan
        streams = [stream_of(partition, number, plan.partitions) for number in range(plan.load.streams)]
        return self._world.random.sample(streams, min(count, len(streams)))

    def _intend(self, stream: str) -> Intent:
        random = self._world.random
        believed = self._versions.get(stream, NO_STREAM)
        if random.random() < self._plan.load.exact:
            expected = believed
        else:
            expected = random.choices((ANY, EXISTS, NO_STREAM, believed + 1), self._weights)[0]
        return Intent(stream, expected, self._new_ids(random.randint(1, 3)))

    def _regroup(self, last: AppendOperation) -> list[Intent]:
        """The events of an earlier append in other company: without the last, with one more, or one of two
        streams alone; without its marks. Whichever is stored first takes the ids (contract, line 6)."""
        intent = self._world.random.choice(last.intents)
        if len(last.intents) > 1:
            return [intent._replace(expected=ANY)]
        ids = intent.ids[:-1] if len(intent.ids) > 1 else intent.ids + self._new_ids(1)
        return [Intent(intent.stream, ANY, ids)]

    def _new_ids(self, count: int) -> tuple[bytes, ...]:
        ids = [
            self.number.to_bytes(8, "big") + (self._events + offset).to_bytes(8, "big")
            for offset in range(count)
        ]
        self._events += count
        return tuple(ids)

    # -- carrying it out

    def append(
        self,
        partition: int,
        intents: Sequence[Intent],
        expected_tag: int = ANY,
        marks: tuple[Mark, ...] = (),
    ) -> AppendOperation:
        """Begin an append."""
        operation = AppendOperation(
            self.number,
            partition,
            tuple(intents),
            self._world.now,
            expected_tag=expected_tag,
            marks=marks,
        )
        self._history.appends.append(operation)
        self._begin(operation)
        return operation

    def append_any(self, partition: int, stream: str) -> AppendOperation:
        """Begin an append of one event that expects nothing."""
        return self.append(partition, [Intent(stream, ANY, self._new_ids(1))])

    def read(self, partition: int, stream: str, kind: str = LINEARIZABLE, token: int = 0) -> ReadOperation:
        """Begin a read."""
        operation = ReadOperation(self.number, partition, stream, self._world.now, kind=kind, token=token)
        self._history.reads.append(operation)
        self._begin(operation)
        return operation

    def _begin(self, operation: AppendOperation | ReadOperation) -> None:
        self._operation = operation
        self._tries = 0
        self._dirty = False
        self._try()

    def _try(self) -> None:
        self._tries += 1
        self._attempt += 1
        node = self._choose_node()
        self._world.after(ONE_WAY_US, self._arrive, node, self._attempt, node.incarnation)
        self._world.after(self._plan.load.timeout_us, self._time_out, self._attempt)

    def _choose_node(self) -> SimNode:
        """Mostly the owner as last heard of. Where two nodes believe that they lead, often the one
        that is wrong: this client has a talent for finding trouble."""
        random = self._world.random
        partition = self._operation.partition
        if isinstance(self._operation, ReadOperation) and self._operation.kind != LINEARIZABLE:
            return random.choice(self._nodes)
        leaders = [node for node in self._nodes if partition in node.leading]
        if len(leaders) > 1 and random.random() < 0.7:
            return min(leaders, key=lambda node: node.leading[partition])
        owner = [node for node in self._nodes if node.name == self._owners.get(partition)]
        if owner and random.random() >= self._plan.load.wrong_node:
            return owner[0]
        return random.choice(self._nodes)

    def _arrive(self, node: SimNode, attempt: int, incarnation: int) -> None:
        operation = self._operation
        if attempt != self._attempt:
            return
        if not node.alive or node.incarnation != incarnation:
            self._answered(attempt, NotHere(None))
            return

        def reply(answer: Answer) -> None:
            self._world.after(ONE_WAY_US, self._answered, attempt, answer)

        node.do(node.ask, operation, reply)

    def _time_out(self, attempt: int) -> None:
        self._answered(attempt, Lost())

    def _answered(self, attempt: int, answer: Answer) -> None:
        if attempt != self._attempt:
            return
        operation = self._operation
        if isinstance(answer, Placed):
            self._placed(operation, answer)
        elif isinstance(answer, Conflict | Unmoved):
            self._rejected(operation, answer)
        elif isinstance(answer, Taken):
            self._finish(TAKEN)
        elif isinstance(answer, Seen):
            self._seen(operation, answer)
        else:
            self._failed(answer)

    def _failed(self, answer: NotHere | Lost) -> None:
        """Try elsewhere, unless it was tried often enough."""
        partition = self._operation.partition
        if isinstance(answer, Lost):
            self._dirty = True
            self._owners.pop(partition, None)
        elif answer.owner is not None:
            self._owners[partition] = answer.owner
        else:
            self._owners.pop(partition, None)
        self._attempt += 1
        if self._tries >= self._plan.load.attempts:
            self._finish(UNKNOWN if self._dirty else REFUSED)
        else:
            pause = self._plan.consensus.heartbeat_us // 4
            self._world.after(pause, self._retry, self._attempt)

    def _retry(self, attempt: int) -> None:
        if attempt == self._attempt:
            self._try()

    # -- what it comes to

    def _placed(self, operation: AppendOperation | ReadOperation, placed: Placed) -> None:
        assert isinstance(operation, AppendOperation)
        operation.placed = placed
        self._tokens[operation.partition] = placed.index
        for intent, first in zip(operation.intents, placed.first_versions, strict=False):
            self._versions[intent.stream] = first + len(intent.ids) - 1
            if tag := tag_of(intent.stream):
                self._versions[name_of_tag(tag)] = self._versions.get(name_of_tag(tag), 0) + len(intent.ids)
        for mark in operation.marks:
            self._consumer.knows(operation.partition, mark.name, (mark.generation, mark.position))
        self._finish(OK)

    def _rejected(self, operation: AppendOperation | ReadOperation, conflict: Conflict | Unmoved) -> None:
        assert isinstance(operation, AppendOperation)
        operation.conflict = conflict
        if isinstance(conflict, Conflict):
            self._versions[conflict.stream] = conflict.actual
            hopeless = 0 <= conflict.expected < conflict.actual  # versions and numbers only grow
        else:
            there = (conflict.generation, conflict.position)
            self._consumer.knows(operation.partition, conflict.name, there)
            # A mark only moves on. But marks alone are not known again when they have moved on since.
            hopeless = bool(operation.intents)
        self._finish(REJECTED if hopeless or not self._dirty else UNKNOWN)

    def _seen(self, operation: AppendOperation | ReadOperation, seen: Seen) -> None:
        assert isinstance(operation, ReadOperation)
        operation.ids, operation.numbers, operation.mark = seen.ids, seen.numbers, seen.mark
        if operation.stream.startswith(A_MARK):
            self._consumer.knows(operation.partition, operation.stream.removeprefix(A_MARK), seen.mark)
        elif operation.stream != WHOLE_PARTITION and operation.kind == LINEARIZABLE:
            self._versions[operation.stream] = len(seen.ids)
        self._finish(OK)

    def _finish(self, outcome: str) -> None:
        self._attempt += 1
        self._operation.outcome = outcome
        self._operation.returned = self._world.now
        operation = self._operation
        if isinstance(operation, AppendOperation) and outcome in (OK, UNKNOWN):
            again = operation is not self._regrouped and operation.intents
            self._last = operation if again else None
        self._world.after(self._think(), self._next)
