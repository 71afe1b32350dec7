"""One group against the rules of RULES.md: each test is named by the rule that it shows."""

from __future__ import annotations

import pytest

from allsource.cluster.consensus.environment import ConsensusConfig
from allsource.cluster.consensus.lanes import Lanes
from allsource.cluster.consensus.messages import (
    Append,
    AppendReply,
    CommitNotice,
    GroupBeat,
    RequestVote,
    Role,
    TimeoutNow,
    VoteReply,
)
from allsource.storage.model.entry import NewAppend, decode_entry
from allsource.storage.model.log import HardState
from tests.cluster.consensus.lab import SECOND, Bench, entry, noop
from tests.storage.logs import part


def one_append(n: int = 1) -> list[NewAppend]:
    return [part("s", n)]


# -- rule 1: durability before speech


def test_rule_1_a_vote_is_spoken_only_from_the_durable_side() -> None:
    bench = Bench()
    bench.ask_vote("b", 1, (1, 0))
    assert bench.group.now_out == []
    assert bench.group.durable_out == [("b", VoteReply(0, 1, True, False))]
    write = bench.write()
    assert write is not None
    assert write.hard == HardState(1, "b", 1)


def test_rule_1_an_accepted_append_and_a_refused_one_wait_for_the_sync() -> None:
    bench = Bench()
    bench.append("b", 1, (1, 0), [noop(2, 1)])
    bench.append("b", 1, (7, 1), [])
    assert bench.group.now_out == []
    assert [m.accepted for _, m in bench.group.durable_out if isinstance(m, AppendReply)] == [True, False]


def test_rule_1_the_leader_counts_itself_only_when_its_own_disk_has_the_entry() -> None:
    bench = Bench()
    bench.elect()
    bench.accept("b")
    assert bench.group.commit == 2
    bench.group.propose(one_append(), 0)
    bench.accept("b", 3)
    assert bench.group.commit == 2, "one follower and an unsynced leader are no majority"
    bench.sync()
    assert bench.group.commit == 3


# -- rule 2: a sync acknowledges (term, index)


def test_rule_2_a_sync_of_an_overwritten_entry_says_nothing() -> None:
    bench = Bench()
    bench.append("b", 1, (1, 0), [noop(2, 1), entry(3, 1, 1)])
    bench.write()
    bench.append("c", 2, (1, 0), [noop(2, 2), entry(3, 2, 1)])
    bench.group.persisted(1, 3, bench.now)
    assert bench.group.durable_index == 1
    bench.write()
    bench.group.persisted(2, 3, bench.now)
    assert bench.group.durable_index == 3


# -- rule 3: only entries of the own term commit by counting


def test_rule_3_an_older_terms_entry_commits_only_with_one_of_the_own_term() -> None:
    """Raft, figure 8."""
    bench = Bench([1, 2])
    bench.elect()
    assert bench.group.term == 3
    bench.accept("b", 3)
    assert bench.group.commit == 1, "a majority has entry 3, but of term 2"
    bench.accept("b", 4)
    assert bench.group.commit == 4


# -- rule 4: truncation


def test_rule_4_a_late_append_truncates_nothing() -> None:
    bench = Bench()
    bench.append("b", 1, (1, 0), [noop(2, 1), entry(3, 1, 1), entry(4, 1, 2)])
    bench.append("b", 1, (1, 0), [noop(2, 1)])
    assert bench.group.log.last_index == 4


def test_rule_4_a_conflict_truncates_from_there_and_storage_is_told() -> None:
    bench = Bench([1, 1, 1])
    bench.append("b", 2, (2, 1), [entry(3, 2)])
    write = bench.write()
    assert write is not None
    assert write.truncate_from == 3
    assert [e.index for e in write.entries] == [3]
    assert bench.group.log.last_index == 3
    assert bench.group.log.next_position == 3


# -- rule 5: the follower's commit index


def test_rule_5_commit_follows_only_what_was_verified_against_this_leader() -> None:
    bench = Bench([1, 1, 1])
    bench.append("b", 2, (2, 1), [], commit=4)
    assert bench.group.commit == 2, "entries 3 and 4 may differ from the leader's"
    bench.append("b", 2, (2, 1), [entry(3, 2)], commit=1)
    assert bench.group.commit == 2, "never back"


