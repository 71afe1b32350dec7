"""Bodies that are bombs, and bodies that two parsers could understand differently."""

from __future__ import annotations

import json
import struct
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from allsource.config.schema import Limits
from allsource.node.http import json_bodies, msgpack_bodies, rawjson
from allsource.node.http.appends import AppendDraft, request_of
from allsource.node.http.rawjson import SURROGATES_MAX, is_json
from allsource.storage.model.append import MARKS_MAX
from allsource.storage.model.entry import Mark
from allsource.storage.model.errors import InvalidRequest, TooLarge
from tests.json_values import JSON_VALUES
from tests.memory import at_most

MIB = 1 << 20
EVENTS_MAX = 10_000
STREAM = b'{"stream":1,"events":[]}'
MARK = b'{"name":"m","position":1}'
TINY = b'{"type":1,"data":1}'


def around(data: bytes) -> bytes:
    return b'{"events":[{"type":"T","data":' + data + b"}]}"


def array(length: int) -> bytes:
    return b"\xdd" + struct.pack(">I", length)


JSON_BOMBS = {
    "empty lists": b"[" + b"[]," * (4 * MIB) + b"[]]",
    "events that are lists": b'{"events":[' + b"[]," * (4 * MIB) + b"[]]}",
    "events that are numbers": b'{"events":[' + b"1," * (6 * MIB) + b"1]}",
    "a million keys": b"{" + b",".join(b'"%x":1' % i for i in range(MIB)) + b"}",
    "one key a million times": b"{" + b'"events":[],' * MIB + b'"events":[]}',
    "more events than are taken": b'{"events":[' + b",".join([TINY] * 600_000) + b"]}",
    "more streams than are taken": b'{"streams":[' + b",".join([STREAM] * 400_000) + b"]}",
    "more marks than are taken": b'{"marks":[' + b",".join([MARK] * 400_000) + b"]}",
    "depth": b"[" * (12 * MIB),
    "depth in data": around(b"[" * (12 * MIB)),
    "white space": b" " * (12 * MIB),
    "a key of megabytes": b'{"' + b"\\\\" * (6 * MIB) + b'":1}',
    "half pairs": around(b'"' + b"\\ud800" * (2 * MIB) + b'"'),
}


@pytest.mark.parametrize("name", JSON_BOMBS)
@pytest.mark.parametrize("read", [json_bodies.one_stream, json_bodies.several_streams])
def test_a_json_bomb_is_refused_small(name: str, read: Any) -> None:
    body = JSON_BOMBS[name]
    with at_most(2 * len(body) + 4 * MIB), pytest.raises(InvalidRequest) as caught:
        read(body, EVENTS_MAX)
    assert len(caught.value.message) < 1000


