"""Events and their blobs, friendly and hostile ones."""

from __future__ import annotations

import json
import uuid
from datetime import UTC, datetime
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from allsource.storage.model.errors import InvalidRequest, TooLarge
from allsource.storage.model.events import (
    BINARY,
    JSON,
    Event,
    NewEvent,
    as_events,
    blob_ids,
    check_blob,
    check_event_type,
    decode_blob,
    encode_blob,
    new_event_id,
    same_content,
)
from tests.foreign import foreign_event
from tests.json_values import JSON_VALUES

types = st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=1, max_size=30)
new_events = st.builds(
    foreign_event,
    type=types,
    data=st.binary(max_size=60),
    metadata=st.binary(max_size=20),
    encoding=st.sampled_from((JSON, BINARY)),
    id=st.binary(min_size=16, max_size=16),
)
event_lists = st.lists(new_events, min_size=1, max_size=20, unique_by=lambda event: event.id)


def check(blob: bytes, events_max: int = 100, event_bytes_max: int = 1000) -> tuple[int, bytes]:
    return check_blob(blob, events_max=events_max, event_bytes_max=event_bytes_max)


def decode(blob: bytes) -> list[Event]:
    return decode_blob(
        blob, stream="s", partition=3, first_version=5, first_position=70, timestamp_us=1_000_000
    )


@given(event_lists)
def test_a_blob_gives_back_its_events(events: list[NewEvent]) -> None:
    blob = encode_blob(events)
    assert check(blob) == (len(events), events[0].id)
    assert list(blob_ids(blob)) == [event.id for event in events]
    stored = decode(blob)
    assert [event.version for event in stored] == list(range(5, 5 + len(events)))
    assert [event.position for event in stored] == list(range(70, 70 + len(events)))
    for new, event in zip(events, stored, strict=True):
        assert (event.id, event.type, event.data) == (new.id, new.type, new.data)
        assert (event.metadata, event.encoding, event.uuid.bytes) == (new.metadata, new.encoding, new.id)
        assert (event.stream, event.partition, event.timestamp_us) == ("s", 3, 1_000_000)


@given(st.binary(max_size=200))
def test_any_bytes_are_refused_in_words_or_are_events(blob: bytes) -> None:
    try:
        count, first_id = check(blob)
    except InvalidRequest:
        return
    assert len(decode(blob)) == count
    assert len(first_id) == 16


@given(event_lists, st.data())
def test_a_damaged_blob_is_refused_or_still_events(events: list[NewEvent], data: st.DataObject) -> None:
    blob = bytearray(encode_blob(events))
    blob[data.draw(st.integers(0, len(blob) - 1))] = data.draw(st.integers(0, 255))
    try:
        count, _ = check(bytes(blob))
    except InvalidRequest:
        return
    assert len(decode(bytes(blob))) == count


GOOD = [bytes(16), "t", b"1", b"", 0]


def replaced(at: int, value: object) -> list:
    event: list = list(GOOD)
    event[at] = value
    return event


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (None, "at least one event"),
        ({}, "at least one event"),
        ([], "at least one event"),
        ("text", "at least one event"),
        ([1], "array"),
        ([GOOD[:4]], "array"),
        ([[*GOOD, 1]], "array"),
        ([replaced(0, bytes(15))], "16 bytes"),
        ([replaced(0, "0" * 16)], "16 bytes"),
        ([replaced(1, "")], "type"),
        ([replaced(1, b"t")], "type"),
        ([replaced(1, ["t"])], "type"),
        ([replaced(1, "a\nb")], "control"),
        ([replaced(1, "x" * 129)], "128 bytes"),
        ([replaced(1, "é" * 65)], "128 bytes"),
        ([replaced(2, "text")], "are bytes"),
        ([replaced(2, None)], "are bytes"),
        ([replaced(3, "")], "are bytes"),
        ([replaced(4, 2)], "encoding"),
        ([replaced(4, -1)], "encoding"),
        ([replaced(4, True)], "encoding"),
        ([replaced(4, None)], "encoding"),
        ([GOOD, GOOD], "same id"),
        ([replaced(2, msgpack.ExtType(1, b"x"))], "unreadable"),
        ([replaced(2, {"a": 1})], "unreadable"),
    ],
)
def test_wrong_shapes_are_refused(value: object, says: str) -> None:
    with pytest.raises(InvalidRequest, match=says):
        check(msgpack.packb(value))


