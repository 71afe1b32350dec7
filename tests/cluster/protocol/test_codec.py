"""Requests, results, messages and beats come back as they went; anything else is refused."""

from __future__ import annotations

import zlib
from dataclasses import fields, replace
from typing import get_args, get_type_hints

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from allsource.cluster.consensus.messages import Append, Beat, Message
from allsource.cluster.protocol import message_codec
from allsource.cluster.protocol.codec import (
    Op,
    decode_requests,
    decode_results,
    encode_request,
    encode_result,
)
from allsource.cluster.protocol.frames import ProtocolError
from allsource.cluster.protocol.kinds import Kind
from allsource.cluster.protocol.message_codec import (
    decode_beat,
    decode_messages,
    encode_beat,
    encode_message,
)
from allsource.cluster.protocol.payload import BATCH_ITEMS_MAX, SMALL_BYTES, batch_prefix, unpack
from allsource.cluster.protocol.requests import (
    TYPES_MAX,
    AppendPart,
    AppendRequest,
    DescribeCluster,
    ReadStream,
    Request,
    Result,
)
from allsource.config.schema import Limits
from allsource.storage.model.chunks import CHUNK_RAW_MAX, EVENT_RAW_MAX, PLAIN, ZSTD, Chunk
from allsource.storage.model.entry import HEADER_BYTES, ChunkHead, Mark, NewAppend, Part, make_entry
from allsource.storage.model.entry import Append as Stored
from allsource.storage.model.errors import AllsourceError, InvalidRequest, OutcomeUnknown
from tests.cluster.protocol.wire_samples import (
    BEAT,
    CHUNK,
    CHUNKS,
    MESSAGES,
    REQUESTS,
    RESULTS,
    SQUEEZED,
    entry,
)
from tests.memory import at_most


def packed(kind: int, *items: object) -> bytes:
    payload: bytes = msgpack.packb([kind, list(items)])
    return payload


def batched(kind: int, items: list[bytes]) -> bytes:
    return batch_prefix(kind, len(items)) + b"".join(items)


def refusal(decode: object, payload: bytes) -> ProtocolError:
    with pytest.raises(ProtocolError) as caught:
        decode(unpack(payload))  # type: ignore[operator]
    return caught.value


# -- there and back


@pytest.mark.parametrize("request_", REQUESTS)
def test_requests_come_back(request_: Request) -> None:
    payload = batched(Kind.REQUESTS, [encode_request(9, 5000, request_)] * 2)
    assert decode_requests(unpack(payload)) == [(9, 5000, request_)] * 2


@pytest.mark.parametrize("result", RESULTS)
def test_results_come_back(result: Result | AllsourceError) -> None:
    payload = batched(Kind.RESULTS, [encode_result(2**63 - 1, result)])
    ((request_id, found),) = decode_results(unpack(payload))
    assert request_id == 2**63 - 1
    assert type(found) is type(result)
    if isinstance(result, AllsourceError):
        assert isinstance(found, AllsourceError)
        assert (found.message, found.details) == (result.message, result.details)
    else:
        assert found == result


@pytest.mark.parametrize("message", MESSAGES)
def test_messages_come_back(message: Message) -> None:
    assert decode_messages(unpack(batched(Kind.MESSAGES, [encode_message(message)]))) == [message]


def test_a_beat_comes_back() -> None:
    assert decode_beat(unpack(encode_beat(BEAT))) == BEAT
    flags = [field.name for field in fields(Beat) if field.type == "bool"]
    assert flags
    for flag in flags:  # each by itself: one that does not travel says nothing to anybody
        beat = replace(BEAT, **{flag: True})
        assert decode_beat(unpack(encode_beat(beat))) == beat


def test_a_full_batch() -> None:
    items = [encode_request(i, 1, REQUESTS[0]) for i in range(BATCH_ITEMS_MAX)]
    found = decode_requests(unpack(batched(Kind.REQUESTS, items)))
    assert [item[0] for item in found] == list(range(BATCH_ITEMS_MAX))


