"""The client and real nodes: what it asks of them, counted where they hear it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import msgpack
import pytest
import structlog

from allsource.client import Client, InvalidRequest, Mark, MarkRefused, NewEvent, WrongExpectedTag
from allsource.cluster.protocol.codec import Op
from allsource.cluster.protocol.handshake import DiallerConfig
from allsource.cluster.protocol.requests import (
    AppendPart,
    AppendRequest,
    AppendResult,
    ClusterView,
    DescribeCluster,
    ReadStream,
    StreamPage,
)
from allsource.storage.model.chunks import pack_events, unpack_chunks
from allsource.storage.model.expected import ANY
from allsource.storage.model.partition import partition_of_tag
from tests.cluster.live import Caller, hang_up
from tests.cluster.protocol.wire_samples import zstd_that_claims
from tests.node.test_daemon import Nodes, settings_in

__all__ = ["hang_up"]
pytestmark = pytest.mark.usefixtures("hang_up")

ROUNDS = 30


@pytest.fixture
async def nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Nodes]:
    """Nodes that nobody suspects, however busy the machine is: then there is a reason to ask twice."""
    monkeypatch.setattr("allsource.client.watch.SILENT_S", 60.0)
    monkeypatch.setattr("allsource.client.watch.DEAD_S", 60.0)
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    nodes = Nodes(settings_in(tmp_path, 3, suspicion_timeout_ms=30_000))
    await nodes.start()
    await nodes.ready()
    for node_id in nodes.running:  # and every partition is where it belongs: none is handed over later
        await nodes.shows(node_id, is_as_placed)
    yield nodes
    await nodes.stop()


def is_as_placed(view: dict[str, Any]) -> bool:
    owners = Counter(row["owner"] for row in view["partitions"])
    return owners == {"n1": 3, "n2": 3, "n3": 2}


@pytest.fixture
def asked(nodes: Nodes) -> Counter[bytes]:
    """How often clients asked any node to append the event with this id."""
    asked: Counter[bytes] = Counter()

    def counting(submit: Callable[..., None]) -> Callable[..., None]:
        def counted(request: Any, **options: Any) -> None:
            if isinstance(request, AppendRequest) and not options["forwarded"]:
                asked.update([unpack_chunks(request.parts[0].chunks)[0][0]])
            submit(request, **options)

        return counted

    for node in nodes.running.values():
        member = node.parts.part.member
        assert member is not None
        member.submit = counting(member.submit)
    return asked


def by_address(ports: Sequence[int]) -> list[str]:
    return [f"127.0.0.1:{port}" for port in ports]


def by_name(ports: Sequence[int]) -> list[str]:
    """Other names than the nodes have for each other: each is dialled twice, and one connection kept."""
    return [f"localhost:{port}" for port in ports]


def one_node_twice(ports: Sequence[int]) -> list[str]:
    return [f"127.0.0.1:{ports[0]}", f"localhost:{ports[0]}", f"127.0.0.1:{ports[1]}"]


@pytest.mark.parametrize("seeds", [by_address, by_name, one_node_twice])
async def test_a_new_client_that_appends_at_once_asks_once(
    nodes: Nodes, asked: Counter[bytes], seeds: Callable[[Sequence[int]], list[str]]
) -> None:
    addresses = seeds([node.port for node in nodes.settings.nodes])
    appended = []
    for number in range(ROUNDS):
        event = NewEvent.json("T", number)
        async with Client(addresses, secret=nodes.settings.client_secret, timeout_s=60) as client:
            # At once, and again while the other connections and the map come in.
            events = [event, *(NewEvent.json("T", number) for _ in range(5))]
            calls = [client.append(f"{number}-{i}", one) for i, one in enumerate(events)]
            results = await asyncio.gather(*calls)
        assert [result.duplicate for result in results] == [False] * len(events)
        appended += [one.id for one in events]
    assert asked == Counter(appended), "each event was asked for once"


GOOD = [list(chunk) for chunk in pack_events([NewEvent.json("T", 1)])]


def append(parts: list[Any], *, expected_tag: int = -1, marks: Any = (), partition: int = -1) -> list[Any]:
    return [5000, Op.APPEND, parts, expected_tag, marks, partition]


STRANGE = [
    [5000, Op.READ_STREAM, "s", -1, 100, True, False, ""],
    [5000, Op.READ_STREAM, "s", "1", 100, True, False, ""],
    [5000, Op.READ_STREAM, "s", 2**63, 100, True, False, ""],
    [5000, Op.READ_STREAM, "s", 0, 100, True, False, 5],
    [5000, Op.READ_STREAM, "s", 0, -1, True, False, ""],
    [5000, Op.READ_STREAM, "s", True, 100, True, False, ""],
    [5000, Op.READ_STREAM, "s", 0, 100, 1, False, ""],
    [5000, Op.READ_STREAM, "s", 0, 100, True, False, "0:" + "5" * 5000],
    [5000, Op.READ_STREAM, "", 0, 100, True, False, ""],
    [5000, Op.READ_STREAM, "s"],
    [5000, Op.READ_PARTITION, -1, 1, 100, False, ""],
    [5000, Op.READ_PARTITION, 8, 1, 100, False, ""],
    [5000, Op.READ_PARTITION, 0, None, 100, False, ""],
    [5000, Op.READ_TAG, "", 0, 100, True, [], False, ""],
    [5000, Op.READ_TAG, "{t}", 0, 100, True, [], False, ""],
    [5000, Op.READ_TAG, "t", 0, 100, True, [""], False, ""],
    [5000, Op.READ_TAG, "t", 0, 100, True, ["T"] * 257, False, ""],
    [5000, Op.READ_MARK, 8, "m", False, ""],
    [5000, Op.READ_MARK, 0, "", False, ""],
    append([["s", -3, []]]),
    append([["s", -1, []]]),
    append([["s", -1, [[1, 8, 0, "no bytes"]]]]),
    append([["s", -1, [[1, 9, 0, b"no events"]]]]),
    append([["s", -1, [[1, 9, 1, b"no zstd frame"]]]]),
    append([["s", -1, [[1, 2**40, 1, zstd_that_claims(2**40)]]]]),
    append([["s", -1, [[2**40, 9, 0, b"no events"]]]]),
    append([["$s", -1, GOOD]]),
    append([["s", -1, GOOD]], expected_tag=0),
    append([["{t}s", -1, GOOD], ["{u}s", -1, GOOD]], expected_tag=0),
    append([["s", -1, GOOD]], marks=[["", 1, 1]]),
    append([["s", -1, GOOD]], marks=[["m", 1, 1], ["m", 2, 1]]),
    append([], marks=[["m", 1, 1]]),
    append([], marks=[["m", 1, 1]], partition=8),
    append([]),
    [5000, 99, "what?"],
    [-1, Op.DESCRIBE_CLUSTER],
    ["soon", Op.DESCRIBE_CLUSTER],
]
"""What this client never sends, but another one may: each without the id that is put before it."""


def is_refused(answer: object) -> bool:
    return isinstance(answer, InvalidRequest)


async def test_a_node_refuses_a_strange_request_and_nothing_else(nodes: Nodes) -> None:
    """On the wire as it is, beside requests that are right, in one frame and on one connection."""
    config = DiallerConfig.client(nodes.settings.client_secret)
    caller = await Caller(config).connect(nodes.settings.nodes[0].port)
    good = AppendRequest((AppendPart("s", ANY, pack_events([NewEvent.json("T", 1)])),))
    caller.session.request(1, 30_000, good)
    for number, strange in enumerate(STRANGE, 10):
        caller.session._requests.add(msgpack.packb([number, *strange]))
    caller.session.request(2, 30_000, DescribeCluster())
    caller.flush()
    answers = [await caller.answer(number) for number in range(10, 10 + len(STRANGE))]
    taken = [strange for strange, answer in zip(STRANGE, answers, strict=True) if not is_refused(answer)]
    assert taken == []
    assert isinstance(await caller.answer(1), AppendResult)
    assert isinstance(await caller.answer(2), ClusterView)
    assert isinstance(await caller.ask(3, ReadStream("s")), StreamPage)
    caller.close()


async def test_tags_marks_and_chunks_of_real_nodes(nodes: Nodes) -> None:
    """What the fake nodes of the other tests do, real ones do too."""
    addresses = by_address([node.port for node in nodes.settings.nodes])
    partition = partition_of_tag("t", nodes.settings.partitions)
    async with Client(addresses, secret=nodes.settings.client_secret, timeout_s=60) as client:
        for number in range(10):
            event = NewEvent.json("Small", number)
            marks = [Mark("m", number + 1, 1)]
            await client.append(f"{{t}}{number % 2}", event, expected_tag=number, marks=marks)
        large = [NewEvent.json("Large", {"number": n, "text": "lorem ipsum " * 9}) for n in range(10, 610)]
        result = await client.append("{t}0", large, 5, expected_tag=10)
        with pytest.raises(WrongExpectedTag) as caught:
            await client.append("{t}0", NewEvent.json("T"), expected_tag=609)
        assert caught.value.details == {"tag": "t", "expected": 609, "actual": 610}
        with pytest.raises(MarkRefused):
            await client.append("{t}0", NewEvent.json("T"), marks=[("m", 10, 1)])
        moved = await client.move_marks(partition, [("m", 1, 2)])
        mark = await client.read_mark(partition, "m", consistency="local", token=moved.token)
        assert (mark.position, mark.generation, mark.index) == (1, 2, moved.index)

        found, page = [], await client.read_tag("t", limit=70, token=result.token, consistency="local")
        found += page.events
        while page.next_from:
            page = await client.read_tag("t", from_number=page.next_from, limit=70)
            found += page.events
        assert [event.tag_number for event in found] == list(range(1, 611))
        assert [event.json() for event in found[:10]] == list(range(10))
        assert [event.id for event in found[10:]] == [event.id for event in large]
        back = await client.read_tag("t", backward=True, limit=3)
        assert [event.tag_number for event in back.events] == [610, 609, 608]
        small = await client.read_tag("t", types=["Small"], limit=1000)
        assert [event.json() for event in small.events] == list(range(10))
        middle = await client.read_stream("{t}0", from_version=400, limit=3)
        assert [(e.version, e.tag_number, e.json()["number"]) for e in middle.events] == [
            (400, 405, 404),
            (401, 406, 405),
            (402, 407, 406),
        ]
