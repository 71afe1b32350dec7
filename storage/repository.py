"""An event store in a program of its own, without any cluster.

::

    async with open_repository("rocksdb:///var/lib/shop") as events:
        await events.append_to_stream("order-1", [NewEvent.json("OrderPlaced", {"total": 5})])
        for event in await events.read_stream("order-1"):
            print(event.version, event.json())

Here are the repositories by name, and their addresses. What a repository does is in
`embedded.stream_repository`, alike for all.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from allsource.config.schema import Limits
from allsource.storage.embedded.log_repository import LogRepository
from allsource.storage.embedded.stream_repository import EventStreamRepository
from allsource.storage.files.format import STANDALONE
from allsource.storage.interface import Storage
from allsource.storage.model.errors import InvalidRequest
from allsource.storage.open import open_storage
from allsource.storage.postgres.repository import PostgresEventStreamRepository

__all__ = (
    "EventStreamRepository",
    "InMemoryEventStreamRepository",
    "PostgresEventStreamRepository",
    "RocksDBEventStreamRepository",
    "open_repository",
)

# A data directory says whose it is. No cluster and no node has these ids.
_CLUSTER, _NODE = STANDALONE, STANDALONE


class InMemoryEventStreamRepository(LogRepository):
    """Events in this process's memory, for tests and caches: gone when the `async with` ends."""

    def __init__(self, *, limits: Limits | None = None) -> None:
        super().__init__(
            lambda: open_storage(backend="memory", cluster_id=_CLUSTER, node_id=_NODE), limits=limits
        )


class RocksDBEventStreamRepository(LogRepository):
    """Events in a directory on this machine, which one process at a time may have open.

    The directory may be a checkpoint, of a repository or of a node: opening it makes it a store of its own
    (`rocksdb.adoption`). That is how a copy is restored, and how a node's is read.
    """

    def __init__(
        self, path: Path | str, *, durability: str = "fsync", limits: Limits | None = None
    ) -> None:
        """With `durability` "os" an append returns before the fsync: what it stored survives the end of
        this process, but not a power cut."""
        wanted = limits or Limits()
        self._path = Path(path)
        self._durability = durability
        super().__init__(lambda: self._open(wanted.disk_free_bytes_min), limits=wanted)

    def _open(self, disk_free_bytes_min: int) -> Storage:
        from allsource.storage.rocksdb.adoption import prepare_repository

        return open_storage(
            backend="rocksdb",
            data_dir=self._path,
            cluster_id=_CLUSTER,
            node_id=_NODE,
            partitions=prepare_repository(self._path, cluster_id=_CLUSTER, node_id=_NODE),
            durability=self._durability,
            disk_free_bytes_min=disk_free_bytes_min,
        )


def open_repository(address: str) -> EventStreamRepository:
    """The repository at an address, to be used in `async with`.

    ``memory://``, ``rocksdb:///absolute/path`` (with ``?durability=os`` for the weaker promise) or
    ``postgresql://user:password@host/database`` (with ``?schema=NAME`` for another schema).
    Raises `InvalidRequest` for any other address; opening happens when the `async with` begins.
    """
    parts = urlsplit(address)
    opener = ADDRESSES.get(parts.scheme)
    if opener is None:
        known = ", ".join(f"{scheme}:" for scheme in sorted(ADDRESSES))
        raise InvalidRequest(f"unknown kind of repository {parts.scheme!r}; an address begins with {known}")
    return opener(parts)


def _memory(parts: SplitResult) -> EventStreamRepository:
    if parts.netloc or parts.path or parts.query:
        raise InvalidRequest("a memory repository has no place; write memory://")
    return InMemoryEventStreamRepository()


def _rocksdb(parts: SplitResult) -> EventStreamRepository:
    options = dict(parse_qsl(parts.query))
    durability = options.pop("durability", "fsync")
    if parts.netloc or not parts.path or options or durability not in ("fsync", "os"):
        raise InvalidRequest(
            "write rocksdb:///absolute/path (three slashes), perhaps with ?durability=fsync or os"
        )
    return RocksDBEventStreamRepository(unquote(parts.path), durability=durability)


def _postgres(parts: SplitResult) -> EventStreamRepository:
    return PostgresEventStreamRepository(parts.geturl())


ADDRESSES: dict[str, Callable[[SplitResult], EventStreamRepository]] = {
    "memory": _memory,
    "postgres": _postgres,
    "postgresql": _postgres,
    "rocksdb": _rocksdb,
}
"""Scheme of an address -> how to make its repository."""
