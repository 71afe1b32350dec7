"""The frames of a handshake: how each is sealed, opened and read (`handshake` says in which order, and
why).

HELLO and CHALLENGE are plain. The others are sealed: `[kind, mac, body]`, where `body` is a `bin` that
holds the frame's own array, and the mac (HMAC-SHA-256) covers the kind, every payload of the handshake so
far, byte for byte, and the body. So a seal proves that its maker knows the key, and that both sides have
seen the same bytes so far. If a frame was changed on the way, or comes from another connection, or is sent
back to its maker, the next seal is wrong.

Nothing here trusts its input: whatever the bytes, the answer is values of the types declared, or
`ProtocolError`.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple

from allsource.cluster.protocol.acquaintance import START_NONCE_BYTES, LogEnd, Start
from allsource.cluster.protocol.frames import ProtocolError
from allsource.cluster.protocol.kinds import BEAT, CLIENT, DATA, PEER, Channel, Kind, Role
from allsource.cluster.protocol.payload import check_uints, malformed, pack, unpack
from allsource.storage.model.printable import printable

VERSION_MIN = 1
VERSION_MAX = 1
"""Versions of the protocol that this code speaks."""

MAGIC = "allsource"
NONCE_BYTES = 32
NAME_BYTES_MAX = 255
MESSAGE_CHARACTERS_MAX = 600


@dataclass(frozen=True, slots=True)
class WireLimits:
    """What an accepted dialler must keep to; see `Limits` of the config."""

    frame_bytes_max: int = 16 << 20
    event_bytes_max: int = 1 << 20
    append_bytes_max: int = 8 << 20
    append_events_max: int = 10_000
    inflight_requests_max: int = 4_096
    """Requests of one connection that are answered at a time; further ones wait unread."""


class Opening(NamedTuple):
    """HELLO: what the dialler wants. It has proved nothing yet, and does not say who it is."""

    version_min: int
    version_max: int
    cluster_id: str
    """The cluster that the dialler means. A client may leave it empty: any cluster that knows its key."""
    role: Role
    channel: Channel
    nonce: bytes

    def pack(self) -> bytes:
        return pack((Kind.HELLO, MAGIC, *self))


class Challenge(NamedTuple):
    """CHALLENGE: the acceptor agrees on a version. It says nothing else."""

    version: int
    nonce: bytes

    def pack(self) -> bytes:
        return pack((Kind.CHALLENGE, *self))


class PeerPart(NamedTuple):
    """What a peer says of itself, and its answer about its own history."""

    start: Start
    log_ends: tuple[LogEnd, ...]

    def listed(self) -> list[Any]:
        """As it stands in WELCOME and IDENTITY."""
        return [*self.start, [list(end) for end in self.log_ends]]


@dataclass(frozen=True, slots=True)
class WelcomeBody:
    """WELCOME: who the acceptor is, and what a dialler must know. `peer`: for peers alone."""

    cluster_id: str
    node_id: str
    partition_count: int
    limits: WireLimits
    addresses: dict[str, tuple[str, int]]
    peer: PeerPart | None = None
    remembers: Mapping[str, int] = field(default_factory=dict)
    """Node id -> number of the start that the acceptor remembers of it. The peer answers with its nonce."""

    def listed(self) -> tuple[Any, ...]:
        limits = {f.name: getattr(self.limits, f.name) for f in fields(self.limits)}
        told = (Kind.WELCOME, self.cluster_id, self.node_id, self.partition_count, limits, self.addresses)
        if self.peer is None:
            return told
        return (*told, self.peer.listed(), dict(self.remembers))


class IdentityBody(NamedTuple):
    """IDENTITY: who the peer is that dialled."""

    node_id: str
    peer: PeerPart
    answer: bytes
    """The nonce of the start that the acceptor asked for; empty if it is unknown, or none was asked for."""
    asks: int
    """The number of the acceptor's start that the dialler remembers; 0: none."""

    def listed(self) -> tuple[Any, ...]:
        return (Kind.IDENTITY, self.node_id, self.peer.listed(), self.answer, self.asks)


class Transcript:
    """All that both sides have said so far, and the seals over it."""

    def __init__(self) -> None:
        self._said = MAGIC.encode() + b"\0"

    def add(self, payload: bytes | memoryview) -> None:
        """A payload was sent or received."""
        self._said += _counted(bytes(payload))

    def seal(self, key: str, listed: Sequence[Any]) -> bytes:
        """Seal a frame, add it to what was said, and return its payload."""
        body = pack(listed)
        payload = pack((listed[0], self._mac(key, listed[0], body), body))
        self.add(payload)
        return payload

    def open(self, key: str, kind: int, payload: bytes | memoryview) -> list[Any] | None:
        """What a sealed frame holds, or None if it was not made with this key. Does not `add` it."""
        match unpack(payload):
            case [found, bytes(mac), bytes(body), *_] if found == kind:
                if not hmac.compare_digest(mac, self._mac(key, kind, body)):
                    return None
            case _:
                raise malformed(f"a frame of kind {kind} with a seal was expected")
        frame = unpack(body)
        if frame[0] != kind:
            raise malformed("a sealed body begins with its frame's kind")
        return frame

    def _mac(self, key: str, kind: int, body: bytes) -> bytes:
        return hmac.digest(key.encode(), bytes((kind,)) + self._said + _counted(body), "sha256")


def _counted(part: bytes) -> bytes:
    return len(part).to_bytes(4, "big") + part


# -- REFUSED


def encode_refused(error: ProtocolError) -> bytes:
    """The last payload of a side that closes because of `error`."""
    return pack((Kind.REFUSED, error.code, _printable(error.message)))


