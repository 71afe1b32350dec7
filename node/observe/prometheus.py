"""The figures of a node in Prometheus' text format, for `GET /metrics`.

`prometheus_client` formats, our own `LockFreeMetrics` count: the library's counters take a lock for
each record. A collector that is made for one scrape turns a snapshot, and what the node says of
itself (`NodeView`), into metric families.

Names are `allsource_<what>_<unit or total>`. The counters that the daemon uses are exported from the
start, at zero and with all their labels: an alert on them works before the first incident, and `rate`
sees the first one. A scrape costs the event loop 2 to 3 ms with 32 partitions, nearly all of it for
formatting; everything that it asks the node for is at hand.

`config/grafana-dashboard.json` draws them (import it in Grafana; a test compares its queries with what is
exported here).

`docs/operations.md` lists them with their meaning (a test compares it with what is exported here), and says
what to alert on.
"""

from __future__ import annotations

import platform
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from importlib.metadata import version
from typing import NamedTuple, Protocol

from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from allsource.cluster.consensus.leadership import FollowerFigures
from allsource.cluster.membership.liveness import DOWN, SUSPECT, UP
from allsource.node.observe import metrics as names
from allsource.node.observe.histogram import Histogram
from allsource.node.observe.metrics import LockFreeMetrics, MetricsSnapshot
from allsource.storage.model import errors


class PartitionFigures(NamedTuple):
    """One hosted partition as the node sees it."""

    partition: int
    owner: str | None
    """The node that leads it, if known."""
    leads: bool
    """Whether that is this node."""
    term: int
    commit_index: int
    last_index: int
    """Index of the last entry in this node's log."""
    commit_lag_entries: int
    """Entries between the highest commit index that a leader told and this node's own."""
    uncommitted_bytes: int
    """Bytes of the entries that this node, as the leader, proposed and no majority has yet; else 0."""
    followers: tuple[FollowerFigures, ...]
    """Empty unless this node leads it."""


class NodeView(Protocol):
    """What `/metrics` asks of the node beyond what was counted."""

    def info(self) -> Mapping[str, str]:
        """What the node is: labels and their values."""
        ...

    @property
    def is_ready(self) -> bool: ...

    @property
    def queue_length(self) -> int: ...

    @property
    def queue_capacity(self) -> int: ...

    def partition_figures(self) -> Iterable[PartitionFigures]: ...

    @property
    def damaged(self) -> Mapping[int, str]:
        """The partitions whose copy here is damaged, and what was found."""
        ...

    def peer_states(self) -> Mapping[str, str]:
        """`"up"`, `"suspect"` or `"down"` for each other node."""
        ...

    @property
    def refuses_appends(self) -> bool: ...

    def storage_properties(self) -> Mapping[str, int]:
        """The storage backend's own figures, by snake_case names; a name may carry one label, in
        Prometheus' notation: `sst_bytes{family="events"}`."""
        ...


class _Help(NamedTuple):
    text: str
    label: str = ""
    values: tuple[str, ...] = ()
    """The values of the label that the daemon uses."""


_REASONS = tuple(
    kind.code
    for kind in (
        errors.InvalidRequest,
        errors.TooLarge,
        errors.WrongExpectedVersion,
        errors.WrongExpectedTag,
        errors.MarkRefused,
        errors.EventIdConflict,
        errors.NotFound,
        errors.NoOwner,
        errors.NoMajority,
        errors.QueueFull,
        errors.Overloaded,
        errors.DiskFull,
        errors.ShuttingDown,
    )
)

_COUNTERS = {
    names.EVENTS: _Help("Events committed by appends that this node answered."),
    names.APPENDS: _Help("Appends committed and answered."),
    names.DUPLICATES: _Help("Appends that had been committed before and got the first answer again."),
    names.BYTES: _Help("Bytes of the log records of committed appends."),
    names.CONFLICTS: _Help(
        "Appends refused because a stream, a tag or a mark was not where it was expected to be."
    ),
    names.REJECTIONS: _Help(
        "Requests refused, by the error's code; not those that a door could not read.", "reason", _REASONS
    ),
    names.HTTP_ANSWERS: _Help(
        "Answers of the HTTP door, by status.", "status", ("200", "201", "400", "404", "409", "503", "504")
    ),
    names.UNKNOWN_OUTCOMES: _Help("Appends whose outcome was unknown at their deadline."),
    names.FORWARDS: _Help("Requests sent on to another node."),
    names.ERRORS: _Help("Failures that should not happen."),
    names.HEARTBEATS: _Help("Heartbeats, sent and received.", "direction", ("sent", "received")),
    names.SUSPICIONS: _Help("Times that this node came to distrust a peer.", "state", (SUSPECT, DOWN)),
    names.LEADERSHIP_CHANGES: _Help(
        "Leaderships of partitions gained and lost.", "change", ("gained", "lost")
    ),
}

