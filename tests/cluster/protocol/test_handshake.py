"""Who is let in, who is not, and why (rules 10 and 33)."""

from __future__ import annotations

from collections.abc import Callable

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from allsource.cluster.protocol import handshake, handshake_frames
from allsource.cluster.protocol.acquaintance import LogEnd, Start
from allsource.cluster.protocol.frames import ProtocolError
from allsource.cluster.protocol.handshake import (
    AcceptorConfig,
    AcceptorHandshake,
    DiallerConfig,
    DiallerHandshake,
    Hello,
    Welcome,
)
from allsource.cluster.protocol.handshake_frames import (
    Challenge,
    Opening,
    Transcript,
    WireLimits,
    encode_refused,
)
from allsource.cluster.protocol.kinds import Kind
from allsource.storage.model.identity import Identity
from tests.cluster.protocol.wire_samples import (
    ADDRESSES,
    CLIENT_SECRET,
    CLUSTER,
    N1,
    N2,
    NONCE_1,
    NONCE_2,
    SECRET,
    START_1,
    START_2,
    Memory,
    acceptor,
    client,
    dialler,
)


def frames(dial: DiallerConfig, accept: AcceptorConfig) -> list[bytes]:
    """Every payload of a handshake, in turn from the dialler and the acceptor."""
    said: list[bytes] = []
    shake(dial, accept, said)
    return said


def shake(
    dial: DiallerConfig, accept: AcceptorConfig, said: list[bytes] | None = None
) -> tuple[Hello, Welcome]:
    """The whole handshake; raises what either side raises."""
    one, other = DiallerHandshake(dial, NONCE_1), AcceptorHandshake(accept, NONCE_2)
    said = said if said is not None else []
    said.append(one.start())
    hello: Hello | None = None
    while True:
        answer, heard = other.receive(said[-1])
        said.append(answer)
        hello = heard or hello
        reply, welcome = one.receive(answer)
        if welcome is not None:
            assert reply is None
            assert hello is not None
            return hello, welcome
        assert reply is not None
        said.append(reply)


def refused(call: Callable[[], object], saying: str = "") -> str:
    """The code with which `call` is refused, in a sentence with these words."""
    with pytest.raises(ProtocolError) as caught:
        call()
    assert len(caught.value.message.split()) > 3, "a refusal is a sentence"
    assert len(caught.value.message) <= handshake_frames.MESSAGE_CHARACTERS_MAX
    assert saying in caught.value.message
    return caught.value.code


def known(node: str, start: Start, *own: Start) -> Memory:
    return Memory(*own, known={node: start})


# -- who is let in


def test_a_peer_and_its_peer_learn_who_they_are() -> None:
    limits = WireLimits(frame_bytes_max=1 << 20, inflight_requests_max=5)
    hello, welcome = shake(dialler(channel="beat"), acceptor(limits=limits))
    assert (hello.role, hello.channel) == ("peer", "beat")
    assert (hello.node_id, hello.start) == ("n1", START_1)
    assert (welcome.cluster_id, welcome.node_id, welcome.start) == (CLUSTER, "n2", START_2)
    assert (welcome.version, welcome.partition_count) == (1, 32)
    assert welcome.limits == limits
    assert welcome.addresses == ADDRESSES


def test_a_client_needs_the_clients_key_only() -> None:
    hello, welcome = shake(client(), acceptor())
    assert (hello.role, hello.node_id, welcome.node_id) == ("client", "", "n2")
    assert welcome.start is None, "what only peers need is not told"


def test_a_client_may_name_itself_and_its_cluster() -> None:
    hello, _ = shake(DiallerConfig.client(CLIENT_SECRET, cluster_id=CLUSTER, name="n2"), acceptor())
    assert hello.node_id == "n2"


def test_a_start_that_is_remembered_is_let_in() -> None:
    shake(dialler(memory=known("n2", START_2, START_1)), acceptor(memory=known("n1", START_1, START_2)))


def test_a_client_is_told_nothing_that_only_peers_need() -> None:
    told = b"".join(frames(client(), acceptor())[1::2])
    assert N2.replica_id.encode() not in told
    assert START_2.nonce not in told