def test_rule_5_what_the_leader_committed_is_known_before_it_can_be_followed() -> None:
    """How far a replica lags, for its operator: by an append, a notice, a beat."""
    bench = Bench()
    bench.append("b", 1, (1, 0), [noop(2, 1)], commit=5)
    assert (bench.group.commit, bench.group.leader_commit) == (2, 5)
    bench.step("b", CommitNotice(0, 1, 7))
    assert (bench.group.commit, bench.group.leader_commit) == (2, 7)
    bench.group.beat("b", GroupBeat(0, 1, "b", 9), bench.now)
    assert (bench.group.commit, bench.group.leader_commit) == (2, 9)
    bench.append("b", 1, (2, 1), [entry(3, 1, 1)], commit=3)
    assert (bench.group.commit, bench.group.leader_commit) == (3, 9)


def test_a_leader_tells_how_far_its_followers_are_behind() -> None:
    bench = Bench()
    bench.elect()

    def told() -> dict[str, tuple[int | None, bool]]:
        assert bench.group.leadership is not None
        return {f.follower: (f.lag, f.replicating) for f in bench.group.leadership.followers()}

    assert told() == {"b": (None, False), "c": (None, False)}, "nobody has answered yet"
    bench.accept("b", 1)
    bench.accept("c")
    assert told() == {"b": (1, True), "c": (0, True)}
    bench.group.propose(one_append(), 0)
    assert told() == {"b": (2, True), "c": (1, True)}
    bench.group.peer_reachable("c", bench.now)
    assert told() == {"b": (2, True), "c": (1, False)}, "what was under way to it is lost"


def test_rule_5_what_an_older_leader_verified_does_not_count_for_the_next() -> None:
    bench = Bench()
    bench.append("b", 1, (1, 0), [noop(2, 1), entry(3, 1, 1)])
    bench.step("c", CommitNotice(0, 2, 3))
    bench.append("c", 2, (1, 0), [], commit=3)
    assert bench.group.commit == 1


def test_rule_5_a_failed_candidacy_does_not_keep_the_old_verification() -> None:
    bench = Bench()
    bench.append("b", 1, (1, 0), [noop(2, 1), entry(3, 1, 1)])
    bench.group.leader_down("b", bench.now)
    bench.pass_time(SECOND)
    bench.step("c", VoteReply(0, 2, True, True))
    assert bench.group.role == Role.CANDIDATE
    bench.append("c", 2, (1, 0), [], commit=3)
    assert bench.group.commit == 1


# -- rules 11 and 12: pre-vote, CheckQuorum, stickiness


def test_rule_11_a_pre_vote_changes_neither_term_nor_vote() -> None:
    bench = Bench()
    bench.ask_vote("b", 9, (1, 0), pre=True)
    assert bench.last_sent() == ("b", VoteReply(0, 9, True, True))
    assert (bench.group.term, bench.group.vote) == (0, "")
    assert bench.write() is None


def test_rule_11_an_old_leader_is_answered_and_steps_down() -> None:
    old = Bench()
    old.elect()
    new = Bench(hard=HardState(5, "", 1))
    new.append("a", 1, (1, 0), [])
    _, reply = new.last_sent()
    assert isinstance(reply, AppendReply)
    old.step("b", reply)
    assert old.group.leadership is None
    assert old.group.term == 5


def test_rule_11_a_leader_without_an_answering_majority_steps_down() -> None:
    bench = Bench()
    bench.elect()
    bench.pass_time(300_000)
    assert bench.group.leadership is not None
    bench.pass_time(300_000)
    assert bench.group.leadership is None


def test_rule_11_beats_of_the_same_term_are_answers() -> None:
    bench = Bench()
    bench.elect()
    bench.accept("b")
    for _ in range(20):
        bench.group.beat("b", GroupBeat(0, bench.group.term, "a", 0), bench.now)
        bench.pass_time(100_000)
    assert bench.group.leadership is not None


def test_rule_12_a_voter_with_a_live_leader_refuses_and_keeps_its_term() -> None:
    bench = Bench()
    bench.append("b", 1, (1, 0), [])
    bench.ask_vote("c", 2, (9, 1))
    bench.ask_vote("c", 2, (9, 1), pre=True)
    assert bench.group.term == 1
    assert [m.granted for _, m in bench.sent() if isinstance(m, VoteReply)] == [False]


