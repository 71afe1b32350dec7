"""Chunks: how events are cut and packed, what is refused of those that come from outside, and how little
a chunk that lies may cost."""

from __future__ import annotations

import json
from collections.abc import Sequence
from random import Random

import msgpack
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from allsource.config.knobs import knobs_of
from allsource.config.schema import Limits
from allsource.config.values import Size
from allsource.storage.model.chunks import (
    CHUNK_EVENTS_MAX,
    CHUNK_RAW_MAX,
    COMPRESS_FROM,
    EVENT_OVERHEAD_BYTES,
    EVENT_RAW_MAX,
    PLAIN,
    ZSTD,
    CheckedEvents,
    Chunk,
    check_chunks,
    decode_chunk,
    pack_events,
    same_content,
    unpack_chunk,
    unpack_chunks,
)
from allsource.storage.model.errors import Corrupt, InvalidRequest, TooLarge
from allsource.storage.model.events import (
    BINARY,
    EVENT_TYPE_BYTES_MAX,
    JSON,
    Event,
    NewEvent,
    check_event_type,
)
from tests.foreign import foreign_event
from tests.memory import at_most

MIB = 1 << 20
RANDOM = Random(7)

types = st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=1, max_size=30)
sizes = st.sampled_from((0, 1, 60, 200, 1100, 33_000, 70_000))
new_events = st.builds(
    lambda type, size, seed, encoding, id: foreign_event(
        type, seed * (size // max(1, len(seed))), seed[:20], encoding, id
    ),
    types,
    sizes,
    st.binary(max_size=60),
    st.sampled_from((JSON, BINARY)),
    st.binary(min_size=16, max_size=16),
)
event_lists = st.lists(new_events, min_size=1, max_size=20, unique_by=lambda event: event.id)


def check(
    chunks: Sequence[Chunk] | Chunk, events_max: int = 10_000, event_bytes_max: int = MIB
) -> CheckedEvents:
    if isinstance(chunks, Chunk):
        chunks = (chunks,)
    return check_chunks(chunks, events_max=events_max, event_bytes_max=event_bytes_max)


def decode(chunk: Chunk, first_tag_number: int = 0) -> list[Event]:
    return decode_chunk(
        chunk,
        stream="s",
        partition=3,
        first_version=5,
        first_position=70,
        first_tag_number=first_tag_number,
        timestamp_us=1_000_000,
    )


def plain(raw: bytes, count: int = 1) -> Chunk:
    return Chunk(count, len(raw), PLAIN, raw)


def squeezed(raw: bytes, count: int = 1, raw_size: int | None = None) -> Chunk:
    frame = zstandard.ZstdCompressor(level=1).compress(raw)
    return Chunk(count, len(raw) if raw_size is None else raw_size, ZSTD, frame)


def some(count: int, size: int = 1) -> list[NewEvent]:
    """Events of bytes that do not compress."""
    return [NewEvent("t", RANDOM.randbytes(size), encoding=BINARY) for _ in range(count)]


# -- packing


@given(event_lists, st.booleans())
@settings(deadline=None)
def test_chunks_give_back_their_events(events: list[NewEvent], compress: bool) -> None:
    chunks = pack_events(events, compress=compress)
    found = check(chunks)
    assert found == (len(events), events[0].id, tuple(dict.fromkeys(event.type for event in events)))
    assert [tuple(event) for event in unpack_chunks(chunks)] == [
        (event.id, event.type, event.data, event.metadata, event.encoding) for event in events
    ]
    assert sum(chunk.count for chunk in chunks) == len(events)
    for chunk in chunks:
        assert chunk.codec == PLAIN or compress
        assert chunk.count == 1 or chunk.raw_size <= CHUNK_RAW_MAX
        assert chunk.codec == ZSTD or chunk.raw_size == len(chunk.data)


def test_stored_events_have_their_numbers() -> None:
    events = some(3)
    for first_tag_number in (0, 11):
        (chunk,) = pack_events(events)
        stored = decode(chunk, first_tag_number)
        assert [event.version for event in stored] == [5, 6, 7]
        assert [event.position for event in stored] == [70, 71, 72]
        assert [event.tag_number for event in stored] == ([11, 12, 13] if first_tag_number else [0, 0, 0])
        for new, event in zip(events, stored, strict=True):
            assert type(event) is Event
            assert (event.id, event.type, event.data) == (new.id, new.type, new.data)
            assert (event.metadata, event.encoding, event.uuid.bytes) == (
                new.metadata,
                new.encoding,
                new.id,
            )
            assert (event.stream, event.partition, event.timestamp_us) == ("s", 3, 1_000_000)


@pytest.mark.parametrize(
    ("count", "cut"), [(1, [1]), (255, [255]), (256, [256]), (257, [256, 1]), (1000, [256, 256, 256, 232])]
)
def test_a_chunk_holds_up_to_256_events(count: int, cut: list[int]) -> None:
    assert [chunk.count for chunk in pack_events(some(count))] == cut


def test_a_chunk_of_several_events_holds_up_to_64_kib() -> None:
    for count, size in ((100, 1000), (256, 300), (20, 30_000), (3, 32_000)):
        chunks = pack_events(some(count, size))
        assert len(chunks) > 1
        assert max(chunk.raw_size for chunk in chunks) <= CHUNK_RAW_MAX
        # Not much smaller either: a further event would not have fitted.
        assert min(chunk.raw_size for chunk in chunks[:-1]) > CHUNK_RAW_MAX - 2 * (size + 100) - 256 * 64


def test_a_large_event_has_a_chunk_of_its_own() -> None:
    small, large = some(4), some(1, 100_000)
    chunks = pack_events([*small[:2], *large, *small[2:]])
    assert [chunk.count for chunk in chunks] == [2, 1, 2]
    assert chunks[1].raw_size > CHUNK_RAW_MAX
    assert [chunk.count for chunk in pack_events(some(1, 200_000))] == [1]
    assert check(chunks).count == 5


def test_the_largest_event_that_may_be_fits_into_its_chunk() -> None:
    size = knobs_of(Limits)["event_bytes_max"].kind
    assert isinstance(size, Size)
    assert size.most + EVENT_OVERHEAD_BYTES + EVENT_TYPE_BYTES_MAX == EVENT_RAW_MAX
    event = NewEvent("t" * EVENT_TYPE_BYTES_MAX, b"d" * 70_000, b"m" * 70_000, BINARY)
    for chunks in (pack_events([event]), pack_events([event], compress=False)):
        assert check(chunks, event_bytes_max=140_000).count == 1
        assert chunks[0].raw_size <= 140_000 + EVENT_OVERHEAD_BYTES + EVENT_TYPE_BYTES_MAX
        with pytest.raises(TooLarge):
            check(chunks, event_bytes_max=139_999)


@pytest.mark.parametrize("above", [-1, 0])
def test_chunks_are_compressed_from_1_kib(above: int) -> None:
    around = len(pack_events([NewEvent("t", b" " * 500, encoding=BINARY)])[0].data) - 500
    (chunk,) = pack_events([NewEvent("t", b" " * (COMPRESS_FROM - around + above), encoding=BINARY)])
    assert chunk.raw_size == COMPRESS_FROM + above
    assert chunk.codec == (ZSTD if above >= 0 else PLAIN)
    assert unpack_chunk(chunk)[0][2] == b" " * (COMPRESS_FROM - around + above)


def test_what_does_not_compress_is_left_plain() -> None:
    (chunk,) = pack_events(some(1, 10_000))
    assert chunk.codec == PLAIN
    (chunk,) = pack_events([NewEvent("t", b" " * 10_000, encoding=BINARY)], compress=False)
    assert chunk.codec == PLAIN


def test_a_frame_says_its_size_and_is_small() -> None:
    orders = [NewEvent.json("OrderPlaced", {"order": n, "customer": n * 7 % 90}) for n in range(200)]
    (chunk,) = pack_events(orders)
    assert chunk.codec == ZSTD
    assert zstandard.frame_content_size(chunk.data) == chunk.raw_size
    assert len(chunk.data) < chunk.raw_size * 7 // 8
    assert [json.loads(event.data)["order"] for event in decode(chunk)] == list(range(200))


# -- shapes

GOOD = [bytes(16), "t", b"1", b"", 0]


def replaced(at: int, value: object) -> list:
    event: list = list(GOOD)
    event[at] = value
    return event


SHAPES = [
    (None, "does not hold the 1 events"),
    ({}, "does not hold the 1 events"),
    ([], "does not hold the 1 events"),
    ("text", "does not hold the 1 events"),
    ([1], "array"),
    ([GOOD[:4]], "array"),
    ([[*GOOD, 1]], "array"),
    ([replaced(0, bytes(15))], "16 bytes"),
    ([replaced(0, bytes(17))], "16 bytes"),
    ([replaced(0, "0" * 16)], "16 bytes"),
    ([replaced(1, "")], "type"),
    ([replaced(1, b"t")], "an event is an array"),
    ([replaced(1, ["t"])], "an event is an array"),
    ([replaced(1, "a\nb")], "control"),
    ([replaced(1, "x" * 129)], "128 bytes"),
    ([replaced(1, "é" * 65)], "128 bytes"),
    ([replaced(2, "text")], "are bytes"),
    ([replaced(2, None)], "are bytes"),
    ([replaced(3, "")], "are bytes"),
    ([replaced(4, 2)], "encoding"),
    ([replaced(4, -1)], "encoding"),
    ([replaced(4, True)], "encoding"),
    ([replaced(4, 1.0)], "encoding"),
    ([replaced(4, None)], "encoding"),
    ([replaced(2, msgpack.ExtType(1, b"x"))], "unreadable"),
    ([replaced(2, {"a": 1})], "unreadable"),
]


@pytest.mark.parametrize("pack", [plain, squeezed])
@pytest.mark.parametrize(("value", "says"), SHAPES)
def test_wrong_shapes_are_refused(value: object, says: str, pack: type) -> None:
    with pytest.raises(InvalidRequest, match=says):
        check(pack(msgpack.packb(value)))


def test_no_id_comes_twice() -> None:
    one, two = some(2)
    with pytest.raises(InvalidRequest, match="same id"):
        check(pack_events([one, two, one]))
    with pytest.raises(InvalidRequest, match="same id"):
        check((*pack_events([one, two]), *pack_events([one])))
    assert check((*pack_events([one]), *pack_events([two]))).count == 2


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\xc1",
        b"\xdd\xff\xff\xff\x7f",
        b"\xdd\x00\x00",
        b"\x91" * 60_000,
        b"\x91\xdd\xff\xff\xff\xff",
        b"\x91\x95\xc6\xff\xff\xff\xff",
        b"\x91\x95\xc4\x10" + bytes(16) + b"\xa2\xff\xfe\xc4\x00\xc4\x00\x00",
        pack_events([NewEvent("t")])[0].data + b"\x00",
        pack_events([NewEvent("t")])[0].data[:-1],
    ],
    ids=[
        "empty", "reserved byte", "bomb", "half a header", "deep nesting", "nested bomb", "long bytes",
        "bad utf-8", "trailing byte", "cut short",
    ],
)  # fmt: skip
@pytest.mark.parametrize("pack", [plain, squeezed])
def test_hostile_bytes_are_refused(raw: bytes, pack: type) -> None:
    with pytest.raises(InvalidRequest):
        check(pack(raw))
    with pytest.raises(Corrupt):
        unpack_chunk(pack(raw))


