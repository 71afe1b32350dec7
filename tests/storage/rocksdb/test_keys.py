"""Keys: their order is the order of what they stand for, and none can be taken for another."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from allsource.storage.model.entry import Place
from allsource.storage.model.log import HardState, MarkAt, StreamSlice, TagSlice
from allsource.storage.rocksdb import keys

partitions = st.integers(0, 2**16 - 1)
numbers = st.integers(0, 2**64 - 1)
small_numbers = st.integers(0, 2**32 - 1)
streams = st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=1, max_size=12)


def slice_key(partition: int, stream: str, version: int) -> bytes:
    return keys.prefix_of(partition, stream) + keys.pack_u64(version)


@given(st.lists(st.tuples(partitions, numbers), min_size=2, max_size=8))
def test_entries_sort_by_partition_and_index(places: list[tuple[int, int]]) -> None:
    packed = sorted(keys.entry_key(*place) for place in places)
    assert packed == [keys.entry_key(*place) for place in sorted(places)]
    assert [keys.index_of(key) for key in packed] == [index for _, index in sorted(places)]


@given(st.lists(st.tuples(partitions, streams, numbers), min_size=2, max_size=8))
def test_slices_sort_by_partition_stream_and_version(places: list[tuple[int, str, int]]) -> None:
    ordered = sorted(places, key=lambda place: (place[0], place[1].encode(), place[2]))
    assert sorted(slice_key(*place) for place in places) == [slice_key(*place) for place in ordered]


@given(partitions, streams, streams, numbers)
def test_a_streams_prefix_fits_no_other_stream(partition: int, one: str, other: str, version: int) -> None:
    fits = slice_key(partition, other, version).startswith(keys.prefix_of(partition, one))
    assert fits == (one == other)


@given(partitions, streams)
def test_streams_are_read_back(partition: int, stream: str) -> None:
    assert keys.stream_of(keys.stream_key(partition, stream)) == stream


@given(numbers, st.text(max_size=9), numbers)
def test_hard_states_go_there_and_back(term: int, vote: str, commit: int) -> None:
    hard = HardState(term, vote, commit)
    assert keys.unpack_hard(keys.pack_hard(hard)) == hard


@given(numbers, numbers, numbers, small_numbers, small_numbers)
def test_rows_go_there_and_back(first: int, index: int, number: int, part: int, count: int) -> None:
    key = keys.prefix_of(3, "a") + keys.pack_u64(first)
    row = StreamSlice(first, count, index, part, number)
    assert keys.slice_of(key, keys.pack_slice(index, part, count, number)) == row
    tagged = TagSlice(first, count, index, part)
    assert keys.tag_slice_of(key, keys.pack_tag_slice(index, part, count)) == tagged
    assert keys.place_of(keys.pack_place(index, part)) == Place(index, part)
    moved = keys.prefix_of(3, "a") + keys.pack_place(index, part)
    assert keys.move_of(moved, keys.pack_move(first, number)) == MarkAt(first, number, index, part)


def test_meta_keys_do_not_meet() -> None:
    made = [
        keys.INCARNATION,
        keys.hard_key(1),
        keys.term_key(1, 2),
        keys.configuration_key(1, 2),
        keys.named_key(""),
        keys.named_key("i"),
    ]
    assert len(set(made)) == len(made)
    assert keys.unpack_incarnation(keys.pack_incarnation(7, "ab")) == (7, "ab")


@pytest.mark.parametrize("family", keys.COLUMN_FAMILIES)
def test_the_layout_is_on_the_page(family: str) -> None:
    assert f"    {family} " in (keys.__doc__ or "")
