"""The event loop that commands run on: uvloop's where there is one, as in the nodes."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Coroutine
from typing import Any, TypeVar

_Result = TypeVar("_Result")


def run_loop(main: Coroutine[Any, Any, _Result]) -> _Result:
    """Run `main` to its end. Ctrl-C, SIGTERM and SIGHUP cancel it, so that whatever it started and made is
    cleaned up, and raise `KeyboardInterrupt`."""
    factory = None
    if sys.platform != "win32":
        import uvloop

        factory = uvloop.new_event_loop
    told: list[signal.Signals] = []
    with asyncio.Runner(loop_factory=factory) as runner:
        try:
            return runner.run(_until_told(main, told))
        except asyncio.CancelledError:
            if told:
                raise KeyboardInterrupt from None
            raise


async def _until_told(main: Coroutine[Any, Any, _Result], told: list[signal.Signals]) -> _Result:
    task = asyncio.current_task()
    assert task is not None

    def stop(number: signal.Signals) -> None:
        told.append(number)
        task.cancel()

    if sys.platform != "win32":
        for number in (signal.SIGTERM, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(number, stop, number)
    return await main
