"""Where one message ends and the next begins: length-prefixed frames over a byte stream.

    frame = length:u32 (big-endian, of the payload alone)  payload

TCP delivers bytes, not messages: a read may hold half a frame or a hundred. `FrameParser` turns reads
of any size into whole payloads, and refuses a frame that is too large from its length alone, before a
byte of it is kept. Everything that may be wrong with what a connection says is a `ProtocolError`; it
ends that connection and nothing else.

API: `encode_frame(payload) -> bytes` · `FrameParser(limit).feed(data) -> list[payload]` ·
`ProtocolError(code, message)`.
"""

from __future__ import annotations

import struct

LENGTH = struct.Struct(">I")
FRAME_BYTES_MAX = 16 << 20
"""Default limit of a payload, in bytes; `limits.frame_bytes_max` of the config replaces it."""

_REQUESTS = {
    b"GET ": "HTTP",
    b"HEAD": "HTTP",
    b"POST": "HTTP",
    b"PUT ": "HTTP",
    b"OPTI": "HTTP",
    b"PRI ": "HTTP/2",
    b"\x16\x03\x01\x00": "TLS",
    b"\x16\x03\x01\x02": "TLS",
}
_FOREIGN = {
    head: f"this port speaks allsource's msgpack protocol, and this looks like {kind}; "
    "HTTP has a port of its own (http_port)"
    for head, kind in _REQUESTS.items()
} | {b"HTTP": "the other side speaks HTTP, as a node's http_port does; native clients need its port"}
"""What to say to a first frame that begins so."""


class ProtocolError(Exception):
    """A connection broke the protocol, or was refused; the connection ends.

    `code` is one of the stable names listed in PROTOCOL.md, `message` one sentence for a person.
    `by_peer`: the other side sent it, as REFUSED; it needs no answer.
    """

    def __init__(self, code: str, message: str, *, by_peer: bool = False) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.by_peer = by_peer


def encode_frame(payload: bytes) -> bytes:
    """The payload with its length before it."""
    return LENGTH.pack(len(payload)) + payload


class FrameParser:
    """Cuts a byte stream into payloads.

    `limit` is the largest payload allowed, in bytes; it may be changed between feeds (a connection
    that has not yet proved who it is gets a small one). After a `ProtocolError` the parser is of no
    further use: behind a wrong length nobody can tell where the next frame begins.
    """

    __slots__ = ("_partial", "limit")

    def __init__(self, limit: int = FRAME_BYTES_MAX) -> None:
        self.limit = limit
        self._partial = bytearray()

    @property
    def partial_bytes(self) -> int:
        """Bytes of a payload that is not complete yet."""
        return len(self._partial)

    def feed(self, data: bytes) -> list[bytes | memoryview]:
        """The payloads that `data` completes, in order; raises `ProtocolError` (frame_too_large).

        A payload that came in several reads is a view of the buffer in which it was collected, so
        that a large one is not copied once more.
        """
        if not self._partial:
            found, end = self._cut(data, 0)
            if end < len(data):
                self._partial += memoryview(data)[end:]
            return found
        partial = self._partial
        partial += data
        if len(partial) < 4:
            return []
        length = self._checked(LENGTH.unpack_from(partial)[0], partial)
        if len(partial) < length + 4:
            return []
        # The views below pin this buffer: what is behind them moves to a new one.
        self._partial = bytearray()
        first = memoryview(partial)[4 : length + 4]
        rest = bytes(memoryview(partial)[length + 4 :])
        return [first, *self.feed(rest)] if rest else [first]

    def _cut(self, data: bytes, position: int) -> tuple[list[bytes | memoryview], int]:
        found: list[bytes | memoryview] = []
        size = len(data)
        while position + 4 <= size:
            length = LENGTH.unpack_from(data, position)[0]
            if length > self.limit:
                self._checked(length, data[position : position + 4])
            end = position + 4 + length
            if end > size:
                break
            found.append(data[position + 4 : end])
            position = end
        return found, position

    def _checked(self, length: int, head: bytes | bytearray) -> int:
        if length <= self.limit:
            return length
        too_large = f"a frame of {length} bytes; at most {self.limit} are allowed here"
        raise ProtocolError("frame_too_large", _FOREIGN.get(bytes(head[:4]), too_large))
