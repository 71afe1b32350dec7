"""What an acknowledgement rests on, in words: for the log, `status`, `launch` and `GET /v1/cluster`.

The setting `durability` is half of it: storage in memory has no disk, whatever that setting says, and
copies that are all in one PostgreSQL server are on one disk.
"""

from __future__ import annotations

from typing import NamedTuple

from allsource.config.schema import Settings
from allsource.config.values import dsn_host, is_loopback


class Promise(NamedTuple):
    """What an acknowledged event may rely on."""

    durability: str
    """`fsync`, `os` or `memory`."""
    meaning: str
    """A sentence for people, without its full stop."""
    is_less: bool
    """Whether it is less than people expect of a cluster, so that they are warned."""


_ON_DISK = {
    "fsync": "an acknowledged event is on the disks of a majority of its nodes and survives a power cut",
    "os": "an acknowledged event is with the operating systems of a majority of its nodes: "
    "a power cut may lose it",
}


def promise_of(settings: Settings) -> Promise:
    """The promise of a cluster with these settings."""
    if shares_a_server(settings):
        return _in_one_server(settings)
    if settings.storage.traits.survives_restart:
        return Promise(settings.durability, _ON_DISK[settings.durability], settings.durability != "fsync")
    if len(settings.nodes) == 1:
        return Promise("memory", "all events are gone when this node's process ends", True)
    losses = losses_survived(settings)
    return Promise(
        "memory",
        "what a node holds is gone when its process ends, and a restarted node cannot take part again: "
        f"in its whole life the cluster survives the end of {losses or 'none'} of its "
        f"{len(settings.nodes)} processes",
        True,
    )


def shares_a_server(settings: Settings) -> bool:
    """Whether the nodes' copies are all in one PostgreSQL server, so that they are lost together.

    One `dsn` serves all nodes. It means a server for each node only where it names the node's own machine
    (no host, or a loopback address) and each node has one to itself.
    """
    nodes = settings.nodes
    if not settings.storage.traits.in_server or len(nodes) == 1:
        return False
    host = dsn_host(settings.storage.dsn)
    is_local = not host or host.startswith("/") or is_loopback(host)
    machines = {node.host.lower() for node in nodes}
    apart = len(machines) == len(nodes) and not any(map(is_loopback, machines))
    return not (is_local and apart)


def _in_one_server(settings: Settings) -> Promise:
    kept = {
        "fsync": "an acknowledged event is on its disk and survives a power cut",
        "os": "an acknowledged event is with it, and a power cut may lose it",
    }
    return Promise(
        settings.durability,
        f"all {len(settings.nodes)} nodes keep their copies in one PostgreSQL server: replicas, but without"
        " independent failure, for while that server is down none of them serves, and its disk is the only"
        " one; " + kept[settings.durability],
        True,
    )


def losses_survived(settings: Settings) -> int:
    """How many nodes may be lost at once, whichever they are, so that each partition keeps a majority."""
    return (min(settings.replication_factor, len(settings.nodes)) - 1) // 2
