"""Frames are found again, however the bytes are cut."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from allsource.cluster.protocol.frames import LENGTH, FrameParser, ProtocolError, encode_frame


def as_bytes(payloads: list[bytes | memoryview]) -> list[bytes]:
    return [bytes(payload) for payload in payloads]


def test_a_frame_is_its_length_and_its_payload() -> None:
    assert encode_frame(b"abc") == b"\x00\x00\x00\x03abc"


def test_many_frames_in_one_read() -> None:
    payloads = [b"a", b"", b"ccc" * 1000]
    assert as_bytes(FrameParser().feed(b"".join(map(encode_frame, payloads)))) == payloads


def test_one_byte_at_a_time() -> None:
    payloads = [b"a", b"", b"ccc" * 50]
    parser, found = FrameParser(), []
    for byte in b"".join(map(encode_frame, payloads)):
        found += as_bytes(parser.feed(bytes([byte])))
    assert found == payloads


@given(st.lists(st.binary(max_size=300)), st.lists(st.integers(0, 1200)))
def test_any_cut_gives_the_same_payloads(payloads: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(map(encode_frame, payloads))
    edges = [0, *sorted(cut for cut in cuts if cut < len(stream)), len(stream)]
    parser, found = FrameParser(), []
    for start, end in pairwise(edges):
        found += as_bytes(parser.feed(stream[start:end]))
    assert found == payloads


def test_earlier_payloads_stay_what_they_were() -> None:
    parser = FrameParser()
    parser.feed(encode_frame(b"x" * 100)[:50])
    (first,) = parser.feed(encode_frame(b"x" * 100)[50:] + b"\x00\x00")
    parser.feed(b"\x00\x03yyy" + encode_frame(b"z" * 500))
    assert bytes(first) == b"x" * 100


@pytest.mark.parametrize("pieces", [[], [1, 1, 1], [2]])
def test_too_large_is_known_from_the_length_alone(pieces: list[int]) -> None:
    stream, parser, at = LENGTH.pack(101) + b"x", FrameParser(100), 0
    for size in pieces:
        assert parser.feed(stream[at : at + size]) == []
        at += size
    with pytest.raises(ProtocolError) as caught:
        parser.feed(stream[at:])
    assert caught.value.code == "frame_too_large"
    assert "101" in caught.value.message
    assert "100" in caught.value.message


def test_exactly_the_limit_is_allowed() -> None:
    assert len(FrameParser(100).feed(encode_frame(b"x" * 100))) == 1


def test_the_limit_holds_behind_a_collected_frame() -> None:
    parser = FrameParser(10)
    parser.feed(encode_frame(b"abc")[:5])
    with pytest.raises(ProtocolError):
        parser.feed(encode_frame(b"abc")[5:] + LENGTH.pack(11))


def test_http_on_this_port_is_recognised() -> None:
    with pytest.raises(ProtocolError, match="looks like HTTP"):
        FrameParser().feed(b"GET /v1/cluster HTTP/1.1\r\n")


def test_an_http_port_that_we_dialled_is_recognised() -> None:
    with pytest.raises(ProtocolError, match="the other side speaks HTTP"):
        FrameParser().feed(b"HTTP/1.1 400 Bad Request\r\n")
