"""Who are you, and can you prove it? The first four frames of every connection (CONSENSUS rule 10).

::

    dialler                                  acceptor
    HELLO      who I am, a nonce        ->
                                        <-   CHALLENGE  who I am, the version, a nonce
    PROOF      HMAC "dialler"           ->
                                        <-   WELCOME    HMAC "acceptor", limits, addresses
    (either side instead: REFUSED code, message; then it closes)

Both prove that they know the cluster's secret without saying it: HMAC-SHA-256 over a label of their
side and the very bytes of HELLO and CHALLENGE, in which both nonces, both identities, role, channel
and the version ranges stand. The label differs by side, so that a proof cannot be sent back to its maker
(reflection); the identities are inside, so that it is of no use towards or from anybody else; the version
range is inside, so that nobody can talk both sides down to an older version. It authenticates the
beginning of a connection; it does not encrypt what follows (PROTOCOL.md, "What this does not do").

Each side is a pure machine: payloads in, payloads out, `ProtocolError` to refuse. Nonces are passed in.

API: `DiallerConfig`, `DiallerConfig.client`, `AcceptorConfig`, `DiallerHandshake`, `AcceptorHandshake`,
`Hello` (what the acceptor learns), `Welcome` (what the dialler learns), `WireLimits`.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from allsource.cluster.codec import Kind, check_uints, malformed, pack, unpack
from allsource.cluster.frames import ProtocolError
from allsource.storage.interface import Identity

VERSION_MIN = 1
VERSION_MAX = 1
"""Versions of the protocol that this code speaks."""

MAGIC = "allsource"
NONCE_BYTES = 32
HELLO_BYTES_MAX = 4_096
"""Largest frame that an acceptor takes before the other side has proved who it is."""
WELCOME_BYTES_MAX = 65_536
"""Largest frame that a dialler takes before it has been welcomed."""
NAME_BYTES_MAX = 255
MESSAGE_CHARACTERS_MAX = 500

PEER, CLIENT = "peer", "client"
"""Roles."""
DATA, BEAT = "data", "beat"
"""Channels of a peer; a client has DATA."""


@dataclass(frozen=True, slots=True)
class WireLimits:
    """What an accepted dialler must keep to; see `Limits` of the config."""

    frame_bytes_max: int = 16 << 20
    event_bytes_max: int = 1 << 20
    append_bytes_max: int = 8 << 20
    append_events_max: int = 10_000
    inflight_requests_max: int = 4_096
    """Requests of one connection that are answered at a time; further ones wait unread."""


@dataclass(frozen=True, slots=True)
class Hello:
    """What a dialler says of itself; proved once the handshake has ended."""

    version_min: int
    version_max: int
    cluster_id: str
    role: str
    channel: str
    node_id: str
    """Of a client: a name for the log, or nothing."""
    replica_id: str
    incarnation: int
    nonce: bytes


@dataclass(frozen=True, slots=True)
class Welcome:
    """What an accepted dialler knows of the node that it reached."""

    version: int
    cluster_id: str
    node_id: str
    replica_id: str
    incarnation: int
    partition_count: int
    limits: WireLimits
    addresses: dict[str, tuple[str, int]]
    """Node id -> host and port, of every member."""


@dataclass(frozen=True, slots=True)
class _Challenge:
    version: int
    cluster_id: str
    node_id: str
    replica_id: str
    incarnation: int
    nonce: bytes


def _nobody(_: str) -> str | None:
    return None


def _anybody(_: Hello) -> ProtocolError | None:
    return None


@dataclass(frozen=True, slots=True)
class DiallerConfig:
    """How to introduce ourselves, and whom we expect.

    `remembered` gives the replica id that a node had when it was last met (None: never met).
    """

    secret: str = field(repr=False)
    identity: Identity
    role: str = PEER
    channel: str = DATA
    expected_node: str = ""
    """Node id that the dialled address should have; empty: any."""
    remembered: Callable[[str], str | None] = _nobody

    @classmethod
    def client(cls, secret: str, *, cluster_id: str = "", name: str = "") -> DiallerConfig:
        """For a client. Without `cluster_id`, any cluster that knows the secret will do."""
        return cls(secret, Identity(cluster_id, name, "", 0), CLIENT)


@dataclass(frozen=True, slots=True)
class AcceptorConfig:
    """Who we are, whom we let in, and what we tell them.

    `remembered` as for the dialler; `admit` may refuse somebody who has proved the secret.
    """

    secret: str = field(repr=False)
    identity: Identity
    addresses: Mapping[str, tuple[str, int]]
    """Every member, this node included: others may not call themselves peers."""
    partition_count: int
    limits: WireLimits = field(default_factory=WireLimits)
    remembered: Callable[[str], str | None] = _nobody
    admit: Callable[[Hello], ProtocolError | None] = _anybody


class DiallerHandshake:
    """The side that opened the connection. `start()` gives HELLO; feed payloads until a `Welcome`."""

    def __init__(self, config: DiallerConfig, nonce: bytes) -> None:
        assert len(nonce) == NONCE_BYTES
        self._config = config
        me = config.identity
        self._hello = pack(
            (
                Kind.HELLO,
                MAGIC,
                VERSION_MIN,
                VERSION_MAX,
                me.cluster_id,
                config.role,
                config.channel,
                me.node_id,
                me.replica_id,
                me.incarnation,
                nonce,
            )
        )
        self._challenge_bytes = b""
        self._challenge: _Challenge | None = None

    def start(self) -> bytes:
        """The first payload."""
        return self._hello

    def receive(self, payload: bytes | memoryview) -> tuple[bytes | None, Welcome | None]:
        """`(payload to send, welcome)`: PROOF for a CHALLENGE, a `Welcome` at the end."""
        frame = unpack(payload)
        check_not_refused(frame)
        if self._challenge is None:
            self._challenge = _read_challenge(frame)
            self._challenge_bytes = bytes(payload)
            self._check(self._challenge)
            mac = _mac(self._config.secret, b"dialler", self._hello, self._challenge_bytes)
            return pack((Kind.PROOF, mac)), None
        return None, self._read_welcome(frame, self._challenge)

    def _check(self, acceptor: _Challenge) -> None:
        """Refuse the wrong server before telling it anything that it could use."""
        me, expected = self._config.identity, self._config.expected_node
        if not VERSION_MIN <= acceptor.version <= VERSION_MAX:
            raise _wrong_version(acceptor.version, acceptor.version)
        if me.cluster_id and acceptor.cluster_id != me.cluster_id:
            raise _wrong_cluster(acceptor.cluster_id, me.cluster_id)
        if self._config.role == CLIENT:
            return
        _check_other(me, acceptor.node_id, acceptor.replica_id)
        if expected and acceptor.node_id != expected:
            raise ProtocolError(
                "wrong_node",
                f"the address of node {expected} is answered by node {acceptor.node_id}; "
                "check the addresses of the configuration",
            )
        _check_replica(acceptor.node_id, acceptor.replica_id, self._config.remembered(acceptor.node_id))

    def _read_welcome(self, frame: list[Any], acceptor: _Challenge) -> Welcome:
        match frame:
            case [Kind.WELCOME, bytes(mac), int(partitions), dict(limits), dict(addresses), *_]:
                check_uints((partitions,))
            case _:
                raise malformed("a WELCOME was expected")
        expected = _mac(self._config.secret, b"acceptor", self._hello, self._challenge_bytes)
        if not hmac.compare_digest(mac, expected):
            raise _wrong_secret(f"node {acceptor.node_id}")
        return Welcome(
            acceptor.version,
            acceptor.cluster_id,
            acceptor.node_id,
            acceptor.replica_id,
            acceptor.incarnation,
            partitions,
            _read_limits(limits),
            {_name(node): _read_address(address) for node, address in addresses.items()},
        )


class AcceptorHandshake:
    """The side that was connected to. Feed payloads until a `Hello` is given: it is then proved."""

    def __init__(self, config: AcceptorConfig, nonce: bytes) -> None:
        assert len(nonce) == NONCE_BYTES
        self._config = config
        self._nonce = nonce
        self._hello: Hello | None = None
        self._hello_bytes = b""
        self._challenge_bytes = b""

    def receive(self, payload: bytes | memoryview) -> tuple[bytes, Hello | None]:
        """`(payload to send, hello)`: CHALLENGE for a HELLO, then WELCOME and the proved `Hello`."""
        frame = unpack(payload)
        check_not_refused(frame)
        if self._hello is None:
            return self._challenge(frame, bytes(payload)), None
        return self._welcome(frame, self._hello), self._hello

    def _challenge(self, frame: list[Any], payload: bytes) -> bytes:
        hello = _read_hello(frame)
        me = self._config.identity
        version = min(VERSION_MAX, hello.version_max)
        if version < max(VERSION_MIN, hello.version_min):
            raise _wrong_version(hello.version_min, hello.version_max)
        if hello.cluster_id != me.cluster_id and (hello.role == PEER or hello.cluster_id):
            raise _wrong_cluster(me.cluster_id, hello.cluster_id)
        self._hello, self._hello_bytes = hello, payload
        self._challenge_bytes = pack(
            (Kind.CHALLENGE, version, me.cluster_id, me.node_id, me.replica_id, me.incarnation, self._nonce)
        )
        return self._challenge_bytes

    def _welcome(self, frame: list[Any], hello: Hello) -> bytes:
        match frame:
            case [Kind.PROOF, bytes(mac), *_]:
                pass
            case _:
                raise malformed("a PROOF was expected")
        secret = self._config.secret
        if not hmac.compare_digest(mac, _mac(secret, b"dialler", self._hello_bytes, self._challenge_bytes)):
            raise _wrong_secret(f"{hello.role} {hello.node_id}".rstrip())
        self._admit(hello)
        limits = self._config.limits
        return pack(
            (
                Kind.WELCOME,
                _mac(secret, b"acceptor", self._hello_bytes, self._challenge_bytes),
                self._config.partition_count,
                {f.name: getattr(limits, f.name) for f in fields(limits)},
                dict(self._config.addresses),
            )
        )

    def _admit(self, hello: Hello) -> None:
        """The secret is proved; is it somebody whom we let in?"""
        if hello.role == PEER:
            _check_other(self._config.identity, hello.node_id, hello.replica_id)
            if hello.node_id not in self._config.addresses:
                raise unknown_node(hello.node_id, self._config.addresses)
            _check_replica(hello.node_id, hello.replica_id, self._config.remembered(hello.node_id))
        refusal = self._config.admit(hello)
        if refusal is not None:
            raise refusal


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
    """Text from the other side, fit for a log line."""
    return "".join(c if c.isprintable() else "?" for c in text[:MESSAGE_CHARACTERS_MAX])


# -- reading


def _read_hello(frame: list[Any]) -> Hello:
    match frame:
        case [
            Kind.HELLO,
            str(magic),
            int(version_min),
            int(version_max),
            str(cluster_id),
            str(role),
            str(channel),
            str(node_id),
            str(replica_id),
            int(incarnation),
            bytes(nonce),
            *_,
        ] if magic == MAGIC:
            check_uints((version_min, version_max, incarnation))
        case _:
            raise malformed("a connection begins with HELLO")
    if role not in (PEER, CLIENT) or channel not in (DATA, BEAT) or (role == CLIENT and channel == BEAT):
        raise malformed(f"no such role and channel: {role!r}, {channel!r}")
    if len(nonce) != NONCE_BYTES:
        raise malformed(f"a nonce has {NONCE_BYTES} bytes")
    names = (_name(cluster_id), _name(node_id), _name(replica_id))
    if role == PEER and not all(names):
        raise malformed("a peer says its cluster, node and replica id")
    return Hello(
        version_min, version_max, cluster_id, role, channel, node_id, replica_id, incarnation, nonce
    )


def _read_challenge(frame: list[Any]) -> _Challenge:
    match frame:
        case [
            Kind.CHALLENGE,
            int(version),
            str(cluster_id),
            str(node_id),
            str(replica_id),
            int(incarnation),
            bytes(nonce),
            *_,
        ]:
            check_uints((version, incarnation))
            if len(nonce) != NONCE_BYTES or not (_name(node_id) and _name(replica_id)):
                raise malformed("a CHALLENGE has a nonce of 32 bytes and says node and replica id")
            return _Challenge(version, _name(cluster_id), node_id, replica_id, incarnation, nonce)
    raise malformed("a CHALLENGE was expected")


def _read_limits(value: dict[Any, Any]) -> WireLimits:
    """Limits that this version does not know are for later versions."""
    known = {f.name: value[f.name] for f in fields(WireLimits) if f.name in value}
    check_uints(known.values())
    return WireLimits(**known)


def _read_address(value: Any) -> tuple[str, int]:
    match value:
        case [str(host), int(port)] if 0 < port < 65_536:
            return _name(host), port
    raise malformed(f"an address is [host, port], not {value!r}")


def _name(value: Any) -> str:
    if type(value) is not str or len(value) > NAME_BYTES_MAX or not (value.isprintable() or not value):
        raise malformed(f"a name has at most {NAME_BYTES_MAX} printable characters")
    return value


def _mac(secret: str, side: bytes, hello: bytes, challenge: bytes) -> bytes:
    transcript = b"%s %s\0" % (MAGIC.encode(), side)
    for part in (hello, challenge):
        transcript += len(part).to_bytes(4, "big") + part
    return hmac.digest(secret.encode(), transcript, "sha256")


# -- refusals


def _check_other(me: Identity, node_id: str, replica_id: str) -> None:
    if replica_id == me.replica_id:
        raise ProtocolError(
            "self", f"node {me.node_id} is connected to itself; check the addresses of the configuration"
        )
    if node_id == me.node_id:
        raise ProtocolError(
            "identity_changed",
            f"two processes call themselves node {node_id}, from different data directories; stop one",
        )


def _check_replica(node_id: str, replica_id: str, remembered: str | None) -> None:
    if remembered is not None and remembered != replica_id:
        raise ProtocolError(
            "identity_changed",
            f"node {node_id} was replica {remembered} and now says it is {replica_id}: its data directory "
            "was wiped or swapped, or it was restarted with its storage in memory. Bring the old directory "
            "back; a node that has forgotten what it promised must not vote in its place",
        )


def unknown_node(node_id: str, members: Collection[str]) -> ProtocolError:
    """The refusal of a peer that is not a member."""
    return ProtocolError(
        "unknown_node",
        f"{node_id} is not a member of this cluster ({', '.join(sorted(members))}); "
        "give all nodes the same configuration",
    )


def _wrong_secret(who: str) -> ProtocolError:
    return ProtocolError(
        "wrong_secret", f"{who} does not know this cluster's secret; give both sides the same one"
    )


def _wrong_cluster(acceptor: str, dialler: str) -> ProtocolError:
    return ProtocolError(
        "wrong_cluster",
        f"the node is of cluster {acceptor} and the caller of cluster {dialler}; check the address",
    )


def _wrong_version(low: int, high: int) -> ProtocolError:
    return ProtocolError(
        "version",
        f"protocol versions {low} to {high} on one side, {VERSION_MIN} to {VERSION_MAX} on the other; "
        "upgrade the older side",
    )
