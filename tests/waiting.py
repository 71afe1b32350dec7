"""Waiting for a condition instead of for time to pass."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

DEADLINE_S = 60.0
"""Far more than anything here takes; a test that reaches it fails."""


async def until(condition: Callable[[], bool], what: str = "") -> None:
    """Return as soon as `condition()` holds; fail at the deadline."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + DEADLINE_S
    while not condition():
        assert loop.time() < deadline, f"waited {DEADLINE_S:g} s in vain {what}"
        await asyncio.sleep(0.001)


def held_up(
    monkeypatch: pytest.MonkeyPatch, module: ModuleType, function: str
) -> tuple[threading.Event, threading.Event]:
    """Hold up a function in whatever thread calls it: the first event says that it was called, and it goes
    on when the second one is set."""
    begun, go_on = threading.Event(), threading.Event()
    original = getattr(module, function)

    def slowly(*arguments: Any) -> Any:
        begun.set()
        assert go_on.wait(DEADLINE_S)
        return original(*arguments)

    monkeypatch.setattr(module, function, slowly)
    return begun, go_on
