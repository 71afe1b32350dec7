"""A new event is a tuple that is packed as it is; its id is drawn from a pool that no two share."""

from __future__ import annotations

import copy
import json
import multiprocessing
import os
import pickle
import threading
from collections import UserList
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from enum import IntEnum
from multiprocessing.connection import Connection
from random import Random
from typing import Any
from uuid import RFC_4122, UUID

import pytest
from hypothesis import given

from allsource.storage.model import events, json_text
from allsource.storage.model.chunks import pack_events, unpack_chunks
from allsource.storage.model.errors import InvalidRequest
from allsource.storage.model.events import BINARY, NewEvent, as_events, new_event_id
from tests.json_values import JSON_VALUES

EVENT = NewEvent("T", b"\x00", b"m", BINARY, b"sixteen bytes it")

# -- the event


def test_it_is_packed_as_it_is() -> None:
    assert unpack_chunks(pack_events([EVENT])) == [tuple(EVENT)]
    assert tuple(EVENT) == (EVENT.id, EVENT.type, EVENT.data, EVENT.metadata, EVENT.encoding)


def test_any_sequence_of_them_is_taken() -> None:
    for events_ in ([EVENT], (EVENT,), EVENT, UserList([EVENT])):
        assert unpack_chunks(pack_events(as_events(events_))) == [tuple(EVENT)]


def test_many_threads_pack_and_unpack_at_a_time() -> None:
    """zstandard lets other threads run meanwhile, and its objects are not to be shared."""

    def work(seed: int) -> None:
        new = [NewEvent.json("T", Random(seed + n).choices("abcdefgh", k=3000)) for n in range(5)]
        for _ in range(20):
            assert unpack_chunks(pack_events(new)) == [tuple(event) for event in new]

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))


@pytest.mark.parametrize("name", ["id", "type", "data", "metadata", "encoding", "another"])
def test_it_never_changes(name: str) -> None:
    with pytest.raises(AttributeError):
        setattr(EVENT, name, b"changed")
    with pytest.raises(TypeError):
        EVENT[0] = b"changed"  # type: ignore[index]
    assert not hasattr(EVENT, "__dict__")


def test_copies_are_equal_and_of_its_kind() -> None:
    for other in (copy.copy(EVENT), copy.deepcopy(EVENT), pickle.loads(pickle.dumps(EVENT))):
        assert (other, type(other)) == (EVENT, NewEvent)
    assert EVENT._replace(type="U") == NewEvent("U", b"\x00", b"m", BINARY, EVENT.id)
    assert hash(EVENT._replace()) == hash(EVENT)


WRONG = [
    {"type": ""},
    {"type": 5},
    {"data": "text"},
    {"data": bytearray(b"1")},
    {"metadata": None},
    {"encoding": True},
    {"encoding": 2},
    {"id": b"short"},
    {"id": "sixteen letters."},
    {"encoding": 0},  # its data is no JSON
]


@pytest.mark.parametrize("wrong", WRONG)
def test_no_way_leads_to_one_that_was_not_checked(wrong: dict[str, Any]) -> None:
    fields = {"type": "T", "data": b"\x00", "metadata": b"", "encoding": BINARY, "id": EVENT.id, **wrong}
    with pytest.raises(InvalidRequest):
        NewEvent(**fields)
    with pytest.raises(InvalidRequest):
        EVENT._replace(**wrong)
    with pytest.raises(InvalidRequest):
        NewEvent._make([fields[name] for name in NewEvent._fields])


def test_it_is_matched_as_it_is_made() -> None:
    match EVENT:
        case NewEvent(type, data):
            assert (type, data) == ("T", b"\x00")


# -- JSON values, the quick way and the other


@given(JSON_VALUES)
def test_both_ways_write_the_same_values(value: Any) -> None:
    written = json_text.json_of(value, "data")
    assert json.loads(written) == json.loads(json.dumps(value))
    json_text.check_json(written, "data")


class Number(IntEnum):
    ONE = 1


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (2**64, b"18446744073709551616"),
        ([-(2**80)], b"[-1208925819614629174706176]"),
        ({"a": (1, [None, True])}, b'{"a":[1,[null,true]]}'),
        (Number.ONE, b"1"),
        ("\u2028é\x7f\x01", '"\u2028é\x7f\\u0001"'.encode()),
        (1.0, b"1.0"),
    ],
)
def test_values_of_json_are_written(value: Any, written: bytes) -> None:
    assert json_text.json_of(value, "data") == written


@pytest.mark.parametrize(
    "value",
    [
        float("nan"),
        [float("inf")],
        {"a": -float("inf")},
        {1: 2},
        {"a": {None: 2}},
        {Number.ONE: 1},
        b"bytes",
        {1, 2},
        Decimal(1),
        UUID(int=1),
        [EVENT.__class__],
        object(),
        "\ud800",
        {"\ud800": 1},
    ],
)
def test_what_the_quick_way_would_take_and_is_no_json_is_refused(value: Any) -> None:
    with pytest.raises(InvalidRequest, match="data is not JSON"):
        NewEvent.json("T", value)


# -- ids


def is_version_4(id: bytes) -> bool:
    uuid = UUID(bytes=id)
    return (uuid.version, uuid.variant) == (4, RFC_4122)


def test_ids_are_random_uuids() -> None:
    ids = [new_event_id() for _ in range(5000)]
    assert len(set(ids)) == 5000
    assert all(is_version_4(id) for id in ids)
    seen_bits = int.from_bytes(ids[0]), int.from_bytes(ids[0])
    for id in ids:
        seen_bits = seen_bits[0] | int.from_bytes(id), seen_bits[1] & int.from_bytes(id)
    random_bits = seen_bits[0] & ~seen_bits[1]
    assert random_bits.bit_count() == 122, "every bit but those of version and variant"


def test_the_kernel_is_asked_once_for_many(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def urandom(size: int) -> bytes:
        asked.append(size)
        return real(size)

    real = os.urandom
    monkeypatch.setattr(events.os, "urandom", urandom)
    for _ in range(1024):
        new_event_id()
    assert 4 <= len(asked) <= 5
    assert set(asked) == {4096}


def test_no_two_threads_get_the_same() -> None:
    start = threading.Barrier(8)

    def draw(_: int) -> list[bytes]:
        start.wait()
        return [new_event_id() for _ in range(5000)]

    with ThreadPoolExecutor(8) as pool:
        drawn = [id for ids in pool.map(draw, range(8)) for id in ids]
    assert len(set(drawn)) == len(drawn) == 40_000


def _draw(to: Connection) -> None:
    to.send([new_event_id() for _ in range(300)])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no processes are forked here")
def test_no_two_processes_get_the_same() -> None:
    """Children that are forked while the pool is half full, and their parent, which goes on with it."""
    new_event_id()
    assert events._ids, "there is something that a child could draw as well"
    fork = multiprocessing.get_context("fork")
    drawn = []
    for _ in range(3):
        mine, theirs = fork.Pipe()
        child = fork.Process(target=_draw, args=(theirs,))
        child.start()
        drawn += mine.recv()
        child.join()
        assert child.exitcode == 0
    drawn += [new_event_id() for _ in range(300)]
    assert len(set(drawn)) == len(drawn) == 1200