DATA = {
    "lists": b"[" + b"[]," * (2 * MIB) + b"[]]",
    "keys": b"{" + b",".join(b'"%x":1' % i for i in range(MIB // 2)) + b"}",
    "digits": b"1" * (8 * MIB),
    "backslashes": b'"' + b"\\\\" * (4 * MIB) + b'"',
    "wide characters": b'"' + "😀".encode() * (2 * MIB) + b'"',
}


@pytest.mark.parametrize("name", DATA)
def test_data_is_checked_and_never_built(name: str) -> None:
    data = DATA[name]
    with at_most(4 * len(data) + 4 * MIB):  # the body, what is kept, what is looked at for its depth
        [draft] = json_bodies.one_stream(around(data), EVENTS_MAX).streams
        assert draft.events[0].data.raw == data
        assert is_json(data)


EVENTS = b"\x81\xa6events"
MSGPACK_BOMBS = {
    "empty lists": array(8 * MIB) + b"\x90" * (8 * MIB),
    "only empty lists": b"\x90" * (8 * MIB),
    "events that are lists": EVENTS + array(EVENTS_MAX) + b"\x90" * (8 * MIB),
    "claimed events": EVENTS + array(2**32 - 1),
    "data of lists": EVENTS + b"\x91\x82\xa4type\xa1T\xa4data" + array(8 * MIB) + b"\x90" * (8 * MIB),
    "keys that are lists": b"\xdf\x00\x40\x00\x00" + b"\x90\x90" * (4 * MIB),
    "a stream that is a list": b"\x81\xa7streams\x91\x81\xa6stream" + b"\x91" * (8 * MIB),
    "claimed marks": b"\x81\xa5marks" + array(2**32 - 1),
    "marks that are lists": b"\x81\xa5marks" + array(1024) + b"\x90" * (8 * MIB),
    "claims in claims": array(2**32 - 1) * MIB,
}


@pytest.mark.parametrize("name", MSGPACK_BOMBS)
@pytest.mark.parametrize("read", [msgpack_bodies.one_stream, msgpack_bodies.several_streams])
def test_a_msgpack_bomb_is_refused_small(name: str, read: Any) -> None:
    body = MSGPACK_BOMBS[name]
    with at_most(2 * len(body) + 4 * MIB), pytest.raises(InvalidRequest):
        read(body, EVENTS_MAX)


@pytest.mark.parametrize("bodies", [json_bodies, msgpack_bodies])
def test_as_many_marks_as_are_taken(bodies: Any) -> None:
    def drafted(count: int) -> AppendDraft:
        value = {"marks": [{"name": f"m{n}", "position": n} for n in range(count)], "partition": 3}
        body = json.dumps(value).encode() if bodies is json_bodies else msgpack.packb(value)
        draft: AppendDraft = bodies.several_streams(body, 1)
        return draft

    request = request_of(drafted(MARKS_MAX), Limits(), 32)
    assert request.marks[-1] == Mark(f"m{MARKS_MAX - 1}", MARKS_MAX - 1, 0)
    with pytest.raises(TooLarge, match="marks"):
        request_of(drafted(MARKS_MAX + 1), Limits(), 32)


def test_as_many_events_as_are_taken() -> None:
    body = b'{"events":[' + b",".join([TINY] * 50) + b"]}"
    assert len(json_bodies.one_stream(body, 50).streams[0].events) == 50
    with pytest.raises(TooLarge):
        json_bodies.one_stream(body, 49)
    packed = msgpack.packb({"streams": [{"events": [{"type": 1, "data": b""}] * 25}] * 2})
    assert len(msgpack_bodies.several_streams(packed, 50).streams) == 2
    with pytest.raises(TooLarge):
        msgpack_bodies.several_streams(packed, 49)


@pytest.mark.parametrize(
    "event",
    [
        b'{"type":"T","type":"T","data":1}',
        b'{"type":"T","data":1,"data":2}',
        b'{"type":"T","data":1,"data":12}',
        b'{"type":"T","data":12,"data":1}',
        b'{"data":1,"type":"T","\\u0064ata":1}',
        b'{"type":"T" , "data" : {"data":1} , "data":{"data":1}}',
        b'{"type":"T","data":"\\ud800","data":"\\ud800"}',
        b'{"type":"T","data":"x\\",\\"id\\":1","data":1,"id":1}',
    ],
)
def test_a_key_that_stands_twice_is_refused_wherever_it_is(event: bytes) -> None:
    with pytest.raises(InvalidRequest, match="stands twice"):
        json_bodies.one_stream(b'{"events":[' + TINY + b"," + event + b"]}", 9)
    for body in (
        b'{"events":[],"events":[' + TINY + b"]}",
        b'{"events":[' + TINY + b'],"\\u0065vents":[]}',
    ):
        with pytest.raises(InvalidRequest, match="stands twice"):
            json_bodies.one_stream(body, 9)


@given(
    st.lists(st.tuples(JSON_VALUES, st.none() | JSON_VALUES), min_size=1, max_size=4),
    st.sampled_from([None, 1, "\t"]),
    st.booleans(),
    st.permutations(["type", "data", "metadata", "encoding"]),
)
def test_the_bytes_of_any_data_come_out_of_any_formatting(
    contents: list[tuple[Any, Any]], indent: Any, is_ascii: bool, order: list[str]
) -> None:
    events = []
    for data, metadata in contents:
        fields = {"type": "T", "data": data, "metadata": metadata, "encoding": "json"}
        events.append({key: fields[key] for key in order})
    body = json.dumps({"expected_version": 3, "events": events}, indent=indent, ensure_ascii=is_ascii)
    [draft] = json_bodies.one_stream(
        body.encode(errors="surrogatepass") if is_ascii else body.encode(), 9
    ).streams
    assert draft.expected == 3
    for (data, metadata), found in zip(contents, draft.events, strict=True):
        assert json.loads(found.data.raw) == data
        assert (json.loads(found.metadata.raw) if found.metadata else None) == metadata


@given(st.text(alphabet='{}[]":,\\u0dD8ade1 \n-.truefalsn', max_size=30))
def test_what_is_json_here_is_json_for_python_too(text: str) -> None:
    try:
        json.loads(text, parse_constant=lambda name: 1 / 0)
        expected = True
    except (ValueError, ZeroDivisionError, RecursionError):
        expected = False
    assert is_json(text.encode()) is expected


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("type", '"\\ud800"'),
        ("id", '"\\udfff"'),
        ("type", '"a\\ude00\\ud83db"'),
        ("id", '"\\ud83d\\ude00"'),
    ],
)
def test_half_a_pair_in_an_id_or_a_type_is_refused(field: str, value: str) -> None:

    fields = {"type": '"T"', "data": '"\\ud800"'} | {field: value}
    event = ",".join(f'"{key}":{raw}' for key, raw in fields.items())
    drafts = json_bodies.one_stream(f'{{"events":[{{{event}}}]}}'.encode(), 9)
    with pytest.raises(InvalidRequest, match=rf"events\[0\].{field}"):
        request_of(drafts, Limits(), 32, "s")


def test_half_pairs_are_kept_up_to_a_number() -> None:
    half = b'"' + b"\\ud800" * SURROGATES_MAX + b'"'
    assert json_bodies.one_stream(around(half), 9).streams[0].events[0].data.raw == half
    with pytest.raises(InvalidRequest, match="half a surrogate pair"):
        json_bodies.one_stream(around(half[:-1] + b'\\ud800"'), 9)


def test_what_came_in_can_go_out_from_deeper_in_the_program() -> None:
    deepest = next(
        depth for depth in range(20_000, 0, -1) if _is_taken(around(b"[" * depth + b"]" * depth))
    )

    def deeper(levels: int) -> bool:
        return deeper(levels - 1) if levels else is_json(b"[" * deepest + b"]" * deepest)

    assert deepest > 200
    assert deeper(rawjson.DEPTH_ROOM // 2)


def _is_taken(body: bytes) -> bool:
    try:
        json_bodies.one_stream(body, 9)
    except InvalidRequest:
        return False
    return True
