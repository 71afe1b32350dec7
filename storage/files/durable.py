"""Small files that are all there or not at all, durable, and readable by this user alone."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from allsource.storage.files.room import disk_full, means_full
from allsource.storage.model.errors import StorageFault

DIRECTORY_MODE, FILE_MODE = 0o700, 0o600
"""For this user alone, whatever the umask: the events may hold what nobody else should read. The backend's
own files get the umask's mode, and nobody else reaches them through the directory; a node's process sets
the umask to 077 besides."""


def write_durably(path: Path, content: bytes) -> None:
    """Write a file and make it durable, its name too. What was there before may be half overwritten by a
    crash: to replace a file, write another one and rename it."""
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
def explained(path: Path, doing: str) -> Iterator[None]:
    """Turn what the operating system says into a `StorageFault` or `DiskFull` about a data directory."""
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
