"""What the doors talk to, from the first moment on.

The doors open before the node takes part in the cluster, so that probes and `GET /v1/cluster` can say
what it waits for. Until then every other request is refused, definitely and with the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from allsource.cluster.protocol.requests import ClusterView, DescribeCluster, Request
from allsource.node.requests.tickets import Reply, Source
from allsource.node.view import View
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


class Front:
    """See the module's page. `missing` names the members that this node waits for, `complaints` why they
    and this node do not agree, by member."""

    submit: Submit
    """Call it through the front each time: it is another function once the node takes part."""

    def __init__(self, view: View, missing: Callable[[], list[str]], complaints: Mapping[str, str]) -> None:
        self._view = view
        self._missing = missing
        self._complaints = complaints
        self.submit = self._refuse

    def open(self, submit: Submit) -> None:
        """The node takes part: requests go to its service."""
        self.submit = submit

    def waits_for(self) -> list[str]:
        """What keeps this node from being ready, one sentence each."""
        missing = self._missing()
        if missing:
            return [self._why_missing(one) for one in missing]
        return self._view.waits_for()

    def _why_missing(self, peer: str) -> str:
        if complaint := self._complaints.get(peer):
            return f"no agreement with {peer}: {complaint}"
        return f"the cluster starts for the first time, and this node has not met {peer} yet"

    def _refuse(
        self,
        request: Request,
        *,
        timeout_ms: int,
        forwarded: bool,
        reply: Reply,
        source: Source | None = None,
    ) -> None:
        if isinstance(request, DescribeCluster):
            reply(ClusterView(self._view.describe()))
        else:
            missing = "; ".join(map(self._why_missing, self._missing()))
            reply(
                NoOwner(
                    "this node takes no part yet; a cluster begins when all its members have met: "
                    f"{missing or 'it is about to begin'}",
                )
            )
