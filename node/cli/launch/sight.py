"""From the children to `overview`: reads what the kernel and the disk know of them."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

from allsource.node.cli.control.processes import uptime_s
from allsource.node.cli.launch.lines import bare
from allsource.node.cli.launch.overview import NodeSeen, Overview, Rates
from allsource.node.cli.launch.supervisor import Child

_DISK_EVERY_S, _DISK_AT_FIRST_S = 5.0, 0.5
_RATES_EVERY_S = 0.5


class Sight:
    """What is known of the children now. `look_at_disks` runs beside it until it is cancelled."""

    def __init__(self, children: Sequence[Child]) -> None:
        self._children = children
        self._rates = Rates()
        self._rated_at = 0.0
        self._used: dict[str, int] = {}
        self._free: dict[str, int] = {}

    def overview(self) -> Overview:
        """The moment that it is called."""
        now = time.monotonic()
        pictures = [child.picture for child in self._children if child.picture is not None]
        if pictures and now - self._rated_at >= _RATES_EVERY_S:
            self._rates.add(now, pictures)
            self._rated_at = now
        return Overview([self._seen(child, now) for child in self._children], self._rates.by_partition())

    def _seen(self, child: Child, now: float) -> NodeSeen:
        pid = child.node.pid if child.is_up else None
        if child.is_by_hand and child.picture is not None:
            pid = child.picture.pid
        return NodeSeen(
            id=child.id,
            address=child.address,
            http=child.http_url,
            state=child.state,
            pid=pid,
            by_hand=child.is_by_hand,
            is_ready=child.is_ready,
            picture=child.picture,
            given_up=child.is_given_up,
            exit_signal=max(0, -(child.exit_status or 0)),
            starts=child.starts,
            complaint=bare(child, child.last_complaint),
            complaint_age_s=now - child.complained_at,
            uptime_s=None if pid is None else uptime_s(pid),
            disk_used=self._used.get(child.id),
            disk_free=self._free.get(child.id),
        )

    async def look_at_disks(self) -> None:
        """Keep the sizes of the data directories fresh until cancelled."""
        while True:
            for child in self._children:
                if child.data_dir is not None and child.data_dir.is_dir():
                    used, free = await asyncio.to_thread(_sizes, child.data_dir)
                    self._used[child.id], self._free[child.id] = used, free
            await asyncio.sleep(_DISK_EVERY_S if self._free else _DISK_AT_FIRST_S)


def _sizes(directory: Path) -> tuple[int, int]:
    """Bytes that a directory's files take on the disk, each file once, and bytes free there."""
    counted: dict[tuple[int, int], int] = {}
    for place, _, names in os.walk(directory):
        for name in names:
            try:
                found = os.lstat(os.path.join(place, name))
            except OSError:  # compacted away meanwhile
                continue
            counted[found.st_dev, found.st_ino] = found.st_blocks * 512
    return sum(counted.values()), shutil.disk_usage(directory).free
