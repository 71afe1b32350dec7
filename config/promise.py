"""What an acknowledgement rests on, in words: for the log, `status`, `launch` and `GET /v1/cluster`.

The setting `durability` is half of it: storage in memory has no disk, whatever that setting says.
"""

from __future__ import annotations

from typing import NamedTuple

from allsource.config.schema import Settings


class Promise(NamedTuple):
    """`durability`: `fsync`, `os` or `memory`. `meaning`: a sentence for people, without its full stop."""

    durability: str
    meaning: str


_ON_DISK = {
    "fsync": "an acknowledged event is on the disks of a majority of its nodes and survives a power cut",
    "os": "an acknowledged event is with the operating systems of a majority of its nodes: "
    "a power cut may lose it",
}


def promise_of(settings: Settings) -> Promise:
    """The promise of a cluster with these settings."""
    if settings.storage.backend != "memory":
        return Promise(settings.durability, _ON_DISK[settings.durability])
    if len(settings.nodes) == 1:
        return Promise("memory", "all events are gone when this node's process ends")
    losses = losses_survived(settings)
    return Promise(
        "memory",
        "what a node holds is gone when its process ends, and a restarted node cannot take part again: "
        f"in its whole life the cluster survives the end of {losses or 'none'} of its "
        f"{len(settings.nodes)} processes",
    )


def losses_survived(settings: Settings) -> int:
    """How many nodes may be lost at once, whichever they are, so that each partition keeps a majority."""
    return (min(settings.replication_factor, len(settings.nodes)) - 1) // 2
