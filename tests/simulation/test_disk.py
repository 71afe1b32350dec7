"""The simulated disk forgets exactly what it may, and its indexes are its log's."""

from __future__ import annotations

from random import Random

import pytest

from allsource.storage.model.entry import EVENTS, Entry, Mark, Place, make_entry
from allsource.storage.model.log import HardState, PartitionWrite
from tests.simulation.disk import Index, SimDisk, chunks_of, ids_of
from tests.storage.logs import new_append


def _entry(index: int, term: int = 1) -> Entry:
    event_id = bytes([term]) * 8 + index.to_bytes(8, "big")
    return make_entry(
        partition=0,
        index=index,
        term=term,
        kind=EVENTS,
        first_position=index,
        timestamp_us=index,
        appends=[new_append(("s{t}", index, index, chunks_of([event_id])), marks=[Mark("m", index, term)])],
    )


def _append(*entries: Entry, truncate_from: int | None = None) -> list[PartitionWrite]:
    hard = HardState(entries[-1].term, "n1", 0)
    return [PartitionWrite(0, hard, truncate_from, entries)]


def test_what_is_written_is_seen_at_once_and_durable_when_synced() -> None:
    disk = SimDisk([0])
    disk.write(_append(_entry(1)))
    covered = disk.unsynced()
    disk.write(_append(_entry(2)))
    disk.harden(covered)
    assert [entry.index for entry in disk.view[0].entries] == [1, 2]
    assert [entry.index for entry in disk.durable[0].entries] == [1]


def test_a_crash_keeps_what_was_synced_and_a_prefix_of_the_rest() -> None:
    kept = set()
    for seed in range(50):
        disk = SimDisk([0])
        for index in range(1, 7):
            disk.write(_append(_entry(index)))
            if index == 2:
                disk.harden(disk.unsynced())
        disk.crash(Random(seed))
        indexes = [entry.index for entry in disk.view[0].entries]
        assert indexes == list(range(1, len(indexes) + 1)), f"a hole; replay with Random({seed})"
        assert disk.view[0].entries == disk.durable[0].entries
        kept.add(len(indexes))
    assert kept == {2, 3, 4, 5, 6}


def test_a_truncation_takes_its_indexes_with_it() -> None:
    disk = SimDisk([0])
    disk.write(_append(_entry(1), _entry(2), _entry(3)))
    disk.write(_append(_entry(2, term=2), truncate_from=2))
    assert disk.index[0] == Index([_entry(1), _entry(2, term=2)])
    assert disk.index[0].version("s{t}") == disk.index[0].tag("t")[0] == 2
    assert disk.index[0].mark("m", 9) == (2, 2, 2, 0)
    assert disk.index[0].mark("m", 1) == (1, 1, 1, 0)
    assert disk.load(0).terms == [(1, 1), (2, 2)]


def test_each_append_of_an_entry_has_its_own_place() -> None:
    a, b, c = (bytes([n]) * 16 for n in (1, 2, 3))
    two = [new_append(("s{t}", 1, 1, chunks_of([a]))), new_append(("s{t}", 2, 2, chunks_of([b, c])))]
    entry = make_entry(
        partition=0, index=1, term=1, kind=EVENTS, first_position=1, timestamp_us=0, appends=two
    )
    index = Index([entry])
    assert index.appends == {a: Place(1, 0), b: Place(1, 1)}
    assert index.tagged_up_to("t", 1) == [(1, a, 1), (1, b, 2), (1, c, 3)]
    assert ids_of(entry, 1) == [("s{t}", (b, c))]
    index.remove(entry)
    assert index == Index()


def test_a_hole_in_the_log_is_refused() -> None:
    disk = SimDisk([0])
    with pytest.raises(AssertionError, match="behind a log of 0"):
        disk.write(_append(_entry(2)))


def test_entries_come_by_size_but_at_least_one() -> None:
    disk = SimDisk([0])
    disk.write(_append(_entry(1), _entry(2), _entry(3)))
    size = len(_entry(1).record)
    assert [entry.index for entry in disk.entries(0, 1, 3, 0)] == [1]
    assert [entry.index for entry in disk.entries(0, 1, 3, 2 * size)] == [1, 2]
    assert disk.entries(0, 4, 9, 1000) == []
