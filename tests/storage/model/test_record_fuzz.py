"""Any bytes are an entry that encodes back to them, or `Corrupt`, at a bounded price.

A seeded mutator changes valid records: bytes anywhere, fields of the header, values of the heads, pieces of
two records, the bytes of chunks. Most of it is signed anew, so that the checksums, which find everything
else, let it through to the decoder.
"""

from __future__ import annotations

import os
import struct
import time
import tracemalloc
import zlib
from collections import Counter
from collections.abc import Callable
from copy import deepcopy
from random import Random
from typing import Any

import msgpack
import pytest

from allsource.storage.model.chunks import Chunk, pack_events
from allsource.storage.model.entry import (
    CONFIG,
    EVENTS,
    HEADER_BYTES,
    NOOP,
    Append,
    Configuration,
    Entry,
    Mark,
    NewAppend,
    check_record,
    decode_entry,
    make_entry,
    span_of,
)
from allsource.storage.model.errors import Corrupt
from allsource.storage.model.events import BINARY, NewEvent
from allsource.storage.model.packing import pack
from tests.storage.logs import new_append, part, together

SEED_VARIABLE = "ALLSOURCE_TEST_SEED"
ROUNDS = 4000
HEADER = struct.Struct(">IBBBHQQQIQI")
HEADS_BYTES_AT = HEADER_BYTES - 4


def drawn_seed() -> int:
    """Another one in each run, or the one to be replayed; printed with the line that replays it."""
    seed = int(os.environ.get(SEED_VARIABLE) or Random().randrange(1 << 32))
    print(f"{SEED_VARIABLE}={seed} pytest tests/storage/model/test_record_fuzz.py")
    return seed


def records(random: Random) -> list[bytes]:
    """Valid ones of every kind."""

    def sent(count: int, size: int, compress: bool = True) -> tuple[Chunk, ...]:
        data = bytes(size)
        events = [
            NewEvent("T" * random.randint(1, 9), data, encoding=BINARY, id=random.randbytes(16))
            for _ in range(count)
        ]
        return pack_events(events, compress=compress)

    moved = NewAppend(Append((), (Mark("m", 3, 1), Mark("n", 2**63 - 1, 0))), ())
    several = together(part("a", 1), part("b{t}", 1, 2, first_tag_number=4), moved)
    wanted: list[dict[str, Any]] = [
        {"kind": EVENTS, "appends": [part("s", 1)]},
        {"kind": EVENTS, "appends": [several, part("a", 2, 3), moved]},
        {"kind": EVENTS, "appends": [new_append(("žluť", 2**40, 0, sent(300, 9)))]},
        {"kind": EVENTS, "appends": [new_append(("x{t}", 1, 9, sent(3, 5000)), ("y", 1, 0, sent(2, 40)))]},
        {"kind": EVENTS, "appends": [new_append(("x", 1, 0, sent(2, 900, compress=False)))]},
        {"kind": EVENTS, "appends": []},
        {"kind": NOOP},
        {"kind": CONFIG, "payload": Configuration(("a", "b"), ("c",)).encode()},
    ]
    return [
        make_entry(partition=3, index=9, term=2, first_position=20, timestamp_us=1 << 50, **one).record
        for one in wanted
    ]


# -- changing them


def signed(record: bytes | bytearray) -> bytes:
    """With a checksum of the header and the heads that fits."""
    if len(record) < HEADER_BYTES:
        return bytes(record)
    end = HEADER_BYTES + struct.unpack_from(">I", record, HEADS_BYTES_AT)[0]
    return struct.pack(">I", zlib.crc32(record[4:end])) + bytes(record[4:])


def split(record: bytes) -> tuple[bytearray, bytes, bytes]:
    end = HEADER_BYTES + struct.unpack_from(">I", record, HEADS_BYTES_AT)[0]
    return bytearray(record[:HEADER_BYTES]), record[HEADER_BYTES:end], record[end:]


def joined(header: bytearray, heads: bytes, chunks: bytes) -> bytes:
    struct.pack_into(">I", header, HEADS_BYTES_AT, len(heads))
    return signed(header + heads + chunks)


