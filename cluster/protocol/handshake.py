"""Who are you, and can you prove it? The first frames of every connection (rules 10 and 33).

::

    dialler                                  acceptor
    HELLO      which cluster, which role, a nonce   ->
                                        <-   CHALLENGE  the version, a nonce
    PROOF      sealed                   ->
                                        <-   WELCOME    sealed: who I am, limits, addresses
    (a client is through here; a peer goes on)
    IDENTITY   sealed: who I am         ->
                                        <-   ACCEPTED   sealed
    (either side instead: REFUSED code, message; then it closes)

Both sides prove that they know the key of the role without sending it (`handshake_frames` has the seals).
**A side that has proved nothing is told nothing**: what a node says of itself (names, replica id, starts,
addresses) is sent only after the other side's proof. The key of role peer is the cluster's `secret`. The
key of role client is the cluster's `client_secret`, by default derived from the other one way, so that a
client's key makes nobody a peer. The dialler proves first: a stranger without a key gets no mac to try
guesses against.

Peers also ask each other about starts that they remember of one another. A peer whose data directory does
not know such a start is an older copy and is refused (`acquaintance` says how, and decides).

Each side is a pure machine: payloads in, payloads out, `ProtocolError` to refuse. Nonces are passed in. It
authenticates the beginning of a connection; it does not encrypt what follows (PROTOCOL.md, "What this does
not do").

API: `DiallerConfig`, `DiallerConfig.client`, `AcceptorConfig`, `DiallerHandshake`, `AcceptorHandshake`,
`Hello` (what the acceptor learns), `Welcome` (what the dialler learns).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from allsource.cluster.protocol.acquaintance import (
    REGRESSED,
    Memory,
    NoMemory,
    Start,
    check_history,
    check_member,
    check_other,
    check_replica,
)
from allsource.cluster.protocol.frames import ProtocolError
from allsource.cluster.protocol.handshake_frames import (
    NONCE_BYTES,
    VERSION_MAX,
    VERSION_MIN,
    Challenge,
    IdentityBody,
    Opening,
    PeerPart,
    Transcript,
    WelcomeBody,
    WireLimits,
    check_not_refused,
    read_accepted,
    read_challenge,
    read_identity,
    read_opening,
    read_proof,
    read_welcome,
)
from allsource.cluster.protocol.kinds import CLIENT, DATA, PEER, Channel, Kind, Role
from allsource.cluster.protocol.payload import malformed, unpack
from allsource.storage.model.identity import Identity


@dataclass(frozen=True, slots=True)
class Hello:
    """Who a proved dialler is."""

    version: int
    role: Role
    channel: Channel
    node_id: str
    """Of a client: a name for the log, or nothing."""
    start: Start | None = None
    """Of a peer."""


@dataclass(frozen=True, slots=True)
class Welcome:
    """What an accepted dialler knows of the node that it reached."""

    version: int
    cluster_id: str
    node_id: str
    partition_count: int
    limits: WireLimits
    addresses: dict[str, tuple[str, int]]
    """Node id -> host and port, of every member."""
    start: Start | None = None
    """For a peer: which start of the node this is."""


@dataclass(frozen=True, slots=True)
class DiallerConfig:
    """How to introduce ourselves, and whom we expect."""

    secret: str = field(repr=False)
    """The key of the role."""
    identity: Identity
    role: Role = PEER
    channel: Channel = DATA
    expected_node: str = ""
    """Node id that the dialled address should have; empty: any."""
    memory: Memory = field(default_factory=NoMemory, repr=False)

    @classmethod
    def client(cls, secret: str, *, cluster_id: str = "", name: str = "") -> DiallerConfig:
        """For a client. Without `cluster_id`, any cluster that knows the key will do."""
        return cls(secret, Identity(cluster_id, name, "", 0), CLIENT)


@dataclass(frozen=True, slots=True)
class AcceptorConfig:
    """Who we are, whom we let in, and what we tell them."""

    secret: str = field(repr=False)
    """The key of the role peer."""
    client_secret: str = field(repr=False)
    identity: Identity
    addresses: Mapping[str, tuple[str, int]]
    """Every member, this node included: others may not call themselves peers."""
    partition_count: int
    limits: WireLimits = field(default_factory=WireLimits)
    memory: Memory = field(default_factory=NoMemory, repr=False)

    def key_of(self, role: Role) -> str:
        return self.secret if role == PEER else self.client_secret


class DiallerStep(NamedTuple):
    """What a dialler does with a payload: what to send, and at the end what it knows."""

    answer: bytes | None
    welcome: Welcome | None


class AcceptorStep(NamedTuple):
    """What an acceptor does with a payload: what to send, and at the end who is there."""

    answer: bytes
    hello: Hello | None


class _Met(NamedTuple):
    """The peer that a dialler has reached, between its WELCOME and its ACCEPTED."""

    welcome: Welcome
    peer: PeerPart
    asked: Start | None
    """The start that was remembered when the peer was asked for its nonce."""


class DiallerHandshake:
    """The side that opened the connection. `start()` gives HELLO; feed payloads until a `Welcome`."""

    def __init__(self, config: DiallerConfig, nonce: bytes) -> None:
        assert len(nonce) == NONCE_BYTES
        self._config = config
        self._hello = Opening(
            VERSION_MIN, VERSION_MAX, config.identity.cluster_id, config.role, config.channel, nonce
        ).pack()
        self._said = Transcript()
        self._said.add(self._hello)
        self._challenge: Challenge | None = None
        self._met: _Met | None = None

    def start(self) -> bytes:
        """The first payload."""
        return self._hello

    def receive(self, payload: bytes | memoryview) -> DiallerStep:
        """Take the next payload. The `Welcome` comes at the end, and then both sides are sure."""
        _check_refusal(payload, is_proved=self._met is not None)
        if self._challenge is None:
            return DiallerStep(self._prove(payload), None)
        if self._met is None:
            return self._meet(payload, self._challenge)
        return DiallerStep(None, self._conclude(payload, self._met))

    def _prove(self, payload: bytes | memoryview) -> bytes:
        challenge = read_challenge(unpack(payload))
        if not VERSION_MIN <= challenge.version <= VERSION_MAX:
            raise _wrong_version(challenge.version, challenge.version)
        self._said.add(payload)
        self._challenge = challenge
        name = self._config.identity.node_id if self._config.role == CLIENT else ""
        return self._said.seal(self._config.secret, (Kind.PROOF, name))

    def _meet(self, payload: bytes | memoryview, challenge: Challenge) -> DiallerStep:
        config, me = self._config, self._config.identity
        frame = self._said.open(config.secret, Kind.WELCOME, payload)
        if frame is None:
            raise ProtocolError(
                "wrong_secret",
                f"the node does not know {_KEYS[config.role]} that it was shown to know; "
                "check the address, and that nobody else listens there",
            )
        self._said.add(payload)
        body = read_welcome(frame, config.role)
        if me.cluster_id and body.cluster_id != me.cluster_id:
            raise _wrong_cluster(me.cluster_id)
        welcome = Welcome(
            challenge.version,
            body.cluster_id,
            body.node_id,
            body.partition_count,
            body.limits,
            body.addresses,
            body.peer.start if body.peer is not None else None,
        )
        if body.peer is None:
            return DiallerStep(None, welcome)
        asked = config.memory.remembered().get(body.node_id)
        self._met = _Met(welcome, body.peer, asked)
        return DiallerStep(self._introduce(body, body.peer, asked), None)

    def _introduce(self, acceptor: WelcomeBody, peer: PeerPart, asked: Start | None) -> bytes:
        config, me, memory = self._config, self._config.identity, self._config.memory
        check_other(me, acceptor.node_id, peer.start.replica_id)
        if config.expected_node and acceptor.node_id != config.expected_node:
            raise ProtocolError(
                "wrong_node",
                f"the address of node {config.expected_node} is answered by node {acceptor.node_id}; "
                "check the addresses of the configuration",
            )
        check_replica(acceptor.node_id, peer.start.replica_id, asked)
        identity = IdentityBody(
            me.node_id,
            _peer_part(me, memory),
            _answer(memory, acceptor.remembers.get(me.node_id, 0)),
            asked.incarnation if asked is not None else 0,
        )
        return self._said.seal(config.secret, identity.listed())

    def _conclude(self, payload: bytes | memoryview, met: _Met) -> Welcome:
        frame = self._said.open(self._config.secret, Kind.ACCEPTED, payload)
        if frame is None:
            raise malformed("the seal of ACCEPTED is wrong")
        check_history(met.welcome.node_id, met.asked, read_accepted(frame))
        _meet(self._config.memory, met.welcome.node_id, met.peer, met.asked)
        return met.welcome


class AcceptorHandshake:
    """The side that was connected to. Feed payloads until a `Hello` is given: it is then proved."""

    def __init__(self, config: AcceptorConfig, nonce: bytes) -> None:
        assert len(nonce) == NONCE_BYTES
        self._config = config
        self._nonce = nonce
        self._said = Transcript()
        self._opening: Opening | None = None
        self._version = 0
        self._asked: dict[str, Start] = {}
        self.is_proved = False
        """Whether the other side has shown that it knows the key of its role."""

    def receive(self, payload: bytes | memoryview) -> AcceptorStep:
        """Take the next payload. The `Hello` comes at the end, with the last answer."""
        _check_refusal(payload, is_proved=self.is_proved)
        if self._opening is None:
            return AcceptorStep(self._challenge(payload), None)
        if not self.is_proved:
            return self._welcome(payload, self._opening)
        return self._accept(payload, self._opening)

    def _challenge(self, payload: bytes | memoryview) -> bytes:
        opening = read_opening(unpack(payload))
        version = min(VERSION_MAX, opening.version_max)
        if version < max(VERSION_MIN, opening.version_min):
            raise _wrong_version(opening.version_min, opening.version_max)
        if opening.cluster_id and opening.cluster_id != self._config.identity.cluster_id:
            raise _wrong_cluster(opening.cluster_id)
        self._opening, self._version = opening, version
        challenge = Challenge(version, self._nonce).pack()
        self._said.add(payload)
        self._said.add(challenge)
        return challenge

    def _welcome(self, payload: bytes | memoryview, opening: Opening) -> AcceptorStep:
        config, role = self._config, opening.role
        key = config.key_of(role)
        frame = self._said.open(key, Kind.PROOF, payload)
        if frame is None:
            raise self._wrong_key(role, payload)
        name = read_proof(frame)
        self.is_proved = True
        self._said.add(payload)
        me, is_peer = config.identity, role == PEER
        if is_peer:
            self._asked = dict(config.memory.remembered())
        welcome = WelcomeBody(
            me.cluster_id,
            me.node_id,
            config.partition_count,
            config.limits,
            dict(config.addresses),
            _peer_part(me, config.memory) if is_peer else None,
            {peer: start.incarnation for peer, start in self._asked.items()},
        )
        hello = None if is_peer else Hello(self._version, role, opening.channel, name)
        return AcceptorStep(self._said.seal(key, welcome.listed()), hello)

    def _wrong_key(self, role: Role, payload: bytes | memoryview) -> ProtocolError:
        """The refusal of a proof. Who used the key of the other role is told which one to take."""
        other: Role = CLIENT if role == PEER else PEER
        if self._said.open(self._config.key_of(other), Kind.PROOF, payload) is None:
            return ProtocolError(
                "wrong_secret", f"{_KEYS[role]} of this cluster is another one; give both sides the same"
            )
        if role == PEER:
            return ProtocolError(
                "wrong_secret",
                "this is the clients' key (`client_secret`); nodes need the cluster's `secret`",
            )
        return ProtocolError(
            "wrong_secret",
            "this is the nodes' key (`secret`), which clients should not have; they need `client_secret` "
            "(`allsource config client-secret FILE` prints it)",
        )

    def _accept(self, payload: bytes | memoryview, opening: Opening) -> AcceptorStep:
        config = self._config
        frame = self._said.open(config.secret, Kind.IDENTITY, payload)
        if frame is None:
            raise malformed("the seal of IDENTITY is wrong")
        self._said.add(payload)
        body = read_identity(frame)
        start = body.peer.start
        check_other(config.identity, body.node_id, start.replica_id)
        check_member(body.node_id, config.addresses)
        asked = self._asked.get(body.node_id)
        check_replica(body.node_id, start.replica_id, asked)
        check_history(body.node_id, asked, body.answer)
        _meet(config.memory, body.node_id, body.peer, asked)
        accepted = self._said.seal(config.secret, (Kind.ACCEPTED, _answer(config.memory, body.asks)))
        return AcceptorStep(accepted, Hello(self._version, PEER, opening.channel, body.node_id, start))


_KEYS = {PEER: "the nodes' key (`secret`)", CLIENT: "the clients' key (`client_secret`)"}


def _peer_part(me: Identity, memory: Memory) -> PeerPart:
    nonce = memory.nonce_of(me.incarnation)
    assert nonce is not None, "a start is written down before the first handshake"
    return PeerPart(Start(me.replica_id, me.incarnation, nonce), tuple(memory.log_ends()))


def _answer(memory: Memory, number: int) -> bytes:
    """The nonce of our own start of that number; empty if there is none, or none was asked for."""
    return (memory.nonce_of(number) or b"") if number else b""


def _meet(memory: Memory, peer: str, part: PeerPart, asked: Start | None) -> None:
    refusal = memory.meet(peer, part.start, part.log_ends, asked)
    if refusal is not None:
        raise refusal


def _check_refusal(payload: bytes | memoryview, *, is_proved: bool) -> None:
    try:
        check_not_refused(unpack(payload))
    except ProtocolError as error:
        if error.by_peer and error.code == REGRESSED and not is_proved:
            raise malformed("a judgement of our history by one who has proved nothing") from error
        raise


def _wrong_cluster(meant: str) -> ProtocolError:
    return ProtocolError(
        "wrong_cluster", f"the node at this address is not of cluster {meant}, which the caller means"
    )


def _wrong_version(low: int, high: int) -> ProtocolError:
    return ProtocolError(
        "version",
        f"protocol versions {low} to {high} on one side, {VERSION_MIN} to {VERSION_MAX} on the other; "
        "upgrade the older side",
    )