def test_an_error_of_a_later_version_is_an_unknown_outcome() -> None:
    payload = packed(Kind.RESULTS, [1, Op.ERROR, "newer_than_us", "what happened", {}])
    ((_, found),) = decode_results(unpack(payload))
    assert type(found) is OutcomeUnknown


def test_what_msgpack_cannot_say_fails_its_own_caller() -> None:
    with pytest.raises(InvalidRequest, match="cannot be sent"):
        encode_request(1, 1, ReadStream("\ud800"))
    with pytest.raises(InvalidRequest, match="cannot be sent"):
        encode_request(1, 1, AppendRequest((AppendPart("s", 2**64, CHUNKS),)))


# -- shapes that are refused


@pytest.mark.parametrize(
    "item", [7, [], [1, 2], [-1, 1, 4], [2**63, 1, 4], [True, 1, 4], ["1", 1, 4], [None, 1, 4], [[], 1, 4]]
)
def test_a_request_without_an_id_is_refused_with_its_frame(item: object) -> None:
    assert refusal(decode_requests, packed(Kind.REQUESTS, item)).code == "malformed"


@pytest.mark.parametrize(
    "item",
    [
        [7, -1, 4],
        [7, 3_600_001, 4],
        [7, 2**60, 4],
        [7, 1.5, 4],
        [7, True, 4],
        [7, 1, 0],
        [7, 1, 6],
        [7, 1, 7],
        [7, 1, 8],
        [7, 1, True, [], -1, [], -1],
        [7, 1, 1.0, [], -1, [], -1],
        [7, 1, None],
        [7, 1, []],
        [7, 1, b"x" * 60_000],
        [7, 1, 4, 0],
        [7, 1, 1],
        [7, 1, 1, []],
        [7, 1, 1, [], -1, []],
        [7, 1, 1, [], -1, [], -1, 0],
        *(
            [7, 1, 1, parts, -1, [], -1]
            for parts in (
                5,
                [5],
                [["s", -1]],
                [["s", -1, [], 0]],
                [[b"s", -1, []]],
                [["s", -3, []]],
                [["s", 2**63, []]],
                [["s", False, []]],
                [["s", -1, b"chunk"]],
                [["s", -1, [b"chunk"]]],
                [["s", -1, [[1, 1, 0]]]],
                [["s", -1, [[1, 1, 0, b"", 0]]]],
                [["s", -1, [[-1, 1, 0, b""]]]],
                [["s", -1, [[1, 2**63, 0, b""]]]],
                [["s", -1, [[1, 1, True, b""]]]],
                [["s", -1, [[1, 1, 0, "data"]]]],
                [["s", -1, []], ["s", -1, [[1, 1, 0, b""], [1, 1, 0]]]],
            )
        ),
        *([7, 1, 1, [], tag, [], -1] for tag in (-2, 2**63, True, None, "1")),
        *(
            [7, 1, 1, [], -1, marks, -1]
            for marks in (
                5,
                {},
                [5],
                [["m", 1]],
                [["m", 1, 1, 1]],
                [[b"m", 1, 1]],
                [["m", -1, 1]],
                [["m", 1, -1]],
                [["m", 2**63, 1]],
                [["m", 1, 2**63]],
                [["m", True, 1]],
                [["m", 1, None]],
            )
        ),
        *([7, 1, 1, [], -1, [], partition] for partition in (-2, 65_536, False, None, "1")),
        [7, 1, 2, "s", 0, 1, True, True],
        [7, 1, 2, "s", -1, 1, True, True, ""],
        [7, 1, 2, "s", True, 1, True, True, ""],
        [7, 1, 2, "s", 0, 2**63, True, True, ""],
        [7, 1, 2, "s", b"x" * 60_000, 1, True, True, ""],
        [7, 1, 2, "s", 0, 1, 1, True, ""],
        [7, 1, 2, b"s", 0, 1, True, True, ""],
        [7, 1, 2, "s", 0, 1, True, True, 5],
        [7, 1, 3, 0, 1, 1, True],
        [7, 1, 3, "0", 1, 1, True, ""],
        [7, 1, 3, 0, 1, -1, True, ""],
        [7, 1, 3, False, 1, 1, True, ""],
        [7, 1, 6, "t", 0, 1, True, [], True],
        [7, 1, 6, b"t", 0, 1, True, [], True, ""],
        [7, 1, 6, "t", -1, 1, True, [], True, ""],
        [7, 1, 6, "t", 0, True, True, [], True, ""],
        [7, 1, 6, "t", 0, 1, 1, [], True, ""],
        [7, 1, 6, "t", 0, 1, True, "T", True, ""],
        [7, 1, 6, "t", 0, 1, True, [b"T"], True, ""],
        [7, 1, 6, "t", 0, 1, True, ["T"] * (TYPES_MAX + 1), True, ""],
        [7, 1, 6, "t", 0, 1, True, [], 0, ""],
        [7, 1, 6, "t", 0, 1, True, [], True, 0],
        [7, 1, 7, 1, "m", True],
        [7, 1, 7, -1, "m", True, ""],
        [7, 1, 7, 1, b"m", True, ""],
        [7, 1, 7, 1, "m", 1, ""],
        [7, 1, 7, 1, "m", True, None],
        [7, 1, 5],
        [7, 1, 5, 4],
        [7, 1, 5, 7, 1, "m", True],
        [7, 1, 5, 5, 3, 0, 1, 1, True, ""],
        [7, 1, 5, 3, 0, 1, 1, True],
    ],
)
def test_a_request_of_another_shape_fails_alone(item: list[object]) -> None:
    good = [8, 1, Op.DESCRIBE_CLUSTER]
    bad, other = decode_requests(unpack(packed(Kind.REQUESTS, item, good)))
    assert (bad[0], type(bad[2])) == (7, InvalidRequest)
    assert len(str(bad[2])) < 250
    assert other == (8, 1, DescribeCluster())


