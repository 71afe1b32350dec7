"""The log record: every field, every flipped bit, every cut; appends, parts and chunks by their places."""

from __future__ import annotations

import struct
import zlib
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from allsource.storage.model.chunks import CHUNK_EVENTS_MAX, EVENT_RAW_MAX, PLAIN, ZSTD, pack_events
from allsource.storage.model.entry import (
    APPENDS_MAX,
    CONFIG,
    EVENTS,
    HEADER_BYTES,
    NOOP,
    NUMBERS_END,
    Append,
    Configuration,
    Entry,
    Mark,
    NewAppend,
    PlacedPart,
    check_record,
    decode_entry,
    make_entry,
    span_of,
)
from allsource.storage.model.errors import Corrupt
from allsource.storage.model.events import BINARY, NewEvent
from tests.storage.logs import new_append, part, together

NUMBERS = st.integers(0, NUMBERS_END - 1)
FIELDS = (
    "partition", "index", "term", "kind", "first_position", "count", "timestamp_us", "appends", "record",
)  # fmt: skip
names = st.text(st.characters(exclude_categories=("Cc", "Cs", "Z")), min_size=1, max_size=10).filter(
    lambda name: "{" not in name
)
marks = st.lists(
    st.builds(Mark, names, st.integers(0, 2**63 - 1), st.integers(0, 2**63 - 1)),
    max_size=3,
    unique_by=lambda mark: mark.name,
)
appends = st.builds(
    lambda parts, moved: together(*parts, NewAppend(Append((), tuple(moved)), ())),
    st.lists(
        st.builds(part, names, st.integers(1, 2**40), st.integers(1, 4)),
        min_size=1,
        max_size=3,
        unique_by=lambda one: one.append.parts[0].stream,
    ),
    marks,
)

MOVED = Mark("mailer", 17, 2)
OLD = b"old and compressible " * 100


def events(count: int, data: bytes = b"1") -> list[NewEvent]:
    return [NewEvent("tested", data, encoding=BINARY) for _ in range(count)]


def entry(**changed: object) -> Entry:
    """Two appends: two events of `a` and one of `b{t}` with a mark, then three of `a`, compressed."""
    wanted: dict = {
        "partition": 3, "index": 9, "term": 2, "kind": EVENTS, "first_position": 20,
        "timestamp_us": 1_700_000_000_000_000,
        "appends": (
            together(
                part("a", 4, 2),
                part("b{t}", 1, 1, first_tag_number=8),
                NewAppend(Append((), (MOVED,)), ()),
            ),
            part("a", 6, 3, data=OLD),
        ),
    }  # fmt: skip
    return make_entry(**{**wanted, **changed})


# -- the bytes


@given(st.integers(0, 2**16 - 1), NUMBERS, NUMBERS, NUMBERS, NUMBERS, st.lists(appends, max_size=3))
def test_a_record_gives_back_its_entry(
    partition: int, index: int, term: int, position: int, timestamp: int, wanted: list[NewAppend]
) -> None:
    made = make_entry(
        partition=partition, index=index, term=term, kind=EVENTS, first_position=position,
        timestamp_us=timestamp, appends=wanted,
    )  # fmt: skip
    for whole in (True, False):
        read = decode_entry(made.record, whole=whole)
        assert read == made
        for name in FIELDS:
            assert getattr(read, name) == getattr(made, name)
    assert made.count == sum(one.event_count for one in wanted)
    assert span_of(made.record) == (position, made.count)
    assert made.events() == read.events()