# -- what a chunk says of itself

RAW = msgpack.packb([[bytes(16), "t", b"x" * 2000, b"", 1]])
FRAME = zstandard.ZstdCompressor(level=1).compress(RAW)
UNSIZED = zstandard.ZstdCompressor(level=1, write_content_size=False).compress(RAW)
SKIPPED = b"\x50\x2a\x4d\x18" + (4).to_bytes(4, "little") + b"junk"
LIES = {
    "more than it says": Chunk(1, len(RAW) - 1, ZSTD, FRAME),
    "less than it says": Chunk(1, len(RAW) + 1, ZSTD, FRAME),
    "nothing": Chunk(1, 0, ZSTD, FRAME),
    "less than nothing": Chunk(1, -1, ZSTD, UNSIZED),
    "no size": Chunk(1, len(RAW), ZSTD, UNSIZED),
    "trailing bytes": Chunk(1, len(RAW), ZSTD, FRAME + b"\0"),
    "a second frame": Chunk(1, len(RAW), ZSTD, FRAME + FRAME),
    "a frame to be skipped": Chunk(1, 0, ZSTD, SKIPPED),
    "a frame behind one to be skipped": Chunk(1, len(RAW), ZSTD, SKIPPED + FRAME),
    "no frame": Chunk(1, len(RAW), ZSTD, RAW),
    "an empty frame": Chunk(1, 0, ZSTD, b""),
    "half a frame": Chunk(1, len(RAW), ZSTD, FRAME[:-5]),
    "half a header": Chunk(1, len(RAW), ZSTD, FRAME[:5]),
    # Bytes 5 and 6 of the frame are its content's size less 256 (RFC 8878 §3.1.1.1.4).
    "a frame with a wrong claim": Chunk(
        1, len(RAW) - 1, ZSTD, FRAME[:5] + (len(RAW) - 257).to_bytes(2, "little") + FRAME[7:]
    ),
    "a frame that claims more": Chunk(
        1, len(RAW) + 9, ZSTD, FRAME[:5] + (len(RAW) - 247).to_bytes(2, "little") + FRAME[7:]
    ),
}


