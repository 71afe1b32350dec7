"""Copies of what this node has stored, made while it serves.

A copy holds everything that this node acknowledged before it was asked for: the commit indexes, which
storage otherwise learns with the beats, are written first. What it takes of the event loop is that write;
the copying itself runs in a thread, which holds the interpreter for some milliseconds at its end
(`storage.rocksdb.checkpoint`).

A client chooses a name, never a path: copies lie in `checkpoints/` of the data directory. Their number is
bounded (`limits.checkpoints_max`), because each keeps old files on the disk. Nothing removes them unasked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

from allsource.storage.files.checkpoint import (
    CheckpointInfo,
    check_room,
    list_checkpoints,
    place_for,
    read_checkpoint,
    remove_checkpoint,
)
from allsource.storage.files.directory import CHECKPOINTS
from allsource.storage.interface import Storage
from allsource.storage.model.errors import CheckpointsUnsupported, Overloaded


class Checkpoints:
    """See the module's page."""

    def __init__(
        self,
        storage: Storage,
        node_id: str,
        data_dir: Path,
        save_commits: Callable[[], None],
        most: int,
    ) -> None:
        """`save_commits` makes storage know what this node acknowledged (`Driver.save_commits`); `most` is
        how many checkpoints there may be."""
        self._storage = storage
        self._node_id = node_id
        self._data_dir = data_dir
        self._save_commits = save_commits
        self._most = most
        self._making = asyncio.Lock()

    async def make(self, name: str) -> dict[str, Any]:
        """Make a checkpoint; its facts as JSON. Raises as `Storage.checkpoint` does, and
        `InvalidRequest` for a bad name, `TooManyCheckpoints`, `CheckpointsUnsupported`."""
        self._check_supported()
        if self._making.locked():
            raise Overloaded("another checkpoint is being made; nothing was done, try again later")
        async with self._making:  # also for the count: the next one sees this one
            place = await asyncio.to_thread(self._place_for, name)
            self._save_commits()
            await asyncio.to_thread(self._storage.checkpoint, place)
            return self._facts(await asyncio.to_thread(read_checkpoint, place))

    async def remove(self, name: str) -> dict[str, Any]:
        """Remove a checkpoint; the facts of what it was. Raises as `remove_checkpoint` does."""
        self._check_supported()
        found = await asyncio.to_thread(remove_checkpoint, self._data_dir / CHECKPOINTS, name)
        return self._facts(found)

    def _place_for(self, name: str) -> Path:
        place = place_for(self._data_dir, name)
        check_room(place.parent, self._most)
        return place

    async def listed(self) -> dict[str, Any]:
        """The checkpoints that lie here, as JSON."""
        self._check_supported()
        found = await asyncio.to_thread(list_checkpoints, self._data_dir / CHECKPOINTS)
        return {"node": self._node_id, "checkpoints": [self._facts(one) for one in found]}

    def _check_supported(self) -> None:
        if why := self._storage.no_checkpoints:
            raise CheckpointsUnsupported(f"this node makes no checkpoints: {why}")

    def _facts(self, info: CheckpointInfo) -> dict[str, Any]:
        return {
            "name": info.name,
            "node": self._node_id,
            "path": str(self._data_dir.absolute() / CHECKPOINTS / info.name),
            "taken": info.taken or None,
            "size_bytes": info.size_bytes,
        }
