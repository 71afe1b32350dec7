"""The simulated process around the real driver tells the judge what others may know of it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import pytest

from allsource.cluster.consensus.messages import Role, RoleChange
from allsource.cluster.shell.replica import Outcome
from tests.simulation.node import SimNode
from tests.simulation.shell import WorkRaised, _Work


def test_all_that_a_process_led_is_known_though_its_work_raises_at_the_first() -> None:
    """The messages of both leaderships were sent; a follower of the second was thought a liar (607411)."""
    led: list[tuple[int, int]] = []
    node = SimpleNamespace(
        work_raises=True,
        invariants=SimpleNamespace(leads=lambda _node, partition, term: led.append((partition, term))),
    )
    changes = tuple(RoleChange(partition, 8, Role.LEADER, "n1") for partition in (0, 3))
    with pytest.raises(WorkRaised):
        _Work(cast(SimNode, node)).act(Outcome(changes=changes))
    assert led == [(0, 8), (3, 8)]
