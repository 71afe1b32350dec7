"""How this node takes part in its cluster: the one place that knows, and that everybody asks.

The doors open before the node takes part, so that probes and `GET /v1/cluster` can say what it waits for.
So there are two phases, each with a type of its own: an `Outsider` refuses every request, definitely and
with the reason, and what peers say of consensus is not for it; a `Member` serves. `Part.take` is the one
step from the first to the second. There is no step back: a member that may not be one any more ends its
process.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from allsource.cluster.consensus.messages import Beat, Message
from allsource.cluster.protocol.acquaintance import LogEnd
from allsource.cluster.protocol.requests import ClusterView, DescribeCluster, Request
from allsource.config.schema import Settings
from allsource.node.member.member import Member
from allsource.node.requests.queue import LockFreeEventQueue
from allsource.node.requests.tickets import Reply, Source, Ticket
from allsource.node.view import View
from allsource.storage.interface import Storage
from allsource.storage.model.errors import NoOwner


class Submit(Protocol):
    """`Service.submit`."""

    def __call__(
        self,
        request: Request,
        *,
        timeout_ms: int,
        forwarded: bool,
        reply: Reply,
        source: Source | None = None,
    ) -> None: ...


class Outsider:
    """A node that takes no part yet. It answers what a `Member` answers, as one that knows nothing."""

    def __init__(
        self, view: View, waits_for: Callable[[], list[str]], log_ends: Callable[[], Sequence[LogEnd]]
    ) -> None:
        """`waits_for`: why it takes no part, one sentence each. `log_ends`: how far its logs go."""
        self._view = view
        self._waits_for = waits_for
        self.log_ends = log_ends

    def submit(
        self,
        request: Request,
        *,
        timeout_ms: int,
        forwarded: bool,
        reply: Reply,
        source: Source | None = None,
    ) -> None:
        """Refuse it, unless it asks for this node's view."""
        if isinstance(request, DescribeCluster):
            reply(ClusterView(self._view.describe()))
        else:
            reply(
                NoOwner(
                    "this node takes no part yet; a cluster begins when all its members have met: "
                    f"{'; '.join(self._waits_for()) or 'it is about to begin'}",
                )
            )

    def eased(self, source: Source) -> None:
        """Nothing waits for a connection here."""

    def messages(self, peer: str, messages: list[Message]) -> None:
        """Not for this node: dropped."""

    def beat(self, peer: str, beat: Beat) -> None:
        """Not for this node: dropped."""

    def connected(self, peer: str, incarnation: int) -> None:
        """Told again to the member, if there is one to come."""

    def lost(self, peer: str) -> None:
        """Nothing rests on it."""

    def refused(self, peer: str) -> None:
        """Nothing rests on it."""

    def acknowledged_by(self, peer: str) -> Sequence[LogEnd]:
        """It never led."""
        return ()

    def save_commits(self) -> None:
        """Nothing was acknowledged yet."""

    async def leave(self, timeout_s: float) -> None:
        """There is nothing to give away."""

    def stop(self) -> None:
        """Nothing has begun."""


class Part:
    """See the module's page."""

    def __init__(
        self,
        settings: Settings,
        node_id: str,
        storage: Storage,
        queue: LockFreeEventQueue[Ticket],
        *,
        missing: Callable[[], Sequence[str]],
        log_ends: Callable[[], Sequence[LogEnd]],
    ) -> None:
        """`missing`: the members that this node waits for before it may take part. `log_ends`: how far its
        logs go."""
        self._missing = missing
        self.complaints: dict[str, str] = {}
        """Peer -> why it and this node do not agree."""
        self.view = View(settings, node_id, storage, queue, lambda: self.member)
        self.now: Outsider | Member = Outsider(self.view, self._why_outside, log_ends)
        """Ask it each time: it is another object once the node takes part."""

    @property
    def member(self) -> Member | None:
        """This node as a member; None while it takes no part."""
        return self.now if isinstance(self.now, Member) else None

    @property
    def submit(self) -> Submit:
        """Where requests go now."""
        return self.now.submit

    def take(self, member: Member) -> None:
        """Take part from now on."""
        assert self.member is None, "a node begins to take part once"
        self.now = member
        member.start()

    def waits_for(self) -> list[str]:
        """What keeps this node from being ready, one sentence each."""
        return self._why_outside() or self.view.waits_for()

    def _why_outside(self) -> list[str]:
        return [_why(peer, self.complaints) for peer in self._missing()]


def _why(peer: str, complaints: Mapping[str, str]) -> str:
    if complaint := complaints.get(peer):
        return f"no agreement with {peer}: {complaint}"
    return f"the cluster starts for the first time, and this node has not met {peer} yet"
