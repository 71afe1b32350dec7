"""A cluster of members inside one test: the real node, over memory and links of the test's own.

The network delivers on the next turn of the loop, in order, and can be cut; a member can be killed
(it stops without a word, and the others hear EOF and then a refusal) and started again over the
storage that it left.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import structlog

from allsource.cluster.consensus.lanes import Traffic
from allsource.cluster.consensus.messages import Beat, Message
from allsource.cluster.protocol.codec import decode_requests, encode_request
from allsource.cluster.protocol.kinds import Kind
from allsource.cluster.protocol.message_codec import (
    decode_beat,
    decode_messages,
    encode_beat,
    encode_message,
)
from allsource.cluster.protocol.payload import batch_prefix, unpack
from allsource.cluster.protocol.requests import Request, Result
from allsource.config.schema import Limits, NodeSettings, Settings, StorageSettings
from allsource.node.member.assembly import Clocks, Ground, build_member
from allsource.node.member.member import Member
from allsource.node.observe.measures import Measures
from allsource.node.observe.metrics import LockFreeMetrics
from allsource.node.requests.queue import LockFreeEventQueue
from allsource.node.view import View
from allsource.storage.memory import MemoryStorage
from allsource.storage.model.errors import AllsourceError, InvalidRequest, NoOwner, OutcomeUnknown
from allsource.storage.model.partition import partition_of

DEADLINE_S = 10.0


def clock() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000


def wall_us() -> int:
    return time.time_ns() // 1000


def settings_for(
    nodes: int, *, partitions: int = 8, limits: Limits | None = None, **others: Any
) -> Settings:
    return Settings(
        cluster_name="test",
        cluster_id="00000000-0000-0000-0000-000000000000",
        secret="not a secret",
        client_secret="not the clients' either",
        partitions=partitions,
        replication_factor=min(3, nodes),
        heartbeat_interval_ms=20,
        suspicion_timeout_ms=150,
        limits=limits or Limits(),
        storage=StorageSettings(backend="memory"),
        nodes=tuple(NodeSettings(f"n{i}", "127.0.0.1", 1, 1, Path("unused")) for i in range(1, nodes + 1)),
        **others,
    )


def streams_in(partition: int, count: int, partitions: int = 8, prefix: str = "s") -> list[str]:
    """Names of streams that belong to a partition."""
    found: list[str] = []
    number = 0
    while len(found) < count:
        name = f"{prefix}-{number}"
        if partition_of(name, partitions) == partition:
            found.append(name)
        number += 1
    return found


async def until(condition: Callable[[], object], what: str = "the condition") -> None:
    """Wait, turn by turn, for something to become true."""
    loop = asyncio.get_running_loop()
    end = loop.time() + DEADLINE_S
    while not condition():
        assert loop.time() < end, f"waited {DEADLINE_S} s for {what}"
        await asyncio.sleep(0.001)


class Link:
    """One member's side of the network: what `PeerLinks` is in a real node. What it sends is encoded and
    decoded as on the wire, so that what does not travel does not arrive."""

    def __init__(self, cluster: Cluster, node_id: str) -> None:
        self.cluster = cluster
        self.node_id = node_id

    def send_messages(self, peer: str, messages: list[Message]) -> None:
        arrived = decode_messages(
            unpack(batch_prefix(Kind.MESSAGES, len(messages)) + b"".join(map(encode_message, messages)))
        )
        self._deliver(peer, lambda member: member.messages(self.node_id, arrived))

    def send_beat(self, peer: str, beat: Beat) -> None:
        arrived = decode_beat(unpack(encode_beat(beat)))
        self._deliver(peer, lambda member: member.beat(self.node_id, arrived))

    def traffic(self, peer: str) -> Traffic:
        return Traffic(0, 0)

    def renew(self, peer: str) -> None:
        self.cluster.renewed.append((self.node_id, peer))

    def request(
        self, peer: str, request: Request, timeout_ms: int, reply: Callable[[Result | AllsourceError], None]
    ) -> None:
        if peer not in self.cluster.members or self._is_cut(peer):
            reply(NoOwner(f"no connection with {peer}"))
            return
        call = _Call(peer, reply)
        self.cluster.calls.append(call)
        item = encode_request(1, timeout_ms, request)
        ((_, _, arrived),) = decode_requests(unpack(batch_prefix(Kind.REQUESTS, 1) + item))
        assert not isinstance(arrived, InvalidRequest), f"{self.node_id} sent {peer} what it cannot read"
        self._deliver(
            peer,
            lambda member: member.submit(arrived, timeout_ms=timeout_ms, forwarded=True, reply=call.answer),
        )

    def _is_cut(self, peer: str) -> bool:
        return frozenset((self.node_id, peer)) in self.cluster.cuts

    def _deliver(self, peer: str, action: Callable[[Member], None]) -> None:
        sender = self.cluster.members.get(self.node_id)

        def arrive() -> None:
            if self.cluster.members.get(self.node_id) is not sender:
                return  # it was killed: what it had sent comes before the EOF, or not at all
            member = self.cluster.members.get(peer)
            if member is not None and not self._is_cut(peer):
                action(member)

        asyncio.get_running_loop().call_soon(arrive)


class _Call:
    """A forwarded request on its way; dies with the peer that has it."""

    def __init__(self, peer: str, reply: Callable[[Result | AllsourceError], None]) -> None:
        self.peer = peer
        self._reply: Callable[[Result | AllsourceError], None] | None = reply

    def answer(self, result: Result | AllsourceError) -> None:
        reply, self._reply = self._reply, None
        if reply is not None:
            asyncio.get_running_loop().call_soon(reply, result)


class Cluster:
    """Use as an async context manager; `members` are those that run."""

    def __init__(self, nodes: int, *, limits: Limits | None = None, **others: Any) -> None:
        self.settings = settings_for(nodes, limits=limits, **others)
        self.storages: dict[str, MemoryStorage] = {}
        self.members: dict[str, Member] = {}
        self.metrics: dict[str, LockFreeMetrics] = {}
        self.queues: dict[str, LockFreeEventQueue[Any]] = {}
        self.views: dict[str, View] = {}
        self.cuts: set[frozenset[str]] = set()
        self.calls: list[_Call] = []
        self.ahead_us: dict[str, int] = {}
        """How wrong the clock of a member's machine is."""
        self.renewed: list[tuple[str, str]] = []
        """Who dialled whom afresh."""
        self.log = structlog.get_logger()
        self.logs: dict[str, Any] = {}
        """Of members that have one of their own."""

    async def __aenter__(self) -> Cluster:
        structlog.configure(
            wrapper_class=structlog.make_filtering_bound_logger(50), cache_logger_on_first_use=False
        )
        for node in self.settings.nodes:
            self.storages[node.id] = MemoryStorage(
                cluster_id="test", node_id=node.id, partition_count=self.settings.partitions
            )
            self.start(node.id)
        await self.settled()
        return self

    async def __aexit__(self, *_: object) -> None:
        for node_id in list(self.members):
            self.members.pop(node_id).stop()

    def start(self, node_id: str) -> Member:
        """Start a member, and connect it with those that run."""
        self.metrics[node_id] = LockFreeMetrics()
        queue = self.queues[node_id] = LockFreeEventQueue(self.settings.limits.queue_capacity)
        storage = self.storages[node_id]
        view = View(self.settings, node_id, storage, queue, lambda: member)
        self.views[node_id] = view
        loop = asyncio.get_running_loop()
        clocks = Clocks(
            lambda: int(loop.time() * 1_000_000),  # a busy machine is no reason to suspect anybody
            lambda: wall_us() + self.ahead_us.get(node_id, 0),
        )
        member = build_member(
            Ground(
                self.settings,
                node_id,
                storage,
                Link(self, node_id),
                queue,
                view.describe,
                Measures(self.metrics[node_id]),
                self.logs.get(node_id, self.log),
                loop,
                clocks,
                seed=sum(node_id.encode()),
            )
        )
        others = list(self.members.items())
        self.members[node_id] = member
        member.start()
        for other_id, other in others:
            member.connected(other_id, 1)
            other.connected(node_id, 1)
        return member

    def kill(self, node_id: str) -> None:
        """Stop it without a word: EOF for the others at once, then refused connections."""
        member = self.members.pop(node_id)
        member.driver.stop()
        for other in self.members.values():
            other.lost(node_id)
            other.refused(node_id)
        dead = [call for call in self.calls if call.peer == node_id]
        for call in dead:
            call.answer(OutcomeUnknown(f"the connection with {node_id} was lost"))

    def cut(self, one: str, other: str) -> None:
        """Let nothing through between two members, in either direction."""
        self.cuts.add(frozenset((one, other)))

    def leaders(self, partition: int) -> list[str]:
        """Who believes to lead a partition."""
        return [node for node, member in self.members.items() if member.replica.is_leader(partition)]

    def leader(self, partition: int) -> Member:
        (node_id,) = self.leaders(partition)
        return self.members[node_id]

    async def settled(self) -> None:
        """Wait until every partition has one leader that everybody knows, the one of the placement."""

        def is_settled() -> bool:
            for partition in range(self.settings.partitions):
                known = {member.replica.leader_of(partition) for member in self.members.values()}
                owners = {member.core.registry.owner_of(partition) for member in self.members.values()}
                if len(known) != 1 or None in known or known != owners:
                    return False
            return True

        await until(is_settled, "leaders")

    async def ask(
        self, node_id: str, request: Request, *, timeout_ms: int = 5000, forwarded: bool = False
    ) -> Any:
        """Put a request to a member; the answer, or the error as a value."""
        future: asyncio.Future[Result | AllsourceError] = asyncio.get_running_loop().create_future()
        self.members[node_id].submit(
            request, timeout_ms=timeout_ms, forwarded=forwarded, reply=future.set_result
        )
        return await asyncio.wait_for(future, DEADLINE_S)


def with_limits(settings: Settings, **limits: int) -> Settings:
    return replace(settings, limits=replace(settings.limits, **limits))