def any_bytes(random: Random, record: bytes, other: bytes) -> bytes:
    """Bytes anywhere; as likely unsigned."""
    changed = bytearray(record)
    for _ in range(random.choice((1, 1, 2, 8))):
        changed[random.randrange(len(changed))] = random.randrange(256)
    return signed(changed) if random.random() < 0.8 else bytes(changed)


def cut(random: Random, record: bytes, other: bytes) -> bytes:
    at = random.randrange(len(record) + 1)
    return signed(record[:at] if random.random() < 0.5 else record + other[at:])


def header_field(random: Random, record: bytes, other: bytes) -> bytes:
    fields = list(HEADER.unpack_from(record))
    bits = (32, 8, 8, 8, 16, 64, 64, 64, 32, 64, 32)
    at = random.randrange(1, len(fields))
    near = (fields[at] + random.choice((-1, 1)), 0, 1, 2, 3, 2**63, 2**62 - 1, 2**64 - 1)
    fields[at] = random.choice(near) % (1 << bits[at])
    return signed(HEADER.pack(*fields) + record[HEADER_BYTES:])


def head_bytes(random: Random, record: bytes, other: bytes) -> bytes:
    header, heads, chunks = split(record)
    changed = bytearray(heads)
    for _ in range(random.choice((1, 1, 2, 5))):
        at = random.randrange(len(changed) + 1)
        changed[at : at + random.choice((0, 1, 1, 1, 4))] = random.randbytes(random.choice((0, 1, 1, 1, 5)))
    return joined(header, bytes(changed), chunks)


ODD = (
    *(0, 1, 2, 5, -1, 255, 256, 65_537, 2**31, 2**32, 2**62, 2**63, 2**64 - 1, None, True, 1.5),
    *("", "s", "m", "s" * 129, "a\0", "é" * 65, "s{t}", "$s{t}", b"", bytes(16), bytes(17)),
    *([], [[]], {}, msgpack.ExtType(1, b"x")),
)


def head_value(random: Random, record: bytes, other: bytes) -> bytes:
    """A value somewhere in the heads: another one, doubled, dropped, moved or taken from elsewhere."""
    header, heads, chunks = split(record)
    try:
        tree, strange = msgpack.unpackb(heads), msgpack.unpackb(split(other)[1])
    except ValueError:
        return joined(header, heads + b"\x90", chunks)
    for _ in range(random.choice((1, 1, 1, 2))):
        _change(random, tree, strange)
    return joined(header, msgpack.packb(tree), chunks)


def _change(random: Random, tree: Any, strange: Any) -> None:
    lists = _lists(tree)
    if not lists:
        return
    chosen = random.choice(lists)
    at = random.randrange(len(chosen))
    match random.randrange(7):
        case 0 | 1:
            chosen[at] = deepcopy(random.choice(ODD))
        case 2:
            chosen.insert(at, deepcopy(chosen[at]))
        case 3:
            del chosen[at]
        case 4:
            random.shuffle(chosen)
        case 5:
            chosen[at] = deepcopy(random.choice(_lists(strange) or [[]]))
        case _ if isinstance(chosen[at], int):
            chosen[at] = max(0, chosen[at] + random.choice((-1, 1)))
        case _:
            pass


def _lists(tree: Any) -> list[list[Any]]:
    """Every list in it that is not empty."""
    found = [tree] if isinstance(tree, list) and tree else []
    return found + [one for value in (tree if isinstance(tree, list) else ()) for one in _lists(value)]


def chunk_bytes(random: Random, record: bytes, other: bytes) -> bytes:
    """Bytes of the chunks, whose checksums are made to fit."""
    header, heads, chunks = split(record)
    if not chunks:
        return record
    changed = bytearray(chunks)
    for _ in range(random.choice((1, 1, 2, 8))):
        changed[random.randrange(len(changed))] = random.randrange(256)
    tree = msgpack.unpackb(heads)
    at = 0
    for parts, _ in tree:
        for one in parts:
            for head in one[6]:
                head[4] = zlib.crc32(changed[at : at + head[2]])
                at += head[2]
    return joined(header, msgpack.packb(tree), bytes(changed))


