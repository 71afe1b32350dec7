"""Holdings: the sum is bounded, and who holds most pays for it."""

from __future__ import annotations

from allsource.cluster.budgets.holdings import Holdings


class Caller:
    def __init__(self, holdings: Holdings, size: int) -> None:
        self.holdings, self.size, self.dropped = holdings, size, False
        holdings.note(self, size)

    def held_bytes(self) -> int:
        return self.size

    def drop_as_worst(self, total: int) -> None:
        assert total > self.holdings.bytes_max
        self.dropped = True


def test_the_sum_is_bounded_and_the_worst_pay() -> None:
    holdings = Holdings(100)
    callers = [Caller(holdings, size) for size in (10, 60, 20, 5)]
    assert [caller.dropped for caller in callers] == [False] * 4
    assert holdings.is_tight
    late = Caller(holdings, 50)
    assert [caller.dropped for caller in (*callers, late)] == [False, True, False, False, False]
    assert holdings.total == 85


def test_before_anybody_pays_all_are_asked() -> None:
    """What a transport has sent since is noted late."""
    holdings = Holdings(100)
    first = Caller(holdings, 90)
    first.size = 0
    second = Caller(holdings, 90)
    assert not first.dropped
    assert not second.dropped
    assert (holdings.total, holdings.holders()) == (90, (second,))


def test_who_has_left_or_taken_what_was_held_is_not_counted() -> None:
    holdings = Holdings(100)
    one, other = Caller(holdings, 40), Caller(holdings, 40)
    holdings.note(one, 0)
    holdings.forget(other)
    holdings.forget(other)
    assert (holdings.total, holdings.holders()) == (0, ())
