"""Decoded entries near the end of the log: found again, bounded, and only what is asked for."""

from __future__ import annotations

from collections.abc import Sequence

from allsource.node.requests.entries import RecentEntries
from allsource.storage.model.entry import Entry
from tests.storage.logs import LogModel


class Store:
    """A log of entries; counts what is fetched from it."""

    def __init__(self, entries: Sequence[Entry]) -> None:
        self.entries = {entry.index: entry for entry in entries}
        self.fetched: list[int] = []

    def entries_at(self, partition: int, indexes: Sequence[int]) -> list[Entry]:
        self.fetched += indexes
        return [self.entries[index] for index in indexes]


def store(count: int, size: int = 10) -> Store:
    log = LogModel(0)
    for number in range(count):
        log.events((f"s-{number}", 1), data=bytes([65 + number % 20]) * size)
    return Store(log.entries)


def test_entries_come_in_the_order_asked_for_and_each_is_fetched_once() -> None:
    log = store(6)
    entries = RecentEntries(log)
    assert [entry.index for entry in entries.at(0, [3, 1, 3])] == [3, 1, 3]
    assert [entry.index for entry in entries.at(0, [6, 3, 2, 1])] == [6, 3, 2, 1]
    assert sorted(set(log.fetched)) == [1, 2, 3, 6]
    assert log.fetched.count(3) <= 2, "twice in one question"
    before = list(log.fetched)
    entries.at(0, [1, 2, 3, 6])
    assert log.fetched == before
    assert entries.at(0, []) == []


def test_what_this_node_wrote_is_not_fetched() -> None:
    log = store(3)
    entries = RecentEntries(log)
    for entry in log.entries.values():
        entries.remember(entry)
    assert entries.at(0, [2]) == [log.entries[2]]
    assert log.fetched == []
    assert entries.fetched_bytes == 0


def test_the_memory_is_bounded_and_keeps_what_is_used() -> None:
    log = store(200)
    one = log.entries[1].memory_bytes
    entries = RecentEntries(log, bytes_max=20 * one + one // 2)
    for index in range(1, 201):
        entries.at(0, [index, 7])
    assert log.fetched.count(7) == 1
    held = sum(entries.get(0, index) is not None for index in range(1, 201))
    assert 15 <= held <= 45


def test_an_entry_that_would_push_out_all_others_is_not_kept() -> None:
    log = store(2)
    size = log.entries[1].memory_bytes
    entries = RecentEntries(log, bytes_max=15 * size)
    entries.at(0, [1])
    entries.remember(log.entries[2])
    assert entries.get(0, 1) is entries.get(0, 2) is None
    assert entries.fetched_bytes == size


def test_entries_of_another_partition_are_others() -> None:
    log = store(1)
    entries = RecentEntries(log)
    entries.at(0, [1])
    assert entries.get(1, 1) is None
