"""To whom a node gives what it leads: while it stays, to the owners that placement names; if it leaves, to
whoever has most of the log.

Each node sees the cluster with its own eyes, and placement is a function of what is seen. With one node
dead and one link cut, two leaders may each hold the other for the owner, and being polite would hand a
partition to and fro for ever, a no-op in the log each time. So leadership moves only by consent
(rule 36): the leader must see that the other is the owner, *and* the other must say so in its beats
(`GroupBeat.wants`). Then no two nodes with settled views can pass a partition around: who is given it
wants it, and who wants it does not give it away.

A node wants a partition only if it exchanges beats with a majority of the voters, both ways: a peer's beat
names whom that peer hears. And its data connections to them must carry (`lanes`). Who could not keep the
leadership does not ask for it.

Views change, though, with a link that flutters. So a leadership stays where it is for a minimum time, which
doubles whenever it was given away and came back soon (or was refused): a partition that cannot be kept by
its owner moves seldom.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from allsource.cluster.consensus.environment import ConsensusConfig
from allsource.cluster.consensus.group import Group
from allsource.cluster.consensus.leadership import Leadership
from allsource.cluster.consensus.messages import Beat
from allsource.cluster.consensus.progress import REPLICATE
from allsource.cluster.consensus.quorum import has_majority
from allsource.cluster.membership.registry import NodeRegistry, Readiness

STAY_BEATS = 2
"""Beats for which a leadership stays at least, and its new owner must have been up."""
STAY_SUSPICIONS_MAX = 8
"""Suspicion times to which the minimum stay may grow."""
RETURN_SUSPICIONS = 20
"""A leadership that comes back later than so many suspicion times after it was given away did not come back
because of that."""

NEVER_GIVEN = -(1 << 62)


@dataclass(slots=True)
class _Stay:
    """This node's leadership of one partition."""

    least_us: int
    """How long it stays here at least."""
    began_us: int = 0
    given_us: int = NEVER_GIVEN
    """When it was last given away, or that was tried."""


class Balance:
    """Decides for one node to whom it gives what it leads, and what it wants to be given."""

    def __init__(
        self,
        node_id: str,
        groups: Mapping[int, Group],
        registry: NodeRegistry,
        config: ConsensusConfig,
    ) -> None:
        self._node_id = node_id
        self._groups = groups
        self._registry = registry
        self._config = config
        self._up_since: dict[str, int] = {}
        self._heard_by: set[str] = set()
        self._wanted_by: dict[str, set[int]] = {}
        self._stays: dict[int, _Stay] = {}

    # -- what happened

    def peer_up(self, peer: str, now: int) -> None:
        """The detector holds it for alive again."""
        self._up_since[peer] = now

    def peer_down(self, peer: str) -> None:
        """The detector holds it for dead: what it said is of the past."""
        self._up_since.pop(peer, None)
        self._heard_by.discard(peer)
        self._wanted_by.pop(peer, None)

    def beat(self, peer: str, beat: Beat) -> None:
        """A peer's beat tells whom it hears and what it wants."""
        if self._node_id in beat.hears:
            self._heard_by.add(peer)
        else:
            self._heard_by.discard(peer)
        self._wanted_by[peer] = {line.partition for line in beat.groups if line.wants}

    def leads(self, partition: int, now: int) -> None:
        """This node has begun to lead the partition."""
        self._begin(self._stay(partition), now)

    # -- what it decides

    def wants(self, group: Group, now: int) -> bool:
        """Whether this node would lead the group, and could."""
        if group.leadership is not None or self._registry.owner_of(group.partition) != self._node_id:
            return False
        configuration = group.log.configuration
        reached = [p for p in self._heard_by & self._up_since.keys() if self._registry.is_reached(p)]
        return (
            self._node_id in configuration.voters
            and has_majority(configuration, {self._node_id, *reached})
            and not group.lets_others_lead(now)
        )

    def successor(self, group: Group, now: int) -> str | None:
        """To whom the group's leadership should be given now; None if it stays here."""
        leadership = group.leadership
        if leadership is None or leadership.successor is not None:
            return None
        if self._registry.readiness(self._node_id) is Readiness.LEAVES:
            return self.heir(leadership, group.partition)
        owner = self._registry.owner_of(group.partition)
        if owner is None or owner == self._node_id:
            return None
        if group.partition not in self._wanted_by.get(owner, ()):
            return None
        progress = leadership.progress.get(owner)
        if progress is None or not group.committed_in_term or progress.match < group.commit:
            return None
        if progress.state != REPLICATE:
            # It has acknowledged nothing since it is back. Beats pass, and the lane of votes and entries
            # may still wait out TCP's back-off: a transfer would stop writes until it is given up.
            return None
        if now - self._up_since.get(owner, now) < STAY_BEATS * self._config.heartbeat_us:
            return None
        stay = self._stay(group.partition)
        if stay.given_us > stay.began_us:  # it was given away in this term of office, and not taken
            self._begin(stay, now)
        return owner if now - stay.began_us >= stay.least_us else None

    def given(self, partition: int, now: int) -> None:
        """This node begins to hand the leadership over."""
        self._stay(partition).given_us = now

    def heir(self, leadership: Leadership, partition: int) -> str | None:
        """Who takes over if this node must not go on: of those who lack least of the log, one who wants to,
        or else the first in succession. None if nobody can."""
        succession = self._registry.succession(partition)
        wanting = [node for node in succession if partition in self._wanted_by.get(node, ())]
        return leadership.best_successor((*wanting, *(node for node in succession if node not in wanting)))

    def _stay(self, partition: int) -> _Stay:
        return self._stays.setdefault(partition, _Stay(STAY_BEATS * self._config.heartbeat_us))

    def _begin(self, stay: _Stay, now: int) -> None:
        suspicion_us = self._config.suspicion_us
        if now - stay.given_us < RETURN_SUSPICIONS * suspicion_us:
            stay.least_us = min(2 * stay.least_us, STAY_SUSPICIONS_MAX * suspicion_us)
        else:
            stay.least_us = STAY_BEATS * self._config.heartbeat_us
        stay.began_us = now
