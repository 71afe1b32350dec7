"""A connection without its socket: what one side queues, the other understands; the rest is refused."""

from __future__ import annotations

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from allsource.cluster.protocol.frames import FrameParser, ProtocolError, encode_frame
from allsource.cluster.protocol.handshake_frames import WireLimits
from allsource.cluster.protocol.kinds import UNPROVED_BYTES_MAX, Kind
from allsource.cluster.protocol.node_session import BeatArrived, Messages, Requests, ServerSession
from allsource.cluster.protocol.payload import BATCH_BYTES, BATCH_ITEMS_MAX
from allsource.cluster.protocol.requests import (
    AppendPart,
    AppendRequest,
    ClusterView,
    DescribeCluster,
    PartitionPage,
)
from allsource.cluster.protocol.session import ClientSession, Established, Results
from allsource.storage.model.chunks import PLAIN, Chunk
from allsource.storage.model.errors import InvalidRequest, NotFound, OutcomeUnknown, TooLarge
from tests.cluster.protocol.wire_samples import (
    BEAT,
    MESSAGES,
    NONCE_1,
    NONCE_2,
    REQUESTS,
    RESULTS,
    RUN,
    acceptor,
    client,
    deliver,
    dialler,
    pair,
)


def chunk_of(size: int) -> Chunk:
    return Chunk(1, size, PLAIN, b"x" * size)


def append_of(size: int) -> AppendRequest:
    return AppendRequest((AppendPart("s", -1, (chunk_of(size),)),))


def refused(session: ClientSession | ServerSession, payload: bytes) -> str:
    with pytest.raises(ProtocolError) as caught:
        list(session.receive(encode_frame(payload)))
    return caught.value.code


# -- what goes through


def test_both_sides_are_told_when_the_handshake_is_over() -> None:
    one, other = ClientSession(client(), NONCE_1), ServerSession(acceptor(), NONCE_2)
    assert deliver(one, other) == []
    assert deliver(other, one) == []
    (established,) = deliver(one, other)
    assert established == Established(other.hello)  # type: ignore[arg-type]
    assert deliver(other, one) == [Established(one.welcome)]  # type: ignore[arg-type]


def test_requests_and_results() -> None:
    one, other = pair()
    for number, request in enumerate(REQUESTS):
        one.request(number, 100, request)
    assert deliver(one, other) == [Requests([(i, 100, request) for i, request in enumerate(REQUESTS)])]
    for number, result in enumerate(RESULTS):
        other.reply(number, result)
    (event,) = deliver(other, one)
    assert isinstance(event, Results)
    assert [number for number, _ in event.items] == list(range(len(RESULTS)))
    assert event.items[2][1] == RESULTS[2]


def test_messages_and_requests_share_the_data_channel() -> None:
    one, other = pair(dialler())
    one.messages(MESSAGES)
    one.request(1, 100, DescribeCluster())
    assert deliver(one, other) == [Messages(MESSAGES), Requests([(1, 100, DescribeCluster())])]


def test_beats_have_the_beat_channel() -> None:
    one, other = pair(dialler(channel="beat"))
    one.beat(BEAT)
    assert deliver(one, other) == [BeatArrived(BEAT)]


def test_what_was_taken_is_not_sent_again() -> None:
    one, _ = pair()
    one.request(1, 100, DescribeCluster())
    assert one.queued_bytes > 0
    assert len(one.take()) == 1
    assert (one.queued_bytes, one.take()) == (0, [])


@given(st.lists(st.integers(0, 3 * BATCH_BYTES), max_size=8))
def test_frames_are_cut_by_bytes(sizes: list[int]) -> None:
    one, other = pair()
    requests = [append_of(size) for size in sizes]
    for number, request in enumerate(requests):
        one.request(number, 1, request)
    pieces = one.take()
    for payload in FrameParser().feed(b"".join(pieces)):
        items = msgpack.unpackb(payload)[1]
        assert len(payload) <= BATCH_BYTES + 16 or len(items) == 1
    events = list(other.receive(b"".join(pieces)))
    found = [item for event in events for item in event.items]  # type: ignore[union-attr]
    assert found == [(number, 1, request) for number, request in enumerate(requests)]


def test_frames_are_cut_by_items() -> None:
    one, other = pair()
    for number in range(2 * BATCH_ITEMS_MAX + 1):
        one.request(number, 1, DescribeCluster())
    events = deliver(one, other)
    assert [len(event.items) for event in events] == [1024, 1024, 1]  # type: ignore[union-attr]


# -- what is refused, and by whom