@pytest.mark.parametrize(
    "blob",
    [
        b"",
        b"\xc1",
        b"\xdd\xff\xff\xff\x7f",
        b"\xdd\x00\x00",
        b"\x91" * 100_000,
        b"\x91\xdd\xff\xff\xff\xff",
        b"\x91\x95\xc6\xff\xff\xff\xff",
        b"\x91\x95\xc4\x10" + bytes(16) + b"\xa2\xff\xfe\xc4\x00\xc4\x00\x00",
        encode_blob([NewEvent("t")]) + b"\x00",
        encode_blob([NewEvent("t")])[:-1],
    ],
    ids=[
        "empty", "reserved byte", "bomb", "half a header", "deep nesting", "nested bomb", "long bytes",
        "bad utf-8", "trailing byte", "cut short",
    ],
)  # fmt: skip
def test_hostile_bytes_are_refused(blob: bytes) -> None:
    with pytest.raises(InvalidRequest):
        check(blob)


def test_limits_are_named_and_decided_before_unpacking() -> None:
    def many(count: int) -> bytes:
        return encode_blob([NewEvent("t") for _ in range(count)])

    assert check(many(20), events_max=20)[0] == 20
    for count in (21, 22, 40, 70_000):
        with pytest.raises(TooLarge) as caught:
            check(many(count), events_max=20)
        assert caught.value.details == {"limit": 20, "actual": count}
    with pytest.raises(TooLarge):
        check(b"\xdd\xff\xff\xff\xff", events_max=20)

    assert check(encode_blob([NewEvent("t", b"x" * 60, b"y" * 40, BINARY)]), event_bytes_max=100)[0] == 1
    with pytest.raises(TooLarge) as caught:
        check(encode_blob([NewEvent("t", b"x" * 60, b"y" * 41, BINARY)]), event_bytes_max=100)
    assert caught.value.details == {"limit": 100, "actual": 101}


@given(JSON_VALUES)
def test_json_goes_there_and_back(value: object) -> None:
    event = decode(encode_blob([NewEvent.json("t", value, {"by": value})]))[0]
    assert event.json() == value
    assert json.loads(event.metadata) == {"by": value}


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (float("nan"), "NaN and Infinity"),
        ({"a": [float("-inf")]}, "NaN and Infinity"),
        (object(), "not JSON serializable"),
        ({1: {2}}, "not JSON serializable"),
        (b"bytes", "not JSON serializable"),
        ([{"a": {1: 2}}], "a key must be a string, not 1"),
        ({"1": 1, 1: 2}, "a key must be a string, not 1"),
        (({None: 1},), "a key must be a string, not None"),
        ({True: 1}, "a key must be a string, not True"),
        ("\ud800", "half a surrogate pair"),
        ({"\udfff": 1}, "half a surrogate pair"),
        pytest.param(10**5000, "4300 digits", id="huge"),
    ],
)
def test_a_value_that_is_not_json_is_refused(value: object, says: str) -> None:
    with pytest.raises(InvalidRequest, match=f"^data is not JSON: .*{says}"):
        NewEvent.json("t", value)
    with pytest.raises(InvalidRequest, match=f"^metadata is not JSON: .*{says}"):
        NewEvent.json("t", 1, value)


def test_a_circle_and_a_tower_are_refused() -> None:
    circle: list = []
    circle.append(circle)
    tower: list = []
    for _ in range(100_000):
        tower = [tower]
    for value in (circle, {"a": circle}, tower):
        with pytest.raises(InvalidRequest, match="not JSON"):
            NewEvent.json("t", value)


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (b"", "expecting value at line 1, column 1"),
        (b"{oops}", r"at line 1, column 2: \{ -->oops"),
        (b'{"a": 1,\n "b" 2}', "expecting ':' delimiter at line 2, column 6:  \"b\"  -->2"),
        (b"1 2", "extra data"),
        (b"NaN", "NaN is not a JSON value"),
        (b"\xff", "byte 1 is not UTF-8"),
        ("\ufeff1".encode("utf-16-le"), "not UTF-8"),
        (b"[" * 100_000, "nested too deeply"),
    ],
)
def test_bytes_that_are_not_json_are_refused_with_a_pointer(raw: bytes, says: str) -> None:
    with pytest.raises(InvalidRequest, match=f"data is not JSON: .*{says}"):
        NewEvent("t", raw)
    assert NewEvent("t", raw, encoding=BINARY).data == raw


