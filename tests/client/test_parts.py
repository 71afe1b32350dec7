"""The pieces that decide without a network: the gate, the map, and what an error means for a call."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from allsource.client.calls import Call, Next, error_at_deadline, judge
from allsource.client.cluster_map import ClusterMap
from allsource.client.gate import Gate
from allsource.cluster.protocol.requests import AppendPart, AppendRequest, ReadStream, Request
from allsource.storage.model import errors
from allsource.storage.model.entry import Mark
from allsource.storage.model.errors import AllsourceError, QueueFull

APPEND = AppendRequest((AppendPart("s", -1, ()),))
MARKS_ALONE = AppendRequest((), -1, (Mark("m", 3, 1),), 3)
READ = ReadStream("s")


def call_of(request: Request, *, attempted: bool = False) -> Call:
    call = Call(1, request, 3, False, 0, 0.0, asyncio.Future(loop=asyncio.new_event_loop()))
    call.future.get_loop().close()
    if attempted:
        call.sent_at = 1.0
        call.lose_attempt()
    return call


CONFLICT = errors.WrongExpectedVersion("s", 3, 5)
NOT_YET = errors.WrongExpectedVersion("s", 5, 3)
TAG_CONFLICT = errors.WrongExpectedTag("t", 3, 5)
TAG_NOT_YET = errors.WrongExpectedTag("t", 5, 3)
REFUSED = errors.MarkRefused("m", 3, 1)
NOT_THERE = errors.WrongExpectedVersion("s", "exists", 0)


@pytest.mark.parametrize(
    ("request_", "attempted", "error", "next_"),
    [
        (APPEND, False, CONFLICT, Next.SETTLE),
        (APPEND, True, CONFLICT, Next.SETTLE),
        (APPEND, False, NOT_YET, Next.SETTLE),
        (APPEND, True, NOT_YET, Next.LATER),
        (APPEND, False, NOT_THERE, Next.SETTLE),
        (APPEND, True, NOT_THERE, Next.LATER),
        (APPEND, False, TAG_CONFLICT, Next.SETTLE),
        (APPEND, True, TAG_CONFLICT, Next.SETTLE),
        (APPEND, False, TAG_NOT_YET, Next.SETTLE),
        (APPEND, True, TAG_NOT_YET, Next.LATER),
        (APPEND, False, REFUSED, Next.SETTLE),
        (APPEND, True, REFUSED, Next.SETTLE),
        (MARKS_ALONE, False, REFUSED, Next.SETTLE),
        (MARKS_ALONE, True, REFUSED, Next.LATER),
        (APPEND, True, errors.InvalidRequest("m"), Next.SETTLE),
        (APPEND, True, errors.EventIdConflict("m"), Next.SETTLE),
        (READ, False, errors.NotFound("m"), Next.SETTLE),
        (APPEND, False, errors.StorageFault("m"), Next.SETTLE),
        (APPEND, False, errors.NotOwner("m"), Next.ELSEWHERE),
        (APPEND, False, errors.ShuttingDown("m"), Next.ELSEWHERE),
        (APPEND, False, errors.NoMajority("m"), Next.ELSEWHERE),
        (APPEND, False, errors.NoOwner("m"), Next.LATER),
        (APPEND, False, errors.QueueFull("m"), Next.LATER),
        (APPEND, False, errors.DiskFull("m"), Next.LATER),
        (APPEND, False, errors.OutcomeUnknown("m"), Next.LATER),
        (READ, False, errors.OutcomeUnknown("m"), Next.LATER),
    ],
)
def test_what_an_error_means(
    request_: Request, attempted: bool, error: AllsourceError, next_: Next
) -> None:
    assert judge(call_of(request_, attempted=attempted), error, "n1") is next_


@pytest.mark.parametrize(
    ("request_", "told", "attempted", "answer"),
    [
        (APPEND, None, False, errors.NoOwner),
        (APPEND, errors.NotOwner("m"), False, errors.NoOwner),
        (APPEND, errors.QueueFull("m"), False, errors.QueueFull),
        (APPEND, errors.QueueFull("m"), True, errors.OutcomeUnknown),
        (APPEND, errors.OutcomeUnknown("m"), False, errors.OutcomeUnknown),
        (READ, None, True, errors.Unavailable),
        (READ, errors.OutcomeUnknown("m"), True, errors.Unavailable),
        (READ, errors.NoMajority("m"), True, errors.NoMajority),
    ],
)
def test_what_is_told_at_the_deadline(
    request_: Request, told: AllsourceError | None, attempted: bool, answer: type[AllsourceError]
) -> None:
    call = call_of(request_, attempted=attempted)
    if told is not None:
        judge(call, told, "n1")
    assert type(error_at_deadline(call)) is answer


def test_an_append_that_is_still_on_its_way_is_unknown_at_the_deadline() -> None:
    call = call_of(APPEND)
    assert error_at_deadline(call).definite
    call.sent_at = 1.0
    assert not error_at_deadline(call).definite


def test_waits_grow_and_are_bounded() -> None:
    call = call_of(APPEND)
    waits = []
    for attempts in (0, 1, 3, 8, 10_000):
        call.attempts = attempts
        waits.append((call.backoff_s(0.0), call.backoff_s(1.0)))
    assert waits == [(0.005, 0.01), (0.01, 0.02), (0.04, 0.08), (0.125, 0.25), (0.125, 0.25)]


def view(*rows: Any) -> dict[str, Any]:
    return {"partitions": list(rows)}


def row(partition: Any = 0, owner: Any = "n1", term: Any = 1, **more: Any) -> dict[str, Any]:
    return {"partition": partition, "owner": owner, "term": term, "replicas": ["n1", "n2"], **more}


def test_the_map_learns_owners_and_says_which_changed_and_from_whom() -> None:
    map_ = ClusterMap()
    assert map_.learn_view(view(row(0, "n1"), row(1, "n2"), row(2, None))) == {
        0: None,
        1: None,
    }
    assert map_.learn_view(view(row(0, "n1"), row(1, "n3", 2))) == {1: "n2"}
    assert map_.owners[:4] == ["n1", "n3", None, None]
    assert map_.replicas[:2] == [("n1", "n2"), ("n1", "n2")]


def test_the_map_passes_over_an_older_term() -> None:
    map_ = ClusterMap()
    map_.learn_view(view(row(0, "n2", 7)))
    assert map_.learn_view(view(row(0, "n1", 6))) == {}
    assert map_.owners[0] == "n2"


def test_the_map_takes_hints() -> None:
    map_ = ClusterMap()
    map_.learn_view(view(row(0, "n1"), row(1, "n2")))
    map_.learn_hint(0, "n3")
    map_.learn_hint(99, "n3")
    assert map_.owners[:2] == ["n3", "n2"]
    assert map_.learn_view(view(row(0, "n3", 2))) == {}


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"partitions": None},
        {"partitions": {}},
        view(1, None, []),
        view(row(99), row(-1), row("0"), row(0, 5), row(0, "n1", "1"), {"partition": 0}),
    ],
)
def test_the_map_passes_over_what_it_does_not_understand(value: dict[str, Any]) -> None:
    map_ = ClusterMap()
    assert map_.learn_view(value) == {}
    assert map_.owners == [None] * 32


def test_the_map_takes_replicas_only_as_a_list_of_names() -> None:
    map_ = ClusterMap()
    for replicas in (None, "n1", [1], {}):
        map_.learn_view(view(row(replicas=replicas)))
    assert map_.replicas[0] == ()


def test_another_number_of_partitions_starts_the_map_anew() -> None:
    map_ = ClusterMap()
    map_.learn_view(view(row(0, "n1")))
    map_.learn_cluster(64, {"n1": ("127.0.0.1", 7101)})
    assert (len(map_.owners), len(map_.replicas), map_.owners[0]) == (64, 64, None)
    assert map_.learn_view(view(row(63, "n1"))) == {63: None}


async def test_the_gate_counts_calls_and_bytes() -> None:
    gate = Gate(3, 100)
    assert gate.try_enter(60)
    assert not gate.try_enter(41)
    assert gate.try_enter(40)
    gate.leave(60)
    gate.leave(40)
    assert (gate.calls, gate.bytes) == (0, 0)
    assert gate.try_enter(1_000), "one call may be larger than the limit, alone"
    assert not gate.try_enter(1)


async def test_a_small_call_does_not_overtake_a_large_one_that_waits() -> None:
    gate = Gate(10, 100)
    assert gate.try_enter(80)
    large = asyncio.create_task(gate.enter(50, 1e9))
    await asyncio.sleep(0)
    assert not gate.try_enter(10)
    gate.leave(80)
    await large
    assert gate.try_enter(10)


async def test_the_gate_lets_in_first_come_first_served() -> None:
    gate = Gate(1, 100)
    order: list[int] = []

    async def enter(n: int) -> None:
        await gate.enter(1, 1e9)
        order.append(n)

    assert gate.try_enter(1)
    waiting = [asyncio.create_task(enter(n)) for n in range(4)]
    await asyncio.sleep(0)
    assert not gate.try_enter(1)
    waiting[1].cancel()
    for expected in ([0], [0, 2], [0, 2, 3]):
        gate.leave(1)
        assert not gate.try_enter(1), "nobody overtakes"
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert order == expected
    gate.leave(1)
    assert gate.calls == 0


async def test_who_is_let_in_and_cancelled_at_once_gives_the_room_back() -> None:
    gate = Gate(1, 100)
    assert gate.try_enter(1)
    waiting = asyncio.create_task(gate.enter(1, 1e9))
    await asyncio.sleep(0)
    gate.leave(1)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert (gate.calls, gate.bytes) == (0, 0)


async def test_the_gate_refuses_at_the_deadline() -> None:
    gate = Gate(1, 100)
    assert gate.try_enter(1)
    late = asyncio.create_task(gate.enter(1, 10.0))
    later = asyncio.create_task(gate.enter(1, 20.0))
    await asyncio.sleep(0)
    gate.expire(15.0)
    with pytest.raises(QueueFull):
        await late
    assert not later.done()
    gate.leave(1)
    await later
    assert gate.calls == 1