@pytest.mark.parametrize("kind", [0, 1, 3, Kind.MESSAGES, Kind.BEAT, Kind.RESULTS, 99, -1])
def test_a_client_may_send_requests_only(kind: int) -> None:
    _, other = pair()
    assert refused(other, msgpack.packb([kind, []])) == "malformed"


@pytest.mark.parametrize("kind", [Kind.BEAT, Kind.RESULTS, Kind.WELCOME])
def test_a_peer_sends_no_beats_on_the_data_channel(kind: int) -> None:
    _, other = pair(dialler())
    assert refused(other, msgpack.packb([kind, []])) == "malformed"


@pytest.mark.parametrize("kind", [Kind.MESSAGES, Kind.REQUESTS])
def test_a_peer_sends_only_beats_on_the_beat_channel(kind: int) -> None:
    _, other = pair(dialler(channel="beat"))
    assert refused(other, msgpack.packb([kind, []])) == "malformed"


@pytest.mark.parametrize("kind", [Kind.REQUESTS, Kind.MESSAGES, Kind.HELLO])
def test_a_server_sends_results_only(kind: int) -> None:
    one, _ = pair()
    assert refused(one, msgpack.packb([kind, []])) == "malformed"


def test_requests_before_the_handshake_are_refused() -> None:
    other = ServerSession(acceptor(), NONCE_2)
    assert refused(other, msgpack.packb([Kind.REQUESTS, [[1, 1, 4]]])) == "malformed"


def test_a_stranger_gets_four_kib() -> None:
    other = ServerSession(acceptor(), NONCE_2)
    assert refused(other, b"\x01" * (UNPROVED_BYTES_MAX + 1)) == "frame_too_large"


def test_a_client_gets_what_the_limits_say() -> None:
    _, other = pair(client(), acceptor(limits=WireLimits(frame_bytes_max=10_000)))
    assert refused(other, b"\x01" * 10_001) == "frame_too_large"


def test_what_came_before_the_fault_is_still_given() -> None:
    one, other = pair()
    one.request(1, 100, DescribeCluster())
    events = other.receive(b"".join(one.take()) + encode_frame(b"\xc1"))
    assert next(events) == Requests([(1, 100, DescribeCluster())])
    with pytest.raises(ProtocolError):
        next(events)


def test_the_last_word_reaches_the_other_side() -> None:
    one, other = pair()
    other.refuse(ProtocolError("idle", "no request for long"))
    with pytest.raises(ProtocolError, match="idle: no request for long") as caught:
        deliver(other, one)
    one.refuse(caught.value)
    assert one.take() == [], "a refusal is not answered"


# -- what cannot be sent


def test_a_request_that_no_frame_holds_is_refused_before_it_is_sent() -> None:
    one, _ = pair(client(), acceptor(limits=WireLimits(frame_bytes_max=1000)))
    with pytest.raises(TooLarge, match="at most"):
        one.request(1, 1, append_of(1000))
    with pytest.raises(InvalidRequest):
        one.request(1, 1, AppendRequest((AppendPart("\ud800", -1, ()),)))
    assert one.take() == []


def test_the_largest_request_that_is_not_refused_arrives() -> None:
    one, other = pair(client(), acceptor(limits=WireLimits(frame_bytes_max=1000)))
    sent = 0
    for size in range(900, 1001):
        try:
            one.request(size, 1, append_of(size))
        except TooLarge:
            break
        assert len(deliver(one, other)) == 1
        sent = size
    assert sent > 950


def test_an_answer_that_no_frame_holds_becomes_an_error() -> None:
    one, other = pair(client(), acceptor(limits=WireLimits(frame_bytes_max=1000)))
    other.reply(1, PartitionPage(1, 1, 1, (RUN._replace(chunk=chunk_of(1000)),)))
    (event,) = deliver(other, one)
    assert isinstance(event, Results)
    assert isinstance(event.items[0][1], TooLarge)


def test_an_answer_that_msgpack_cannot_say_becomes_an_error() -> None:
    one, other = pair()
    other.reply(1, ClusterView({"what": object()}))
    other.reply(2, NotFound("gone", stream=object()))
    (event,) = deliver(other, one)
    assert isinstance(event, Results)
    assert [type(result) for _, result in event.items] == [OutcomeUnknown, OutcomeUnknown]


# -- whatever the bytes


@given(st.binary(max_size=300), st.booleans())
def test_any_bytes_end_in_a_protocol_error_or_events(data: bytes, framed: bool) -> None:
    for session in (*pair(), *pair(dialler()), ServerSession(acceptor(), NONCE_2)):
        try:
            list(session.receive(encode_frame(data) if framed else data))
        except ProtocolError as error:
            session.refuse(error)
        assert len(session.take()) <= 2, "an answer, and a last word"
