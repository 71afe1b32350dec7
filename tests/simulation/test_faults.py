"""Every fault strikes in some schedule: one that is never drawn finds nothing."""

from __future__ import annotations

import ast
from pathlib import Path

from tests.simulation import themes
from tests.simulation.faults import STRIKES
from tests.simulation.mixture import KINDS


def test_every_kind_that_is_drawn_can_strike_and_every_kind_that_can_is_drawn() -> None:
    tree = ast.parse(Path(themes.__file__).read_text())
    words = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    assert STRIKES.keys() == KINDS.keys() | (STRIKES.keys() & words)
