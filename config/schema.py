"""Every knob of a cluster: meaning, unit, default, and when to change it.

A cluster is one YAML file that all its nodes share. `config.load` turns it into the frozen values
below; nothing in the product reads YAML or the environment for settings anywhere else. The lower
rooms (storage, cluster) import this module and no other of this room.

A field's type carries its kind (`values.Size`, `values.Duration`, ...), from which the loader, its
fault messages, `describe` and the table in README.md are derived. The field's name is its key in
the YAML; of a duration the key goes without the `_ms`, since the value says its unit: `heartbeat_interval:
100ms`.

The classes check nothing themselves, so that a test can build what it needs. `load_settings` checks
each value by its kind, and then `contradictions`, the rules between several of them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated
from uuid import UUID, uuid5

from allsource.config.backends import BACKENDS, Traits
from allsource.config.values import (
    GIB,
    KIB,
    MIB,
    TIB,
    Choice,
    Count,
    Directory,
    Dsn,
    Duration,
    Host,
    HostNames,
    Name,
    Secret,
    Size,
    Uuid,
)

NODES_MAX = 15
"""Heartbeats and connections grow with the square of the nodes; 15 is what the tests go up to."""

_CLUSTER_IDS = UUID("5f0c9d1e-7a44-4c3b-9a1f-2f8f5d1c6a07")
"""Namespace (RFC 9562 §5.5) of the cluster ids that are derived from a name. Never changes."""


@dataclass(frozen=True)
class NodeSettings:
    """One process of the cluster, and where the others reach it."""

    id: Annotated[str, Name()]
    """Names the node in logs, in `status` and on the command line. Unique; it stays when the address
    changes, and it is not given to another machine's data."""

    host: Annotated[str, Host()]
    """Address that the node listens on and that its peers and clients connect to. A wildcard
    (0.0.0.0) is an address to listen on but not one to connect to: only a cluster of one may use it."""

    port: Annotated[int, Count(1, 65535)]
    """TCP port of the peer protocol, for the other nodes and for native clients."""

    http_port: Annotated[int, Count(1, 65535)]
    """TCP port of the HTTP API, the probes and the metrics."""

    data_dir: Annotated[Path, Directory()]
    """Where the node keeps its events, for itself alone. Default: `data/<cluster_name>/<id>`. In the file
    a relative path starts from the folder that the file is in; here it is absolute."""


