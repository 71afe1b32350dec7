"""Whose time events get: the own, unless a majority says otherwise."""

from __future__ import annotations

import pytest

from allsource.cluster.membership.clocks import DIFFERENCE_MAX_US, FRESH_US, ClusterClock

SECOND = 1_000_000
YEAR = 365 * 86_400 * SECOND
NOW = 50 * SECOND
WALL = 1_800_000_000 * SECOND


def clock(*peers_ahead: int) -> ClusterClock:
    made = ClusterClock()
    for number, ahead in enumerate(peers_ahead):
        made.heard(f"n{number + 2}", WALL + ahead, NOW)
    return made


@pytest.mark.parametrize("ahead", [YEAR, -YEAR, DIFFERENCE_MAX_US + SECOND])
def test_a_clock_that_differs_from_the_majoritys_is_not_used(ahead: int) -> None:
    assert clock(0, 1000).time(WALL + ahead, NOW) in (WALL, WALL + 1000)
    assert clock(0, 0, 5, 9).time(WALL + ahead, NOW) - WALL in range(10)


def test_clocks_that_agree_about_are_each_their_owners() -> None:
    assert clock(300_000, -200_000).time(WALL, NOW) == WALL
    assert clock(DIFFERENCE_MAX_US, DIFFERENCE_MAX_US).time(WALL, NOW) == WALL


def test_one_liar_moves_nobody() -> None:
    assert clock(YEAR, 0).time(WALL, NOW) == WALL
    assert clock(-YEAR, 0).time(WALL, NOW) == WALL


def test_between_two_the_earlier_counts() -> None:
    assert clock(-YEAR).time(WALL, NOW) == WALL - YEAR
    assert clock(YEAR).time(WALL, NOW) == WALL


def test_alone_there_is_nobody_to_ask() -> None:
    assert clock().time(WALL + YEAR, NOW) == WALL + YEAR


def test_a_jump_is_seen_before_the_next_beat_and_time_goes_on() -> None:
    watched = clock(0, 0)
    later = NOW + 3 * SECOND
    assert watched.time(WALL + 3 * SECOND + YEAR, later) == WALL + 3 * SECOND


def test_a_word_that_is_old_counts_no_more() -> None:
    later = NOW + FRESH_US + 1
    assert clock(0, 0).time(WALL + YEAR, later) == WALL + YEAR
