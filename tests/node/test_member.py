"""What a member says of its peers."""

from __future__ import annotations

import structlog
from structlog.testing import LogCapture

from allsource.storage.memory import MemoryStorage
from tests.node.members import Cluster, until


async def test_a_peer_that_was_never_heard_of_is_no_news_until_it_is_down() -> None:
    heard, cluster = LogCapture(), Cluster(3)
    cluster.log = structlog.wrap_logger(None, processors=[heard])
    cluster.storages["n1"] = MemoryStorage(cluster_id="test", node_id="n1", partition_count=8)
    member = cluster.start("n1")
    try:
        await until(lambda: len(heard.entries) >= 2, "both peers to be down")
    finally:
        member.stop()
    assert [(entry["event"], entry["peer"]) for entry in heard.entries] == [
        ("peer is down", "n2"),
        ("peer is down", "n3"),
    ]