def test_the_frame_that_the_lies_are_made_of() -> None:
    assert int.from_bytes(FRAME[5:7], "little") + 256 == len(RAW)
    assert check(Chunk(1, len(RAW), ZSTD, FRAME)).count == 1


@pytest.mark.parametrize("lie", LIES)
def test_a_compressed_chunk_that_lies_is_refused(lie: str) -> None:
    with pytest.raises(InvalidRequest, match="a compressed chunk cannot be unpacked"):
        check(LIES[lie])
    with pytest.raises(Corrupt, match="unreadable events"):
        unpack_chunk(LIES[lie])


@pytest.mark.parametrize(
    ("chunk", "says"),
    [
        (Chunk(1, len(RAW) + 1, PLAIN, RAW), "is said to have"),
        (Chunk(1, 0, PLAIN, RAW), "is said to have"),
        (Chunk(1, len(RAW), 2, RAW), "codec"),
        (Chunk(1, len(RAW), -1, RAW), "codec"),
        (Chunk(0, len(RAW), PLAIN, RAW), "1 to 256 events, not 0"),
        (Chunk(-1, len(RAW), PLAIN, RAW), "1 to 256 events, not -1"),
        (Chunk(257, len(RAW), PLAIN, RAW), "1 to 256 events, not 257"),
        (Chunk(2, len(RAW), PLAIN, RAW), "does not hold the 2 events"),
        (Chunk(2, CHUNK_RAW_MAX + 1, PLAIN, bytes(CHUNK_RAW_MAX + 1)), "at most 65536 bytes"),
        (Chunk(1, EVENT_RAW_MAX, ZSTD, FRAME), "at most 1048576 bytes"),
    ],
)
def test_what_a_chunk_says_of_itself_is_checked(chunk: Chunk, says: str) -> None:
    with pytest.raises(InvalidRequest, match=says):
        check(chunk)


