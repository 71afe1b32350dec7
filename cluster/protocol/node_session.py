"""What only nodes speak on a connection: consensus messages and beats, and the accepting side.

A client never loads this file, nor the code of consensus behind it. `session` has what both share.

    session = PeerSession(DiallerConfig(...), os.urandom(32))      # as a client's, and besides
    session.messages([message, ...]) · session.beat(beat)

    session = ServerSession(AcceptorConfig(...), os.urandom(32))
        Established(hello) · Requests([(request_id, timeout_ms, request), ...])
        Messages([message, ...]) and BeatArrived(beat) from peers
    session.reply(request_id, Result | AllsourceError)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from allsource.cluster.consensus.messages import Beat, Message
from allsource.cluster.protocol.codec import RequestItem, decode_requests, encode_result
from allsource.cluster.protocol.frames import encode_frame
from allsource.cluster.protocol.handshake import AcceptorConfig, AcceptorHandshake, DiallerConfig, Hello
from allsource.cluster.protocol.handshake_frames import check_not_refused
from allsource.cluster.protocol.kinds import HANDSHAKE_BYTES_MAX, UNPROVED_BYTES_MAX, Kind, Sender
from allsource.cluster.protocol.message_codec import (
    decode_beat,
    decode_messages,
    encode_beat,
    encode_message,
)
from allsource.cluster.protocol.payload import unpack
from allsource.cluster.protocol.quick import quick_requests
from allsource.cluster.protocol.requests import Result
from allsource.cluster.protocol.session import (
    BATCH_OVERHEAD_BYTES,
    ClientSession,
    Established,
    Outbox,
    Session,
    unexpected,
)
from allsource.storage.model.errors import AllsourceError, InvalidRequest, OutcomeUnknown, TooLarge


class Requests(NamedTuple):
    """What a client asks, or a peer on behalf of one."""

    items: list[RequestItem]


class Messages(NamedTuple):
    """What a peer's groups say to ours, in its order."""

    items: list[Message]


class BeatArrived(NamedTuple):
    """A peer's heartbeat."""

    beat: Beat


ServerEvent = Established | Requests | Messages | BeatArrived
"""What the accepting side is told."""


_READERS: dict[Kind, Callable[[list[Any]], ServerEvent]] = {
    Kind.REQUESTS: lambda frame: Requests(decode_requests(frame)),
    Kind.MESSAGES: lambda frame: Messages(decode_messages(frame)),
    Kind.BEAT: lambda frame: BeatArrived(decode_beat(frame)),
}


class PeerSession(ClientSession):
    """A node that dialled its peer: requests as a client sends them, consensus messages, and beats."""

    def __init__(self, config: DiallerConfig, nonce: bytes) -> None:
        super().__init__(config, nonce)
        self._messages = Outbox(Kind.MESSAGES)

    @property
    def queued_bytes(self) -> int:
        return self._requests.queued_bytes + self._messages.queued_bytes

    def messages(self, messages: list[Message]) -> None:
        """Queue consensus messages (data channel)."""
        for message in messages:
            self._messages.add(encode_message(message))

    def beat(self, beat: Beat) -> None:
        """Queue a heartbeat (beat channel)."""
        self._ready.append(encode_frame(encode_beat(beat)))

    def take(self) -> list[bytes]:
        ready, self._ready = self._ready, []
        self._messages.take(ready)  # before the requests: consensus waits for nobody
        self._requests.take(ready)
        return ready


class ServerSession(Session[ServerEvent]):
    """The side that was connected to."""

    def __init__(self, config: AcceptorConfig, nonce: bytes) -> None:
        super().__init__(UNPROVED_BYTES_MAX, config.limits.frame_bytes_max)
        self._handshake = AcceptorHandshake(config, nonce)
        self._results = Outbox(Kind.RESULTS)
        self.hello: Hello | None = None
        self._readers: dict[int, Callable[[list[Any]], ServerEvent]] = {}
        """Of the frames that the other side may send, once it is known who that is."""
        self._takes_requests = False

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

    def open(self, payload: bytes | memoryview) -> ServerEvent | None:
        """Decode one frame. Raises `ProtocolError`."""
        return self._payload(payload)

    def reply(self, request_id: int, result: Result | AllsourceError) -> None:
        """Queue the answer to a request. In place of an answer that cannot be sent, an error says why."""
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

    def _payload(self, payload: bytes | memoryview) -> ServerEvent | None:
        if self.hello is None:
            answer, hello = self._handshake.receive(payload)
            self._ready.append(encode_frame(answer))
            if hello is None:
                if self._handshake.is_proved:
                    self._parser.limit = HANDSHAKE_BYTES_MAX
                return None
            self.hello = hello
            self._readers = {
                int(kind): read
                for kind, read in _READERS.items()
                if kind.belongs(Sender.DIALLER, hello.role, hello.channel)
            }
            self._takes_requests = Kind.REQUESTS in self._readers
            return self._established(hello)
        if self._takes_requests and (asked := quick_requests(payload)) is not None:
            return Requests(asked)
        frame = unpack(payload)
        read = self._readers.get(frame[0])
        if read is not None:
            return read(frame)
        check_not_refused(frame)
        raise unexpected(frame)
