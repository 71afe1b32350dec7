"""Checkpoints: whole copies of a data directory, and how one comes into being all at once or not at all.

A checkpoint has the shape of a data directory (`directory`), and its FORMAT carries a mark. It is good
for reading: `allsource verify --data-dir` walks it, and the first time that it is opened as a repository
it becomes a store of its own (`rocksdb.adoption`). A node never starts from one: it would have forgotten
votes and acknowledgements (RULES.md rule 9), and `claim_directory` refuses it.

It is built under another name (`.NAME.unfinished`, locked), FORMAT last, everything fsynced, and then
renamed. A crash leaves at most that directory, which nothing opens, and which the next attempt at the
same place removes, or the next start of the store if it lies in its directory or in its `checkpoints/`.

This module knows nothing of RocksDB; `rocksdb.checkpoint` fills what is built here.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

from allsource.storage.files.directory import CHECKPOINTS, UNFINISHED, take_lock
from allsource.storage.files.durable import DIRECTORY_MODE, fsync_directory
from allsource.storage.files.format import CheckpointMark, Format, now_rfc3339, read_format
from allsource.storage.files.room import means_full
from allsource.storage.model.errors import (
    AllsourceError,
    DirectoryInUse,
    DiskFull,
    InvalidRequest,
    NotFound,
    Rejected,
    StorageFault,
)

_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}")
_COPY_BYTES = 1 << 20


class CheckpointExists(Rejected):
    """There is something at the place where the checkpoint should go."""

    code = "checkpoint_exists"


class CheckpointFailed(Rejected):
    """The checkpoint could not be made; nothing of it is left, and the store goes on."""

    code = "checkpoint_failed"


class TooManyCheckpoints(Rejected):
    """A node keeps as many checkpoints as it may."""

    code = "too_many_checkpoints"


class CheckpointInfo(NamedTuple):
    """A checkpoint in a directory of checkpoints."""

    name: str
    taken: str
    """When, RFC 3339; empty once it was opened as a repository: it is no checkpoint any more."""
    size_bytes: int
    """Of all its files. Most are shared with the store as long as that keeps them too."""


def check_name(name: str) -> str:
    """The name of a checkpoint, if it is one: it will be a directory's; raises `InvalidRequest`."""
    if not _NAME.fullmatch(name):
        raise InvalidRequest(
            "a checkpoint's name is 1 to 64 letters, digits, '.', '_' or '-' and does not begin with a dot;"
            f" {name[:80]!r} is none"
        )
    _check_ending(name)
    return name


def _check_ending(name: str) -> None:
    if name.endswith(UNFINISHED):
        raise InvalidRequest(f"a name that ends with {UNFINISHED} is never opened; {name!r} cannot be used")


def place_for(data_dir: Path, name: str) -> Path:
    """Where a node's checkpoint of this name goes. Makes the directory above it, durably."""
    place = data_dir / CHECKPOINTS / check_name(name)
    with _explained(place):
        if not place.parent.is_dir():
            place.parent.mkdir(DIRECTORY_MODE, exist_ok=True)
            fsync_directory(data_dir)
    return place


def marked(source: Format, incarnation: int) -> Format:
    """The FORMAT of a checkpoint that is taken now."""
    mark = CheckpointMark(uuid4().hex, now_rfc3339(), incarnation)
    return Format(
        source.cluster_id, source.node_id, source.replica_id, source.partitions, source.created, mark
    )


@contextmanager
def built_at(target: Path) -> Iterator[Path]:
    """Build a directory in the path that is given to the `with` block; at its end it is `target`, durably.

    The block makes the contents of its files durable itself. If it raises, or the end does, nothing is
    left. Raises `CheckpointExists`, `CheckpointFailed`, `DiskFull`, `InvalidRequest`; errors of ours pass.
    """
    _check_ending(target.name)
    _check_target(target)
    place = target.with_name(f".{target.name}{UNFINISHED}")
    with _explained(target):
        lock = _take_place(place)
        try:
            yield place
            fsync_directory(place)
            _check_target(target)
            os.rename(place, target)
            place = target
            fsync_directory(target.parent)
        except BaseException:
            shutil.rmtree(place, ignore_errors=True)
            raise
        finally:
            os.close(lock)


def _check_target(target: Path) -> None:
    if os.path.lexists(target):
        raise CheckpointExists(
            f"{target} exists already; choose another name, or remove it first", path=str(target)
        )
    if not target.parent.is_dir():
        raise CheckpointFailed(f"{target.parent} is not a directory; make it first", path=str(target))


def _take_place(place: Path) -> int:
    """Make the directory, or empty the one that a killed process left; its lock."""
    if place.is_symlink():  # ours never is: what it leads to is somebody else's
        raise CheckpointFailed(f"{place} is a symbolic link; remove it first", path=str(place))
    is_new = not place.exists()
    place.mkdir(DIRECTORY_MODE, exist_ok=True)
    try:
        lock = take_lock(place)
    except DirectoryInUse as error:
        raise CheckpointFailed(
            f"the process {error.details['pid']} is making a checkpoint of this name; wait for it"
        ) from None
    except OSError:
        if is_new:
            shutil.rmtree(place, ignore_errors=True)
        raise
    try:
        for left in place.iterdir():
            if left.is_dir() and not left.is_symlink():
                shutil.rmtree(left)
            elif left.name != "LOCK":
                left.unlink()
    except BaseException:
        os.close(lock)
        raise
    return lock