def test_an_append_has_a_chunk() -> None:
    with pytest.raises(InvalidRequest, match="at least one event"):
        check(())


def test_limits_are_named_and_decided_before_unpacking() -> None:
    assert check(pack_events(some(20)), events_max=20).count == 20
    for count in (21, 40, 300, 1000):
        with pytest.raises(TooLarge) as caught:
            check(pack_events(some(count)), events_max=20)
        # Several chunks are counted together, by what they say; a single one by itself.
        assert caught.value.details == {"limit": 20, "actual": count}
    with pytest.raises(TooLarge) as caught:
        check(Chunk(1 << 40, 1, PLAIN, b"\x90"), events_max=20)
    assert caught.value.details == {"limit": 20, "actual": 1 << 40}

    for size, right in ((40, True), (41, False)):
        chunks = pack_events([NewEvent("t", b"x" * 60, b"y" * size, BINARY)])
        if right:
            assert check(chunks, event_bytes_max=100).count == 1
        else:
            with pytest.raises(TooLarge) as caught:
                check(chunks, event_bytes_max=100)
            assert caught.value.details == {"limit": 100, "actual": 101}
    # An event among others, too.
    with pytest.raises(TooLarge):
        check(pack_events([*some(3), *some(1, 101)]), event_bytes_max=100)


# -- what it costs


