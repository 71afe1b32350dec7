"""The network between simulated nodes: delays, losses, cuts, and the connections above them.

Each pair of nodes has two links, one for each direction, and each link carries two lanes: the data
connection and the heartbeats. In an ordered network the data lane is like TCP: nothing is lost or
overtaken while its connection stands, a cut only makes it wait, and a reset loses what was on its
way. In the other kind every message is on its own: it may be lost, doubled or overtaken, or held for
whole terms and delivered to the receiver's next process. A cut may take one lane and spare the other,
as when a bulk connection hangs while heartbeats pass (rule 35).

What a node hears of its connections follows from what happens to the processes: a crash is an EOF and
then refused reconnects, a restart is a finished handshake, and a pause or a cut is silence.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from allsource.cluster.consensus.messages import Append
from allsource.storage.model.entry import decode_entry
from tests.simulation.plan import NetworkPlan
from tests.simulation.world import World

DATA, BEAT = 0, 1
BOTH = (DATA, BEAT)


class Wired(NamedTuple):
    """What the services of two nodes say to each other, as on the wire. Never doubled: that a refused
    request is not carried out later rests on TCP delivering it once. Consensus does not ask for that."""

    payload: bytes


class Endpoint(Protocol):
    """A node as its network card knows it."""

    name: str
    alive: bool
    paused: bool
    incarnation: int

    def hear(self, lane: int, sender: str, payload: Any) -> None: ...

    def peer_connected(self, peer: str) -> None: ...

    def peer_renewed(self, peer: str) -> None: ...

    def peer_lost(self, peer: str) -> None: ...

    def peer_refused(self, peer: str) -> None: ...


class Link:
    """What goes from one node to another."""

    __slots__ = (
        "arrival",
        "cuts",
        "dialing",
        "epoch",
        "held",
        "hoard",
        "renewing",
        "slowness",
        "source",
        "stale",
        "target",
        "up",
    )

    def __init__(self, source: Endpoint, target: Endpoint) -> None:
        self.source = source
        self.target = target
        self.cuts = [0, 0]
        """Faults that cut each lane of this direction now."""
        self.slowness = 1
        self.up = False
        """Whether `source` has a data connection to `target`."""
        self.epoch = 0
        """Counts the connections, so that what belonged to an older one is told apart."""
        self.stale = False
        """The connection is dead, and its owner has not noticed (an EOF could not reach it)."""
        self.dialing = False
        self.renewing = False
        """A fresh connection is being dialled beside the one that is up."""
        self.arrival = [0, 0]
        """When the newest message of each lane arrives. What goes over a new connection waits for nothing
        that went over an older one."""
        self.held: list[tuple[int, Any, int, int]] = []
        """Messages that wait for the end of a cut: (lane, payload, epoch, target's incarnation)."""
        self.hoard: tuple[list[Any], bool] | None = None
        """Data messages that are kept for later, and whether they are delivered now as well."""


class Network:
    """All links. `connect_all` once, then the nodes' starts and crashes are told to it."""

    def __init__(self, world: World, plan: NetworkPlan, endpoints: Sequence[Endpoint]) -> None:
        self._world = world
        self._plan = plan
        self._endpoints = list(endpoints)
        self._links = {
            (a.name, b.name): Link(a, b) for a in self._endpoints for b in self._endpoints if a is not b
        }
        self.quiet = False
        """Phase two: messages are no longer lost or doubled."""
        self.slow_until = 0
        """When the last message arrives that an ordered link took while it was slow. Until then later ones
        may have to wait behind it, although the link is well."""

    # -- messages

    def send_data(self, source: str, target: str, messages: list[Any]) -> None:
        """Send a batch on the data connection; without one it is lost, as the transport would."""
        link = self._links[source, target]
        if not link.up:
            return
        if link.hoard is not None:
            kept, copied = link.hoard
            kept += [sealed_message(m) for m in messages if not (copied and isinstance(m, Wired))]
            if not copied:
                return
        if self._plan.ordered:
            self._post(link, DATA, [sealed_message(message) for message in messages])
            return
        for message in messages:
            self._post_unordered(link, DATA, [sealed_message(message)])

    def send_beat(self, source: str, target: str, beat: Any) -> None:
        """Send a heartbeat; its connection is taken to follow the processes at once."""
        link = self._links[source, target]
        if self._plan.ordered:
            self._post(link, BEAT, beat)
        else:
            self._post_unordered(link, BEAT, beat)

    def _post_unordered(self, link: Link, lane: int, payload: Any) -> None:
        random, plan = self._world.random, self._plan
        copies = 1
        if not self.quiet:
            if random.random() < plan.drop:
                return
            if plan.late and random.random() < plan.late:
                self._world.after(random.randrange(plan.late_us), self._arrive_late, link, lane, payload)
                return
            if random.random() < plan.duplicate and not (lane == DATA and isinstance(payload[0], Wired)):
                copies = 2
        for _ in range(copies):
            self._world.after(
                self._delay(link), self._arrive, link, lane, payload, link.epoch, link.target.incarnation
            )

    def _post(self, link: Link, lane: int, payload: Any) -> None:
        arrival = max(self._world.now + self._delay(link), link.arrival[lane])
        link.arrival[lane] = arrival
        if link.slowness > 1:
            self.slow_until = max(self.slow_until, arrival)
        self._world.at(arrival, self._arrive, link, lane, payload, link.epoch, link.target.incarnation)

    def _delay(self, link: Link) -> int:
        plan = self._plan
        jitter = int(self._world.random.expovariate(1.0) * plan.jitter_us)
        return (plan.delay_us + jitter) * link.slowness

    def _arrive(self, link: Link, lane: int, payload: Any, epoch: int, incarnation: int) -> None:
        target = link.target
        if not target.alive or target.incarnation != incarnation:
            return
        if self._plan.ordered:
            if lane == DATA and (epoch != link.epoch or not link.up):
                return
            if link.cuts[lane]:
                link.held.append((lane, payload, epoch, incarnation))
                return
        elif link.cuts[lane]:
            return
        target.hear(lane, link.source.name, payload)

    def _arrive_late(self, link: Link, lane: int, payload: Any) -> None:
        """What was held: it outlives its connection, its sender and the process that it was meant for, and
        is already behind whatever is cut now."""
        if link.target.alive:
            link.target.hear(lane, link.source.name, payload)

    def hoard(self, source: str, target: str, *, copied: bool) -> None:
        """From now on keep what is sent on the data lane; `copied`: a copy of it, and deliver it too."""
        self._links[source, target].hoard = ([], copied)

    def release(self, source: str, target: str, from_us: int, to_us: int) -> None:
        """Deliver what was kept, each message at its own time in that span from now."""
        link = self._links[source, target]
        kept, link.hoard = link.hoard, None
        for message in kept[0] if kept else ():
            delay = self._world.random.randrange(from_us, to_us)
            self._world.after(delay, self._arrive_late, link, DATA, [message])

    # -- connections

    def node_started(self, node: Endpoint) -> None:
        """A process listens now and dials everybody; the others' attempts will succeed again."""
        for link in self._links.values():
            if node in (link.source, link.target):
                link.arrival = [0, 0]
            if link.source is node:
                self._dial_later(link, self._plan.delay_us)

    def node_crashed(self, node: Endpoint) -> None:
        """A process is gone: its connections end, and whoever can hear it gets an EOF."""
        for link in self._links.values():
            if link.source is node:
                link.up = False
                link.stale = False
                link.epoch += 1
                link.held.clear()
            elif link.target is node and link.up:
                back = self._links[node.name, link.source.name]
                if back.cuts[DATA]:
                    link.stale = True
                else:
                    self._world.after(self._delay(back), self._broken, link, link.epoch)

    def reset(self, one: str, other: str) -> None:
        """The connections between two nodes break, and both hear of it."""
        for pair in ((one, other), (other, one)):
            link = self._links[pair]
            if link.up:
                self._world.after(self._delay(link), self._broken, link, link.epoch)

    def _broken(self, link: Link, epoch: int) -> None:
        if not link.up or link.epoch != epoch or not link.source.alive:
            return
        link.up = False
        link.stale = False
        link.epoch += 1
        link.arrival[DATA] = 0
        link.source.peer_lost(link.target.name)
        self._dial_later(link, self._plan.delay_us)

    def _dial_later(self, link: Link, delay: int) -> None:
        if not link.dialing:
            link.dialing = True
            self._world.after(delay, self._dial, link, link.source.incarnation)

    def _dial(self, link: Link, incarnation: int) -> None:
        source, target = link.source, link.target
        link.dialing = False
        if not source.alive or link.up:
            return
        if source.incarnation != incarnation:
            self._dial_later(link, 0)
            return
        if source.paused or self._is_cut(link) or (target.alive and target.paused):
            self._dial_later(link, self._plan.reconnect_us)
        elif not target.alive:
            source.peer_refused(target.name)
            self._dial_later(link, self._plan.reconnect_us)
        else:
            link.dialing = True
            self._world.after(
                self._round_trip(link), self._shake_hands, link, incarnation, target.incarnation
            )

    def _shake_hands(self, link: Link, incarnation: int, target_incarnation: int) -> None:
        source, target = link.source, link.target
        link.dialing = False
        if not source.alive or link.up:
            return
        same = source.incarnation == incarnation and target.incarnation == target_incarnation
        if not same or not target.alive or target.paused or source.paused or self._is_cut(link):
            self._dial_later(link, self._plan.reconnect_us)
            return
        link.up = True
        link.epoch += 1
        source.peer_connected(target.name)

    def renew(self, source: str, target: str) -> None:
        """`source` dials `target` afresh, beside its connection, which ends when the new one stands."""
        link = self._links[source, target]
        if link.up and not link.renewing:
            link.renewing = True
            self._world.after(self._round_trip(link), self._renewed, link, link.epoch)

    def _renewed(self, link: Link, epoch: int) -> None:
        link.renewing = False
        source, target = link.source, link.target
        if not link.up or link.epoch != epoch or not source.alive:
            return
        if self._is_cut(link) or source.paused or not target.alive or target.paused:
            link.renewing = True
            self._world.after(self._plan.reconnect_us, self._renewed, link, epoch)
            return
        link.epoch += 1
        link.arrival = [0, 0]
        link.stale = False
        source.peer_renewed(target.name)

    def _round_trip(self, link: Link) -> int:
        return self._delay(link) + self._delay(self._links[link.target.name, link.source.name])

    def _is_cut(self, link: Link, lanes: Sequence[int] = BOTH) -> bool:
        """Whether one of the lanes is cut, in one direction or the other: no handshake ends then."""
        back = self._links[link.target.name, link.source.name]
        return any(link.cuts[lane] or back.cuts[lane] for lane in lanes)

    # -- cuts

    def cut(self, source: str, target: str, lanes: Sequence[int] = BOTH) -> None:
        """Nothing gets from `source` to `target` on these lanes until it was mended as often as cut."""
        link = self._links[source, target]
        for lane in lanes:
            link.cuts[lane] += 1
        if DATA in lanes:
            for connected in (link, self._links[target, source]):
                if connected.up:
                    self._world.after(self._plan.give_up_us, self._give_up, connected, connected.epoch)

    def mend(self, source: str, target: str, lanes: Sequence[int] = BOTH) -> None:
        """Undo one cut; what waited goes on its way, in order."""
        link = self._links[source, target]
        mended = [lane for lane in lanes if link.cuts[lane]]
        for lane in mended:
            link.cuts[lane] -= 1
        free = [lane for lane in mended if not link.cuts[lane]]
        if not free:
            return
        held, link.held = link.held, []
        for lane, payload, epoch, incarnation in held:
            if lane in free:
                self._world.after(0, self._arrive, link, lane, payload, epoch, incarnation)
            else:
                link.held.append((lane, payload, epoch, incarnation))
        back = self._links[target, source]
        if DATA in free and back.stale and back.up:
            self._world.after(self._delay(link), self._broken, back, back.epoch)

    def _give_up(self, link: Link, epoch: int) -> None:
        if link.up and link.epoch == epoch and self._is_cut(link, (DATA,)):
            self._broken(link, epoch)

    def joins(self, one: str, other: str) -> bool:
        """Whether both lanes work in both directions between two nodes, as fast as ever."""
        there, back = self._links[one, other], self._links[other, one]
        return not (self._is_cut(there) or there.slowness > 1 or back.slowness > 1) and there.up and back.up

    def carries(self, one: str, other: str) -> bool:
        """Whether data gets through between two nodes, and back, however slowly."""
        there, back = self._links[one, other], self._links[other, one]
        return there.up and back.up and not self._is_cut(there, (DATA,))

    def slow_down(self, source: str, target: str, factor: int) -> None:
        """Multiply the delays of one direction."""
        self._links[source, target].slowness = factor

    def heal(self) -> None:
        """End all faults of the network; from now on nothing is lost or doubled."""
        self.quiet = True
        for link in self._links.values():
            link.slowness = 1
            link.hoard = None
            for lane in BOTH:
                while link.cuts[lane]:
                    self.mend(link.source.name, link.target.name, (lane,))


def sealed_message(message: Any) -> Any:
    """The message as its receiver would decode it: no list shared with the sender."""
    if isinstance(message, Append):
        sealed = copy.copy(message)
        sealed.entries = message.entries + [decode_entry(record) for record in message.records]
        sealed.records = []
        return sealed
    return message
