"""The soak's judge notices what it is for."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.soak.judge import MIB, NodeFigures, judge_nodes, judge_terms, judge_writer

WELL = NodeFigures(rss=100 * MIB, descriptors=80, log_bytes=1000)


def test_a_quiet_run_is_not_complained_of() -> None:
    assert judge_nodes({"n1": WELL}, {"n1": replace(WELL, rss=120 * MIB, descriptors=85)}) == []
    assert judge_writer([0.001] * 100, [0.002] * 100, {}) == []
    assert judge_terms([1, 1, 3], [1, 1, 3]) == []


@pytest.mark.parametrize(
    ("now", "word"),
    [
        (replace(WELL, rss=400 * MIB), "memory"),
        (replace(WELL, descriptors=400), "descriptors"),
        (replace(WELL, log_bytes=2_000_000), "log"),
    ],
)
def test_a_node_that_keeps_what_it_was_sent_is(now: NodeFigures, word: str) -> None:
    (complaint,) = judge_nodes({"n1": WELL}, {"n1": now})
    assert complaint.startswith("n1: ")
    assert word in complaint


def test_what_the_writer_stored_is_its_own() -> None:
    after = {"n1": replace(WELL, rss=330 * MIB)}
    assert judge_nodes({"n1": WELL}, after, appends=40_000) == []
    assert len(judge_nodes({"n1": WELL}, after, appends=10_000)) == 1


def test_a_writer_that_waited_or_was_refused_is() -> None:
    assert judge_writer([0.001] * 100, [0.001] * 97 + [0.1] * 3, {}) == [
        "the writer's p99 is 100.0 times that of alone"
    ]
    assert judge_writer([0.001], [0.001], {"no_owner": 2}) == ["the writer got no_owner, 2 times"]
    assert judge_writer([0.001], [], {}) == ["the writer wrote nothing"]


def test_an_election_is() -> None:
    assert judge_terms([1, 1, 3, 1], [1, 2, 4, 1]) == ["elections in partitions 1-2"]
    assert judge_terms([1, 1], [1]) == ["2 partitions told their term before, 1 after"]
