"""A condition that lasts, or flutters, costs few lines."""

from __future__ import annotations

from allsource.node.observe.reminder import CALM_US, LONGEST_US, Reminder

SECOND = 1_000_000


class Clock:
    now = 5 * SECOND

    def __call__(self) -> int:
        return self.now


def lines(reminder: Reminder, clock: Clock, seconds: int) -> list[int]:
    """The seconds in which a condition that is met four times a second is worth a line."""
    found = []
    for quarter in range(4 * seconds):
        if reminder.holds():
            found.append(quarter // 4)
        clock.now += SECOND // 4
    return found


def test_at_once_and_then_ever_more_seldom() -> None:
    clock = Clock()
    reminder = Reminder(clock)
    assert lines(reminder, clock, 40) == [0, 1, 3, 7, 15, 31]
    assert len(lines(reminder, clock, 24 * 3600)) < 24 * 3600 * SECOND // LONGEST_US + 8


def test_what_was_over_for_a_while_is_news_again() -> None:
    clock = Clock()
    reminder = Reminder(clock)
    lines(reminder, clock, 40)
    clock.now += CALM_US
    assert lines(reminder, clock, 4) == [0, 1, 3]
