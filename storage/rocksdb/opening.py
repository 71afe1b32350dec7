"""From a claimed directory to an open database whose identity is known.

What is found is checked before anything is changed: that a directory in use still has its database, that
everything synced is in it (`database.open_recovered`), and that the two belong together.
"""

from __future__ import annotations

import shutil
from typing import NamedTuple

from allsource.storage.files.checkpoint import sweep
from allsource.storage.files.directory import CHECKPOINTS, DataDirectory
from allsource.storage.files.synced import SyncedMark
from allsource.storage.model.errors import NO_COPY_HELPS, Corrupt
from allsource.storage.model.identity import Identity
from allsource.storage.rocksdb import keys
from allsource.storage.rocksdb.database import Database, open_recovered
from allsource.storage.rocksdb.options import RocksOptions


class Opened(NamedTuple):
    """An open database, with what belongs to it."""

    database: Database
    mark: SyncedMark
    identity: Identity

    def close(self) -> None:
        """Give both files back."""
        self.database.close()
        self.mark.close()

    def sync(self) -> None:
        """Make everything written before durable, and mark how far that is."""
        covered = self.database.db.latest_sequence_number()
        self.database.db.flush_wal(True)
        self.mark.advance(covered)

    def start_incarnation(self, replica_id: str, incarnation: int) -> Opened:
        """Write down who this is from now on, durably."""
        value = keys.pack_incarnation(incarnation, replica_id)
        self.database.put_meta({keys.INCARNATION: value})
        self.sync()
        identity = self.identity._replace(replica_id=replica_id, incarnation=incarnation)
        return self._replace(identity=identity)


def open_database(directory: DataDirectory, options: RocksOptions, *, read_only: bool = False) -> Opened:
    """Open or make the database of a directory, in a new incarnation.

    `read_only`: in the incarnation that it had last, and no file is changed. Raises `StorageFault` and its
    kinds, or what rocksdict raises.
    """
    if directory.is_new:
        # What a crash left of an earlier attempt: it was never used.
        shutil.rmtree(directory.database, ignore_errors=True)
        directory.synced.unlink(missing_ok=True)
    elif not (directory.database / "CURRENT").exists():
        raise Corrupt(
            f"{directory.database} is missing or empty, but {directory.path} was in use before;"
            f" {NO_COPY_HELPS}"
        )
    elif not directory.synced.exists():
        raise Corrupt(
            f"{directory.synced} is missing, so a damaged log could not be told from a clean one;"
            f" {NO_COPY_HELPS}"
        )
    if not read_only:
        for place in (directory.path, directory.path / CHECKPOINTS):
            sweep(place)
    mark = SyncedMark(directory.synced)
    try:
        database = open_recovered(directory.database, options, mark, read_only=read_only)
    except BaseException:
        mark.close()
        raise
    opened = Opened(database, mark, Identity("", "", "", 0))
    try:
        opened = opened._replace(identity=_stored_identity(directory, database))
        if not read_only:
            opened = opened.start_incarnation(opened.identity.replica_id, opened.identity.incarnation + 1)
        if directory.is_new:
            directory.made()
    except BaseException:
        opened.close()
        raise
    return opened


def _stored_identity(directory: DataDirectory, database: Database) -> Identity:
    made = directory.format
    stored = database.meta.get(keys.INCARNATION)
    incarnation, replica_id = keys.unpack_incarnation(stored) if stored else (0, made.replica_id)
    # A checkpoint may have been left in the middle of becoming a store of its own (`adoption`).
    known = {made.replica_id} | ({made.checkpoint.id} if made.checkpoint is not None else set())
    if replica_id not in known or (stored is None and not directory.is_new):
        raise Corrupt(
            f"{directory.database} is not the database that {directory.path} was made with;"
            " put back the one that belongs to it"
        )
    return Identity(made.cluster_id, made.node_id, replica_id, incarnation)
