"""A consistent copy of an open RocksDB, while its writer goes on.

RocksDB's own checkpoint writes every memtable to a file, then hard-links all files, which never change,
and copies the few that do. It is consistent over all column families and costs no space until compaction
replaces the linked files. But rocksdict 0.3.29 holds the interpreter for the whole call: with 40 MB in a
memtable, 85 ms without a heartbeat. `flush`, however, lets go of it (measured: other threads never wait
for more than 5 ms). So everything is flushed first, and once more what came meanwhile, until nothing is
left or little. The call then costs 3 fsyncs, or 20 if all families have something. Under 2 and 20 MB/s of
writes the process stood still for 5 to 16 ms, and for 30 ms beside two others that wrote and fsynced all
the time; a disk that is slower to sync makes it longer. Hence a cluster's nodes are asked one after another
(`allsource checkpoint`).

Links end at the file system's border, where RocksDB would copy all of it in that same call. So a
checkpoint for another file system is made beside the database first, and copied from there by us.
"""

from __future__ import annotations

from pathlib import Path

from rocksdict import Checkpoint

from allsource.storage.files.checkpoint import (
    CheckpointFailed,
    built_at,
    can_link,
    copy_files,
    marked,
    scratch,
    size_of,
    sync_files,
)
from allsource.storage.files.format import Format, write_format
from allsource.storage.files.room import means_full
from allsource.storage.files.synced import SyncedMark
from allsource.storage.model.errors import Corrupt, DiskFull, InvalidRequest
from allsource.storage.rocksdb.database import Database, fault_of
from allsource.storage.rocksdb.pressure import free_bytes

_FLUSHES_MIN, _FLUSHES_MAX = 3, 6
_LITTLE_BYTES = 4 << 20
"""What may be left in memtables when the interpreter is held: not much beside the syncs."""


def take_checkpoint(
    database: Database, source: Format, incarnation: int, target: Path, disk_free_bytes_min: int
) -> None:
    """Make `target` a checkpoint with everything that was written before this call.

    For a thread of its own. Raises `CheckpointExists`, `CheckpointFailed`, `DiskFull`, `InvalidRequest`
    (nothing is left of it, the store goes on) or `Corrupt`.
    """
    target = target.absolute()
    if (target.parent.resolve() / target.name).is_relative_to(database.path.resolve()):
        raise InvalidRequest(f"{target} is inside the database; choose a place outside of it")
    with built_at(target) as place:
        sequence = database.db.latest_sequence_number()
        near = can_link(database.path / "CURRENT", place)
        _check_room(database, place, disk_free_bytes_min, near=near)
        try:
            _flush_the_bulk(database)
            if near:
                _link_files(database, place / "db")
            else:
                _copy_through_stage(database, place / "db")
        except Exception as error:
            if type(error) is not Exception:  # not one of rocksdict's
                raise
            raise _explained(error, database, target) from error
        sync_files(place / "db")
        SyncedMark.write(place / "SYNCED", sequence)
        write_format(place, marked(source, incarnation))


def _copy_through_stage(database: Database, path: Path) -> None:
    with scratch(database.path.parent) as stage:
        if not can_link(database.path / "CURRENT", stage):
            raise CheckpointFailed(
                f"the file system of {database.path} has no hard links, or nothing but the database lies on"
                " it; a checkpoint of a store in use is made of such links, beside it. Nothing was made."
                " Stop what has it open, and copy the directory"
            )
        _link_files(database, stage / "db")
        copy_files(stage / "db", path)


def _link_files(database: Database, path: Path) -> None:
    Checkpoint(database.db).create_checkpoint(str(path))


def _check_room(database: Database, place: Path, disk_free_bytes_min: int, *, near: bool) -> None:
    """Flushing takes room on the store's disk, and a copy elsewhere as much as the store has."""
    memtables = _memtable_bytes(database)
    free = free_bytes(database.path)
    if free < memtables + disk_free_bytes_min:
        raise DiskFull(
            f"the disk is nearly full: {free >> 20} MiB free, {disk_free_bytes_min >> 20} MiB must stay"
            " free (a checkpoint keeps files alive that compaction would remove); nothing was made"
        )
    if near:
        return
    needed = memtables + size_of(database.path)
    free = free_bytes(place)
    if free < needed:
        raise DiskFull(
            f"there is not enough room for the checkpoint in {place.parent}: it needs {needed >> 20} MiB,"
            f" {free >> 20} MiB are free; nothing was made"
        )


def _flush_the_bulk(database: Database) -> None:
    """Flush until nothing is left; if writes go on and on, until little is."""
    for done in range(_FLUSHES_MAX):
        if _is_flushed(database) or (done >= _FLUSHES_MIN and _memtable_bytes(database) <= _LITTLE_BYTES):
            return
        for family in database.families.values():
            family.flush(wait=True)


def _is_flushed(database: Database) -> bool:
    return not any(
        family.property_int_value(f"rocksdb.{figure}")
        for family in database.families.values()
        for figure in ("num-entries-active-mem-table", "num-entries-imm-mem-tables")
    )


def _memtable_bytes(database: Database) -> int:
    return sum(
        family.property_int_value("rocksdb.cur-size-all-mem-tables") or 0
        for family in database.families.values()
    )


def _explained(error: Exception, database: Database, target: Path) -> Exception:
    """What an exception of rocksdict means here."""
    fault = fault_of(error, database.path)
    if isinstance(fault, Corrupt):
        return fault
    text = " ".join(str(error).split())
    if means_full(error):
        return DiskFull(f"the disk is full: {text}; nothing is left of the checkpoint {target}")
    return CheckpointFailed(f"the checkpoint {target} could not be made: {text}; nothing of it is left")
