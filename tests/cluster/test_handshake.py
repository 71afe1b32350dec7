"""Who is let in, who is not, and why (CONSENSUS rule 10)."""

from __future__ import annotations

from collections.abc import Callable

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from allsource.cluster import handshake
from allsource.cluster.codec import Kind
from allsource.cluster.frames import ProtocolError
from allsource.cluster.handshake import (
    AcceptorConfig,
    AcceptorHandshake,
    DiallerConfig,
    DiallerHandshake,
    Hello,
    Welcome,
    WireLimits,
)
from allsource.storage.interface import Identity
from tests.cluster.wire_samples import (
    ADDRESSES,
    CLUSTER,
    N1,
    N2,
    NONCE_1,
    NONCE_2,
    SECRET,
    acceptor,
    client,
    dialler,
)


def shake(dial: DiallerConfig, accept: AcceptorConfig) -> tuple[Hello, Welcome]:
    """The whole handshake; raises what either side raises."""
    one, other = DiallerHandshake(dial, NONCE_1), AcceptorHandshake(accept, NONCE_2)
    challenge, nobody = other.receive(one.start())
    assert nobody is None
    proof, nothing = one.receive(challenge)
    assert nothing is None
    assert proof is not None
    answer, hello = other.receive(proof)
    end, welcome = one.receive(answer)
    assert end is None
    assert hello is not None
    assert welcome is not None
    return hello, welcome


def refused(call: Callable[[], object]) -> str:
    """The code with which `call` is refused."""
    with pytest.raises(ProtocolError) as caught:
        call()
    assert len(caught.value.message.split()) > 3, "a refusal is a sentence"
    return caught.value.code


def replica(node: str, replica_id: str) -> Callable[[str], str | None]:
    return {node: replica_id}.get


# -- who is let in


def test_a_peer_and_its_peer_learn_who_they_are() -> None:
    limits = WireLimits(frame_bytes_max=1 << 20, inflight_requests_max=5)
    hello, welcome = shake(dialler(channel="beat"), acceptor(limits=limits))
    assert (hello.role, hello.channel) == ("peer", "beat")
    assert (hello.cluster_id, hello.node_id, hello.replica_id, hello.incarnation) == N1
    assert (welcome.cluster_id, welcome.node_id, welcome.replica_id, welcome.incarnation) == N2
    assert (welcome.version, welcome.partition_count) == (1, 32)
    assert welcome.limits == limits
    assert welcome.addresses == ADDRESSES


def test_a_client_needs_the_secret_only() -> None:
    hello, welcome = shake(client(), acceptor())
    assert (hello.role, hello.cluster_id, welcome.node_id) == ("client", "", "n2")


def test_a_client_may_name_itself_and_its_cluster() -> None:
    hello, _ = shake(DiallerConfig.client(SECRET, cluster_id=CLUSTER, name="n2"), acceptor())
    assert hello.node_id == "n2"


def test_a_replica_that_is_remembered_is_let_in() -> None:
    shake(dialler(remembered=replica("n2", "replica-2")), acceptor(remembered=replica("n1", "replica-1")))


# -- who is not


@pytest.mark.parametrize("dial", [dialler(secret="x"), DiallerConfig.client("x")])
def test_the_acceptor_refuses_a_wrong_secret(dial: DiallerConfig) -> None:
    assert refused(lambda: shake(dial, acceptor())) == "wrong_secret"


def test_the_dialler_refuses_an_acceptor_that_does_not_know_the_secret() -> None:
    one = DiallerHandshake(dialler(), NONCE_1)
    one.receive(AcceptorHandshake(acceptor(secret="x"), NONCE_2).receive(one.start())[0])
    forged = msgpack.packb([Kind.WELCOME, b"m" * 32, 32, {}, {}])
    assert refused(lambda: one.receive(forged)) == "wrong_secret"


def test_another_cluster_is_refused_by_the_acceptor() -> None:
    other = Identity("other", "n1", "replica-1", 1)
    assert refused(lambda: shake(dialler(identity=other), acceptor())) == "wrong_cluster"
    stray = DiallerConfig.client(SECRET, cluster_id="other")
    assert refused(lambda: shake(stray, acceptor())) == "wrong_cluster"


def test_another_cluster_is_refused_by_the_dialler_before_it_proves_anything() -> None:
    one = DiallerHandshake(dialler(), NONCE_1)
    challenge = msgpack.packb([Kind.CHALLENGE, 1, "other", "n2", "replica-2", 7, NONCE_2])
    assert refused(lambda: one.receive(challenge)) == "wrong_cluster"


def test_another_version_is_refused_on_both_sides(monkeypatch: pytest.MonkeyPatch) -> None:
    one = DiallerHandshake(dialler(), NONCE_1)
    challenge = msgpack.packb([Kind.CHALLENGE, 2, CLUSTER, "n2", "replica-2", 7, NONCE_2])
    assert refused(lambda: one.receive(challenge)) == "version"
    monkeypatch.setattr(handshake, "VERSION_MIN", 2)
    monkeypatch.setattr(handshake, "VERSION_MAX", 3)
    newer = AcceptorHandshake(acceptor(), NONCE_2)
    assert refused(lambda: newer.receive(one.start())) == "version"


