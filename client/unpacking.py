"""From a page as a node sent it to events: what its chunks claim is checked before any of them is unpacked.

A chunk may be compressed, and says how large it will be. A node, or whoever poses as one, may say anything:
so a page is refused whose runs contradict themselves, or whose chunks claim more than chunks may, or more
in all than a page. What a page becomes in memory is bounded by that, whatever came. Bytes that are not
events end the read, and the connection that they came on.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from allsource.client.calls import Call
from allsource.client.errors import UnreadableAnswer
from allsource.client.pages import PartitionEvents, StreamEvents, TagEvents
from allsource.cluster.protocol.frames import ProtocolError
from allsource.cluster.protocol.requests import PartitionPage, Run, StreamPage, TagPage
from allsource.storage.model.answers import StreamInfo
from allsource.storage.model.chunks import CHUNK_EVENTS_MAX, CHUNK_RAW_MAX, ZSTD
from allsource.storage.model.errors import Corrupt
from allsource.storage.model.events import Event

PAGE_RAW_MAX = 64 << 20
"""Bytes that the chunks of one page may become. As large as a frame that a client takes; a node counts what
it shows in the same way."""


def stream_events(page: StreamPage, call: Call) -> StreamEvents:
    """A page of a stream, unpacked."""
    return StreamEvents(info_of(page), events_of(page, call), page.next_from)


def partition_events(page: PartitionPage, call: Call) -> PartitionEvents:
    """A page of a partition, unpacked."""
    return PartitionEvents(page.partition, events_of(page, call), page.last_position, page.next_from)


def tag_events(page: TagPage, call: Call, types: Collection[str]) -> TagEvents:
    """A page of a tag, unpacked; only events of these types, if there are any."""
    events = events_of(page, call)
    if types:
        events = [event for event in events if event.type in types]
    return TagEvents(page.tag, page.partition, events, page.last_number, page.next_from)


def info_of(page: StreamPage) -> StreamInfo:
    """What a page says about its stream."""
    return StreamInfo(page.stream, page.partition, page.current_version, page.created_us, page.updated_us)


def events_of(page: StreamPage | PartitionPage | TagPage, call: Call) -> list[Event]:
    """The events of a page in reading order; raises `UnreadableAnswer`."""
    try:
        _check_runs(page.runs)
        return page.events()
    except Exception as error:  # the bytes are a node's word: anything may be wrong with them
        raise _unreadable(error, call) from error


def checked(page: PartitionPage, call: Call) -> PartitionPage:
    """The page, if it may be unpacked; raises `UnreadableAnswer`."""
    try:
        _check_runs(page.runs)
    except Corrupt as error:
        raise _unreadable(error, call) from error
    return page


def _check_runs(runs: Sequence[Run]) -> None:
    raw = 0
    for _, _, _, _, _, skip, take, (count, raw_size, codec, _) in runs:
        if count > CHUNK_EVENTS_MAX or (raw_size > CHUNK_RAW_MAX and count > 1):
            raise Corrupt(f"a chunk of {count} events that claims {raw_size} bytes")
        if codec > ZSTD:
            raise Corrupt(f"a chunk packed in a way ({codec}) that is not known here")
        if take < 1 or skip + take > count:
            raise Corrupt(f"{take} events behind {skip} of a chunk of {count} events")
        raw += raw_size
    if raw > PAGE_RAW_MAX:
        raise Corrupt(f"a page whose chunks claim {raw} bytes; at most {PAGE_RAW_MAX} are unpacked")


def _unreadable(error: Exception, call: Call) -> UnreadableAnswer:
    message = f"a node answered a read with unreadable events: {error!r}"
    if call.connection is not None:
        call.connection.drop(ProtocolError("malformed", message))
    return UnreadableAnswer(f"{message}; its connection is closed")
