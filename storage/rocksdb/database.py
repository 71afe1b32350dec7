"""Opening RocksDB, telling a torn tail from corruption, and speaking of its faults in our words.

RocksDB's own recovery modes do not know what was acknowledged. One refuses to open when the last,
never acknowledged record is half written; the other opens happily when somebody cut the log in the
middle. (Both were tried: removing the whole log file goes unnoticed in any mode.) So it recovers up to
the first record that is not whole, and the `SyncedMark` says whether that was far enough. If it was
not, the log files as they were found are kept aside: recovery is about to drop what it could not read.

Errors come from rocksdict as plain `Exception`s with RocksDB's text. `fault_of` turns them into errors of
ours, which say what to do.

Two traps of rocksdict 0.3.29: `keys()` and `items()` end silently at a damaged block, so `Database.scan`
drives an iterator and asks for its status. And the database stays locked until each column family is
closed too and nobody holds a handle of one any more.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import wraps
from pathlib import Path
from typing import Concatenate, ParamSpec, Protocol, TypeVar

from rocksdict import AccessType, DbClosedError, Rdict, WriteBatch, WriteOptions

from allsource.storage.files.room import disk_full, means_full
from allsource.storage.files.synced import SyncedMark
from allsource.storage.model.errors import (
    NO_COPY_HELPS,
    AllsourceError,
    Corrupt,
    DirectoryInUse,
    StorageFault,
)
from allsource.storage.rocksdb.keys import (
    COLUMN_FAMILIES,
    EVENTS,
    IDS,
    MARKS,
    META,
    PARTITION_INDEX,
    STREAMS,
    TAGS,
)
from allsource.storage.rocksdb.options import RocksOptions, database_options, family_options

_REPLACE = f"`allsource verify` shows what is damaged; {NO_COPY_HELPS}"


class Database:
    """An open RocksDB with our column families. Values are bytes; the families are plain attributes,
    because the hot path calls their `get` directly."""

    def __init__(self, path: Path, options: RocksOptions, *, read_only: bool = False) -> None:
        """Open or create (or only open, and change no file); raises `StorageFault` and its kinds."""
        self.path = path
        access = AccessType.read_only(False) if read_only else AccessType.read_write()
        try:
            self.db = Rdict(
                str(path), database_options(options), family_options(options), access_type=access
            )
        except Exception as error:
            raise fault_of(error, path) from error
        unsynced = WriteOptions()
        unsynced.sync = False
        self.db.set_write_options(unsynced)
        self.families = {name: self.db.get_column_family(name) for name in COLUMN_FAMILIES}
        self.handles = {name: self.db.get_column_family_handle(name) for name in COLUMN_FAMILIES}
        self.events = self.families[EVENTS]
        self.streams = self.families[STREAMS]
        self.partition_index = self.families[PARTITION_INDEX]
        self.ids = self.families[IDS]
        self.tags = self.families[TAGS]
        self.marks = self.families[MARKS]
        self.meta = self.families[META]

    def put_meta(self, values: dict[bytes, bytes]) -> None:
        """Set keys of `meta` atomically; durable after the next sync."""
        batch = WriteBatch(raw_mode=True)
        for key, value in values.items():
            batch.put(key, value, self.handles[META])
        self.db.write(batch)

    def scan(self, family: str, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """All `(key, value)` of a family under a prefix, in order; raises when one cannot be read."""
        cursor = self.families[family].iter()
        cursor.seek(prefix)
        while cursor.valid():
            key = cursor.key()
            if not key.startswith(prefix):
                return
            yield key, cursor.value()
            cursor.next()
        cursor.status()

    def close(self) -> None:
        with ExitStack() as parts:  # one that fails to close must not keep the others open
            parts.callback(self.db.close)
            parts.callback(self.handles.clear)
            for family in self.families.values():
                parts.callback(family.close)


def open_recovered(
    path: Path, options: RocksOptions, mark: SyncedMark, *, read_only: bool = False
) -> Database:
    """Open the database and make sure that everything that was synced is in it; else `Corrupt`."""
    aside = path.with_name("wal-before-recovery")
    if not read_only:
        _keep_aside(path, aside)
    database = Database(path, options, read_only=read_only)
    recovered = database.db.latest_sequence_number()
    if recovered < mark.sequence:
        database.close()
        raise Corrupt(
            f"the log in {path} ends at write {recovered}, but was synced up to {mark.sequence}:"
            " its end was damaged or removed"
            f" (the log files as found are in {path if read_only else aside}). {_REPLACE}",
            path=str(path),
            recovered=recovered,
            synced=mark.sequence,
        )
    if not read_only:
        shutil.rmtree(aside, ignore_errors=True)
    return database


def _keep_aside(path: Path, aside: Path) -> None:
    """Link the write-ahead logs into `aside`, where recovery cannot remove them.

    Links cost nothing and recovery never changes a log in place. What an earlier start that failed has
    put there stays: it is the older evidence.
    """
    logs = [log for log in path.glob("*.log") if log.stat().st_size] if path.is_dir() else []
    if not logs:
        return
    aside.mkdir(exist_ok=True)
    for log in logs:
        if not (aside / log.name).exists():
            os.link(log, aside / log.name)


def fault_of(error: Exception, path: Path) -> AllsourceError:
    """Our error for an exception of rocksdict, or of a file beside the database."""
    if isinstance(error, AllsourceError):
        return error
    text = " ".join(str(error).split())
    if isinstance(error, DbClosedError):
        return StorageFault("this storage was closed", path=str(path))
    if text.startswith("Corruption"):
        return Corrupt(f"{path}: {text}; " + _REPLACE, path=str(path))
    if "lock hold by current process" in text or "While lock file" in text:
        return DirectoryInUse(f"{path} is in use by another process: {text}", path=str(path))
    if means_full(error):
        return disk_full("use", path)
    return StorageFault(f"{path}: {text}; check the disk and the permissions", path=str(path))


def of_partition(error: Exception, partition: int, path: Path) -> Exception:
    """The same error; if it means damage, with the partition that was being read (rule 17)."""
    if type(error) is Exception:
        error = fault_of(error, path)
    if isinstance(error, Corrupt):
        error.details.setdefault("partition", partition)
    return error


_P = ParamSpec("_P")
_R = TypeVar("_R")


class HasDatabasePath(Protocol):
    """What `named_faults` needs of the object whose methods it wraps."""

    path: Path

    def note_damage(self, fault: Corrupt) -> None:
        """RocksDB has met a damaged block."""


_S = TypeVar("_S", bound=HasDatabasePath)


def named_faults(method: Callable[Concatenate[_S, _P], _R]) -> Callable[Concatenate[_S, _P], _R]:
    """Let a method raise rocksdict's exceptions as `fault_of` names them, and all others as they are."""

    @wraps(method)
    def wrapper(self: _S, /, *args: _P.args, **kwargs: _P.kwargs) -> _R:
        try:
            return method(self, *args, **kwargs)
        except Exception as error:
            # rocksdict raises bare `Exception`; a subclass (other than its own) is ours or a mistake, or
            # comes from a file that we keep beside the database.
            is_its = type(error) is Exception
            fault = (
                fault_of(error, self.path)
                if is_its or isinstance(error, DbClosedError | OSError)
                else error
            )
            if isinstance(fault, Corrupt) and (is_its or type(error.__cause__) is Exception):
                self.note_damage(fault)
            if fault is error:
                raise
            raise fault from error

    return wrapper
