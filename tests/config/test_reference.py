"""config/README.md's table says what the code does: each key, its default, what is allowed."""

from __future__ import annotations

import re
from pathlib import Path

from allsource.config.knobs import Knob, all_knobs, knobs_of
from allsource.config.schema import NodeSettings
from allsource.config.values import Count, Duration, Name, Secret, Size, Uuid

README = Path(__file__).resolve().parents[2] / "config" / "README.md"

COMPUTED = {
    "client_secret": "derived from `secret`",
    "cluster_id": "from the name",
    "replication_factor": "3, or the number of nodes if fewer",
    "http.allowed_hosts": "none",
    "storage.dsn": "none",
    "nodes[].data_dir": "`data/CLUSTER_NAME/ID`",
}
"""Defaults that are not one value; test_load.py proves them."""


def expected_rows() -> list[tuple[str, str, str]]:
    knobs = [*all_knobs(), *((f"nodes[].{key}", knob) for key, knob in knobs_of(NodeSettings).items())]
    return [(key, default(key, knob), allowed(knob)) for key, knob in knobs]


def default(key: str, knob: Knob) -> str:
    if key in COMPUTED:
        return COMPUTED[key]
    return "required" if knob.default is None else f"`{knob.kind.show(knob.default)}`"


def allowed(knob: Knob) -> str:
    """The same as the faults say, in a table's shortness."""
    match knob.kind:
        case Size(least, most):
            return f"size, {knob.kind.show(least)} to {knob.kind.show(most)}"
        case Duration(least, most):
            return f"time, {knob.kind.show(least)} to {knob.kind.show(most)}"
        case Count(least, most):
            return f"{least} to {most}"
        case Secret(least, most):
            return f"secret, {least} to {most} characters"
        case Name():
            return "name"
        case Uuid():
            return "UUID"
    return knob.kind.allowed


def test_the_table_equals_the_schema() -> None:
    rows = re.findall(
        r"^\| `([a-z_.\[\]]+)` \| (.+?) \| (.+?) \| (.+) \|$", README.read_text(), re.MULTILINE
    )
    assert [row[:3] for row in rows] == expected_rows()
    assert all(meaning.strip().endswith(".") for *_, meaning in rows)


def test_every_example_is_listed() -> None:
    text = README.read_text()
    assert [path.name for path in README.parent.glob("*.yaml") if f"({path.name})" not in text] == []
