"""The thin shell around the core: the only place that carries out what consensus decides.

`MultiRaft` decides and touches nothing. `Storage`, the peers' connections and the clock are touched here
and decide nothing. What happens (messages, beats, connections, finished syncs) is fed to the core at once.
`carry_out` then takes the core's next orders, carries them out in the order of `Ready`'s fields, and
*returns* what came of them (`Outcome`): nobody is called. Whoever gives the replica its turns
(`node.member.driver`) acts on that before asking for more. If anything raises on the way, half a decision
was carried out, and the replica must not be asked again.

Two promises about the disk are kept here:

* The core is told that something is durable only after the sync that covers it (`persisted`). A failed sync
  ends the process (rule 16).
* A node whose disk stalls does not look alive (rule 25): while one sync has been running for longer than
  the suspicion timeout, or the disk is too full to take the log, beats are withheld, so that others take
  over what this node leads.

A node whose disk is too full is *stuck*: it tries again four times a second, whatever else happens.
Meanwhile it is deaf, for whatever it would answer rests on a write: messages are dropped, as by a network,
and time does not pass in the core, as for a process that is paused. So nothing piles up. It still hears who
is alive and who leads, and its doors pass requests on to those.

A record that cannot be read back costs its partition at this node, and nothing else (rule 17): the core
gives the group up (`MultiRaft.quarantine`), whether a write, the core or a reader met the damage.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple, Protocol

from allsource.cluster.consensus.lanes import Traffic
from allsource.cluster.consensus.messages import (
    Beat,
    Damage,
    Message,
    ReadResult,
    Ready,
    RoleChange,
    is_of,
)
from allsource.cluster.consensus.multiraft import MultiRaft
from allsource.cluster.membership.registry import NodeRegistry
from allsource.storage.interface import Storage
from allsource.storage.model.entry import Entry, NewAppend
from allsource.storage.model.errors import Corrupt, DiskFull
from allsource.storage.model.log import PartitionState

DISK_FULL_RETRY_US = 250_000
"""How soon a log that found no room on the disk is written again."""


class Links(Protocol):
    """The part of `PeerLinks` that a replica sends on. Neither call blocks; both may drop."""

    def send_messages(self, peer: str, messages: list[Message]) -> None: ...

    def send_beat(self, peer: str, beat: Beat) -> None: ...

    def traffic(self, peer: str) -> Traffic: ...

    def renew(self, peer: str) -> None:
        """Dial the peer afresh. Of no effect on what is being dialled anyway."""


class Syncs(Protocol):
    """The part of `SyncThread` that a replica asks for syncs."""

    def request(self, number: int) -> None: ...

    def running_for(self, now: int) -> int: ...


class Outcome(NamedTuple):
    """What came of the core's orders. Act on the fields in their order: first those who wait, then people
    and counters (rule 31)."""

    changes: Sequence[RoleChange] = ()
    """Roles, terms or leaders changed: fail the answers that wait on a lost leadership (rule 6)."""
    committed: Sequence[tuple[int, int]] = ()
    """`(partition, commit index)`: everything up to it is committed, and readable in storage."""
    reads: Sequence[ReadResult] = ()
    """Linearizable reads that may be served, or not."""
    damaged: Sequence[Damage] = ()
    """This node takes no part in these partitions any more: remember it durably, and tell people."""
    beats: int = 0
    """How many heartbeats went out."""
    sync_us: int | None = None
    """How long the sync took that belonged to the orders, if it was made here and not by a thread."""


class SyncFailed(Exception):
    """A sync that was made within the orders failed, for this `reason`: the process must end (rule 16)."""

    def __init__(self, reason: Exception) -> None:
        super().__init__(str(reason))
        self.reason = reason


class _Unwritten(NamedTuple):
    """Orders that wait for room on the disk."""

    ready: Ready
    try_at: int


class Replica:
    """See the module's page. `clock` gives microseconds of CLOCK_BOOTTIME (rule 19)."""

    def __init__(
        self,
        core: MultiRaft,
        storage: Storage,
        links: Links,
        states: Mapping[int, PartitionState],
        *,
        clock: Callable[[], int],
        suspicion_us: int,
        syncs: Syncs | None,
        wall_us: Callable[[], int] = lambda: 0,
    ) -> None:
        """`states`: what storage held of each partition when it was opened. `syncs`: None if a sync of this
        storage is as short as a write (memory, or `durability: os`) and is not worth a thread. `wall_us`:
        the time that beats tell."""
        self.core = core
        self._storage = storage
        self._links = links
        self._clock = clock
        self._suspicion_us = suspicion_us
        self._syncs = syncs
        self._wall_us = wall_us
        self._applied = {partition: state.hard.commit for partition, state in states.items()}
        self._unwritten: _Unwritten | None = None
        self.stuck: DiskFull | None = None
        """Why the log cannot be written, since the last attempt to; None if it can."""
        self.is_leader = core.is_leader
        self.can_propose = core.can_propose
        self.entry_term = core.entry_term
        self.next_index = core.next_index
        self.propose: Callable[[int, Sequence[NewAppend], int], Entry] = core.propose

    @property
    def registry(self) -> NodeRegistry:
        """This node's own directed view of the members."""
        return self.core.registry

    # -- what happened

    def messages(self, peer: str, messages: list[Message]) -> None:
        """Messages of a peer's data connection. Raises `PeerNonsense`."""
        if self._unwritten is None:
            self.core.receive(peer, messages, self._clock())

    def beat(self, peer: str, beat: Beat) -> None:
        """A peer's heartbeat. Raises `PeerNonsense`."""
        self.core.receive_beat(peer, beat, self._clock())
        if self._unwritten is not None:
            self._note_leaders(peer, beat)

    def _note_leaders(self, peer: str, beat: Beat) -> None:
        """What the core would tell the registry with its next orders, for which it is not asked now."""
        for line in beat.groups:
            if line.leader == peer:
                self.registry.record_leader(line.partition, peer, line.term)

    def connected(self, peer: str) -> None:
        """Both our connections to the peer finished their handshakes."""
        self.core.peer_connected(peer, self._clock())

    def lost(self, peer: str) -> None:
        """EOF or reset on a connection with the peer."""
        self.core.peer_lost(peer, self._clock())

    def refused(self, peer: str) -> None:
        """The peer's address refuses connections."""
        self.core.peer_refused(peer, self._clock())

    def tick(self) -> None:
        """Time has passed."""
        if self._unwritten is None:
            for peer in self.core.lanes_in_doubt():
                self.core.lane_traffic(peer, self._links.traffic(peer), self._clock())
            self.core.tick(self._clock())

    def persisted(self, number: int) -> None:
        """Everything up to write `number` is durable."""
        self.core.persisted(number, self._clock())

    # -- what the node asks

    def read(self, partition: int, ticket: object, min_index: int) -> None:
        """Ask for a read barrier; the answer is among the `reads` of a later outcome."""
        self.core.read(partition, ticket, min_index, self._clock())

    def hand_over(self) -> bool:
        """Leaving: move every leadership away. True when nothing is left to move."""
        return self.core.hand_over(self._clock())

    def yield_leadership(self, yields: bool) -> None:
        """Lead only where nobody else can (the disk is nearly full), or as placement says again."""
        self.core.yield_leadership(yields, self._clock())

    def quarantine(self, partition: int, reason: str) -> None:
        """A damaged record of the partition was met: take no part in it from now on."""
        if self._applied.pop(partition, None) is not None:
            self.core.quarantine(partition, reason, self._clock())

    def commit_index(self, partition: int) -> int:
        """Everything up to it is committed and readable in storage; 0 if not hosted here.

        The core may know of a later one, whose entries this turn has still to write.
        """
        return self._applied.get(partition, 0)

    def hosts(self, partition: int) -> bool:
        """Whether this node keeps a replica of the partition."""
        return partition in self._applied

    def leader_of(self, partition: int) -> str | None:
        """Who leads the partition, as far as this node knows."""
        return self.core.leader_of(partition)

    def term_of(self, partition: int) -> int:
        """The newest term of the partition that this node knows of."""
        return self.core.term_of(partition)

    def quorum_is_up(self, partition: int) -> bool:
        """Whether a majority of the partition's replicas is not down, in this node's view."""
        return self.core.registry.quorum_is_up(partition)

    def is_handing_over(self, partition: int) -> bool:
        """Whether this node leads the partition and is just giving it to another, as one that is stuck is
        bound to."""
        return self.core.is_handing_over(partition) or (
            self._unwritten is not None and self.core.is_leader(partition)
        )

    @property
    def next_deadline(self) -> int:
        """When the replica needs a turn though nothing happens."""
        return self.core.next_deadline() if self._unwritten is None else self._unwritten.try_at

    # -- orders

    def carry_out(self) -> Outcome | None:
        """Carry out the core's next orders, or those that found no room before. None if there are none, or
        still no room: `stuck` says so, and until then nothing else is carried out, beats included."""
        unwritten = self._unwritten
        if unwritten is None:
            ready = self.core.ready()
            if ready is None:
                return None
        elif self._clock() < unwritten.try_at:
            return None
        else:
            ready = unwritten.ready
        if ready.writes and not self._write(ready):
            return None
        self._unwritten = self.stuck = None
        number, syncs = ready.number, self._syncs
        if number and syncs is not None:
            syncs.request(number)
        for peer, messages in ready.send.items():
            self._links.send_messages(peer, messages)
        beats = self._send_beats(ready.beats) if ready.beats else 0
        applied, committed = self._applied, ready.committed
        for partition, commit in committed:
            if partition in applied:
                applied[partition] = commit
            else:  # given up meanwhile
                committed = [one for one in committed if one[0] in applied]
        for partition, _ in ready.damaged:
            applied.pop(partition, None)
        for peer in ready.renew:
            self._links.renew(peer)
        took_us = self._sync(number) if number and syncs is None else None
        return Outcome(ready.changes, committed, ready.reads, ready.damaged, beats, took_us)

    def _send_beats(self, beats: Mapping[str, Beat]) -> int:
        """Send them, unless the disk stalls; how many were sent."""
        if self._syncs is not None and self._syncs.running_for(self._clock()) > self._suspicion_us:
            return 0
        wall_us = self._wall_us()
        for peer, beat in beats.items():
            beat.wall_us = wall_us
            self._links.send_beat(peer, beat)
        return len(beats)

    def _write(self, ready: Ready) -> bool:
        """Store what the orders say, without the partitions that turn out to be damaged. False: no room."""
        while ready.writes:
            try:
                self._storage.write(ready.writes)
                return True
            except DiskFull as error:
                self._unwritten, self.stuck = _Unwritten(ready, self._clock() + DISK_FULL_RETRY_US), error
                return False
            except Corrupt as error:
                partition = error.details.get("partition")
                if partition not in [write.partition for write in ready.writes]:
                    raise
                _leave_out(ready, partition)
                self.quarantine(partition, error.message)
        return True

    def _sync(self, number: int) -> int:
        """Sync here and now; microseconds that it took. Raises `SyncFailed`."""
        began = self._clock()
        try:
            self._storage.sync()
        except Exception as error:
            raise SyncFailed(error) from error
        now = self._clock()
        self.core.persisted(number, now)
        return now - began


def _leave_out(ready: Ready, partition: int) -> None:
    """Drop the orders that rest on a write of this partition, which was not made."""
    ready.writes = [write for write in ready.writes if write.partition != partition]
    ready.send = {
        peer: [message for message in messages if not is_of(message, partition)]
        for peer, messages in ready.send.items()
    }
    ready.committed = [one for one in ready.committed if one[0] != partition]
    ready.reads = [replace(read, ok=read.ok and read.partition != partition) for read in ready.reads]
