"""The bounded cache of two generations: what it keeps, what it forgets, what it never loses."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from allsource.storage.model.recent import Recent

KEYS = st.integers(0, 12)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), KEYS),
        st.tuples(st.just("add"), KEYS),
        st.tuples(st.just("get"), KEYS),
        st.tuples(st.just("drop"), KEYS),
        st.tuples(st.sampled_from(["age", "clear"]), st.just(0)),
    ),
    max_size=80,
)


def take(step: str, key: int, value: int, cache: Recent[int, int], truth: dict[int, int]) -> set[int]:
    """Take a step; returns the keys that must be there behind it, whatever was there before."""
    match step:
        case "put":
            cache.put(key, value)
            truth[key] = value
        case "add":
            cache[key] = value
            truth[key] = value
            return {key}
        case "get":
            assert cache[key] in (None, truth.get(key))
        case "drop":
            cache.drop([key])
            truth.pop(key, None)
        case "age":
            cache.age()
        case "clear":
            cache.clear()
            truth.clear()
    return set()


@given(STEPS, st.integers(1, 5))
def test_what_is_found_is_the_newest_and_what_was_added_since_the_last_ageing_is_found(
    steps: list[tuple[str, int]], size_max: int
) -> None:
    cache: Recent[int, int] = Recent(size_max)
    truth: dict[int, int] = {}
    fresh: set[int] = set()
    for value, (step, key) in enumerate(steps):
        fresh = fresh if step in ("add", "get") else fresh - {key} if step == "drop" else set()
        fresh |= take(step, key, value, cache, truth)
        for one in fresh:
            assert cache[one] == truth[one]
    for one in range(13):
        assert cache[one] in (None, truth.get(one))


@given(st.lists(KEYS, max_size=100), st.integers(1, 5))
def test_it_holds_two_generations_at_most(keys: list[int], size_max: int) -> None:
    cache: Recent[int, int] = Recent(size_max)
    for key in keys:
        cache.put(key, key)
        assert len(cache) < size_max
        assert len(cache._old) <= size_max


def test_what_is_used_stays_and_what_is_not_goes() -> None:
    cache: Recent[str, int] = Recent(10)
    cache.put("hot", 1)
    cache.put("cold", 2)
    for number in range(100):
        cache.put(str(number), number)
        assert cache["hot"] == 1
    assert cache["cold"] is None


def test_values_count_by_their_size() -> None:
    cache: Recent[int, bytes] = Recent(100, len)
    for number in range(50):
        cache.put(number, bytes(30))
        held = [*cache.values(), *cache._old.values()]
        assert sum(len(value) for value in held if value) <= 2 * (100 + 30)
    assert cache[49] == bytes(30)
    assert cache[40] is None


def test_what_moves_up_counts_as_young() -> None:
    cache: Recent[int, bytes] = Recent(100, len)
    cache.put(0, bytes(99))
    cache.put(1, bytes(1))  # both are old now
    assert cache[0] == bytes(99)
    cache.put(2, bytes(1))  # and again: what moved up has filled the young generation
    assert not cache
    assert cache[2] == bytes(1)


def test_dropped_values_do_not_come_back_from_the_old_generation() -> None:
    cache: Recent[int, int] = Recent(2)
    cache.put(1, 1)
    cache.put(2, 2)
    cache.put(1, 3)
    cache.drop([1])
    assert cache[1] is None
    cache.clear()
    assert cache[2] is None