def test_the_highest_common_version_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handshake, "VERSION_MAX", 3)
    _, welcome = shake(dialler(), acceptor())
    assert welcome.version == 3


def test_offering_fewer_versions_on_the_way_breaks_the_proof(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handshake, "VERSION_MAX", 3)
    one, other = DiallerHandshake(dialler(), NONCE_1), AcceptorHandshake(acceptor(), NONCE_2)
    hello = msgpack.unpackb(one.start())
    hello[3] = 1
    challenge, _ = other.receive(msgpack.packb(hello))
    proof, _ = one.receive(challenge)
    assert proof is not None
    assert refused(lambda: other.receive(proof)) == "wrong_secret"


def test_a_stranger_is_no_peer() -> None:
    stranger = dialler(identity=Identity(CLUSTER, "n9", "replica-9", 1))
    assert refused(lambda: shake(stranger, acceptor())) == "unknown_node"


def test_a_changed_identity_is_refused_on_both_sides() -> None:
    assert (
        refused(lambda: shake(dialler(), acceptor(remembered=replica("n1", "old")))) == "identity_changed"
    )
    assert (
        refused(lambda: shake(dialler(remembered=replica("n2", "old")), acceptor())) == "identity_changed"
    )


def test_two_processes_with_one_name_are_refused() -> None:
    twin = dialler(identity=Identity(CLUSTER, "n2", "replica-x", 1))
    assert refused(lambda: shake(twin, acceptor())) == "identity_changed"


def test_a_node_that_dials_itself_is_refused_on_both_sides() -> None:
    assert refused(lambda: shake(dialler(identity=N2), acceptor())) == "self"
    one = AcceptorHandshake(acceptor(), NONCE_2)
    challenge, _ = one.receive(DiallerHandshake(dialler(identity=N2), NONCE_1).start())
    answer = _proof(dialler(identity=N2), challenge)
    assert refused(lambda: one.receive(answer)) == "self"


def test_another_node_than_the_one_dialled_is_refused() -> None:
    assert refused(lambda: shake(dialler(expected_node="n3"), acceptor())) == "wrong_node"


def test_admit_may_refuse_somebody_who_knows_the_secret() -> None:
    asked: list[Hello] = []

    def admit(hello: Hello) -> ProtocolError | None:
        asked.append(hello)
        return ProtocolError("not_formed", "this node has not met n3 yet")

    assert refused(lambda: shake(client(), acceptor(admit=admit))) == "not_formed"
    assert refused(lambda: shake(DiallerConfig.client("x"), acceptor(admit=admit))) == "wrong_secret"
    assert len(asked) == 1


def test_the_refusal_of_the_other_side_is_passed_on() -> None:
    one = DiallerHandshake(dialler(), NONCE_1)
    with pytest.raises(ProtocolError, match="bad\\?day") as caught:
        one.receive(handshake.encode_refused(ProtocolError("wrong_secret", "bad\nday")))
    assert (caught.value.code, caught.value.by_peer) == ("wrong_secret", True)


# -- attacks


def _proof(config: DiallerConfig, challenge: bytes) -> bytes:
    """A proof by somebody who skips the checks of his own side."""
    free = DiallerHandshake(config, NONCE_1)
    free._check = lambda _: None  # type: ignore[method-assign]
    proof, _ = free.receive(challenge)
    assert proof is not None
    return proof


def test_a_proof_cannot_be_sent_back_to_its_maker() -> None:
    """Reflection: the acceptor's own MAC is no PROOF, though hello and challenge are the same."""
    one = AcceptorHandshake(acceptor(), NONCE_2)
    challenge, _ = one.receive(DiallerHandshake(dialler(), NONCE_1).start())
    mac = handshake._mac(SECRET, b"acceptor", DiallerHandshake(dialler(), NONCE_1).start(), challenge)
    assert refused(lambda: one.receive(msgpack.packb([Kind.PROOF, mac]))) == "wrong_secret"


def test_a_proof_is_of_no_use_in_another_connection() -> None:
    """Replay: a new nonce asks for a new proof."""
    first = AcceptorHandshake(acceptor(), NONCE_2)
    start = DiallerHandshake(dialler(), NONCE_1).start()
    proof = _proof(dialler(), first.receive(start)[0])
    again = AcceptorHandshake(acceptor(), b"3" * 32)
    again.receive(start)
    assert refused(lambda: again.receive(proof)) == "wrong_secret"


def test_a_proof_is_of_no_use_to_somebody_else() -> None:
    """The identity is inside: n1's proof does not let n3 in under its own name."""
    addresses = {**ADDRESSES, "n3": ("127.0.0.1", 7103)}
    other = AcceptorHandshake(acceptor(addresses=addresses), NONCE_2)
    thief = dialler(identity=Identity(CLUSTER, "n3", "replica-3", 1))
    challenge, _ = other.receive(DiallerHandshake(thief, NONCE_1).start())
    assert refused(lambda: other.receive(_proof(dialler(), challenge))) == "wrong_secret"


