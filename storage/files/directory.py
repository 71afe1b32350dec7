"""The data directory of a node: whose it is, who has it open, and how far it is known to be durable.

A cluster loses data when a process takes a directory for what it is not: another node's, a newer
version's, half made, or in use. So a directory says who it is, and is claimed before anything else is
opened in it::

    FORMAT   JSON: magic, format version, cluster, node and replica id, partitions, time of creation;
             in a checkpoint also the mark that it is one, and then the format version is 2
    LOCK     locked (flock) by the process that has it open, which writes its pid into it
    SYNCED   how far the storage was certainly synced (see `SyncedMark`)
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
import json
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

from allsource.storage.files.room import disk_full, means_full
from allsource.storage.model.errors import (
    NO_COPY_HELPS,
    Corrupt,
    DirectoryInUse,
    ForeignDirectory,
    FormatTooNew,
    StorageFault,
)

DIRECTORY_MODE, FILE_MODE = 0o700, 0o600
"""For this user alone, whatever the umask: the events may hold what nobody else should read. The backend's
own files get the umask's mode, and nobody else reaches them through the directory; a node's process sets
the umask to 077 besides."""

FORMAT_VERSION = 2
"""The newest that is read. 2 is written for checkpoints, which versions that know only 1 must refuse."""
_PLAIN, _CHECKPOINT = 1, 2
_MAGIC = "allsource"
_FORMAT, _FORMAT_NEW, _LOCK, _SYNCED, _DATABASE = "FORMAT", "FORMAT.new", "LOCK", "SYNCED", "db"
_DAMAGED = "DAMAGED"
STANDALONE = "standalone"
"""Cluster and node id of a store that belongs to no cluster."""
CHECKPOINTS = "checkpoints"
UNFINISHED = ".unfinished"
"""How the name of a checkpoint in the making ends; whatever lies in such a directory, it is not opened."""
# A fresh file system's root is as good as empty; checkpoints outlive the database that they were made of.
_HARMLESS = frozenset((_LOCK, "lost+found", CHECKPOINTS))
_HALF_MADE = _HARMLESS | {_FORMAT_NEW, _SYNCED, _DATABASE}


@dataclass(frozen=True, slots=True)
class CheckpointMark:
    """What makes a directory a checkpoint: a copy that stopped remembering at some time."""

    id: str
    """UUID (hex); the replica id of the store that it becomes when it is opened as a repository."""
    taken: str
    """RFC 3339, UTC. For people."""
    incarnation: int
    """Of the process that took it."""


@dataclass(frozen=True, slots=True)
class Format:
    """What FORMAT holds."""

    cluster_id: str
    node_id: str
    replica_id: str
    partitions: int
    created: str
    """RFC 3339, UTC. For people; nothing depends on it."""
    checkpoint: CheckpointMark | None = None
    magic: str = _MAGIC

    @property
    def source(self) -> str:
        """Whose events these are, for people."""
        if self.cluster_id == STANDALONE:
            return "a repository"
        return f"node {self.node_id!r} of cluster {self.cluster_id!r}"

    def encode(self) -> bytes:
        """FORMAT's content."""
        value = {**asdict(self), "format": _PLAIN if self.checkpoint is None else _CHECKPOINT}
        if self.checkpoint is None:
            del value["checkpoint"]
        return json.dumps(value, indent=2).encode() + b"\n"


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
        _write_durably(self.path / _DAMAGED, found.encode() + b"\n")

    def clear(self) -> None:
        """Everything was looked through, and is whole."""
        (self.path / _DAMAGED).unlink(missing_ok=True)
        fsync_directory(self.path)

    def made(self) -> None:
        """The database of a new directory is in place and durable: from now on the directory counts."""
        with _explained(self.path, "finish making"):
            os.rename(self.path / _FORMAT_NEW, self.path / _FORMAT)
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
    with _explained(path, "use"):
        path.mkdir(DIRECTORY_MODE, parents=True, exist_ok=True)
        names = {entry.name for entry in path.iterdir()}
        if _FORMAT not in names:
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
            _write_durably(path / _FORMAT_NEW, made.encode())
            return DataDirectory(path, lock, made, is_new=True)
        except BaseException:
            os.close(lock)
            raise