def test_a_request_that_is_passed_on_thousands_of_times_is_refused_at_one_look() -> None:
    item = [1, 5000, *[int(Op.PASS_ON)] * 100_000, int(Op.DESCRIBE_CLUSTER)]
    ((_, _, found),) = decode_requests([Kind.REQUESTS, [item]])  # once each op was a call in the last one
    assert isinstance(found, InvalidRequest)
    assert "passed on, once" in found.message


@pytest.mark.parametrize(
    "item",
    [
        7,
        [1],
        ["1", 1, 0],
        [1, 9, 0],
        [1, True, 0],
        [1, [], 0],
        [1, 0, "code", "message"],
        [1, 0, "code", "message", []],
        [1, 0, 7, "message", {}],
        [1, 1, 1, 1, 1, 1, []],
        [1, 1, 1, 1, 1, 1, [["s", 1]], False],
        [1, 1, 1, 1, 1, 1, [[1, 1, 1]], False],
        [1, 1, 1, 1, 1, 1, [["s", -1, 1]], False],
        [1, 1, 1, 1, 1, 1, 5, False],
        [1, 1, 1, 1, 1, 1, [], 0],
        [1, 1, 1, 1, 1, -1, [], True],
        [1, 2, "s", 1, 1, 1, 1, 1, True],
        [1, 2, "s", 1, 1, 1, 1, 1, True, 5],
        [1, 2, "s", 1, 1, 1, 1, 1, True, [5]],
        *(
            [1, 2, "s", 1, 1, 1, 1, 1, True, [run]]
            for run in (
                ["s", 1, 1, 0, 1, 0, 1],
                ["s", 1, 1, 0, 1, 0, 1, b"chunk"],
                ["s", 1, 1, 0, 1, 0, 1, [1, 1, 0, b""], 0],
                ["s", 1, 1, 0, 1, 0, -1, [1, 1, 0, b""]],
                ["s", 1, 1, True, 1, 0, 1, [1, 1, 0, b""]],
                ["s", 1, 1, 0, 1, 0, 1, [1, 1, 0]],
                ["s", 1, 1, 0, 1, 0, 1, [1, 1, 0, "data"]],
                ["s", 1, 1, 0, 1, 0, 1, [1, -1, 0, b""]],
                ["s", 1, 1, 0, 1, 0, 1, [True, 1, 0, b""]],
            )
        ),
        [1, 2, 5, 1, 1, 1, 1, 1, True, []],
        [1, 2, "s", 1, 1, 1, 1, 1, 1, []],
        [1, 3, 1, 1, 1],
        [1, 3, 1, 1, "1", []],
        [1, 4, []],
        [1, 4, {}, 1],
        [1, 6, "t", 1, 1, 1, True],
        [1, 6, b"t", 1, 1, 1, True, []],
        [1, 6, "t", 1, -1, 1, True, []],
        [1, 6, "t", 1, 1, 1, 1, []],
        [1, 6, "t", 1, 1, 1, True, [5]],
        [1, 7, 1, "m", 1, 1],
        [1, 7, 1, b"m", 1, 1, 1],
        [1, 7, 1, "m", -1, 1, 1],
        [1, 7, 1, "m", 1, True, 1],
        [1, 8, 1],
    ],
)
def test_a_result_of_another_shape_is_refused(item: object) -> None:
    assert refusal(decode_results, packed(Kind.RESULTS, item)).code == "malformed"


