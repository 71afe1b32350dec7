"""What a node sends as a page becomes the events that were stored, or a clear error, and never much more
than it is."""

from __future__ import annotations

import zlib
from random import Random
from typing import Any

import msgpack
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from allsource.client import NewEvent, UnreadableAnswer
from allsource.client.calls import Call
from allsource.client.pages import TagEvents
from allsource.client.unpacking import (
    PAGE_RAW_MAX,
    checked,
    events_of,
    partition_events,
    stream_events,
    tag_events,
)
from allsource.cluster.protocol.requests import PartitionPage, ReadPartition, Run, StreamPage, TagPage
from allsource.cluster.protocol.session import ClientSession
from allsource.storage.model.chunks import (
    CHUNK_EVENTS_MAX,
    CHUNK_RAW_MAX,
    PLAIN,
    ZSTD,
    Chunk,
    check_chunks,
    pack_events,
)
from allsource.storage.model.errors import InvalidRequest
from allsource.storage.model.events import BINARY
from tests.cluster.protocol.wire_samples import zstd_that_claims
from tests.memory import at_most


class FakeConnection:
    def __init__(self) -> None:
        self.dropped_because: Exception | None = None

    def drop(self, error: Exception) -> None:
        self.dropped_because = error


class FakeFuture:
    pass


def a_call() -> Call:
    call = Call(1, ReadPartition(3), 3, False, 0, 0.0, FakeFuture())  # type: ignore[arg-type]
    call.connection = FakeConnection()
    return call


def page_of(*runs: Run) -> PartitionPage:
    return PartitionPage(3, 9, 10, runs)


def run_of(chunk: Chunk, *, skip: int = 0, take: int | None = None, **fields: Any) -> Run:
    numbers = {"first_version": 5, "first_position": 70, "first_tag_number": 0, "timestamp_us": 9, **fields}
    return Run("s", **numbers, skip=skip, take=chunk.count if take is None else take, chunk=chunk)


def numbered(count: int, size: int = 0) -> list[NewEvent]:
    return [NewEvent(f"T{n % 3}", b'"' + b"x" * size + b"%d" % n + b'"', b"m") for n in range(count)]


# -- what is right


@given(st.integers(1, 600), st.sampled_from((0, 10, 700)), st.booleans(), st.booleans(), st.data())
def test_any_cut_of_any_append_comes_back(
    count: int, size: int, compress: bool, forward: bool, data: st.DataObject
) -> None:
    """A page of the events from `low` to `high`, as a node cuts it: the chunks that hold them, in order."""
    new = numbered(count, size)
    low = data.draw(st.integers(0, count - 1))
    high = data.draw(st.integers(low + 1, count))
    runs, first = [], 0
    for chunk in pack_events(new, compress=compress):
        skip, end = max(0, low - first), min(chunk.count, high - first)
        if skip < end:
            numbers = {
                "first_version": 5 + first,
                "first_position": 70 + first,
                "first_tag_number": 30 + first,
            }
            runs.append(run_of(chunk, skip=skip, take=end - skip, **numbers))
        first += chunk.count
    runs = runs if forward else runs[::-1]
    events = events_of(TagPage("t", 3, 99, 0, forward, tuple(runs)), a_call())
    events = events if forward else events[::-1]
    assert [(e.id, e.type, e.data, e.metadata, e.encoding) for e in events] == [
        tuple(e) for e in new[low:high]
    ]
    assert [(e.version, e.position, e.tag_number) for e in events] == [
        (5 + n, 70 + n, 30 + n) for n in range(low, high)
    ]
    assert {(e.stream, e.partition, e.timestamp_us) for e in events} == {("s", 3, 9)}


def test_events_without_a_tag_have_no_number() -> None:
    (chunk,) = pack_events(numbered(3))
    assert [event.tag_number for event in events_of(page_of(run_of(chunk)), a_call())] == [0, 0, 0]


def test_the_pages_say_what_they_said() -> None:
    (chunk,) = pack_events(numbered(3))
    run = run_of(chunk, first_tag_number=7)
    stream = stream_events(StreamPage("s", 3, 7, 1, 2, 6, True, (run,)), a_call())
    assert (stream.info, stream.next_from, len(stream.events)) == (("s", 3, 7, 1, 2), 6, 3)
    partition = partition_events(page_of(run), a_call())
    assert (partition.partition, partition.last_position, partition.next_from) == (3, 9, 10)
    tag = tag_events(TagPage("t", 3, 9, 4, False, (run,)), a_call(), ("T0", "T1"))
    assert tag == TagEvents("t", 3, tag.events, 9, 4)
    assert [(event.tag_number, event.type) for event in tag.events] == [(8, "T1"), (7, "T0")]