@pytest.mark.parametrize("of", [1 << 30, EVENT_RAW_MAX + 1, 8 * MIB])
def test_a_frame_that_would_be_large_is_not_unpacked(of: int) -> None:
    """30 kB that are a gigabyte: refused by what they claim."""
    frame = zstandard.ZstdCompressor(level=1).compress(bytes(min(of, 64 * MIB)))
    for chunk in (Chunk(1, of, ZSTD, frame), Chunk(1, 900, ZSTD, frame), Chunk(256, of, ZSTD, frame)):
        with at_most(MIB // 4), pytest.raises(InvalidRequest):
            check(chunk)
    for chunk in (Chunk(1, 900, ZSTD, frame), Chunk(1, of + 1, ZSTD, frame)):
        with at_most(MIB // 4), pytest.raises(Corrupt):
            unpack_chunk(chunk)


def claiming(size: int) -> bytes:
    """A frame whose header says this size; its blocks hold 8 MiB."""
    large = zstandard.ZstdCompressor(level=1).compress(bytes(8 * MIB))
    # Magic number, a descriptor (one segment, a content size of 4 bytes), the size, then the blocks.
    lying = large[:4] + b"\xa0" + size.to_bytes(4, "little") + large[zstandard.frame_header_size(large) :]
    assert zstandard.frame_content_size(lying) == size
    return lying


def test_a_frame_that_claims_little_and_holds_much_makes_no_more_than_it_claims() -> None:
    chunk = Chunk(1, 2000, ZSTD, claiming(2000))
    with at_most(MIB // 4), pytest.raises(InvalidRequest, match="cannot be unpacked"):
        check(chunk)
    with at_most(MIB // 4), pytest.raises(Corrupt):
        unpack_chunk(chunk)


def test_a_frame_that_claims_more_than_any_event_has_is_not_unpacked() -> None:
    chunk = Chunk(1, EVENT_RAW_MAX + 1, ZSTD, claiming(EVENT_RAW_MAX + 1))
    with at_most(MIB // 4), pytest.raises(Corrupt, match="unreadable events"):
        unpack_chunk(chunk)


def test_a_stored_chunk_holds_as_many_events_as_it_says() -> None:
    (chunk,) = pack_events(some(2))
    for count in (1, 3):
        with pytest.raises(Corrupt, match=f"2 events where {count} are said"):
            unpack_chunk(chunk._replace(count=count))


def test_checking_a_chunk_costs_its_own_size() -> None:
    """The largest that there is of many events, which are nothing but ids."""
    chunks = pack_events([NewEvent("t", b"", encoding=BINARY) for _ in range(CHUNK_EVENTS_MAX)])
    with at_most(CHUNK_EVENTS_MAX * 500):
        assert check(chunks).count == CHUNK_EVENTS_MAX


@given(event_lists, st.data())
@settings(deadline=None)
def test_a_damaged_chunk_is_refused_or_still_events(events: list[NewEvent], data: st.DataObject) -> None:
    for chunk in pack_events(events):
        raw = bytearray(chunk.data)
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
        damaged = chunk._replace(data=bytes(raw))
        try:
            found = check(damaged)
        except InvalidRequest:
            continue
        assert len(decode(damaged)) == found.count == chunk.count


@given(st.binary(max_size=200), st.sampled_from((PLAIN, ZSTD)), st.integers(1, 3))
def test_any_bytes_are_refused_in_words_or_are_events(raw: bytes, codec: int, count: int) -> None:
    chunk = Chunk(count, len(raw), codec, raw)
    try:
        found = check(chunk)
    except InvalidRequest:
        return
    assert len(decode(chunk)) == found.count == count
    assert len(found.first_id) == 16


# -- the same content


def test_same_content_however_it_was_cut_and_packed() -> None:
    events = [NewEvent("t", b"1" * 2000), NewEvent("u", b"2")]
    whole = pack_events(events)
    (plain_one,) = pack_events(events, compress=False)
    pieces = [chunk for event in events for chunk in pack_events([event])]
    # The same array with a longer header than it needs (msgpack allows it).
    longer = b"\xdc\x00\x02" + plain_one.data[1:]
    assert whole[0].codec == ZSTD
    for other in (list(whole), [plain_one], pieces, [plain(longer, 2)]):
        assert same_content(whole, other)
        assert same_content(other, whole)
    for other in (
        pack_events(events[:1]),
        pack_events([*events, NewEvent("v")]),
        pack_events(events[::-1]),
        pack_events([events[0], NewEvent("u", b"3", id=events[1].id)]),
        pack_events([events[0], NewEvent("v", b"2", id=events[1].id)]),
        pack_events([events[0], NewEvent("u", b"2", b"1", id=events[1].id)]),
        pack_events([events[0], NewEvent("u", b"2", encoding=BINARY, id=events[1].id)]),
        pack_events([events[0], NewEvent("u", b"2")]),
    ):
        assert not same_content(whole, other)


def test_stored_content_that_went_bad_is_told() -> None:
    events = some(2)
    (chunk,) = pack_events(events)
    with pytest.raises(Corrupt):
        same_content([chunk._replace(data=b"\xc1" * len(chunk.data))], [chunk])


@pytest.mark.parametrize("value", ["OrderPlaced", "order.placed", "shop.orders:Order.Placed", "é" * 64])
def test_event_types_of_every_school(value: str) -> None:
    check_event_type(value)
    assert check(pack_events([NewEvent(value)])).types == (value,)
