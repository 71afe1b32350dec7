"""The figures of a benchmark as rows, as JSON, and as a table for the documents."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import click

from allsource.node.cli.bench.measure import Measured
from allsource.node.cli.figures import show_ms, show_rate
from allsource.node.cli.output import markdown_table

COLUMNS = (
    "workload",
    "throughput",
    "p50 ms",
    "p99 ms",
    "max ms",
    "server CPU s per 1000",
    "client CPU s per 1000",
)


def row(measured: Measured) -> list[str]:
    """A workload's line. CPU time is per 1000 of the unit that the throughput counts."""
    return [
        measured.workload,
        f"{show_rate(measured.per_second)} {measured.unit}s/s" if measured.unit != "kill" else "-",
        show_ms(measured.latency(50)),
        show_ms(measured.latency(99)),
        show_ms(max(measured.latencies, default=0.0)),
        _cpu(measured.cpu_per_1000(measured.server_cpu)),
        _cpu(measured.cpu_per_1000(measured.client_cpu) if measured.unit != "kill" else None),
    ]


def as_json(measured: Measured) -> dict[str, Any]:
    """A workload's figures for programs."""
    servers = measured.cpu_per_1000(measured.server_cpu)
    client = measured.cpu_per_1000(measured.client_cpu)
    return {
        "workload": measured.workload,
        "unit": measured.unit,
        "units": measured.units,
        "seconds": round(measured.seconds, 3),
        "per_second": round(measured.per_second, 1),
        "p50_ms": round(measured.latency(50) * 1000, 4),
        "p99_ms": round(measured.latency(99) * 1000, 4),
        "max_ms": round(max(measured.latencies, default=0.0) * 1000, 4),
        "server_cpu_s_per_1000": None if servers is None else round(servers, 5),
        "client_cpu_s_per_1000": None if client is None else round(client, 5),
    }


RATIOS_TITLE = "beside the earlier run (1 is the same; more is more)"
RATIOS = ("workload", "throughput", "p50", "p99", "server CPU", "client CPU")
_COMPARED = ("per_second", "p50_ms", "p99_ms", "server_cpu_s_per_1000", "client_cpu_s_per_1000")


def earlier_figures(name: str, text: str) -> dict[str, dict[str, Any]]:
    """The results in what `--json` printed, by workload; `name` is the file's."""
    try:
        return {one["workload"]: one for one in json.loads(text)["results"]}
    except (ValueError, TypeError, KeyError) as error:
        raise click.BadParameter(
            f"{name} is not what `allsource bench --json` prints ({error!r})", param_hint="--against"
        ) from error


def ratios(measured: Measured, before: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A workload's line of `RATIOS`: today's figures, each divided by the earlier one."""
    earlier, today = before.get(measured.workload, {}), as_json(measured)
    return [measured.workload, *(_ratio(today[figure], earlier.get(figure)) for figure in _COMPARED)]


def _ratio(today: float | None, earlier: object) -> str:
    if today is None or not isinstance(earlier, int | float) or not earlier:
        return "-"
    return f"{today / earlier:.2f}"


def markdown(facts: Mapping[str, str], results: Sequence[Measured]) -> str:
    """Facts and figures for a document."""
    lines = [f"- {name}: {value}" for name, value in facts.items()]
    return "\n".join([*lines, "", markdown_table(COLUMNS, [row(measured) for measured in results])])


def _cpu(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds:.4f}" if seconds < 0.1 else f"{seconds:.2f}"
