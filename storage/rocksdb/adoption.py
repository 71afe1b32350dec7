"""A checkpoint becomes an event store of its own, the first time that it is opened as a repository.

Of a node's log only what was committed is events: each partition is cut to its commit index (of a
repository's checkpoint that cuts nothing). The votes go, and the identity becomes a new one, so that no
cluster ever meets this store under the old name.

Every step may be interrupted and done again: the database changes first, its own replica id last of
all in it, and is synced; only then does FORMAT lose the mark, by one rename. Until that rename the
directory is a checkpoint, and the next opening begins anew; in what was cut already there is nothing left
to cut.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from allsource.storage.files.directory import claim_existing
from allsource.storage.files.format import now_rfc3339, read_format, write_format
from allsource.storage.model.errors import StorageFault
from allsource.storage.model.log import PartitionWrite
from allsource.storage.model.partition import PARTITION_COUNT
from allsource.storage.rocksdb.storage import RocksStorage


def prepare_repository(path: Path, *, cluster_id: str, node_id: str) -> int:
    """Make a store of its own of the checkpoint at `path`, if one is there; the number of partitions that
    the store at `path` has, or is to have. Raises `StorageFault` and its kinds."""
    found = read_format(path)
    if found is None:
        return PARTITION_COUNT
    if found.checkpoint is not None:
        _adopt(path, cluster_id, node_id)
    return found.partitions


def _adopt(path: Path, cluster_id: str, node_id: str) -> None:
    directory = claim_existing(path)
    found = directory.format
    if found.checkpoint is None:  # another process was faster
        directory.release()
        return
    storage = RocksStorage(directory)
    try:
        storage.write([_cut(storage, partition) for partition in range(found.partitions)])
        storage.become(found.checkpoint.id)
        write_format(
            path,
            replace(
                found,
                cluster_id=cluster_id,
                node_id=node_id,
                replica_id=found.checkpoint.id,
                created=now_rfc3339(),
                checkpoint=None,
            ),
        )
    except OSError as error:
        raise StorageFault(
            f"the checkpoint {path} could not become a store: {error.strerror or error}; nothing of it is"
            " lost, open it again when that is mended",
            path=str(path),
        ) from error
    finally:
        storage.close()


def _cut(storage: RocksStorage, partition: int) -> PartitionWrite:
    hard = storage.load(partition).hard
    return PartitionWrite(partition, hard._replace(vote=""), truncate_from=hard.commit + 1)
