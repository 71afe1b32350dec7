"""One connection without its socket: bytes in, events out, and what to send.

What both sides share is here, and the side of a client. `node_session` has what only nodes speak: their own
dialling side, and the side that accepts. Everything that can be wrong with a connection is decided, and
tested, in these two files; the asyncio shells around them are the same few calls in the same order:

    session = ClientSession(DiallerConfig.client(secret), os.urandom(32))
    transport.writelines(session.take())               # HELLO is queued from the start
    for event in session.receive(data):                # raises ProtocolError: then `refuse`, take, close
        Established(welcome)                           # from now on requests may be sent
        Results([(request_id, Result | AllsourceError), ...])
    session.request(request_id, timeout_ms, request)   # queued; raises InvalidRequest or TooLarge
    transport.writelines(session.take())               # once per loop turn: all that is queued

What a session queues is counted in `queued_bytes`; its shell keeps that bounded.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Generic, NamedTuple, TypeVar

from allsource.cluster.protocol.codec import ResultItem, decode_results, encode_request
from allsource.cluster.protocol.frames import LENGTH, FrameParser, ProtocolError, encode_frame
from allsource.cluster.protocol.handshake import DiallerConfig, DiallerHandshake, Hello, Welcome
from allsource.cluster.protocol.handshake_frames import check_not_refused, encode_refused
from allsource.cluster.protocol.kinds import HANDSHAKE_BYTES_MAX, Kind
from allsource.cluster.protocol.payload import (
    BATCH_BYTES,
    BATCH_ITEMS_MAX,
    batch_prefix,
    malformed,
    unpack,
)
from allsource.cluster.protocol.quick import quick_results
from allsource.cluster.protocol.requests import Request
from allsource.storage.model.errors import TooLarge

BATCH_OVERHEAD_BYTES = 16
"""More than the head of a batch takes."""


class Established(NamedTuple):
    """The handshake is over: who the other side is."""

    by: Hello | Welcome


class Results(NamedTuple):
    """Answers to requests that were sent on this connection."""

    items: list[ResultItem]


DiallerEvent = Established | Results
"""What the side that dialled is told."""

EventT = TypeVar("EventT")


class Outbox:
    """Packed items of one kind, waiting to be cut into frames."""

    __slots__ = ("_items", "kind", "queued_bytes")

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self.queued_bytes = 0
        self._items: list[bytes] = []

    def add(self, item: bytes) -> None:
        self._items.append(item)
        self.queued_bytes += len(item)

    def take(self, into: list[bytes]) -> None:
        """Move everything into frames, appended to `into`; small frames in one piece."""
        items = self._items
        if not items:
            return
        if self.queued_bytes <= BATCH_BYTES and len(items) <= BATCH_ITEMS_MAX:
            _frame(self.kind, items, self.queued_bytes, into)
        else:
            self._cut(items, into)
        self._items = []
        self.queued_bytes = 0

    def _cut(self, items: list[bytes], into: list[bytes]) -> None:
        start = size = 0
        for end, item in enumerate(items):
            if end > start and (size + len(item) > BATCH_BYTES or end - start == BATCH_ITEMS_MAX):
                _frame(self.kind, items[start:end], size, into)
                start, size = end, 0
            size += len(item)
        _frame(self.kind, items[start:], size, into)


def _frame(kind: int, items: list[bytes], size: int, into: list[bytes]) -> None:
    prefix = batch_prefix(kind, len(items))
    head = LENGTH.pack(len(prefix) + size) + prefix
    if size > BATCH_BYTES:  # one large item: not copied once more to stand behind its head
        into += (head, *items)
    else:
        into.append(b"".join((head, *items)))


class Session(Generic[EventT]):
    """What all sessions share: parsing, the last word, and the queue of ready frames."""

    def __init__(self, limit: int, frame_bytes_max: int) -> None:
        self._parser = FrameParser(limit)
        self._frame_bytes_max = frame_bytes_max
        self._ready: list[bytes] = []

    @property
    def queued_bytes(self) -> int:
        """Bytes of the items that wait to be cut into frames."""
        raise AssertionError("each side counts its own queues")

    def receive(self, data: bytes) -> Iterator[EventT]:
        """The events that the bytes complete, in order. Exhaust the iterator before the next `receive`.

        Events before a `ProtocolError` are still given. After one: `refuse` it, send `take()`, close.
        """
        for payload in self._parser.feed(data):
            event = self._payload(payload)
            if event is not None:
                yield event

    def _payload(self, payload: bytes | memoryview) -> EventT | None:
        raise AssertionError("each side reads its own frames")

    def refuse(self, error: ProtocolError) -> None:
        """Queue REFUSED with this error, unless it came from the other side."""
        if not error.by_peer:
            self._ready.append(encode_frame(encode_refused(error)))

    def _established(self, by: Hello | Welcome) -> Established:
        self._parser.limit = self._frame_bytes_max
        return Established(by)

    def take(self) -> list[bytes]:
        """Everything queued, as pieces to be written in order."""
        ready, self._ready = self._ready, []
        return ready


class ClientSession(Session[DiallerEvent]):
    """The side that dialled, as far as clients and nodes do the same.

    `frame_bytes_max` bounds what we take; what we may send, the welcome says.
    """

    def __init__(self, config: DiallerConfig, nonce: bytes, *, frame_bytes_max: int = 64 << 20) -> None:
        super().__init__(HANDSHAKE_BYTES_MAX, frame_bytes_max)
        self._handshake = DiallerHandshake(config, nonce)
        self._ready.append(encode_frame(self._handshake.start()))
        self._requests = Outbox(Kind.REQUESTS)
        self.welcome: Welcome | None = None

    @property
    def queued_bytes(self) -> int:
        return self._requests.queued_bytes

    def request(self, request_id: int, timeout_ms: int, request: Request) -> None:
        """Queue a request. Raises `TooLarge` or `InvalidRequest` for what cannot be sent, now, here."""
        assert self.welcome is not None, "requests follow the handshake"
        item = encode_request(request_id, timeout_ms, request)
        limit = self.welcome.limits.frame_bytes_max - BATCH_OVERHEAD_BYTES
        if len(item) > limit:
            raise TooLarge(
                f"a request of {len(item)} bytes; at most {limit} fit into a frame",
                limit=limit,
                actual=len(item),
            )
        self._requests.add(item)

    def take(self) -> list[bytes]:
        ready = super().take()
        self._requests.take(ready)
        return ready

    def _payload(self, payload: bytes | memoryview) -> DiallerEvent | None:
        if self.welcome is None:
            answer, welcome = self._handshake.receive(payload)
            if answer is not None:
                self._ready.append(encode_frame(answer))
            if welcome is None:
                return None
            self.welcome = welcome
            return self._established(welcome)
        if (answers := quick_results(payload)) is not None:
            return Results(answers)
        frame = unpack(payload, answers=True)
        if frame[0] == Kind.RESULTS:
            return Results(decode_results(frame))
        check_not_refused(frame)
        raise unexpected(frame)


def unexpected(frame: list[Any]) -> ProtocolError:
    """The error for a frame of a kind that does not belong to this connection."""
    return malformed(f"a frame of kind {frame[0]} is not expected here")