def test_rule_12_forgetting_the_leader_on_the_own_registrys_word_frees_the_vote() -> None:
    bench = Bench()
    bench.append("b", 1, (1, 0), [])
    bench.group.leader_down("c", bench.now)
    bench.ask_vote("c", 2, (9, 1))
    assert bench.group.term == 1, "it was another node that went down"
    bench.group.leader_down("b", bench.now)
    bench.ask_vote("c", 2, (9, 1))
    assert (bench.group.term, bench.group.vote) == (2, "c")


def test_rule_12_a_transfer_may_pass() -> None:
    bench = Bench()
    bench.append("b", 1, (1, 0), [])
    bench.ask_vote("c", 2, (9, 1), transfer=True)
    assert (bench.group.term, bench.group.vote) == (2, "c")


def test_rule_12_silence_longer_than_the_suspicion_time_frees_the_vote() -> None:
    bench = Bench()
    bench.append("b", 1, (1, 0), [])
    bench.now += bench.node.config.suspicion_us
    bench.ask_vote("c", 2, (9, 1))
    assert bench.group.vote == "c"


def test_a_vote_is_given_once_in_a_term_and_only_to_a_log_that_is_new_enough() -> None:
    bench = Bench([1, 2])
    bench.ask_vote("b", 3, (9, 1))
    assert bench.group.vote == "", "term 1 is older than our last entry's term 2"
    bench.ask_vote("b", 4, (3, 2))
    bench.ask_vote("c", 4, (3, 2))
    assert bench.group.vote == "b"
    granted = [(to, m.granted) for to, m in bench.sent() if isinstance(m, VoteReply)]
    assert granted == [("b", False), ("b", True), ("c", False)]


# -- rule 13: who stands when


def test_rule_13_the_first_successor_stands_at_once_the_next_a_stagger_later() -> None:
    for rank in (0, 2):
        bench = Bench()
        bench.node.place = rank
        bench.append("b", 1, (1, 0), [])
        bench.group.leader_down("b", bench.now)
        assert bench.group.deadline == bench.now + rank * bench.node.config.stagger_us


def test_rule_13_a_voter_whose_log_is_newer_than_the_candidates_stands_itself() -> None:
    bench = Bench([1, 1])
    bench.ask_vote("b", 2, (1, 0), pre=True)
    bench.pass_time(2_000)
    asked = [m for _, m in bench.sent() if isinstance(m, RequestVote)]
    assert asked
    assert all(m.pre for m in asked)


def test_rule_13_a_candidate_does_not_give_itself_up_before_the_disks_could_let_it_win() -> None:
    """Three syncs of 100 ms; the retry is 60 ms. The one whom the leader chose overtook itself."""
    bench = Bench()
    bench.node.sync = 100_000
    bench.append("b", 1, (1, 0), [])
    bench.step("b", TimeoutNow(0, 1))
    for _ in range(29):
        bench.pass_time(10_000)
        assert (bench.group.role, bench.group.term) == (Role.CANDIDATE, 2)
    bench.step("c", VoteReply(0, 2, True, False))
    assert bench.group.leadership is not None


def test_rule_13_a_voter_gives_its_candidate_the_time_of_the_syncs() -> None:
    bench = Bench()
    bench.node.sync = 100_000
    bench.ask_vote("b", 1, (1, 0))
    for _ in range(29):
        bench.pass_time(10_000)
        assert (bench.group.role, bench.group.term) == (Role.FOLLOWER, 1)
    bench.pass_time(10_000)
    assert bench.group.role == Role.PRECANDIDATE


def test_rule_13_however_slow_the_disk_a_node_stands_again_within_suspicion_times() -> None:
    bench = Bench()
    bench.node.sync = 60 * SECOND
    bench.ask_vote("b", 1, (1, 0))
    bench.pass_time(bench.node.config.suspicion_us)
    assert bench.group.role == Role.PRECANDIDATE


def test_rule_26_a_node_that_distrusts_itself_does_not_stand() -> None:
    bench = Bench()
    bench.node.trusted = False
    bench.pass_time(10 * SECOND)
    assert bench.sent() == []
    assert bench.group.role == Role.FOLLOWER


# -- rule 20: transfer


