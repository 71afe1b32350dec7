"""Connections that have proved nothing yet: few, and the oldest of whoever has most of them goes first.

Anybody can open sockets and say nothing. If such sockets kept their places, they would soon have all of
them, and neither a client nor a peer that comes back would get in. So a newcomer always gets a place, and
when there are too many, the one that has had the most time goes: an honest handshake takes a few round
trips. To be fair between addresses, it is the oldest of the address that has most; a flood from one machine
puts out its own.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Hashable
from typing import Generic, TypeVar

STRANGERS_MAX = 256

T = TypeVar("T", bound=Hashable)


class Strangers(Generic[T]):
    """At most `most` of them; in the order in which they came."""

    def __init__(self, most: int = STRANGERS_MAX) -> None:
        self._most = most
        self._by_origin: dict[str, dict[T, None]] = {}
        self._origin_of: dict[T, str] = {}

    def __len__(self) -> int:
        return len(self._origin_of)

    def add(self, stranger: T, origin: str) -> T | None:
        """One has come. Which one has to go for it, if any; it is removed already."""
        self._origin_of[stranger] = origin
        self._by_origin.setdefault(origin, {})[stranger] = None
        if len(self) <= self._most:
            return None
        crowd = max(self._by_origin.values(), key=len)
        oldest = next(iter(crowd))
        self.remove(oldest)
        return oldest

    def remove(self, stranger: T) -> None:
        """It has shown who it is, or is gone. Nothing happens if it is not here."""
        origin = self._origin_of.pop(stranger, None)
        if origin is not None:
            crowd = self._by_origin[origin]
            del crowd[stranger]
            if not crowd:
                del self._by_origin[origin]


def origin_of(peername: object) -> str:
    """What counts as one place to come from: an IPv4 address, or an IPv6 network of 64 bits, because one
    machine may have all the addresses of such a network."""
    match peername:
        case (str(host), *_):
            try:
                address = ipaddress.ip_address(host.partition("%")[0])
            except ValueError:
                return host
            if isinstance(address, ipaddress.IPv6Address):
                return str(address.ipv4_mapped or int(address) >> 64)
            return host
    return ""