@pytest.mark.parametrize(
    "item",
    [
        7,
        [],
        ["1"],
        [9, 1, 2],
        [True, 1, 2, 3, 4, True, True],
        [1, 1, 2, 3, 4, True],
        [1, 1, 2, 3, 4, 1, False],
        [1, 65_536, 2, 3, 4, True, False],
        [1, -1, 2, 3, 4, True, False],
        [2, 1, 2, True, 0],
        [3, 1, 2, 3, 4, 5, 6],
        [3, 1, 2, 3, 4, 5, ["r"]],
        [3, 1, 2, 3, 4, 5],
        [4, 1, 2, 1, 4, 5],
        [5, 1, 2],
        [6, 1, 2**63],
        [7, 1, [1]],
        [7, 1, [[1, 2, 3]]],
        [7, 1, 5],
        [8, 1, ["1"]],
        [8, 1, 5],
    ],
)
def test_a_message_of_another_shape_is_refused(item: object) -> None:
    assert refusal(decode_messages, packed(Kind.MESSAGES, item)).code == "malformed"


@pytest.mark.parametrize(
    "frame",
    [
        [Kind.BEAT, 1, [], False],
        [Kind.BEAT, 1, [], False, 0, [], [], 0],
        [Kind.BEAT, -1, [], False, False, [], [], 0],
        [Kind.BEAT, 1, [[1, 2, "", 3, 4]], False, False, [], [], 0],
        [Kind.BEAT, 1, [[1, 2, 1, 3, 4, True]], False, False, [], [], 0],
        [Kind.BEAT, 1, [[1, 2, "", -3, 4, True]], False, False, [], [], 0],
        [Kind.BEAT, 1, {}, False, False, [], [], 0],
        [Kind.BEAT, 1, [], False, False, [1], [], 0],
        [Kind.BEAT, 1, [], False, False, [], ["1"], 0],
        [Kind.BEAT, 1, [], False, False, [], [-1], 0],
        [Kind.BEAT, 1, [], False, False, [], [], -1],
        [Kind.BEAT, 1, [], False, False, [], [], True],
    ],
)
def test_a_beat_of_another_shape_is_refused(frame: list[object]) -> None:
    assert refusal(decode_beat, msgpack.packb(frame)).code == "malformed"


@pytest.mark.parametrize("frame", [[32], [32, [], []], [32, {}], [32, 5]])
def test_a_batch_of_another_shape_is_refused(frame: list[object]) -> None:
    for decode in (decode_requests, decode_results, decode_messages):
        assert refusal(decode, msgpack.packb(frame)).code == "malformed"


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xc1",
        b"\x05",
        b"\x90",
        b"\x91\xa1x",
        b"\x91\xc3",
        b"\x91\x01\x01",
        b"\x92\x01",
        b"\x92\x01\xa1\xff",
        b"\x92\x01\xc7\x00\x05",
        b"\x92\x01\xd6\xff\x00\x00\x00\x00",
        b"\x92\x01\x81\x01\x02",
        b"\x91" * 5000 + b"\x01",
    ],
)
def test_what_is_not_one_array_with_a_kind_is_refused(payload: bytes) -> None:
    with pytest.raises(ProtocolError) as caught:
        unpack(payload)
    assert caught.value.code == "malformed"


