"""What must hold between several settings, each of which is fine by itself.

A rule names the keys that it compares. The loader leaves a rule out if one of its keys is faulty already,
so that one mistake is told once.
"""

from __future__ import annotations

import os.path
from collections.abc import Iterator
from typing import NamedTuple

from allsource.config.knobs import knobs_of
from allsource.config.schema import NODES_MAX, Limits, NodeSettings, Settings
from allsource.config.values import EXAMPLE_SECRET, Secret, is_loopback, written_duration, written_size

_WILDCARDS = frozenset(("0.0.0.0", "::"))

EVENT_OVERHEAD_BYTES = 256
"""What one event may add to a frame beside its data: its stream's name (128 bytes at most), numbers,
and msgpack's own bytes."""
ENTRY_ROOM_BYTES = 1 << 20
"""What else a frame needs: the marks of an append, or the small appends that share an entry. An entry that
fits into no frame would reach no follower, and nothing behind it in its partition."""


class Contradiction(NamedTuple):
    """Settings that cannot hold together; `keys[0]` is the one to change first."""

    keys: tuple[str, ...]
    message: str


def contradictions(settings: Settings) -> Iterator[Contradiction]:
    """Every rule that the settings break."""
    yield from _two_keys(settings)
    yield from _times(settings)
    yield from _sizes(settings.limits)
    yield from _storage(settings)
    yield from _secrets(settings)
    yield from _replication(settings)
    yield from _nodes(settings.nodes)


def _two_keys(settings: Settings) -> Iterator[Contradiction]:
    if settings.client_secret == settings.secret:
        yield Contradiction(
            ("client_secret", "secret"),
            "is the same as `secret`, so every client could be a node; allowed: another one, or none (then "
            "one is derived)",
        )


def _times(settings: Settings) -> Iterator[Contradiction]:
    heartbeat, suspicion = settings.heartbeat_interval_ms, settings.suspicion_timeout_ms
    if suspicion < 2 * heartbeat:
        yield Contradiction(
            ("suspicion_timeout", "heartbeat_interval"),
            f"found {written_duration(suspicion)}; allowed: at least twice the heartbeat_interval, so "
            f"{written_duration(2 * heartbeat)}, or one late heartbeat makes a healthy node suspect",
        )
    timeout = settings.limits.request_timeout_ms
    if timeout <= suspicion:
        yield Contradiction(
            ("limits.request_timeout", "suspicion_timeout"),
            f"found {written_duration(timeout)}; allowed: more than the suspicion_timeout "
            f"({written_duration(suspicion)}), or no request outlives the loss of an owner",
        )


def _sizes(limits: Limits) -> Iterator[Contradiction]:
    if limits.append_bytes_max <= limits.event_bytes_max:
        yield Contradiction(
            ("limits.append_bytes_max", "limits.event_bytes_max"),
            f"found {written_size(limits.append_bytes_max)}; allowed: more than the event_bytes_max "
            f"({written_size(limits.event_bytes_max)})",
        )
    if limits.uncommitted_bytes_max < limits.append_bytes_max:
        yield Contradiction(
            ("limits.uncommitted_bytes_max", "limits.append_bytes_max"),
            f"found {written_size(limits.uncommitted_bytes_max)}; allowed: at least the append_bytes_max "
            f"({written_size(limits.append_bytes_max)}), or the largest append could never be accepted",
        )
    if limits.held_bytes_max < 2 * limits.frame_bytes_max:
        yield Contradiction(
            ("limits.held_bytes_max", "limits.frame_bytes_max"),
            f"found {written_size(limits.held_bytes_max)}; allowed: at least 2 x frame_bytes_max "
            f"({written_size(2 * limits.frame_bytes_max)}), or one frame could be too much",
        )
    for what in ("append", "read"):
        bytes_max, events_max = f"{what}_bytes_max", f"{what}_events_max"
        events = EVENT_OVERHEAD_BYTES * getattr(limits, events_max)
        least = getattr(limits, bytes_max) + events + ENTRY_ROOM_BYTES
        if limits.frame_bytes_max < least:
            yield Contradiction(
                ("limits.frame_bytes_max", f"limits.{bytes_max}", f"limits.{events_max}"),
                f"found {written_size(limits.frame_bytes_max)}; allowed: at least {bytes_max} + "
                f"{EVENT_OVERHEAD_BYTES} x {events_max} + {written_size(ENTRY_ROOM_BYTES)} "
                f"({written_size(least)})",
            )