def test_the_layout_is_the_one_on_the_page() -> None:
    record = entry().record
    crc, form, kind, flags, partition, term, index, first_position, count, timestamp, heads_bytes = (
        struct.unpack_from(">IBBBHQQQIQI", record)
    )
    assert (form, kind, flags, partition, term, index) == (2, 1, 0, 3, 2, 9)
    assert (first_position, count, timestamp) == (20, 6, 1_700_000_000_000_000)
    assert HEADER_BYTES == 49
    end = HEADER_BYTES + heads_bytes
    assert crc == zlib.crc32(record[4:end])
    (first, second) = msgpack.unpackb(record[HEADER_BYTES:end])
    ((a, b), moved), ((again,), none) = first, second
    assert a[:6] == ["a", 4, 2, part("a", 4, 2).append.parts[0].first_id, 0, ["tested"]]
    assert (b[:3], b[4]) == (["b{t}", 1, 1], 8)
    assert (moved, none) == ([["mailer", 17, 2]], [])
    at = end
    for _, _, _, _, _, _, chunks in (a, b, again):
        ((_, raw_size, stored_size, codec, crc32),) = chunks
        assert zlib.crc32(record[at : at + stored_size]) == crc32
        assert (codec == PLAIN) is (raw_size == stored_size)
        at += stored_size
    assert at == len(record)
    assert again[6][0][3] == ZSTD


def test_every_flipped_bit_is_found() -> None:
    """In the header, the heads and the chunks. Who asks for less than the whole finds all but the last."""
    record = entry().record
    chunks_at = HEADER_BYTES + len(entry().payload())
    for at in range(len(record)):
        for bit in range(8):
            flipped = bytearray(record)
            flipped[at] ^= 1 << bit
            with pytest.raises(Corrupt):
                decode_entry(bytes(flipped))
            if at < chunks_at:
                with pytest.raises(Corrupt):
                    decode_entry(bytes(flipped), whole=False)
            else:
                read = decode_entry(bytes(flipped), whole=False)
                with pytest.raises(Corrupt, match=r"log record 3/9: a chunk fails its CRC"):
                    read.events()


def test_every_cut_is_found() -> None:
    record = entry().record
    for length in range(len(record)):
        with pytest.raises(Corrupt):
            decode_entry(record[:length])
        with pytest.raises(Corrupt):  # a cut behind the heads by who reads the last chunk
            decode_entry(record[:length], whole=False).events()
    with pytest.raises(Corrupt, match="end at byte"):
        decode_entry(record + b"\0")


def test_a_record_of_format_1_is_refused() -> None:
    """As 0.2 wrote them: header without format and heads, one append, its blob inside."""
    payload = msgpack.packb([["s", 1, 1, bytes(16), msgpack.packb([[bytes(16), "t", b"1", b"", 0]])]])
    body = struct.pack(">BHQQQIQ", EVENTS, 0, 1, 1, 1, 1, 1) + payload
    with pytest.raises(Corrupt):
        decode_entry(struct.pack(">I", zlib.crc32(body)) + body)


def test_equal_records_are_equal_entries() -> None:
    assert entry() == entry()
    assert hash(entry()) == hash(entry())
    assert entry() != entry(term=3)
    assert entry() != entry().record


def test_entries_without_events_take_no_position() -> None:
    for kind, payload in ((NOOP, b""), (CONFIG, Configuration(("n1",)).encode())):
        made = entry(kind=kind, appends=(), payload=payload)
        assert made.next_position == made.first_position
        assert (made.events(), made.parts, made.placed()) == ([], (), [])
        assert decode_entry(made.record).payload() == payload


def test_an_entry_of_marks_alone_takes_no_position() -> None:
    made = entry(appends=(NewAppend(Append((), (MOVED,)), ()),))
    read = decode_entry(made.record)
    assert read.appends == (Append((), (MOVED,)),)
    assert (read.count, read.next_position, read.events()) == (0, 20, [])


# -- a record that says what it should not: with a checksum that fits


def signed(header: dict[str, int], heads: bytes, chunks: bytes = b"") -> bytes:
    """A record of these heads whose checksum fits, as a peer or a bad disk could bring it."""
    given = {
        "form": 2, "kind": EVENTS, "flags": 0, "partition": 3, "term": 2, "index": 9, "position": 20,
        "count": 1, "timestamp": 5, "heads_bytes": len(heads), **header,
    }  # fmt: skip
    body = struct.pack(">BBBHQQQIQI", *given.values()) + heads
    return struct.pack(">I", zlib.crc32(body)) + body + chunks


