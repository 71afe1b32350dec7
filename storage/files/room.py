"""A full disk by any of its names: no bytes left, no inodes, a quota, a limit on a file's size.

Each library says it in its own way, and an operator does the same about all of them: make room. So it is
one error, `DiskFull`, wherever the request that met it has changed nothing and can be tried again; and
`DiskRanFull` where a write was under way, after which the database takes no more until it is opened anew.
"""

from __future__ import annotations

import errno
from pathlib import Path

from allsource.storage.model.errors import DiskFull, DiskRanFull

_NUMBERS = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EFBIG))
_WORDS = ("No space left on device", "Disk quota exceeded", "File too large")
"""The same in the texts of RocksDB's errors (`strerror`)."""

_MEANS = "the disk is full: no bytes or no inodes are left, or a quota is reached"


def means_full(error: BaseException) -> bool:
    """Whether an error of the operating system, or of RocksDB, says that there is no room."""
    if isinstance(error, OSError):
        return error.errno in _NUMBERS
    text = str(error)
    return any(words in text for words in _WORDS)


def disk_full(doing: str, path: Path) -> DiskFull:
    """The error for something that was not done because there was no room."""
    return DiskFull(f"cannot {doing} {path}: {_MEANS}; free some, then try again", path=str(path))


def disk_ran_full(path: Path) -> DiskRanFull:
    """The error for a write or a sync that met a full disk half way."""
    return DiskRanFull(
        f"{path}: {_MEANS}, in the middle of a write; free some, then start again", path=str(path)
    )
