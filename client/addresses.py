"""Addresses as people write them."""

from __future__ import annotations

import re

from allsource.client.cluster_map import Address
from allsource.storage.model.arguments import shown
from allsource.storage.model.errors import InvalidRequest

_ADDRESS = re.compile(r"(?:\[([0-9A-Fa-f:.]+(?:%[\w.-]+)?)\]|([\w.-]+)):([0-9]{1,5})")
"""An IPv6 address in brackets, or a name or IPv4 address; then the port."""


def read_address(text: str) -> Address:
    """`host:port` (an IPv6 host in brackets); raises `InvalidRequest`."""
    match = _ADDRESS.fullmatch(text) if isinstance(text, str) else None
    if match and 0 < int(match[3]) < 65_536:
        return match[1] or match[2], int(match[3])
    raise InvalidRequest(
        "an address is host:port, with a node's peer port, like 127.0.0.1:7101 or [::1]:7101,"
        f" not {shown(text)}"
    )
