"""Requests that nobody should send, from a client that may: each costs itself, never the link of two nodes.

What one node takes from a caller it may pass on, and the next must be able to read it. `tests.node.members`
encodes and decodes what goes between nodes as on the wire, and fails where that does not come back.
"""

from __future__ import annotations

import asyncio
import copy
import os
import random
from typing import Any

import msgpack
import pytest

from allsource.cluster.protocol.codec import RequestItem, decode_requests
from allsource.cluster.protocol.frames import ProtocolError
from allsource.cluster.protocol.kinds import Kind
from allsource.cluster.protocol.payload import unpack
from allsource.cluster.protocol.requests import AppendRequest, ReadStream, Result
from allsource.storage.model.chunks import pack_events
from allsource.storage.model.errors import AllsourceError, InvalidRequest, TooLarge
from tests.node.appends import append, events
from tests.node.members import DEADLINE_S, Cluster, streams_in

SEED = int(os.environ.get("ALLSOURCE_FUZZ_SEED", "20261124"))

_NUMBERS = (0, 1, 7, 8, 100, 2**31, 2**63 - 1, 2**63, 2**64 - 1, -1, -2, -3, True, 1.5)
_TEXTS = (
    "",
    "s-1",
    "{t}",
    " s",
    "s\n",
    "9" * 5000,
    "0:" + "9" * 5000,
    "0:1",
    "7:99",
    "x" * 200,
    "\u00e9" * 100,
)
_OTHERS: tuple[Any, ...] = (None, b"", b"x" * 300, [], {}, [[]] * 50, {"a": 1})


def strange_value(chance: random.Random) -> Any:
    return copy.deepcopy(chance.choice((*_NUMBERS, *_TEXTS, *_OTHERS)))


def strange_item(chance: random.Random, number: int) -> list[Any]:
    """A request that was good once: up to three of its fields are others, missing or too many."""
    one, two = ([list(chunk) for chunk in pack_events(events(count))] for count in (1, 2))
    item: list[Any] = chance.choice(
        (
            [number, 500, 1, [["s-1", -1, one]], -1, [], -1],
            [number, 500, 1, [["{t}a", -1, one], ["{t}b", 0, two]], 0, [["m", 1, 0], ["n", 2, 1]], -1],
            [number, 500, 1, [], -1, [["m", 7, 1]], 3],
            [number, 500, 2, "s-1", 0, 10, True, False, ""],
            [number, 500, 2, "s-2", 5, 10, False, True, "3:5"],
            [number, 500, 3, 4, 1, 100, False, ""],
            [number, 500, 3, 4, 1, 100, True, "4:1"],
            [number, 500, 6, "t", 0, 10, True, ["Tested", "Other"], False, ""],
            [number, 500, 6, "t", 5, 10, False, [], True, "3:5"],
            [number, 500, 7, 4, "m", False, ""],
        )
    )
    for _ in range(chance.choice((0, 1, 1, 2, 3))):
        where: list[Any] = item
        while chance.random() < 0.6:  # or of one of the lists in it, and so on
            inner = [value for value in where if type(value) is list and value]
            if not inner:
                break
            where = chance.choice(inner)
        if type(where) is not list or not where:
            continue
        at = chance.randrange(1 if where is item else 0, len(where))
        how = chance.random()
        if how < 0.8:
            where[at] = strange_value(chance)
        elif how < 0.9:
            del where[at]
        else:
            where.insert(at, strange_value(chance))
    return item


def read(items: list[list[Any]]) -> list[RequestItem]:
    return decode_requests(unpack(msgpack.packb([Kind.REQUESTS, items])))


async def answers_of(cluster: Cluster, node: str, items: list[RequestItem]) -> dict[int, Any]:
    """What a node's clients are told; each of them exactly once."""
    told: dict[int, Any] = {}
    done = asyncio.Event()

    def answered(number: int, result: Result | AllsourceError) -> None:
        assert number not in told
        told[number] = result
        if len(told) == len(items):
            done.set()

    for number, timeout_ms, request in items:
        if isinstance(request, InvalidRequest):
            answered(number, request)
        else:
            cluster.members[node].submit(
                request,
                timeout_ms=timeout_ms,
                forwarded=False,
                reply=lambda result, number=number: answered(number, result),  # type: ignore[misc]
            )
    await asyncio.wait_for(done.wait(), DEADLINE_S)
    return told


async def test_strange_requests_are_answered_one_by_one_through_every_node() -> None:
    print(f"replay: ALLSOURCE_FUZZ_SEED={SEED} pytest tests/node/test_strange_requests.py")
    chance = random.Random(SEED)
    async with Cluster(3) as cluster:
        terms = {p: cluster.leader(p).core.term_of(p) for p in range(8)}
        for _ in range(60):
            items = [strange_item(chance, number) for number in range(20)]
            try:
                found = read(items)
            except ProtocolError:  # the caller's own frame: its own connection
                continue
            for node in cluster.members:
                told = await answers_of(cluster, node, found)
                assert not [
                    e for e in told.values() if isinstance(e, AllsourceError) and e.code == "internal"
                ]
        for partition, term in terms.items():
            assert cluster.leader(partition).core.term_of(partition) == term, "nobody was deposed"
        stream = streams_in(0, 1)[0]
        for node in cluster.members:
            assert (await cluster.ask(node, append((stream, events())))).streams


@pytest.mark.parametrize("count", [1025, 6000])
async def test_an_append_to_more_streams_than_a_frame_can_say_is_refused_where_it_arrives(
    count: int,
) -> None:
    """6000 of them fit into a large frame among others, and passed on alone into a small one, which takes
    no array of more than 4096: the link of two nodes broke."""
    parts = [[f"{{t}}{number}", -1, []] for number in range(count)]
    padding = [9, 500, 2, "x" * 60_000, 0, 1, True, False, ""]
    items = read([padding, [1, 500, 1, parts, -1, [], -1]])
    assert isinstance(items[1][2], AppendRequest)
    async with Cluster(3) as cluster:
        for node in cluster.members:
            told = await answers_of(cluster, node, items)
            assert type(told[1]) is TooLarge
            assert type(told[9]) is InvalidRequest
            assert len(str(told[9])) < 200


async def test_a_bug_met_by_a_read_costs_that_read(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Cluster(3) as cluster:
        stream = streams_in(0, 1)[0]
        await cluster.ask("n1", append((stream, events())))
        leader = cluster.leader(0)

        def bug(*_: Any) -> Any:
            raise RuntimeError("a bug of ours")

        with monkeypatch.context() as broken:
            broken.setattr(leader.service._reads._pages, "read_stream", bug)
            for node in cluster.members:
                error = await cluster.ask(node, ReadStream(stream))
                assert (error.code, error.definite) == ("internal", False)
        assert cluster.metrics[leader.core.node_id].counter("errors") == 3
        assert (await cluster.ask("n1", ReadStream(stream))).current_version == 1
