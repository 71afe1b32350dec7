"""The clock that other processes cannot hurry."""

from __future__ import annotations

import asyncio
import time

import pytest

from tests.patient import PatientLoop


async def test_time_that_the_machine_gives_to_others_does_not_count() -> None:
    """A sleeping thread is to the loop what a thread without a core is."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, PatientLoop)
    begun = loop.time()
    time.sleep(0.3)  # noqa: ASYNC251
    assert loop.time() - begun < 0.1


async def test_waiting_and_working_count() -> None:
    loop = asyncio.get_running_loop()
    begun = loop.time()
    await asyncio.sleep(0.05)
    assert 0.05 <= loop.time() - begun < 0.1
    begun, worked = loop.time(), time.thread_time()
    while time.thread_time() - worked < 0.05:
        sum(range(1000))
    assert 0.05 <= loop.time() - begun < 0.1


async def test_a_timeout_is_not_reached_by_standing_still() -> None:
    async with asyncio.timeout(0.2):
        time.sleep(0.4)  # noqa: ASYNC251
        await asyncio.sleep(0.01)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.02):
            await asyncio.Event().wait()


async def test_other_threads_may_ask_for_the_time() -> None:
    loop = asyncio.get_running_loop()
    told = await asyncio.to_thread(loop.time)
    assert abs(loop.time() - told) < 1.0
