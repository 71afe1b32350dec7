"""Placement is pure, so its promises are stated as properties and tried on many clusters."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from allsource.cluster.membership.placement import owners, replica_sets, succession


def names(n: int) -> tuple[str, ...]:
    return tuple(f"n{i}" for i in range(1, n + 1))


def spread(counts: Counter[str | None], among: list[str]) -> int:
    return max(counts[m] for m in among) - min(counts[m] for m in among)


members_lists = st.integers(1, 9).flatmap(lambda n: st.permutations(names(n)))


@pytest.mark.parametrize(("nodes", "each"), [(1, 32), (2, 16), (4, 8), (8, 4)])
def test_the_users_cluster_sizes(nodes: int, each: int) -> None:
    members = names(nodes)
    owned = owners(replica_sets(members, 32, 3), members)
    assert Counter(owned) == dict.fromkeys(members, each)
    assert owned[: nodes + 1] == (*members, members[0])[: nodes + 1], "round-robin, in members' order"


@given(members_lists, st.integers(1, 9), st.integers(0, 70))
def test_replica_sets_are_balanced_and_distinct(members: list[str], rf: int, partitions: int) -> None:
    sets = replica_sets(members, partitions, rf)
    assert [group[0] for group in sets] == [members[p % len(members)] for p in range(partitions)]
    for group in sets:
        assert len(group) == len(set(group)) == min(rf, len(members))
    assert spread(Counter(m for group in sets for m in group), members) <= 1


def test_followers_of_one_leader_spread_over_all_others() -> None:
    sets = replica_sets(names(5), 40, 2)
    followers = Counter(group[1] for group in sets if group[0] == "n1")
    assert followers == {"n2": 2, "n3": 2, "n4": 2, "n5": 2}


def test_replica_sets_of_five_nodes_are_these() -> None:
    """A change here moves stored data between the nodes of every existing cluster."""
    assert replica_sets(names(5), 7, 3) == (
        ("n1", "n2", "n3"),
        ("n2", "n3", "n4"),
        ("n3", "n4", "n5"),
        ("n4", "n5", "n1"),
        ("n5", "n1", "n2"),
        ("n1", "n3", "n4"),
        ("n2", "n4", "n5"),
    )


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="below 1"):
        replica_sets(("a",), 32, 0)
    with pytest.raises(ValueError, match="twice"):
        replica_sets(("a", "b", "a"), 32, 3)
    assert replica_sets((), 2, 3) == ((), ())


@given(members_lists, st.integers(1, 5), st.data())
def test_owners_move_only_when_their_node_is_lost(members: list[str], rf: int, data: st.DataObject) -> None:
    sets = replica_sets(members, 32, rf)
    before = owners(sets, members)
    lost = data.draw(st.sets(st.sampled_from(members)))
    healthy = [m for m in members if m not in lost]
    after = owners(sets, healthy)
    for partition, (was, now) in enumerate(zip(before, after, strict=True)):
        alive = [m for m in sets[partition] if m in healthy]
        assert now == was if was in healthy else (now in alive if alive else now is None)
    assert owners(sets, members) == before, "recovery restores exactly"


@given(members_lists, st.integers(1, 5), st.data())
def test_the_form_and_order_of_the_healthy_do_not_matter(
    members: list[str], rf: int, data: st.DataObject
) -> None:
    sets = replica_sets(members, 32, rf)
    healthy = data.draw(st.lists(st.sampled_from(members), unique=True))
    results = {owners(sets, form) for form in (healthy, frozenset(healthy), tuple(reversed(healthy)))}
    assert len(results) == 1


def even(counts: Counter[str | None], healthy: list[str]) -> list[int]:
    return sorted(counts[m] for m in healthy)


@given(st.integers(2, 4), st.integers(2, 3), st.integers(2, 8), st.data())
def test_no_other_deal_is_more_even(nodes: int, rf: int, partitions: int, data: st.DataObject) -> None:
    """Compared with every possible deal of the lost nodes' partitions, by brute force."""
    members = names(nodes)
    sets = data.draw(
        st.lists(
            st.permutations(members).map(lambda m: tuple(m[:rf])), min_size=partitions, max_size=partitions
        )
    )
    healthy = data.draw(st.lists(st.sampled_from(members), unique=True, min_size=1))
    ours = owners(sets, healthy)
    options = [
        [group[0]] if group[0] in healthy else [m for m in group if m in healthy] or [None]
        for group in sets
    ]
    best = min(sum(n * n for n in even(Counter(deal), healthy)) for deal in itertools.product(*options))
    assert sum(n * n for n in even(Counter(ours), healthy)) == best


def test_five_nodes_stay_within_one_after_one_and_two_losses() -> None:
    members = names(5)
    sets = replica_sets(members, 32, 3)
    for losses in (1, 2):
        for lost in itertools.combinations(members, losses):
            healthy = [m for m in members if m not in lost]
            after = owners(sets, healthy)
            assert None not in after, "two of five never keep all three replicas"
            assert spread(Counter(after), healthy) <= 1, f"lost {lost}: {Counter(after)}"


def test_three_nodes_share_the_partitions_of_the_lost_one() -> None:
    members = names(3)
    sets = replica_sets(members, 32, 3)
    after = owners(sets, ["n2", "n3"])
    assert Counter(after) == {"n2": 16, "n3": 16}
    assert owners(sets, []) == (None,) * 32


@given(members_lists, st.integers(1, 5), st.data())
def test_who_yields_leads_only_where_nobody_else_could(
    members: list[str], rf: int, data: st.DataObject
) -> None:
    sets = replica_sets(members, 32, rf)
    healthy = data.draw(st.sets(st.sampled_from(members)))
    yielding = data.draw(st.sets(st.sampled_from(members)))
    willing = healthy - yielding
    after = owners(sets, healthy, yielding)
    for group, owner in zip(sets, after, strict=True):
        if willing & set(group):
            assert owner in willing & set(group)
        else:
            assert (owner in group and owner in healthy) if healthy & set(group) else owner is None
    if all(willing & set(group) for group in sets):
        assert after == owners(sets, willing), "as if they were down"
    for group, owner in zip(sets, after, strict=True):
        order = succession(group, owner, healthy, yielding)
        assert set(order) == healthy & set(group)
        assert [member in yielding for member in order] == sorted(member in yielding for member in order)


def test_succession_is_owner_first_then_replica_order() -> None:
    group = ("a", "b", "c")
    assert succession(group, "a", {"a", "b", "c"}) == ("a", "b", "c")
    assert succession(group, "c", {"b", "c"}) == ("c", "b")
    assert succession(group, None, {"b"}) == ("b",)
    assert succession(group, "a", set()) == ()
    assert succession(group, "x", {"x", "b"}) == ("b",), "an owner from outside the set does not stand"
