"""Whether a data connection carries: echoes, what they forgive, and when a connection is dialled afresh."""

from __future__ import annotations

from itertools import pairwise

import pytest

from allsource.cluster.consensus.lanes import Lanes, Traffic
from allsource.cluster.consensus.messages import Append, Echo, EchoReply, Message
from allsource.cluster.consensus.multiraft import ConsensusConfig, MultiRaft
from allsource.cluster.consensus.sense import PeerNonsense
from tests.cluster.consensus.lab import entry
from tests.simulation.disk import SimDisk

SUSPICION = 400_000
HALF, QUARTER = SUSPICION // 2, SUSPICION // 4
MEBIBYTE = 1 << 20


@pytest.fixture
def lanes() -> Lanes:
    found = Lanes(("b", "c"), SUSPICION, 1 << 32)
    for peer in ("b", "c"):
        found.connected(peer, 0)
    return found


def carries(lanes: Lanes, now: int, inflight_bytes: int = 0) -> bool:
    return lanes.carries("b", inflight_bytes, now)


def test_a_lane_that_moves_is_not_asked(lanes: Lanes) -> None:
    for now in range(0, 10 * SUSPICION, QUARTER):
        lanes.moved("b", now)
        assert lanes.echo_due("b", now + QUARTER) is None
        assert carries(lanes, now + QUARTER)


def test_an_idle_lane_is_asked_twice_in_a_suspicion_time(lanes: Lanes) -> None:
    asked = 0
    for now in range(0, 100 * SUSPICION, 10_000):
        number = lanes.echo_due("b", now)
        if number is not None:
            asked += 1
            assert lanes.echoed("b", number, now)
        assert carries(lanes, now)
    assert asked == 199


def test_a_silent_lane_is_asked_again_and_then_called_dead(lanes: Lanes) -> None:
    numbers = [lanes.echo_due("b", now) for now in range(0, SUSPICION + HALF, 10_000)]
    assert [n for n in numbers if n is not None] == [(1 << 32) + i for i in range(1, 5)]
    assert carries(lanes, SUSPICION + HALF - 1)
    assert not carries(lanes, SUSPICION + HALF)
    assert lanes.carries("c", 0, SUSPICION + HALF), "each peer for itself"
    lanes.moved("b", SUSPICION + HALF)
    assert carries(lanes, SUSPICION + HALF), "whatever arrives there shows that it carries"


def test_any_echo_that_waits_may_be_answered_and_an_older_one_says_nothing(lanes: Lanes) -> None:
    old = lanes.echo_due("b", HALF)
    assert old is not None
    assert lanes.echoed("b", old, HALF)
    assert not lanes.echoed("b", old, HALF), "it comes twice"
    first = lanes.echo_due("b", 2 * HALF)
    again = lanes.echo_due("b", 2 * HALF + QUARTER)
    assert first is not None
    assert again == first + 1
    late = 2 * HALF + SUSPICION
    assert not lanes.echoed("b", old, late)
    assert not carries(lanes, late)
    assert lanes.echoed("b", first, late)
    assert carries(lanes, late)


def test_a_lane_has_the_time_that_a_slow_link_needs(lanes: Lanes) -> None:
    lanes.echo_due("b", HALF)
    dead = HALF + SUSPICION
    assert not carries(lanes, dead)
    assert carries(lanes, dead, 4 * MEBIBYTE), "under way before the echo"
    lanes.received("b", 4 * MEBIBYTE)
    assert carries(lanes, dead + 999_999), "the answer comes behind what the peer sends"
    assert not carries(lanes, dead + 1_000_000)
    lanes.traffic("b", Traffic(0, 8 * MEBIBYTE), dead)
    lanes.traffic("b", Traffic(0, 64 * MEBIBYTE), dead)
    assert carries(lanes, dead + 2_999_999), "what comes behind the echo does not hold it up"
    assert not carries(lanes, dead + 3_000_000)


def test_answers_to_requests_show_that_their_connection_carries(lanes: Lanes) -> None:
    lanes.echo_due("b", HALF)
    lanes.traffic("b", Traffic(1, 0), HALF + SUSPICION)
    assert carries(lanes, HALF + SUSPICION)
    assert lanes.echo_due("b", HALF + SUSPICION + HALF - 1) is None
    lanes.echo_due("b", 2 * SUSPICION)
    lanes.traffic("b", Traffic(1, 0), 3 * SUSPICION)
    assert not carries(lanes, 3 * SUSPICION), "none came since"


