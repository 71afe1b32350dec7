"""What no peer in order can say costs its connection (rule 38): `PeerNonsense`, and nothing is changed.

Never an `AssertionError`, which would end the process on a peer's word.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from allsource.cluster.consensus.messages import (
    Append,
    AppendReply,
    Beat,
    CommitNotice,
    GroupBeat,
    Message,
    RequestVote,
    Role,
    TimeoutNow,
    VoteReply,
)
from allsource.cluster.consensus.multiraft import ConsensusConfig, MultiRaft
from allsource.cluster.consensus.sense import INDEX_MAX, TERM_JUMP_MAX, TERM_MAX, PeerNonsense
from allsource.cluster.protocol.frames import ProtocolError
from allsource.cluster.protocol.message_codec import decode_messages, encode_message
from allsource.storage.model.entry import CONFIG, EVENTS, Entry, Mark, NewAppend, make_entry
from allsource.storage.model.entry import Append as StoredAppend
from allsource.storage.model.log import HardState
from tests.cluster.consensus.lab import Bench, entry, noop
from tests.simulation.disk import SimDisk
from tests.storage.logs import part

FAR = TERM_JUMP_MAX + 3
LAST = 2**63 - 1


def follower() -> Bench:
    """It follows b in term 2; entries 2 and 3 are of term 1, 2 is committed."""
    bench = Bench([1, 1], hard=HardState(2, "", 2))
    bench.append("b", 2, (3, 1), [])
    bench.sync()
    bench.sent()
    return bench


def leader() -> Bench:
    bench = Bench()
    bench.elect()
    return bench


def append(prev: tuple[int, int], entries: list[Entry], *, term: int = 2, commit: int = 0) -> Append:
    return Append(0, term, prev[0], prev[1], commit, entries)


OF_A_FOLLOWER: dict[str, tuple[str, Message]] = {
    "the last term there is": ("b", append((3, 1), [], term=LAST)),
    "a term that no elections reach": ("b", append((3, 1), [], term=FAR)),
    "a vote in such a term": ("c", RequestVote(0, FAR, 9, 2, False, False)),
    "a pre-vote in such a term": ("c", RequestVote(0, FAR, 9, 2, True, False)),
    "a refusal in such a term": ("c", VoteReply(0, FAR, False, True)),
    "an acknowledgement in such a term": ("c", AppendReply(0, FAR, True, 1, 0)),
    "a second leader in one term": ("c", append((3, 1), [])),
    "a notice of a second leader": ("c", CommitNotice(0, 2, 3)),
    "a committed entry overwritten": ("b", append((1, 0), [noop(2, 2)])),
    "a log that differs below the commit": ("b", append((2, 2), [])),
    "an entry of a term above the message's": ("b", append((3, 1), [entry(4, 3)])),
    "terms that go down": ("b", append((3, 1), [entry(4, 2), entry(5, 1)])),
    "an entry below the term before it": ("b", append((3, 1), [entry(4, 0)])),
    "a gap": ("b", append((3, 1), [entry(5, 2)])),
    "a term before it that is above its own": ("b", append((3, 3), [])),
    "an index that no log has": ("b", append((LAST, 1), [])),
    "a commit index that no log has": ("b", append((3, 1), [], commit=LAST)),
    "a notice of such a commit index": ("b", CommitNotice(0, 2, LAST)),
    "positions with a gap to the log": ("b", append((3, 1), [entry(4, 2, 9)])),
    "positions with a gap among themselves": ("b", append((3, 1), [entry(4, 2), entry(5, 2, 9)])),
    "positions without end": ("b", append((3, 1), [entry(4, 2), entry(5, 2, INDEX_MAX + 1)])),
    "a time before the log's": ("b", append((3, 1), [replace(entry(4, 2), timestamp_us=1)])),
    "a time beyond all calendars": ("b", append((3, 1), [replace(entry(4, 2), timestamp_us=2**62)])),
    "a candidate with a log newer than its term": ("c", RequestVote(0, 3, 9, 4, False, False)),
    "a candidate with a log without end": ("c", RequestVote(0, 3, LAST, 2, False, False)),
}


@pytest.mark.parametrize("said", OF_A_FOLLOWER)
def test_a_follower_refuses(said: str) -> None:
    bench = follower()
    before = (bench.group.term, bench.group.vote, bench.group.commit, bench.group.leader)
    length = bench.group.log.last_index
    sender, message = OF_A_FOLLOWER[said]
    with pytest.raises(PeerNonsense):
        bench.step(sender, message)
    assert (bench.group.term, bench.group.vote, bench.group.commit, bench.group.leader) == before
    assert bench.group.log.last_index == length
    bench.append("b", 2, (3, 1), [entry(4, 2)], commit=4)
    assert bench.group.commit == 4, "its leader is followed as before"


OF_A_LEADER: dict[str, tuple[str, Message]] = {
    "an append in its own term": ("b", append((1, 0), [], term=1)),
    "a notice in its own term": ("b", CommitNotice(0, 1, 2)),
    "an acknowledgement beyond its log": ("b", AppendReply(0, 1, True, 3, 0)),
    "an acknowledgement without end": ("b", AppendReply(0, 1, True, LAST, 0)),
    "a term without end": ("b", AppendReply(0, LAST, False, 0, 0)),
    "a refusal beyond its log": ("b", AppendReply(0, 1, False, 1, 0, 3)),
    "a refusal that leads forward": ("b", AppendReply(0, 1, False, 1, 0, 0)),
}


@pytest.mark.parametrize("said", OF_A_LEADER)
def test_a_leader_refuses(said: str) -> None:
    bench = leader()
    with pytest.raises(PeerNonsense):
        bench.step(*OF_A_LEADER[said])
    assert bench.group.role == Role.LEADER
    assert bench.group.commit == 1


@pytest.mark.parametrize(
    "line",
    [
        GroupBeat(0, 2, "c", 0),  # a second leader
        GroupBeat(0, FAR, "c", 0),
        GroupBeat(0, FAR, "", 0),
        GroupBeat(0, LAST, "c", 0),
        GroupBeat(0, 2, "", LAST),
    ],
)
def test_a_beats_line_is_input_too(line: GroupBeat) -> None:
    bench = follower()
    with pytest.raises(PeerNonsense):
        bench.group.beat("c", line, bench.now)
    assert (bench.group.term, bench.group.leader, bench.group.leader_commit) == (2, "b", 2)


def test_terms_end_long_before_the_numbers_do() -> None:
    bench = Bench(hard=HardState(TERM_MAX, "", 1))
    with pytest.raises(PeerNonsense):
        bench.append("b", TERM_MAX + 1, (1, 0), [])


def test_the_largest_jump_that_is_believed() -> None:
    bench = Bench()
    bench.append("b", TERM_JUMP_MAX, (1, 0), [])
    assert (bench.group.term, bench.group.leader) == (TERM_JUMP_MAX, "b")


def test_a_leader_that_was_forgotten_is_still_the_only_one_of_its_term() -> None:
    bench = follower()
    bench.group.leader_down("b", bench.now)
    with pytest.raises(PeerNonsense):
        bench.step("c", append((3, 1), []))
    bench.append("b", 2, (3, 1), [])
    assert bench.group.leader == "b"


def test_rule_39_who_is_no_voter_in_its_own_log_grants_no_vote() -> None:
    bench = Bench(voters=("b", "c", "d"))
    bench.ask_vote("b", 3, (9, 2))
    bench.ask_vote("b", 3, (9, 2), pre=True)
    assert [m.granted for _, m in bench.sent() if isinstance(m, VoteReply)] == [False, False]
    assert (bench.group.term, bench.group.vote) == (0, "")


def test_rule_39_a_candidate_that_is_no_voter_gets_no_vote_and_moves_no_term() -> None:
    bench = Bench()
    bench.ask_vote("z", 3, (9, 2))
    bench.ask_vote("z", 3, (9, 2), transfer=True)
    bench.ask_vote("z", 3, (9, 2), pre=True)
    assert [m.granted for _, m in bench.sent() if isinstance(m, VoteReply)] == [False] * 3
    assert (bench.group.term, bench.group.vote) == (0, "")


@pytest.mark.parametrize("sender", ["c", "z"])
def test_only_who_leads_gives_the_lead_away(sender: str) -> None:
    bench = follower()
    bench.step(sender, TimeoutNow(0, 2))
    assert (bench.group.role, bench.group.leader, bench.group.term) == (Role.FOLLOWER, "b", 2)


def core() -> MultiRaft:
    """A node that hosts partition 0 of two."""
    disk = SimDisk([0])
    states = {0: disk.load(0)}
    return MultiRaft(
        "a",
        ("a", "b", "c"),
        states,
        disk,
        config=ConsensusConfig(),
        replication_factor=3,
        partition_count=2,
        incarnation=1,
        seed=1,
        now=0,
    )


@pytest.mark.parametrize("line", [GroupBeat(2, 1, "b", 0), GroupBeat(1, LAST, "b", 0)])
def test_beats_about_partitions_that_are_not_hosted_are_bounded(line: GroupBeat) -> None:
    node = core()
    with pytest.raises(PeerNonsense):
        node.receive_beat("b", Beat(1, [line]), 0)
    assert node.registry.leader_of(1) is None


def test_a_beat_that_was_overtaken_says_nothing() -> None:
    """Written before the election, it would have its leader forgotten."""
    node = core()
    node.receive_beat("b", Beat(8, [GroupBeat(0, 1, "b", 0)]), 0)
    node.receive_beat("b", Beat(7, [GroupBeat(0, 1, "", 0)]), 0)
    assert node.leader_of(0) == "b"
    node.receive_beat("b", Beat(9, [GroupBeat(0, 1, "", 0)]), 0)
    assert node.leader_of(0) is None


def test_beats_are_numbered_for_each_start_of_a_node() -> None:
    node = core()
    node.peer_connected("b", 0)
    ready = node.ready()
    assert ready is not None
    assert ready.beats["b"].sequence == (1 << 32) + 1


def test_what_came_before_the_nonsense_counts() -> None:
    node = core()
    with pytest.raises(PeerNonsense):
        node.receive("b", [append((1, 0), [], term=1), append((1, 0), [], term=LAST)], 0)
    assert node.leader_of(0) == "b"
    assert node.ready() is not None


def record(**changes: object) -> Entry:
    fields: dict[str, object] = {
        "partition": 0,
        "index": 2,
        "term": 1,
        "kind": EVENTS,
        "first_position": 1,
        "timestamp_us": 2,
    }
    return make_entry(**(fields | changes))  # type: ignore[arg-type]


def moving(name: str, position: int, generation: int) -> NewAppend:
    return NewAppend(StoredAppend((), (Mark(name, position, generation),)), ())


UNSTORABLE: dict[str, Callable[[], Entry]] = {
    "a stream without a name": lambda: record(appends=[part("", 1)]),
    "a stream too long": lambda: record(appends=[part("s" * 129, 1)]),
    "a stream that ends a key": lambda: record(appends=[part("a\0b", 1)]),
    "a version without end": lambda: record(appends=[part("s", 2**64 - 1)]),
    "a bad append behind a good one": lambda: record(appends=[part("s", 1), part("s", 2**64 - 1)]),
    "a tag number without end": lambda: record(appends=[part("s{t}", 1, first_tag_number=2**64 - 1)]),
    "a mark without a name": lambda: record(appends=[moving("", 1, 1)]),
    "a mark too long": lambda: record(appends=[moving("m" * 129, 1, 1)]),
    "a mark that ends a key": lambda: record(appends=[moving("m\0", 1, 1)]),
    "a mark without end": lambda: record(appends=[moving("m", 2**64 - 1, 1)]),
    "a generation without end": lambda: record(appends=[moving("m", 1, 2**64 - 1)]),
    "a configuration that is none": lambda: record(kind=CONFIG, payload=b"\x01"),
}


@pytest.mark.parametrize("what", UNSTORABLE)
def test_a_record_that_cannot_be_stored_is_refused_on_arrival(what: str) -> None:
    message = append((1, 0), [UNSTORABLE[what]()], term=1)
    with pytest.raises(ProtocolError):
        decode_messages([16, [_unpacked(encode_message(message))]])


def _unpacked(item: bytes) -> list[object]:
    import msgpack

    unpacked: list[object] = msgpack.unpackb(item)
    return unpacked