def test_a_page_that_stays_packed_is_looked_at_too() -> None:
    (chunk,) = pack_events(numbered(3))
    page = page_of(run_of(chunk))
    assert checked(page, a_call()) is page
    with pytest.raises(UnreadableAnswer):
        checked(page_of(run_of(chunk, take=4)), a_call())


def test_large_events_are_read() -> None:
    """Compressed to almost nothing, or not at all; as large as a page may be in all."""
    for event in (
        NewEvent("T", b"x" * 40_000_000, encoding=BINARY),
        NewEvent("T", Random(1).randbytes(5_000_000), encoding=BINARY),
    ):
        (chunk,) = pack_events([event])
        (found,) = events_of(page_of(run_of(chunk)), a_call())
        assert zlib.crc32(found.data) == zlib.crc32(event.data)


# -- what is wrong

RAW = msgpack.packb([[b"i" * 16, "T", b"x" * 5000, b"", 1]])
SQUEEZED = zstandard.compress(RAW)
TWO = msgpack.packb([[b"i" * 16, "T", b"x", b"", 1], [b"j" * 16, "T", b"x", b"", 1]])

LARGE = msgpack.packb([[bytes([n]) * 16, "T", b"x" * (CHUNK_RAW_MAX // 2), b"", 1] for n in range(2)])


def claims(frame: bytes, size: int) -> bytes:
    """The same frame with another content size in its header (RFC 8878, 3.1.1.1.4: 2 bytes, less 256)."""
    assert zstandard.frame_content_size(frame) == len(RAW) == int.from_bytes(frame[5:7], "little") + 256
    return frame[:5] + (size - 256).to_bytes(2, "little") + frame[7:]


WRONG_CHUNKS = {
    "a frame that claims less than is said": Chunk(1, len(RAW) + 1, ZSTD, SQUEEZED),
    "a frame that claims more than is said": Chunk(1, len(RAW) - 1, ZSTD, SQUEEZED),
    "a frame that holds more than it claims": Chunk(1, 1000, ZSTD, claims(SQUEEZED, 1000)),
    "a frame that holds less than it claims": Chunk(1, 6000, ZSTD, claims(SQUEEZED, 6000)),
    "a frame without a size": Chunk(
        1, len(RAW), ZSTD, zstandard.ZstdCompressor(write_content_size=False).compress(RAW)
    ),
    "bytes behind the frame": Chunk(1, len(RAW), ZSTD, SQUEEZED + b"\0"),
    "another frame behind the frame": Chunk(1, len(RAW), ZSTD, SQUEEZED + SQUEEZED),
    "half a frame": Chunk(1, len(RAW), ZSTD, SQUEEZED[:-3]),
    "no frame": Chunk(1, len(RAW), ZSTD, RAW),
    "nothing": Chunk(1, 0, ZSTD, b""),
    "a frame that claims a terabyte": Chunk(1, 1 << 40, ZSTD, zstd_that_claims(1 << 40)),
    "a frame that claims a terabyte, and says less": Chunk(1, len(RAW), ZSTD, zstd_that_claims(1 << 40)),
    "several events that claim too much": Chunk(
        2, CHUNK_RAW_MAX + 1, ZSTD, zstd_that_claims(CHUNK_RAW_MAX + 1)
    ),
    "too many events": Chunk(CHUNK_EVENTS_MAX + 1, 9, PLAIN, b"\xdc\x01\x01" + b"\x90" * 6),
    "no events": Chunk(0, 1, PLAIN, b"\x90"),
    "another codec": Chunk(1, len(RAW), 2, RAW),
    "a codec that is none, and a frame": Chunk(1, len(RAW), 2, SQUEEZED),
    "several events that are too large together": Chunk(2, len(LARGE), PLAIN, LARGE),
    "several events that are too large together, squeezed": Chunk(
        2, len(LARGE), ZSTD, zstandard.compress(LARGE)
    ),
    "more events than are said": Chunk(1, len(TWO), PLAIN, TWO),
    "fewer events than are said": Chunk(3, len(TWO), PLAIN, TWO),
    "a claim of very many events": Chunk(2, 5, PLAIN, b"\xdd\xff\xff\xff\xff"),
    "empty arrays": Chunk(256, 259, PLAIN, b"\xdc\x01\x00" + b"\x90" * 256),
    "something behind the events": Chunk(2, len(TWO) + 1, PLAIN, TWO + b"\0"),
    "no msgpack": Chunk(1, 1, PLAIN, b"\xc1"),
    "an event with a short id": Chunk(1, 9, PLAIN, msgpack.packb([[b"i", "T", b"", b"", 0]])),
    "an event of another encoding": Chunk(1, 24, PLAIN, msgpack.packb([[b"i" * 16, "T", b"", b"", 2]])),
    "an event that is true where it should be a number": Chunk(
        1, 24, PLAIN, msgpack.packb([[b"i" * 16, "T", b"", b"", True]])
    ),
}


@pytest.mark.parametrize("name", WRONG_CHUNKS)
def test_a_chunk_that_is_none_ends_the_read_and_its_connection(name: str) -> None:
    call = a_call()
    run = run_of(WRONG_CHUNKS[name])
    with at_most(1 << 20), pytest.raises(UnreadableAnswer, match="its connection is closed") as caught:
        events_of(page_of(run), call)
    assert caught.value.definite
    assert len(caught.value.message) < 500
    assert isinstance(call.connection, FakeConnection)
    assert call.connection.dropped_because is not None


@pytest.mark.parametrize("name", WRONG_CHUNKS)
def test_its_owner_had_refused_it_too(name: str) -> None:
    with at_most(1 << 20), pytest.raises(InvalidRequest):
        check_chunks([WRONG_CHUNKS[name]], events_max=10_000, event_bytes_max=1 << 20)


@pytest.mark.parametrize(("skip", "take"), [(0, 0), (0, 4), (1, 3), (3, 1), (2**63 - 1, 1), (0, 2**63 - 1)])
def test_a_run_that_is_not_within_its_chunk_ends_the_read(skip: int, take: int) -> None:
    (chunk,) = pack_events(numbered(3))
    with pytest.raises(UnreadableAnswer):
        events_of(page_of(run_of(chunk, skip=skip, take=take)), a_call())


def test_a_page_of_small_chunks_does_not_become_a_large_one() -> None:
    """Each chunk is right, and squeezed a thousandfold; a frame of 16 MiB could hold 10 GiB of them."""
    (chunk,) = pack_events([NewEvent("T", b"x" * 60_000, encoding=BINARY)])
    assert len(chunk.data) < 200
    fits = PAGE_RAW_MAX // chunk.raw_size
    assert len(events_of(page_of(*[run_of(chunk)] * fits), a_call())) == fits
    with at_most(1 << 20), pytest.raises(UnreadableAnswer, match="at most"):
        events_of(page_of(*[run_of(chunk)] * (fits + 1)), a_call())
    with pytest.raises(UnreadableAnswer, match="at most"):
        checked(page_of(*[run_of(chunk)] * (fits + 1)), a_call())


def test_a_page_may_become_as_large_as_a_frame_that_is_taken() -> None:
    assert ClientSession.__init__.__kwdefaults__["frame_bytes_max"] == PAGE_RAW_MAX


_DATA = st.binary(max_size=80) | st.sampled_from([RAW, SQUEEZED, TWO, zstd_that_claims(1 << 50)])
_CHUNKS = st.builds(
    Chunk, st.integers(0, 300), st.integers(0, 2**63 - 1) | st.just(len(RAW)), st.integers(0, 3), _DATA
)


@given(st.lists(st.builds(run_of, _CHUNKS, skip=st.integers(0, 3), take=st.none() | st.integers(0, 3))))
def test_whatever_a_page_says_it_ends_in_events_or_in_the_error(runs: list[Run]) -> None:
    try:
        found = events_of(page_of(*runs), a_call())
    except UnreadableAnswer:
        return
    assert len(found) == sum(run.take for run in runs)


@given(st.integers(0, len(SQUEEZED) - 1), st.integers(0, 255))
def test_a_damaged_frame_ends_in_events_or_in_the_error(at: int, byte: int) -> None:
    data = SQUEEZED[:at] + bytes([byte]) + SQUEEZED[at + 1 :]
    try:
        found = events_of(page_of(run_of(Chunk(1, len(RAW), ZSTD, data))), a_call())
    except UnreadableAnswer:
        return
    assert len(found) == 1