# -- entries


def with_record(record: bytes, index: int = 9) -> bytes:
    return packed(Kind.MESSAGES, [3, 5, 3, index, 2, 8, [record]])


def test_a_record_that_fails_its_crc_is_refused() -> None:
    record = bytearray(entry(5, 10).record)
    record[-1] ^= 1
    assert refusal(decode_messages, with_record(bytes(record))).code == "corrupt_entry"


def test_a_record_that_is_too_short_is_refused() -> None:
    assert refusal(decode_messages, with_record(b"short")).code == "corrupt_entry"


def test_a_record_out_of_place_is_refused() -> None:
    assert "where 5/11 belongs" in refusal(decode_messages, with_record(entry(5, 10).record, 10)).message
    assert "where 5/10 belongs" in refusal(decode_messages, with_record(entry(6, 10).record)).message


def test_every_chunk_of_a_record_is_verified() -> None:
    """The first entry's chunks: two of its first append. Each has a checksum of its own."""
    record = entry(5, 10).record
    for data in (CHUNK.data, SQUEEZED.data):
        damaged = bytearray(record)
        damaged[record.index(data)] ^= 1
        assert "fails its CRC" in refusal(decode_messages, with_record(bytes(damaged))).message


HEAD = ChunkHead(2, len(CHUNK.data), len(CHUNK.data), PLAIN, zlib.crc32(CHUNK.data))
PART = Part("s", 1, 2, b"i" * 16, 0, ("T",), (HEAD,))


def made(part: Part | None, *marks: Mark) -> bytes:
    """The record of an append as a peer might make it up."""
    append = Stored((part,) if part else (), marks)
    return make_entry(
        partition=5,
        index=10,
        term=2,
        kind=1,
        first_position=1,
        timestamp_us=1,
        appends=[NewAppend(append, (CHUNK.data,) if part else ())],
    ).record


def test_what_is_made_up_right_is_taken() -> None:
    for right in (
        made(PART, Mark("m", 2**63 - 1, 0)),
        made(None, Mark("n" * 128, 0, 2**63 - 1)),
        made(PART._replace(stream="{t}", first_tag_number=1 << 48)),
        made(PART._replace(stream="${t}")),
        made(PART._replace(chunks=(HEAD._replace(codec=ZSTD, raw_size=CHUNK_RAW_MAX),))),
        made(one_event(EVENT_RAW_MAX)),
    ):
        assert len(decode_messages(unpack(with_record(right)))) == 1


def one_event(raw_size: int) -> Part:
    return PART._replace(count=1, chunks=(HEAD._replace(count=1, codec=ZSTD, raw_size=raw_size),))


@pytest.mark.parametrize(
    "part",
    [
        PART._replace(stream=b"s"),  # type: ignore[arg-type]
        PART._replace(stream=""),
        PART._replace(stream="s" * 129),
        PART._replace(stream="a\0b"),
        PART._replace(stream="{t}", first_tag_number=0),
        PART._replace(stream="s", first_tag_number=1),
        PART._replace(stream="{}", first_tag_number=1),
        PART._replace(stream="${t}", first_tag_number=1),
        PART._replace(first_id="i" * 16),  # type: ignore[arg-type]
        PART._replace(first_id=b"i" * 15),
        PART._replace(first_version=0),
        PART._replace(first_version=True),
        PART._replace(first_tag_number=-1),
        PART._replace(count=0),
        PART._replace(count=3),
        PART._replace(types="T"),  # type: ignore[arg-type]
        PART._replace(types=(b"T",)),  # type: ignore[arg-type]
        PART._replace(chunks=(HEAD._replace(count=0),)),
        PART._replace(chunks=(HEAD._replace(stored_size=1),)),
        PART._replace(chunks=(HEAD._replace(stored_size=2**40),)),
        PART._replace(chunks=(HEAD, HEAD)),
        PART._replace(chunks=(HEAD._replace(codec=2),)),
        PART._replace(chunks=(HEAD._replace(raw_size=CHUNK_RAW_MAX + 1),)),
        PART._replace(count=257, chunks=(HEAD._replace(count=257),)),
        one_event(EVENT_RAW_MAX + 1),
    ],
)
def test_a_record_with_a_part_of_another_shape_is_refused(part: Part) -> None:
    assert refusal(decode_messages, with_record(made(part))).code == "corrupt_entry"


