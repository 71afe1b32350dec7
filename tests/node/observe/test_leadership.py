"""Leaderships in the log: one line for many partitions, in the order of what happened."""

from __future__ import annotations

from collections.abc import Callable

import structlog
from structlog.testing import LogCapture

from allsource.node.observe.leadership import WINDOW_S, LeadershipNews
from tests.node.members import Cluster, until


class Told:
    """A log and a clock of the test's own."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, list[int], str]] = []
        self.timers: list[Callable[[], None]] = []
        self.news = LeadershipNews(self._say, self._later)

    def _say(self, event: str, /, *, partitions: list[int], terms: str) -> None:
        self.lines.append((event, partitions, terms))

    def _later(self, seconds: float, action: Callable[[], None]) -> None:
        assert seconds == WINDOW_S
        self.timers.append(action)

    def pass_time(self) -> None:
        self.timers.pop(0)()


def test_many_partitions_share_a_line() -> None:
    told = Told()
    for partition in (6, 0, 3):
        told.news.changed(partition, 2, gained=True)
    assert (told.lines, len(told.timers)) == ([], 1)
    told.pass_time()
    assert told.lines == [("leads 3 partitions", [0, 3, 6], "2")]
    told.news.changed(9, 7, gained=True)
    told.pass_time()
    assert told.lines[1:] == [("leads 1 partition", [9], "7")]


def test_what_was_gained_and_lost_is_told_in_that_order() -> None:
    told = Told()
    told.news.changed(1, 2, gained=True)
    told.news.changed(2, 4, gained=True)
    told.news.changed(1, 3, gained=False)
    assert told.lines == [("leads 2 partitions", [1, 2], "2-4")]
    told.pass_time()
    assert len(told.lines) == 1, "the second window is still open"
    told.pass_time()
    assert told.lines[1:] == [("leads no more 1 partition", [1], "3")]


def test_the_end_waits_for_no_window() -> None:
    told = Told()
    told.news.changed(1, 2, gained=False)
    told.news.tell()
    told.news.tell()
    told.pass_time()
    assert told.lines == [("leads no more 1 partition", [1], "2")]


async def test_a_node_that_starts_leads_in_one_line() -> None:
    """It was a line for each partition."""
    heard = LogCapture()
    async with Cluster(1, partitions=32) as cluster:
        everything = structlog.make_filtering_bound_logger(0)
        cluster.log = structlog.wrap_logger(None, processors=[heard], wrapper_class=everything)
        cluster.kill("n1")
        cluster.start("n1")
        await until(lambda: any("leads 32 partitions" in one["event"] for one in heard.entries))
        assert len([one for one in heard.entries if "leads" in one["event"]]) == 1