def noise(random: Random, record: bytes, other: bytes) -> bytes:
    return signed(record[: random.randrange(HEADER_BYTES + 1)] + random.randbytes(random.randrange(200)))


MUTATORS: tuple[Callable[[Random, bytes, bytes], bytes], ...] = (
    any_bytes, cut, header_field, head_bytes, head_value, head_value, chunk_bytes, noise,
)  # fmt: skip


# -- what must come of them


def encoded_again(entry: Entry) -> Entry:
    """What an owner makes of what was read."""
    appends = [
        NewAppend(append, tuple(chunk.data for chunks in entry.content(n) for chunk in chunks))
        for n, append in enumerate(entry.appends)
    ]
    return make_entry(
        partition=entry.partition,
        index=entry.index,
        term=entry.term,
        kind=entry.kind,
        first_position=entry.first_position,
        timestamp_us=entry.timestamp_us,
        appends=appends,
        payload=b"" if entry.kind == EVENTS else entry.payload(),
    )


def outcome(record: bytes) -> str:
    """What came of decoding it, which is checked here."""
    try:
        entry = decode_entry(record)
    except Corrupt as error:
        return "checksum" if "CRC" in error.message else "refused"
    again = encoded_again(entry)
    assert again.appends == entry.appends
    if entry.kind != EVENTS or pack(entry.appends) == entry.payload():
        assert again.record == record
    else:  # msgpack can say the same in more than one way; that way, too, it is the same entry
        assert decode_entry(again.record).appends == entry.appends
    assert decode_entry(record, whole=False) == entry
    check_record(record, entry.partition, entry.index)
    assert span_of(record) == (entry.first_position, entry.count) == (again.first_position, again.count)
    _check_meaning(entry)
    try:
        events = entry.events()
    except Corrupt:
        return "events refused"
    assert len(events) == entry.count
    assert [event.position for event in events] == list(range(entry.first_position, entry.next_position))
    return "read"


def _check_meaning(entry: Entry) -> None:
    """What a storage and its indexes rely on."""
    assert max(entry.term, entry.index, entry.next_position, entry.timestamp_us) < 2**63
    for append in entry.appends:
        for one in append.parts:
            assert 0 < len(one.stream.encode()) <= 128
            assert "\0" not in one.stream
            assert 0 < one.first_version <= one.last_version < 2**63
            assert 0 <= one.first_tag_number + one.count < 2**63
            assert one.count == sum(head.count for head in one.chunks)
        for mark in append.marks:
            assert 0 < len(mark.name.encode()) <= 128
            assert "\0" not in mark.name
            assert max(mark.position, mark.generation) < 2**63


def test_any_record_is_an_entry_that_encodes_back_or_corrupt() -> None:
    random = Random(drawn_seed())
    valid = records(random)
    met: Counter[tuple[str, str]] = Counter()
    tracemalloc.start()
    try:
        for _ in range(ROUNDS):
            mutate = random.choice(MUTATORS)
            record = mutate(random, random.choice(valid), random.choice(valid))
            if random.random() < 0.2:
                record = any_bytes(random, record or b"\0", record)
            tracemalloc.reset_peak()
            before, began = tracemalloc.get_traced_memory()[0], time.thread_time()
            came = outcome(record)
            took, peak = time.thread_time() - began, tracemalloc.get_traced_memory()[1]
            assert took < 1, f"{took} seconds for {record.hex()}"
            assert peak - before < 60 * len(record) + (1 << 20), f"{peak - before} bytes for {record.hex()}"
            met[mutate.__name__, came] += 1
    finally:
        tracemalloc.stop()
    # It is worth nothing if all of it fails at one check.
    for came in ("checksum", "refused", "read", "events refused"):
        assert sum(count for (_, what), count in met.items() if what == came) > 20, met
    assert met["head_value", "refused"] > 100
    assert met["head_value", "read"] > 20


@pytest.mark.parametrize("number", range(8))
def test_what_is_mutated_is_right(number: int) -> None:
    assert outcome(records(Random(1))[number]) == "read"
