"""The quick way takes what the codec takes, as the same values of the same types, or leaves it to it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from allsource.cluster.protocol.codec import decode_requests, decode_results, encode_request, encode_result
from allsource.cluster.protocol.frames import ProtocolError
from allsource.cluster.protocol.kinds import Kind
from allsource.cluster.protocol.payload import (
    LARGE_VALUES_MAX,
    SMALL_ARRAY_MAX,
    SMALL_BYTES,
    batch_prefix,
    unpack,
)
from allsource.cluster.protocol.quick import quick_requests, quick_results
from allsource.cluster.protocol.requests import (
    AppendPart,
    AppendRequest,
    AppendResult,
    DescribeCluster,
    PartitionPage,
    Request,
    StreamPage,
)
from allsource.storage.model.chunks import PLAIN, Chunk
from allsource.storage.model.errors import AllsourceError
from tests.cluster.protocol.wire_samples import REQUESTS, RESULTS, RUN, client, dialler, pair
from tests.memory import at_most

APPENDS = [request for request in REQUESTS if isinstance(request, AppendRequest)]
QUICK = (AppendResult, StreamPage, PartitionPage)


def requests_of(*requests: Request) -> bytes:
    items = [encode_request(n, 5000 + n, request) for n, request in enumerate(requests)]
    return batch_prefix(Kind.REQUESTS, len(items)) + b"".join(items)


def results_of(*results: Any) -> bytes:
    items = [encode_result(2**63 - 1 - n, result) for n, result in enumerate(results)]
    return batch_prefix(Kind.RESULTS, len(items)) + b"".join(items)


def typed(value: Any) -> Any:
    """A value with the types of all that is in it: `True == 1`, and a `Chunk` equals its tuple."""
    if isinstance(value, list | tuple):
        return type(value), [typed(one) for one in value]
    return type(value), value


# -- what it takes


def test_appends_are_read_as_the_codec_reads_them() -> None:
    payload = requests_of(*APPENDS, *APPENDS)
    found = quick_requests(payload)
    assert typed(found) == typed(decode_requests(unpack(payload)))
    assert found is not None
    assert [request for _, _, request in found] == [*APPENDS, *APPENDS]
    assert typed(quick_requests(memoryview(bytearray(payload)))) == typed(found)


@pytest.mark.parametrize("result", [result for result in RESULTS if isinstance(result, QUICK)])
def test_answers_are_read_as_the_codec_reads_them(result: Any) -> None:
    payload = results_of(result, result)
    found = quick_results(payload)
    assert found is not None
    assert typed(found) == typed(decode_results(unpack(payload)))


def test_it_is_what_sessions_do(monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = pair()

    def fail(*_: object, **__: object) -> Any:
        raise AssertionError("the slow way was taken")

    monkeypatch.setattr("allsource.cluster.protocol.node_session.unpack", fail)
    monkeypatch.setattr("allsource.cluster.protocol.session.unpack", fail)
    for request in APPENDS:
        one.request(1, 1000, request)
    (asked,) = other.receive(b"".join(one.take()))
    assert [request for _, _, request in asked.items] == APPENDS  # type: ignore[union-attr]
    for result in RESULTS:
        if isinstance(result, QUICK):
            other.reply(1, result)
            (answer,) = one.receive(b"".join(other.take()))
            assert answer.items == [(1, result)]  # type: ignore[union-attr]


# -- what it leaves


@pytest.mark.parametrize("request_", [r for r in REQUESTS if not isinstance(r, AppendRequest)])
def test_other_requests_are_the_codecs(request_: Request) -> None:
    for payload in (requests_of(request_), requests_of(APPENDS[0], request_)):
        assert quick_requests(payload) is None


@pytest.mark.parametrize("result", [result for result in RESULTS if not isinstance(result, QUICK)])
def test_other_answers_are_the_codecs(result: Any) -> None:
    for payload in (results_of(result), results_of(RESULTS[0], result)):
        assert quick_results(payload) is None


def test_large_frames_of_requests_are_the_codecs() -> None:
    """There it counts the values before it makes any."""
    small = AppendRequest((AppendPart("s", -1, (Chunk(1, 1, PLAIN, b"x" * (SMALL_BYTES - 100)),)),))
    large = AppendRequest((AppendPart("s", -1, (Chunk(1, 1, PLAIN, b"x" * SMALL_BYTES),)),))
    assert quick_requests(requests_of(small)) is not None
    assert quick_requests(requests_of(large)) is None


def test_who_may_not_ask_is_not_read_quickly() -> None:
    one, other = pair(dialler(channel="beat"))
    payload = requests_of(APPENDS[0])
    with pytest.raises(ProtocolError):
        list(other.receive(len(payload).to_bytes(4, "big") + payload))
    one, other = pair(client())
    with pytest.raises(ProtocolError):
        list(one.receive(len(payload).to_bytes(4, "big") + payload))
    payload = results_of(RESULTS[0])
    with pytest.raises(ProtocolError):
        list(other.receive(len(payload).to_bytes(4, "big") + payload))


BOMBS = [
    b"\x92\x20\xdd\xff\xff\xff\xff\x97",
    b"\x92\x20\xdc\x10\x00" + b"\x97" * 4096,
    b"\x92\x21\xdc\xff\xff" + b"\x98" * 60_000,
    b"\x92\x20\xdc\x00\x01\x97\x01\x01\x01\xdd\xff\xff\xff\xff",
    b"\x92\x20\xdc\x00\x01\x97\x01\x01\x01\x91\x93\xa1s\xff\xdd\xff\xff\xff\xff",
    b"\x92\x21\xdc\x00\x01\x96\x01\x03\x01\x01\x01\xdd\xff\xff\xff\xff",
    b"\x92\x21\xdc\x00\x01\x98\x01\x01\x01\x01\x01\x01\xdd\xff\xff\xff\xff\xc2",
]


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_claim_costs_nothing(bomb: bytes) -> None:
    with at_most(4 << 20):
        assert quick_requests(bomb) is None
        assert quick_results(bomb) is None


def test_arrays_have_the_codecs_bounds() -> None:
    page = PartitionPage(1, 1, 1, (RUN,) * (LARGE_VALUES_MAX + 1))
    assert quick_results(results_of(page)) is None
    assert quick_results(results_of(page._replace(runs=page.runs[1:]))) is not None
    item = encode_result(1, RESULTS[0])
    for count in (SMALL_ARRAY_MAX, SMALL_ARRAY_MAX + 1):
        payload = batch_prefix(Kind.RESULTS, count) + item * count
        assert (quick_results(payload) is None) == (count > SMALL_ARRAY_MAX)


# -- whatever the bytes


def same(payload: bytes) -> None:
    """Nothing that the codec would refuse, and nothing otherwise than it."""
    for quick, slow in ((quick_requests, decode_requests), (quick_results, decode_results)):
        found = quick(payload)
        if found is not None:
            assert typed(found) == typed(slow(unpack(payload, answers=True)))  # type: ignore[operator]


_ODD = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=3)
    | st.binary(max_size=3)
    | st.just([])
    | st.just({})
    | st.just(msgpack.ExtType(5, b"x"))
    | st.just(msgpack.Timestamp(5))
)


EDGES = [-3, -2, -1, 65_535, 65_536, 3_600_000, 3_600_001, 2**63 - 1, 2**63, True, 1.0, "1", b"1", None, []]


def places(values: list[Any]) -> Iterator[tuple[list[Any], int]]:
    """Every place in a nest of lists."""
    for at, value in enumerate(values):
        yield values, at
        if isinstance(value, list):
            yield from places(value)


@pytest.mark.parametrize(
    "payload",
    [requests_of(one) for one in APPENDS] + [results_of(r) for r in RESULTS if isinstance(r, QUICK)],
)
def test_every_edge_in_every_place(payload: bytes) -> None:
    kind, [item] = msgpack.unpackb(payload)
    for inside, at in places(item):
        right = inside[at]
        for edge in EDGES:
            inside[at] = edge
            same(batch_prefix(kind, 1) + msgpack.packb(item))
        inside[at] = right


@given(st.data())
def test_any_value_in_any_place(data: st.DataObject) -> None:
    """A right frame in which one value, somewhere, is another one, or one is missing, or one more."""
    payload = data.draw(
        st.sampled_from(
            [requests_of(one) for one in APPENDS] + [results_of(r) for r in RESULTS if isinstance(r, QUICK)]
        )
    )
    kind, items = msgpack.unpackb(payload)
    inside = items[0]
    while True:
        at = data.draw(st.integers(0, len(inside) - 1)) if inside else 0
        if inside and isinstance(inside[at], list) and inside[at] and data.draw(st.booleans()):
            inside = inside[at]
        else:
            break
    change = data.draw(st.sampled_from(["put", "drop", "add"]))
    if change == "put" and inside:
        inside[at] = data.draw(_ODD)
    elif change == "drop" and inside:
        del inside[at]
    else:
        inside.insert(at, data.draw(_ODD))
    same(batch_prefix(kind, len(items)) + b"".join(msgpack.packb(item) for item in items))


@given(st.data())
def test_any_change_of_bytes(data: st.DataObject) -> None:
    frames = [requests_of(*APPENDS), results_of(*[r for r in RESULTS if isinstance(r, AppendResult)])]
    frames += [results_of(r) for r in RESULTS if isinstance(r, StreamPage | PartitionPage)]
    frame = bytearray(data.draw(st.sampled_from(frames)))
    for _ in range(data.draw(st.integers(0, 3))):
        frame[data.draw(st.integers(0, len(frame) - 1))] = data.draw(st.integers(0, 255))
    same(bytes(frame[: data.draw(st.integers(len(frame) - 3, len(frame)))]))


@given(st.binary(max_size=60))
def test_any_bytes(data: bytes) -> None:
    same(data)
    same(b"\x92\x20\xdc\x00\x01" + data)
    same(b"\x92\x21\xdc\x00\x01" + data)


def test_the_samples_have_what_is_read_quickly() -> None:
    assert len(APPENDS) > 2
    assert {type(result) for result in RESULTS} > set(QUICK)
    assert DescribeCluster() in REQUESTS
    assert any(isinstance(result, AllsourceError) for result in RESULTS)