(RIGHT,) = pack_events([NewEvent("t", b"1", id=bytes(16))])
HEAD = [1, RIGHT.raw_size, len(RIGHT.data), RIGHT.codec, zlib.crc32(RIGHT.data)]
PART: list[Any] = ["s", 1, 1, bytes(16), 0, ["t"], [HEAD]]


def put(whole: list[Any], at: int, value: object) -> list[Any]:
    return [*whole[:at], value, *whole[at + 1 :]]


def of_part(at: int, value: object) -> bytes:
    return msgpack.packb([[[put(PART, at, value)], []]])


def of_chunk(at: int, value: object) -> bytes:
    return of_part(6, [put(HEAD, at, value)])


def of_marks(*moved: object) -> bytes:
    return msgpack.packb([[[PART], list(moved)]])


def test_what_is_changed_below_is_right() -> None:
    assert decode_entry(signed({}, msgpack.packb([[[PART], [["m", 0, 2**63 - 1]]]]), RIGHT.data)).count == 1


@pytest.mark.parametrize(
    ("header", "says"),
    [
        ({"form": 1}, "unknown format 1, kind 1 or flags 0; a newer version wrote it"),
        ({"form": 3}, "unknown format 3"),
        ({"kind": 0}, "kind 0"),
        ({"kind": 4}, "kind 4"),
        ({"kind": 255}, "kind 255"),
        ({"flags": 1}, "flags 1"),
        ({"flags": 128}, "flags 128"),
        ({"count": 0}, "it holds 1 events, not 0"),
        ({"count": 2}, "it holds 1 events, not 2"),
        ({"count": 2**32 - 1}, "it holds 1 events, not 4294967295"),
        ({"term": NUMBERS_END}, "too large"),
        ({"index": 2**64 - 1}, "too large"),
        ({"position": 2**63}, "too large"),
        ({"timestamp": NUMBERS_END}, "too large"),
        ({"heads_bytes": 2**32 - 1}, "CRC"),
        ({"kind": NOOP}, "lie behind its end"),
        ({"kind": CONFIG}, "lie behind its end"),
    ],
)
def test_a_header_that_says_what_it_should_not(header: dict[str, int], says: str) -> None:
    with pytest.raises(Corrupt, match=says):
        decode_entry(signed(header, msgpack.packb([[[PART], []]]), RIGHT.data))


@pytest.mark.parametrize("kind", [NOOP, CONFIG])
def test_only_events_are_counted(kind: int) -> None:
    with pytest.raises(Corrupt, match=r"log record 3/9 of .*: it claims 1 events, and is of a kind that"):
        decode_entry(signed({"kind": kind}, b""))


def test_a_noop_is_a_header() -> None:
    with pytest.raises(Corrupt, match="it has 1 bytes of heads, and is of a kind that has none"):
        decode_entry(signed({"kind": NOOP, "count": 0}, b"x"))
    assert decode_entry(signed({"kind": NOOP, "count": 0}, b"")).kind == NOOP


