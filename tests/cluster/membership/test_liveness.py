"""The failure detector, told as what happened when; times in milliseconds for the reader's sake."""

from __future__ import annotations

import random

import pytest

from allsource.cluster.membership.liveness import DOWN, SUSPECT, UP, FailureDetector

MS = 1000
HEARTBEAT, SUSPICION = 100 * MS, 500 * MS


def detector(*peers: str, now: int = 0) -> FailureDetector:
    return FailureDetector("me", peers or ("a",), heartbeat_us=HEARTBEAT, suspicion_us=SUSPICION, now=now)


def run_until(
    d: FailureDetector, start: int, end: int, beating: tuple[str, ...] = ()
) -> list[tuple[int, str, str]]:
    """Tick as the contract asks, with beats each heartbeat interval; the changes with their times (ms)."""
    seen, now, beat_at = [], start, start
    while now < end:
        now = max(now, min(d.next_deadline(), beat_at + HEARTBEAT, end))
        if now == beat_at + HEARTBEAT:
            beat_at = now
            for peer in beating:
                d.heard(peer, now)
        seen += [(now // MS, peer, state) for peer, state in d.tick(now)]
    return seen


def test_nobody_is_up_before_contact_and_silence_from_the_start_is_death() -> None:
    d = detector()
    assert d.state("a") == SUSPECT
    assert not d.is_up("a")
    assert run_until(d, 0, 499 * MS) == []
    assert run_until(d, 499 * MS, 600 * MS) == [(500, "a", DOWN)]


def test_a_handshake_makes_a_peer_up_and_beats_keep_it_up() -> None:
    d = detector("a", "b")
    d.heard("a", 10 * MS)
    assert d.is_up("a")
    assert run_until(d, 10 * MS, 3000 * MS, beating=("a",)) == [(10, "a", UP), (500, "b", DOWN)]


def test_silence_is_first_a_suspicion_then_death() -> None:
    d = detector()
    d.heard("a", 0)
    assert run_until(d, 0, 1000 * MS) == [(0, "a", UP), (250, "a", SUSPECT), (500, "a", DOWN)]


def test_suspicion_needs_two_missed_heartbeats_when_beats_are_slow() -> None:
    d = FailureDetector("me", ["a"], heartbeat_us=200 * MS, suspicion_us=500 * MS, now=0)
    d.heard("a", 0)
    d.tick(100 * MS)
    d.tick(300 * MS)
    assert d.tick(399 * MS) == []
    assert d.tick(400 * MS) == [("a", SUSPECT)]


def test_eof_is_a_hint_and_a_refused_reconnect_is_death() -> None:
    d = detector()
    d.heard("a", 0)
    d.tick(0)
    d.lost("a", 10 * MS)
    assert d.tick(10 * MS) == [("a", SUSPECT)]
    d.refused("a", 11 * MS)
    assert d.tick(11 * MS) == [("a", DOWN)]


def test_a_reconnect_after_eof_clears_the_suspicion() -> None:
    d = detector()
    d.heard("a", 0)
    d.tick(0)
    d.lost("a", 10 * MS)
    d.heard("a", 12 * MS)
    d.refused("a", 13 * MS)
    assert d.tick(13 * MS) == [], "up again before anybody was told, and a stale refusal is not believed"
    assert d.is_up("a")


def test_eof_without_refusal_becomes_death_by_silence_only() -> None:
    d = detector()
    d.heard("a", 100 * MS)
    d.lost("a", 110 * MS)
    assert run_until(d, 110 * MS, 1000 * MS) == [(600, "a", DOWN)]


def test_a_peer_that_was_never_connected_is_down_when_refused() -> None:
    d = detector()
    d.refused("a", 5 * MS)
    assert d.tick(5 * MS) == [("a", DOWN)]
    d.lost("a", 6 * MS)
    assert d.state("a") == DOWN, "EOF does not raise the dead"
    assert d.tick(200 * MS) == d.tick(400 * MS) == d.tick(600 * MS) == [], "nor does time"
    d.heard("a", 650 * MS)
    assert d.tick(650 * MS) == [("a", UP)]


def test_the_first_tick_tells_of_nobody_who_did_not_change() -> None:
    d = detector("a", "b")
    assert d.tick(0) == []


def test_our_own_sleep_kills_nobody() -> None:
    d = detector("a", "b")
    d.heard("a", 0)
    d.heard("b", 0)
    run_until(d, 0, 400 * MS, beating=("a", "b"))
    woke = 30_400 * MS
    assert d.distrusts_itself(woke), "even before the tick that is overdue"
    assert d.tick(woke) == []
    assert d.is_up("a")
    assert d.distrusts_itself(woke + 249 * MS)
    assert run_until(d, woke, woke + 249 * MS, beating=("b",)) == [], (
        "still distrusts itself: nobody is declared dead"
    )
    later = run_until(d, woke + 249 * MS, woke + 1000 * MS, beating=("b",))
    assert [(peer, state) for _, peer, state in later] == [("a", SUSPECT), ("a", DOWN)]
    assert not d.distrusts_itself(woke + 1000 * MS)


def test_who_was_silent_before_our_sleep_is_not_declared_dead_right_after_it() -> None:
    d = detector()
    d.heard("a", 0)
    run_until(d, 0, 490 * MS)
    woke = 2000 * MS
    assert d.tick(woke) == []
    assert run_until(d, woke, woke + 249 * MS) == []
    assert d.state("a") == SUSPECT
    assert run_until(d, woke + 249 * MS, woke + 1000 * MS) == [(2250, "a", DOWN)]


def test_a_gap_of_half_the_suspicion_time_is_no_stall() -> None:
    d = detector()
    d.tick(250 * MS)
    assert not d.distrusts_itself(250 * MS)
    assert d.tick(500 * MS) == [("a", DOWN)]


def test_what_was_heard_just_after_a_sleep_does_not_count_from_the_future() -> None:
    d = detector()
    d.heard("a", 0)
    d.tick(0)
    woke = 10_000 * MS
    d.heard("a", woke)
    d.tick(woke)
    seen = run_until(d, woke, woke + 2000 * MS)
    assert seen == [(10_250, "a", SUSPECT), (10_500, "a", DOWN)]


def test_eof_and_refusal_are_facts_also_right_after_our_own_sleep() -> None:
    d = detector()
    d.heard("a", 0)
    d.tick(0)
    d.tick(5000 * MS)
    d.lost("a", 5001 * MS)
    d.refused("a", 5002 * MS)
    assert d.tick(5002 * MS) == [("a", DOWN)]


def test_self_is_up_and_never_judged() -> None:
    d = FailureDetector("me", ["me", "a"], heartbeat_us=HEARTBEAT, suspicion_us=SUSPICION, now=0)
    assert d.is_up("me")
    assert [peer for _, peer, _ in run_until(d, 0, 2000 * MS)] == ["a"]


def test_peers_join_and_leave() -> None:
    d = detector("a")
    d.watch("b", 100 * MS)
    d.watch("me", 100 * MS)
    d.forget("a")
    assert run_until(d, 100 * MS, 2000 * MS) == [(600, "b", DOWN)]
    with pytest.raises(KeyError):
        d.state("a")


def test_times_that_make_no_sense() -> None:
    with pytest.raises(ValueError, match="heartbeat"):
        FailureDetector("me", ["a"], heartbeat_us=500, suspicion_us=500, now=0)


@pytest.mark.parametrize("seed", range(50))
def test_a_beating_peer_is_never_declared_dead_and_a_silent_one_in_time(seed: int) -> None:
    """Random lateness of our own loop and of the beats. Replay: the seed is the parameter."""
    draw = random.Random(seed)
    d = detector("beats", "dies")
    now, stalled, died_at, told_at = 0, False, 3000 * MS, None
    next_beat = 0
    while now < 10_000 * MS:
        lag = draw.choice((0, 0, 0, 1, 20, 60, draw.randrange(700))) * MS
        ticked_at, now = now, min(d.next_deadline(), next_beat) + lag
        stalled = stalled or (now - ticked_at > SUSPICION // 2 and now > died_at and told_at is None)
        if now >= next_beat:
            d.heard("beats", now)
            if now < died_at:
                d.heard("dies", now)
            next_beat = now + HEARTBEAT + draw.randrange(100) * MS
        for peer, state in d.tick(now):
            assert (peer, state) != ("beats", DOWN), f"seed {seed} at {now}"
            if (peer, state) == ("dies", DOWN):
                assert now >= died_at, f"seed {seed}"
                told_at = now
    assert told_at is not None, f"seed {seed}: never declared dead"
    if not stalled:
        assert told_at - died_at <= SUSPICION + SUSPICION // 2, f"seed {seed}: {told_at - died_at} us"
