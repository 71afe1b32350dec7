"""What a node asks of its storage: one replicated log per partition, and its indexes.

`Storage` is what stands between consensus and a disk. Its promises, which every backend keeps and
`tests/storage/contract.py` proves:

* **Atomic.** One `write` call changes logs, indexes and hard states of all its partitions together,
  truncation included. After a crash either all of it is there or nothing.
* **Ordered.** What `write` was given later is never there without what it was given earlier.
* **Visible at once.** Reads see what `write` was given as soon as it returns, synced or not.
* **Durable after `sync`.** When `sync` returns, everything written before it *began* survives a
  power cut. A `sync` that fails raises; the process must then exit and never call it again
  (RULES.md rule 16: a kernel may report a failed write-back once and forget it).
* **Durable from the start.** What a newly opened storage shows survives a power cut, also what an earlier
  process wrote and was killed before it could sync: a replica counts all that it finds as durable.
* **Indexes are the log.** Stream heads, event ids, the version index, tag numbers and marks always equal a
  replay of the log, also after a truncation.

Threads: `sync` is called in one thread of its own, one call at a time (a `sync_is_short` one perhaps in
the other thread), and `checkpoint` in one of its own too. Everything else is called from one other thread.
Calls are short (microseconds to a millisecond): they run on the event loop.

The values that it takes and gives are in `model.log` and `model.identity`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from allsource.storage.model.entry import Entry, Place
from allsource.storage.model.errors import DiskFull, Overloaded
from allsource.storage.model.identity import Identity
from allsource.storage.model.log import (
    MarkAt,
    PartitionState,
    PartitionWrite,
    StreamHead,
    StreamSlice,
    TagHead,
    TagSlice,
)

INDEX_MAX = 2**63 - 1
"""More than any log index."""


class Refusal(NamedTuple):
    """Why new appends should be refused now."""

    error: type[DiskFull] | type[Overloaded]
    """As what: there is no room, or the disk does not keep up."""
    reason: str

    def as_error(self, partition: int) -> DiskFull | Overloaded:
        """What the writer of a refused append is told."""
        return self.error(
            f"no appends are taken: {self.reason}; nothing was written, reads go on", partition=partition
        )


class Storage(Protocol):
    """See the module's page for the promises and the rules about threads."""

    identity: Identity
    partition_count: int

    @property
    def sync_is_short(self) -> bool:
        """Whether `sync` takes no longer than a write, so that it needs no thread of its own."""
        ...

    @property
    def no_checkpoints(self) -> str:
        """Why this backend makes no checkpoints, and what to do instead; empty if it makes them."""
        ...

    def checkpoint(self, target: Path) -> None:
        """Make `target`, which must not exist, a consistent copy of all that was written before.

        For a thread of its own: writing goes on meanwhile. Raises `CheckpointsUnsupported` where there is a
        reason in `no_checkpoints`, `Overloaded` if one is being made already, and as
        `files.checkpoint` says.
        """
        ...

    def load(self, partition: int) -> PartitionState:
        """The state to start a group from. Verifies what a start depends on (`Corrupt`)."""
        ...

    def write(self, writes: Sequence[PartitionWrite]) -> None:
        """Apply atomically, visible at once, not yet durable. Raises `DiskFull` having changed nothing."""
        ...

    def sync(self) -> None:
        """Make everything written before durable. Blocks; runs in its own thread; failure is fatal."""
        ...

    def pressure(self) -> Refusal | None:
        """Why new appends should be refused now (disk nearly full, stalls near), else None. Cheap."""
        ...

    def entries(self, partition: int, first: int, last: int, bytes_max: int) -> list[Entry]:
        """Entries `first..last` (inclusive), at least one if there is one, then up to `bytes_max`.

        Verifies each record; raises `Corrupt`. Missing indexes in the range are `Corrupt` as well,
        unless `first` is past the end (empty list).
        """
        ...

    def records(self, partition: int, first: int, last: int, bytes_max: int) -> list[bytes]:
        """As `entries`, but the records as they lie there: verified (`entry.check_record`), not decoded."""
        ...

    def entries_at(self, partition: int, indexes: Sequence[int]) -> list[Entry]:
        """The entries at these indexes, in the order asked for, fetched together; each must exist. Of their
        chunks, only those that are read are verified then (`Entry.chunk`)."""
        ...

    def index_of_position(self, partition: int, position: int) -> int | None:
        """Index of the entry that holds this position; None if no event has it yet."""
        ...

    def head(self, partition: int, stream: str) -> StreamHead | None:
        """The stream's head, None if the log holds no event of it."""
        ...

    def place_of_append(self, partition: int, first_event_id: bytes) -> Place | None:
        """Where the append is whose part begins with the event of this id."""
        ...

    def tag_head(self, partition: int, tag: str) -> TagHead | None:
        """The tag's newest event, None if the log holds none under it."""
        ...

    def tag_slices(
        self, partition: int, tag: str, from_number: int, *, forward: bool, slices_max: int
    ) -> list[TagSlice]:
        """Where a tag's events are, starting with the slice that holds `from_number`; as `slices`."""
        ...

    def mark(self, partition: int, name: str, *, index_max: int = INDEX_MAX) -> MarkAt | None:
        """The mark as the appends up to `index_max` left it, None if none of them moved it."""
        ...

    def slices(
        self, partition: int, stream: str, from_version: int, *, forward: bool, slices_max: int
    ) -> list[StreamSlice]:
        """Where a stream's events are, starting with the slice that holds `from_version`.

        Forward: that slice and later ones. Backward: that slice (or the last one, if the stream
        ends before `from_version`) and earlier ones, newest first.
        """
        ...

    def streams(
        self, partition: int, *, prefix: str = "", after: str = "", limit: int = 1000
    ) -> list[tuple[str, StreamHead]]:
        """Streams of a partition ordered by their UTF-8 bytes, those behind `after`, a page of `limit`."""
        ...

    def get_meta(self, key: str) -> bytes | None:
        """A small named value (the members seen, whether the cluster has formed); None if not set."""
        ...

    def put_meta(self, values: Mapping[str, bytes]) -> None:
        """Set small named values, all or none, durable when it returns. Rare: it blocks for a sync."""
        ...

    def verify(self, partition: int) -> Iterator[str]:
        """Walk a partition's log and indexes; yield one sentence for each fault found."""
        ...

    def properties(self) -> Mapping[str, int]:
        """The backend's own figures for /metrics, by stable snake_case names."""
        ...

    def close(self) -> None:
        """Sync and release everything. The object cannot be used afterwards."""
        ...