@pytest.mark.parametrize(
    ("heads", "says"),
    [
        (b"", "unreadable heads"),
        (b"\xc1", "unreadable heads"),
        (msgpack.packb(None), "unreadable heads"),
        (msgpack.packb({}), "unreadable heads"),
        (msgpack.packb([1]), "unreadable heads"),
        (msgpack.packb([[[PART], [], []]]), "unreadable heads"),
        (msgpack.packb([[[PART], []]]) + b"\0", "unreadable heads"),
        (msgpack.packb([[[PART], []]])[:-1], "unreadable heads"),
        (msgpack.packb([[[PART[:6]], []]]), "unreadable heads"),
        (msgpack.packb([[[[*PART, 0]], []]]), "unreadable heads"),
        (of_part(0, ""), "length >= 1"),
        (of_part(0, "s" * 129), "length <= 128"),
        (of_part(0, b"s"), "got `bytes`"),
        (of_part(0, "é" * 65), "at most 128 bytes"),
        (of_part(0, "a\0b"), "control characters"),
        (of_part(0, "a\x85b"), "control characters"),
        (of_part(0, "a\u2003"), "white space"),
        (of_part(0, "s{t}"), "numbered from 0"),
        (of_part(1, 0), ">= 1"),
        (of_part(1, True), "bool"),
        (of_part(1, 1.0), "float"),
        (of_part(1, NUMBERS_END), "unreadable heads"),
        (of_part(1, 2**64 - 1), "unreadable heads"),
        (of_part(2, 0), ">= 1"),
        (of_part(2, 2), "chunks of 's' hold 1 events, not 2"),
        (of_part(2, 2**64 - 1), "unreadable heads"),
        (of_part(3, bytes(15)), "16"),
        (of_part(3, bytes(17)), "16"),
        (of_part(3, "x" * 16), "got `str`"),
        (of_part(4, -1), ">= 0"),
        (of_part(4, 1), "numbered from 1"),
        (of_part(4, 2**63), "unreadable heads"),
        (of_part(5, []), "length >= 1"),
        (of_part(5, [""]), "length >= 1"),
        (of_part(5, ["t" * 129]), "length <= 128"),
        (of_part(5, [1]), "unreadable heads"),
        (of_part(6, []), "chunks of 's' hold 0 events, not 1"),
        (of_part(6, [HEAD[:4]]), "length 5"),
        (of_part(6, [HEAD, HEAD]), "CRC"),
        (of_part(6, [put(HEAD, 4, 0)]), "a chunk of 's' fails its CRC"),
        (of_chunk(0, 0), ">= 1"),
        (of_chunk(0, 2), "chunks of 's' hold 2 events, not 1"),
        (of_chunk(0, CHUNK_EVENTS_MAX + 1), "<= 256"),
        (of_chunk(1, 0), ">= 1"),
        (of_chunk(1, EVENT_RAW_MAX + 1), "unreadable heads"),
        (of_chunk(1, RIGHT.raw_size + 1), "a size that no chunk has"),
        (of_chunk(2, 0), ">= 1"),
        (of_chunk(2, len(RIGHT.data) - 1), "CRC"),
        (of_chunk(2, EVENT_RAW_MAX), "a size that no chunk has"),
        (of_chunk(2, 2**63), "unreadable heads"),
        (of_chunk(3, 2), "<= 1"),
        (of_chunk(3, -1), ">= 0"),
        (of_chunk(4, 2**32), "unreadable heads"),
        (of_marks(["m", 1]), "length 3"),
        (of_marks(["", 1, 1]), "length >= 1"),
        (of_marks(["m" * 129, 1, 1]), "length <= 128"),
        (of_marks(["é" * 65, 1, 1]), "at most 128 bytes"),
        (of_marks(["a\0b", 1, 1]), "control characters"),
        (of_marks(["m", -1, 1]), ">= 0"),
        (of_marks(["m", 1, -1]), ">= 0"),
        (of_marks(["m", 2**63, 1]), "unreadable heads"),
        (of_marks(["m", 1, 2**63]), "unreadable heads"),
        (of_marks(["m", 1, 1], ["m", 2, 1]), "names a mark twice"),
    ],
)
def test_heads_that_say_what_they_should_not(heads: bytes, says: str) -> None:
    with pytest.raises(Corrupt, match=rf"log record 3/9 of \d+ bytes: .*{says}"):
        decode_entry(signed({}, heads, RIGHT.data))


def test_several_events_are_not_in_a_large_chunk() -> None:
    heads = of_part(6, [[2, (64 << 10) + 1, *HEAD[2:3], ZSTD, HEAD[4]]])
    with pytest.raises(Corrupt, match="a size that no chunk has"):
        decode_entry(signed({"count": 2}, heads, RIGHT.data))


def test_an_append_names_each_stream_once_and_an_entry_as_often_as_it_likes() -> None:
    later = put(put(PART, 1, 2), 3, b"i" * 16)
    data = RIGHT.data * 2
    with pytest.raises(Corrupt, match="names a stream twice"):
        decode_entry(signed({"count": 2}, msgpack.packb([[[PART, later], []]]), data))
    assert decode_entry(signed({"count": 2}, msgpack.packb([[[PART], []], [[later], []]]), data)).count == 2


