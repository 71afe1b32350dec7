"""`/metrics`: what was recorded, what the node is, and in a form that Prometheus takes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import cast

import pytest

from allsource.cluster.consensus.leadership import FollowerFigures
from allsource.cluster.protocol.requests import AppendResult
from allsource.node.observe import metrics as names
from allsource.node.observe.metrics import LockFreeMetrics
from allsource.node.observe.prometheus import NodeView, PartitionFigures, render
from allsource.storage.open import open_storage
from allsource.storage.postgres.storage import PostgresStorage
from tests.node.appends import append, events
from tests.node.members import Cluster, streams_in, until
from tests.node.observe.exposition import families_of

Series = dict[tuple[str, tuple[tuple[str, str], ...]], float]
"""Values by name and labels."""


class View:
    queue_length = 3
    queue_capacity = 12
    is_ready = False
    refuses_appends = True
    damaged: Mapping[int, str] = MappingProxyType({5: "record 7 fails its CRC"})

    def info(self) -> Mapping[str, str]:
        return {"node": "n1", "cluster": 'a \\ "b"\n'}

    def partition_figures(self) -> list[PartitionFigures]:
        followers = (FollowerFigures("n2", 7, True), FollowerFigures("n3", None, False))
        return [
            PartitionFigures(0, "n1", True, 4, 17, 24, 0, 900, followers),
            PartitionFigures(1, None, False, 5, 0, 2, 6, 0, ()),
        ]

    def peer_states(self) -> Mapping[str, str]:
        return {"n3": "down", "n2": "up"}

    def storage_properties(self) -> Mapping[str, int]:
        return {
            'sst_bytes{family="b"}': 2,
            'sst_bytes{family="a"}': 1,
            "block_cache-usage": 4096,
            "rocksdb_background_errors": 5,
        }


@pytest.fixture
def metrics() -> LockFreeMetrics:
    return LockFreeMetrics(iter((1000.0, 1009.0)).__next__)


def scrape(metrics: LockFreeMetrics, view: NodeView | None = None) -> Series:
    """What Prometheus itself would understand."""
    body, content_type = render(metrics, view or View())
    assert content_type.startswith("text/plain")
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families_of(body.decode()).values()
        for sample in family.samples
    }


def test_the_exposition_says_what_was_recorded(metrics: LockFreeMetrics) -> None:
    metrics.record_ingest_batch(7)
    metrics.count(names.APPENDS, 2)
    metrics.count(names.REJECTIONS, 5, "queue_full")
    metrics.count(names.REJECTIONS, 1, "of a new kind")
    metrics.count("something odd", 2)
    for duration in (0.0001, 0.001, 0.001, 20.0):
        metrics.observe(names.COMMIT, duration)
    found = scrape(metrics)
    assert found["allsource_events_total", ()] == 7
    assert found["allsource_appends_total", ()] == 2
    assert found["allsource_rejections_total", (("reason", "queue_full"),)] == 5
    assert found["allsource_rejections_total", (("reason", "of a new kind"),)] == 1
    assert found["allsource_something_odd_total", ()] == 2
    assert found["allsource_uptime_seconds", ()] == 9
    assert found["allsource_commit_seconds_count", ()] == 4
    assert found["allsource_commit_seconds_sum", ()] == pytest.approx(20.0021)
    buckets = {
        float(dict(labels)["le"]): n
        for (name, labels), n in found.items()
        if name == "allsource_commit_seconds_bucket"
    }
    assert [n for edge, n in sorted(buckets.items()) if edge < 0.0001] == [0, 0, 0, 0]
    assert {n for edge, n in buckets.items() if 0.00011 < edge < 0.00099} == {1}
    assert {n for edge, n in buckets.items() if 0.0011 < edge < 9} == {3}
    assert buckets[float("inf")] == 4


def test_the_exposition_describes_the_node(metrics: LockFreeMetrics) -> None:
    found = scrape(metrics)
    assert found["allsource_node_info", (("cluster", 'a \\ "b"\n'), ("node", "n1"))] == 1
    (build,) = [dict(labels) for name, labels in found if name == "allsource_build_info"]
    assert build.keys() == {"version", "python"}
    assert found["allsource_ready", ()] == 0
    assert found["allsource_storage_pressure", ()] == 1
    assert found["allsource_partitions_damaged", ()] == 1
    assert found["allsource_queue_length", ()] == 3
    assert found["allsource_queue_capacity", ()] == 12
    assert found["allsource_queue_fill_ratio", ()] == 0.25
    assert found["allsource_peer_state", (("peer", "n3"), ("state", "down"))] == 1
    assert found["allsource_peer_state", (("peer", "n3"), ("state", "up"))] == 0
    assert found["allsource_storage_block_cache_usage", ()] == 4096
    assert found["allsource_storage_sst_bytes", (("family", "a"),)] == 1
    assert found["allsource_storage_sst_bytes", (("family", "b"),)] == 2
    assert found["allsource_storage_rocksdb_background_errors_total", ()] == 5
    assert found["process_resident_memory_bytes", ()] > 0


def test_the_exposition_describes_the_partitions(metrics: LockFreeMetrics) -> None:
    found = scrape(metrics)
    of_each = {
        "leads": (1, 0),
        "term": (4, 5),
        "commit_index": (17, 0),
        "last_index": (24, 2),
        "commit_lag_entries": (0, 6),
        "uncommitted_bytes": (900, 0),
    }
    for name, values in of_each.items():
        series = [found[f"allsource_partition_{name}", (("partition", p),)] for p in "01"]
        assert tuple(series) == values, name
    several = {
        (name.removeprefix("allsource_partition_"), *(value for _, value in labels)): n
        for (name, labels), n in found.items()
        if name.startswith("allsource_partition_") and len(labels) > 1
    }
    assert several == {
        ("owner", "n1", "0"): 1,
        ("follower_lag_entries", "n2", "0"): 7,
        ("follower_replicating", "n2", "0"): 1,
        ("follower_replicating", "n3", "0"): 0,
    }, "nothing is said of what is not known"
    assert found["allsource_partitions_without_owner", ()] == 1


def test_what_the_daemon_counts_is_there_before_it_happened(metrics: LockFreeMetrics) -> None:
    found = scrape(metrics)
    for name in (names.EVENTS, names.APPENDS, names.BYTES, names.CONFLICTS, names.ERRORS, names.FORWARDS):
        assert found[f"allsource_{name}_total", ()] == 0
    for name in (names.QUERY, names.COMMIT, names.FSYNC):
        assert found[f"allsource_{name}_seconds_count", ()] == 0
    for name, label, value in (
        (names.REJECTIONS, "reason", "queue_full"),
        (names.HEARTBEATS, "direction", "received"),
        (names.SUSPICIONS, "state", "down"),
        (names.LEADERSHIP_CHANGES, "change", "lost"),
    ):
        assert found[f"allsource_{name}_total", ((label, value),)] == 0


@pytest.mark.parametrize(
    "fault",
    [
        "# HELP a_total A.\n# TYPE a_total counter\na_total 1.0\na_total 1.0\n",
        '# HELP a A.\n# TYPE a gauge\na{p="1"} 1.0\na{p="1"} 2.0\n',
        "# HELP a_ms A.\n# TYPE a_ms gauge\na_ms 1.0\n",
        "# HELP a_total A.\n# TYPE a_total gauge\na_total 1.0\n",
        "# HELP a \n# TYPE a gauge\na 1.0\n",
        "# HELP a A.\n# TYPE a gauge\na 1.0\n# HELP b B.\n# TYPE b gauge\nb 1.0\na 2.0\n",
        "# HELP a_total A.\n# TYPE a_total counter\na_total -1.0\n",
        '# HELP a A.\n# TYPE a gauge\na{p=""} 1.0\n',
    ],
)
def test_the_strict_reader_refuses(fault: str) -> None:
    with pytest.raises(AssertionError):
        families_of(fault)


# -- of nodes that run


def properties_of(backend: str, directory: Path) -> Mapping[str, int]:
    """What a storage of this backend says of itself; of PostgreSQL's, that needs no server."""
    if backend == "postgres":
        projection = SimpleNamespace(lag=1, failures=2)
        session = SimpleNamespace(flushes=3, reads=4, projection=projection)
        return PostgresStorage.properties(
            cast(PostgresStorage, SimpleNamespace(_session=session, _layers=[]))
        )
    storage = open_storage(backend=backend, data_dir=directory)
    try:
        return storage.properties()
    finally:
        storage.close()


