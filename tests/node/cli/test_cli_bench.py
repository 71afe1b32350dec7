"""The benchmark's clockwork, without a cluster."""

from __future__ import annotations

import asyncio
import json
import os
import time
import zlib
from pathlib import Path

import click
import pytest

from allsource.config.load import load_settings
from allsource.node.cli.bench.events import Events
from allsource.node.cli.bench.facts import machine_facts
from allsource.node.cli.bench.measure import Measured, Meter, closed_loop, median_round
from allsource.node.cli.bench.report import (
    COLUMNS,
    RATIOS,
    as_json,
    earlier_figures,
    markdown,
    ratios,
    row,
)
from allsource.node.cli.bench.workloads import WORKLOADS
from allsource.node.cli.control.processes import cpu_seconds
from allsource.node.cli.targets import DEFAULT_CONFIG

CONFIG = Path(__file__).parents[3] / DEFAULT_CONFIG


async def test_a_closed_loop_never_has_more_in_flight_than_workers() -> None:
    under_way, most = 0, 0

    async def operation(worker: int) -> int:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0.001)
        under_way -= 1
        return 10

    measured = await closed_loop(
        *("w", "event", operation),
        workers=4,
        seconds=0.2,
        warm_up_s=0.05,
        nodes=[],
        clock=asyncio.get_running_loop().time,
    )
    assert most == 4
    assert under_way == 0
    assert measured.units == 10 * len(measured.latencies) > 0
    assert min(measured.latencies) >= 0.001
    assert measured.per_second == pytest.approx(measured.units / 0.2)
    assert measured.server_cpu is None


async def test_the_warm_up_and_what_ends_too_late_are_not_counted() -> None:
    begun: list[float] = []

    async def operation(worker: int) -> int:
        begun.append(time.perf_counter())
        await asyncio.sleep(0.03)
        return 1

    measured = await closed_loop(
        *("w", "e", operation),
        workers=1,
        seconds=0.1,
        warm_up_s=0.1,
        nodes=[],
        clock=asyncio.get_running_loop().time,
    )
    assert 0 < measured.units < len(begun) - 2


def test_a_meter_reads_servers_and_client_apart() -> None:
    class Busy:
        """A node that is this very process."""

        def cpu_seconds(self) -> float:
            return cpu_seconds(os.getpid())

    meter = Meter([Busy(), Busy()])  # type: ignore[list-item]
    end = time.process_time() + 0.1
    while time.process_time() < end:
        pass
    servers, client = meter.read()
    assert servers is not None
    assert client == pytest.approx(0.1, abs=0.05)
    assert servers == pytest.approx(2 * client, abs=0.08)


MEASURED = Measured("64-writers", "append", 20_000, 2.0, [0.001] * 98 + [0.005, 0.2], 4.0, 1.0)


def test_a_row_has_every_figure() -> None:
    assert row(MEASURED) == ["64-writers", "10,000 appends/s", "1.00", "5.00", "200", "0.20", "0.0500"]
    assert len(COLUMNS) == 7


def test_figures_that_are_not_known_are_not_made_up() -> None:
    elsewhere = Measured("scan", "event", 10, 1.0, [1.0], None, 0.0)
    assert row(elsewhere)[5] == "-"
    assert as_json(elsewhere)["server_cpu_s_per_1000"] is None
    assert Measured("w", "e", 0, 1.0, [], 1.0, 1.0).cpu_per_1000(1.0) is None


def test_json_has_milliseconds_and_rates() -> None:
    found = as_json(MEASURED)
    assert (found["per_second"], found["p50_ms"], found["p99_ms"], found["max_ms"]) == (10_000, 1, 5, 200)
    assert (found["server_cpu_s_per_1000"], found["client_cpu_s_per_1000"]) == (0.2, 0.05)


def test_facts_and_figures_make_a_document(tmp_path: Path) -> None:
    facts = machine_facts(load_settings(CONFIG), tmp_path, 5.0)
    text = markdown(facts, [MEASURED])
    assert "durability fsync" in text
    assert f"{os.cpu_count()} cores" in text
    assert "bytes of JSON on average, of five kinds; 5 s each" in text
    assert "| 64-writers | 10,000 appends/s | 1.00 |" in text
    assert "fdatasync of 4 KiB" in text


def test_events_are_like_those_of_applications() -> None:
    events = Events(bodies=512)
    some = events.some(512)
    assert len({event.data for event in some}) == len({event.id for event in some}) == 512
    assert len({event.type for event in some}) == 5
    assert all(isinstance(json.loads(event.data), dict) for event in some)
    assert events.average_bytes == sum(len(event.data) for event in some) // 512
    assert events.next().data == some[0].data, "then they begin anew"
    assert [event.data for event in Events(bodies=512).some(9)] == [event.data for event in some[:9]]
    packed = zlib.compress(b"".join(event.data for event in some))
    assert 2 < sum(len(event.data) for event in some) / len(packed) < 5, "neither padding nor noise"


def test_of_several_rounds_the_median_is_shown() -> None:
    rounds = [Measured("w", "e", units, 1.0, [], None, 0.0) for units in (9, 3, 5, 4)]
    assert median_round(rounds).units == 4
    assert median_round(rounds[:3]).units == 5
    assert median_round(rounds[:1]).units == 9


def test_figures_are_compared_with_an_earlier_run() -> None:
    earlier = {**as_json(MEASURED), "per_second": 5000.0, "p50_ms": 4.0, "server_cpu_s_per_1000": None}
    before = earlier_figures("old.json", json.dumps({"facts": {}, "results": [earlier]}))
    assert ratios(MEASURED, before) == ["64-writers", "2.00", "0.25", "1.00", "-", "1.00"]
    assert len(RATIOS) == 6
    unknown = Measured("scan", "event", 10, 1.0, [1.0], None, 0.0)
    assert ratios(unknown, before) == ["scan", *["-"] * 5]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"results": [1]}', '{"results": [{}]}'])
def test_what_is_no_earlier_run_is_said(text: str) -> None:
    with pytest.raises(click.BadParameter, match=r"old\.json is not what"):
        earlier_figures("old.json", text)


def test_every_workload_says_what_it_does() -> None:
    assert all((workload.__doc__ or "").strip() for workload in WORKLOADS.values())