# -- who is not


@pytest.mark.parametrize("dial", [dialler(secret="x"), DiallerConfig.client("x")])
def test_the_acceptor_refuses_a_wrong_secret(dial: DiallerConfig) -> None:
    assert refused(lambda: shake(dial, acceptor())) == "wrong_secret"


def test_the_clients_key_makes_nobody_a_peer() -> None:
    """One key for both roles let any application end nodes with forged messages."""
    code = refused(lambda: shake(dialler(secret=CLIENT_SECRET), acceptor()), "this is the clients' key")
    assert code == "wrong_secret"


def test_the_nodes_key_is_not_for_clients() -> None:
    code = refused(lambda: shake(DiallerConfig.client(SECRET), acceptor()), "they need `client_secret`")
    assert code == "wrong_secret"


def _told_before_its_proof(config: AcceptorConfig, role: str) -> bytes:
    """All that an acceptor says to somebody who knows no key."""
    one = AcceptorHandshake(config, NONCE_2)
    stranger = dialler(secret="x") if role == "peer" else DiallerConfig.client("x")
    trying = DiallerHandshake(stranger, NONCE_1)
    challenge, _ = one.receive(trying.start())
    proof, _ = trying.receive(challenge)
    assert proof is not None
    with pytest.raises(ProtocolError) as caught:
        one.receive(proof)
    return challenge + encode_refused(caught.value)


@pytest.mark.parametrize("role", ["peer", "client"])
def test_a_stranger_is_told_nothing_of_who_we_are(role: str) -> None:
    """The challenge once told anybody the replica id, and with it half of a peer's identity."""
    memory = known("n1", START_1, START_2)
    told = _told_before_its_proof(acceptor(memory=memory), role)
    for secret in (CLUSTER, "n2", "n1", N2.replica_id, START_1.replica_id, "127.0.0.1"):
        assert secret.encode() not in told
    assert START_2.nonce not in told


def test_a_listener_that_proves_nothing_is_told_nothing_of_who_dials() -> None:
    one = DiallerHandshake(dialler(memory=known("n2", START_2, START_1)), NONCE_1)
    proof, _ = one.receive(Challenge(1, NONCE_2).pack())
    assert proof is not None
    for secret in (b"n1", b"n2", N1.replica_id.encode(), START_1.nonce):
        assert secret not in one.start() + proof


def test_the_dialler_refuses_an_acceptor_that_does_not_know_the_secret() -> None:
    one = DiallerHandshake(dialler(), NONCE_1)
    one.receive(AcceptorHandshake(acceptor(secret="x"), NONCE_2).receive(one.start())[0])
    forged = msgpack.packb([Kind.WELCOME, b"m" * 32, b"\x92\x04\x01"])
    assert refused(lambda: one.receive(forged)) == "wrong_secret"


def test_another_cluster_is_refused_by_the_acceptor() -> None:
    other = Identity("other", "n1", "replica-1", 4)
    assert refused(lambda: shake(dialler(identity=other), acceptor())) == "wrong_cluster"
    stray = DiallerConfig.client(CLIENT_SECRET, cluster_id="other")
    assert refused(lambda: shake(stray, acceptor())) == "wrong_cluster"


@pytest.mark.parametrize("dial", [dialler(), DiallerConfig.client(CLIENT_SECRET, cluster_id=CLUSTER)])
def test_another_cluster_is_refused_by_the_dialler(dial: DiallerConfig) -> None:
    """An acceptor of another cluster that shares our keys, and does not look."""
    one, other = DiallerHandshake(dial, NONCE_1), AcceptorHandshake(acceptor(), NONCE_2)
    challenge, _ = other.receive(one.start())
    proof, _ = one.receive(challenge)
    assert proof is not None
    object.__setattr__(other._config, "identity", Identity("other", "n2", "replica-2", 7))
    answer, _ = other.receive(proof)
    assert refused(lambda: one.receive(answer)) == "wrong_cluster"