@pytest.mark.parametrize(
    "record",
    [
        made(PART._replace(first_version=(1 << 48) + 1)),
        made(PART._replace(stream="{t}", first_tag_number=(1 << 48) + 1)),
    ],
)
def test_a_record_with_a_number_that_no_log_reaches_is_refused(record: bytes) -> None:
    assert refusal(decode_messages, with_record(record)).code == "malformed"


@pytest.mark.parametrize(
    "mark",
    [
        Mark("m", -1, 1),
        Mark("m", 1, -1),
        Mark("m", 2**63, 1),
        Mark("m", 1, 2**63),
        Mark(b"m", 1, 1),  # type: ignore[arg-type]
        Mark("m", 1.0, 1),  # type: ignore[arg-type]
        Mark("m", True, 1),
        Mark("", 1, 1),
        Mark("m" * 129, 1, 1),
        Mark("a\0b", 1, 1),
    ],
)
def test_a_record_with_a_mark_of_another_shape_is_refused(mark: Mark) -> None:
    assert refusal(decode_messages, with_record(made(None, mark))).code == "corrupt_entry"


def test_a_record_of_format_1_is_refused_with_what_it_is() -> None:
    record = bytearray(entry(5, 10).record)
    record[4] = 1
    end = HEADER_BYTES + int.from_bytes(record[HEADER_BYTES - 4 : HEADER_BYTES], "big")
    record[:4] = zlib.crc32(record[4:end]).to_bytes(4, "big")
    assert "unknown format 1" in refusal(decode_messages, with_record(bytes(record))).message


def heads_of(heads: bytes) -> bytes:
    """A record with these heads and no chunks, its checksum right."""
    whole = made(None, Mark("m", 1, 1))
    body = whole[4 : HEADER_BYTES - 4] + len(heads).to_bytes(4, "big") + heads
    return zlib.crc32(body).to_bytes(4, "big") + body


def test_heads_that_claim_more_than_they_hold_cost_little() -> None:
    bombs = [
        b"\xdd\x7f\xff\xff\xff",
        b"\x91\x92\xdd\x7f\xff\xff\xff",
        b"\x91\x92\x90\xdd\x7f\xff\xff\xff",
        b"\xdd\x00\x3f\xff\x00" + b"\x90" * 0x3FFF00,
        b"\x91\x92\xdd\x00\x3f\xff\x00" + b"\x90" * 0x3FFF00,
    ]
    for bomb in bombs:
        payload = with_record(heads_of(bomb))
        with at_most(40 << 20):
            assert refusal(decode_messages, payload).code == "corrupt_entry"


def test_the_largest_event_is_what_a_configuration_may_allow() -> None:
    limit = next(one for one in fields(Limits) if one.name == "event_bytes_max")
    (size,) = get_args(get_type_hints(Limits, include_extras=True)[limit.name])[1:]
    assert size.most < EVENT_RAW_MAX < size.most + 1024


# -- memory


