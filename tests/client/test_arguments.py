"""A wrong argument costs its own call a clear error, at once, and nobody else anything."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from allsource.client import BlockingClient, Client, InvalidRequest, NewEvent, Unavailable
from allsource.cluster.protocol.requests import DescribeCluster, ReadStream
from allsource.storage.model.partition import partition_of
from tests.client.fake_node import SECRET, FakeCluster
from tests.toy_service import ToyService
from tests.waiting import until

GOOD = NewEvent.json("T", 1)
NO_NUMBER = [0, -1, 2**63, 10**5000, True, "1", 1.0, None, b"1", [1]]
NO_TEXT = [5, None, b"x", ["x"], object()]
NO_TOKEN = ["x", "5", "0:1:2", "11:-1", "11:\u0661", "12:1", "11:" + "5" * 5000, "11:1\ud800", *NO_TEXT]
NO_TIMEOUT = [0, -1, float("nan"), float("inf"), 601, True, "5", 10**5000]
NO_MARKS = [
    None,
    0,
    5,
    "",
    "m",
    b"m",
    [5],
    ["abc"],
    [("m", 1)],
    [("m", 1, 1, 1)],
    [("", 1, 1)],
    [(" m", 1, 1)],
    [(b"m", 1, 1)],
    [("m" * 129, 1, 1)],
    [("m", -1, 1)],
    [("m", 1, -1)],
    [("m", 2**63, 1)],
    [("m", 1, 2**63)],
    [("m", True, 1)],
    [("m", 1, 1.0)],
    [("m", 10**5000, 1)],
    [("m", 1, 1), ("m", 2, 1)],
    [(f"m{n}", 1, 1) for n in range(1025)],
]
NO_TAG_NUMBER = [value for value in NO_NUMBER if value not in (0, None)]
TAGGED = [("{t}a", GOOD, "any")]
NO_NAME = ["", " a", "a\n", "a" * 129, "\ud800", *NO_TEXT]
NO_STREAM = NO_NAME


class Wrong(NamedTuple):
    """A call, one of its arguments by the name in the message, and values that it may not have."""

    call: Callable[[Any, Any], Any]
    """`call(client, value)`."""
    names: str
    values: list[Any]


WRONG = {
    "append stream": Wrong(lambda c, v: c.append(v, GOOD), "stream", ["$a", *NO_STREAM]),
    "append events": Wrong(
        lambda c, v: c.append("s", v),
        "event",
        [
            [],
            (),
            {"type": "A"},
            [{"type": "A"}],
            [GOOD, None],
            "x",
            b"x",
            None,
            5,
            (e for e in [GOOD]),
            object(),
        ],
    ),
    "append expected_version": Wrong(
        lambda c, v: c.append("s", GOOD, v),
        "expected_version",
        ["sometimes", "1", -1, 2**63, 10**5000, 1.0, True, None, [1]],
    ),
    "append timeout": Wrong(lambda c, v: c.append("s", GOOD, timeout_s=v), "timeout_s", NO_TIMEOUT),
    "append expected_tag": Wrong(
        lambda c, v: c.append("{t}a", GOOD, expected_tag=v), "expected_tag", NO_TAG_NUMBER
    ),
    "append expected_tag without a tag": Wrong(
        lambda c, v: c.append(v, GOOD, expected_tag=0), "expected_tag", ["a", "{}a"]
    ),
    "append marks": Wrong(lambda c, v: c.append("s", GOOD, marks=v), "mark", NO_MARKS),
    "append_many expected_tag": Wrong(
        lambda c, v: c.append_many(TAGGED, expected_tag=v), "expected_tag", NO_TAG_NUMBER
    ),
    "append_many expected_tag of several tags": Wrong(
        lambda c, v: c.append_many(v, expected_tag=0),
        "expected_tag|partition",
        [[*TAGGED, ("{u}a", GOOD, "any")], [*TAGGED, ("a", GOOD, "any")]],
    ),
    "append_many marks": Wrong(lambda c, v: c.append_many(TAGGED, marks=v), "mark", NO_MARKS),
    "append_many marks alone": Wrong(lambda c, v: c.append_many([], marks=v), "partition", [[("m", 1, 1)]]),
    "move_marks partition": Wrong(
        lambda c, v: c.move_marks(v, [("m", 1, 1)]), "partition", [-1, 32, 10**5000, True, "1", 1.0, None]
    ),
    "move_marks marks": Wrong(lambda c, v: c.move_marks(11, v), "mark", [[], (), *NO_MARKS]),
    "move_marks timeout": Wrong(
        lambda c, v: c.move_marks(11, [("m", 1, 1)], timeout_s=v), "timeout_s", NO_TIMEOUT
    ),
    "read_tag tag": Wrong(
        lambda c, v: c.read_tag(v), "tag", ["{a}", "a}", "", "a\n", "a" * 127, "\ud800", *NO_TEXT]
    ),
    "read_tag from": Wrong(
        lambda c, v: c.read_tag("t", from_number=v),
        "from_number",
        [value for value in NO_NUMBER if value is not None],
    ),
    "read_tag limit": Wrong(lambda c, v: c.read_tag("t", limit=v), "limit", NO_NUMBER),
    "read_tag backward": Wrong(lambda c, v: c.read_tag("t", backward=v), "backward", [0, 1, None, "no"]),
    "read_tag types": Wrong(
        lambda c, v: c.read_tag("t", types=v), "type", [None, 5, "T", b"T", [""], [5], ["T"] * 257]
    ),
    "read_tag consistency": Wrong(lambda c, v: c.read_tag("t", consistency=v), "consistency", ["x", None]),
    "read_tag token": Wrong(lambda c, v: c.read_tag("j", token=v), "token", NO_TOKEN),
    "read_tag timeout": Wrong(lambda c, v: c.read_tag("t", timeout_s=v), "timeout_s", NO_TIMEOUT),
    "read_mark partition": Wrong(
        lambda c, v: c.read_mark(v, "m"), "partition", [-1, 32, 10**5000, True, "1", 1.0, None]
    ),
    "read_mark name": Wrong(lambda c, v: c.read_mark(11, v), "mark", NO_NAME),
    "read_mark consistency": Wrong(
        lambda c, v: c.read_mark(11, "m", consistency=v), "consistency", ["x", None]
    ),
    "read_mark token": Wrong(lambda c, v: c.read_mark(11, "m", token=v), "token", NO_TOKEN),
    "read_mark timeout": Wrong(lambda c, v: c.read_mark(11, "m", timeout_s=v), "timeout_s", NO_TIMEOUT),
    "append_many": Wrong(
        lambda c, v: c.append_many(v),
        "parts|stream|partition|event",
        [
            [],
            None,
            5,
            "abc",
            ["abcd"],
            [("a", GOOD)],
            [("a", "b", "any")],
            [("", GOOD, "any")],
            [("a", GOOD, "any"), ("b", GOOD, "any")],
            [("a", GOOD, "any")] * 2,
        ],
    ),
    "append_many timeout": Wrong(
        lambda c, v: c.append_many([("s", GOOD, "any")], timeout_s=v), "timeout_s", NO_TIMEOUT
    ),
    "read_stream stream": Wrong(lambda c, v: c.read_stream(v), "stream", NO_STREAM),
    "read_stream from": Wrong(
        lambda c, v: c.read_stream("s", from_version=v),
        "from_version",
        [value for value in NO_NUMBER if value is not None],
    ),
    "read_stream limit": Wrong(lambda c, v: c.read_stream("s", limit=v), "limit", NO_NUMBER),
    "read_stream backward": Wrong(
        lambda c, v: c.read_stream("s", backward=v), "backward", [0, 1, None, "no", "backward"]
    ),
    "read_stream consistency": Wrong(
        lambda c, v: c.read_stream("s", consistency=v), "consistency", ["Local", "", "eventual", *NO_TEXT]
    ),
    "read_stream token": Wrong(lambda c, v: c.read_stream("s", token=v), "token", NO_TOKEN),
    "read_stream timeout": Wrong(lambda c, v: c.read_stream("s", timeout_s=v), "timeout_s", NO_TIMEOUT),
    "stream_info stream": Wrong(lambda c, v: c.stream_info(v), "stream", NO_STREAM),
    "stream_info consistency": Wrong(
        lambda c, v: c.stream_info("s", consistency=v), "consistency", ["x", None]
    ),
    "stream_info token": Wrong(lambda c, v: c.stream_info("s", token=v), "token", NO_TOKEN),
    "stream_info timeout": Wrong(lambda c, v: c.stream_info("s", timeout_s=v), "timeout_s", NO_TIMEOUT),
    "stream stream": Wrong(lambda c, v: c.stream(v), "stream", NO_STREAM),
    "stream from": Wrong(lambda c, v: c.stream("s", from_version=v), "from_version", [0, -1, "1", 2**63]),
    "stream page": Wrong(lambda c, v: c.stream("s", page=v), "page", NO_NUMBER),
    "stream backward": Wrong(lambda c, v: c.stream("s", backward=v), "backward", [1, None]),
    "stream consistency": Wrong(lambda c, v: c.stream("s", consistency=v), "consistency", ["x", None]),
    "stream token": Wrong(lambda c, v: c.stream("s", token=v), "token", NO_TOKEN),
    "read_partition partition": Wrong(
        lambda c, v: c.read_partition(v), "partition", [-1, 32, 10**5000, True, "1", 1.0, None]
    ),
    "read_partition from": Wrong(
        lambda c, v: c.read_partition(11, from_position=v), "from_position", NO_NUMBER
    ),
    "read_partition limit": Wrong(lambda c, v: c.read_partition(11, limit=v), "limit", NO_NUMBER),
    "read_partition consistency": Wrong(
        lambda c, v: c.read_partition(11, consistency=v), "consistency", ["x", None]
    ),
    "read_partition token": Wrong(lambda c, v: c.read_partition(11, token=v), "token", NO_TOKEN),
    "read_partition timeout": Wrong(
        lambda c, v: c.read_partition(11, timeout_s=v), "timeout_s", NO_TIMEOUT
    ),
    "scan partitions": Wrong(lambda c, v: c.scan(v), "partition", [5, "12", [-1], ["1"], [True], [32]]),
    "scan consistency": Wrong(lambda c, v: c.scan(consistency=v), "consistency", ["x", None]),
    "scan page": Wrong(lambda c, v: c.scan(page=v), "page", NO_NUMBER),
    "scan_pages partitions": Wrong(lambda c, v: c.scan_pages(v), "partition", [5, [-1], [32]]),
    "scan_pages consistency": Wrong(lambda c, v: c.scan_pages(consistency=v), "consistency", ["x", None]),
    "scan_pages page": Wrong(lambda c, v: c.scan_pages(page=v), "page", NO_NUMBER),
    "cluster timeout": Wrong(lambda c, v: c.cluster(timeout_s=v), "timeout_s", NO_TIMEOUT),
}


async def end_of(call: Any) -> None:
    if inspect.isasyncgen(call):
        async for _ in call:
            pass
    else:
        await call


@pytest.mark.parametrize("name", WRONG)
async def test_a_wrong_argument_is_refused_by_name_and_nothing_is_sent(
    client: Client, cluster: FakeCluster, name: str
) -> None:
    wrong = WRONG[name]
    for value in wrong.values:
        with pytest.raises(InvalidRequest, match=wrong.names) as caught:
            await end_of(wrong.call(client, value))
        assert len(caught.value.message) < 400, "a short message, however long the value is"
    sent = [request for node in cluster.nodes.values() for request in node.requests]
    assert [request for request in sent if not isinstance(request, DescribeCluster)] == []
    assert not any(node.refusals for node in cluster.nodes.values())


def test_the_table_knows_every_argument_of_every_call() -> None:
    """A new argument is checked too, or this fails."""
    written = {
        "stream": "stream",
        "events": "append events",
        "expected_version": "append expected_version",
        "from_version": "from",
        "from_position": "from",
        "from_number": "from",
        "timeout_s": "timeout",
        "parts": "append_many",
    }
    missing = []
    for method, call in public(Client).items():
        for argument in list(inspect.signature(call).parameters)[1:]:
            row = written.get(argument, argument)
            if row not in WRONG and f"{method} {row}" not in WRONG:
                missing.append(f"{method}({argument})")
    assert missing == []


def public(cls: type) -> dict[str, Any]:
    """The calls to the cluster."""
    own = {"open", "close", "connect"}
    return {n: f for n, f in vars(cls).items() if not n.startswith("_") and callable(f) and n not in own}


async def test_innocent_calls_of_the_same_connection_go_on(client: Client, cluster: FakeCluster) -> None:
    held: list[Any] = []
    for node in cluster.nodes.values():
        node.service.meet = lambda request, reply: (
            ToyService.PASS
            if isinstance(request, DescribeCluster)
            else held.append((request, reply)) or ToyService.SWALLOW
        )
    innocent = [asyncio.create_task(client.append(f"s{n}", NewEvent.json("T", n))) for n in range(20)]
    await until(lambda: len(held) == 20)
    for wrong in WRONG.values():
        for value in wrong.values:
            with pytest.raises(InvalidRequest):
                await end_of(wrong.call(client, value))
    for request, reply in held:
        reply(cluster.store.append(request))
    assert [result.duplicate for result in await asyncio.gather(*innocent)] == [False] * 20
    assert all(node.accepted <= 2 and not node.refusals for node in cluster.nodes.values())


@pytest.mark.parametrize("odd", [object(), 2**64, "\ud800"])
async def test_what_cannot_be_encoded_fails_alone(client: Client, cluster: FakeCluster, odd: Any) -> None:
    """Should a value ever slip through, what else is in the same turn of the loop is sent."""
    dispatcher = client._dispatcher
    assert dispatcher is not None
    await until(dispatcher.routes.all_owners_are_connected)
    calls = [asyncio.create_task(client.append(f"s{n}", NewEvent.json("T", n))) for n in range(10)]
    await asyncio.sleep(0)
    assert client._gate.try_enter(0)
    slipped = dispatcher.start(ReadStream("s1", token=odd), partition_of("s1"), timeout_s=5, size=0)
    calls += [asyncio.create_task(client.append(f"s{n}", NewEvent.json("T", n))) for n in range(10, 20)]
    assert len(await asyncio.gather(*calls)) == 20
    with pytest.raises(InvalidRequest, match="cannot be sent"):
        await slipped.future
    assert not any(node.refusals for node in cluster.nodes.values())


# -- making a client


@pytest.mark.parametrize(
    ("addresses", "read"),
    [
        ("127.0.0.1:7101", ("127.0.0.1", 7101)),
        ("node-1.example:1", ("node-1.example", 1)),
        ("[::1]:7101", ("::1", 7101)),
        ("[fe80::1%eth0]:65535", ("fe80::1%eth0", 65535)),
        (("a:1",), ("a", 1)),
        (iter(["a:1"]), ("a", 1)),
    ],
)
def test_addresses(addresses: Any, read: tuple[str, int]) -> None:
    assert Client(addresses, secret=SECRET)._seeds == [read]


@pytest.mark.parametrize(
    "address",
    [
        *(
            "",
            "localhost",
            "host",
            ":7101",
            "host:",
            "host:abc",
            "host:0",
            "host:70000",
            "host:7101 ",
            " host:1",
        ),
        *(
            "::1:7101",
            "[::1]",
            "[::1]7101",
            "[host]:x",
            "http://host:7101",
            "user@host:7101",
            "host:\u0661",
        ),
        *("a/b:1", "host:-1", "host:1:2", 7101, None, b"host:7101", ["host"], [7101], [None], [b"host:1"]),
    ],
)
def test_addresses_that_are_none(address: Any) -> None:
    with pytest.raises(InvalidRequest, match=r"host:port"):
        Client(address, secret=SECRET)
    with pytest.raises(InvalidRequest, match=r"host:port"):
        BlockingClient(address, secret=SECRET)


def test_no_address() -> None:
    with pytest.raises(InvalidRequest, match="at least one"):
        Client([], secret=SECRET)


@pytest.mark.parametrize(
    ("argument", "values"),
    [
        ("secret", ["", None, 5, b"sesame", "\ud800", "x" * 2000]),
        ("cluster_id", [None, 5, "x" * 300, "a\n"]),
        ("name", [None, 5, "x" * 300, "\u202e"]),
        ("compression", [None, 0, 1, "zstd"]),
        ("timeout_s", [None, *NO_TIMEOUT]),
        ("inflight_max", NO_NUMBER),
        ("inflight_bytes_max", NO_NUMBER),
    ],
)
def test_wrong_options(argument: str, values: list[Any]) -> None:
    for value in values:
        options = {"secret": SECRET, argument: value}
        with pytest.raises(InvalidRequest, match=argument) as caught:
            Client("a:1", **options)
        assert "sesame" not in caught.value.message, "a secret is never shown"


# -- two faces of one client


def test_the_blocking_client_has_the_same_calls_and_arguments() -> None:
    """And each with its type: nothing hides a typo from mypy."""
    calls, blocking = public(Client), public(BlockingClient)
    assert calls.keys() == blocking.keys()
    for name in [*calls, "__init__", "connect"]:
        one, other = (inspect.signature(getattr(cls, name)) for cls in (Client, BlockingClient))
        assert one.parameters == other.parameters, name
        assert all(p.kind is not p.VAR_KEYWORD for p in other.parameters.values()), name
    assert inspect.signature(Client).parameters == inspect.signature(Client.connect).parameters


# -- the life of a client


async def test_a_client_has_one_life(cluster: FakeCluster) -> None:
    client = Client(cluster["n1"].address, secret=SECRET)
    with pytest.raises(Unavailable, match="not open"):
        await client.append("s", GOOD)
    await client.open()
    with pytest.raises(InvalidRequest, match="once"):
        await client.open()
    await client.append("s", GOOD)
    await client.close()
    await client.close()
    for call in (
        client.append("s", GOOD),
        client.read_stream("s"),
        client.cluster(),
        end_of(client.scan()),
    ):
        with pytest.raises(Unavailable, match="closed"):
            await call
    with pytest.raises(InvalidRequest, match="once"):
        await client.open()


async def test_a_client_of_another_event_loop_says_so(client: Client) -> None:
    def elsewhere() -> None:
        asyncio.run(client.append("s", GOOD))

    with pytest.raises(InvalidRequest, match="another event loop"):
        await asyncio.to_thread(elsewhere)
    assert not (await client.append("s", GOOD)).duplicate


async def test_an_opening_that_is_given_up_leaves_nothing_behind(cluster: FakeCluster) -> None:
    before = asyncio.all_tasks()
    address = cluster["n1"].address
    await cluster.stop()
    client = Client([address, "127.0.0.1:1"], secret=SECRET, timeout_s=60)
    opening = asyncio.create_task(client.open())
    await until(lambda: client._dialler is not None and len(client._dialler.failures) == 2)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    assert asyncio.all_tasks() == before


async def test_a_cancelled_call_that_was_not_sent_is_not_sent(client: Client, cluster: FakeCluster) -> None:
    await until(lambda: all(len(node.connections) == 1 for node in cluster.nodes.values()))
    call = asyncio.create_task(client.append("s", GOOD))
    await asyncio.sleep(0)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await client.append("t", GOOD)
    await until(lambda: client._gate.calls == 0)
    assert cluster.store.version("s") == 0
