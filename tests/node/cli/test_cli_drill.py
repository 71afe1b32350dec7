"""The drill's writers against a store in memory, honest and lying, and what its report says."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest

from allsource.cluster.protocol.requests import AppendedStream, AppendResult
from allsource.node.cli.drill.checks import Fault, judge
from allsource.node.cli.drill.history import ACKNOWLEDGED, CONFLICT, REJECTED, UNKNOWN, History
from allsource.node.cli.drill.report import Report, report_json, round_line, verdict_lines
from allsource.node.cli.drill.rounds import Round
from allsource.node.cli.drill.writers import Clock, Part, Writers, tag_of
from allsource.storage.model.errors import NoOwner, OutcomeUnknown, WrongExpectedVersion
from allsource.storage.model.events import Event
from allsource.storage.model.partition import partition_of

PARTITIONS = 4
TIMEOUT_S = 60.0


class Store:
    """An honest store of a few partitions; `trouble` makes every n-th append end otherwise."""

    def __init__(self, trouble: int = 0) -> None:
        self.logs: dict[int, list[Event]] = {partition: [] for partition in range(PARTITIONS)}
        self._versions: dict[str, int] = {}
        self._trouble = trouble
        self._count = 0

    async def append_many(self, appends: Sequence[Part]) -> AppendResult:
        await asyncio.sleep(0)
        self._count += 1
        if self._trouble and self._count % self._trouble == 0:
            if self._count % 2:
                raise NoOwner("nobody leads now")
            self._append(appends)
            raise OutcomeUnknown("the answer was lost")
        return self._append(appends)

    def _append(self, appends: Sequence[Part]) -> AppendResult:
        partition = partition_of(appends[0][0], PARTITIONS)
        log = self.logs[partition]
        first = len(log) + 1
        streams = []
        for stream, events, expected in appends:
            version = self._versions.get(stream, 0)
            if expected not in ("any", version):
                raise WrongExpectedVersion(stream, expected, version)
            for event in events:
                version += 1
                log.append(
                    Event(
                        stream,
                        version,
                        partition,
                        len(log) + 1,
                        0,
                        event.id,
                        event.type,
                        event.data,
                        b"",
                        0,
                    )
                )
            self._versions[stream] = version
            streams.append(AppendedStream(stream, version - len(events) + 1, version))
        return AppendResult(partition, first, first, len(log), tuple(streams), False)


class ForgetfulStore(Store):
    """Acknowledges what it does not keep: every 50th append."""

    def _append(self, appends: Sequence[Part]) -> AppendResult:
        result = super()._append(appends)
        if self._count % 50 == 0:
            log = self.logs[result.partition]
            del log[result.first_position - 1 :]
        return result


class GenerousStore(Store):
    """Lets two writers win the same version, now and then."""

    def _append(self, appends: Sequence[Part]) -> AppendResult:
        try:
            return super()._append(appends)
        except WrongExpectedVersion as error:
            if self._count % 5:
                raise
            stream, events, _ = appends[0]
            version = error.details["expected"] + 1
            streams = (AppendedStream(stream, version, version + len(events) - 1),)
            return AppendResult(partition_of(stream, PARTITIONS), 1, 1, len(events), streams, False)


def writers_for(store: Store) -> Writers:
    return Writers(store, partitions=PARTITIONS, run="test", seed=7, clock=Clock(), pause_s=0.001)


async def drilled(store: Store, attempts: int = 600) -> History:
    """The history of a short drill."""
    writers = writers_for(store)
    writers.start()
    async with asyncio.timeout(TIMEOUT_S):
        while len(writers.history.attempts) < attempts:
            assert await writers.all_accept(writers.now(), TIMEOUT_S) == []
        await writers.stop()
    return writers.history


async def test_an_honest_store_passes_and_all_kinds_of_writes_happen() -> None:
    store = Store()
    history = await drilled(store)
    assert judge(history, store.logs) == []
    assert history.count(ACKNOWLEDGED) > 100
    assert history.count(CONFLICT) > 10
    shapes = {
        (len(attempt.events), len({written.stream for written in attempt.events}))
        for attempt in history.attempts
    }
    assert shapes == {(1, 1), (3, 1), (2, 2)}
    assert {attempt.partition for attempt in history.attempts} == set(range(PARTITIONS))


async def test_refusals_and_unknown_outcomes_are_no_faults_of_an_honest_store() -> None:
    store = Store(trouble=7)
    history = await drilled(store)
    assert history.count(REJECTED) > 5
    assert history.count(UNKNOWN) > 5
    assert judge(history, store.logs) == []


async def test_a_store_that_forgets_is_caught() -> None:
    store = ForgetfulStore()
    assert "missing" in {fault.kind for fault in judge(await drilled(store), store.logs)}


async def test_a_store_with_two_winners_is_caught() -> None:
    store = GenerousStore()
    assert "two_winners" in {fault.kind for fault in judge(await drilled(store), store.logs)}


async def test_partitions_that_accept_nothing_are_named() -> None:
    writers = writers_for(Store())
    assert await writers.all_accept(0.0, 0.02) == list(range(PARTITIONS))


async def test_a_writer_that_breaks_ends_the_drill() -> None:
    class Broken(Store):
        async def append_many(self, appends: Sequence[Part]) -> AppendResult:
            raise RuntimeError("a defect of the writer's")

    writers = writers_for(Broken())
    writers.start()
    with pytest.raises(RuntimeError, match="a defect"):
        await writers.all_accept(0.0, TIMEOUT_S)
    with pytest.raises(RuntimeError, match="a defect"):
        await writers.stop()


@pytest.mark.parametrize("partition", range(PARTITIONS))
def test_a_tag_puts_streams_where_they_belong(partition: int) -> None:
    tag = tag_of(partition, PARTITIONS, "run")
    assert partition_of(f"{tag}-plain", PARTITIONS) == partition
    assert partition_of(f"{tag}-other", PARTITIONS) == partition


def a_round(number: int, victim: str, owned: tuple[int, ...], takeover: float) -> Round:
    silences = {p: takeover if p in owned else 0.01 for p in range(PARTITIONS)}
    return Round(number, (victim,), owned, silences, dict.fromkeys(range(PARTITIONS), 0.02), 0.2, 1.5)


def a_report(**changes: object) -> Report:
    report = Report("kill-node", 3, seed=5)
    report.rounds = [a_round(1, "n1", (0, 1), 0.1), a_round(2, "n2", (2,), 0.3)]
    report.attempts = {ACKNOWLEDGED: 10, CONFLICT: 1, REJECTED: 0, UNKNOWN: 0}
    for name, value in changes.items():
        setattr(report, name, value)
    return report


def test_silences_are_told_apart_by_whose_owner_was_hurt() -> None:
    report = a_report()
    assert report.takeovers() == [0.1, 0.1, 0.3]
    assert report.bystanders() == [0.01] * 5
    assert report.returns() == [0.02] * 3


def test_a_good_report_passes_and_names_its_seed() -> None:
    lines = verdict_lines(a_report())
    assert lines[0] == "time without writes, owner hurt: p50 100 ms, p99 300 ms, max 300 ms"
    assert lines[-1] == "PASSED: 2 rounds of kill-node on 3 nodes with rocksdb, seed 5"
    assert not any("FAULT" in line for line in lines)
    found = report_json(a_report())
    assert found["ok"] is True
    assert found["without_writes_ms"]["owner_hurt"] == {"p50": 100.0, "p99": 300.0, "max": 300.0}
    assert [one["victims"] for one in found["rounds"]] == [("n1",), ("n2",)]


def test_a_fault_fails_and_is_shown() -> None:
    report = a_report(faults=[Fault("missing", f"event {number}") for number in range(9)])
    lines = verdict_lines(report)
    assert not report.ok
    assert "FAULT      9  acknowledged and missing" in lines
    assert sum(line.startswith("  missing: event") for line in lines) == 5
    assert lines[-1].startswith("FAILED")
    assert report_json(report)["faults"][0] == {"kind": "missing", "detail": "event 0"}


def test_a_drill_that_had_to_stop_fails() -> None:
    report = a_report(stopped="partitions 3 took no writes for 30 s")
    assert not report.ok
    assert "STOPPED: partitions 3 took no writes for 30 s" in verdict_lines(report)


@pytest.mark.parametrize(("within_ms", "ok"), [(250.0, False), (300.0, True), (None, True)])
def test_too_long_a_silence_fails_if_a_bound_was_set(within_ms: float | None, ok: bool) -> None:
    report = a_report(within_ms=within_ms)
    assert report.ok is ok
    assert any(line.startswith("TOO SLOW: 300 ms") for line in verdict_lines(report)) is not ok


def test_a_drill_without_healing_has_nothing_to_give_back_and_says_why() -> None:
    round_ = replace(a_round(1, "n1", (0, 1), 0.1), return_={}, back_s=None)
    report = a_report(rounds=[round_], storage="memory", remark="1 of 5 rounds")
    lines = verdict_lines(report)
    assert lines[1] == "time without writes, given back: nothing measured"
    assert lines[-2:] == [
        "NOTE: 1 of 5 rounds",
        "PASSED: 1 round of kill-node on 3 nodes with memory, seed 5",
    ]
    found = report_json(report)
    assert (found["storage"], found["remark"]) == ("memory", "1 of 5 rounds")
    assert found["rounds"][0]["back_ms"] is None
    assert round_line(round_, 1, "killed for good").endswith("; not started again")


def test_a_round_is_a_line() -> None:
    line = round_line(a_round(1, "n1", (0, 1), 0.1), 20, "killed")
    assert line.startswith("round 1/20: n1 killed; 2 partitions without writes for 100 ms (median)")
