"""Free loopback ports for clusters that live for the length of a drill, a benchmark or a test."""

from __future__ import annotations

import random
import socket
from pathlib import Path

LOOPBACK = "127.0.0.1"
_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
_LOWEST = 10_000


def free_ports(count: int) -> list[int]:
    """`count` different ports on which nobody listens now, outside the ports that `connect` uses.

    Not `bind(0)`: such a port is one that the kernel also gives to outgoing connections. While a node
    is down, its peers dial its port again and again; one of those attempts may be given that very
    port as its own end, connect to itself, and keep the node from coming back.
    """
    highest = _first_ephemeral_port() - 1
    found: set[int] = set()
    while len(found) < count:
        port = random.SystemRandom().randint(_LOWEST, highest)
        if port not in found and _is_free(port):
            found.add(port)
    return list(found)


def _first_ephemeral_port() -> int:
    try:
        first = int(_RANGE.read_text().split()[0])
    except OSError:  # not Linux; IANA's range is what others use
        first = 49_152
    return first if first > _LOWEST + 2_000 else 65_536


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True