_HISTOGRAMS = {
    names.QUERY: "Reads, from the door to the answer.",
    names.COMMIT: "Appends, from the queue to the commit.",
    names.FSYNC: "Syncs of the storage.",
}

_STORAGE = {
    "disk_free_bytes": "Bytes that this process may still write on the disk of the data directory.",
    "entries": "Log entries held in memory, all partitions.",
    "streams": "Streams held in memory, all partitions.",
    "unsynced_writes": "Writes since the last sync.",
    "postgres_syncs": "Transactions committed at the PostgreSQL server.",
    "postgres_reads": "Questions asked of the PostgreSQL server.",
    "postgres_unsynced_bytes": "Bytes that wait for the PostgreSQL server.",
    "postgres_view_lag_entries": "Committed entries that the tables and views do not show yet.",
    "postgres_view_failures": "Times that the tables and views could not be brought up to date.",
    "rocksdb_memtable_bytes": "Memory of the write buffers.",
    "rocksdb_immutable_memtables": "Full write buffers that wait to be flushed; appends are refused at 4.",
    "rocksdb_sst_bytes": "Size of all table files, those that only an open snapshot needs included.",
    "rocksdb_live_sst_bytes": "Size of the table files of the newest version.",
    "rocksdb_blob_bytes": "Size of the live blob files (large values).",
    "rocksdb_pending_compaction_bytes": "Estimate of what compaction has yet to rewrite.",
    "rocksdb_level0_files": "Files of level 0; appends are refused at 64.",
    "rocksdb_estimated_keys": "Estimate of the keys held.",
    "rocksdb_write_stopped": "1 while RocksDB stops its writer, which is the event loop.",
    "rocksdb_delayed_write_bytes_per_second": "To what rate RocksDB slows its writer; 0: not at all.",
    "rocksdb_running_compactions": "Compactions under way.",
    "rocksdb_running_flushes": "Flushes under way.",
    "rocksdb_background_errors": "Flushes and compactions that failed.",
    "rocksdb_block_cache_usage_bytes": "Memory of the blocks in the cache, indexes and filters included.",
    "rocksdb_block_cache_capacity_bytes": "Memory that the block cache may take.",
    "rocksdb_wal_bytes": "Size of the write-ahead logs; a restart reads them.",
}
_STORAGE_COUNTERS = frozenset(
    ("postgres_syncs", "postgres_reads", "postgres_view_failures", "rocksdb_background_errors")
)

_PEER_STATES = (UP, SUSPECT, DOWN)

# Two edges for each power of two, from 33 us to 8.6 s. They are ends of the histogram's buckets, so
# the counts are exact (but for a duration of exactly an edge, which Prometheus would count below it).
_EDGES_NS = [edge for power in range(15, 33) for edge in (1 << power, 3 << (power - 1))] + [1 << 33]


def render(metrics: LockFreeMetrics, view: NodeView) -> tuple[bytes, str]:
    """The page and its content type."""
    registry = CollectorRegistry(auto_describe=False)
    ProcessCollector(registry=registry)
    GCCollector(registry=registry)
    registry.register(_NodeCollector(metrics.snapshot(), view))
    return generate_latest(registry), CONTENT_TYPE_LATEST


class _NodeCollector(Collector):
    """One scrape."""

    def __init__(self, snapshot: MetricsSnapshot, view: NodeView) -> None:
        self._snapshot = snapshot
        self._view = view

    def collect(self) -> Iterator[Metric]:
        view = self._view
        yield InfoMetricFamily("allsource_build", "The software.", value=_build())
        yield InfoMetricFamily("allsource_node", "The node.", value=dict(view.info()))
        yield _gauge("ready", "1 when the node serves as it should (/health/ready).", view.is_ready)
        yield _gauge("uptime_seconds", "Since the process began to count.", self._snapshot.uptime)
        yield from _counters(self._snapshot)
        yield from _histograms(self._snapshot)
        yield from _queue(view)
        yield from _partitions(list(view.partition_figures()))
        yield _gauge(
            "partitions_damaged",
            "Partitions of which this node's copy is damaged, so that it takes no part in them.",
            len(view.damaged),
        )
        yield _peers(view.peer_states())
        yield _gauge(
            "storage_pressure",
            "1 while this node would refuse appends: its disk is nearly full (others then lead for it),"
            " or does not keep up.",
            view.refuses_appends,
        )
        yield from _storage(view.storage_properties())


@cache
def _build() -> dict[str, str]:
    return {"version": version("allsource"), "python": platform.python_version()}


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"allsource_{name}", text, value)


