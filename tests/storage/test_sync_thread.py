"""The sync thread, and the tasks of an embedded store that wait for it."""

from __future__ import annotations

import asyncio
import threading

import pytest

from allsource.storage.embedded.group_sync import GroupSync
from allsource.storage.files.sync_thread import SyncThread
from allsource.storage.model.errors import OutcomeUnknown
from tests.waiting import until


class Disk:
    """A sync lasts until `gate` is open, and fails with `error` if there is one."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.syncs = 0
        self.error: BaseException | None = None

    def sync(self) -> None:
        self.syncs += 1
        assert self.gate.wait(30)
        if self.error is not None:
            raise self.error


class Told:
    """What a thread has told."""

    def __init__(self, disk: Disk) -> None:
        self.done: list[int] = []
        self.failed: list[tuple[BaseException, bool]] = []
        """With each error: whether it was told in the thread."""
        self.thread = SyncThread(
            asyncio.get_running_loop(),
            disk.sync,
            clock=lambda: 0,
            done=lambda number, _took_us: self.done.append(number),
            failed=lambda error: self.failed.append(
                (error, threading.current_thread() is self.thread._thread)
            ),
        )


async def test_numbers_that_wait_share_a_sync_and_the_highest_is_told() -> None:
    disk = Disk()
    disk.gate.clear()
    told = Told(disk)
    told.thread.request(1)
    told.thread.start()
    await until(lambda: disk.syncs == 1)
    for number in (2, 3, 4):
        told.thread.request(number)
    disk.gate.set()
    await until(lambda: told.done == [1, 4])
    assert disk.syncs == 2
    told.thread.stop()


async def test_a_stop_syncs_what_was_asked_for_before_it() -> None:
    disk = Disk()
    told = Told(disk)
    told.thread.start()
    told.thread.request(1)
    await asyncio.to_thread(told.thread.stop)
    assert disk.syncs == 1
    Told(disk).thread.stop()  # one that never began


@pytest.mark.parametrize("error", [OSError("EIO"), SystemExit(1), MemoryError()])
async def test_whatever_ends_the_thread_is_told_once_and_never_taken_for_done(error: BaseException) -> None:
    disk = Disk()
    disk.error = error
    told = Told(disk)
    told.thread.start()
    told.thread.request(1)
    await until(lambda: bool(told.failed))
    disk.error = None
    told.thread.request(2)
    told.thread.stop()
    await asyncio.sleep(0)
    assert (told.failed, told.done, disk.syncs) == ([(error, True)], [], 1)


async def test_a_failed_sync_fails_every_group_and_is_never_tried_again() -> None:
    disk = Disk()
    disk.gate.clear()
    disk.error = OSError("EIO")
    group = GroupSync(disk)
    first = asyncio.create_task(group.durable())
    await until(lambda: disk.syncs == 1)
    second = asyncio.create_task(group.durable())
    await asyncio.sleep(0)  # its turn has ended: it waits for the next sync
    disk.gate.set()
    for outcome in await asyncio.gather(first, second, return_exceptions=True):
        assert isinstance(outcome, OutcomeUnknown)
    with pytest.raises(OutcomeUnknown, match="EIO"):
        await group.durable()
    await group.close()
    assert disk.syncs == 1


async def test_a_writer_that_is_cancelled_costs_its_group_nothing() -> None:
    disk = Disk()
    disk.gate.clear()
    group = GroupSync(disk)
    one, other = asyncio.create_task(group.durable()), asyncio.create_task(group.durable())
    await until(lambda: disk.syncs == 1)
    one.cancel()
    disk.gate.set()
    await other
    await group.close()
    assert one.cancelled()