def test_another_version_is_refused_on_both_sides(monkeypatch: pytest.MonkeyPatch) -> None:
    one = DiallerHandshake(dialler(), NONCE_1)
    assert refused(lambda: one.receive(Challenge(2, NONCE_2).pack())) == "version"
    monkeypatch.setattr(handshake, "VERSION_MIN", 2)
    monkeypatch.setattr(handshake, "VERSION_MAX", 3)
    newer = AcceptorHandshake(acceptor(), NONCE_2)
    assert refused(lambda: newer.receive(one.start())) == "version"


def test_the_highest_common_version_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handshake, "VERSION_MAX", 3)
    hello, welcome = shake(dialler(), acceptor())
    assert (hello.version, welcome.version) == (3, 3)


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
    stranger = dialler(identity=Identity(CLUSTER, "n9", "replica-9", 4))
    assert refused(lambda: shake(stranger, acceptor())) == "unknown_node"


def test_a_changed_replica_is_refused_on_both_sides() -> None:
    old_1, old_2 = START_1._replace(replica_id="old"), START_2._replace(replica_id="old")
    assert refused(lambda: shake(dialler(), acceptor(memory=known("n1", old_1, START_2)))) == (
        "identity_changed"
    )
    assert refused(lambda: shake(dialler(memory=known("n2", old_2, START_1)), acceptor())) == (
        "identity_changed"
    )


def test_two_processes_with_one_name_are_refused() -> None:
    twin = dialler(identity=Identity(CLUSTER, "n2", "replica-x", 4))
    assert refused(lambda: shake(twin, acceptor())) == "identity_changed"


def test_a_node_that_dials_itself_is_refused() -> None:
    myself = dialler(identity=N2, memory=Memory(START_2))
    assert refused(lambda: shake(myself, acceptor())) == "self"


def test_another_node_than_the_one_dialled_is_refused() -> None:
    assert refused(lambda: shake(dialler(expected_node="n3"), acceptor())) == "wrong_node"


def test_the_refusal_of_the_other_side_is_passed_on() -> None:
    one = DiallerHandshake(dialler(), NONCE_1)
    with pytest.raises(ProtocolError, match=r"bad\\nday") as caught:
        one.receive(encode_refused(ProtocolError("wrong_secret", "bad\nday")))
    assert (caught.value.code, caught.value.by_peer) == ("wrong_secret", True)


# -- older copies of a data directory

LATER_1, LATER_2 = Start("replica-1", 5, b"start five of n1"), Start("replica-2", 8, b"start 8 of n two")

COPIES = {
    "has not started so often": (4, ()),
    "counted up to the very same start": (5, (Start("replica-1", 5, b"of the copy, 5.."),)),
    "was started more often by now": (
        6,
        (Start("replica-1", 5, b"of the copy, 5.."), Start("replica-1", 6, b"of the copy, 6..")),
    ),
}
"""What a copy that was taken before start 5 may look like."""


@pytest.mark.parametrize(("incarnation", "starts"), COPIES.values(), ids=COPIES)
def test_an_older_copy_is_refused_by_the_acceptor(incarnation: int, starts: tuple[Start, ...]) -> None:
    copy = dialler(identity=N1._replace(incarnation=incarnation), memory=Memory(START_1, *starts))
    remembers = known("n1", LATER_1, START_2)
    assert refused(lambda: shake(copy, acceptor(memory=remembers)), "older copy") == "regressed"
    assert remembers.known == {"n1": LATER_1}


@pytest.mark.parametrize(("incarnation", "starts"), COPIES.values(), ids=COPIES)
def test_an_older_copy_is_refused_by_the_dialler(incarnation: int, starts: tuple[Start, ...]) -> None:
    """The same of n2, three starts later."""
    its = [Start("replica-2", start.incarnation + 3, start.nonce) for start in starts]
    copy = acceptor(identity=N2._replace(incarnation=incarnation + 3), memory=Memory(START_2, *its))
    remembers = known("n2", LATER_2, START_1)
    assert refused(lambda: shake(dialler(memory=remembers), copy), "older copy") == "regressed"
    assert remembers.known == {"n2": LATER_2}