def _counters(snapshot: MetricsSnapshot) -> Iterator[Metric]:
    by_name = {name: dict.fromkeys(help_.values, 0) for name, help_ in _COUNTERS.items()}
    for (name, label), n in sorted(snapshot.counters.items()):
        by_name.setdefault(name, {})[label] = n
    for name, by_label in by_name.items():
        help_ = _COUNTERS.get(name) or _Help(f"What the node counts as {name}.", _label_of(by_label))
        labels = [help_.label] if help_.label else []
        family = CounterMetricFamily(f"allsource_{_safe(name)}", help_.text, labels=labels)
        if not labels:
            family.add_metric([], sum(by_label.values()))
        for label, n in by_label.items() if labels else ():
            family.add_metric([label], n)
        yield family


def _label_of(by_label: Mapping[str, int]) -> str:
    return "label" if any(by_label) else ""


def _histograms(snapshot: MetricsSnapshot) -> Iterator[Metric]:
    for name in sorted(_HISTOGRAMS.keys() | snapshot.histograms.keys()):
        histogram = snapshot.histograms.get(name) or Histogram()
        text = _HISTOGRAMS.get(name, f"What the node times as {name}.")
        counts = histogram.cumulative(_EDGES_NS)
        buckets = [(repr(edge / 1e9), float(n)) for edge, n in zip(_EDGES_NS, counts, strict=True)]
        yield HistogramMetricFamily(
            f"allsource_{_safe(name)}_seconds",
            text,
            buckets=[*buckets, ("+Inf", float(histogram.count))],
            sum_value=histogram.sum,
        )


def _queue(view: NodeView) -> Iterator[Metric]:
    length, capacity = view.queue_length, view.queue_capacity
    yield _gauge("queue_length", "Appends in the ingest queue.", length)
    yield _gauge("queue_capacity", "Appends that the ingest queue can hold.", capacity)
    yield _gauge("queue_fill_ratio", "Share of the ingest queue in use.", length / capacity)


# By the fields of `PartitionFigures`.
_PARTITION = {
    "leads": "1 if this node leads it.",
    "term": "Raft term.",
    "commit_index": "Last entry that this node knows to be committed.",
    "last_index": "Last entry of this node's log.",
    "commit_lag_entries": "Entries that are committed, as a leader told, and not yet by this node.",
    "uncommitted_bytes": "On the owner: bytes of its entries that wait for a majority.",
}
_FOLLOWER = {
    "lag_entries": "On the owner: entries of its log that the follower is not known to have on its disk."
    " Absent until the follower first accepts something from this owner.",
    "replicating": "On the owner: 1 while it reaches the follower and knows where their logs agree.",
}


def _partitions(figures: Iterable[PartitionFigures]) -> Iterator[Metric]:
    own = {name: _of_a_partition(name, text) for name, text in _PARTITION.items()}
    followers = {
        name: _of_a_partition(f"follower_{name}", text, "follower") for name, text in _FOLLOWER.items()
    }
    owner = _of_a_partition("owner", "1 for the node that leads it, if this node knows.", "owner")
    ownerless = 0
    for figure in figures:
        partition = str(figure.partition)
        for name, family in own.items():
            family.add_metric([partition], getattr(figure, name))
        if figure.owner is None:
            ownerless += 1
        else:
            owner.add_metric([partition, figure.owner], 1)
        for follower, lag, replicating in figure.followers:
            if lag is not None:
                followers["lag_entries"].add_metric([partition, follower], lag)
            followers["replicating"].add_metric([partition, follower], replicating)
    yield from (owner, *own.values(), *followers.values())
    yield _gauge(
        "partitions_without_owner", "Partitions kept here whose owner this node does not know.", ownerless
    )


def _of_a_partition(name: str, text: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"allsource_partition_{name}", text, labels=["partition", *labels])


def _storage(figures: Mapping[str, int]) -> Iterator[Metric]:
    families: dict[str, CounterMetricFamily | GaugeMetricFamily] = {}
    for key, value in sorted(figures.items()):
        name, _, label = key.partition("{")
        label_name, _, label_value = label.rstrip("}").partition("=")
        family = families.get(name)
        if family is None:
            kind = CounterMetricFamily if name in _STORAGE_COUNTERS else GaugeMetricFamily
            text = _STORAGE.get(name, f"The storage backend's figure {name}.")
            labels = [label_name] if label else []
            family = families[name] = kind(f"allsource_storage_{_safe(name)}", text, labels=labels)
        family.add_metric([label_value.strip('"')] if label else [], value)
    yield from families.values()


def _peers(states: Mapping[str, str]) -> Metric:
    family = GaugeMetricFamily(
        "allsource_peer_state", "1 for the state of a peer in this node's view.", labels=["peer", "state"]
    )
    for peer, state in sorted(states.items()):
        for possible in _PEER_STATES:
            family.add_metric([peer, possible], int(state == possible))
    return family


def _safe(name: str) -> str:
    """The name with all that Prometheus does not allow replaced."""
    return re.sub(r"[^a-zA-Z0-9_]", "_", name)
