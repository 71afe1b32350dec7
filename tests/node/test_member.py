"""What a member says of its peers."""

from __future__ import annotations

import asyncio

import structlog
from structlog.testing import LogCapture

from allsource.cluster.consensus.messages import Beat
from allsource.storage.memory import MemoryStorage
from tests.node.members import Cluster, Link, until


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


async def test_nothing_of_a_killed_member_arrives_after_its_end() -> None:
    """Of these tests' own network: a beat that came behind the refusal made the dead one look up again."""
    async with Cluster(3) as cluster:
        Link(cluster, "n1").send_beat("n2", Beat(1_000_000, []))
        cluster.kill("n1")
        for _ in range(3):  # turns of the loop, in which it would have come
            await asyncio.sleep(0)
        assert cluster.members["n2"].core.detector.state("n1") == "down"
