"""The data directory of a node: whose it is, who has it open, and how far it is known to be durable.

A cluster loses data when a process takes a directory for what it is not: another node's, a newer
version's, half made, or in use. So a directory says who it is, and is claimed before anything else is
opened in it::

    FORMAT   JSON: magic, format version, cluster, node and replica id, partitions, time of creation
    LOCK     locked (flock) by the process that has it open, which writes its pid into it
    SYNCED   how far the storage was certainly synced (see `SyncedMark`)
    db/      the backend's own files

A directory is *made* in this order: FORMAT.new, then db/, then FORMAT.new is renamed to FORMAT. A crash
in between leaves a FORMAT.new, and the next start makes it anew: nothing in it was ever acknowledged. A
FORMAT whose db/ has vanished is never made anew (CONSENSUS.md rule 9: it would forget its votes).
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

from allsource.storage.errors import Corrupt, DirectoryInUse, ForeignDirectory, FormatTooNew, StorageFault

FORMAT_VERSION = 1
_MAGIC = "allsource"
_FORMAT, _FORMAT_NEW, _LOCK, _SYNCED, _DATABASE = "FORMAT", "FORMAT.new", "LOCK", "SYNCED", "db"
# A fresh file system's root is as good as empty.
_HARMLESS = frozenset((_LOCK, "lost+found"))
_HALF_MADE = _HARMLESS | {_FORMAT_NEW, _SYNCED, _DATABASE}


@dataclass(frozen=True, slots=True)
class Format:
    """What FORMAT holds."""

    cluster_id: str
    node_id: str
    replica_id: str
    partitions: int
    created: str
    """RFC 3339, UTC. For people; nothing depends on it."""
    magic: str = _MAGIC
    format: int = FORMAT_VERSION


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
    with _explained(path, "use"):
        path.mkdir(parents=True, exist_ok=True)
        names = {entry.name for entry in path.iterdir()}
        if _FORMAT not in names:
            _refuse_foreign_files(path, names)
        lock = _take_lock(path)
        try:
            found = _read_format(path / _FORMAT)
            if found is not None:
                _check_owner(path, found, cluster_id, node_id, partitions)
                return DataDirectory(path, lock, found, is_new=False)
            made = Format(
                cluster_id,
                node_id,
                uuid4().hex,
                partitions,
                datetime.now(UTC).isoformat(timespec="seconds"),
            )
            _write_durably(path / _FORMAT_NEW, json.dumps(asdict(made), indent=2).encode() + b"\n")
            return DataDirectory(path, lock, made, is_new=True)
        except BaseException:
            os.close(lock)
            raise


def _refuse_foreign_files(path: Path, names: set[str]) -> None:
    allowed = _HALF_MADE if _FORMAT_NEW in names else _HARMLESS
    strangers = sorted(names - allowed)
    if strangers:
        raise ForeignDirectory(
            f"{path} is not empty and not a data directory of allsource (it holds {strangers[0]!r});"
            " set data_dir to an empty or new directory",
            path=str(path),
        )


def _take_lock(path: Path) -> int:
    lock = os.open(path / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
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
    os.ftruncate(lock, 0)
    os.pwrite(lock, b"%d\n" % os.getpid(), 0)
    return lock


def _read_format(path: Path) -> Format | None:
    """FORMAT's content, None if there is no such file."""
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return None
    try:
        value = json.loads(raw)
        magic, version = value["magic"], value["format"]
    except (ValueError, TypeError, KeyError):
        magic, version = None, None
    if magic != _MAGIC or not isinstance(version, int):
        raise Corrupt(
            f"{path} is unreadable; restore it from a copy, or keep this node stopped: its peers go on"
        )
    if version > FORMAT_VERSION:
        raise FormatTooNew(
            f"{path} has format {version}, this version of allsource reads up to {FORMAT_VERSION};"
            " start the newer version that wrote it",
            found=version,
            supported=FORMAT_VERSION,
        )
    try:
        return Format(**value)
    except TypeError as error:
        raise Corrupt(f"{path} lacks or has unknown fields ({error}); restore it from a copy") from error


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
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    fsync_directory(path.parent)


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
    lost what was durable (CONSENSUS.md rule 17).
    """

    def __init__(self, path: Path) -> None:
        """Open the mark, creating it at 0; raises `Corrupt` if it cannot be what was written."""
        with _explained(path.parent, "open the file SYNCED in"):
            if not path.exists():
                _write_durably(path, self._packed(0))
            self._file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            raw = os.pread(self._file, 64, 0)
        self.sequence = int.from_bytes(raw[:8], "big")
        if raw != self._packed(self.sequence):
            os.close(self._file)
            raise Corrupt(
                f"{path} is unreadable, so a damaged log could not be told from a clean one;"
                " restore this data directory from a copy, or let the node join with an empty one"
            )

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