@dataclass(frozen=True)
class Limits:
    """How large things may be. They protect the nodes' memory and everyone else's latency."""

    event_bytes_max: Annotated[int, Size(1 * KIB, 256 * MIB)] = 1 * MIB
    """Data and metadata of one event, in bytes. An event is copied to every replica before it is
    acknowledged: keep documents elsewhere and their addresses in events, rather than raise this."""

    append_bytes_max: Annotated[int, Size(2 * KIB, 512 * MIB)] = 8 * MIB
    """All events of one append together, in bytes. More than one event's limit. An append is
    replicated whole, and those behind it in its partition wait for it."""

    append_events_max: Annotated[int, Count(1, 100_000)] = 10_000
    """Events in one append."""

    frame_bytes_max: Annotated[int, Size(64 * KIB, 1 * GIB)] = 16 * MIB
    """One frame of the peer protocol, in bytes; a larger one closes its connection. It must hold the
    largest entry and the largest page: at least `append_bytes_max + 256 x append_events_max + 1MiB` and
    `read_bytes_max + 256 x read_events_max + 1MiB`. Raise it together with them. The same on every node."""

    queue_capacity: Annotated[int, Count(1, 16_777_216)] = 65_536
    """Appends that wait for their turn in one node; beyond it they are refused (`QueueFull`, 503).
    Lower it to refuse sooner, raise it for larger bursts and longer waits. An append is refused as well
    when those before it need more than half of the time that it has."""

    uncommitted_bytes_max: Annotated[int, Size(64 * KIB, 4 * GIB)] = 32 * MIB
    """Events of one partition that a majority has not confirmed yet, in bytes; beyond it appends are
    refused (`Overloaded`). A node's memory must hold it for each partition that it owns. At least
    `append_bytes_max`."""

    request_timeout_ms: Annotated[int, Duration(100, 600_000)] = 5_000
    """How long a request may take if its caller says nothing. More than `suspicion_timeout`, so that
    a request outlives the loss of an owner."""

    read_events_max: Annotated[int, Count(1, 100_000)] = 10_000
    """Events in one page of a read, whatever limit the caller names."""

    read_bytes_max: Annotated[int, Size(64 * KIB, 512 * MIB)] = 4 * MIB
    """About how many bytes of events one page holds; a single larger append is still a page."""

    disk_free_bytes_min: Annotated[int, Size(0, TIB)] = 256 * MIB
    """Below this much free space, in bytes, a node gives its leaderships to nodes with room, where there
    are any; else it refuses appends (`DiskFull`). It goes on storing what others lead, and reading.
    Compaction needs room: on a large store leave some per cent of its size."""

    held_bytes_max: Annotated[int, Size(32 * MIB, 64 * GIB)] = 256 * MIB
    """What a node holds in memory for its callers, in bytes: requests under way (beyond it new ones are
    refused, `Overloaded`) and, counted apart, what native clients do not read or do not complete (beyond it
    the connection that has most is closed); and once more of HTTP bodies that arrive and answers that are
    not read (beyond it requests are refused, 503). At least twice `frame_bytes_max`."""

    checkpoints_max: Annotated[int, Count(1, 1000)] = 16
    """Checkpoints that a node keeps. Each holds on to files that the store would have deleted."""


@dataclass(frozen=True)
class HttpSettings:
    """Who is served at the HTTP port."""

    allowed_hosts: Annotated[tuple[str, ...], HostNames()] = ()
    """Further names under which the nodes are asked (`Host`), besides those of `nodes`, `localhost` and
    the machine's own; addresses in numbers are always served. A name that is not known is refused, so
    that a web page cannot reach a node by pointing its own name at it."""


@dataclass(frozen=True)
class StorageSettings:
    """Where each node keeps its share of the log."""

    backend: Annotated[str, Choice(tuple(BACKENDS))] = "rocksdb"
    """`rocksdb`: in `data_dir`, nothing else to install. `memory`: for tests and demonstrations; **what a
    node holds is gone when its process ends, and a restarted node cannot take part again**, for it has
    forgotten its votes too. Three nodes survive one ended process in the cluster's whole life, five (with a
    `replication_factor` of 5) two, one node none; `durability` means nothing there. `postgres`: in the
    server that `dsn` names, each node in a schema of its own, to query the events with SQL;
    `pip install 'allsource[postgres]'`."""

    write_buffer_bytes: Annotated[int, Size(1 * MIB, 4 * GIB)] = 64 * MIB
    """rocksdb: one write buffer, in bytes. Larger ones write fewer, larger files and take longer to
    replay after a crash."""

    block_cache_bytes: Annotated[int, Size(1 * MIB, 64 * GIB)] = 128 * MIB
    """rocksdb: cache of blocks read from files, in bytes. Raise it when reads of old streams go to
    the disk and memory is free."""

    background_jobs: Annotated[int, Count(1, 64)] = 2
    """rocksdb: threads that flush and compact. About the number of cores that may be spared."""

    dsn: Annotated[str, Dsn(8, 2048)] = field(default="", repr=False)
    """postgres: connection string, `postgresql://user:password@host/database`. Node `n1` keeps its log in
    the schema `allsource_n1`; with `?schema=NAME` at the end, in `NAME_n1`: name one for a second cluster
    in the same database. Connect to the server itself, not through a pooler. Never printed. Nodes that
    share one server have copies that fail together (see `promise`)."""

    @property
    def traits(self) -> Traits:
        """What the backend can do."""
        return BACKENDS[self.backend]


