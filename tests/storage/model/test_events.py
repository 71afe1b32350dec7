"""Events, friendly and hostile ones. How they are packed is in `test_chunks`."""

from __future__ import annotations

import json
import uuid
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given

from allsource.storage.model.chunks import decode_chunk, pack_events
from allsource.storage.model.errors import InvalidRequest
from allsource.storage.model.events import (
    BINARY,
    Event,
    NewEvent,
    as_events,
    new_event_id,
)
from tests.foreign import foreign_event
from tests.json_values import JSON_VALUES


def stored(new: NewEvent) -> Event:
    """The event as a reader gets it."""
    (chunk,) = pack_events([new])
    (event,) = decode_chunk(
        chunk,
        stream="s",
        partition=3,
        first_version=5,
        first_position=70,
        first_tag_number=0,
        timestamp_us=1_000_000,
    )
    return event


@given(JSON_VALUES)
def test_json_goes_there_and_back(value: object) -> None:
    event = stored(NewEvent.json("t", value, {"by": value}))
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
    assert stored(NewEvent("t", raw)).data == raw


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
        assert NewEvent.again(stored(new)) == new


@pytest.mark.parametrize("events", [{"type": "A"}, [{"type": "A"}], "A", b"A", None, 5, [None], [], ()])
def test_an_append_takes_events(events: Any) -> None:
    with pytest.raises(InvalidRequest, match=r"^events"):
        as_events(events)
    one = NewEvent("t")
    assert list(as_events(one)) == list(as_events([one])) == list(as_events((one,))) == [one]


def test_an_event_has_its_time_and_metadata_as_values() -> None:
    event = stored(NewEvent.json("t", 1, {"by": "me"}))
    assert event.timestamp == datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC)
    assert event._replace(timestamp_us=2**63 - 1).timestamp.year == 9999
    assert event.metadata_json() == {"by": "me"}
    assert event._replace(metadata=b"").metadata_json() is None


def test_what_is_not_json_says_so_and_where_its_bytes_are() -> None:
    event = stored(foreign_event("t", b"no json", b"\xff"))
    with pytest.raises(ValueError, match=r"event 5 of stream 's' holds data that is not JSON .*`data` has"):
        event.json()
    with pytest.raises(ValueError, match=r"event 5 .* metadata that is not JSON .*`metadata` has"):
        event.metadata_json()


def test_binary_events_do_not_pretend_to_be_json() -> None:
    event = stored(NewEvent("t", b"\x00\xff", encoding=BINARY))
    with pytest.raises(ValueError, match="binary"):
        event.json()


def test_ids_are_uuids_of_version_4_and_differ() -> None:
    ids = {new_event_id() for _ in range(500)}
    assert len(ids) == 500
    assert {uuid.UUID(bytes=raw).version for raw in ids} == {4}
    given_id = uuid.uuid4()
    assert NewEvent.json("t", id=given_id).id == NewEvent.json("t", id=given_id.bytes).id == given_id.bytes
