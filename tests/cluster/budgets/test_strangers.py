"""Who has to go when too many have shown nothing yet."""

from __future__ import annotations

import random

import pytest

from allsource.cluster.budgets.strangers import Strangers, origin_of


def test_the_oldest_goes_when_there_is_one_address() -> None:
    strangers: Strangers[int] = Strangers(3)
    assert [strangers.add(number, "a") for number in range(6)] == [None, None, None, 0, 1, 2]
    assert len(strangers) == 3


def test_the_address_that_has_most_loses_one() -> None:
    strangers: Strangers[str] = Strangers(4)
    for name in ("b1", "a1", "a2", "a3"):
        assert strangers.add(name, name[0]) is None
    assert strangers.add("c1", "c") == "a1"
    assert strangers.add("c2", "c") == "a2"


def test_a_flood_puts_out_its_own_only() -> None:
    strangers: Strangers[str] = Strangers(8)
    for name in ("x1", "y1", "y2"):
        strangers.add(name, name[0])
    gone = [strangers.add(f"a{number}", "a") for number in range(1000)]
    assert all(name is None or name.startswith("a") for name in gone)


def test_who_left_is_not_put_out() -> None:
    strangers: Strangers[int] = Strangers(2)
    strangers.add(1, "a")
    strangers.add(2, "a")
    strangers.remove(1)
    strangers.remove(1)
    assert strangers.add(3, "a") is None
    assert strangers.add(4, "a") == 2


@pytest.mark.parametrize("seed", range(5))
def test_there_are_never_more_than_allowed_and_none_is_forgotten(seed: int) -> None:
    chance = random.Random(seed)
    strangers: Strangers[int] = Strangers(10)
    inside: set[int] = set()
    for number in range(2000):
        if inside and chance.random() < 0.4:
            leaver = chance.choice(sorted(inside))
            strangers.remove(leaver)
            inside.remove(leaver)
        put_out = strangers.add(number, chance.choice("abcdefghijklmnop"))
        inside.add(number)
        if put_out is not None:
            inside.remove(put_out)
        assert len(strangers) == len(inside) <= 10
    for one in inside:
        strangers.remove(one)
    assert len(strangers) == 0
    assert not strangers._by_origin


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (("10.0.0.1", 5), ("10.0.0.1", 6), True),
        (("10.0.0.1", 5), ("10.0.0.2", 5), False),
        (("2001:db8::1", 5, 0, 0), ("2001:db8::2", 5, 0, 0), True),
        (("2001:db8::1", 5, 0, 0), ("2001:db8:0:1::1", 5, 0, 0), False),
        (("::ffff:10.0.0.1", 5, 0, 0), ("::ffff:10.0.0.2", 5, 0, 0), False),
        (("fe80::1%eth0", 5, 0, 2), ("fe80::2%eth0", 5, 0, 2), True),
        (None, "", True),
    ],
)
def test_where_somebody_comes_from(one: object, other: object, same: bool) -> None:
    assert (origin_of(one) == origin_of(other)) is same
