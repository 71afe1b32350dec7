"""Linearizable reads: who confirms, what a confirmed read sees, and when it must not be served."""

from __future__ import annotations

from allsource.cluster.consensus.messages import (
    AppendReply,
    GroupBeat,
    ReadResult,
    ReadRound,
    ReadRoundReply,
    Role,
)
from allsource.cluster.consensus.reads import ReadRounds
from tests.cluster.consensus.lab import Bench
from tests.storage.logs import part


def leader(commit: bool = True) -> tuple[Bench, ReadRounds]:
    bench = Bench()
    bench.elect()
    if commit:
        bench.accept("b")
    return bench, ReadRounds("a", {0: bench.group}, retry_us=100_000, incarnation=1)


START = 1 << 32
"""Where the rounds of a first process begin."""


def answer(number: int, term: int = 1) -> ReadRoundReply:
    """A peer's word that the asker still leads partition 0, in answer to its `number`th round."""
    return ReadRoundReply(START + number, [(0, term)])


def propose(bench: Bench) -> int:
    bench.group.propose([part("s", 1)], 0)
    bench.sync()
    return bench.group.log.last_index


def test_a_majority_confirms_and_the_read_sees_the_commit_of_when_its_round_began() -> None:
    _, reads = leader()
    reads.ask(0, "r", 0)
    questions = list(reads.begin(0))
    assert questions == [("b", ReadRound(START + 1, [(0, 1)])), ("c", ReadRound(START + 1, [(0, 1)]))]
    assert reads.take_results() == []
    reads.on_reply("c", answer(1), 0)
    assert reads.take_results() == [ReadResult("r", 0, 2, True)]


def test_a_read_that_comes_after_the_question_needs_the_next_one() -> None:
    _, reads = leader()
    reads.ask(0, "early", 0)
    list(reads.begin(0))
    reads.ask(0, "late", 0)
    reads.on_reply("b", answer(1), 0)
    assert [r.ticket for r in reads.take_results()] == ["early"]


def test_no_read_before_an_entry_of_the_own_term_is_committed() -> None:
    bench, reads = leader(commit=False)
    reads.ask(0, "r", 0)
    assert list(reads.begin(0)) == []
    bench.accept("b")
    assert len(list(reads.begin(0))) == 2


def test_an_answer_to_an_older_round_confirms_nothing() -> None:
    _, reads = leader()
    reads.ask(0, "r", 0)
    list(reads.begin(0))
    assert reads.retry(200_000)
    assert [m.round for _, m in reads.begin(200_000) if isinstance(m, ReadRound)] == [START + 2] * 2
    reads.on_reply("b", answer(1), 200_000)
    assert reads.take_results() == []
    reads.on_reply("b", answer(2), 200_000)
    assert [r.ok for r in reads.take_results()] == [True]


def test_an_answer_to_an_earlier_process_of_this_node_confirms_nothing() -> None:
    """The third round of the earlier one is answered when the next one has asked three times."""
    bench, _ = leader()
    reads = ReadRounds("a", {0: bench.group}, retry_us=100_000, incarnation=2)
    for moment in (0, 200_000, 400_000):
        reads.retry(moment)
        if not moment:
            reads.ask(0, "r", 0)
        numbers = [m.round for _, m in reads.begin(moment) if isinstance(m, ReadRound)]
    assert numbers == [2 * START + 3] * 2
    reads.on_reply("b", answer(3), 400_000)
    assert reads.take_results() == []


def test_an_answer_in_another_term_than_the_question_confirms_nothing() -> None:
    _, reads = leader()
    reads.ask(0, "r", 0)
    list(reads.begin(0))
    for term in (0, 2):
        reads.on_reply("b", answer(1, term), 0)
    assert reads.take_results() == []
    reads.on_reply("b", answer(1), 0)
    assert [r.ok for r in reads.take_results()] == [True]


def test_lost_leadership_refuses_waiting_asked_and_early_reads() -> None:
    bench, reads = leader()
    reads.ask(0, "early", propose(bench))
    list(reads.begin(0))
    reads.on_reply("b", answer(1), 0)
    reads.ask(0, "asked", 0)
    list(reads.begin(0))
    reads.ask(0, "waiting", 0)
    bench.group.beat("b", GroupBeat(0, 9, "b", 0), 0)
    reads.lost(0)
    results = reads.take_results()
    assert {r.ticket for r in results} == {"early", "asked", "waiting"}
    assert not any(r.ok for r in results)
    reads.ask(0, "too late", 0)
    assert [r.ok for r in reads.take_results()] == [False]


def test_a_read_waits_for_the_index_that_it_must_see() -> None:
    bench, reads = leader()
    index = propose(bench)
    reads.ask(0, "r", index)
    list(reads.begin(0))
    reads.on_reply("b", answer(1), 0)
    assert reads.take_results() == []
    bench.accept("b")
    reads.committed(0)
    assert reads.take_results() == [ReadResult("r", 0, index, True)]


def test_a_read_of_what_the_log_does_not_hold_ends_with_the_proof_that_it_does_not() -> None:
    """Waiting for it would be waiting for ever, and was looked at again with every commit."""
    bench, reads = leader()
    index = propose(bench)
    for wanted in (index + 1, 10**15):
        reads.ask(0, wanted, wanted)
    list(reads.begin(0))
    assert reads.take_results() == [], "a leader that was deposed may lack what others acknowledged"
    (number,) = reads._rounds
    reads.on_reply("b", ReadRoundReply(number, [(0, bench.group.term)]), 0)
    assert reads.take_results() == [ReadResult(wanted, 0, 2, True) for wanted in (index + 1, 10**15)]
    assert not reads._confirmed


