"""Waiting for a condition instead of for time to pass."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

DEADLINE_S = 10.0
"""Far more than anything here takes; a test that reaches it fails."""


async def until(condition: Callable[[], bool], what: str = "") -> None:
    """Return as soon as `condition()` holds; fail at the deadline."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + DEADLINE_S
    while not condition():
        assert loop.time() < deadline, f"waited {DEADLINE_S:g} s in vain {what}"
        await asyncio.sleep(0.001)