def check_not_refused(frame: list[Any]) -> None:
    """Raise the other side's refusal, if this is one."""
    if frame[0] != Kind.REFUSED:
        return
    match frame:
        case [_, str(code), str(message), *_]:
            raise ProtocolError(_printable(code), _printable(message), by_peer=True)
    raise malformed("a refusal is [kind, code, message]")


def _printable(text: str) -> str:
    """Text from the other side, made fit for a log line."""
    return printable(text[:MESSAGE_CHARACTERS_MAX])[:MESSAGE_CHARACTERS_MAX]


# -- reading


def read_opening(frame: list[Any]) -> Opening:
    """HELLO."""
    match frame:
        case [
            Kind.HELLO,
            str(magic),
            int(version_min),
            int(version_max),
            str(cluster_id),
            str(role),
            str(channel),
            bytes(nonce),
            *_,
        ] if magic == MAGIC:
            check_uints((version_min, version_max))
        case _:
            raise malformed("a connection begins with HELLO")
    known = _CALLERS.get((role, channel))
    if known is None:
        raise malformed(f"no such role and channel: {role[:20]!r}, {channel[:20]!r}")
    if role == PEER and not cluster_id:
        raise malformed("a peer says its cluster")
    return Opening(version_min, version_max, _name(cluster_id), *known, _nonce(nonce))


_CALLERS: dict[tuple[str, str], tuple[Role, Channel]] = {
    (PEER, DATA): (PEER, DATA),
    (PEER, BEAT): (PEER, BEAT),
    (CLIENT, DATA): (CLIENT, DATA),
}


def read_challenge(frame: list[Any]) -> Challenge:
    """CHALLENGE."""
    match frame:
        case [Kind.CHALLENGE, int(version), bytes(nonce), *_]:
            check_uints((version,))
            return Challenge(version, _nonce(nonce))
    raise malformed("a CHALLENGE was expected")


def read_proof(frame: list[Any]) -> str:
    """PROOF: the name that a client gave itself for the log."""
    match frame:
        case [_, str(name), *_]:
            return _name(name)
    raise malformed("a PROOF holds a name, or nothing in its place")


def read_welcome(frame: list[Any], role: Role) -> WelcomeBody:
    """WELCOME."""
    match frame:
        case [_, str(cluster_id), str(node_id), int(partitions), dict(limits), dict(addresses), *more]:
            check_uints((partitions,))
        case _:
            raise malformed("a WELCOME of this shape is not known")
    body = WelcomeBody(
        _name(cluster_id),
        _named(node_id),
        partitions,
        read_limits(limits),
        {_name(node): _read_address(address) for node, address in addresses.items()},
    )
    if role == CLIENT:
        return body
    match more:
        case [list(peer), dict(remembers), *_]:
            numbers = {_name(node): number for node, number in remembers.items()}
            check_uints(numbers.values())
        case _:
            raise malformed("a peer's WELCOME says which start of which replica it is")
    return WelcomeBody(
        body.cluster_id,
        body.node_id,
        partitions,
        body.limits,
        body.addresses,
        _read_peer(peer),
        numbers,
    )


def read_identity(frame: list[Any]) -> IdentityBody:
    """IDENTITY."""
    match frame:
        case [_, str(node_id), list(peer), bytes(answer), int(asks), *_]:
            check_uints((asks,))
            return IdentityBody(_named(node_id), _read_peer(peer), answer, asks)
    raise malformed("an IDENTITY was expected")


def read_accepted(frame: list[Any]) -> bytes:
    """ACCEPTED: the nonce that was asked for."""
    match frame:
        case [_, bytes(answer), *_]:
            return answer
    raise malformed("an ACCEPTED was expected")


def _read_peer(listed: list[Any]) -> PeerPart:
    match listed:
        case [str(replica_id), int(incarnation), bytes(nonce), list(ends), *_]:
            check_uints((incarnation,))
            if len(nonce) != START_NONCE_BYTES:
                raise malformed(f"the nonce of a start has {START_NONCE_BYTES} bytes")
            return PeerPart(
                Start(_named(replica_id), incarnation, nonce), tuple(_read_log_end(end) for end in ends)
            )
    raise malformed("a peer says its replica id, its start and the ends of its logs")


def _read_log_end(value: Any) -> LogEnd:
    match value:
        case [int(partition), int(term), int(last_index)]:
            check_uints((partition, term, last_index))
            return LogEnd(partition, term, last_index)
    raise malformed("the end of a log is [partition, term, last_index]")


def read_limits(value: dict[Any, Any]) -> WireLimits:
    """Limits by name. Names that this version does not know are ignored: they are of later versions."""
    known = {f.name: value[f.name] for f in fields(WireLimits) if f.name in value}
    check_uints(known.values())
    return WireLimits(**known)


def _read_address(value: Any) -> tuple[str, int]:
    match value:
        case [str(host), int(port)] if 0 < port < 65_536:
            return _name(host), port
    raise malformed("an address is [host, port]")


def _nonce(value: bytes) -> bytes:
    if len(value) != NONCE_BYTES:
        raise malformed(f"a nonce has {NONCE_BYTES} bytes")
    return value


def _named(value: str) -> str:
    if not value:
        raise malformed("a peer says its node and replica id")
    return _name(value)


def _name(value: Any) -> str:
    if type(value) is not str or len(value) > NAME_BYTES_MAX or not (value.isprintable() or not value):
        raise malformed(f"a name has at most {NAME_BYTES_MAX} printable characters")
    return value
