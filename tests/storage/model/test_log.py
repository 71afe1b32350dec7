"""The marks of a log, against a replay of its entries."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from allsource.storage.model.entry import CONFIG, NOOP, Configuration, Entry, make_entry
from allsource.storage.model.log import ConfigurationAt, LogMarks, TermStart

STEPS = st.lists(st.tuples(st.integers(0, 2), st.booleans(), st.integers(0, 30)), max_size=40)


def replayed(log: list[Entry]) -> LogMarks:
    terms = [e.term for e in log]
    return LogMarks(
        [TermStart(i, t) for i, t in enumerate(terms, 1) if i == 1 or terms[i - 2] != t],
        [ConfigurationAt(e.index, Configuration((str(e.index),))) for e in log if e.kind == CONFIG],
    )


@given(STEPS)
def test_marks_equal_a_replay_also_behind_a_truncation(steps: list[tuple[int, bool, int]]) -> None:
    marks, log = LogMarks(), list[Entry]()
    for rise, configures, cut in steps:
        if cut and cut <= len(log):
            del log[cut - 1 :]
            marks.truncate(cut)
        else:
            index, term = len(log) + 1, (log[-1].term if log else 0) + rise
            opens = not log or term != log[-1].term
            entry = make_entry(
                partition=0,
                index=index,
                term=term,
                kind=CONFIG if configures else NOOP,
                first_position=1,
                timestamp_us=1,
                payload=Configuration((str(index),)).encode() if configures else b"",
            )
            log.append(entry)
            assert marks.append(entry) is opens
        assert marks == replayed(log)