def test_a_commit_serves_the_early_reads_that_it_covers_in_order_of_their_index() -> None:
    bench, reads = leader()
    first, second = propose(bench), propose(bench)
    for ticket, index in (("late", second), ("soon", first), ("late too", second)):
        reads.ask(0, ticket, index)
    list(reads.begin(0))
    (number,) = reads._rounds
    reads.on_reply("b", ReadRoundReply(number, [(0, bench.group.term)]), 0)
    bench.step("b", AppendReply(0, bench.group.term, True, first, 0))
    reads.committed(0)
    assert [r.ticket for r in reads.take_results()] == ["soon"]
    bench.step("b", AppendReply(0, bench.group.term, True, second, 0))
    reads.committed(0)
    assert [r.ticket for r in reads.take_results()] == ["late", "late too"]


def followed_for(bench: Bench, reads: ReadRounds, beats: int, *, delay: int = 0) -> None:
    """Both followers' beats say that they follow; with a delay, `b` answers every question so late."""
    answers: list[tuple[int, ReadRoundReply]] = []
    for _ in range(beats * 10):
        reads.retry(bench.now)
        for peer, question in reads.begin(bench.now):
            if peer == "b" and delay and isinstance(question, ReadRound):
                answers.append((bench.now + delay, ReadRoundReply(question.round, question.groups)))
        while answers and answers[0][0] <= bench.now:
            if reads.on_reply("b", answers.pop(0)[1], bench.now):
                bench.node.lane_moved("b", bench.now)
        for peer in ("b", "c"):
            bench.group.beat(peer, GroupBeat(0, bench.group.term, "a", 0, 2), bench.now)
        bench.pass_time(10_000)


def test_rule_35_a_leader_whose_read_rounds_are_not_answered_steps_down() -> None:
    """Its beats pass, its questions hang, and nobody appends: the reads waited for ever."""
    bench, reads = leader()
    followed_for(bench, reads, 50)
    assert bench.group.leadership is not None, "nobody waits for anything"
    reads.ask(0, "r", 0)
    followed_for(bench, reads, 4)
    assert bench.group.leadership is not None
    followed_for(bench, reads, 4)
    assert bench.group.leadership is None
    stood = bench.group.term
    bench.pass_time(bench.node.config.suspicion_us)
    assert (bench.group.role, bench.group.term) == (Role.FOLLOWER, stood), "the others stand first"


def test_rule_35_reads_that_are_answered_now_and_then_depose_nobody() -> None:
    bench, reads = leader()
    for number in range(1, 11):
        reads.ask(0, number, 0)
        followed_for(bench, reads, 4)
        assert reads.on_reply("b", ReadRoundReply(max(reads._rounds), [(0, 1)]), bench.now)
        assert [r.ticket for r in reads.take_results()] == [number]
    followed_for(bench, reads, 50)
    assert bench.group.leadership is not None


def test_rule_35_a_read_that_waited_while_this_process_slept_is_not_held_against_anybody() -> None:
    bench, reads = leader()
    reads.ask(0, "r", 0)
    followed_for(bench, reads, 1)
    bench.now += 5_000_000
    bench.group.forgive(5_000_000, bench.now)
    bench.pass_time(0)
    assert bench.group.leadership is not None


def test_answers_that_take_longer_than_a_first_attempt_waits_are_not_in_vain() -> None:
    """Every attempt was given up after the same time, and its answers, that came later, counted nothing."""
    bench, reads = leader()
    for number in range(10):
        reads.ask(0, number, 0)
        followed_for(bench, reads, 8, delay=150_000)
        assert [r.ticket for r in reads.take_results()] == [number]
    assert bench.group.leadership is not None


def test_an_answer_confirms_the_rounds_before_its_own_too() -> None:
    bench, reads = leader()
    for ticket in ("lost", "answered"):
        reads.ask(0, ticket, 0)
        list(reads.begin(0))
    reads.on_reply("b", answer(2), 0)
    assert [r.ticket for r in reads.take_results()] == ["lost", "answered"]
    leadership = bench.group.leadership
    assert leadership is not None
    # Nothing is owed any more. With the first round's reads still asked for, it was deposed (seed 509494).
    assert leadership.asked(7) == 7


def test_a_round_whose_answers_are_late_holds_no_others_up() -> None:
    _, reads = leader()
    for moment in (0, 110_000, 210_000):
        reads.retry(moment)
        reads.ask(0, moment, 0)
        list(reads.begin(moment))
    reads.ask(0, "new", 0)
    assert list(reads.begin(320_000))


def test_rounds_are_few_and_shared() -> None:
    _, reads = leader()
    for n in range(10):
        reads.ask(0, n, 0)
        list(reads.begin(0))
    reads.on_reply("b", answer(1), 0)
    reads.on_reply("b", answer(2), 0)
    list(reads.begin(0))
    reads.on_reply("c", answer(3), 0)
    assert [r.ticket for r in reads.take_results()] == list(range(10))


def test_a_single_voter_confirms_itself() -> None:
    bench = Bench(voters=("a",))
    bench.pass_time(1_000_000)
    bench.sync()
    bench.sync()
    reads = ReadRounds("a", {0: bench.group}, retry_us=100_000, incarnation=1)
    reads.ask(0, "r", 0)
    assert list(reads.begin(0)) == []
    assert reads.take_results() == [ReadResult("r", 0, 2, True)]
