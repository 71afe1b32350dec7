"""What the groups say to each other, as msgpack: `[MESSAGES, [message, ...]]` and `[BEAT, ...]`.

Apart from `codec.py` because only nodes speak this. A message is an array that begins with its type;
the fields follow in the order of its class in `consensus/messages.py`. An entry travels as its
record, the same bytes as on disk, and its CRC is verified here: a follower never sees a bad one.

API: `encode_message(message) -> bytes` (one item of a MESSAGES frame), `decode_messages(frame)`,
`encode_beat(beat) -> bytes` (a whole payload), `decode_beat(frame)`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from allsource.cluster.consensus.messages import (
    Append,
    AppendReply,
    Beat,
    CommitNotice,
    GroupBeat,
    Message,
    ReadRound,
    ReadRoundReply,
    RequestVote,
    TimeoutNow,
    VoteReply,
)
from allsource.cluster.consensus.sense import INDEX_MAX
from allsource.cluster.protocol.codec import Kind, batch, check_uints, malformed, pack
from allsource.cluster.protocol.frames import ProtocolError
from allsource.storage.model.entry import CONFIG, Configuration, Entry, decode_entry
from allsource.storage.model.errors import Corrupt
from allsource.storage.model.partition import STREAM_ID_BYTES_MAX

PARTITION_MAX = 65_535
"""A record's header has 16 bits for the partition."""

MESSAGE_TYPES: dict[int, type[Any]] = {
    1: RequestVote,
    2: VoteReply,
    3: Append,
    4: AppendReply,
    5: CommitNotice,
    6: TimeoutNow,
    7: ReadRound,
    8: ReadRoundReply,
}
"""The first element of a message."""


def encode_message(message: Message) -> bytes:
    """One item of a MESSAGES frame."""
    return pack(_ENCODERS[type(message)](message))


def decode_messages(frame: list[Any]) -> list[Message]:
    """The messages of an unpacked MESSAGES frame, in order; raises `ProtocolError`."""
    found = []
    for item in batch(frame):
        if type(item) is not list or not item or type(item[0]) is not int:
            raise malformed("a message is an array that begins with its type")
        decode = _DECODERS.get(item[0])
        if decode is None:
            raise malformed(f"no such message: {item[0]}")
        found.append(decode(item))
    return found


def encode_beat(beat: Beat) -> bytes:
    """A whole BEAT payload."""
    return pack(
        (
            Kind.BEAT,
            beat.sequence,
            beat.groups,
            beat.leaving,
            beat.yields,
            beat.hears,
            beat.damaged,
            beat.wall_us,
        )
    )


def decode_beat(frame: list[Any]) -> Beat:
    """The beat of an unpacked BEAT frame; raises `ProtocolError`."""
    match frame:
        case [
            _,
            int(sequence),
            list(groups),
            bool(leaving),
            bool(yields),
            list(hears),
            list(damaged),
            int(wall_us),
        ]:
            check_uints((sequence, wall_us, *damaged))
            if not all(type(name) is str for name in hears):
                raise malformed("a beat names the nodes that its sender hears")
            lines = [_group_beat(group) for group in groups]
            return Beat(sequence, lines, leaving, yields, tuple(hears), tuple(damaged), wall_us)
    raise malformed("a beat is [kind, sequence, groups, leaving, yields, hears, damaged, wall_us]")


def _group_beat(value: Any) -> GroupBeat:
    match value:
        case [int(partition), int(term), str(leader), int(commit), int(last), bool(wants)]:
            check_uints((partition, term, commit, last))
            return GroupBeat(partition, term, leader, commit, last, wants)
    raise malformed("a group's line in a beat is [partition, term, leader, commit, last, wants]")


# -- one encoder and one decoder for each type


def _shape(item: list[Any], uints: tuple[int, ...], bools: tuple[int, ...], length: int) -> None:
    """Refuse a message unless it has `length` elements, integers and booleans where they belong."""
    if len(item) != length:
        raise malformed(f"message {item[0]} has {length} elements, not {len(item)}")
    check_uints([item[i] for i in uints])
    if item[0] != 7 and item[0] != 8 and item[1] > PARTITION_MAX:
        raise malformed(f"no partition {item[1]}")
    for i in bools:
        if type(item[i]) is not bool:
            raise malformed(f"element {i} of message {item[0]} is a boolean")


def _request_vote(item: list[Any]) -> RequestVote:
    _shape(item, (1, 2, 3, 4), (5, 6), 7)
    return RequestVote(*item[1:])