def test_rule_20_a_transfer_stops_proposals_waits_for_the_match_and_gives_up_in_time() -> None:
    bench = Bench()
    bench.elect()
    bench.accept("b")
    bench.group.propose(one_append(), 0)
    bench.group.transfer("b", bench.now)
    assert not bench.group.can_propose()
    assert not any(isinstance(m, TimeoutNow) for _, m in bench.sent())
    bench.accept("b")
    assert ("b", TimeoutNow(0, 1)) in bench.sent()
    for _ in range(8):
        bench.accept("b")
        bench.pass_time(100_000)
    assert bench.group.can_propose()


def _handing_over(behind: int) -> tuple[Bench, int]:
    """A leader that begins to hand over to b while so many entries are under way; the suspicion time."""
    bench = Bench()
    bench.elect()
    bench.accept("b")
    for _ in range(behind):
        bench.group.propose(one_append(), 0)
    bench.sync()
    bench.sent()
    bench.group.transfer("b", bench.now)
    return bench, bench.node.config.suspicion_us


def test_rule_20_a_transfer_goes_on_while_what_was_proposed_before_commits() -> None:
    """Seed 706632 of 24 November: five entries were always under way, and two or three of them committed in
    a suspicion time. Every hand-over was given up with some of them left. Appends refilled the queue, and
    the owner never got its partition. While a queue drains, nobody waits longer for the hand-over than he
    would have waited behind the queue."""
    bench, suspicion_us = _handing_over(behind=5)
    last = bench.group.log.last_index
    for index in range(last - 4, last + 1):
        bench.pass_time(suspicion_us - 1)
        assert not bench.group.can_propose()
        bench.accept("b", index)
    assert ("b", TimeoutNow(0, 1)) in bench.sent()