@contextmanager
def scratch(directory: Path) -> Iterator[Path]:
    """A directory in this one for the time of the `with` block; `sweep` removes it after a kill."""
    place = directory / f".{uuid4().hex}{UNFINISHED}"
    lock = _take_place(place)
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)
        os.close(lock)


def sweep(directory: Path) -> None:
    """Remove what killed processes left unfinished in a directory; what cannot be removed stays."""
    for left in directory.glob(f".*{UNFINISHED}"):
        if left.is_symlink():
            continue
        try:
            lock = take_lock(left)
        except (OSError, DirectoryInUse):
            continue
        shutil.rmtree(left, ignore_errors=True)
        os.close(lock)


def list_checkpoints(checkpoints: Path) -> list[CheckpointInfo]:
    """The finished checkpoints in a directory (which need not exist), by name."""
    if not checkpoints.is_dir():
        return []
    found = []
    for path in sorted(checkpoints.iterdir()):
        if not path.name.startswith("."):
            with suppress(StorageFault):  # of another kind, or being removed
                found.append(read_checkpoint(path))
    return found


def check_room(checkpoints: Path, most: int) -> None:
    """Raise `TooManyCheckpoints` if one more would be more than `most` in a directory."""
    if not checkpoints.is_dir():
        return
    count = sum(not name.startswith(".") for name in os.listdir(checkpoints))
    if count >= most:
        raise TooManyCheckpoints(
            f"there are {count} checkpoints, and this node keeps at most {most} (limits.checkpoints_max): "
            "each keeps old files on the disk; remove one first",
            limit=most,
        )


def remove_checkpoint(checkpoints: Path, name: str) -> CheckpointInfo:
    """Remove the checkpoint of this name for good; what it was. Raises `InvalidRequest` for no name,
    `NotFound`, and `CheckpointFailed` if it is in use or no checkpoint any more."""
    place = checkpoints / check_name(name)
    if place.is_symlink() or not place.is_dir():
        raise NotFound(f"there is no checkpoint {name!r} on this node", checkpoint=name)
    try:
        found = read_checkpoint(place)
    except StorageFault as error:
        raise CheckpointFailed(f"{place} is no checkpoint; nothing was removed", path=str(place)) from error
    if not found.taken:
        raise CheckpointFailed(
            f"{place} was opened as a repository and may have events of its own; nothing was removed: "
            "remove the directory yourself if they are not needed",
            path=str(place),
        )
    with _explained(place):
        try:
            lock = take_lock(place)
        except DirectoryInUse as error:
            raise CheckpointFailed(f"{error.message}; nothing was removed", path=str(place)) from None
        try:
            # Renamed first: what a crash leaves is no checkpoint any more, and `sweep` removes it.
            gone = checkpoints / f".{uuid4().hex}{UNFINISHED}"
            os.rename(place, gone)
            fsync_directory(checkpoints)
            shutil.rmtree(gone, ignore_errors=True)
        finally:
            os.close(lock)
    return found


def read_checkpoint(path: Path) -> CheckpointInfo:
    """What is at a checkpoint's place; raises `StorageFault` if it is none."""
    format = read_format(path)
    if format is None:
        raise StorageFault(f"{path} is not a checkpoint: it has no FORMAT", path=str(path))
    taken = format.checkpoint.taken if format.checkpoint is not None else ""
    return CheckpointInfo(path.name, taken, size_of(path))


def size_of(path: Path) -> int:
    """Bytes of all files under a directory, which may be in use."""
    total = 0
    for directory, _, names in os.walk(path):
        for name in names:
            try:
                total += os.stat(os.path.join(directory, name)).st_size
            except FileNotFoundError:  # somebody removes or opens it just now
                continue
    return total


def can_link(file: Path, directory: Path) -> bool:
    """Whether files from there can be hard-linked into the directory (it is on the same file system)."""
    probe = directory / "probe"
    try:
        os.link(file, probe)
    except OSError as error:
        if error.errno in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP):
            return False
        raise
    probe.unlink()
    return True


def copy_files(source: Path, target: Path) -> None:
    """Copy the files of a directory (it has no directories) into a new one."""
    target.mkdir(DIRECTORY_MODE)
    for path in source.iterdir():
        with path.open("rb") as read, (target / path.name).open("xb") as written:
            shutil.copyfileobj(read, written, _COPY_BYTES)


def sync_files(directory: Path) -> None:
    """Make the files of a directory, and their names, durable."""
    for path in directory.iterdir():
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(file)
        finally:
            os.close(file)
    fsync_directory(directory)


@contextmanager
def _explained(target: Path) -> Iterator[None]:
    try:
        yield
    except AllsourceError:
        raise
    except OSError as error:
        what = f"the checkpoint {target} could not be made"
        if means_full(error):
            raise DiskFull(f"{what}: its disk is full; nothing of it is left", path=str(target)) from error
        if error.errno in (errno.EEXIST, errno.ENOTEMPTY):
            raise CheckpointExists(f"{target} exists already; choose another name") from error
        raise CheckpointFailed(
            f"{what}: {error.strerror or error}; let it go to a directory that this user may write",
            path=str(target),
        ) from error