def _vote_reply(item: list[Any]) -> VoteReply:
    _shape(item, (1, 2), (3, 4), 5)
    return VoteReply(*item[1:])


def _append(item: list[Any]) -> Append:
    _shape(item, (1, 2, 3, 4, 5), (), 7)
    _, partition, term, prev_index, prev_term, commit, records = item
    if type(records) is not list:
        raise malformed("an append's entries are an array of records")
    return Append(partition, term, prev_index, prev_term, commit, _entries(partition, prev_index, records))


def _entries(partition: int, prev_index: int, records: list[Any]) -> list[Entry]:
    """The verified entries: of this partition, gapless behind `prev_index`."""
    found = []
    index = prev_index
    for record in records:
        if type(record) is not bytes:
            raise malformed("a record is bytes")
        try:
            entry = decode_entry(record)
        except Corrupt as error:
            raise ProtocolError("corrupt_entry", error.message) from error
        index += 1
        if entry.partition != partition or entry.index != index:
            raise malformed(f"entry {entry.partition}/{entry.index} where {partition}/{index} belongs")
        _check_parts(entry)
        found.append(entry)
    return found


def _check_parts(entry: Entry) -> None:
    """`decode_entry` has seen to it that each part is one; here, that it can be stored and they add up."""
    if entry.kind == CONFIG:
        _check_configuration(entry)
    count = 0
    for stream, first_version, events, _, _ in entry.parts:
        if not 0 < len(stream) <= STREAM_ID_BYTES_MAX or "\0" in stream:
            raise malformed(f"entry {entry.partition}/{entry.index}: no such stream")
        if first_version > INDEX_MAX:
            raise malformed(f"entry {entry.partition}/{entry.index}: no stream has version {first_version}")
        count += events
    if count != entry.count:
        raise malformed(
            f"entry {entry.partition}/{entry.index} counts {entry.count} events and has {count}"
        )


def _check_configuration(entry: Entry) -> None:
    try:
        Configuration.decode(entry.payload())
    except Corrupt as error:
        raise ProtocolError("corrupt_entry", error.message) from error


def _append_reply(item: list[Any]) -> AppendReply:
    _shape(item, (1, 2, 4, 5), (3,), 6)
    return AppendReply(*item[1:])


def _commit_notice(item: list[Any]) -> CommitNotice:
    _shape(item, (1, 2, 3), (), 4)
    return CommitNotice(*item[1:])


def _timeout_now(item: list[Any]) -> TimeoutNow:
    _shape(item, (1, 2), (), 3)
    return TimeoutNow(*item[1:])


def _read_round(item: list[Any]) -> ReadRound:
    _shape(item, (1,), (), 3)
    return ReadRound(item[1], _shares(item[2]))


def _read_round_reply(item: list[Any]) -> ReadRoundReply:
    _shape(item, (1,), (), 3)
    return ReadRoundReply(item[1], _shares(item[2]))


def _shares(value: Any) -> list[tuple[int, int]]:
    """The groups of a read round or of its reply."""
    groups = []
    for group in value if type(value) is list else [None]:
        if type(group) is not list or len(group) != 2:
            raise malformed("a read round's groups are an array of [partition, term]")
        check_uints(group)
        groups.append((group[0], group[1]))
    return groups


_ENCODERS: dict[type[Any], Callable[[Any], tuple[Any, ...]]] = {
    RequestVote: lambda m: (1, m.partition, m.term, m.last_index, m.last_term, m.pre, m.transfer),
    VoteReply: lambda m: (2, m.partition, m.term, m.granted, m.pre),
    Append: lambda m: (
        3,
        m.partition,
        m.term,
        m.prev_index,
        m.prev_term,
        m.commit,
        m.records or [entry.record for entry in m.entries],
    ),
    AppendReply: lambda m: (4, m.partition, m.term, m.accepted, m.index, m.hint_term),
    CommitNotice: lambda m: (5, m.partition, m.term, m.commit),
    TimeoutNow: lambda m: (6, m.partition, m.term),
    ReadRound: lambda m: (7, m.round, m.groups),
    ReadRoundReply: lambda m: (8, m.round, m.groups),
}

_DECODERS: dict[int, Callable[[list[Any]], Message]] = {
    1: _request_vote,
    2: _vote_reply,
    3: _append,
    4: _append_reply,
    5: _commit_notice,
    6: _timeout_now,
    7: _read_round,
    8: _read_round_reply,
}
