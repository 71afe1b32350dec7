"""What an acknowledgement rests on, as every cluster's `status` says it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from allsource.config.describe import describe
from allsource.config.promise import losses_survived, promise_of
from allsource.config.schema import Settings
from tests.config.conftest import Load

NODE = "- {{id: n{0}, host: 127.0.0.1, port: 71{0}1, http_port: 81{0}1, data_dir: /tmp/n{0}}}\n"


def cluster(load: Load, nodes: int, text: str = "") -> Settings:
    listed = "".join(NODE.format(number) for number in range(1, nodes + 1))
    return load(f"cluster_name: c\nsecret: correct horse\n{text}nodes:\n{listed}", whole=True)


@pytest.mark.parametrize(
    ("text", "durability", "word"),
    [
        ("", "fsync", "on the disks of a majority"),
        ("durability: os\n", "os", "a power cut may lose it"),
        (
            "storage: {backend: postgres, dsn: 'postgresql://db/x'}\n",
            "fsync",
            "without independent failure",
        ),
        ("storage: {backend: memory}\n", "memory", "a restarted node cannot take part again"),
        ("storage: {backend: memory}\ndurability: os\n", "memory", "gone when its process ends"),
    ],
)
def test_a_promise_is_what_the_storage_can_keep(load: Load, text: str, durability: str, word: str) -> None:
    promise = promise_of(cluster(load, 3, text))
    assert promise.durability == durability
    assert word in promise.meaning


@pytest.mark.parametrize(
    ("nodes", "text", "losses"),
    [(1, "", 0), (2, "", 0), (3, "", 1), (5, "", 1), (5, "replication_factor: 5\n", 2)],
)
def test_memory_says_how_many_ends_it_survives(load: Load, nodes: int, text: str, losses: int) -> None:
    settings = cluster(load, nodes, f"storage: {{backend: memory}}\n{text}")
    assert losses_survived(settings) == losses
    meaning = promise_of(settings).meaning
    if nodes == 1:
        assert meaning == "all events are gone when this node's process ends"
    else:
        assert meaning.endswith(f"survives the end of {losses or 'none'} of its {nodes} processes")


def test_the_settings_in_force_do_not_claim_an_fsync_for_memory(load: Load) -> None:
    shown = describe(cluster(load, 3, "storage: {backend: memory}\n"))
    assert shown.startswith("# durability memory: what a node holds is gone when its process ends")
    assert "fsync" not in shown
    assert describe(cluster(load, 3)).startswith(
        "# durability fsync: an acknowledged event is on the disks"
    )


@pytest.mark.parametrize(
    ("dsn", "hosts", "shared"),
    [
        ("postgresql://db/x", ["10.0.0.1", "10.0.0.2"], True),
        ("postgresql://localhost/x", ["127.0.0.1", "127.0.0.1"], True),
        ("postgresql:///x", ["10.0.0.1", "10.0.0.2"], False),
        ("postgresql://localhost/x", ["10.0.0.1", "10.0.0.2"], False),
        ("postgresql:///x?host=/run/pg", ["10.0.0.1", "10.0.0.2"], False),
        ("postgresql:///x", ["10.0.0.1", "10.0.0.1"], True),
        ("postgresql://db/x", ["10.0.0.1"], False),
    ],
)
def test_copies_in_one_server_are_said_to_fail_together(
    load: Load, dsn: str, hosts: list[str], shared: bool
) -> None:
    settings = cluster(load, len(hosts), f"storage: {{backend: postgres, dsn: '{dsn}'}}\n")
    nodes = tuple(replace(node, host=host) for node, host in zip(settings.nodes, hosts, strict=True))
    promise = promise_of(replace(settings, nodes=nodes))
    assert ("without independent failure" in promise.meaning) is shared
    assert promise.is_less is shared
    assert promise.durability == "fsync"
