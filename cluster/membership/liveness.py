"""One node's own view of which peers are alive.

Each node judges for itself, and views may differ: A can hear B while B cannot hear A. That is why a
view moves leadership only, and why a quorum of views must agree before it does (RULES.md rule 12).
A wrong judgement costs availability, never safety.

What the states mean, and what leads to them::

    up       heard from lately: a beat, or a handshake that finished
    suspect  a hint of trouble: EOF, or silence for two heartbeats and half the suspicion time.
             Also a peer that was never heard of, for the first suspicion time.
    down     silent for the whole suspicion time, or suspect and its address refuses connections.
             Only being heard brings a peer back.

EOF is not a death: after a SIGKILL a reconnect can succeed for a moment, and a healthy peer may drop
one connection (rule 29). A refused reconnect is: nobody listens there any more.

This process may be the one that sleeps (a SIGSTOP, a suspended machine, a blocked event loop). Then
all peers look silent at once, and none of them is to blame. So a gap between two ticks of more than
half the suspicion time is taken off everybody's silence, and for another half of it this node
distrusts itself: it declares nobody dead and must not campaign (rule 26). Call `tick` at
`next_deadline()` at the latest, otherwise the detector takes its caller's laziness for a stall.

All times are microseconds of one monotonic clock, passed in; none is ever sent to anybody.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

Liveness = Literal["up", "suspect", "down"]
UP: Final = "up"
SUSPECT: Final = "suspect"
DOWN: Final = "down"


class Verdict(NamedTuple):
    """A peer's state has changed."""

    peer: str
    state: Liveness


@dataclass(slots=True)
class _Peer:
    heard_at: int
    """When it was last heard, less what this process slept; when watching began, if never."""
    state: Liveness = SUSPECT
    reported: Liveness = SUSPECT
    """The state that the last `tick` told."""
    quiet: bool = True
    """Not heard since EOF, or never heard at all: a refused connection is believed."""


class FailureDetector:
    """See the module's page. `peers` may include `self_id`, which is always up and never judged."""

    def __init__(
        self, self_id: str, peers: Iterable[str], *, heartbeat_us: int, suspicion_us: int, now: int
    ) -> None:
        if not 0 < heartbeat_us < suspicion_us:
            raise ValueError(f"0 < heartbeat ({heartbeat_us} us) < suspicion ({suspicion_us} us) must hold")
        self.self_id = self_id
        self._suspicion_us = suspicion_us
        self._suspect_us = min(suspicion_us, max(2 * heartbeat_us, suspicion_us // 2))
        self._stall_us = suspicion_us // 2
        self._tick_us = min(heartbeat_us, suspicion_us // 4)
        self._ticked_at = now
        self._distrust_until = now
        self._peers = {peer: _Peer(now) for peer in peers if peer != self_id}

    # -- what happened

    def heard(self, peer: str, now: int) -> None:
        """A beat came, or a handshake finished: it is alive."""
        known = self._peers[peer]
        if now > known.heard_at:
            known.heard_at = now
        known.state = UP
        known.quiet = False

    def lost(self, peer: str, now: int) -> None:
        """EOF or reset on a connection with it: suspect at once, but not dead yet (rule 29)."""
        known = self._peers[peer]
        known.quiet = True
        if known.state == UP:
            known.state = SUSPECT

    def refused(self, peer: str, now: int) -> None:
        """A connection was refused: its process is gone, unless it was heard since it was lost."""
        known = self._peers[peer]
        if known.quiet:
            known.state = DOWN

    def tick(self, now: int) -> list[Verdict]:
        """Let time pass. The peers whose state differs from what the last call told, in order."""
        self._notice_own_stall(now)
        if not self.distrusts_itself(now):
            for known in self._peers.values():
                known.state = self._judge(known, now)
        changes = []
        for peer, known in self._peers.items():
            if known.state != known.reported:
                known.reported = known.state
                changes.append(Verdict(peer, known.state))
        return changes

    def _notice_own_stall(self, now: int) -> None:
        gap = now - self._ticked_at
        self._ticked_at = now
        if gap > self._stall_us:
            self._distrust_until = now + self._stall_us
            for known in self._peers.values():
                # What arrived just before this tick was heard now; it must not move to the future.
                known.heard_at = min(now, known.heard_at + gap)

    def _judge(self, known: _Peer, now: int) -> Liveness:
        silence = now - known.heard_at
        if known.state == DOWN or silence >= self._suspicion_us:
            return DOWN
        return SUSPECT if silence >= self._suspect_us else known.state

    # -- who takes part

    def watch(self, peer: str, now: int) -> None:
        """Begin to judge a peer that joined; nothing happens if it is watched already."""
        if peer != self.self_id:
            self._peers.setdefault(peer, _Peer(now))

    def forget(self, peer: str) -> None:
        """Stop judging a peer that left."""
        self._peers.pop(peer, None)

    # -- the view

    def state(self, peer: str) -> Liveness:
        """How it is, as of the last input."""
        return UP if peer == self.self_id else self._peers[peer].state

    def is_up(self, peer: str) -> bool:
        """Whether it is up."""
        return self.state(peer) == UP

    def distrusts_itself(self, now: int) -> bool:
        """Whether this process slept a moment ago: it neither campaigns nor declares anyone dead.

        True already while the tick that will notice the stall is still overdue.
        """
        return now < self._distrust_until or now - self._ticked_at > self._stall_us

    def next_deadline(self) -> int:
        """When `tick` is due at the latest: a state may change, or the next look at our own pace."""
        deadline = self._ticked_at + self._tick_us
        for known in self._peers.values():
            if known.state != known.reported:
                return self._ticked_at
            if known.state != DOWN:
                patience = self._suspect_us if known.state == UP else self._suspicion_us
                deadline = min(deadline, max(known.heard_at + patience, self._distrust_until))
        return deadline
