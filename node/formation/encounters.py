"""What becomes of the connections with the peers: who is reached, who is lost, who disagrees.

The peer that is met last makes this node a member; what is told before that is kept for the member.
"""

from __future__ import annotations

from collections.abc import Callable

from structlog.typing import FilteringBoundLogger

from allsource.cluster.protocol.acquaintance import REGRESSED
from allsource.cluster.protocol.frames import ProtocolError
from allsource.cluster.protocol.handshake import Welcome
from allsource.node.formation.acquaintances import Acquaintances
from allsource.node.formation.formation import Formation, Standing
from allsource.node.member.member import Member
from allsource.node.part import Part


class Encounters:
    """See the module's page. It is the `Listener` of `PeerLinks`."""

    def __init__(
        self,
        formation: Formation,
        acquaintances: Acquaintances,
        part: Part,
        make_member: Callable[[], Member],
        log: FilteringBoundLogger,
        *,
        forgets: bool,
    ) -> None:
        """`make_member` is called once, when this node begins to take part. `forgets`: what this node holds
        ends with its process (storage in memory)."""
        self._formation = formation
        self._acquaintances = acquaintances
        self._part = part
        self._make_member = make_member
        self._log = log
        self._forgets = forgets
        self._incarnations: dict[str, int] = {}
        """Of the peers that are connected now."""

    def join(self) -> None:
        """Take part now, if this node may; else say what it waits for."""
        match self._formation.standing:
            case Standing.ADMITTED:
                self._take_part()
            case Standing.DOUBTED:
                doubts = self._formation.doubts()
                self._part.complaints.update({peer: f"{REGRESSED}: {why}" for peer, why in doubts.items()})
                self._log.error(
                    "takes no part until its peers accept it: they found that its data directory is an "
                    "older copy",
                    doubts=dict(doubts),
                )
            case Standing.FORMING:
                self._log.info(
                    "first start of this cluster: meeting the others", missing=self._formation.missing()
                )

    def _take_part(self) -> None:
        member = self._make_member()
        self._part.take(member)
        for peer, incarnation in self._incarnations.items():
            member.connected(peer, incarnation)
        self._log.info("takes part", partitions=len(member.core.groups))

    # -- `Listener`

    def connected(self, peer: str, welcome: Welcome) -> None:
        """Both our connections to a peer have finished their handshakes."""
        assert welcome.start is not None, "peers say which start they are"
        incarnation = self._incarnations[peer] = welcome.start.incarnation
        self._part.complaints.pop(peer, None)
        self._part.view.met(peer, incarnation)
        if self._acquaintances.greeted(peer):
            self._take_part()
            self._log.info("met all members, and is doubted by none")
        else:
            self._part.now.connected(peer, incarnation)

    def lost(self, peer: str) -> None:
        """A connection with a peer broke."""
        self._incarnations.pop(peer, None)
        self._part.now.lost(peer)

    def refused(self, peer: str, error: Exception) -> None:
        """A peer cannot be reached, or will not have us."""
        if isinstance(error, ProtocolError) and error.by_peer:
            self._acquaintances.refused_by(peer, error)
        self._part.now.refused(peer)
        if isinstance(error, ProtocolError) and self._part.complaints.get(peer) != str(error):
            self._part.complaints[peer] = str(error)
            self._tell_complaint(peer, error)

    def _tell_complaint(self, peer: str, error: ProtocolError) -> None:
        self._log.error("no agreement with a peer", peer=peer, reason=str(error))
        if error.code == "identity_changed" and self._part.member is None and self._forgets:
            self._log.error(
                "this node has forgotten what it held in memory, and its peers do not take it back: "
                "leave it stopped while they go on, or stop all nodes and begin with an empty cluster"
            )
