"""The Grafana dashboard against what a node really shows, so that no renamed metric leaves it behind."""

from __future__ import annotations

import asyncio
import json
import re
import tomllib
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import structlog

from allsource.storage.model.events import NewEvent
from tests.node.observe.exposition import families_of
from tests.node.observe.promql import Use, grouped_by, labels_in, metrics_in
from tests.node.test_daemon import Nodes, settings_in

ROOT = Path(__file__).resolve().parents[3]
PATH = ROOT / "config" / "grafana-dashboard.json"
DASHBOARD: dict[str, Any] = json.loads(PATH.read_text())
PANELS: list[dict[str, Any]] = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
VARIABLES: dict[str, dict[str, Any]] = {v["name"]: v for v in DASHBOARD["templating"]["list"]}
OF_THE_TARGET = {"instance", "job"}
"""Labels that Prometheus itself gives each series."""

Labels = dict[str, set[str]]
"""By the names of series."""


def targets() -> Iterator[tuple[str, dict[str, Any]]]:
    """Every query, with the name of its panel."""
    for panel in PANELS:
        yield from ((panel["title"], target) for target in panel["targets"])


def expressions() -> Iterator[tuple[str, str]]:
    """All PromQL of the file, that of the variables included, and where it stands."""
    yield from ((title, target["expr"]) for title, target in targets())
    for name, variable in VARIABLES.items():
        if variable["type"] == "query":
            query = variable["query"]["query"]
            yield f"${name}", re.fullmatch(r"(?:label_values|query_result)\((.*?)(?:, \w+)?\)", query)[1]  # type: ignore[index]


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Labels:
    """The series of a node that leads, follows and has served, with their labels."""
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    found: Labels = {}
    for family in families_of(asyncio.run(page_of_a_node(tmp_path_factory.mktemp("nodes")))).values():
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels, OF_THE_TARGET)
    return found


async def page_of_a_node(directory: Path) -> str:
    """`/metrics` of one of three that run, as Prometheus gets it."""
    nodes = Nodes(settings_in(directory, 3))
    await nodes.start()
    try:
        await nodes.ready()
        async with nodes.client() as client, aiohttp.ClientSession() as session:
            for number in range(16):
                await client.append(f"s-{number}", [NewEvent.json("T", number)])
                await client.read_stream(f"s-{number}")
            url = f"http://127.0.0.1:{nodes.settings.node('n1').http_port}/metrics"
            async with session.get(url) as answer:
                return await answer.text()
    finally:
        await nodes.stop()


def faults_of(where: str, expression: str, shown: Labels) -> Iterator[str]:
    """What the expression asks for and no node shows."""
    for name in sorted(metrics_in(expression) - shown.keys()):
        yield f"{where}: no node shows {name}"
    for use in labels_in(expression):
        have = [use.label in shown[name] for name in use.metrics if name in shown]
        if have and not (any(have) if use.any_of_them else all(have)):
            yield f"{where}: no label {use.label} on {', '.join(sorted(use.metrics))}"


def test_every_query_asks_for_what_a_node_shows(shown: Labels) -> None:
    faults = [fault for where, text in expressions() for fault in faults_of(where, text, shown)]
    for title, target in targets():
        left = grouped_by(target["expr"])
        if left is None:
            left = set().union(*(shown.get(name, set()) for name in metrics_in(target["expr"])))
        legend = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
        faults += [f"{title}: the legend's {label} is not in the result" for label in sorted(legend - left)]
    for name, variable in VARIABLES.items():
        asked = re.fullmatch(r"label_values\((\w+).*, (\w+)\)", variable.get("definition", ""))
        if asked and asked[2] not in shown.get(asked[1], set()):
            faults.append(f"${name}: no label {asked[2]} on {asked[1]}")
    assert not faults, "\n".join(["", *faults])


def test_everything_that_a_node_counts_is_on_the_dashboard(shown: Labels) -> None:
    """But for what is there to be looked up, or is one figure of several that say the same."""
    used = set().union(*(metrics_in(text) for _, text in expressions()))
    not_shown = {
        name
        for name in shown.keys() - used
        if name.startswith("allsource_") and not name.endswith(("_sum", "_count"))
    }
    assert not_shown == {"allsource_storage_rocksdb_estimated_keys", "allsource_storage_rocksdb_sst_bytes"}


def test_the_reader_of_promql_finds_what_is_used() -> None:
    text = (
        'histogram_quantile(0.5, sum by (le, node) (rate(a_bucket{x=~"$y,{b}", z!="or"}[$__range])))'
        " / on (k) group_left (v) (b - 1) or vector(0)"
    )
    assert metrics_in(text) == {"a_bucket", "b"}
    only, both = frozenset(("a_bucket",)), frozenset(("a_bucket", "b"))
    assert set(labels_in(text)) == {
        *(Use(label, only) for label in ("x", "z", "le", "node")),
        Use("k", both),
        Use("v", both, any_of_them=True),
    }
    assert grouped_by(text) == {"le", "node"}
    assert grouped_by("rate(a[5m])") is None


def test_faults_are_found() -> None:
    shown = {"a_total": {"reason"}}
    assert list(faults_of("p", "rate(a_total[5m])", shown)) == []
    assert list(faults_of("p", "rate(b_total[5m])", shown)) == ["p: no node shows b_total"]
    assert list(faults_of("p", "sum by (why) (a_total)", shown)) == ["p: no label why on a_total"]
    assert list(faults_of("p", 'a_total{why="x"}', shown)) == ["p: no label why on a_total"]


def test_it_is_whole() -> None:
    """Ids are unique, no panel covers another, and every variable that is used is there."""
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids))
    taken: dict[tuple[int, int], str] = {}
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24, panel["title"]
        for x in range(at["x"], at["x"] + at["w"]):
            for y in range(at["y"], at["y"] + at["h"]):
                assert (x, y) not in taken, f"{panel['title']} covers {taken[x, y]}"
                taken[x, y] = panel["title"]
    used = set(re.findall(r"\$\{?(\w+)", PATH.read_text()))
    assert used - VARIABLES.keys() == {"__rate_interval", "__range", "__all"}
    assert VARIABLES.keys() - used == set()


def test_no_query_names_a_data_source_or_a_machine() -> None:
    for thing in (*PANELS, *(target for _, target in targets())):
        assert thing["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    assert not re.search(r"localhost|127\.0\.0\.1|https?:", PATH.read_text())


def test_it_is_shipped() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    assert any(fnmatch(PATH.name, pattern) for pattern in settings["package-data"]["allsource.config"])
