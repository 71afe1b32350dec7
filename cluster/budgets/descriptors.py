"""How many connections each door may have, from how many files the process may open.

Too few descriptors end a node: RocksDB that cannot open a file stops the store. So every descriptor has
an owner: the database its share, the peers theirs (nobody can take it), the rest is divided among those
who knock. A door that has none left closes its longest idle connection, or lets new ones wait; it never
finds out from the system.
"""

from __future__ import annotations

from typing import NamedTuple

from allsource.storage.files.descriptors import database_files
from allsource.storage.model.errors import AllsourceError

DESCRIPTORS_WANTED = 1 << 20
"""What is asked of the system at the start, if it allows that much: no connection should be refused for
want of a number."""

RESERVED = 96
"""Log, event loop, pipes, listening sockets, the database's own logs and what a compaction has open
besides, and connections that are accepted in the same turn in which others make room for them."""

PER_PEER = 12
"""Two connections in each direction, each of which may exist twice for a moment, and attempts to
connect."""

HTTP_MAX = 8_192
CLIENTS_MAX = 8_192
STRANGERS_MAX = 256
"""More connections at one time are a fault of somebody's, or an attack."""

_EACH_MIN = 16


class TooFewDescriptors(AllsourceError):
    """The process may open too few files to serve."""

    code = "too_few_descriptors"


class Caps(NamedTuple):
    """The most connections at one time."""

    http: int
    clients: int
    """Native clients, who have proved who they are."""
    strangers: int
    """Connections to the peer port that have not proved yet who they are, in addition to `clients`."""


def caps_for(descriptors: int, nodes: int) -> Caps:
    """The caps of a node that may open so many files, in a cluster of so many nodes. Raises
    `TooFewDescriptors`."""
    left = descriptors - database_files(descriptors) - RESERVED - PER_PEER * nodes
    strangers = min(STRANGERS_MAX, left // 4)
    http = min(HTTP_MAX, (left - strangers) // 2)
    clients = min(CLIENTS_MAX, left - strangers - http)
    if min(strangers, http, clients) < _EACH_MIN:
        raise TooFewDescriptors(
            f"this process may open {descriptors} files, which is too few for {nodes} nodes; raise the "
            "limit (ulimit -n, LimitNOFILE= of systemd), best to 65536 or more"
        )
    return Caps(http, clients, strangers)


def wanted(soft: int, hard: int, unlimited: int) -> int:
    """The soft limit to ask for; `unlimited` is the system's word for no limit."""
    most = DESCRIPTORS_WANTED if hard == unlimited else min(hard, DESCRIPTORS_WANTED)
    return soft if soft == unlimited else max(soft, most)