def test_the_secret_is_not_shown() -> None:
    assert SECRET not in repr(dialler())
    assert SECRET not in repr(acceptor())


# -- shapes

_GOOD_HELLO: list[object] = [1, "allsource", 1, 1, CLUSTER, "peer", "data", "n1", "replica-1", 4, NONCE_1]


def _changed(at: int, value: object) -> list[object]:
    return [*_GOOD_HELLO[:at], value, *_GOOD_HELLO[at + 1 :]]


@pytest.mark.parametrize(
    "hello",
    [
        _GOOD_HELLO[:-1],
        _changed(0, 3),
        _changed(1, "somethingelse"),
        _changed(2, -1),
        _changed(2, True),
        _changed(4, 5),
        _changed(4, ""),
        _changed(5, "admin"),
        _changed(6, "video"),
        _changed(7, ""),
        _changed(7, "n" * 256),
        _changed(7, "n\n1"),
        _changed(8, ""),
        _changed(9, -1),
        _changed(10, b"short"),
        [*_changed(5, "client")[:6], "beat", *_GOOD_HELLO[7:]],
    ],
)
def test_a_hello_of_another_shape_is_refused(hello: list[object]) -> None:
    other = AcceptorHandshake(acceptor(), NONCE_2)
    assert refused(lambda: other.receive(msgpack.packb(hello))) == "malformed"


def test_what_a_later_version_adds_at_the_end_is_ignored() -> None:
    other = AcceptorHandshake(acceptor(), NONCE_2)
    answer, _ = other.receive(msgpack.packb([*_GOOD_HELLO, "new", {}]))
    assert msgpack.unpackb(answer)[0] == Kind.CHALLENGE


@pytest.mark.parametrize(
    "frame", [[2], [4, b"m" * 32, 32, {}, {}], [2, 1, CLUSTER, "n2", "", 1, NONCE_2], [3]]
)
def test_a_challenge_of_another_shape_is_refused(frame: list[object]) -> None:
    one = DiallerHandshake(dialler(), NONCE_1)
    assert refused(lambda: one.receive(msgpack.packb(frame))) == "malformed"


@pytest.mark.parametrize("frame", [[3], [3, "mac"], [32, []], [1]])
def test_a_proof_of_another_shape_is_refused(frame: list[object]) -> None:
    other = AcceptorHandshake(acceptor(), NONCE_2)
    other.receive(msgpack.packb(_GOOD_HELLO))
    assert refused(lambda: other.receive(msgpack.packb(frame))) == "malformed"


@pytest.mark.parametrize(
    ("limits", "addresses"),
    [
        ({"frame_bytes_max": "much"}, {}),
        ({"frame_bytes_max": -1}, {}),
        ({}, {"n1": "127.0.0.1:7101"}),
        ({}, {"n1": ["127.0.0.1", 0]}),
        ({}, {"n1": ["127.0.0.1", 65_536]}),
        ({}, {"n\x001": ["127.0.0.1", 1]}),
    ],
)
def test_a_welcome_of_another_shape_is_refused(limits: object, addresses: object) -> None:
    one = DiallerHandshake(dialler(), NONCE_1)
    start = one.start()
    challenge, _ = AcceptorHandshake(acceptor(), NONCE_2).receive(start)
    one.receive(challenge)
    mac = handshake._mac(SECRET, b"acceptor", start, challenge)
    assert refused(lambda: one.receive(msgpack.packb([4, mac, 32, limits, addresses]))) == "malformed"


def test_limits_of_a_later_version_are_ignored_and_missing_ones_have_defaults() -> None:
    assert handshake._read_limits({"newer": {}, "append_events_max": 5}) == WireLimits(append_events_max=5)


@given(st.lists(st.binary(max_size=150), min_size=1, max_size=3))
def test_any_bytes_are_refused_with_a_protocol_error(payloads: list[bytes]) -> None:
    for side in (DiallerHandshake(dialler(), NONCE_1), AcceptorHandshake(acceptor(), NONCE_2)):
        for payload in payloads:
            with pytest.raises(ProtocolError):
                side.receive(payload)


@given(st.data())
def test_any_change_of_a_handshake_ends_it(data: st.DataObject) -> None:
    """Whatever bit is changed on the way, in any of the four frames, nobody is let in by it."""
    which = data.draw(st.integers(0, 3))

    def carry(number: int, payload: bytes) -> bytes:
        if number != which:
            return payload
        changed = bytearray(payload)
        changed[data.draw(st.integers(0, len(payload) - 1))] ^= data.draw(st.integers(1, 255))
        return bytes(changed)

    one, other = DiallerHandshake(dialler(), NONCE_1), AcceptorHandshake(acceptor(), NONCE_2)
    try:
        proof, _ = one.receive(carry(1, other.receive(carry(0, one.start()))[0]))
        assert proof is not None
        _, welcome = one.receive(carry(3, other.receive(carry(2, proof))[0]))
    except ProtocolError:
        return
    assert which == 3, "only what the MAC does not cover may arrive changed: limits and addresses"
    assert welcome is not None
    assert (welcome.cluster_id, welcome.node_id, welcome.replica_id, welcome.incarnation) == N2
