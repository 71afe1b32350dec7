"""What a member looks at now and then, and what it does about it: its peers, its disk, its clock."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from structlog.typing import FilteringBoundLogger

from allsource.cluster.consensus.multiraft import MultiRaft
from allsource.cluster.membership.clocks import DIFFERENCE_MAX_US, ClusterClock
from allsource.cluster.membership.liveness import DOWN, SUSPECT, UP
from allsource.cluster.membership.registry import Readiness
from allsource.node.observe.measures import Measures
from allsource.node.observe.reminder import Reminder
from allsource.storage.interface import Refusal
from allsource.storage.model.errors import DiskFull

_ROOM_US = 10_000_000
"""How long a disk that was nearly full must have had room until its node leads again: leaderships should
not follow every file that comes and goes."""


class PeerWatch:
    """Tells when the failure detector's word about a peer changes, and has silent peers dialled afresh."""

    def __init__(
        self,
        core: MultiRaft,
        renew: Callable[[str], None],
        measures: Measures,
        log: FilteringBoundLogger,
    ) -> None:
        """`renew` dials a peer afresh; of no effect on what is being dialled anyway."""
        self._core = core
        self._renew = renew
        self._measures = measures
        self._log = log
        self._states: dict[str, str] = {}

    def look(self) -> None:
        """Compare with what was found last."""
        core = self._core
        for node in core.registry.all_nodes():
            if node.id == core.node_id:
                continue
            state = core.detector.state(node.id)
            before = self._states.get(node.id)
            if state != before:
                self._states[node.id] = state
                self._changed(node.id, before, state)

    def _changed(self, peer: str, before: str | None, state: str) -> None:
        if state == DOWN:
            self._renew(peer)
        if before is None and state == SUSPECT:
            return  # it was never heard of yet: no news
        if before is not None and state != UP:
            self._measures.suspected(state)
        say = self._log.info if state == UP else self._log.warning
        say("peer is " + state, peer=peer)


class Pressed(Protocol):
    """The part of `Storage` that knows how much room there is."""

    def pressure(self) -> Refusal | None: ...


class DiskWatch:
    """Has others lead while appends are refused here for want of room (rule 24)."""

    def __init__(
        self,
        storage: Pressed,
        core: MultiRaft,
        yield_leadership: Callable[[bool], None],
        clock: Callable[[], int],
        log: FilteringBoundLogger,
    ) -> None:
        self._storage = storage
        self._core = core
        self._yield_leadership = yield_leadership
        self._clock = clock
        self._log = log
        self.full_at = 0
        """When it was last found nearly full."""

    def look(self) -> None:
        """See whether there is room."""
        refusal, now = self._storage.pressure(), self._clock()
        readiness = self._core.registry.readiness(self._core.node_id)
        if readiness is Readiness.LEAVES:
            return
        yields = readiness is Readiness.YIELDS
        if refusal is not None and refusal.error is DiskFull:
            self.full_at = now
            if not yields:
                self._yield_leadership(True)
                self._log.warning(
                    "leads no partition that another node can lead, until there is room",
                    reason=refusal.reason,
                )
        elif yields and now - self.full_at >= _ROOM_US:
            self._yield_leadership(False)
            self._log.info("there is room again: leads as before")


class ClockWatch:
    """Tells people when this node's clock is not the cluster's."""

    def __init__(
        self,
        cluster_clock: ClusterClock,
        clock: Callable[[], int],
        wall_us: Callable[[], int],
        log: FilteringBoundLogger,
    ) -> None:
        self._cluster_clock = cluster_clock
        self._clock = clock
        self._wall_us = wall_us
        self._log = log
        self._differs = Reminder(clock)

    def look(self) -> None:
        """Compare the two."""
        difference_us = self._cluster_clock.difference(self._wall_us(), self._clock())
        if abs(difference_us) > DIFFERENCE_MAX_US and self._differs.holds():
            self._log.warning(
                "this node's clock is not the cluster's; set it right: events that it takes are dated by "
                "the median of the nodes' clocks",
                ahead_s=round(difference_us / 1e6, 1),
            )


class Rounds:
    """Looks every so often, until it is stopped. Not with the beats: a single node sends none, nor does a
    node that cannot write."""

    def __init__(
        self, looks: tuple[Callable[[], None], ...], every_s: float, loop: asyncio.AbstractEventLoop
    ) -> None:
        self._looks = looks
        self._every_s = every_s
        self._loop = loop
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Look now, and from now on."""
        try:
            for look in self._looks:
                look()
        finally:  # a look that fails must not be the last
            self._timer = self._loop.call_later(self._every_s, self.start)

    def stop(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()