def test_a_process_that_slept_blames_no_lane(lanes: Lanes) -> None:
    lanes.echo_due("b", HALF)
    lanes.forgive(10 * SUSPICION, 11 * SUSPICION)
    assert carries(lanes, 11 * SUSPICION)
    assert not carries(lanes, 12 * SUSPICION)


def test_a_new_connection_owes_no_old_echo(lanes: Lanes) -> None:
    lanes.echo_due("b", HALF)
    lanes.connected("b", 2 * SUSPICION)
    assert carries(lanes, 2 * SUSPICION)
    assert lanes.echo_due("b", 2 * SUSPICION + HALF - 1) is None


def test_a_lane_is_renewed_at_once_and_then_ever_more_seldom(lanes: Lanes) -> None:
    times = [n for n in range(100 * 4) if lanes.renewal_due("b", n * QUARTER)]
    assert times[0] == 0
    assert [later - one for one, later in pairwise(times)] == [4, 8, 16, 32, *[64] * 5]
    calm = (times[-1] + 64 * 4) * QUARTER
    assert lanes.renewal_due("b", calm)
    assert lanes.renewal_due("b", calm + SUSPICION), "after a calm time the waits are short again"


# -- the node


class Node:
    """Node a of three, with one partition that it takes no leading part in."""

    def __init__(self) -> None:
        disk = SimDisk([0])
        self.now = 0
        self.core = MultiRaft(
            "a",
            ("a", "b", "c"),
            {0: disk.load(0)},
            disk,
            config=ConsensusConfig(),
            replication_factor=3,
            partition_count=1,
            incarnation=3,
            seed=1,
            now=0,
        )
        for peer in ("b", "c"):
            self.core.peer_connected(peer, 0)
        self.renewed: list[str] = []
        self.turn()

    def turn(self) -> list[tuple[str, Message]]:
        """Everything that goes out."""
        sent: list[tuple[str, Message]] = []
        while (ready := self.core.ready()) is not None:
            sent += [(peer, message) for peer, messages in ready.send.items() for message in messages]
            self.renewed += ready.renew
        return sent

    def live(self, microseconds: int) -> list[tuple[str, Message]]:
        """Time passes, and the peers are heard all the while."""
        sent = []
        for _ in range(microseconds // 50_000):
            self.now += 50_000
            for peer in ("b", "c"):
                self.core.detector.heard(peer, self.now)
            self.core.tick(self.now)
            sent += self.turn()
        return sent


def echoes(sent: list[tuple[str, Message]]) -> list[tuple[str, int]]:
    return [(peer, message.number) for peer, message in sent if isinstance(message, Echo)]


def test_a_node_asks_silent_peers_and_has_their_connections_renewed() -> None:
    node = Node()
    asked = echoes(node.live(400_000))
    assert asked == [("b", (3 << 32) + 1), ("c", (3 << 32) + 2)]
    node.core.receive("b", [EchoReply((3 << 32) + 1)], node.now)
    node.live(300_000)
    node.core.receive("b", [EchoReply(node.core._lanes.newest)], node.now)
    node.live(200_000)
    assert node.core.registry.is_reached("b")
    assert not node.core.registry.is_reached("c")
    assert node.renewed == ["c"]
    node.core.receive("c", [EchoReply(node.core._lanes.newest)], node.now)
    assert node.core.registry.is_reached("c")


def test_a_flood_of_echoes_gets_one_answer_in_a_turn() -> None:
    node = Node()
    node.core.receive("b", [Echo(number) for number in range(5000, 0, -1)], 0)
    node.core.receive("c", [Echo(7)], 0)
    replies = [(peer, m.number) for peer, m in node.turn() if isinstance(m, EchoReply)]
    assert replies == [("b", 5000), ("c", 7)]
    assert not node.turn()


def test_an_answer_to_an_echo_that_was_never_sent_is_nonsense() -> None:
    node = Node()
    node.live(300_000)
    newest = node.core._lanes.newest
    node.core.receive("b", [EchoReply(newest), EchoReply(2 << 32)], node.now)
    with pytest.raises(PeerNonsense, match=f"answers echo {newest + 1}"):
        node.core.receive("b", [EchoReply(newest + 1)], node.now)


def test_what_a_peer_sends_meanwhile_counts_only_while_it_owes_an_echo() -> None:
    node = Node()
    bulk: list[Message] = [Append(7, 1, 1, 1, 0, [entry(2, 1)])]
    node.core.receive("b", bulk, 0)
    assert node.core._lanes._lanes["b"].received_bytes == 0
    node.live(300_000)
    node.core.receive("b", bulk, node.now)
    assert node.core._lanes._lanes["b"].received_bytes == len(entry(2, 1).record)