def claim_existing(path: Path) -> DataDirectory:
    """Claim the data directory or checkpoint that is at `path`, whosever it is, to check or adopt it.

    Raises as `claim_directory` does; a directory that is none of ours is `ForeignDirectory`.
    """
    _refuse_unfinished(path)
    with _explained(path, "use"):
        if read_format(path) is None:
            raise ForeignDirectory(
                f"{path} is not a data directory of allsource (it has no file {_FORMAT});"
                " name one of a node, of a repository, or a checkpoint",
                path=str(path),
            )
        lock = take_lock(path)
        try:
            found = read_format(path)  # again: now nobody else changes it
            assert found is not None, f"{path / _FORMAT} vanished"
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
    allowed = _HALF_MADE if _FORMAT_NEW in names else _HARMLESS
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


def read_format(directory: Path) -> Format | None:
    """What a directory's FORMAT says, None if there is no such file; raises `FormatTooNew`, `Corrupt`."""
    path = directory / _FORMAT
    with _explained(directory, "read"):
        try:
            raw = path.read_bytes()
        except FileNotFoundError:
            return None
    try:
        value = json.loads(raw)
        magic, version = value["magic"], value.pop("format")
    except (ValueError, TypeError, KeyError, AttributeError):
        magic, version = None, None
    if magic != _MAGIC or not isinstance(version, int):
        raise Corrupt(f"{path} is unreadable; {NO_COPY_HELPS}")
    if version > FORMAT_VERSION:
        raise FormatTooNew(
            f"{path} has format {version}, this version of allsource reads up to {FORMAT_VERSION};"
            " start the newer version that wrote it",
            found=version,
            supported=FORMAT_VERSION,
        )
    try:
        if version == _CHECKPOINT:
            value["checkpoint"] = CheckpointMark(**value["checkpoint"])
        elif "checkpoint" in value:
            raise TypeError(f"format {version} knows no checkpoints")
        return Format(**value)
    except (TypeError, KeyError) as error:
        raise Corrupt(f"{path} lacks or has unknown fields ({error}); {NO_COPY_HELPS}") from error


def write_format(directory: Path, format: Format) -> None:
    """Put a FORMAT into a directory, in place of the one that is there, if any; all of it or nothing."""
    _write_durably(directory / _FORMAT_NEW, format.encode())
    os.rename(directory / _FORMAT_NEW, directory / _FORMAT)
    fsync_directory(directory)


def now_rfc3339() -> str:
    """The time, for people."""
    return datetime.now(UTC).isoformat(timespec="seconds")


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


def _write_durably(path: Path, content: bytes) -> None:
    with open(path, "wb", opener=_private) as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    fsync_directory(path.parent)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, FILE_MODE)


def fsync_directory(path: Path) -> None:
    """Make the names in a directory durable (creating or renaming a file does not do so by itself)."""
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


@contextmanager
def _explained(path: Path, doing: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if means_full(error):
            raise disk_full(f"{doing} the data directory", path) from error
        raise StorageFault(
            f"cannot {doing} the data directory {path}: {error.strerror or error};"
            " make it a directory that this user may read and write, or choose another data_dir",
            path=str(path),
        ) from error


class SyncedMark:
    """How far the database was synced, kept beside it: what tells a torn tail from corruption.

    A write-ahead log that ends early looks the same whether the power failed in the middle of a record
    (harmless: nobody was told of it) or whether its end was damaged, cut or removed later. The mark is
    the sequence number that the last finished sync covered. It is written *after* the sync and not
    synced itself, so it may lag behind but never runs ahead: a database that ends before its mark has
    lost what was durable (RULES.md rule 17).
    """

    def __init__(self, path: Path) -> None:
        """Open the mark, creating it at 0; raises `Corrupt` if it cannot be what was written."""
        with _explained(path.parent, "open the file SYNCED in"):
            if not path.exists():
                self.write(path, 0)
            self._file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            raw = os.pread(self._file, 64, 0)
        self.sequence = int.from_bytes(raw[:8], "big")
        if raw != self._packed(self.sequence):
            os.close(self._file)
            raise Corrupt(
                f"{path} is unreadable, so a damaged log could not be told from a clean one;"
                f" {NO_COPY_HELPS}"
            )

    @classmethod
    def write(cls, path: Path, sequence: int) -> None:
        """Make the mark of a database that holds everything up to `sequence`, durably."""
        _write_durably(path, cls._packed(sequence))

    def advance(self, sequence: int) -> None:
        """Everything up to `sequence` has been synced. Any thread, one at a time."""
        os.pwrite(self._file, self._packed(sequence), 0)
        self.sequence = sequence

    def close(self) -> None:
        os.close(self._file)

    @classmethod
    def _packed(cls, sequence: int) -> bytes:
        raw = sequence.to_bytes(8, "big")
        return raw + zlib.crc32(raw).to_bytes(4, "big")
