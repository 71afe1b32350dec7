"""Who says what on which connection: the numbers of the frames, a row for each."""

from __future__ import annotations

from enum import Enum, IntEnum
from typing import Final, Literal

Role = Literal["peer", "client"]
PEER: Final = "peer"
CLIENT: Final = "client"
"""Who dials: another node, or a client."""

Channel = Literal["data", "beat"]
DATA: Final = "data"
BEAT: Final = "beat"
"""A peer has two connections to each node, one for each channel; a client has DATA."""

UNPROVED_BYTES_MAX = 4_096
"""Largest frame that an acceptor takes before the other side has proved that it belongs here."""
HANDSHAKE_BYTES_MAX = 65_536
"""Largest frame of a handshake after that, and that a dialler takes before it is through."""


class Sender(Enum):
    """Which end of a connection sends a frame."""

    DIALLER = "dialler"
    ACCEPTOR = "acceptor"
    EITHER = "either"


class Kind(IntEnum):
    """The first element of every payload: `number, sender, channel, role, bytes_max`.

    `channel` is None for the frames of a handshake and of a refusal: they come on every connection. `role`:
    only with a dialler of this role; None: with any. `bytes_max` bounds the payload; None: the limit
    `frame_bytes_max` of WELCOME does.
    """

    sender: Sender
    channel: Channel | None
    role: Role | None
    bytes_max: int | None

    HELLO = 1, Sender.DIALLER, None, None, UNPROVED_BYTES_MAX
    CHALLENGE = 2, Sender.ACCEPTOR, None, None, HANDSHAKE_BYTES_MAX
    PROOF = 3, Sender.DIALLER, None, None, UNPROVED_BYTES_MAX
    WELCOME = 4, Sender.ACCEPTOR, None, None, HANDSHAKE_BYTES_MAX
    REFUSED = 5, Sender.EITHER, None, None, UNPROVED_BYTES_MAX
    IDENTITY = 6, Sender.DIALLER, None, PEER, HANDSHAKE_BYTES_MAX
    ACCEPTED = 7, Sender.ACCEPTOR, None, PEER, HANDSHAKE_BYTES_MAX
    MESSAGES = 16, Sender.DIALLER, DATA, PEER, None
    BEAT = 17, Sender.DIALLER, BEAT, PEER, None
    REQUESTS = 32, Sender.DIALLER, DATA, None, None
    RESULTS = 33, Sender.ACCEPTOR, DATA, None, None

    def __new__(
        cls, number: int, sender: Sender, channel: Channel | None, role: Role | None, bytes_max: int | None
    ) -> Kind:
        kind = int.__new__(cls, number)
        kind._value_ = number
        kind.sender, kind.channel, kind.role, kind.bytes_max = sender, channel, role, bytes_max
        return kind

    def belongs(self, sender: Sender, role: Role, channel: Channel) -> bool:
        """Whether `sender` may send it on such a connection, once the handshake is over."""
        return self.sender is sender and self.channel == channel and self.role in (None, role)