@pytest.mark.parametrize("backend", ["memory", "rocksdb", "postgres"])
def test_a_backends_own_figures_are_explained(
    metrics: LockFreeMetrics, backend: str, tmp_path: Path
) -> None:
    figures = properties_of(backend, tmp_path / "data")

    class Stored(View):
        def storage_properties(self) -> Mapping[str, int]:
            return figures

    body, _ = render(metrics, Stored())
    of_storage = {n: f for n, f in families_of(body.decode()).items() if n.startswith("allsource_storage_")}
    assert len(of_storage) > 2
    unexplained = [n for n, f in of_storage.items() if f.documentation.startswith("The storage backend's")]
    assert unexplained == []
    counted = {name for name, family in of_storage.items() if family.type == "counter"}
    assert (
        counted
        == {
            "memory": set(),
            "rocksdb": {"allsource_storage_rocksdb_background_errors"},
            "postgres": {
                f"allsource_storage_postgres_{name}" for name in ("syncs", "reads", "view_failures")
            },
        }[backend]
    )


def scrape_member(cluster: Cluster, node_id: str) -> Series:
    return scrape(cluster.metrics[node_id], cluster.views[node_id])


async def test_a_node_shows_how_far_its_followers_are_behind() -> None:
    async with Cluster(3) as cluster:
        stream = streams_in(0, 1)[0]
        owner = cluster.leader(0)
        owner_id = owner.core.node_id
        behind, other = sorted(set(cluster.members) - {owner_id})

        def lag(follower: str) -> float | None:
            series = (("follower", follower), ("partition", "0"))
            return scrape_member(cluster, owner_id).get(
                ("allsource_partition_follower_lag_entries", series)
            )

        def of_partition(node_id: str, name: str) -> float:
            return scrape_member(cluster, node_id)[f"allsource_partition_{name}", (("partition", "0"),)]

        def replicating(follower: str) -> float:
            series = (("follower", follower), ("partition", "0"))
            return scrape_member(cluster, owner_id)["allsource_partition_follower_replicating", series]

        await until(lambda: lag(behind) == lag(other) == 0, "followers that have everything")
        assert replicating(behind) == 1
        cluster.kill(behind)
        for _ in range(5):
            assert isinstance(await cluster.ask(owner_id, append((stream, events()))), AppendResult)
        assert lag(behind) == 5
        assert replicating(behind) == 0
        await until(lambda: lag(other) == 0, "the other follower to have everything")
        assert replicating(other) == 1
        assert of_partition(owner_id, "last_index") == of_partition(owner_id, "commit_index")
        assert of_partition(owner_id, "uncommitted_bytes") == 0
        assert of_partition(owner_id, "commit_lag_entries") == 0

        cluster.start(behind)
        await until(lambda: lag(behind) == 0, "the killed one to catch up")
        await until(lambda: of_partition(behind, "commit_lag_entries") == 0, "it to commit")
        assert of_partition(behind, "commit_index") == of_partition(owner_id, "commit_index")


async def test_a_node_alone_is_not_ready_and_knows_no_owners() -> None:
    async with Cluster(3) as cluster:
        assert scrape_member(cluster, "n1")["allsource_ready", ()] == 1
        assert scrape_member(cluster, "n1")["allsource_partitions_without_owner", ()] == 0
        cluster.kill("n2")
        cluster.kill("n3")
        hosted = len(cluster.members["n1"].core.groups)
        await until(
            lambda: scrape_member(cluster, "n1")["allsource_partitions_without_owner", ()] == hosted,
            "a node without a majority to give up its leaderships",
        )
        assert scrape_member(cluster, "n1")["allsource_ready", ()] == 0
        down = (("peer", "n2"), ("state", "down"))
        assert scrape_member(cluster, "n1")["allsource_peer_state", down] == 1
