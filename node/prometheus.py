"""The figures of a node in Prometheus' text format, for `GET /metrics`.

`prometheus_client` formats, our own `LockFreeMetrics` count: the library's counters take a lock for
each record. A collector that is made for one scrape turns a snapshot, and what the node says of
itself (`NodeView`), into metric families.

Names are `allsource_<what>_<unit or total>`. The counters that the daemon uses are exported from the
start, at zero, so that an alert on them works before the first incident.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple, Protocol

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from allsource.node import metrics as names
from allsource.node.histogram import Histogram
from allsource.node.metrics import LockFreeMetrics, MetricsSnapshot


class PartitionFigures(NamedTuple):
    """One hosted partition as the node sees it."""

    partition: int
    owner: str | None
    """The node that leads it, if known."""
    leads: bool
    """Whether that is this node."""
    term: int
    commit: int
    """Commit index."""


class NodeView(Protocol):
    """What `/metrics` asks of the node beyond what was counted."""

    @property
    def queue_length(self) -> int: ...

    @property
    def queue_capacity(self) -> int: ...

    def partition_figures(self) -> Iterable[PartitionFigures]: ...

    def peer_states(self) -> Mapping[str, str]:
        """`"up"`, `"suspect"` or `"down"` for each other node."""
        ...

    def storage_properties(self) -> Mapping[str, int]:
        """The storage backend's own figures, by snake_case names."""
        ...


class _Help(NamedTuple):
    text: str
    label: str = ""


_COUNTERS = {
    names.EVENTS: _Help("Events committed by appends that this node answered."),
    names.APPENDS: _Help("Appends committed and answered."),
    names.DUPLICATES: _Help("Appends that had been committed before and got the first answer again."),
    names.BYTES: _Help("Bytes of event blobs in committed appends."),
    names.CONFLICTS: _Help("Appends refused because the stream was at another version."),
    names.REJECTIONS: _Help("Requests refused, by the error's code.", "reason"),
    names.UNKNOWN_OUTCOMES: _Help("Appends whose outcome was unknown at their deadline."),
    names.FORWARDS: _Help("Requests sent on to another node."),
    names.ERRORS: _Help("Failures that should not happen."),
    names.HEARTBEATS: _Help("Heartbeats, sent and received.", "direction"),
    names.SUSPICIONS: _Help("Times that this node came to distrust a peer.", "state"),
    names.LEADERSHIP_CHANGES: _Help("Leaderships of partitions gained and lost.", "change"),
}

_HISTOGRAMS = {
    names.QUERY: "Reads, from the door to the answer.",
    names.COMMIT: "Appends, from the queue to the commit.",
    names.FSYNC: "Syncs of the storage.",
}

_PEER_STATES = ("up", "suspect", "down")

# Two edges for each power of two, from 33 us to 8.6 s. They are ends of the histogram's buckets, so
# the counts are exact (but for a duration of exactly an edge, which Prometheus would count below it).
_EDGES_NS = [edge for power in range(15, 33) for edge in (1 << power, 3 << (power - 1))] + [1 << 33]


def render(metrics: LockFreeMetrics, view: NodeView) -> tuple[bytes, str]:
    """The page and its content type."""
    registry = CollectorRegistry(auto_describe=False)
    ProcessCollector(registry=registry)
    registry.register(_NodeCollector(metrics.snapshot(), view))
    return generate_latest(registry), CONTENT_TYPE_LATEST


class _NodeCollector(Collector):
    """One scrape."""

    def __init__(self, snapshot: MetricsSnapshot, view: NodeView) -> None:
        self._snapshot = snapshot
        self._view = view

    def collect(self) -> Iterator[Metric]:
        yield GaugeMetricFamily(
            "allsource_uptime_seconds", "Since the process began to count.", self._snapshot.uptime
        )
        yield from _counters(self._snapshot)
        yield from _histograms(self._snapshot)
        yield from _queue(self._view)
        yield from _partitions(self._view.partition_figures())
        yield _peers(self._view.peer_states())
        for name, value in sorted(self._view.storage_properties().items()):
            yield GaugeMetricFamily(
                f"allsource_storage_{_safe(name)}", f"The storage backend's figure {name}.", value
            )


def _counters(snapshot: MetricsSnapshot) -> Iterator[Metric]:
    by_name: dict[str, dict[str, int]] = {name: {} for name in _COUNTERS}
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
    yield GaugeMetricFamily("allsource_queue_length", "Appends in the ingest queue.", view.queue_length)
    yield GaugeMetricFamily(
        "allsource_queue_capacity", "Appends that the ingest queue can hold.", view.queue_capacity
    )
    fill = view.queue_length / view.queue_capacity
    yield GaugeMetricFamily("allsource_queue_fill_ratio", "Share of the ingest queue in use.", fill)


def _partitions(figures: Iterable[PartitionFigures]) -> Iterator[Metric]:
    leads = GaugeMetricFamily("allsource_partition_leads", "1 if this node leads it.", labels=["partition"])
    owner = GaugeMetricFamily(
        "allsource_partition_owner", "1 for the node that leads it.", labels=["partition", "owner"]
    )
    term = GaugeMetricFamily("allsource_partition_term", "Raft term.", labels=["partition"])
    commit = GaugeMetricFamily(
        "allsource_partition_commit_index", "Last committed entry.", labels=["partition"]
    )
    for figure in figures:
        partition = [str(figure.partition)]
        leads.add_metric(partition, int(figure.leads))
        term.add_metric(partition, figure.term)
        commit.add_metric(partition, figure.commit)
        if figure.owner is not None:
            owner.add_metric([*partition, figure.owner], 1)
    yield from (leads, owner, term, commit)


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