BOMBS = {
    "empty arrays": b"\x92\x20\xdd\x00\x3f\xff\x00" + b"\x90" * 0x3FFF00,
    "empty maps": b"\x92\x20\xdd\x00\x3f\xff\x00" + b"\x80" * 0x3FFF00,
    "arrays of empty arrays": b"\x92\x20\xdc\x10\x00" + (b"\xdc\x04\x00" + b"\x90" * 1024) * 4096,
    "claims within claims": b"\xdd\x7f\xff\xff\xff" * 900,
    "claims within claims, large": b"\xdd\x00\xff\xff\xff" * 20_000,
    "small claims within claims": b"\xdc\x0f\xff" * 1000,
    "a claimed map": b"\x92\x20\xdf\x7f\xff\xff\xff",
    "a claimed string": b"\x92\x20\xdb\x7f\xff\xff\xff",
    "deep": b"\x91" * 100_000 + b"\x01",
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_memory_bomb_is_refused_small(name: str) -> None:
    with at_most(40 << 20), pytest.raises(ProtocolError) as caught:
        unpack(BOMBS[name])
    assert caught.value.code == "malformed"


def test_the_walk_lets_large_frames_of_events_pass() -> None:
    chunks = tuple(Chunk(1, 64_000, PLAIN, b"x" * 64_000) for _ in range(6))
    items = [encode_request(i, 1, AppendRequest((AppendPart("s", -1, chunks),) * 3)) for i in range(2)]
    found = decode_requests(unpack(batched(Kind.REQUESTS, items)))
    assert [request.parts[2].chunks for _, _, request in found] == [chunks] * 2  # type: ignore[union-attr]
    append = Append(5, 3, 9, 2, 8, [entry(5, 10 + i) for i in range(3000)])
    payload = batched(Kind.MESSAGES, [encode_message(append)])
    assert len(payload) > SMALL_BYTES
    assert decode_messages(unpack(payload)) == [append]


def test_a_large_answer_may_hold_many_values() -> None:
    runs = [["s", 1, 1, 0, 1, 0, 1, [1, 40, 0, b"b" * 40]]] * 30_000
    payload = packed(Kind.RESULTS, [1, Op.READ_PARTITION, 1, 1, 1, runs])
    ((_, page),) = decode_results(unpack(payload, answers=True))
    assert len(page.runs) == 30_000  # type: ignore[union-attr]
    with pytest.raises(ProtocolError):
        unpack(payload)


# -- whatever the bytes


_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=5)
    | st.binary(max_size=60),
    lambda inner: st.lists(inner, max_size=9) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=20,
)
_DECODERS = [decode_requests, decode_results, decode_messages, decode_beat]


def try_all(payload: bytes) -> None:
    for decode in _DECODERS:
        try:
            decode(unpack(payload))  # type: ignore[operator]
        except ProtocolError as error:
            assert error.code in ("malformed", "corrupt_entry")  # noqa: PT017 (both endings are right)


@given(st.binary(max_size=200))
def test_any_bytes_end_in_a_protocol_error_or_values(payload: bytes) -> None:
    try_all(payload)


@given(st.integers(0, 40), st.integers(0, 9), st.lists(_VALUES, max_size=9))
def test_any_values_end_in_a_protocol_error_or_values(kind: int, op: int, values: list[object]) -> None:
    try_all(msgpack.packb([kind, [[op, *values]]]))
    try_all(msgpack.packb([kind, [[1, 1, op, *values]]]))
    try_all(msgpack.packb([kind, *values]))


@given(st.data())
def test_any_change_of_a_valid_frame_ends_in_a_protocol_error_or_values(data: st.DataObject) -> None:
    frames = [
        batched(Kind.REQUESTS, [encode_request(1, 1, request) for request in REQUESTS]),
        batched(Kind.RESULTS, [encode_result(1, result) for result in RESULTS]),
        batched(Kind.MESSAGES, [encode_message(message) for message in MESSAGES]),
        encode_beat(BEAT),
    ]
    frame = bytearray(data.draw(st.sampled_from(frames)))
    for _ in range(data.draw(st.integers(1, 4))):
        frame[data.draw(st.integers(0, len(frame) - 1))] = data.draw(st.integers(0, 255))
    try_all(bytes(frame[: data.draw(st.integers(1, len(frame)))]))


def test_every_message_has_a_row_and_a_sample() -> None:
    assert {row.cls for row in message_codec.MESSAGES} == set(get_args(Message))
    for row in message_codec.MESSAGES:
        sample = next(message for message in MESSAGES if type(message) is row.cls)
        assert msgpack.unpackb(encode_message(sample))[0] == row.number
