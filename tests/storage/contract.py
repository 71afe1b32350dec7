"""What every backend must do: `storage.interface`, promise by promise.

A backend's test module derives from `StorageContract` and gives it a `backend` fixture. Nothing here
knows which backend it is; what differs (is there a disk to lose?) is asked of the `Backend`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path
from random import Random
from typing import Protocol, TypeVar

import pytest

from allsource.storage.interface import Storage
from allsource.storage.model.entry import Configuration, Mark
from allsource.storage.model.errors import CheckpointsUnsupported, Corrupt, StorageFault
from allsource.storage.model.log import HardState, PartitionState, PartitionWrite, StreamSlice, TagSlice
from allsource.storage.model.partition import tag_of
from tests.storage.logs import LogModel

PARTITIONS = 8
P = 3
"""The partition of tests that need only one."""
STREAMS = ("s0", "s1", "s2{t}", "{t}s3", "s4{u}", "$s5{t}")
"""Of random histories."""


class Backend(Protocol):
    """How a test opens a backend and treats it badly."""

    def open(self) -> Storage:
        """The storage as a starting node opens it; the same data each time."""
        ...

    def crash(self, storage: Storage, random: Random) -> Storage:
        """Cut the power and start again: what was synced is there, of the rest any prefix."""
        ...

    def reopens(self) -> bool:
        """Whether data outlives `close`."""
        ...


class StorageContract:
    """The suite."""

    @pytest.fixture
    def backend(self) -> Backend:
        raise AssertionError("the backend's module overrides this fixture")

    @pytest.fixture
    def storage(self, backend: Backend) -> Iterator[Storage]:
        storage = backend.open()
        yield storage
        storage.close()

    # -- a log

    def test_an_untouched_partition_is_empty(self, storage: Storage) -> None:
        assert storage.load(P) == PartitionState(P)
        assert storage.entries(P, 1, 10, 1 << 20) == []
        assert storage.head(P, "a") is None
        assert storage.place_of_append(P, bytes(16)) is None
        assert storage.tag_head(P, "a") is None
        assert storage.tag_slices(P, "a", 1, forward=True, slices_max=5) == []
        assert storage.mark(P, "a") is None
        assert storage.index_of_position(P, 1) is None
        assert storage.slices(P, "a", 1, forward=True, slices_max=5) == []
        assert storage.slices(P, "a", 1, forward=False, slices_max=5) == []
        assert storage.streams(P) == []
        assert list(storage.verify(P)) == []

    def test_a_write_is_visible_at_once(self, storage: Storage) -> None:
        log = LogModel(P)
        entry = log.events(("a", 2), ("b", 1))
        storage.write([log.write(entry)])
        check_equal(storage, [log])

    def test_a_write_to_many_partitions_changes_them_all(self, storage: Storage) -> None:
        logs = [LogModel(p) for p in range(PARTITIONS)]
        storage.write([log.write(log.events((f"s{log.partition}", 1))) for log in logs])
        check_equal(storage, logs)

    def test_hard_state_is_kept_with_and_without_entries(self, storage: Storage) -> None:
        log = LogModel(P)
        storage.write([PartitionWrite(P, HardState(4, "n1", 0))])
        assert storage.load(P).hard == HardState(4, "n1", 0)
        storage.write([PartitionWrite(P, HardState(5, "", 1), None, [log.noop(5)])])
        assert storage.load(P).hard == HardState(5, "", 1)
        storage.write([log.write(log.noop(5))])
        assert storage.load(P).hard == HardState(5, "", 1)

    def test_a_log_that_ends_before_its_commit_index_is_corrupt(self, storage: Storage) -> None:
        storage.write([PartitionWrite(P, HardState(1, "n1", 3))])
        with pytest.raises(Corrupt, match="committed up to"):
            storage.load(P)

    def test_load_knows_terms_and_configurations(self, storage: Storage) -> None:
        log = LogModel(P)
        entries = [
            log.configuration("n1", "n2", term=0),
            log.noop(1),
            log.events(("a", 3), term=1),
            log.configuration("n1", "n2", "n3", term=4),
            log.noop(7),
        ]
        storage.write([log.write(*entries)])
        state = storage.load(P)
        assert state.terms == [(1, 0), (2, 1), (4, 4), (5, 7)]
        assert state.configurations == [
            (1, Configuration(("n1", "n2"))),
            (4, Configuration(("n1", "n2", "n3"))),
        ]
        assert (state.last_index, state.last_term, state.next_position) == (5, 7, 4)
        assert state.last_timestamp_us == entries[-1].timestamp_us

    def test_one_call_may_name_a_partition_more_than_once(self, storage: Storage) -> None:
        log = LogModel(P)
        storage.write([log.write(log.noop(), log.events(("a", 1)), log.events(("a", 1)))])
        third = log.entries[2]
        log.cut(3)
        fourth = log.events(("b", 2), term=2)
        log.cut(3)
        fifth = log.events(("a", 5), term=3)
        storage.write(
            [
                log.write(third, truncate_from=3),
                PartitionWrite(P, HardState(2, "n1", 1)),
                log.write(fourth, truncate_from=3),
                log.write(fifth, truncate_from=3),
            ]
        )
        assert storage.load(P).hard == HardState(2, "n1", 1)
        log.hard = HardState(2, "n1", 1)
        check_equal(storage, [log])

    def test_later_cuts_in_one_call_reach_below_earlier_ones(self, storage: Storage) -> None:
        log = LogModel(P)
        storage.write([log.write(*[log.events(("a", 1)) for _ in range(6)])])
        log.cut(5)
        fifth = log.events(("b", 1), term=2)
        log.cut(3)
        third = log.events(("c", 1), term=3)
        storage.write([log.write(fifth, truncate_from=5), log.write(third, truncate_from=3)])
        check_equal(storage, [log])

    def test_later_cuts_in_one_call_stay_above_earlier_ones(self, storage: Storage) -> None:
        log = LogModel(P)
        storage.write([log.write(*[log.events(("a", 1)) for _ in range(6)])])
        log.cut(3)
        made = [log.events(("b", 1), term=2) for _ in range(3)]
        log.cut(5)
        last = log.events(("c", 1), term=3)
        storage.write([log.write(*made, truncate_from=3), log.write(last, truncate_from=5)])
        check_equal(storage, [log])

    def test_entries_that_do_not_continue_the_log_are_refused_and_change_nothing(
        self, storage: Storage
    ) -> None:
        log = LogModel(P)
        storage.write([log.write(log.noop(), log.noop())])
        ahead = log.copy()
        ahead.noop()
        gap = ahead.noop()
        other = LogModel(P + 1)
        for entry in (gap, log.entries[1], other.noop()):
            with pytest.raises(AssertionError):
                storage.write([other.write(other.events(("x", 1))), log.write(entry)])
            other.cut(1)
        check_equal(storage, [log, other])

    # -- reading the log

    def test_entries_stop_at_the_byte_limit_but_give_at_least_one(self, storage: Storage) -> None:
        log = LogModel(P)
        entries = [log.events(("a", 1), data=b"x" * 1000) for _ in range(10)]
        storage.write([log.write(*entries)])
        size = len(entries[0].record)
        assert storage.entries(P, 1, 10, 0) == entries[:1]
        assert storage.entries(P, 4, 10, 3 * size) == entries[3:6]
        assert storage.entries(P, 4, 10, 4 * size - 1) == entries[3:6]
        assert storage.entries(P, 9, 50, 1 << 20) == entries[8:]
        assert storage.entries(P, 3, 3, 1 << 20) == entries[2:3]
        assert storage.entries(P, 11, 20, 1 << 20) == []

    def test_records_are_the_entries_undecoded(self, storage: Storage) -> None:
        log = LogModel(P)
        entries = [log.events(("a", 1), data=b"x" * 1000) for _ in range(10)]
        storage.write([log.write(*entries)])
        records, size = [entry.record for entry in entries], len(entries[0].record)
        assert storage.records(P, 1, 10, 0) == records[:1]
        assert storage.records(P, 4, 10, 4 * size - 1) == records[3:6]
        assert storage.records(P, 9, 50, 1 << 20) == records[8:]
        assert storage.records(P, 11, 20, 1 << 20) == []

    def test_entries_at_keep_the_order_asked_for(self, storage: Storage) -> None:
        log = LogModel(P)
        storage.write([log.write(*[log.events((f"s{i}", 1)) for i in range(9)])])
        wanted = [7, 1, 9, 4, 4]
        assert [entry.index for entry in storage.entries_at(P, wanted)] == wanted
        assert storage.entries_at(P, [5]) == [log.entries[4]]
        assert storage.entries_at(P, []) == []
        for missing in ([10], [1, 10], [0]):
            with pytest.raises(Corrupt, match="no entry"):
                storage.entries_at(P, missing)

    def test_positions_skip_entries_without_events(self, storage: Storage) -> None:
        log = LogModel(P)
        log.configuration("n1", term=0)
        for i in range(40):
            log.noop(term=1)
            log.events((f"s{i % 3}", 1 + (i * 7) % 5), (f"t{i % 2}", 1))
            if i % 5 == 0:
                log.noop(term=1)
        storage.write([log.write(*log.entries)])
        for position in [*range(log.next_position + 3), *range(log.next_position, 0, -7)]:
            assert storage.index_of_position(P, position) == log.index_of_position(position), position

    # -- reading streams

    def test_slices_forward_and_backward_from_any_version(self, storage: Storage) -> None:
        log = LogModel(P)
        for i in range(12):
            log.events(("a", 1 + i % 4), ("a1", 1))
            log.events(("\U0001f30d", 2))
        storage.write([log.write(*log.entries)])
        for stream in ("a", "a1", "\U0001f30d", "absent", ""):
            expected = log.slices(stream)
            end = log.version(stream)
            for version in [0, 1, 2, 5, end - 1, end, end + 1, end + 99, 2**64 - 1]:
                for slices_max in (1, 3, 100):
                    found = storage.slices(P, stream, version, forward=True, slices_max=slices_max)
                    assert found == _forward(expected, version)[:slices_max]
                    found = storage.slices(P, stream, version, forward=False, slices_max=slices_max)
                    assert found == _backward(expected, version)[:slices_max]

    def test_streams_are_ordered_by_their_bytes_and_paged(self, storage: Storage) -> None:
        log = LogModel(P)
        names = ["b", "a", "a1", "a-1", "é", "z", "\U0001f30d", "ab", "aB", "a b", "\uffee"]
        for name in names:
            log.events((name, 1))
        storage.write([log.write(*log.entries), LogModel(P + 1).write()])
        ordered = sorted(names, key=lambda name: name.encode())
        assert [name for name, _ in storage.streams(P)] == ordered
        paged: list[str] = []
        while page := storage.streams(P, after=paged[-1] if paged else "", limit=3):
            assert len(page) <= 3
            paged += [name for name, _ in page]
            assert len(paged) <= len(names), "the pages do not move on"
        assert paged == ordered
        starting = [name for name in ordered if name.startswith("a")]
        assert [name for name, _ in storage.streams(P, prefix="a")] == starting
        assert [name for name, _ in storage.streams(P, prefix="a", after="a1")] == starting[
            starting.index("a1") + 1 :
        ]
        assert storage.streams(P, prefix="a", after="z") == []
        assert [name for name, _ in storage.streams(P, prefix="z", after="a")] == ["z"]
        assert storage.streams(P + 1) == []
        assert dict(storage.streams(P))["a1"] == log.head("a1")

    def test_partitions_do_not_mix(self, storage: Storage) -> None:
        one, other = LogModel(P), LogModel(P + 1)
        storage.write([one.write(one.events(("a", 1))), other.write(other.events(("b", 2), seed=9))])
        check_equal(storage, [one, other])
        assert storage.place_of_append(P + 1, one.entries[0].parts[0].first_id) is None

    # -- appends, tags and marks

    def test_an_entry_has_a_place_for_each_of_its_appends(self, storage: Storage) -> None:
        log = LogModel(P)
        log.events(("a", 1))
        shared = log.appends(
            ([("a", 2), ("b", 1)], []), ([], [Mark("m", 1, 0)]), ([("c", 1)], []), ([("a", 1)], [])
        )
        storage.write([log.write(*log.entries)])
        check_equal(storage, [log])
        places = [storage.place_of_append(P, part.first_id) for part in shared.parts]
        assert places == [(2, 0), (2, 0), (2, 2), (2, 3)]
        assert [piece.part for piece in log.slices("a")] == [0, 0, 3]

    def test_tag_slices_forward_and_backward_from_any_number(self, storage: Storage) -> None:
        log = LogModel(P)
        for i in range(12):
            log.appends(([("{t}a", 1 + i % 4), ("x", 1)], []), ([("b{t}", 2), ("{t1}", 1)], []))
            log.events(("$own{t}", 1), ("{", 1), ("{}t", 1))
        storage.write([log.write(*log.entries)])
        check_equal(storage, [log])
        for tag in ("t", "t1", "absent", ""):
            expected = log.tag_slices(tag) if tag else []
            end = log.number(tag) if tag else 0
            for number in [0, 1, 2, 5, end - 1, end, end + 1, end + 99, 2**63 - 1]:
                for slices_max in (1, 3, 100):
                    found = storage.tag_slices(P, tag, number, forward=True, slices_max=slices_max)
                    assert found == _forward(expected, number)[:slices_max]
                    found = storage.tag_slices(P, tag, number, forward=False, slices_max=slices_max)
                    assert found == _backward(expected, number)[:slices_max]

    def test_a_mark_is_what_its_last_move_says_up_to_an_index(self, storage: Storage) -> None:
        log = LogModel(P)
        log.events(("a", 1), marks=[Mark("m", 3, 1), Mark("m1", 9, 9)])
        log.noop()
        log.appends(([], [Mark("m", 4, 1)]), ([], [Mark("m", 0, 2)]))
        log.events(("a", 1), marks=[Mark("m", 2**63 - 1, 2**63 - 1)])
        storage.write([log.write(*log.entries)])
        check_equal(storage, [log])
        expected = [None, (3, 1, 1, 0), (3, 1, 1, 0), (0, 2, 3, 1), (2**63 - 1, 2**63 - 1, 4, 0)]
        assert [storage.mark(P, "m", index_max=index) for index in range(5)] == expected
        assert storage.mark(P, "m") == expected[-1]
        assert storage.mark(P, "") is None
        assert storage.mark(P + 1, "m") is None

    # -- truncation

    def test_truncation_undoes_every_index(self, storage: Storage) -> None:
        log = LogModel(P)
        log.configuration("n1", term=0)
        log.events(("a", 2), ("b", 1), ("{t}1", 2), term=1, marks=[Mark("m", 4, 1)])
        kept = log.copy()
        log.events(("a", 3), ("{t}2", 1), term=2, marks=[Mark("m", 5, 1), Mark("n", 1, 0)])
        log.events(("c", 1), ("b", 2), term=3)
        log.appends(
            ([("{t}1", 1), ("{u}", 1)], [Mark("m", 6, 1)]), ([("{t}1", 3)], [Mark("m", 0, 2)]), term=3
        )
        log.configuration("n1", "n2", term=3)
        storage.write([log.write(*log.entries)])
        storage.write([kept.write(truncate_from=3)])
        check_equal(storage, [kept])
        for entry in log.entries[2:]:
            for gone in entry.parts:
                assert storage.place_of_append(P, gone.first_id) is None
        assert storage.tag_head(P, "u") is None
        assert storage.mark(P, "n") is None

    def test_truncation_and_replacement_are_one_write(self, storage: Storage) -> None:
        log = LogModel(P)
        storage.write([log.write(*[log.events(("a", 1), ("b", 1)) for _ in range(5)])])
        retried = log.entries[2].parts[0].first_id
        log.cut(3)
        replacement = [log.noop(2), log.events(("a", 1), ("c", 2), term=2)]
        assert replacement[1].parts[0].first_id == retried
        storage.write([log.write(*replacement, truncate_from=3)])
        check_equal(storage, [log])

    def test_truncating_everything_and_nothing(self, storage: Storage) -> None:
        log = LogModel(P)
        storage.write([log.write(log.events(("a", 1)), log.noop())])
        storage.write([log.write(truncate_from=3)])
        check_equal(storage, [log])
        storage.write([log.write(truncate_from=1)])
        log.cut(1)
        check_equal(storage, [log])
        storage.write([log.write(log.events(("a", 2), term=0))])
        check_equal(storage, [log])

    def test_positions_are_found_anew_after_a_truncation(self, storage: Storage) -> None:
        log = LogModel(P)
        storage.write([log.write(*[log.events(("a", 3)) for _ in range(10)])])
        assert storage.index_of_position(P, 29) == 10
        storage.entries(P, 8, 10, 1 << 20)
        log.cut(6)
        log.noop(2)
        log.events(("b", 40), term=2)
        storage.write([log.write(*log.entries[5:], truncate_from=6)])
        assert storage.index_of_position(P, 29) == 7
        check_equal(storage, [log])

    # -- over restarts

    def test_a_start_finds_what_was_written(self, backend: Backend) -> None:
        if not backend.reopens():
            with suppress_closed():
                backend.open().close()
            return
        storage = backend.open()
        log = LogModel(P, hard=HardState(3, "n2", 2))
        log.configuration("n1", term=0)
        log.events(("a", 2), ("b", 1), term=3)
        storage.write([PartitionWrite(P, log.hard, None, log.entries)])
        storage.put_meta({"formed": b"yes"})
        before = storage.identity
        storage.close()
        again = backend.open()
        try:
            check_equal(again, [log])
            assert again.get_meta("formed") == b"yes"
            assert again.identity == before._replace(incarnation=before.incarnation + 1)
        finally:
            again.close()

    def test_a_crash_keeps_what_was_synced_and_a_prefix_of_the_rest(self, backend: Backend) -> None:
        random = Random(5)
        storage = backend.open()
        log = LogModel(P)
        storage.write([log.write(log.events(("a", 1)))])
        storage.sync()
        prefixes = [log.copy()]
        for _ in range(5):
            storage.write([log.write(log.events(("a", 1), ("b", 2)))])
            prefixes.append(log.copy())
        storage = backend.crash(storage, random)
        try:
            survived = storage.load(P).last_index
            assert 1 <= survived <= 6
            check_equal(storage, [prefixes[survived - 1]])
        finally:
            storage.close()

    def test_a_closed_storage_says_so(self, backend: Backend) -> None:
        storage = backend.open()
        storage.close()
        storage.close()
        with pytest.raises(StorageFault, match="closed"):
            storage.head(P, "a")
        with pytest.raises(StorageFault, match="closed"):
            storage.write([LogModel(P).write(LogModel(P).noop())])
        with pytest.raises(StorageFault, match="closed"):
            storage.sync()

    # -- the rest

    def test_meta_values(self, storage: Storage) -> None:
        assert storage.get_meta("formed") is None
        storage.put_meta({"formed": b"1", "members": b"\x00\xff"})
        storage.put_meta({"formed": b""})
        assert storage.get_meta("formed") == b""
        assert storage.get_meta("members") == b"\x00\xff"

    def test_properties_are_numbers(self, storage: Storage) -> None:
        log = LogModel(P)
        storage.write([log.write(log.events(("a", 1)))])
        figures = storage.properties()
        assert figures
        assert all(name.islower() and value >= 0 for name, value in figures.items())

    def test_a_checkpoint_is_made_or_it_is_said_what_to_do_instead(
        self, storage: Storage, tmp_path: Path
    ) -> None:
        if not storage.no_checkpoints:
            storage.checkpoint(tmp_path / "copy")
            assert (tmp_path / "copy").is_dir()
            return
        with pytest.raises(CheckpointsUnsupported, match=re.escape(storage.no_checkpoints)):
            storage.checkpoint(tmp_path / "copy")
        assert not (tmp_path / "copy").exists()

    def test_there_is_no_pressure_on_an_idle_storage(self, storage: Storage) -> None:
        assert storage.pressure() is None

    def test_big_entries(self, storage: Storage) -> None:
        log = LogModel(P)
        storage.write([log.write(*[log.events(("big", 1), data=b"%d" % i * (1 << 19)) for i in range(6)])])
        storage.sync()
        check_equal(storage, [log])

    # -- all of it together

    @pytest.mark.parametrize("seed", range(6))
    def test_random_histories_equal_the_model(self, backend: Backend, seed: int) -> None:
        """Replay one alone: `pytest tests/storage -k 'random_histories and [SEED]'`."""
        RandomHistory(backend, seed).run(steps=120)


_Slice = TypeVar("_Slice", StreamSlice, TagSlice)


def _forward(slices: list[_Slice], start: int) -> list[_Slice]:
    return [s for s in slices if s[0] + s.count > start]


def _backward(slices: list[_Slice], start: int) -> list[_Slice]:
    return [s for s in reversed(slices) if s[0] <= start]


def suppress_closed() -> suppress:
    return suppress(StorageFault)


def check_equal(storage: Storage, logs: Iterable[LogModel]) -> None:
    """The storage's partitions hold exactly these logs, and every index says what a replay would."""
    for log in logs:
        p, entries = log.partition, log.entries
        last = entries[-1] if entries else None
        assert storage.load(p) == PartitionState(
            partition=p,
            hard=log.hard,
            last_index=len(entries),
            last_term=last.term if last else 0,
            terms=log.terms(),
            next_position=log.next_position,
            last_timestamp_us=last.timestamp_us if last else 0,
            configurations=[(e.index, Configuration.decode(e.payload())) for e in entries if e.kind == 3],
        )
        assert storage.entries(p, 1, len(entries), 1 << 30) == entries
        assert [name for name, _ in storage.streams(p)] == log.streams()
        for stream in log.streams():
            assert storage.head(p, stream) == log.head(stream)
            everything = storage.slices(p, stream, 1, forward=True, slices_max=1 << 20)
            assert everything == log.slices(stream)
        for tag in {tag_of(stream) for stream in log.streams()} - {""}:
            assert storage.tag_head(p, tag) == log.tag_head(tag)
            assert storage.tag_slices(p, tag, 1, forward=True, slices_max=1 << 20) == log.tag_slices(tag)
        for name in {mark.name for e in entries for append in e.appends for mark in append.marks}:
            for index_max in (len(entries), len(entries) // 2):
                found = storage.mark(p, name, index_max=index_max)
                assert found == log.mark(name, index_max)
        for entry in entries:
            for ordinal, append in enumerate(entry.appends):
                for part in append.parts:
                    assert storage.place_of_append(p, part.first_id) == (entry.index, ordinal)
        for position in range(log.next_position + 1):
            assert storage.index_of_position(p, position) == log.index_of_position(position)
        assert list(storage.verify(p)) == []


class RandomHistory:
    """Writes, truncations, syncs, crashes and restarts at random, compared with the model all along."""

    def __init__(self, backend: Backend, seed: int) -> None:
        print(f"seed {seed}: pytest tests/storage -k 'random_histories and [{seed}]'")
        self.random = Random(seed)
        self.backend = backend
        self.storage = backend.open()
        self.logs = [LogModel(p) for p in range(PARTITIONS)]
        self.terms = [1] * PARTITIONS
        self.moves = count(1)
        """Positions of marks: they only grow."""
        self.history: list[list[LogModel]] = []
        """The logs as they were after the last sync, and after each write since."""
        self._remember(synced=True)

    def run(self, steps: int) -> None:
        try:
            for _ in range(steps):
                step = self.random.choices(
                    (self.write, self.sync, self.crash, self.restart, self.look), (20, 4, 1, 1, 3)
                )[0]
                step()
            check_equal(self.storage, self.logs)
        finally:
            self.storage.close()

    def write(self) -> None:
        partitions = self.random.sample(range(PARTITIONS), self.random.choice((1, 1, 1, 2, 5)))
        self.storage.write([self._change(self.logs[p]) for p in partitions])
        self._remember(synced=False)

    def sync(self) -> None:
        self.storage.sync()
        self._remember(synced=True)

    def crash(self) -> None:
        self.storage = self.backend.crash(self.storage, self.random)
        for logs in reversed(self.history):
            if all(self._looks_like(log) for log in logs):
                self.logs = [log.copy() for log in logs]
                break
        else:
            raise AssertionError("what is there after the crash was at no time since the last sync")
        check_equal(self.storage, self.logs)
        self._remember(synced=True)

    def restart(self) -> None:
        if self.backend.reopens():
            self.storage.close()
            self.storage = self.backend.open()
            check_equal(self.storage, self.logs)
            self._remember(synced=True)

    def look(self) -> None:
        """Spot checks, which fill the backend's caches at odd moments."""
        log = self.random.choice(self.logs)
        stream = self.random.choice(STREAMS)
        version = self.random.randrange(1, log.version(stream) + 3)
        assert self.storage.head(log.partition, stream) == log.head(stream)
        found = self.storage.slices(log.partition, stream, version, forward=True, slices_max=3)
        assert found == _forward(log.slices(stream), version)[:3]
        assert self.storage.tag_head(log.partition, "t") == log.tag_head("t")
        assert self.storage.mark(log.partition, "m") == log.mark("m", len(log.entries))
        position = self.random.randrange(1, log.next_position + 2)
        found_index = self.storage.index_of_position(log.partition, position)
        assert found_index == log.index_of_position(position)

    def _change(self, log: LogModel) -> PartitionWrite:
        random, p = self.random, log.partition
        truncate_from = None
        if log.entries and random.random() < 0.2:
            truncate_from = random.randint(max(1, len(log.entries) - 6), len(log.entries) + 1)
            log.cut(truncate_from)
            self.terms[p] += 1
        made = [self._entry(log) for _ in range(random.choice((0, 1, 1, 2, 5)))]
        hard = None
        if random.random() < 0.5 or log.hard.commit > len(log.entries):
            hard = HardState(self.terms[p], random.choice(("", "n1")), random.randint(0, len(log.entries)))
            log.hard = hard
        return PartitionWrite(p, hard, truncate_from, made)

    def _entry(self, log: LogModel):  # type: ignore[no-untyped-def]
        random, term = self.random, self.terms[log.partition]
        kind = random.random()
        if kind < 0.1:
            return log.noop(term)
        if kind < 0.15:
            return log.configuration(*[f"n{i}" for i in range(random.randint(1, 4))], term=term)
        return log.appends(
            *[self._append() for _ in range(random.choice((1, 1, 2, 4)))],
            term=term,
            seed=random.getrandbits(60),
            data=random.randbytes(random.choice((0, 10, 300))),
        )

    def _append(self) -> tuple[list[tuple[str, int]], list[Mark]]:
        random = self.random
        streams = random.sample(STREAMS, random.choice((0, 1, 1, 2)))
        names = random.sample(("m", "m1", "n"), random.choice((0, 0, 1, 2)) if streams else 1)
        marks = [Mark(name, next(self.moves), 0) for name in names]
        return [(stream, random.choice((1, 1, 3))) for stream in streams], marks

    def _looks_like(self, log: LogModel) -> bool:
        p = log.partition
        try:
            state = self.storage.load(p)
        except Corrupt:
            return False
        return (
            state.hard == log.hard
            and state.last_index == len(log.entries)
            and self.storage.entries(p, 1, state.last_index, 1 << 30) == log.entries
        )

    def _remember(self, *, synced: bool) -> None:
        if synced:
            self.history.clear()
        self.history.append([log.copy() for log in self.logs])
