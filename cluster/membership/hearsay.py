"""Whom the peers say they follow: how a leader is found that this node cannot reach itself.

Links fail one by one. With the link of a and c cut and b reaching both, c goes on leading, rightly, and
a hears of it only through b, whose beats name the leader that b follows. So a may ask b to pass a request
on (`router`, `PassOn`).

What was said of a node before this node lost it says nothing: all may have lost it in the same moment,
and the beats before it still name it. So it is forgotten with the loss, and the next beat counts. The
same for a peer whose word turned out to be old.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple


class Followed(NamedTuple):
    """A peer says that it follows a leader in this term."""

    term: int
    peer: str
    leader: str


class Hearsay:
    """See the module's page."""

    def __init__(self) -> None:
        self._said: dict[str, dict[int, Followed]] = {}
        """By peer and partition."""

    def heard(self, peer: str, partition: int, leader: str, term: int) -> None:
        """A peer's beat: it follows `leader` in this term, or nobody ("")."""
        said = self._said.setdefault(peer, {})
        if leader and leader != peer:
            said[partition] = Followed(term, peer, leader)
        else:
            said.pop(partition, None)

    def forget(self, node_id: str) -> None:
        """This node lost sight of another: what it said, and what others said of it."""
        self._said.pop(node_id, None)
        for said in self._said.values():
            for partition in [p for p, one in said.items() if one.leader == node_id]:
                del said[partition]

    def doubt(self, peer: str, partition: int) -> None:
        """The peer could not pass on what it was asked to; until its next beat it is not asked again."""
        self._said.get(peer, {}).pop(partition, None)

    def of(self, partition: int) -> Iterator[Followed]:
        """What the peers say of a partition."""
        for said in self._said.values():
            if partition in said:
                yield said[partition]
