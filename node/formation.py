"""The first start of a cluster, and why a node that has forgotten may never vote.

A Raft vote or acknowledgement is a promise for ever. A replica that loses its disk and comes back
empty under the same name would break its promises without knowing of them, and with them an
acknowledged event could be lost (CONSENSUS.md rule 9). From its own empty directory it cannot tell
"I am new" from "I have forgotten"; only the others can. So:

* Every node keeps the replica id (made with the data directory) of every peer that it has shaken
  hands with, durably, before it counts that handshake. A handshake with another id under a known name
  is refused, in both directions (`identity_changed`).
* A node is *formed*, durably and for good, once it has shaken hands with every other member. Before
  that it takes no part in consensus at all.

Why that is enough: whatever a node promised, it promised to a leader or candidate that was formed,
so in any majority that ever acted, every member remembers every other. If a minority of it is wiped,
at least one that remembers is left; it refuses the newcomers; so they never form.

The price is that all members must be up, once, at the very first start of a cluster.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Protocol

from allsource.storage.errors import StorageFault

_FORMED = "formed"
_PEER = "peer/"


class Meta(Protocol):
    """The part of `Storage` that formation keeps its facts in."""

    def get_meta(self, key: str) -> bytes | None: ...

    def put_meta(self, values: Mapping[str, bytes]) -> None: ...


class Formation:
    """See the module's page. `members` in the order of the YAML: placement follows it."""

    def __init__(
        self, meta: Meta, node_id: str, members: Sequence[str], partitions: int, replication_factor: int
    ) -> None:
        """Raises `StorageFault` if the data directory was formed as part of another membership."""
        self._meta = meta
        self._peers = tuple(member for member in members if member != node_id)
        self._shape = {
            "members": list(members),
            "partitions": partitions,
            "replication_factor": replication_factor,
        }
        self._known: dict[str, str] = {}
        for peer in self._peers:
            found = meta.get_meta(_PEER + peer)
            if found is not None:
                self._known[peer] = found.decode()
        stored = meta.get_meta(_FORMED)
        if stored is not None:
            _check_shape(json.loads(stored), self._shape)
        self.is_formed = stored is not None
        if not self.is_formed and not self._missing():
            self._form()

    def remembered(self, peer: str) -> str | None:
        """The replica id that a peer has to have; None if it was never met."""
        return self._known.get(peer)

    def met(self, peer: str, replica_id: str) -> bool:
        """A handshake with a peer finished. Remembers it durably; True if that formed the cluster."""
        if peer not in self._peers or peer in self._known:
            return False
        self._meta.put_meta({_PEER + peer: replica_id.encode()})
        self._known[peer] = replica_id
        if self.is_formed or self._missing():
            return False
        self._form()
        return True

    def missing(self) -> list[str]:
        """The members that have to be met before this node takes part; empty once formed."""
        return [] if self.is_formed else self._missing()

    def _missing(self) -> list[str]:
        return [peer for peer in self._peers if peer not in self._known]

    def _form(self) -> None:
        self._meta.put_meta({_FORMED: json.dumps(self._shape).encode()})
        self.is_formed = True


def _check_shape(stored: Mapping[str, object], configured: Mapping[str, object]) -> None:
    for key, value in configured.items():
        if stored.get(key) != value:
            raise StorageFault(
                f"this node's data was formed with {key} = {stored.get(key)}, but the configuration says "
                f"{value}; a formed cluster keeps its members, their order, its partitions and its "
                "replication factor: put the file back, or start a new cluster with new data directories",
                key=key,
            )