def test_the_newest_directory_is_let_in_however_often_it_was_started() -> None:
    """The one that was remembered is in its history, and its new start takes that one's place."""
    remembers = known("n1", LATER_1, START_2)
    newer = Start("replica-1", 9, b"start nine of n1")
    back = dialler(identity=N1._replace(incarnation=9), memory=Memory(START_1, LATER_1, newer))
    hello, _ = shake(back, acceptor(memory=remembers))
    assert hello.start == newer
    assert remembers.known == {"n1": newer}


def test_a_start_is_remembered_on_both_sides_before_the_handshake_counts() -> None:
    ours, theirs = Memory(START_1), Memory(START_2)
    shake(dialler(memory=ours), acceptor(memory=theirs))
    assert (ours.known, theirs.known) == ({"n2": START_2}, {"n1": START_1})


def test_who_shows_less_than_it_acknowledged_is_refused_on_both_sides() -> None:
    """A copy from within the newest start: only a leader knows what was acknowledged."""
    acknowledged = [LogEnd(3, 7, 100)]
    for shown, code in (
        ([LogEnd(3, 7, 100)], ""),
        ([LogEnd(3, 7, 99)], "regressed"),
        ([LogEnd(3, 6, 200)], "regressed"),
        ([LogEnd(3, 8, 50)], ""),  # a later leader may have cut it
        ([LogEnd(4, 1, 1)], ""),  # it was set aside as damaged
    ):
        for dial, accept in (
            (
                dialler(memory=_with(START_1, ends=shown)),
                acceptor(memory=_with(START_2, acknowledged=acknowledged)),
            ),
            (
                dialler(memory=_with(START_1, acknowledged=acknowledged)),
                acceptor(memory=_with(START_2, ends=shown)),
            ),
        ):
            if code:
                assert refused(lambda d=dial, a=accept: shake(d, a), "entry 100") == code  # type: ignore[misc]
            else:
                shake(dial, accept)


def _with(
    start: Start, *, ends: list[LogEnd] | None = None, acknowledged: list[LogEnd] | None = None
) -> Memory:
    return Memory(start, log_ends=ends or (), acknowledged=acknowledged or ())


def test_acknowledgements_of_the_same_start_are_not_compared() -> None:
    """What a second connection shows may be older than what came on the first one meanwhile."""
    shown = _with(START_1, ends=[LogEnd(3, 7, 99)])
    remembers = Memory(START_2, known={"n1": START_1}, acknowledged=[LogEnd(3, 7, 100)])
    shake(dialler(memory=shown), acceptor(memory=remembers))


def test_two_handshakes_at_once_of_a_new_start_do_not_accuse_each_other() -> None:
    """The second one was asked for the start before, and shows that; meanwhile the first one is through."""
    remembers = known("n1", START_1, START_2)
    config = dialler(identity=N1._replace(incarnation=5), memory=Memory(START_1, LATER_1))
    two = [(DiallerHandshake(config, NONCE_1), AcceptorHandshake(acceptor(memory=remembers), n)) for n in (
        NONCE_2, b"3" * 32)]  # fmt: skip
    answers = [(one.start(), other) for one, other in two]
    for _ in range(2):
        answers = [
            (one.receive(other.receive(payload)[0])[0] or b"", other)
            for (payload, other), (one, _) in zip(answers, two, strict=True)
        ]
    for payload, other in answers:
        assert other.receive(payload)[1] is not None
    assert remembers.known == {"n1": LATER_1}


def test_what_was_met_meanwhile_is_not_forgotten_for_an_older_handshake() -> None:
    remembers = known("n1", START_1, START_2)
    one, other = (
        DiallerHandshake(dialler(), NONCE_1),
        AcceptorHandshake(acceptor(memory=remembers), NONCE_2),
    )
    proof, _ = one.receive(other.receive(one.start())[0])
    assert proof is not None
    identity, _ = one.receive(other.receive(proof)[0])
    assert identity is not None
    remembers.known["n1"] = LATER_1
    assert refused(lambda: other.receive(identity)) == "superseded"
    assert remembers.known == {"n1": LATER_1}


