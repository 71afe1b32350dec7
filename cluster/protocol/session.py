"""One connection without its socket: bytes in, events out, and what to send.

The asyncio shells (`server.py`, `peers.py`, the client library's own) are the same few calls in the same
order; everything that can be wrong with a connection is decided, and tested, here.

    session = ClientSession(DiallerConfig.client(secret), os.urandom(32))
    transport.writelines(session.take())               # HELLO is queued from the start
    for event in session.receive(data):                # raises ProtocolError: then `refuse`, take, close
        Established(welcome)                           # from now on requests may be sent
        Results([(request_id, Result | AllsourceError), ...])
    session.request(request_id, timeout_ms, request)   # queued; raises InvalidRequest or TooLarge
    transport.writelines(session.take())               # once per loop turn: all that is queued

    session = ServerSession(AcceptorConfig(...), os.urandom(32))
        Established(hello) · Requests([(request_id, timeout_ms, request), ...])
        Messages([message, ...]) and BeatArrived(beat) from peers
    session.reply(request_id, Result | AllsourceError)

What a session queues is counted in `queued_bytes`; its shell keeps that bounded.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from allsource.cluster.consensus.messages import Beat, Message
from allsource.cluster.protocol.codec import (
    BATCH_BYTES,
    BATCH_ITEMS_MAX,
    Kind,
    RequestItem,
    ResultItem,
    batch_prefix,
    decode_requests,
    decode_results,
    encode_request,
    encode_result,
    malformed,
    unpack,
)
from allsource.cluster.protocol.frames import LENGTH, FrameParser, ProtocolError, encode_frame
from allsource.cluster.protocol.handshake import (
    BEAT,
    HELLO_BYTES_MAX,
    PEER,
    WELCOME_BYTES_MAX,
    AcceptorConfig,
    AcceptorHandshake,
    DiallerConfig,
    DiallerHandshake,
    Hello,
    Welcome,
    check_not_refused,
    encode_refused,
)
from allsource.cluster.protocol.message_codec import (
    decode_beat,
    decode_messages,
    encode_beat,
    encode_message,
)
from allsource.cluster.protocol.requests import Request, Result
from allsource.storage.model.errors import AllsourceError, InvalidRequest, OutcomeUnknown, TooLarge

BATCH_OVERHEAD_BYTES = 16
"""More than the head of a batch takes."""


class Established(NamedTuple):
    """The handshake is over: who the other side is."""

    by: Hello | Welcome


class Requests(NamedTuple):
    items: list[RequestItem]


class Results(NamedTuple):
    items: list[ResultItem]


class Messages(NamedTuple):
    items: list[Message]


class BeatArrived(NamedTuple):
    beat: Beat


Event = Established | Requests | Results | Messages | BeatArrived


class Outbox:
    """Packed items of one kind, waiting to be cut into frames."""

    __slots__ = ("_items", "kind", "queued_bytes")

    def __init__(self, kind: int) -> None:
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


class _Session:
    """What both sides share: parsing, the last word, and the queue of ready frames."""

    def __init__(self, limit: int, frame_bytes_max: int) -> None:
        self._parser = FrameParser(limit)
        self._frame_bytes_max = frame_bytes_max
        self._ready: list[bytes] = []

    def receive(self, data: bytes) -> Iterator[Event]:
        """What the bytes amount to, one event after the other: exhaust it before the next `receive`.

        Whatever came before a `ProtocolError` is still given. After one: `refuse` it, send `take()`, close.
        """
        for payload in self._parser.feed(data):
            event = self._payload(payload)
            if event is not None:
                yield event

    def _payload(self, payload: bytes | memoryview) -> Event | None:
        raise AssertionError("each side reads its own frames")

    def refuse(self, error: ProtocolError) -> None:
        """Queue the last word, unless the other side has had it."""
        if not error.by_peer:
            self._ready.append(encode_frame(encode_refused(error)))

    def _established(self, by: Hello | Welcome) -> Established:
        self._parser.limit = self._frame_bytes_max
        return Established(by)

    def take(self) -> list[bytes]:
        """Everything queued, as pieces to be written in order."""
        ready, self._ready = self._ready, []
        return ready


class ClientSession(_Session):
    """The side that dialled: a client, or a node towards its peer.

    `frame_bytes_max` bounds what we take; what we may send, the welcome says.
    """

    def __init__(self, config: DiallerConfig, nonce: bytes, *, frame_bytes_max: int = 64 << 20) -> None:
        super().__init__(WELCOME_BYTES_MAX, frame_bytes_max)
        self._handshake = DiallerHandshake(config, nonce)
        self._ready.append(encode_frame(self._handshake.start()))
        self._requests = Outbox(Kind.REQUESTS)
        self._messages = Outbox(Kind.MESSAGES)
        self.welcome: Welcome | None = None

    @property
    def queued_bytes(self) -> int:
        return self._requests.queued_bytes + self._messages.queued_bytes

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

    def messages(self, messages: list[Message]) -> None:
        """Queue consensus messages for a peer (data channel)."""
        for message in messages:
            self._messages.add(encode_message(message))

    def beat(self, beat: Beat) -> None:
        """Queue a heartbeat for a peer (beat channel)."""
        self._ready.append(encode_frame(encode_beat(beat)))

    def take(self) -> list[bytes]:
        ready = super().take()
        self._messages.take(ready)
        self._requests.take(ready)
        return ready

    def _payload(self, payload: bytes | memoryview) -> Event | None:
        if self.welcome is None:
            answer, welcome = self._handshake.receive(payload)
            if answer is not None:
                self._ready.append(encode_frame(answer))
            if welcome is None:
                return None
            self.welcome = welcome
            return self._established(welcome)
        frame = unpack(payload, answers=True)
        if frame[0] == Kind.RESULTS:
            return Results(decode_results(frame))
        check_not_refused(frame)
        raise _unexpected(frame)


class ServerSession(_Session):
    """The side that was connected to."""

    def __init__(self, config: AcceptorConfig, nonce: bytes) -> None:
        super().__init__(HELLO_BYTES_MAX, config.limits.frame_bytes_max)
        self._handshake = AcceptorHandshake(config, nonce)
        self._results = Outbox(Kind.RESULTS)
        self.hello: Hello | None = None

    @property
    def queued_bytes(self) -> int:
        return self._results.queued_bytes

    @property
    def partial_bytes(self) -> int:
        """Bytes of a frame that is not complete yet."""
        return self._parser.partial_bytes

    def cut(self, data: bytes) -> list[bytes | memoryview]:
        """After the handshake, in place of `receive`: the frames that `data` completes, not yet decoded."""
        return self._parser.feed(data)

    def open(self, payload: bytes | memoryview) -> Event | None:
        """Decode one frame. Raises `ProtocolError`."""
        return self._payload(payload)

    def reply(self, request_id: int, result: Result | AllsourceError) -> None:
        """Queue the answer to a request; in place of one that cannot be sent, an error that says so."""
        try:
            item = encode_result(request_id, result)
        except InvalidRequest as error:
            item = encode_result(request_id, OutcomeUnknown(f"the answer cannot be sent: {error.message}"))
        limit = self._frame_bytes_max - BATCH_OVERHEAD_BYTES
        if len(item) > limit:
            too_large = (
                f"an answer of {len(item)} bytes, and {limit} fit into a frame; ask for fewer events"
            )
            item = encode_result(request_id, TooLarge(too_large, limit=limit, actual=len(item)))
        self._results.add(item)

    def take(self) -> list[bytes]:
        ready = super().take()
        self._results.take(ready)
        return ready

    def _payload(self, payload: bytes | memoryview) -> Event | None:
        if self.hello is None:
            answer, hello = self._handshake.receive(payload)
            self._ready.append(encode_frame(answer))
            if hello is None:
                if self._handshake.is_proved:
                    self._parser.limit = WELCOME_BYTES_MAX
                return None
            self.hello = hello
            return self._established(hello)
        frame = unpack(payload)
        kind = frame[0]
        if kind == Kind.REQUESTS and self.hello.channel != BEAT:
            return Requests(decode_requests(frame))
        if kind == Kind.MESSAGES and self.hello.role == PEER and self.hello.channel != BEAT:
            return Messages(decode_messages(frame))
        if kind == Kind.BEAT and self.hello.channel == BEAT:
            return BeatArrived(decode_beat(frame))
        check_not_refused(frame)
        raise _unexpected(frame)


def _unexpected(frame: list[Any]) -> ProtocolError:
    return malformed(f"a frame of kind {frame[0]} is not expected here")
