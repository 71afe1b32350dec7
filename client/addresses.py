"""Addresses as people write them."""

from __future__ import annotations

from allsource.client.cluster_map import Address
from allsource.storage.errors import InvalidRequest


def read_address(text: str) -> Address:
    """`host:port` (an IPv6 host in brackets); raises `InvalidRequest`."""
    host, found, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if found and host and port.isascii() and port.isdigit() and 0 < int(port[:6]) < 65_536:
        return host, int(port)
    raise InvalidRequest(f"an address is host:port, like 127.0.0.1:7101, not {text!r}")
