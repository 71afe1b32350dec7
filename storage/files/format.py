"""FORMAT: the file that says whose a data directory is, and whether it is a checkpoint."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from allsource.storage.files.durable import explained, fsync_directory, write_durably
from allsource.storage.model.errors import NO_COPY_HELPS, Corrupt, FormatTooNew, FormatTooOld

_PLAIN, _CHECKPOINT = 3, 4
FORMAT_OLDEST, FORMAT_VERSION = _PLAIN, _CHECKPOINT
"""What is read: log format 2, of a store and of a checkpoint. (1 and 2 were the same of log format 1.)"""
_MAGIC = "allsource"
FORMAT, FORMAT_NEW = "FORMAT", "FORMAT.new"
STANDALONE = "standalone"
"""Cluster and node id of a store that belongs to no cluster."""


@dataclass(frozen=True, slots=True)
class CheckpointMark:
    """What makes a directory a checkpoint: a copy that knows nothing of what happened later."""

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


def read_format(directory: Path) -> Format | None:
    """What a directory's FORMAT says, None if there is no such file; raises `FormatTooNew`,
    `FormatTooOld`, `Corrupt`."""
    path = directory / FORMAT
    with explained(directory, "read"):
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
    if version < FORMAT_OLDEST:
        raise FormatTooOld(
            f"{path} has format {version}, of a log that this version of allsource does not read;"
            " nothing was changed. Start the version that wrote it, read its events there and append"
            " them, with their ids, to a new data directory",
            found=version,
            supported=FORMAT_OLDEST,
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
    """Put a FORMAT into a directory. A crash leaves the older one (or none) or the new one, never half."""
    write_durably(directory / FORMAT_NEW, format.encode())
    os.rename(directory / FORMAT_NEW, directory / FORMAT)
    fsync_directory(directory)


def now_rfc3339() -> str:
    """The time, for people."""
    return datetime.now(UTC).isoformat(timespec="seconds")