def test_nobody_judges_our_history_who_has_not_proved_himself() -> None:
    """A node that is judged ends: anybody who could listen at a peer's address might end it."""
    verdict = encode_refused(ProtocolError("regressed", "you are an older copy, end yourself"))
    one = DiallerHandshake(dialler(), NONCE_1)
    assert refused(lambda: one.receive(verdict)) == "malformed"
    one.receive(Challenge(1, NONCE_2).pack())
    assert refused(lambda: one.receive(verdict)) == "malformed"
    other = AcceptorHandshake(acceptor(), NONCE_2)
    other.receive(one.start())
    assert refused(lambda: other.receive(verdict)) == "malformed"


def test_a_proved_peer_judges_our_history() -> None:
    verdict = encode_refused(ProtocolError("regressed", "you are an older copy, end yourself"))
    one, other = DiallerHandshake(dialler(), NONCE_1), AcceptorHandshake(acceptor(), NONCE_2)
    proof, _ = one.receive(other.receive(one.start())[0])
    assert proof is not None
    one.receive(other.receive(proof)[0])
    assert refused(lambda: one.receive(verdict)) == "regressed"
    assert refused(lambda: other.receive(verdict)) == "regressed"


def test_the_largest_cluster_fits_into_a_handshake() -> None:
    """1024 partitions on each of 15 nodes with long names."""
    ends = [LogEnd(partition, 2**62, 2**62) for partition in range(1024)]
    names = {f"{'n' * 60}-{number}": ("a-very-long-host-name." * 8, 65_535) for number in range(13)}
    memory = _with(START_2, ends=ends)
    memory.known = {name: Start("r" * 32, 2**62, bytes(16)) for name in names}
    accept = acceptor(memory=memory, addresses={**ADDRESSES, **names})
    said = frames(dialler(memory=_with(START_1, ends=ends)), accept)
    for payload in said:
        bound = Kind(msgpack.unpackb(payload)[0]).bytes_max
        assert bound is not None
        assert len(payload) < bound


# -- attacks


def test_a_proof_cannot_be_sent_back_to_its_maker() -> None:
    """Reflection: who dials us back with our own challenge gets no seal from us that opens our door."""
    one = DiallerHandshake(dialler(), NONCE_1)
    mirror = AcceptorHandshake(acceptor(), NONCE_2)
    challenge, _ = mirror.receive(one.start())
    proof, _ = one.receive(challenge)
    assert proof is not None
    assert refused(lambda: one.receive(proof)) == "malformed", "our own proof is no WELCOME"
    welcome, _ = mirror.receive(proof)
    again = AcceptorHandshake(acceptor(), NONCE_2)
    again.receive(one.start())
    assert refused(lambda: again.receive(welcome)) == "malformed", "its own WELCOME is no PROOF"
    as_proof = msgpack.packb([Kind.PROOF, *msgpack.unpackb(welcome)[1:]])
    assert refused(lambda: again.receive(as_proof)) == "wrong_secret", "the kind is inside the seal"


def test_a_proof_is_of_no_use_in_another_connection() -> None:
    """Replay: a new nonce asks for a new proof."""
    said = frames(dialler(), acceptor())
    again = AcceptorHandshake(acceptor(), b"3" * 32)
    again.receive(said[0])
    assert refused(lambda: again.receive(said[2])) == "wrong_secret"


def test_a_proof_of_one_role_is_of_no_use_in_the_other() -> None:
    said = frames(client(), acceptor())
    other = AcceptorHandshake(acceptor(), NONCE_2)
    other.receive(DiallerHandshake(dialler(), NONCE_1).start())
    assert refused(lambda: other.receive(said[2])) == "wrong_secret"


def test_an_identity_is_of_no_use_to_somebody_else() -> None:
    """What n1 says of itself opens no connection but the one that it said it in."""
    said = frames(dialler(), acceptor())
    one, other = DiallerHandshake(dialler(), NONCE_1), AcceptorHandshake(acceptor(), b"3" * 32)
    proof, _ = one.receive(other.receive(one.start())[0])
    assert proof is not None
    other.receive(proof)
    assert refused(lambda: other.receive(said[4])) == "malformed"


