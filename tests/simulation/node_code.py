"""What `node/` has around the core, inside the simulation: routing, the pump, appends, answers, reads.

The real `Service`, `Ingest` and `Reads` run in virtual time over the simulated core and disk. Clients ask
any node; a request that is not served here is forwarded over the simulated network, encoded as on the
wire, parked, taken back and tried again, as in a real process. What the clients were told is judged by the
same checkers as ever. The few things that are not the real ones stand here: the shell's turn
(`SimNode` has it), the disk's indexes, timers, and the links to the peers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from allsource.cluster.budgets.turns import AtOnce
from allsource.cluster.consensus.messages import ReadResult, RoleChange
from allsource.cluster.membership.router import RequestRouter
from allsource.cluster.protocol.codec import (
    decode_requests,
    decode_results,
    encode_request,
    encode_result,
)
from allsource.cluster.protocol.kinds import Kind
from allsource.cluster.protocol.payload import batch_prefix, unpack
from allsource.cluster.protocol.requests import (
    AppendPart,
    AppendRequest,
    AppendResult,
    MarkState,
    PartitionPage,
    ReadMark,
    ReadPartition,
    ReadStream,
    ReadTag,
    Request,
    Result,
    StreamPage,
    TagPage,
    make_token,
)
from allsource.config.schema import Limits
from allsource.node.observe.measures import Measures
from allsource.node.observe.metrics import LockFreeMetrics
from allsource.node.requests.entries import RecentEntries
from allsource.node.requests.forwarding import Forwarding
from allsource.node.requests.ingest import Ingest
from allsource.node.requests.pages import Pages
from allsource.node.requests.parking import Parking
from allsource.node.requests.queue import LockFreeEventQueue
from allsource.node.requests.reads import Reads
from allsource.node.requests.service import Service as NodeService
from allsource.storage.model.errors import (
    AllsourceError,
    EventIdConflict,
    InvalidRequest,
    MarkRefused,
    NoOwner,
    NotFound,
    OutcomeUnknown,
    WrongExpectedTag,
    WrongExpectedVersion,
)
from allsource.storage.model.events import Event
from allsource.storage.model.expected import parse_expected
from tests.simulation.disk import chunks_of
from tests.simulation.evidence import name_of_tag
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
from tests.simulation.node_log import NodeLog
from tests.simulation.service import Answer, Door, Lost, NotHere, Reply, Seen, Taken

if TYPE_CHECKING:
    from tests.simulation.node import SimNode

QUEUE_CAPACITY = 64
PARKED_MAX = 16


class NodeCode(Door):
    """One process's."""

    def __init__(self, node: SimNode) -> None:
        self._node = node
        self._links = _Links(node)
        assert node.driver is not None
        self._shell = node.driver
        self._waiting: dict[int, Reply] = {}
        """Clients that have no answer yet."""
        self._asked = 0
        log, limits = NodeLog(node), Limits()
        entries = RecentEntries(log)
        measures = Measures(LockFreeMetrics(clock=lambda: node.clock() / 1e6))
        shell = self._shell
        router = RequestRouter(
            node.core.registry,
            node.name,
            leads=shell.is_leader,
            hosts=shell.hosts,
            hands_over=shell.is_handing_over,
        )
        parking = Parking(shell.leader_of, measures, PARKED_MAX)
        self._ingest = Ingest(
            shell,
            log,
            entries,
            LockFreeEventQueue(QUEUE_CAPACITY),
            limits,
            measures,
            retry=parking.retry,
            now_us=node.clock,
            wall_us=node.clock,
            turns=AtOnce(),
        )
        reads = Reads(
            shell,
            Pages(log, entries, limits),
            measures,
            retry=parking.retry,
            now_us=node.clock,
            turns=AtOnce(),
        )
        self._real = NodeService(
            router,
            self._ingest,
            reads,
            Forwarding(self._links, router, measures, node.clock, parking.retry),
            parking,
            loop=_Timers(node),  # type: ignore[arg-type]  # it asks a loop for timers alone
            now_us=node.clock,
            partition_count=node.plan.partitions,
            describe=dict,
            measures=measures,
            turns=AtOnce(),
            under_way_max=Limits().queue_capacity,
            held_bytes_max=Limits().held_bytes_max,
        )

    # -- requests

    def append(self, operation: AppendOperation, reply: Reply) -> None:
        parts = tuple(AppendPart(i.stream, i.expected, chunks_of(i.ids)) for i in operation.intents)
        partition = -1 if parts else operation.partition
        request = AppendRequest(parts, operation.expected_tag, operation.marks, partition)
        self._submit(request, reply, lambda result: self._appended(operation, result))

    def read(self, operation: ReadOperation, reply: Reply) -> None:
        token = make_token(operation.partition, operation.token) if operation.token else ""
        local = operation.kind != LINEARIZABLE
        request: Request
        if operation.stream == WHOLE_PARTITION:
            request = ReadPartition(operation.partition, limit=1_000_000, local=local, token=token)
        elif operation.stream.startswith(A_MARK):
            name = operation.stream.removeprefix(A_MARK)
            request = ReadMark(operation.partition, name, local=local, token=token)
        elif operation.stream.startswith(A_TAG):
            request = ReadTag(operation.stream[1:-1], limit=1_000_000, local=local, token=token)
        else:
            request = ReadStream(operation.stream, limit=1_000_000, local=local, token=token)
        self._submit(request, reply, _seen)

    def _submit(
        self, request: Request, reply: Reply, translate: Callable[[Result | AllsourceError], Answer]
    ) -> None:
        self._asked += 1
        number = self._asked
        self._waiting[number] = reply

        def answered(result: Result | AllsourceError) -> None:
            with self._node.invariants.remembering():  # a door that fails is nobody's business (rule 31)
                if self._waiting.pop(number, None) is None:
                    raise Violation("one answer for each request", f"{request} is answered again: {result}")
                reply(translate(result))

        timeout_ms = max(1, self._node.plan.load.timeout_us // 1000)
        self._real.submit(request, timeout_ms=timeout_ms, forwarded=False, reply=answered)

    def _appended(self, operation: AppendOperation, result: Result | AllsourceError) -> Answer:
        if isinstance(result, AllsourceError):
            return _failed(result)
        assert isinstance(result, AppendResult)
        canon = self._node.invariants.canon[result.partition].entries
        if result.index > len(canon):
            raise Violation("acknowledged is committed", f"{self._node.name} acknowledges {result}")
        counts = {a.stream: a.last_version - a.first_version + 1 for a in result.streams}
        wanted = {intent.stream: len(intent.ids) for intent in operation.intents}
        count = result.last_position - result.first_position + 1
        if counts != wanted or count != sum(wanted.values()) or len(result.streams) != len(wanted):
            self._node.invariants.remember("an answer is for its own append", f"{operation}: {result}")
            return Lost()
        first = {appended.stream: appended.first_version for appended in result.streams}
        return Placed(
            result.index,
            canon[result.index - 1].term,
            result.first_position,
            tuple(first[intent.stream] for intent in operation.intents),
        )

    # -- between nodes

    def hear(self, sender: str, wired: Wired) -> None:
        frame = unpack(wired.payload)
        if frame[0] == Kind.RESULTS:
            for number, result in decode_results(frame):
                self._links.answered(number, result)
            return
        for number, timeout_ms, request in decode_requests(frame):
            if isinstance(request, InvalidRequest):
                raise Violation("nodes understand each other", f"{sender} sent {request.message}")
            self._real.submit(
                request,
                timeout_ms=timeout_ms,
                forwarded=True,
                reply=lambda result, number=number: self._links.send_back(sender, number, result),
            )

    def peer_lost(self, peer: str) -> None:
        self._links.lost(peer)

    # -- from the shell

    def leaving(self) -> None:
        self._real.close_intake()

    def pump(self) -> bool:
        return self._ingest.pump()

    def role_changed(self, change: RoleChange) -> None:
        self._real.changed(change)

    def committed(self, partition: int, commit: int) -> None:
        self._real.committed(partition, commit)

    def read_confirmed(self, result: ReadResult) -> None:
        self._real.read_ended(result)

    def process_died(self) -> None:
        waiting, self._waiting = self._waiting, {}
        for reply in waiting.values():
            reply(Lost())

    def waiting(self) -> int:
        return len(self._waiting) + len(self._real._deadlines)


def _failed(error: AllsourceError) -> Answer:
    if isinstance(error, WrongExpectedVersion):
        details = error.details
        return Conflict(details["stream"], parse_expected(details["expected"]), details["actual"])
    if isinstance(error, WrongExpectedTag):
        details = error.details
        return Conflict(name_of_tag(details["tag"]), details["expected"], details["actual"])
    if isinstance(error, MarkRefused):
        return Unmoved(**error.details)
    if isinstance(error, EventIdConflict):
        return Taken()
    if isinstance(error, InvalidRequest):
        raise Violation("no refusal without cause", f"{error.code}: {error.message}")
    return NotHere(None) if error.definite else Lost()


def _seen(result: Result | AllsourceError) -> Answer:
    if isinstance(result, NotFound):
        return Seen(())
    if isinstance(result, AllsourceError):
        return _failed(result)
    if isinstance(result, MarkState):
        return Seen(mark=(result.generation, result.position))
    assert isinstance(result, PartitionPage | StreamPage | TagPage)
    found = result.events()
    if isinstance(result, PartitionPage):
        last, numbers = result.last_position, [event.position for event in found]
    elif isinstance(result, TagPage):
        last, numbers = result.last_number, [event.tag_number for event in found]
    else:
        last, numbers = result.current_version, [event.version for event in found]
    if numbers != list(range(1, last + 1)) or (result.next_from and not isinstance(result, PartitionPage)):
        raise Violation("a page is whole", f"{numbers} of {result} that ends at {last}")
    return _events(found)


def _events(found: Sequence[Event]) -> Seen:
    return Seen(tuple(event.id for event in found), tuple(event.tag_number for event in found))


class _Links:
    """`Peers`: requests to the other nodes, and what becomes of them when a connection breaks."""

    def __init__(self, node: SimNode) -> None:
        self._node = node
        self._calls: dict[int, tuple[str, Callable[[Result | AllsourceError], None]]] = {}
        self._number = node.incarnation << 32

    def request(
        self, peer: str, request: Request, timeout_ms: int, reply: Callable[[Result | AllsourceError], None]
    ) -> None:
        node = self._node
        if not node.core.reaches(peer):
            reply(NoOwner(f"no connection with {peer}"))
            return
        self._number += 1
        self._calls[self._number] = (peer, reply)
        item = encode_request(self._number, timeout_ms, request)
        self._send(peer, Kind.REQUESTS, item)

    def send_back(self, peer: str, number: int, result: Result | AllsourceError) -> None:
        self._send(peer, Kind.RESULTS, encode_result(number, result))

    def answered(self, number: int, result: Result | AllsourceError) -> None:
        """Not if it was asked by an earlier process, or is told twice."""
        call = self._calls.pop(number, None)
        if call is not None:
            call[1](result)

    def lost(self, peer: str) -> None:
        """Whether the peer had it, or has done it, nobody knows."""
        for number in [number for number, call in self._calls.items() if call[0] == peer]:
            self.answered(number, OutcomeUnknown(f"the connection with {peer} broke"))

    def _send(self, peer: str, kind: int, item: bytes) -> None:
        node = self._node
        node.network.send_data(node.name, peer, [Wired(batch_prefix(kind, 1) + item)])


class _Timers:
    """`call_later` of an event loop, in the world's time; a dead process's timers do not ring."""

    def __init__(self, node: SimNode) -> None:
        self._node = node
        self._life = node.incarnation

    def call_later(self, delay_s: float, callback: Callable[..., Any], *arguments: Any) -> _Timer:
        timer = _Timer()

        def ring() -> None:
            if not timer.cancelled and self._node.incarnation == self._life:
                self._node.do(callback, *arguments)

        self._node.world.after(int(delay_s * 1_000_000), ring)
        return timer


class _Timer:
    def __init__(self) -> None:
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True