@pytest.mark.parametrize(
    "raw",
    [
        b"1.0",
        b"123456789012345678901234567890.1234",
        b' {"b":1, "a":[] }\n',
        b'"\\ud800"',
        b"1e999",
        b'{"a":1,"a":2}',
    ],
)
def test_json_text_stays_as_it_is(raw: bytes) -> None:
    assert decode(encode_blob([NewEvent("t", raw)]))[0].data == raw


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"type": ""}, "type"),
        ({"type": None}, "type"),
        ({"type": "a\n"}, "control"),
        ({"type": "\ud800"}, "surrogate"),
        ({"type": "x" * 129}, "128 bytes"),
        ({"data": "text"}, "data must be bytes, not 'text'"),
        ({"data": {"a": 1}}, "data must be bytes.* NewEvent.json takes values"),
        ({"data": bytearray(b"1")}, "data must be bytes"),
        ({"metadata": {"a": 1}}, "metadata must be bytes"),
        ({"encoding": 2}, "encoding"),
        ({"encoding": True}, "encoding"),
        ({"encoding": "json"}, "encoding"),
        ({"id": b"short"}, "id must be"),
        ({"id": "0" * 16}, "id must be"),
        ({"id": uuid.uuid4()}, "id must be"),
    ],
)
def test_an_event_is_made_whole_or_not_at_all(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidRequest, match=says):
        NewEvent(**{"type": "t", **fields})


@pytest.mark.parametrize("id_", ["0b6f5c1e-3d7a-4f7e-9a51-0c7d1f0a2b3c", 5, b"short"])
def test_an_id_is_a_uuid_or_its_bytes(id_: Any) -> None:
    with pytest.raises(InvalidRequest, match="id must be"):
        NewEvent.json("t", 1, id=id_)
    same = uuid.uuid4()
    assert NewEvent.json("t", 1, id=same).id == NewEvent.json("t", 1, id=same.bytes).id == same.bytes


def test_a_stored_event_is_a_new_one_again() -> None:
    for new in (NewEvent.json("t", {"a": 1}, {"m": 1}), foreign_event("t", b"no json")):
        assert NewEvent.again(decode(encode_blob([new]))[0]) == new


@pytest.mark.parametrize("events", [{"type": "A"}, [{"type": "A"}], "A", b"A", None, 5, [None], [], ()])
def test_an_append_takes_events(events: Any) -> None:
    with pytest.raises(InvalidRequest, match=r"^events"):
        as_events(events)
    one = NewEvent("t")
    assert list(as_events(one)) == list(as_events([one])) == list(as_events((one,))) == [one]


def test_an_event_has_its_time_and_metadata_as_values() -> None:
    event = decode(encode_blob([NewEvent.json("t", 1, {"by": "me"})]))[0]
    assert event.timestamp == datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC)
    assert event._replace(timestamp_us=2**63 - 1).timestamp.year == 9999
    assert event.metadata_json() == {"by": "me"}
    assert event._replace(metadata=b"").metadata_json() is None


def test_what_is_not_json_says_so_and_where_its_bytes_are() -> None:
    event = decode(encode_blob([foreign_event("t", b"no json", b"\xff")]))[0]
    with pytest.raises(ValueError, match=r"event 5 of stream 's' holds data that is not JSON .*`data` has"):
        event.json()
    with pytest.raises(ValueError, match=r"event 5 .* metadata that is not JSON .*`metadata` has"):
        event.metadata_json()


def test_binary_events_do_not_pretend_to_be_json() -> None:
    event = decode(encode_blob([NewEvent("t", b"\x00\xff", encoding=BINARY)]))[0]
    with pytest.raises(ValueError, match="binary"):
        event.json()


def test_ids_are_uuids_of_version_4_and_differ() -> None:
    ids = {new_event_id() for _ in range(500)}
    assert len(ids) == 500
    assert {uuid.UUID(bytes=raw).version for raw in ids} == {4}
    given_id = uuid.uuid4()
    assert NewEvent.json("t", id=given_id).id == NewEvent.json("t", id=given_id.bytes).id == given_id.bytes


@pytest.mark.parametrize("value", ["OrderPlaced", "order.placed", "shop.orders:Order.Placed", "é" * 64])
def test_event_types_of_every_school(value: str) -> None:
    check_event_type(value)


def test_same_content_however_it_was_packed() -> None:
    events = [NewEvent("t", b"1"), NewEvent("u", b"2")]
    blob = encode_blob(events)
    # The same array with a longer header than it needs (msgpack allows it).
    repacked = b"\xdc\x00\x02" + blob[1:]
    assert same_content(blob, blob)
    assert same_content(blob, repacked)
    assert not same_content(blob, encode_blob(events[:1]))
    assert not same_content(blob, encode_blob([events[0], NewEvent("u", b"3", id=events[1].id)]))