@dataclass(frozen=True)
class LogSettings:
    """What a node says on its standard error."""

    format: Annotated[str, Choice(("console", "json"))] = "console"
    """`console` for people, `json` (one object a line) for programs that collect logs."""

    level: Annotated[str, Choice(("debug", "info", "warning", "error"))] = "info"
    """The least serious line that is written. `info` tells every change of state, no single request."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """A whole cluster, the same in each of its processes."""

    cluster_name: Annotated[str, Name()]
    """What people call it: in logs, metrics and the default data directories."""

    cluster_id: Annotated[str, Uuid()]
    """What the nodes know it by: a node with another id is refused. Default: derived from the name,
    so that two clusters need two names. Stored in the data directories: it cannot change later."""

    secret: Annotated[str, Secret(8, 1024)] = field(repr=False)
    """The nodes' key: they prove to each other that they know it, and whoever knows it can be a node.
    Not for clients. It encrypts nothing. Better in a file or the environment: `{file: PATH}`, `{env:
    NAME}`. The examples' secrets (`change-me...`) are refused where a node listens on an address that
    others can reach."""

    client_secret: Annotated[str, Secret(8, 1024)] = field(repr=False)
    """The clients' key: native clients and nodes prove to each other that they know it. It makes nobody a
    node, so it is the one to hand out. Default: derived from `secret`, one way; `allsource config
    client-secret FILE` prints it. Another one than `secret`."""

    partitions: Annotated[int, Count(1, 1024)] = 32
    """Into how many logs the streams are hashed. More spread more evenly over more nodes, and each
    costs a little. Every stored event depends on it: it cannot change later."""

    replication_factor: Annotated[int, Count(1, NODES_MAX)]
    """On how many nodes each partition is. Odd: 1 survives no loss, 3 survive one, 5 two. Default: 3
    with three nodes or more, else as many as there are nodes (see `default_replication_factor`)."""

    heartbeat_interval_ms: Annotated[int, Duration(10, 10_000)] = 100
    """How often a node tells each other that it is alive. Raise it on slow or metered links."""

    suspicion_timeout_ms: Annotated[int, Duration(50, 60_000)] = 500
    """How long a node may be silent before its partitions get other owners. At least twice the
    heartbeat interval; a killed process is noticed at once by its closed connections. Raise it where
    machines pause: a false suspicion costs a moment without writes, never an event."""

    durability: Annotated[str, Choice(("fsync", "os"))] = "fsync"
    """When a replica's copy counts. `fsync`: when it is on the disk. `os`: when the operating system
    has it, which is faster and survives a killed process, but **a power cut may lose acknowledged
    events**."""

    limits: Limits = Limits()
    storage: StorageSettings = StorageSettings()
    http: HttpSettings = HttpSettings()
    log: LogSettings = LogSettings()
    nodes: tuple[NodeSettings, ...]
    """1 to 15 nodes. The order matters: partitions are dealt in it."""

    def node(self, node_id: str) -> NodeSettings:
        """The node with this id; raises `LookupError` with a sentence that lists those that exist."""
        for node in self.nodes:
            if node.id == node_id:
                return node
        known = ", ".join(node.id for node in self.nodes)
        raise LookupError(f"no node {node_id!r} in cluster {self.cluster_name!r}: there are {known}")


def default_cluster_id(cluster_name: str) -> str:
    """The id of a cluster whose file gives none: always the same for the same name."""
    return str(uuid5(_CLUSTER_IDS, cluster_name))


def default_replication_factor(nodes: int) -> int:
    """3, or as many as there are nodes if they are fewer.

    Two nodes are the one case of an even factor. With a factor of 1 each half of the events would be
    gone with its node; with 2 every acknowledged event is on both, at the price that neither can
    accept writes alone (DESIGN, contract line 9). From three nodes on an even factor only costs: it
    needs as many confirmations as the next odd one and survives no more losses.
    """
    return min(3, nodes)
