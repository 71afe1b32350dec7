"""The data directory of a node: whose it is, who has it open, and how far it is known to be durable.

A cluster loses data when a process takes a directory for what it is not: another node's, a newer
version's, half made, or in use. So a directory says who it is, and is claimed before anything else is
opened in it::

    FORMAT   JSON: magic, format version, cluster, node and replica id, partitions, time of creation;
             in a checkpoint also the mark that it is one, and then the format version is 2
    LOCK     locked (flock) by the process that has it open, which writes its pid into it
    SYNCED   how far the storage was certainly synced (see `storage.files.synced`)
    DAMAGED  only if a damaged block of the database was ever met: what was found
    db/      the backend's own files
    checkpoints/   copies that were asked of a node (`storage.files.checkpoint`)

A directory is *made* in this order: FORMAT.new, then db/, then FORMAT.new is renamed to FORMAT. A crash
in between leaves a FORMAT.new, and the next start makes it anew: nothing in it was ever acknowledged. A
FORMAT whose db/ has vanished is never made anew (RULES.md rule 9: it would forget its votes). For the
same reason a checkpoint is refused by `claim_directory`: it *has* forgotten. `claim_existing` takes it.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from uuid import uuid4

from allsource.storage.files.durable import (
    DIRECTORY_MODE,
    FILE_MODE,
    explained,
    fsync_directory,
    write_durably,
)
from allsource.storage.files.format import FORMAT, FORMAT_NEW, Format, now_rfc3339, read_format
from allsource.storage.model.errors import DirectoryInUse, ForeignDirectory

_LOCK, _SYNCED, _DATABASE, _DAMAGED = "LOCK", "SYNCED", "db", "DAMAGED"
CHECKPOINTS = "checkpoints"
UNFINISHED = ".unfinished"
"""How the name of a checkpoint in the making ends; whatever lies in such a directory, it is not opened."""
# A fresh file system's root is as good as empty; checkpoints outlive the database that they were made of.
_HARMLESS = frozenset((_LOCK, "lost+found", CHECKPOINTS))
_HALF_MADE = _HARMLESS | {FORMAT_NEW, _SYNCED, _DATABASE}


class DataDirectory:
    """A directory that this process has claimed; `release` it when done.

    If it `is_new`, build `database` and then call `made()`.
    """

    def __init__(self, path: Path, lock: int, format: Format, *, is_new: bool) -> None:
        self.path = path
        self.format = format
        self.is_new = is_new
        self._lock = lock

    @property
    def database(self) -> Path:
        """Where the backend keeps its files."""
        return self.path / _DATABASE

    @property
    def synced(self) -> Path:
        """The file of the `SyncedMark`."""
        return self.path / _SYNCED

    @property
    def is_suspect(self) -> bool:
        """Whether a damaged block of the database was met, now or by an earlier process."""
        return (self.path / _DAMAGED).exists()

    def suspect(self, found: str) -> None:
        """Remember that one was met."""
        write_durably(self.path / _DAMAGED, found.encode() + b"\n")

    def clear(self) -> None:
        """Everything was looked through, and is whole."""
        (self.path / _DAMAGED).unlink(missing_ok=True)
        fsync_directory(self.path)

    def made(self) -> None:
        """The database of a new directory is in place and durable: from now on the directory counts."""
        with explained(self.path, "finish making"):
            os.rename(self.path / FORMAT_NEW, self.path / FORMAT)
            fsync_directory(self.path)
        self.is_new = False

    def release(self) -> None:
        """Let other processes claim it."""
        os.close(self._lock)


def claim_directory(path: Path, *, cluster_id: str, node_id: str, partitions: int) -> DataDirectory:
    """Claim `path` for this node, making it if it is empty or missing.

    Raises `DirectoryInUse`, `ForeignDirectory`, `FormatTooNew`, `Corrupt`, or `StorageFault` (cannot be
    read or written); each says what to do. Nothing of a directory that is refused is changed.
    """
    _refuse_unfinished(path)
    with explained(path, "use"):
        path.mkdir(DIRECTORY_MODE, parents=True, exist_ok=True)
        names = {entry.name for entry in path.iterdir()}
        if FORMAT not in names:
            _refuse_foreign_files(path, names)
        lock = take_lock(path)
        try:
            found = read_format(path)
            if found is not None:
                _refuse_checkpoint(path, found)
                _check_owner(path, found, cluster_id, node_id, partitions)
                return DataDirectory(path, lock, found, is_new=False)
            made = Format(
                cluster_id,
                node_id,
                uuid4().hex,
                partitions,
                now_rfc3339(),
            )
            write_durably(path / FORMAT_NEW, made.encode())
            return DataDirectory(path, lock, made, is_new=True)
        except BaseException:
            os.close(lock)
            raise


def claim_existing(path: Path) -> DataDirectory:
    """Claim the data directory or checkpoint that is at `path`, whosever it is, to check or adopt it.

    Raises as `claim_directory` does; a directory that is none of ours is `ForeignDirectory`.
    """
    _refuse_unfinished(path)
    with explained(path, "use"):
        if read_format(path) is None:
            raise ForeignDirectory(
                f"{path} is not a data directory of allsource (it has no file {FORMAT});"
                " name one of a node, of a repository, or a checkpoint",
                path=str(path),
            )
        lock = take_lock(path)
        try:
            found = read_format(path)  # again: now nobody else changes it
            assert found is not None, f"{path / FORMAT} vanished"
            return DataDirectory(path, lock, found, is_new=False)
        except BaseException:
            os.close(lock)
            raise


def _refuse_unfinished(path: Path) -> None:
    if path.name.endswith(UNFINISHED):
        raise ForeignDirectory(
            f"{path} is a checkpoint that was never finished; remove it, and take another one",
            path=str(path),
        )


def _refuse_checkpoint(path: Path, found: Format) -> None:
    if found.checkpoint is not None:
        raise ForeignDirectory(
            f"{path} is a checkpoint of {found.source}, taken {found.checkpoint.taken}: it knows no vote"
            " and no acknowledgement that was given later, so a node that started from it could lose"
            " acknowledged events. Give the node its own directory back, or keep it stopped: its peers hold"
            " the events and go on. To read the checkpoint, open it as a repository:"
            f' open_repository("rocksdb://{path.absolute()}")',
            path=str(path),
        )


def _refuse_foreign_files(path: Path, names: set[str]) -> None:
    allowed = _HALF_MADE if FORMAT_NEW in names else _HARMLESS
    strangers = sorted(names - allowed)
    if strangers:
        raise ForeignDirectory(
            f"{path} is not empty and not a data directory of allsource (it holds {strangers[0]!r});"
            " set data_dir to the one that this node had, or for a new cluster to an empty or new"
            " directory",
            path=str(path),
        )


def take_lock(path: Path) -> int:
    """Lock a directory for this process, until the descriptor is closed; raises `DirectoryInUse`."""
    lock = os.open(path / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.read(lock, 32).decode(errors="replace").strip() or "unknown"
        os.close(lock)
        raise DirectoryInUse(
            f"{path} is in use by the process {holder}; stop that process or choose another data_dir",
            path=str(path),
            pid=holder,
        ) from None
    try:
        os.ftruncate(lock, 0)
        os.pwrite(lock, b"%d\n" % os.getpid(), 0)
    except BaseException:  # on a full disk
        os.close(lock)
        raise
    return lock


def _check_owner(path: Path, found: Format, cluster_id: str, node_id: str, partitions: int) -> None:
    for what, theirs, ours in (
        ("cluster", found.cluster_id, cluster_id),
        ("node", found.node_id, node_id),
        ("partition count", found.partitions, partitions),
    ):
        if theirs != ours:
            raise ForeignDirectory(
                f"{path} belongs to {what} {theirs!r}, not {ours!r}; correct data_dir or the configuration",
                path=str(path),
                found=theirs,
                expected=ours,
            )
