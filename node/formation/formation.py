"""What a node must never forget of itself and of the others, and who may take part because of it.

A Raft vote or acknowledgement is a promise for ever. A replica that forgets its promises and votes again
can lose acknowledged events (RULES.md rules 9 and 33). It forgets when its directory is *empty*, and
when its directory is an *older copy* of the one that it had. From its own directory it can tell neither:
only the others can. So, durably:

* Every start of a node writes down a random nonce for its number (the incarnation), before it says
  anything.
* Of every peer a node keeps its replica id (made with the data directory) and the newest start that it has
  met, before anything of that peer is acted on. A handshake with another replica id under a known name is
  refused (`identity_changed`); so is one whose directory does not know the start that is remembered
  (`regressed`, `cluster.protocol.acquaintance`); both in both directions.
* A node is *formed*, once and for good, when it has shaken hands with every other member. Before that it
  takes no part in consensus at all.
* A node whom a peer calls an older copy writes the *doubt* down and ends. From then on it takes no part
  until that very peer has accepted it.

Why forming is enough against the empty directory: whatever a node promised, it promised to a leader or
candidate that was formed, so in any majority that ever acted, every member remembers every other. If a
minority of it is wiped, at least one that remembers is left; it refuses the newcomers; so they never form.
The price is that all members must be up, once, at the very first start of a cluster.

What is not noticed of an older copy, and therefore must not be done:

* A copy that was taken and put back within one start of the node looks like that start. Only a leader that
  has lived all the while remembers what was acknowledged to it (and refuses). With `durability: os` nobody
  looks, for there a power cut may shorten a log with the operator's consent.
* A peer that was down or cut off during *all* starts that the copy lacks has never met them, and accepts
  it. If those who did meet them are all away, nobody is left to refuse.

So a directory is restored only if nothing newer of that node exists or ever ran, which is to say: never.
Put back the newest directory that the node had, or leave it stopped.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Protocol

from allsource.cluster.protocol.acquaintance import START_NONCE_BYTES, Start
from allsource.storage.model.errors import StorageFault

_FORMED = "formed"
_PEER = "peer/"
_START = "start/"
_DOUBT = "doubt/"


class Meta(Protocol):
    """The part of `Storage` that formation keeps its facts in."""

    def get_meta(self, key: str) -> bytes | None: ...

    def put_meta(self, values: Mapping[str, bytes]) -> None: ...


class Standing(Enum):
    """Whether a node may take part, by what it durably knows."""

    FORMING = "it has not met every member yet"
    DOUBTED = "a peer has taken its data directory for an older copy"
    ADMITTED = "it may take part"


class Formation:
    """See the module's page. `members` in the order of the YAML: placement follows it.

    Whatever writes here raises what the storage raises, and has then changed nothing that is answered here:
    the caller must end the process, as after any failed sync (rule 16).
    """

    def __init__(
        self,
        meta: Meta,
        node_id: str,
        members: Sequence[str],
        partitions: int,
        replication_factor: int,
        *,
        incarnation: int,
    ) -> None:
        """`incarnation`: the number of this start, which gets its nonce here. Raises `StorageFault` if the
        data directory was formed as part of another membership."""
        self._meta = meta
        self._peers = tuple(member for member in members if member != node_id)
        self._shape = {
            "members": list(members),
            "partitions": partitions,
            "replication_factor": replication_factor,
        }
        stored = meta.get_meta(_FORMED)
        if stored is not None:
            _check_shape(json.loads(stored), self._shape)
        self._known = {
            peer: _unpack_start(found)
            for peer in self._peers
            if (found := meta.get_meta(_PEER + peer)) is not None
        }
        self._doubts = {
            peer: found.decode()
            for peer in self._peers
            if (found := meta.get_meta(_DOUBT + peer))  # empty: it was cleared up
        }
        meta.put_meta({f"{_START}{incarnation}": os.urandom(START_NONCE_BYTES)})
        self._is_formed = stored is not None
        if not self._is_formed and not self._unmet():
            self._form()

    # -- ourselves

    @property
    def standing(self) -> Standing:
        """Whether this node may take part."""
        if self._doubts:
            return Standing.DOUBTED
        return Standing.ADMITTED if self._is_formed else Standing.FORMING

    def nonce_of(self, incarnation: int) -> bytes | None:
        """The nonce of one of our own starts; None if this directory knows no start of that number."""
        return self._meta.get_meta(f"{_START}{incarnation}")

    def missing(self) -> list[str]:
        """The members that have to be met before this node takes part."""
        unmet = [] if self._is_formed else self._unmet()
        return [peer for peer in self._peers if peer in unmet or peer in self._doubts]

    def doubt(self, peer: str, reason: str) -> None:
        """A peer has proved who it is and calls our directory an older copy."""
        if peer in self._peers and peer not in self._doubts:
            self._meta.put_meta({_DOUBT + peer: reason.encode()})
            self._doubts[peer] = reason

    def doubts(self) -> Mapping[str, str]:
        """Peer -> why it took our directory for an older copy, when it last said so."""
        return self._doubts

    # -- the others

    def remembered(self) -> Mapping[str, Start]:
        """The newest start that was met of each peer."""
        return self._known

    def remember(self, peer: str, start: Start) -> None:
        """A peer showed who it is: keep that start, durably, in place of an older one of that replica."""
        if peer not in self._peers or self._known.get(peer) == start:
            return
        self._meta.put_meta({_PEER + peer: _pack_start(start)})
        self._known[peer] = start

    def greeted(self, peer: str) -> bool:
        """Both our own connections to a peer have been accepted. True if this node may take part now, and
        might not before."""
        before = self.standing
        if peer in self._doubts:
            self._meta.put_meta({_DOUBT + peer: b""})
            del self._doubts[peer]
        if not self._is_formed and not self._unmet():
            self._form()
        return self.standing is Standing.ADMITTED and before is not Standing.ADMITTED

    def _unmet(self) -> list[str]:
        return [peer for peer in self._peers if peer not in self._known]

    def _form(self) -> None:
        self._meta.put_meta({_FORMED: json.dumps(self._shape).encode()})
        self._is_formed = True


def _pack_start(start: Start) -> bytes:
    return json.dumps([start.replica_id, start.incarnation, start.nonce.hex()]).encode()


def _unpack_start(stored: bytes) -> Start:
    replica_id, incarnation, nonce = json.loads(stored)
    return Start(replica_id, incarnation, bytes.fromhex(nonce))


def _check_shape(stored: Mapping[str, object], configured: Mapping[str, object]) -> None:
    for key, value in configured.items():
        if stored.get(key) != value:
            raise StorageFault(
                f"this node's data was formed with {key} = {stored.get(key)}, but the configuration says "
                f"{value}; a formed cluster keeps its members, their order, its partitions and its "
                "replication factor: put the file back, or start a new cluster with new data directories",
                key=key,
            )
