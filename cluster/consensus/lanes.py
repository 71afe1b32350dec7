"""Whether what this node sends its peers arrives: one lane, the data connection, to each.

A peer that is heard may still not be reached. Beats and data have connections of their own, and one can
hang while the other passes (a full buffer behind a lost route, a black hole for large packets). So two
questions are asked of a lane, and a beat alone answers neither:

* `moves`: is what is under way arriving? Judged by what the lane moved: an acknowledgement or a refusal
  that is news, of any group, an answer to a read round or a candidate, or a beat that shows a longer log.
  It is asked only about peers to which something is under way.
* `carries`: would something arrive, if it were sent? Where nothing has moved for half the suspicion time,
  a small **echo** is sent on the lane. The peer answers it on its own data connection, the way of its
  acknowledgements. A lane on which no echo is answered within the suspicion time does not carry. The
  peer's event loop answers, not its disk: a slow disk never makes a lane look dead.

A lane may carry megabytes before the next sign of life can come back: entries under way, what waits for
the connection to take it, and what the peer sends meanwhile, behind which its answer comes. Until a lane
has had time for these, at a rate below which nobody would run a cluster, it is not called dead.

A connection that does not carry although beats pass is *renewed* (dialled afresh), after ever longer
whiles: on some paths only handshakes pass.

All times are microseconds of the node's clock, which is passed in.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from allsource.cluster.consensus.messages import Echo, EchoReply

LANE_BYTES_PER_S_MIN = 4 << 20
"""The slowest link that is taken for a working one."""
RENEW_DOUBLINGS_MAX = 4
"""Renewals of a lane come one suspicion time apart at first, and sixteen at most."""
CALM_SUSPICIONS = 64
"""A lane that did not have to be renewed for so many suspicion times begins anew with short waits."""

NEVER = -(1 << 62)


class Traffic(NamedTuple):
    """What a data connection can tell of itself."""

    answers: int
    """How many batches of answers to requests it has brought: each is a sign of life."""
    waiting_bytes: int
    """What waits for it to take it."""


@dataclass(slots=True)
class _Lane:
    """The lane to one peer."""

    moved_us: int = NEVER
    """When it last moved something."""
    heard_us: int = NEVER
    """When an echo last came back on it."""
    asked_us: int | None = None
    """When the oldest echo went out of those that nothing has answered."""
    first_asked: int = 0
    """The number of that echo."""
    sent_us: int = NEVER
    """When the newest echo went out."""
    received_bytes: int = 0
    """Entries that the peer has sent since `asked_us`."""
    waiting_bytes: int | None = None
    """What has waited for the connection to take it since then; None until it was told."""
    answers: int = 0
    """Answers to requests that the connection had brought when it was last looked at."""
    renewed_us: int = NEVER
    renewals: int = 0


class Lanes:
    """The lanes of one node. See the module's page."""

    def __init__(self, peers: Iterable[str], suspicion_us: int, first_number: int) -> None:
        """`first_number`: echoes are numbered from here on; no earlier process of this node has used such
        a number (rule 34)."""
        self._suspicion_us = suspicion_us
        self._lanes = {peer: _Lane() for peer in peers}
        self.newest = first_number
        """The number of the newest echo of all."""
        self._out: dict[str, int] = {}
        self._in: dict[str, int] = {}

    # -- what happened

    def connected(self, peer: str, now: int) -> None:
        """The connection is new."""
        self._lanes[peer].moved_us = now
        self.forget_echoes(peer)

    def forget_echoes(self, peer: str) -> None:
        """Echoes that are under way may be lost, for a reason that is known: no blame from them."""
        self._lanes[peer].asked_us = None

    def moved(self, peer: str, now: int) -> None:
        """Something arrived there."""
        self._lanes[peer].moved_us = now

    def echoed(self, peer: str, number: int, now: int) -> bool:
        """An answer to an echo came. False if it answers none that waits: it is old, or comes twice."""
        lane = self._lanes[peer]
        if lane.asked_us is None or number < lane.first_asked:
            return False
        lane.heard_us, lane.asked_us = now, None
        return True

    def awaits_echo(self, peer: str) -> bool:
        """Whether an echo is under way that nothing has answered."""
        lane = self._lanes[peer]
        return lane.asked_us is not None and lane.moved_us < lane.asked_us

    def received(self, peer: str, size: int) -> None:
        """The peer has sent so many bytes; its answer to an echo may come behind them."""
        self._lanes[peer].received_bytes += size

    def traffic(self, peer: str, traffic: Traffic, now: int) -> None:
        """What the connection tells of itself."""
        lane = self._lanes[peer]
        if traffic.answers != lane.answers:
            lane.answers = traffic.answers
            lane.heard_us, lane.asked_us = now, None
        elif lane.waiting_bytes is None or traffic.waiting_bytes < lane.waiting_bytes:
            lane.waiting_bytes = traffic.waiting_bytes

    def forgive(self, gap: int, now: int) -> None:
        """This process slept for `gap` (rule 26)."""
        for lane in self._lanes.values():
            lane.moved_us = min(now, lane.moved_us + gap)
            lane.heard_us = min(now, lane.heard_us + gap)
            if lane.asked_us is not None:
                lane.asked_us = min(now, lane.asked_us + gap)

    # -- what is judged

    def moves(self, peer: str, inflight_bytes: int, now: int) -> bool:
        """Whether the lane has moved within the time that `inflight_bytes` under way may need."""
        patience_us = self._suspicion_us + _time_for(inflight_bytes)
        return now - self._lanes[peer].moved_us < patience_us

    def carries(self, peer: str, inflight_bytes: int, now: int) -> bool:
        """Whether nothing speaks against the lane: no echo has waited for the suspicion time, and for what
        may go before it and before its answer."""
        if not self.awaits_echo(peer):
            return True
        lane = self._lanes[peer]
        assert lane.asked_us is not None
        size = inflight_bytes + lane.received_bytes + (lane.waiting_bytes or 0)
        return now - lane.asked_us < self._suspicion_us + _time_for(size)

    def in_doubt(self) -> Iterator[str]:
        """The peers whose lanes are silent: what their connections tell (`traffic`) is of interest."""
        return (peer for peer in self._lanes if self.awaits_echo(peer))

    # -- what is to be done

    def ask(self, peer: str, now: int) -> None:
        """Have an echo sent with the next messages, if it is time for one."""
        number = self.echo_due(peer, now)
        if number is not None:
            self._out[peer] = number

    def asked(self, peer: str, number: int) -> None:
        """An echo came. Of all that come in a turn, the newest is answered."""
        self._in[peer] = max(number, self._in.get(peer, 0))

    def take_echoes(self) -> list[tuple[str, Echo | EchoReply]]:
        """What is to be asked, and answered, behind everything else of this turn."""
        if not self._out and not self._in:
            return []
        echoes: list[tuple[str, Echo | EchoReply]] = [(peer, Echo(n)) for peer, n in self._out.items()]
        echoes += [(peer, EchoReply(n)) for peer, n in self._in.items()]
        self._out.clear()
        self._in.clear()
        return echoes

    def echo_due(self, peer: str, now: int) -> int | None:
        """The number of the echo that is to be sent now, if one is. Twice in the suspicion time while the
        lane is silent, and twice as often while it owes an answer."""
        lane = self._lanes[peer]
        half_us = self._suspicion_us // 2
        if now - max(lane.moved_us, lane.heard_us) < half_us:
            return None
        waits = self.awaits_echo(peer)
        if waits and now - lane.sent_us < half_us // 2:
            return None
        self.newest += 1
        lane.sent_us = now
        if not waits:
            lane.asked_us, lane.first_asked = now, self.newest
            lane.received_bytes, lane.waiting_bytes = 0, None
        return self.newest

    def renewal_due(self, peer: str, now: int) -> bool:
        """Whether the connection, which does not carry, is to be dialled afresh now."""
        lane = self._lanes[peer]
        since = now - lane.renewed_us
        if since < self._suspicion_us << lane.renewals:
            return False
        calm = since >= CALM_SUSPICIONS * self._suspicion_us
        lane.renewals = 0 if calm else min(lane.renewals + 1, RENEW_DOUBLINGS_MAX)
        lane.renewed_us = now
        return True


def _time_for(size: int) -> int:
    """How long so many bytes may take."""
    return size * 1_000_000 // LANE_BYTES_PER_S_MIN