def test_more_appends_than_an_entry_has() -> None:
    none: list[Any] = [[], []]
    assert (
        len(decode_entry(signed({"count": 0}, msgpack.packb([none] * APPENDS_MAX))).appends) == APPENDS_MAX
    )
    with pytest.raises(Corrupt, match="more than"):
        decode_entry(signed({"count": 0}, msgpack.packb([none] * (APPENDS_MAX + 1))))


def test_a_record_that_is_passed_on_is_the_one_that_it_should_be() -> None:
    """By its header and heads; the chunks are for the receiver to check."""
    record = entry().record
    check_record(record, 3, 9)
    for at in range(HEADER_BYTES + len(entry().payload())):
        flipped = bytes([*record[:at], record[at] ^ 1, *record[at + 1 :]])
        with pytest.raises(Corrupt, match="log record 3/9 of"):
            check_record(flipped, 3, 9)
    with pytest.raises(Corrupt, match="fails its CRC"):
        check_record(record[: HEADER_BYTES - 1], 3, 9)
    for partition, index in ((3, 8), (4, 9)):
        with pytest.raises(Corrupt, match=f"at {partition}/{index} lies the log record of another entry"):
            check_record(record, partition, index)


# -- what is in it


def test_events_get_their_versions_positions_numbers_and_time() -> None:
    found = entry().events()
    assert [(e.stream, e.version, e.position, e.tag_number) for e in found] == [
        ("a", 4, 20, 0), ("a", 5, 21, 0), ("b{t}", 1, 22, 8),
        ("a", 6, 23, 0), ("a", 7, 24, 0), ("a", 8, 25, 0),
    ]  # fmt: skip
    assert {e.timestamp_us for e in found} == {1_700_000_000_000_000}
    assert {e.partition for e in found} == {3}
    assert entry().next_position == 26
    assert [p.last_version for p in entry().parts] == [5, 1, 8]
    assert entry().events("a") == [e for e in found if e.stream == "a"]
    assert entry().events("c") == []


def test_every_append_of_an_entry_has_its_own_place() -> None:
    made = decode_entry(entry().record)
    first, second = made.stored(0), made.stored(1)
    assert (first.partition, first.index, first.first_position) == (3, 9, 20)
    assert [p.stream for p in first.parts] == ["a", "b{t}"]
    assert (second.first_position, [p.stream for p in second.parts]) == (23, ["a"])
    assert second.parts[0].first_version == 6
    for ordinal, wanted in enumerate((("a", "b{t}"), ("a",))):
        for stream, chunks in zip(wanted, made.content(ordinal), strict=True):
            (placed,) = [
                p for p in made.placed() if p.part in made.stored(ordinal).parts if p.part.stream == stream
            ]
            assert chunks == made.chunks(placed)
    assert [len(chunks) for chunks in made.content(0)] == [1, 1]


def test_content_is_behind_appends_of_several_parts() -> None:
    last = new_append(("z", 1, 0, pack_events(events(300))), ("y", 1, 0, pack_events(events(2))))
    made = entry(appends=(part("a", 1, 2), together(part("b", 1), part("c", 1)), last))
    assert made.stored(2).first_position == 24
    assert tuple(chunk.data for chunks in made.content(2) for chunk in chunks) == last.data
    assert [len(chunks) for chunks in made.content(2)] == [2, 1]


def test_parts_are_placed_where_their_chunks_lie() -> None:
    made = entry()
    at = HEADER_BYTES + len(made.payload())
    placed = made.placed()
    assert [p.first_position for p in placed] == [20, 22, 23]
    for one, data in zip(placed, (data for new in _appends_of(made) for data in new), strict=True):
        assert one.at == at
        assert made.record[at : at + len(data)] == data
        at += len(data)
    assert made.placed() is placed, "worked out once"


def _appends_of(made: Entry) -> list[tuple[bytes, ...]]:
    return [
        tuple(chunk.data for chunks in made.content(n) for chunk in chunks)
        for n in range(len(made.appends))
    ]


