"""The tables of `docs/operations.md` against the code: metrics, what to alert on, exit statuses."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import cast

from allsource.node.observe import prometheus
from allsource.node.observe.metrics import LockFreeMetrics
from allsource.node.observe.prometheus import NodeView, render
from tests.node.observe.exposition import families_of
from tests.node.observe.promql import metrics_in
from tests.node.observe.test_prometheus import View

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs" / "operations.md").read_text()


class WholeView(View):
    """A node that has all that any node has."""

    def storage_properties(self) -> dict[str, int]:
        return dict.fromkeys(prometheus._STORAGE, 1)


def wanted() -> list[str]:
    """The rows of the table of metrics: the page has the words that `/metrics` itself says."""
    body, _ = render(LockFreeMetrics(), cast(NodeView, WholeView()))
    found = []
    for family in families_of(body.decode()).values():
        if family.name.startswith("allsource_"):
            suffix = {"counter": "_total", "info": "_info"}.get(family.type, "")
            found.append(f"| `{family.name}{suffix}` | {family.documentation} |")
    return sorted(found)


def test_the_page_has_every_metric_and_what_it_means() -> None:
    told = re.findall(r"^\| `allsource_.*\|$", PAGE.partition("\n## Metrics\n")[2], re.MULTILINE)
    lines = [f"missing: {row}" for row in wanted() if row not in told]
    lines += [f"no more: {row}" for row in told if row not in wanted()]
    assert not lines, "\n".join(["docs/operations.md:", *lines])


def test_what_to_alert_on_exists() -> None:
    names = {row.split("`")[1] for row in wanted()}
    rows = re.findall(r"^\| `([^`]*allsource_[^`]*)` \|", PAGE.partition("## Metrics")[0], re.MULTILINE)
    assert len(rows) > 6
    for query in rows:
        assert metrics_in(query) <= names, query


def statuses_in_the_code() -> set[int]:
    """Every constant that names an exit status, wherever it stands."""
    found = {0}
    for path in [*(ROOT / "node").rglob("*.py"), *(ROOT / "cluster").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name | ast.Tuple):
                names, values = [ast.unparse(one).strip("()") for one in (node.targets[0], node.value)]
                if names.startswith("EXIT_") or names == "FAILED, USAGE, DEFECT, INTERRUPTED":
                    found |= set(map(int, values.split(", ")))
    return found


def test_the_page_has_every_exit_status() -> None:
    table = PAGE.partition("| status |")[2].partition("\n\n")[0]
    assert set(map(int, re.findall(r"^\| (\d+) \|", table, re.MULTILINE))) == statuses_in_the_code()
