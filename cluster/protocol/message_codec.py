"""What the groups say to each other, as msgpack: `[MESSAGES, [message, ...]]` and `[BEAT, ...]`.

Apart from `codec` because only nodes speak this. `MESSAGES` is the table: a row for each message with its
number, its class, and its elements in their order. A message is an array that begins with its number. An
entry travels as its record, the same bytes as on disk, and its CRC is verified here: a follower never sees
a bad one.

API: `encode_message(message) -> bytes` (one item of a MESSAGES frame), `decode_messages(frame)`,
`encode_beat(beat) -> bytes` (a whole payload), `decode_beat(frame)`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from allsource.cluster.consensus.messages import (
    Append,
    AppendReply,
    Beat,
    CommitNotice,
    Echo,
    EchoReply,
    GroupBeat,
    Message,
    ReadRound,
    ReadRoundReply,
    RequestVote,
    TimeoutNow,
    VoteReply,
)
from allsource.cluster.consensus.sense import INDEX_MAX
from allsource.cluster.protocol.frames import ProtocolError
from allsource.cluster.protocol.kinds import Kind
from allsource.cluster.protocol.payload import batch, malformed, pack
from allsource.cluster.protocol.shapes import BIN, BOOL, PARTITION, STR, UINT, Element, Shape, array
from allsource.storage.model.entry import CONFIG, Configuration, Entry, decode_entry
from allsource.storage.model.errors import Corrupt


class Row(NamedTuple):
    """One message: the values of `cls` are said in `shape`."""

    number: int
    cls: type[Any]
    shape: Shape


def _row(
    number: int, cls: type[Any], elements: dict[str, Element], make: Callable[..., Message] | None = None
) -> Row:
    return Row(number, cls, Shape(cls.__name__, make or cls, elements, head=("type",), number=number))


def _append(
    partition: int, term: int, prev_index: int, prev_term: int, commit: int, records: tuple[bytes, ...]
) -> Append:
    return Append(partition, term, prev_index, prev_term, commit, _entries(partition, prev_index, records))


def _entries(partition: int, prev_index: int, records: tuple[bytes, ...]) -> list[Entry]:
    """The verified entries: of this partition, gapless behind `prev_index`."""
    found = []
    index = prev_index
    for record in records:
        try:
            entry = decode_entry(record)
            index += 1
            if entry.partition != partition or entry.index != index:
                raise malformed(f"entry {entry.partition}/{entry.index} where {partition}/{index} belongs")
            _check_numbers(entry)
        except Corrupt as error:
            raise ProtocolError("corrupt_entry", error.message) from error
        found.append(entry)
    return found


def _check_numbers(entry: Entry) -> None:
    """`decode_entry` has seen to it that each append is one and that all adds up; here, that its numbers
    are such as a log that is in order has."""
    if entry.kind == CONFIG:
        _check_configuration(entry)
    for parts, _ in entry.appends:
        for _, first_version, _, _, first_tag_number, _, _ in parts:
            if first_version > INDEX_MAX or first_tag_number > INDEX_MAX:
                number = max(first_version, first_tag_number)
                raise malformed(f"entry {entry.partition}/{entry.index}: no event has the number {number}")


def _check_configuration(entry: Entry) -> None:
    try:
        Configuration.decode(entry.payload())
    except Corrupt as error:
        raise ProtocolError("corrupt_entry", error.message) from error


# -- the table

SHARE = Shape("a share", tuple, {"partition": UINT, "term": UINT})
LINE = Shape(
    "a group's line",
    GroupBeat,
    {"partition": UINT, "term": UINT, "leader": STR, "commit": UINT, "last": UINT, "wants": BOOL},
)
RECORDS = array(
    BIN,
    called="record",
    # What was read from disk for a follower goes out as it is, undecoded.
    listed="value.records or [entry.record for entry in value.entries]",
)

MESSAGES = (
    _row(
        1,
        RequestVote,
        {
            "partition": PARTITION,
            "term": UINT,
            "last_index": UINT,
            "last_term": UINT,
            "pre": BOOL,
            "transfer": BOOL,
        },
    ),
    _row(2, VoteReply, {"partition": PARTITION, "term": UINT, "granted": BOOL, "pre": BOOL}),
    _row(
        3,
        Append,
        {
            "partition": PARTITION,
            "term": UINT,
            "prev_index": UINT,
            "prev_term": UINT,
            "commit": UINT,
            "entries": RECORDS,
        },
        _append,
    ),
    _row(
        4,
        AppendReply,
        {
            "partition": PARTITION,
            "term": UINT,
            "accepted": BOOL,
            "index": UINT,
            "hint_term": UINT,
            "prev_index": UINT,
        },
    ),
    _row(5, CommitNotice, {"partition": PARTITION, "term": UINT, "commit": UINT}),
    _row(6, TimeoutNow, {"partition": PARTITION, "term": UINT}),
    _row(7, ReadRound, {"round": UINT, "groups": array(SHARE, into=list)}),
    _row(8, ReadRoundReply, {"round": UINT, "groups": array(SHARE, into=list)}),
    _row(9, Echo, {"number": UINT}),
    _row(10, EchoReply, {"number": UINT}),
)

BEAT = Shape(
    "a beat",
    Beat,
    {
        "sequence": UINT,
        "groups": array(LINE, into=list),
        "leaving": BOOL,
        "yields": BOOL,
        "hears": array(STR),
        "damaged": array(UINT, called="partition"),
        "wall_us": UINT,
    },
    head=("kind",),
    number=Kind.BEAT,
)

_LIST = {row.cls: row.shape.listed for row in MESSAGES}
_READ = {row.number: row.shape.read for row in MESSAGES}


def encode_message(message: Message) -> bytes:
    """One item of a MESSAGES frame."""
    return pack(_LIST[type(message)](message))


def decode_messages(frame: list[Any]) -> list[Message]:
    """The messages of an unpacked MESSAGES frame, in order; raises `ProtocolError`."""
    found = []
    for item in batch(frame):
        if type(item) is not list or not item or type(item[0]) is not int:
            raise malformed("a message is an array that begins with its type")
        read = _READ.get(item[0])
        if read is None:
            raise malformed(f"no such message: {item[0]}")
        found.append(read(item))
    return found


def encode_beat(beat: Beat) -> bytes:
    """A whole BEAT payload."""
    return pack(BEAT.listed(beat))


def decode_beat(frame: list[Any]) -> Beat:
    """The beat of an unpacked BEAT frame; raises `ProtocolError`."""
    beat: Beat = BEAT.read(frame)
    return beat
