"""The benchmark's clockwork, without a cluster."""

from __future__ import annotations

import asyncio
import json
import os
import time
from pathlib import Path

import pytest

from allsource.config.load import load_settings
from allsource.node.cli.bench.facts import machine_facts
from allsource.node.cli.bench.measure import Measured, Meter, closed_loop
from allsource.node.cli.bench.report import COLUMNS, as_json, markdown, row
from allsource.node.cli.bench.workloads import EVENT_BYTES, WORKLOADS, event
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
    assert "events of 200 bytes; 5 s each" in text
    assert "| 64-writers | 10,000 appends/s | 1.00 |" in text
    assert "fdatasync of 4 KiB" in text


def test_events_have_the_size_that_they_are_said_to_have() -> None:
    assert len(event().data) == EVENT_BYTES
    assert json.loads(event().data)["padding"].strip(".") == ""
    assert event().id != event().id


def test_every_workload_says_what_it_does() -> None:
    assert all((workload.__doc__ or "").strip() for workload in WORKLOADS.values())