def test_rule_20_a_transfer_is_given_up_when_commits_have_stopped() -> None:
    bench, suspicion_us = _handing_over(behind=2)
    bench.pass_time(suspicion_us // 2)
    bench.accept("b", bench.group.log.last_index - 1)
    bench.pass_time(suspicion_us - 1)
    assert not bench.group.can_propose()
    bench.accept("c", 1)  # heard, and reached: nobody deposes the leader
    bench.pass_time(suspicion_us // 4)
    assert bench.group.can_propose()


def test_rule_20_a_transfer_does_not_wait_for_a_successor_that_alone_is_slow() -> None:
    """With c everything commits at once, and appends need not wait: how far b comes is no reason to."""
    bench, suspicion_us = _handing_over(behind=5)
    bench.accept("c")
    for index in range(bench.group.log.last_index - 4, bench.group.log.last_index - 1):
        bench.pass_time(suspicion_us // 2)
        bench.accept("c")
        bench.accept("b", index)
    assert bench.group.can_propose()


def test_rule_20_who_was_told_to_stand_has_the_time_that_an_election_needs() -> None:
    """The same seed: the successor was told in the last moment, and the leader proposed again 29 ms later.
    With that entry its log was the longer one. It refused its vote (rule 13), and was elected itself."""
    bench, suspicion_us = _handing_over(behind=1)
    bench.accept("c")  # the last commit
    bench.pass_time(suspicion_us - 1)
    bench.accept("b")
    assert ("b", TimeoutNow(0, 1)) in bench.sent()
    bench.pass_time(suspicion_us - 1)
    assert not bench.group.can_propose()
    bench.accept("b")
    bench.pass_time(suspicion_us // 4)
    assert bench.group.can_propose()


def test_rule_26_the_time_that_a_leader_slept_is_no_time_of_its_successor() -> None:
    bench, suspicion_us = _handing_over(behind=1)
    bench.now += 2 * suspicion_us
    bench.group.forgive(2 * suspicion_us, bench.now)
    bench.group.tick(bench.now)
    bench.accept("b")
    assert ("b", TimeoutNow(0, 1)) in bench.sent()


def test_rule_20_the_successor_stands_without_a_pre_vote() -> None:
    bench = Bench()
    bench.append("b", 1, (1, 0), [])
    bench.step("b", TimeoutNow(0, 1))
    asked = [m for _, m in bench.sent() if isinstance(m, RequestVote)]
    assert asked == [RequestVote(0, 2, 1, 0, False, True)] * 2


# -- rules 21 and 22: flow


def test_rule_21_probing_keeps_one_message_in_flight_replicating_a_window() -> None:
    bench = Bench(config=ConsensusConfig(inflight_messages_max=3))
    bench.elect()
    for n in range(5):
        bench.group.propose(one_append(n + 1), 0)
        assert not [to for to, m in bench.sent() if isinstance(m, Append)], "still probing"
    bench.accept("b", 2)
    bench.write()
    appends = [m for to, m in bench.sent() if to == "b" and isinstance(m, Append)]
    assert [e.index for e in appends[0].entries] == [3, 4, 5, 6, 7]
    for n in range(5):
        bench.group.propose(one_append(n + 6), 0)
        bench.sent()
    assert bench.group.leadership is not None
    assert bench.group.leadership.progress["b"].next == 10, "three messages under way, no more"


def test_rule_21_uncommitted_bytes_are_bounded() -> None:
    bench = Bench(config=ConsensusConfig(uncommitted_bytes_max=200))
    bench.elect()
    bench.accept("b")
    while bench.group.can_propose():
        bench.group.propose(one_append(), 0)
    assert 2 < bench.group.log.last_index < 9
    bench.sync()
    bench.accept("b")
    assert bench.group.can_propose()


def test_rule_22_a_refusal_skips_a_whole_term() -> None:
    follower = Bench([1, 1, 1, 1, 1])
    follower.append("b", 4, (6, 3), [])
    _, reply = follower.last_sent()
    assert reply == AppendReply(0, 4, False, 6, 1, 6)
    leader = Bench([1, 2, 2, 2, 2, 2])
    leader.elect()
    leader.refuse("b", 6, 1)
    _, probe = leader.last_sent()
    assert isinstance(probe, Append)
    assert (probe.prev_index, probe.prev_term) == (2, 1)


def test_rule_34_late_refusals_change_nothing() -> None:
    """Each led to one more probe, and each probe to a window of appends: a storm (seed 608733)."""
    bench = Bench([1] * 50)
    bench.elect()
    bench.refuse("b", 40, 1)
    assert [m.prev_index for to, m in bench.sent() if to == "b" and isinstance(m, Append)] == [40]
    for prev_index in (50, 49, 41, 39):  # none is the probe behind 40
        bench.step("b", AppendReply(0, bench.group.term, False, 30, 1, prev_index))
        assert bench.sent() == []
    bench.accept("b", 40)
    bench.sent()
    for prev_index in (20, 40):  # what it has by now
        bench.step("b", AppendReply(0, bench.group.term, False, 20, 1, prev_index))
        bench.group.propose(one_append(), 0)
        (append,) = [m for to, m in bench.sent() if to == "b" and isinstance(m, Append)]
        assert append.prev_index == bench.group.log.last_index - 1, "the window streams on"
    last = bench.group.log.last_index
    bench.step("b", AppendReply(0, bench.group.term, False, 40, 1, last - 1))
    assert [m.prev_index for to, m in bench.sent() if to == "b" and isinstance(m, Append)] == [40]


def test_rule_34_the_refusal_of_an_old_term_names_no_append() -> None:
    """Seed 730260 of 24 November, theme two_leaders: an append of n1's term 2, behind entry 28, came when
    n1 led again, in term 5, with 27 entries. A refusal of term 5 that named 28 was nonsense to n1."""
    follower = Bench([1, 1, 1])
    follower.append("b", 5, (4, 1), [])
    follower.sent()
    follower.append("b", 2, (28, 2), [])
    ((_, refusal),) = follower.sent()
    leader = Bench([1, 1, 1], hard=HardState(4, "", 1))
    leader.elect()
    assert leader.group.term == 5
    leader.step("b", refusal)
    assert leader.sent() == []


def test_rule_34_a_late_acceptance_ends_no_probe() -> None:
    bench = Bench([1] * 50)
    bench.elect()
    bench.accept("b", 40)
    bench.sent()
    bench.group.peer_reachable("b", bench.now)
    assert [m.prev_index for to, m in bench.sent() if to == "b" and isinstance(m, Append)] == [40]
    bench.accept("b", 30)
    assert bench.sent() == [], "the probe behind 40 is still the one message under way"


def test_a_follower_that_lost_messages_is_probed_again() -> None:
    bench = Bench()
    bench.elect()
    bench.accept("b")
    bench.group.propose(one_append(), 0)
    assert [to for to, m in bench.sent() if isinstance(m, Append)] == ["b"]
    bench.group.peer_reachable("b", bench.now)
    again = [m for to, m in bench.sent() if to == "b" and isinstance(m, Append)]
    assert [e.index for e in again[0].entries] == [3]


def test_rule_23_entries_from_disk_wait_for_the_budget() -> None:
    bench = Bench([1] * 50)
    bench.node.disk_budget = False
    bench.elect()
    bench.refuse("b", 5, 1)
    assert [m for to, m in bench.sent() if to == "b"] == []
    bench.node.disk_budget = True
    _, append = bench.last_sent()
    assert isinstance(append, Append)
    assert decode_entry(append.records[0]).index == 6


def test_rule_25_a_beat_vouches_for_the_leader_only_in_the_same_term() -> None:
    bench = Bench()
    bench.append("b", 2, (1, 0), [])
    bench.now += bench.node.config.suspicion_us - 1
    bench.group.beat("b", GroupBeat(0, 1, "b", 0), bench.now)
    bench.now += 1
    bench.ask_vote("c", 3, (1, 0))
    assert bench.group.vote == "c", "a beat of term 1 says nothing of term 2"


def test_a_single_voter_leads_and_commits_with_its_own_disk() -> None:
    bench = Bench(voters=("a",))
    bench.pass_time(SECOND)
    assert bench.group.role == Role.CANDIDATE, "its own vote is not durable yet (rule 1)"
    bench.sync()
    assert bench.group.role == Role.LEADER
    assert bench.group.commit == 1
    bench.sync()
    assert bench.group.commit == 2


def test_rule_1_what_was_truncated_before_it_was_written_is_not_acknowledged() -> None:
    """Found by simulation, seed 2000645: one turn brought entries of one leader and their truncation by
    the next; the first acknowledgement went out after the sync, for an entry that never was on the disk."""
    bench = Bench()
    bench.append("b", 1, (1, 0), [noop(2, 1), entry(3, 1, 1)])
    bench.append("c", 2, (1, 0), [noop(2, 2)])
    replies = [(to, m.term, m.index) for to, m in bench.sent() if isinstance(m, AppendReply)]
    assert replies == [("c", 2, 2)]


def test_rule_25_a_leader_whose_beat_says_that_it_leads_no_more_is_forgotten_at_once() -> None:
    """It stepped down, or is another process in the same term: nobody waits out its timeout."""
    bench = Bench()
    bench.append("b", 1, (1, 0), [])
    bench.group.beat("b", GroupBeat(0, 1, "", 0), bench.now)
    assert bench.group.leader is None
    bench.ask_vote("c", 2, (9, 1), pre=True)
    assert [m.granted for _, m in bench.sent() if isinstance(m, VoteReply)] == [True]


def test_rule_26_a_leader_heard_after_our_sleep_is_not_heard_in_the_future() -> None:
    bench = Bench()
    bench.append("b", 1, (1, 0), [])
    bench.now += SECOND
    bench.group.beat("b", GroupBeat(0, 1, "b", 0), bench.now)
    bench.group.forgive(SECOND, bench.now)
    bench.now += bench.node.config.suspicion_us
    bench.ask_vote("c", 2, (9, 1))
    assert bench.group.vote == "c", "silent for the whole suspicion time, it binds nobody"


def test_rule_26_followers_heard_after_our_sleep_are_not_heard_in_the_future() -> None:
    bench = Bench()
    bench.elect()
    bench.accept("b")
    bench.now += SECOND
    bench.accept("b")
    bench.group.forgive(SECOND, bench.now)
    bench.pass_time(bench.node.config.suspicion_us)
    assert bench.group.leadership is None, "CheckQuorum counts from when they were heard"


def test_rule_35_a_follower_counts_as_heard_only_if_it_follows() -> None:
    bench = Bench()
    bench.elect()
    bench.accept("b")
    for leader in ("a", "a", "a", "", "", ""):
        bench.group.beat("b", GroupBeat(0, bench.group.term, leader, 0), bench.now)
        bench.pass_time(100_000)
    assert bench.group.leadership is not None
    bench.group.beat("b", GroupBeat(0, bench.group.term, "", 0), bench.now)
    bench.pass_time(100_000)
    assert bench.group.leadership is None


def beats_of_a_follower(bench: Bench, count: int, last: int) -> None:
    for _ in range(count):
        bench.group.beat("b", GroupBeat(0, bench.group.term, "a", 0, last), bench.now)
        bench.pass_time(100_000)


def test_rule_35_a_leader_whose_entries_do_not_arrive_steps_down_and_lets_others_stand() -> None:
    bench = Bench()
    bench.elect()
    bench.accept("b")
    bench.group.propose(one_append(), 0)
    beats_of_a_follower(bench, 5, 2)
    assert bench.group.leadership is not None
    beats_of_a_follower(bench, 4, 2)
    assert bench.group.leadership is None
    stood = bench.group.term
    bench.pass_time(bench.node.config.suspicion_us)
    assert bench.group.role == Role.FOLLOWER, "the others stand first"
    bench.pass_time(2 * bench.node.config.suspicion_us)
    assert (bench.group.role, bench.group.term) == (Role.PRECANDIDATE, stood)


def test_rule_35_a_follower_that_is_asked_further_and_further_back_is_progress() -> None:
    """Its log differs in many terms, and each costs an exchange: together more than the suspicion time."""
    bench = Bench(terms=range(1, 9))
    bench.elect()
    for index in range(8, 2, -1):
        bench.refuse("b", index, index - 1)
        beats_of_a_follower(bench, 4, 2)
        assert bench.group.leadership is not None, index
    for _ in range(2):  # the same again: it leads nowhere
        bench.refuse("b", 2, 2)
        beats_of_a_follower(bench, 4, 2)
    assert bench.group.leadership is None


def test_rule_35_entries_that_wait_for_a_followers_disk_have_arrived() -> None:
    bench = Bench()
    bench.elect()
    bench.accept("b")
    bench.group.propose(one_append(), 0)
    beats_of_a_follower(bench, 40, 3)
    assert bench.group.leadership is not None
    beats_of_a_follower(bench, 40, 3)
    assert bench.group.leadership is None, "but not for ever"


def test_rule_35_a_large_entry_has_the_time_that_a_slow_link_needs() -> None:
    lanes = Lanes("bc", 500_000, 0)
    lanes.moved("b", 0)
    assert not lanes.moves("b", 0, 500_000)
    assert lanes.moves("b", 8 << 20, 2_400_000)
    assert not lanes.moves("b", 8 << 20, 2_500_000)
    assert not lanes.moves("c", 8 << 20, 0), "never seen to move"


def silent(bench: Bench, *peers: str) -> None:
    """The peers' beats pass, and their lanes answer no echo for a suspicion time."""
    for peer in peers:
        assert bench.node.lanes.echo_due(peer, bench.now + bench.node.config.suspicion_us) is not None
    bench.now += 2 * bench.node.config.suspicion_us
    for peer in ("b", "c"):
        bench.group.beat(peer, GroupBeat(0, bench.group.term, "a", 0), bench.now)


@pytest.mark.parametrize(
    ("silent_ones", "down", "leads"),
    [("b", "", True), ("bc", "", False), ("b", "c", False), ("", "bc", True), ("bc", "bc", True)],
)
def test_rule_35_an_idle_leader_steps_down_if_those_who_live_are_not_reached(
    silent_ones: str, down: str, leads: bool
) -> None:
    """It owes nobody anything. Where no majority lives, CheckQuorum judges, in its own time."""
    bench = Bench()
    bench.elect()
    for peer in ("b", "c"):
        bench.accept(peer)
    silent(bench, *silent_ones)
    bench.node.unreachable = set(down)
    bench.pass_time(1)
    assert (bench.group.leadership is not None) is leads
    assert bench.group.lets_others_lead(bench.now) is not leads


def test_rule_35_a_vote_shows_that_the_voters_lane_carries() -> None:
    bench = Bench()
    silent(bench, "b", "c")
    assert not bench.node.lane_carries("b", bench.now)
    bench.elect("b")
    assert bench.node.lane_carries("b", bench.now)


# -- rule 39: who is no voter in its own log takes no part in elections


def test_rule_39_one_that_is_no_voter_in_its_own_log_neither_votes_nor_stands() -> None:
    bench = Bench(voters=("b", "c", "d"))
    bench.ask_vote("b", 1, (1, 0))
    bench.ask_vote("b", 1, (1, 0), pre=True)
    assert [m.granted for _, m in bench.sent() if isinstance(m, VoteReply)] == [False, False]
    for _ in range(10):
        bench.pass_time(SECOND)
    assert bench.group.role == Role.FOLLOWER
    assert [m for _, m in bench.sent() if isinstance(m, RequestVote)] == []