def test_a_chunk_is_carried_as_it_came() -> None:
    chunks = pack_events(events(3, OLD))
    assert [chunk.codec for chunk in chunks] == [ZSTD]
    made = entry(appends=(new_append(("a", 1, 0, chunks)),))
    assert chunks[0].data in made.record
    assert decode_entry(made.record).content(0) == [list(chunks)]


# -- reading some of it


def long_entry() -> tuple[Entry, PlacedPart]:
    """600 events of one stream in three chunks, behind another part."""
    made = entry(appends=(together(part("b", 1), new_append(("a{t}", 11, 101, pack_events(events(600))))),))
    assert [head.count for head in made.parts[1].chunks] == [256, 256, 88]
    return made, made.placed()[1]


@pytest.mark.parametrize(
    ("low", "high"),
    [
        (0, 599),
        (0, 0),
        (599, 599),
        (255, 256),
        (256, 256),
        (256, 511),
        (511, 512),
        (300, 310),
        (10, 590),
        (0, 255),
    ],
)
def test_some_events_are_those_of_all(low: int, high: int) -> None:
    made, placed = long_entry()
    found = made.some_events(placed, low, high)
    assert found == made.events_of(placed)[low : high + 1]
    assert [event.version for event in found] == list(range(11 + low, 12 + high))
    assert [event.position for event in found] == list(range(21 + low, 22 + high))
    assert [event.tag_number for event in found] == list(range(101 + low, 102 + high))


def damaged(made: Entry, at: int) -> Entry:
    record = bytearray(made.record)
    record[at] ^= 1
    return decode_entry(bytes(record), whole=False)


@pytest.mark.parametrize(
    ("low", "high", "touches"),
    [(0, 10, {0}), (255, 255, {0}), (256, 256, {1}), (300, 511, {1}), (512, 599, {2}), (255, 256, {0, 1})],
)
def test_only_the_chunks_that_are_needed_are_touched(low: int, high: int, touches: set[int]) -> None:
    made, placed = long_entry()
    at = placed.at
    for number, head in enumerate(placed.part.chunks):
        read = damaged(made, at + head.stored_size // 2)
        with pytest.raises(Corrupt, match=r"a chunk of 'a\{t\}' fails its CRC"):
            decode_entry(read.record)
        if number in touches:
            with pytest.raises(Corrupt, match="log record 3/9: a chunk fails its CRC") as caught:
                read.some_events(read.placed()[1], low, high)
            assert caught.value.details == {"partition": 3}
        else:
            assert read.some_events(read.placed()[1], low, high) == made.some_events(placed, low, high)
        at += head.stored_size


def test_a_chunk_with_other_events_than_its_head_says_is_corrupt() -> None:
    """Its checksum fits, so only who unpacks it finds out: at the audit, or when it is read."""
    made = new_append(("a", 1, 0, pack_events(events(2))))
    (right,) = made.append.parts
    wrong = right._replace(count=3, chunks=(right.chunks[0]._replace(count=3),))
    lie = entry(appends=(NewAppend(Append((wrong,)), made.data),))
    with pytest.raises(Corrupt, match="2 events where 3 are said"):
        decode_entry(lie.record).events()


# -- configurations

some_names = st.lists(st.text(max_size=8), max_size=4, unique=True).map(lambda found: tuple(sorted(found)))


@given(some_names, some_names, some_names)
def test_configurations_go_there_and_back(voters: tuple, learners: tuple, outgoing: tuple) -> None:
    made = Configuration(voters, learners, outgoing)
    assert Configuration.decode(made.encode()) == made
    assert made.members() == tuple(sorted({*voters, *learners, *outgoing}))


@pytest.mark.parametrize("payload", [b"", b"\xc1", msgpack.packb({}), msgpack.packb([1]), msgpack.packb(7)])
def test_unreadable_configurations_are_corrupt(payload: bytes) -> None:
    with pytest.raises(Corrupt, match="configuration"):
        Configuration.decode(payload)
