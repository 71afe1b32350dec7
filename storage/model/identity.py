"""`Identity`: who a data directory is. Peers remember it, so that an emptied or copied one is found out."""

from __future__ import annotations

from typing import NamedTuple


class Identity(NamedTuple):
    """Who a data directory is (RULES.md rule 9)."""

    cluster_id: str
    node_id: str
    replica_id: str
    """UUID (hex) made when the directory was; a wiped directory is another replica."""
    incarnation: int
    """Raised and synced at every start."""