def _storage(settings: Settings) -> Iterator[Contradiction]:
    keys = ("storage.dsn", "storage.backend")
    backend, in_server = settings.storage.backend, settings.storage.traits.in_server
    if in_server and not settings.storage.dsn:
        yield Contradiction(keys, f"missing; backend {backend} needs to know its server")
    if settings.storage.dsn and not in_server:
        yield Contradiction(keys, f"given, but backend {backend} has no use for it")


def _secrets(settings: Settings) -> Iterator[Contradiction]:
    """The secrets of the examples are no secrets: fine for a try, as long as nobody else can connect."""
    reachable = [node for node in settings.nodes if not is_loopback(node.host)]
    for key, knob in knobs_of(Settings).items():
        is_example = isinstance(knob.kind, Secret) and getattr(settings, knob.field).startswith(
            EXAMPLE_SECRET
        )
        if is_example and reachable:
            yield Contradiction(
                (key, "nodes"),
                f"found an example's ({EXAMPLE_SECRET}...), which everybody knows, while {reachable[0].id}"
                f" can be reached from other machines ({reachable[0].host}); allowed: one of your own."
                " `allsource config secret > FILE; chmod 600 FILE` makes one,"
                f" and `{key}: {{file: FILE}}` uses it",
            )


def _replication(settings: Settings) -> Iterator[Contradiction]:
    factor, nodes = settings.replication_factor, len(settings.nodes)
    keys = ("replication_factor", "nodes")
    if not nodes:
        return
    if factor > nodes:
        yield Contradiction(keys, f"found {factor}; allowed: at most the number of nodes ({nodes})")
    elif factor % 2 == 0 and nodes != 2:
        yield Contradiction(
            keys,
            f"found {factor}; allowed: an odd number. {factor} replicas survive no more losses than "
            f"{factor - 1}, and wait for more confirmations (two nodes may have 2, so that both hold all)",
        )


def _nodes(nodes: tuple[NodeSettings, ...]) -> Iterator[Contradiction]:
    if not 1 <= len(nodes) <= NODES_MAX:
        yield Contradiction(("nodes",), f"found {len(nodes)} nodes; allowed: 1 to {NODES_MAX}")
        return
    for i, node in enumerate(nodes):
        if node.host in _WILDCARDS and len(nodes) > 1:
            yield Contradiction(
                (f"nodes[{i}].host",),
                f"found {node.host!r}; allowed: an address that the other nodes can connect to",
            )
    yield from _twice([((f"nodes[{i}].id",), node.id) for i, node in enumerate(nodes)])
    yield from _twice(
        [
            ((f"nodes[{i}].{name}", f"nodes[{i}].host"), f"{_machine(node.host)}:{port}")
            for i, node in enumerate(nodes)
            for name, port in (("port", node.port), ("http_port", node.http_port))
        ]
    )
    yield from _shared_directories(nodes)


def _twice(values: list[tuple[tuple[str, ...], str]]) -> Iterator[Contradiction]:
    """A contradiction for each value that an earlier key has already."""
    first: dict[str, tuple[str, ...]] = {}
    for keys, value in values:
        if value in first:
            earlier = first[value]
            yield Contradiction((*keys, *earlier), f"found {value!r}, which {earlier[0]} has already")
        first.setdefault(value, keys)


def _shared_directories(nodes: tuple[NodeSettings, ...]) -> Iterator[Contradiction]:
    """Data directories that are an earlier node's of the same machine, or within one, or around one."""
    for j, node in enumerate(nodes):
        i = next((i for i in range(j) if _share_a_directory(nodes[i], node)), None)
        if i is not None:
            yield Contradiction(
                tuple(f"nodes[{k}].{name}" for name in ("data_dir", "host") for k in (j, i)),
                f"found {str(node.data_dir)!r}; allowed: a directory apart from nodes[{i}].data_dir "
                f"({str(nodes[i].data_dir)!r})",
            )


def _share_a_directory(one: NodeSettings, other: NodeSettings) -> bool:
    if one.id == other.id:  # told as two equal ids, which have the same default directory
        return False
    return _machine(one.host) == _machine(other.host) and _overlap(
        os.path.normpath(one.data_dir), os.path.normpath(other.data_dir)
    )


def _overlap(path: str, other: str) -> bool:
    """Whether one path is the other or lies within it. The loader has made both absolute."""
    return os.path.commonpath([path, other]) in (path, other)


def _machine(host: str) -> str:
    return "127.0.0.1" if host.lower() == "localhost" else host.lower()
