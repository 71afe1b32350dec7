"""What others may ask of a core at any time: who leads, and how far logs go. Nothing here changes it."""

from __future__ import annotations

from allsource.cluster.consensus.group import Group
from allsource.cluster.consensus.syncs import LogEnd
from allsource.cluster.membership.registry import NodeRegistry


class Questions:
    """The questions that `MultiRaft` answers. An unknown partition, or one of another node, is no error."""

    groups: dict[int, Group]
    registry: NodeRegistry

    def leader_of(self, partition: int) -> str | None:
        """The leader of a hosted partition as this node knows it, or, of one that it does not host,
        the node whose beats say so."""
        group = self.groups.get(partition)
        return group.leader if group is not None else self.registry.leader_of(partition)

    def is_leader(self, partition: int) -> bool:
        """Whether this node leads the partition, as far as it knows."""
        group = self.groups.get(partition)
        return group is not None and group.leadership is not None

    def term_of(self, partition: int) -> int:
        """The newest term of the partition that this node knows of."""
        group = self.groups.get(partition)
        return group.term if group is not None else self.registry.term_of(partition)

    def is_handing_over(self, partition: int) -> bool:
        """Whether this node leads the partition and is just giving it to another."""
        group = self.groups.get(partition)
        leadership = group.leadership if group is not None else None
        return leadership is not None and leadership.successor is not None

    def entry_term(self, partition: int, index: int) -> int | None:
        """The term of an entry of a hosted partition's log; None past its end. Who waits for an entry
        recognises it by `(term, index)`, never by the index alone (rule 32)."""
        group = self.groups.get(partition)
        return group.log.term_at(index) if group is not None else None

    def next_index(self, partition: int) -> int:
        """The index that the next entry of a partition, which is hosted here, will have."""
        return self.groups[partition].log.last_index + 1

    def acknowledged_by(self, peer: str) -> list[LogEnd]:
        """Up to where a peer's replica has acknowledged entries to this node, for each partition led here.
        Its log can be shorter only in a later term, or if it has forgotten."""
        found = []
        for partition, group in self.groups.items():
            progress = group.leadership.progress.get(peer) if group.leadership is not None else None
            if progress is not None and progress.match:
                found.append(LogEnd(partition, group.term, progress.match))
        return found

    def commit_index(self, partition: int) -> int:
        """0 for a partition that is not hosted here."""
        group = self.groups.get(partition)
        return group.commit if group is not None else 0
