"""One of everything that goes over the wire, and two sessions that have shaken hands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from allsource.cluster.consensus.messages import (
    Append,
    AppendReply,
    Beat,
    CommitNotice,
    Echo,
    EchoReply,
    GroupBeat,
    Message,
    ReadRound,
    ReadRoundReply,
    RequestVote,
    TimeoutNow,
    VoteReply,
)
from allsource.cluster.protocol.acquaintance import LogEnd, Start, lost_acknowledgement, outpaced
from allsource.cluster.protocol.frames import ProtocolError
from allsource.cluster.protocol.handshake import AcceptorConfig, DiallerConfig
from allsource.cluster.protocol.node_session import PeerSession, ServerEvent, ServerSession
from allsource.cluster.protocol.requests import (
    AppendedStream,
    AppendPart,
    AppendRequest,
    AppendResult,
    ClusterView,
    DescribeCluster,
    MarkState,
    PartitionPage,
    PassOn,
    ReadMark,
    ReadPartition,
    ReadStream,
    ReadTag,
    Request,
    Result,
    Run,
    StreamPage,
    TagPage,
)
from allsource.cluster.protocol.session import DiallerEvent
from allsource.storage.model.chunks import ZSTD, Chunk, pack_events
from allsource.storage.model.entry import CONFIG, EVENTS, NOOP, Configuration, Entry, Mark, make_entry
from allsource.storage.model.errors import (
    AllsourceError,
    MarkRefused,
    NotOwner,
    OutcomeUnknown,
    WrongExpectedTag,
    WrongExpectedVersion,
)
from allsource.storage.model.events import NewEvent
from allsource.storage.model.identity import Identity
from tests.storage.logs import new_append

SECRET = "the cluster's secret"
CLIENT_SECRET = "the clients' secret"
CLUSTER = "5d0c2b3e"
N1 = Identity(CLUSTER, "n1", "replica-1", 4)
N2 = Identity(CLUSTER, "n2", "replica-2", 7)
ADDRESSES = {"n1": ("127.0.0.1", 7101), "n2": ("127.0.0.1", 7102)}
NONCE_1, NONCE_2 = b"1" * 32, b"2" * 32

CHUNKS = pack_events(
    [
        NewEvent.json("Opened", {"owner": "Ada"}, id=b"the first id, 16"),
        NewEvent("Seen", b"\x00\xff", b"m", 1, b"the second, 16 b"),
    ]
)
(CHUNK,) = CHUNKS
SQUEEZED = Chunk(
    1,
    2033,
    ZSTD,
    bytes.fromhex(
        "28b52ffd60f10655010024029195c41073717565657a6564206576656e742031a45365656ec507d2"
        "227822c40000010032ff0327"
    ),
)
"""One event, as one release of zstd packed it: others would choose other bytes."""


def zstd_that_claims(size: int) -> bytes:
    """A zstd frame that says that its content has so many bytes (RFC 8878, 3.1.1.1), and has none."""
    return b"\x28\xb5\x2f\xfd" + b"\xe0" + size.to_bytes(8, "little") + b"\x01\x00\x00"


MARKS = (Mark("a consumer", 7, 1), Mark("$own", 2**63 - 1, 2**63 - 1))

REQUESTS: list[Request] = [
    AppendRequest((AppendPart("account-1", -1, CHUNKS),)),
    AppendRequest(
        (AppendPart("{t}-1", 0, CHUNKS), AppendPart("{t}-2", 2**63 - 1, (SQUEEZED, *CHUNKS))),
        2**63 - 1,
        MARKS,
        65_535,
    ),
    AppendRequest((), -1, MARKS, 0),
    AppendRequest(()),
    ReadStream("account-1"),
    ReadStream("ü" * 64, 7, 0, False, True, "3:99"),
    ReadPartition(31),
    ReadPartition(0, 2**63 - 1, 5, True, "0:1"),
    DescribeCluster(),
    PassOn(AppendRequest((AppendPart("account-1", -1, CHUNKS),), 3, MARKS[:1])),
    PassOn(ReadStream("account-1", 3)),
    ReadTag("t"),
    ReadTag("ü" * 64, 7, 0, False, ("Opened", "Seen"), True, "3:99"),
    ReadMark(31, "a consumer"),
    ReadMark(0, "$own", True, "0:1"),
    PassOn(ReadTag("t", 3)),
    PassOn(ReadMark(3, "a consumer")),
]

RUN = Run("account-1", 1, 10, 0, 1_700_000_000_000_000, 0, 2, CHUNK)
TAGGED = Run("{t}-1", 8, 11, 2**63 - 1, 1_700_000_000_000_000, 1, 1, CHUNK)
RESULTS: list[Result | AllsourceError] = [
    AppendResult(3, 12, 20, 21, (AppendedStream("account-1", 1, 2),), False),
    AppendResult(3, 12, 20, 21, (AppendedStream("a", 1, 1), AppendedStream("b", 2, 2)), True),
    AppendResult(3, 12, 20, 19, (), False),
    StreamPage("account-1", 3, 2, 1, 2, 0, True, (RUN, RUN)),
    StreamPage("account-1", 3, 2, 1, 2, 1, False, ()),
    PartitionPage(3, 21, 22, (RUN, TAGGED)),
    ClusterView({"nodes": [{"id": "n1", "state": "up"}], "partitions": []}),
    WrongExpectedVersion("account-1", "no_stream", 2),
    NotOwner("ask n2", owner="n2"),
    OutcomeUnknown("perhaps"),
    TagPage("t", 3, 9, 4, True, (TAGGED,)),
    TagPage("t", 3, 0, 0, False, ()),
    MarkState(3, "a consumer", 7, 1, 12),
    WrongExpectedTag("t", 3, 9),
    MarkRefused("a consumer", 7, 1),
]


def entries(partition: int, first: int, count: int) -> list[Entry]:
    """`count` entries of every kind in turn, from index `first`."""
    return [entry(partition, index, (EVENTS, NOOP, CONFIG)[(index - first) % 3]) for index in
            range(first, first + count)]  # fmt: skip


def entry(partition: int, index: int, kind: int = EVENTS) -> Entry:
    """An EVENTS entry has two appends: one of two streams with a mark, one of a mark alone."""
    tagged = ("{t}-1", index, index + 1, [SQUEEZED])
    appends = [
        new_append(("account-1", index, 0, CHUNKS), tagged, marks=MARKS[:1]),
        new_append(marks=MARKS[1:]),
    ]
    return make_entry(
        partition=partition,
        index=index,
        term=2,
        kind=kind,
        first_position=index * 10,
        timestamp_us=1,
        appends=appends if kind == EVENTS else (),
        payload=Configuration(("n1", "n2")).encode() if kind == CONFIG else b"",
    )


MESSAGES: list[Message] = [
    RequestVote(1, 2, 3, 4, True, False),
    VoteReply(1, 2, True, False),
    Append(5, 3, 9, 2, 8, entries(5, 10, 4)),
    Append(5, 3, 9, 2, 8, []),
    AppendReply(1, 2, False, 4, 5, 6),
    CommitNotice(1, 2, 3),
    TimeoutNow(31, 2**63 - 1),
    ReadRound(77, [(1, 2), (3, 4)]),
    ReadRoundReply(77, [(1, 4), (3, 2)]),
    Echo((3 << 32) + 5),
    EchoReply((3 << 32) + 5),
]

BEAT = Beat(
    12,
    [GroupBeat(0, 1, "n1", 2, 3, False), GroupBeat(31, 3, "", 2**40, 2**41, True)],
    hears=("n2", "n3"),
    damaged=(7,),
    wall_us=1_800_000_000_000_000,
)


START_1 = Start("replica-1", 4, b"start four of n1")
START_2 = Start("replica-2", 7, b"start 7 of n two")


class Memory:
    """What a node remembers, in a test. `starts`: the nonces of its own, by number."""

    def __init__(
        self,
        *starts: Start,
        known: Mapping[str, Start] | None = None,
        log_ends: Sequence[LogEnd] = (),
        acknowledged: Sequence[LogEnd] = (),
    ) -> None:
        self.starts = {start.incarnation: start.nonce for start in starts}
        self.known = dict(known or {})
        self.ends = log_ends
        self.acknowledged = acknowledged

    def nonce_of(self, incarnation: int) -> bytes | None:
        return self.starts.get(incarnation)

    def log_ends(self) -> Sequence[LogEnd]:
        return self.ends

    def remembered(self) -> Mapping[str, Start]:
        return self.known

    def meet(
        self, peer: str, start: Start, log_ends: Sequence[LogEnd], asked: Start | None
    ) -> ProtocolError | None:
        if self.known.get(peer) == start:
            return None
        refusal = outpaced(peer, start, asked, self.known.get(peer)) or lost_acknowledgement(
            peer, self.acknowledged, log_ends
        )
        if refusal is None:
            self.known[peer] = start
        return refusal


def acceptor(**changes: object) -> AcceptorConfig:
    """The configuration of n2's server."""
    values: dict[str, object] = {
        "secret": SECRET,
        "client_secret": CLIENT_SECRET,
        "identity": N2,
        "addresses": ADDRESSES,
        "partition_count": 32,
        "memory": Memory(START_2),
    }
    return AcceptorConfig(**{**values, **changes})  # type: ignore[arg-type]


def dialler(**changes: object) -> DiallerConfig:
    """The configuration of n1's link to n2."""
    values: dict[str, object] = {
        "secret": SECRET,
        "identity": N1,
        "expected_node": "n2",
        "memory": Memory(START_1),
    }
    return DiallerConfig(**{**values, **changes})  # type: ignore[arg-type]


def client() -> DiallerConfig:
    return DiallerConfig.client(CLIENT_SECRET)


def deliver(
    sender: PeerSession | ServerSession, receiver: PeerSession | ServerSession
) -> list[DiallerEvent | ServerEvent]:
    """Everything that `sender` has queued, as `receiver` understands it."""
    return list(receiver.receive(b"".join(sender.take())))


def pair(
    dial: DiallerConfig | None = None, accept: AcceptorConfig | None = None
) -> tuple[PeerSession, ServerSession]:
    """Two sessions, their handshake behind them; or the `ProtocolError` of the side that refused.

    The dialling one could say what only peers say, whatever its role.
    """
    one = PeerSession(dial or client(), NONCE_1)
    other = ServerSession(accept or acceptor(), NONCE_2)
    for _ in range(3):
        deliver(one, other)
        deliver(other, one)
    return one, other