def test_keys_are_not_shown() -> None:
    for shown in (repr(dialler()), repr(acceptor())):
        assert SECRET not in shown
        assert CLIENT_SECRET not in shown
    assert CLIENT_SECRET not in repr(client())


# -- shapes

_GOOD_HELLO: list[object] = [1, "allsource", 1, 1, CLUSTER, "peer", "data", NONCE_1]


def _changed(at: int, value: object) -> list[object]:
    return [*_GOOD_HELLO[:at], value, *_GOOD_HELLO[at + 1 :]]


def test_a_good_hello_is_what_we_send() -> None:
    assert msgpack.packb(_GOOD_HELLO) == Opening(1, 1, CLUSTER, "peer", "data", NONCE_1).pack()


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
        _changed(4, CLUSTER + "\n"),
        _changed(5, "admin"),
        _changed(6, "video"),
        _changed(7, b"short"),
        [*_changed(5, "client")[:6], "beat", NONCE_1],
    ],
)
def test_a_hello_of_another_shape_is_refused(hello: list[object]) -> None:
    other = AcceptorHandshake(acceptor(identity=Identity("", "n2", "r", 7)), NONCE_2)
    assert refused(lambda: other.receive(msgpack.packb(hello))) in ("malformed", "wrong_cluster")


def test_what_a_later_version_adds_at_the_end_is_ignored() -> None:
    other = AcceptorHandshake(acceptor(), NONCE_2)
    answer, _ = other.receive(msgpack.packb([*_GOOD_HELLO, "new", {}]))
    assert msgpack.unpackb(answer)[0] == Kind.CHALLENGE


@pytest.mark.parametrize("frame", [[2], [4, b"m" * 32, b""], [2, 1, b"short"], [2, "1", NONCE_2], [3]])
def test_a_challenge_of_another_shape_is_refused(frame: list[object]) -> None:
    one = DiallerHandshake(dialler(), NONCE_1)
    assert refused(lambda: one.receive(msgpack.packb(frame))) == "malformed"


@pytest.mark.parametrize("frame", [[3], [3, "mac", b""], [3, b"mac", "body"], [32, []], [1]])
def test_a_proof_of_another_shape_is_refused(frame: list[object]) -> None:
    other = AcceptorHandshake(acceptor(), NONCE_2)
    other.receive(msgpack.packb(_GOOD_HELLO))
    assert refused(lambda: other.receive(msgpack.packb(frame))) == "malformed"


_LIMITS: dict[str, object] = {}
_PEER = ["replica-2", 7, START_2.nonce, [[0, 1, 2]]]


