"""The log in memory against the simplest model of it, a list, whatever is appended, cut and stored."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from allsource.cluster.consensus import log as log_module
from allsource.cluster.consensus.log import RaftLog
from allsource.storage.model.entry import CONFIG, Configuration, Entry, decode_entry, make_entry
from allsource.storage.model.log import PartitionState, PartitionWrite
from tests.cluster.consensus.lab import Disk, entry


def read(log: RaftLog, first: int, last: int, bytes_max: int) -> list[Entry]:
    """As a leader reads it for a follower: from memory, or the records from the disk."""
    if first > log.last_index or log.in_memory(first):
        return log.slice(first, last, bytes_max)
    return [decode_entry(record) for record in log.records(first, last, bytes_max)]


class LogMachine(RuleBasedStateMachine):
    """`model` is what the log should be; `disk` holds what was taken for storage."""

    @initialize()
    def start(self) -> None:
        self.disk = Disk()
        self.log = RaftLog(PartitionState(0), self.disk)
        self.model: list[Entry] = []
        self.term = 1

    @rule(more=st.integers(1, 4), newer=st.integers(0, 2), configures=st.booleans())
    def append(self, more: int, newer: int, configures: bool) -> None:
        self.term += newer
        for _ in range(more):
            index = len(self.model) + 1
            added = entry(index, self.term, position=index)
            if configures:
                payload = Configuration((f"n{index}",)).encode()
                added = make_entry(
                    partition=0,
                    index=index,
                    term=self.term,
                    kind=CONFIG,
                    first_position=index,
                    timestamp_us=index,
                    payload=payload,
                )
            self.log.append(added)
            self.model.append(added)

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def truncate(self, data: st.DataObject) -> None:
        first = data.draw(st.integers(1, len(self.model)))
        self.log.truncate(first)
        del self.model[first - 1 :]

    @rule()
    def store(self) -> None:
        had_some = self.log.has_unwritten
        truncate_from, entries = self.log.take_write()
        assert had_some == (truncate_from is not None or bool(entries))
        self.disk.write(PartitionWrite(0, None, truncate_from, entries))
        assert self.disk.log == self.model, "what is stored is the log"

    @invariant()
    def ends_agree(self) -> None:
        last = self.model[-1] if self.model else None
        assert self.log.last_index == len(self.model)
        assert self.log.last_term == (last.term if last else 0)
        assert self.log.next_position == (last.next_position if last else 1)
        assert self.log.last_timestamp_us == (last.timestamp_us if last else 0)

    @invariant()
    def terms_and_configuration_agree(self) -> None:
        assert [self.log.term_at(i) for i in range(1, len(self.model) + 2)] == [
            *(e.term for e in self.model),
            None,
        ]
        configurations = [e for e in self.model if e.kind == CONFIG]
        expected = configurations[-1].index if configurations else 0
        assert self.log.configuration_index == expected

    @rule(data=st.data())
    def slices_agree(self, data: st.DataObject) -> None:
        first = data.draw(st.integers(1, len(self.model) + 1))
        last = data.draw(st.integers(first, len(self.model) + 3))
        got = read(self.log, first, last, 200)
        assert got == self.model[first - 1 : first - 1 + len(got)]
        assert got or first > len(self.model)

    @rule(index=st.integers(0, 12), term=st.integers(0, 8))
    def hints_agree(self, index: int, term: int) -> None:
        fits = [e for e in self.model[:index] if e.term <= term]
        expected = (fits[-1].index, fits[-1].term) if fits else (0, 0)
        assert self.log.newest_not_above(index, term) == expected


@pytest.fixture(autouse=True)
def _small_tail(monkeypatch: pytest.MonkeyPatch) -> None:
    """Little memory, so that most reads cross from the disk's part to the tail."""
    monkeypatch.setattr(log_module, "TAIL_BYTES_MAX", 250)


class TestLog(LogMachine.TestCase):  # type: ignore[misc,name-defined]
    settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_a_log_continues_where_storage_left_it() -> None:
    disk = Disk()
    disk.log = [entry(i, 1, position=i) for i in range(1, 6)]
    log = RaftLog(PartitionState(0, last_index=5, last_term=1, terms=[(1, 1)], next_position=6), disk)
    log.append(entry(6, 2, position=6))
    assert [e.index for e in read(log, 4, 9, 1 << 20)] == [4, 5], "the disk's part first"
    assert [e.index for e in read(log, 6, 9, 1 << 20)] == [6]
    assert log.term_at(5) == 1
    assert log.is_current(6, 2)
    assert not log.is_current(9, 1)
