"""Events and their blobs, friendly and hostile ones."""

from __future__ import annotations

import json
import uuid

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from allsource.storage.errors import InvalidRequest, TooLarge
from allsource.storage.events import (
    BINARY,
    JSON,
    Event,
    NewEvent,
    blob_ids,
    check_blob,
    check_event_type,
    decode_blob,
    encode_blob,
    json_bytes,
    new_event_id,
    same_content,
)

types = st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=1, max_size=30)
new_events = st.builds(
    NewEvent,
    type=types,
    data=st.binary(max_size=60),
    metadata=st.binary(max_size=20),
    encoding=st.sampled_from((JSON, BINARY)),
    id=st.binary(min_size=16, max_size=16),
)
event_lists = st.lists(new_events, min_size=1, max_size=20, unique_by=lambda event: event.id)
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


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

    assert check(encode_blob([NewEvent("t", b"x" * 60, b"y" * 40)]), event_bytes_max=100)[0] == 1
    with pytest.raises(TooLarge) as caught:
        check(encode_blob([NewEvent("t", b"x" * 60, b"y" * 41)]), event_bytes_max=100)
    assert caught.value.details == {"limit": 100, "actual": 101}


@given(json_values)
def test_json_goes_there_and_back(value: object) -> None:
    assert json.loads(json_bytes(value)) == value
    event = decode(encode_blob([NewEvent.json("t", value, {"by": value})]))[0]
    assert event.json() == value
    assert json.loads(event.metadata) == {"by": value}


def test_half_a_surrogate_pair_is_kept() -> None:
    assert json.loads(json_bytes({"é": "\ud800"})) == {"é": "\ud800"}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object(), {1: {2}}, b"bytes"])
def test_what_json_cannot_say_is_refused(value: object) -> None:
    with pytest.raises(InvalidRequest, match="not a JSON value"):
        NewEvent.json("t", value)


def test_a_circle_is_refused() -> None:
    circle: list = []
    circle.append(circle)
    with pytest.raises(InvalidRequest, match="not a JSON value"):
        json_bytes(circle)


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
