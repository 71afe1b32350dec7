"""Whether a soak went well: figures in, complaints out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from allsource.node.cli.figures import percentile, ranges

MIB = 1 << 20

P99_TIMES_MAX = 3.0
"""By how much the abuse may lengthen the writer's 99th percentile."""
LOG_BYTES_MAX = 1_000_000
RSS_GROWTH_MAX = 192 * MIB
"""What may be added to a node beside `APPEND_BYTES`: RocksDB's block cache, which reads fill (128 MiB by
default, `storage.block_cache_bytes`), and 64 MiB of the allocator's habits."""
APPEND_BYTES = 1024
"""What each append of the well-behaved writer keeps in a node's memory, in the newest part of the log
(`consensus.log.TAIL_BYTES_MAX`) and in write buffers: 55,000 of them without any abuse added 50 MiB."""
DESCRIPTORS_GROWTH_MAX = 16
"""RocksDB's own files come and go."""


@dataclass
class NodeFigures:
    """One node at one moment."""

    rss: int
    """Bytes of memory."""
    descriptors: int
    log_bytes: int


def judge_nodes(
    before: Mapping[str, NodeFigures], after: Mapping[str, NodeFigures], appends: int = 0
) -> list[str]:
    """Memory, descriptors and logs are back to where they were, or nearly, with `appends` more stored."""
    complaints = []
    rss_growth_max = RSS_GROWTH_MAX + appends * APPEND_BYTES
    for node_id, was in before.items():
        now = after[node_id]
        if now.rss - was.rss > rss_growth_max:
            complaints.append(
                f"{node_id}: memory {was.rss / MIB:.0f} MiB before, {now.rss / MIB:.0f} after"
            )
        if now.descriptors - was.descriptors > DESCRIPTORS_GROWTH_MAX:
            complaints.append(f"{node_id}: {was.descriptors} descriptors before, {now.descriptors} after")
        if now.log_bytes - was.log_bytes > LOG_BYTES_MAX:
            complaints.append(f"{node_id}: its log grew by {(now.log_bytes - was.log_bytes) / 1e6:.1f} MB")
    return complaints


def judge_writer(alone: Sequence[float], beside: Sequence[float], errors: Mapping[str, int]) -> list[str]:
    """The writer was answered, and nearly as fast as alone. Latencies in seconds."""
    complaints = [f"the writer got {code}, {n} times" for code, n in errors.items()]
    if not alone or not beside:
        return [*complaints, "the writer wrote nothing"]
    times = percentile(beside, 99) / percentile(alone, 99)
    if times > P99_TIMES_MAX:
        complaints.append(f"the writer's p99 is {times:.1f} times that of alone")
    return complaints


def judge_terms(before: Sequence[int], after: Sequence[int]) -> list[str]:
    """No partition held an election. Terms by partition."""
    if len(before) != len(after):
        return [f"{len(before)} partitions told their term before, {len(after)} after"]
    moved = [p for p, (was, now) in enumerate(zip(before, after, strict=True)) if was != now]
    return [f"elections in partitions {ranges(moved)}"] if moved else []
