"""Seeing a full disk or a write stall before it comes.

RocksDB makes its writer wait when flushing or compacting falls behind, and fails for good when the
disk is full in the middle of a write. Its writer is our event loop, heartbeats included. So the node
asks here before it gives an append a version, and refuses while there is still room for what must go
on: votes, and what a leader elsewhere has already sent.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import NamedTuple

from allsource.storage.interface import Refusal
from allsource.storage.model.errors import DiskFull, Overloaded
from allsource.storage.rocksdb.database import Database
from allsource.storage.rocksdb.keys import COLUMN_FAMILIES
from allsource.storage.rocksdb.options import MEMTABLES_MAX

_LOOK_EVERY_S = 0.005
_DISK_EVERY_S = 0.1
# Half of the write buffers waiting to be flushed: at 300 MB/s the other half is a second's work.
_IMMUTABLE_MAX = MEMTABLES_MAX // 2
# Reads consult every file of level 0; many of them mean that compaction does not keep up.
_LEVEL0_MAX = 64
# Until the disk has been asked: assume room, for what does not fit fails anyway.
_UNKNOWN = 1 << 62
# What is left to writes that may not be refused early (see `refuses`).
_RESERVE_BYTES_MAX = 64 << 20


# RocksDB makes a file for each flush, compaction and write-ahead log. Above the first limit new appends are
# taken, above the second what may not be refused early: 40 files are some minutes of flushing.
_INODES_MIN = 128
_INODES_RESERVE = 40


class Room(NamedTuple):
    """What this user may still use of a file system."""

    free_bytes: int
    inodes: int


def room(path: Path) -> Room:
    """The room on the file system of `path`. One that makes inodes as needed has no end of them."""
    stat = os.statvfs(path)
    return Room(stat.f_bavail * stat.f_frsize, stat.f_favail if stat.f_files else _UNKNOWN)


def free_bytes(path: Path) -> int:
    """Bytes that this user may still write on the file system of `path`."""
    return room(path).free_bytes


class Pressure:
    """The newest figures, looked up at most every 5 ms (RocksDB) and 100 ms (disk)."""

    def __init__(
        self,
        database: Database,
        disk_free_bytes_min: int,
        *,
        clock: Callable[[], float] = monotonic,
        measure: Callable[[Path], Room] = room,
    ) -> None:
        self._database = database
        self._disk_free_bytes_min = disk_free_bytes_min
        self._reserve_bytes = min(disk_free_bytes_min // 4, _RESERVE_BYTES_MAX)
        self._clock = clock
        self._measure = measure
        self._free = self._inodes = _UNKNOWN
        self._refusal: Refusal | None = None
        self._look_at = self._disk_at = float("-inf")

    def refusal(self) -> Refusal | None:
        """Why new appends should be refused now, else None."""
        now = self._clock()
        if now >= self._look_at:
            self._look_at = now + _LOOK_EVERY_S
            self._look_at_disk(now)
            self._refusal = self._room() or self._stall()
        return self._refusal

    def refuses(self, size: int) -> str | None:
        """Why a write of `size` bytes cannot be taken at all, else None.

        Stricter for new appends (`refusal`) than for this: between the two limits lies the room for
        what followers must store and for votes.
        """
        now = self._clock()
        self._look_at_disk(now)
        self._free -= size  # until the next look, assume that it costs what it holds
        if self._free < self._reserve_bytes:
            return f"{max(self._free, 0)} bytes are free on the disk of {self._database.path}"
        if self._inodes < _INODES_RESERVE:
            return f"{self._inodes} inodes are free on the disk of {self._database.path}"
        return None

    def _look_at_disk(self, now: float) -> None:
        if now >= self._disk_at:
            self._disk_at = now + _DISK_EVERY_S
            try:
                self._free, self._inodes = self._measure(self._database.path)
            except OSError:
                # A disk that does not answer even this fails a write or a sync, which is where it counts.
                # Until then, what was known of its room stands.
                return

    def _room(self) -> Refusal | None:
        if self._inodes < _INODES_MIN:
            return Refusal(
                DiskFull, f"the disk is nearly full: {self._inodes} inodes free (files it can hold)"
            )
        if self._free >= self._disk_free_bytes_min:
            return None
        return Refusal(
            DiskFull,
            f"the disk is nearly full: {max(self._free, 0) >> 20} MiB free,"
            f" {self._disk_free_bytes_min >> 20} MiB must stay free",
        )

    def _stall(self) -> Refusal | None:
        reason = self._stall_reason()
        return None if reason is None else Refusal(Overloaded, f"the disk does not keep up: {reason}")

    def _stall_reason(self) -> str | None:
        db = self._database.db
        if db.property_int_value("rocksdb.is-write-stopped"):
            return "writes are stopped"
        if db.property_int_value("rocksdb.actual-delayed-write-rate"):
            return "writes are slowed down"
        for name in COLUMN_FAMILIES:
            family = self._database.families[name]
            waiting = family.property_int_value("rocksdb.num-immutable-mem-table") or 0
            if waiting >= _IMMUTABLE_MAX:
                return f"{waiting} write buffers of {name} wait to be flushed"
            files = int(family.property_value("rocksdb.num-files-at-level0") or 0)
            if files >= _LEVEL0_MAX:
                return f"{files} files of {name} wait to be compacted"
        return None