@pytest.mark.parametrize(
    "body",
    [
        [4],
        [3, CLUSTER, "n2", 32, _LIMITS, {}, _PEER, {}],
        [4, CLUSTER, "", 32, _LIMITS, {}, _PEER, {}],
        [4, CLUSTER, "n2", -1, _LIMITS, {}, _PEER, {}],
        [4, CLUSTER, "n2", 32, {"frame_bytes_max": "much"}, {}, _PEER, {}],
        [4, CLUSTER, "n2", 32, {"frame_bytes_max": -1}, {}, _PEER, {}],
        [4, CLUSTER, "n2", 32, _LIMITS, {"n1": "127.0.0.1:7101"}, _PEER, {}],
        [4, CLUSTER, "n2", 32, _LIMITS, {"n1": ["127.0.0.1", 0]}, _PEER, {}],
        [4, CLUSTER, "n2", 32, _LIMITS, {"n1": ["127.0.0.1", 65_536]}, _PEER, {}],
        [4, CLUSTER, "n2", 32, _LIMITS, {"n\x001": ["127.0.0.1", 1]}, _PEER, {}],
        [4, CLUSTER, "n2", 32, _LIMITS, {}],
        [4, CLUSTER, "n2", 32, _LIMITS, {}, _PEER],
        [4, CLUSTER, "n2", 32, _LIMITS, {}, _PEER, {"n1": "many"}],
        [4, CLUSTER, "n2", 32, _LIMITS, {}, _PEER, {1: 1}],
        [4, CLUSTER, "n2", 32, _LIMITS, {}, ["", *_PEER[1:]], {}],
        [4, CLUSTER, "n2", 32, _LIMITS, {}, [*_PEER[:1], True, *_PEER[2:]], {}],
        [4, CLUSTER, "n2", 32, _LIMITS, {}, [*_PEER[:2], b"short", []], {}],
        [4, CLUSTER, "n2", 32, _LIMITS, {}, [*_PEER[:3], [[1, 2]]], {}],
        [4, CLUSTER, "n2", 32, _LIMITS, {}, [*_PEER[:3], [[1, 2, -3]]], {}],
    ],
)
def test_a_welcome_of_another_shape_is_refused(body: list[object]) -> None:
    """Sealed with the right key: a peer's nonsense costs its connection, and no assertion."""
    one, other = DiallerHandshake(dialler(), NONCE_1), AcceptorHandshake(acceptor(), NONCE_2)
    proof, _ = one.receive(other.receive(one.start())[0])
    assert proof is not None
    sealed = _sealed(frames(dialler(), acceptor())[:3], Kind.WELCOME, body)
    assert refused(lambda: one.receive(sealed)) == "malformed"


@pytest.mark.parametrize(
    "body",
    [
        [6],
        [6, "", _PEER, b"", 0],
        [6, "n\n1", _PEER, b"", 0],
        [6, "n1", _PEER, "", 0],
        [6, "n1", _PEER, b"", -1],
        [6, "n1", [*_PEER[:3], [[1, 2, True]]], b"", 0],
        [6, "n1", _PEER[:2], b"", 0],
    ],
)
def test_an_identity_of_another_shape_is_refused(body: list[object]) -> None:
    said = frames(dialler(), acceptor())
    other = AcceptorHandshake(acceptor(), NONCE_2)
    other.receive(said[0])
    other.receive(said[2])
    assert refused(lambda: other.receive(_sealed(said[:4], Kind.IDENTITY, body))) == "malformed"


def _sealed(said: list[bytes], kind: int, body: list[object]) -> bytes:
    transcript = Transcript()
    for payload in said:
        transcript.add(payload)
    packed = msgpack.packb(body)
    return bytes(msgpack.packb([kind, transcript._mac(SECRET, kind, packed), packed]))


def test_limits_of_a_later_version_are_ignored_and_missing_ones_have_defaults() -> None:
    limits = handshake_frames.read_limits({"newer": {}, "append_events_max": 5})
    assert limits == WireLimits(append_events_max=5)


@given(st.lists(st.binary(max_size=150), min_size=1, max_size=3))
def test_any_bytes_are_refused_with_a_protocol_error(payloads: list[bytes]) -> None:
    for side in (DiallerHandshake(dialler(), NONCE_1), AcceptorHandshake(acceptor(), NONCE_2)):
        for payload in payloads:
            with pytest.raises(ProtocolError):
                side.receive(payload)


@given(st.data())
def test_any_change_of_a_handshake_ends_it(data: st.DataObject) -> None:
    """Whatever bit is changed on the way, in any of the six frames, nobody is let in by it."""
    which = data.draw(st.integers(0, 5))

    def carry(number: int, payload: bytes | None) -> bytes:
        assert payload is not None
        if number != which:
            return payload
        changed = bytearray(payload)
        changed[data.draw(st.integers(0, len(payload) - 1))] ^= data.draw(st.integers(1, 255))
        return bytes(changed)

    def whole() -> None:
        one, other = DiallerHandshake(dialler(), NONCE_1), AcceptorHandshake(acceptor(), NONCE_2)
        payload: bytes | None = one.start()
        for number in (0, 2, 4):
            payload = one.receive(carry(number + 1, other.receive(carry(number, payload))[0]))[0]

    with pytest.raises(ProtocolError):
        whole()
