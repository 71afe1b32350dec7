"""Majorities: by examples, and by the property that makes them work, that any two share a voter."""

from __future__ import annotations

from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from allsource.cluster.consensus.quorum import cannot_win, has_majority, stored_by_majority
from allsource.storage.model.entry import Configuration

NODES = ("a", "b", "c", "d", "e")
voter_sets = st.sets(st.sampled_from(NODES), min_size=1).map(lambda s: tuple(sorted(s)))


def test_the_middle_of_the_ranked_matches_counts() -> None:
    three = Configuration(("a", "b", "c"))
    assert stored_by_majority(three, {"a": 9, "b": 5, "c": 1}) == 5
    assert stored_by_majority(three, {"a": 9}) == 0
    four = Configuration(("a", "b", "c", "d"))
    assert stored_by_majority(four, {"a": 9, "b": 9, "c": 3, "d": 1}) == 3, "two of four are no majority"
    two = Configuration(("a", "b"))
    assert stored_by_majority(two, {"a": 9, "b": 4}) == 4


def test_a_joint_configuration_needs_both_sets() -> None:
    joint = Configuration(("a", "b", "c"), outgoing=("c", "d", "e"))
    assert not has_majority(joint, {"a", "b"})
    assert has_majority(joint, {"a", "c", "d"})
    assert stored_by_majority(joint, {"a": 9, "b": 9, "c": 9}) == 0
    assert cannot_win(joint, {"d", "e"})


@given(voter_sets, st.one_of(st.just(()), voter_sets))
def test_two_majorities_share_a_voter(voters: tuple[str, ...], outgoing: tuple[str, ...]) -> None:
    configuration = Configuration(voters, outgoing=outgoing)
    winning = [
        set(group)
        for size in range(len(NODES) + 1)
        for group in combinations(NODES, size)
        if has_majority(configuration, group)
    ]
    assert all(one & other & {*voters, *outgoing} for one in winning for other in winning)


@given(voter_sets, voter_sets, st.dictionaries(st.sampled_from(NODES), st.integers(0, 9)))
def test_stored_by_majority_agrees_with_counting(
    voters: tuple[str, ...], outgoing: tuple[str, ...], match: dict[str, int]
) -> None:
    configuration = Configuration(voters, outgoing=outgoing)
    counted = [
        index
        for index in range(10)
        if has_majority(configuration, {node for node in NODES if match.get(node, 0) >= index})
    ]
    assert stored_by_majority(configuration, match) == max(counted)


@given(voter_sets, st.sets(st.sampled_from(NODES)))
def test_cannot_win_is_when_all_others_together_are_no_majority(
    voters: tuple[str, ...], refused: set[str]
) -> None:
    configuration = Configuration(voters)
    assert cannot_win(configuration, refused) == (not has_majority(configuration, set(NODES) - refused))
