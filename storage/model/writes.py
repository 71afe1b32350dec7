"""Putting several writes of one partition together, so that a backend meets each partition once.

`Storage.write` may name a partition more than once (a vote, then entries, then a truncation and other
entries). Backends build one batch from what is on disk now, and a truncation must be worked out
against that, not against a half-built batch. So what comes later in the call is folded into what came
before, and every backend sees the one form: truncate first, then append.
"""

from __future__ import annotations

from collections.abc import Sequence

from allsource.storage.model.log import PartitionWrite


def combined(writes: Sequence[PartitionWrite]) -> Sequence[PartitionWrite]:
    """The same change with each partition named once; `writes` itself if it already is so."""
    if len(writes) < 2 or len({write.partition for write in writes}) == len(writes):
        return writes
    merged: dict[int, PartitionWrite] = {}
    for write in writes:
        earlier = merged.get(write.partition)
        merged[write.partition] = write if earlier is None else _folded(earlier, write)
    return list(merged.values())


def check_continues(write: PartitionWrite, last_index: int) -> None:
    """Assert that the entries go on where the log ends, which has `last_index` entries now."""
    end = last_index
    if write.truncate_from is not None:
        end = min(end, write.truncate_from - 1)
    for index, entry in enumerate(write.entries, end + 1):
        assert entry.index == index, f"entry {entry.partition}/{entry.index} where {index} is due"
        assert entry.partition == write.partition, f"entry of partition {entry.partition}"


def _folded(earlier: PartitionWrite, later: PartitionWrite) -> PartitionWrite:
    truncate_from, entries = earlier.truncate_from, list(earlier.entries)
    if later.truncate_from is not None:
        entries = [entry for entry in entries if entry.index < later.truncate_from]
        # A cut among the earlier entries lies behind the end of what is on disk: harmless there.
        truncate_from = min(truncate_from or later.truncate_from, later.truncate_from)
    return PartitionWrite(
        earlier.partition,
        later.hard if later.hard is not None else earlier.hard,
        truncate_from,
        [*entries, *later.entries],
    )
