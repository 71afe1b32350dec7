"""The thin shell around the core: the only place that carries out what consensus decides.

`MultiRaft` decides and touches nothing; `Storage`, the peers' connections and the clock are touched
here and decide nothing. Whatever happens (messages, beats, connections, finished syncs, new appends)
is fed to the core at once, and `schedule` asks for a *turn*: once per turn of the event loop the
core's orders are carried out, in the order of `Ready`'s fields. So everything that arrived together
shares one write, one sync and one frame per peer.

Two promises about the disk are kept here:

* Only what the core was told to be durable is (`persisted` after the sync of that very write), and a
  failed sync ends the process (rule 16, `SyncThread`).
* A node whose disk stalls does not look alive (rule 25): while one sync has been running for longer
  than the suspicion timeout, or the disk is too full to take the log, its beats are withheld, so that
  others take over what it leads.

A node whose disk is too full is *stuck*: it waits, and tries four times a second whatever else happens.
It is deaf meanwhile, for whatever it would answer rests on a write: messages are dropped, as by a network,
and time does not pass in the core, as for a process that is paused. So nothing piles up. It goes on hearing
who is alive and who leads, and its doors pass on to those.

A record that cannot be read back costs its partition at this node, and nothing else (rule 17): the core
gives the group up (`MultiRaft.quarantine`), whether the damage was met by a write, by the core, or by a
reader who says so (`Replica.quarantine`).

And one about ourselves (rule 31): whatever raises while orders are carried out or facts are fed in, an
owner's callback included, leaves a decision half done. So the replica is stopped, for good, before
anybody is told (`Owner.broken`, `Owner.sync_failed`): no later turn can confirm what this one dropped.
What can wait, as metrics can, comes behind the consequences.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import ParamSpec, Protocol, TypeVar

from allsource.cluster.consensus.messages import (
    Beat,
    Message,
    ReadResult,
    ReadRound,
    ReadRoundReply,
    Ready,
    RoleChange,
    is_of,
)
from allsource.cluster.consensus.multiraft import MultiRaft
from allsource.cluster.consensus.sense import PeerNonsense
from allsource.cluster.membership.registry import NodeRegistry
from allsource.storage.files.sync_thread import SyncThread
from allsource.storage.interface import Storage
from allsource.storage.model.entry import Entry, Part
from allsource.storage.model.errors import Corrupt, DiskFull
from allsource.storage.model.log import PartitionState

DISK_FULL_RETRY_US = 250_000
"""How soon a log that found no room on the disk is written again."""

_P = ParamSpec("_P")
_R = TypeVar("_R")

EXIT_BROKEN = 70
"""Exit status (EX_SOFTWARE) of a process that found its own state wrong."""
EXIT_SYNC_FAILED = 74
"""Exit status (EX_IOERR) of a process whose sync failed."""


class Links(Protocol):
    """The part of `PeerLinks` that a replica sends on. Neither call blocks; both may drop."""

    def send_messages(self, peer: str, messages: list[Message]) -> None: ...

    def send_beat(self, peer: str, beat: Beat) -> None: ...


class Owner(Protocol):
    """What the node does with the outcomes, and with its part of a turn."""

    def pump(self) -> bool:
        """Propose what waits. True if there is more than one turn should do."""

    def changed(self, change: RoleChange) -> None:
        """A group's role, term or leader changed."""

    def committed(self, partition: int, commit: int) -> None:
        """Everything up to `commit` is committed, and readable in storage."""

    def read_ended(self, result: ReadResult) -> None:
        """A linearizable read may be served, or not."""

    def damaged(self, partition: int, reason: str) -> None:
        """This node takes no part in the partition any more: remember it durably, and tell people."""

    def beats_sent(self, n: int) -> None:
        """So many heartbeats went out (for the metrics)."""

    def synced(self, took_us: int) -> None:
        """A sync returned (for the metrics)."""

    def stuck(self, error: DiskFull | None) -> None:
        """The log cannot be written, or (None) can again (for the log and `ready`)."""

    def sync_failed(self, error: BaseException) -> None:
        """Called in the sync thread: tell the world, then end the process at once."""

    def broken(self, error: Exception) -> None:
        """The core or the storage broke its own rules: tell the world, then end the process at once."""


class Replica:
    """See the module's page. `clock` gives microseconds of CLOCK_BOOTTIME (rule 19); `owner` is set
    before `start`."""

    owner: Owner

    def __init__(
        self,
        core: MultiRaft,
        storage: Storage,
        links: Links,
        states: Mapping[int, PartitionState],
        *,
        loop: asyncio.AbstractEventLoop,
        clock: Callable[[], int],
        suspicion_us: int,
        sync_inline: bool = False,
        wall_us: Callable[[], int] = lambda: 0,
    ) -> None:
        """`sync_inline`: a sync of this storage is as short as a write (memory, or `durability: os`),
        and is not worth a thread. `wall_us`: the time that beats tell."""
        self.core = core
        self._storage = storage
        self._links = links
        self._loop = loop
        self._clock = clock
        self._suspicion_us = suspicion_us
        self._sync_inline = sync_inline
        self._wall_us = wall_us
        self._applied = {partition: state.hard.commit for partition, state in states.items()}
        self._scheduled = False
        self._stopped = False
        self._stuck: Ready | None = None
        self._try_at = 0
        self._timer: asyncio.TimerHandle | None = None
        self._timer_due = 0
        self._syncer = SyncThread(
            loop, storage.sync, clock=clock, done=self._on_synced, failed=self._on_sync_failed
        )
        self.is_leader = core.is_leader
        self.can_propose = core.can_propose
        self.entry_term = core.entry_term
        self.propose: Callable[[int, tuple[Part, ...], int], Entry] = core.propose

    @property
    def registry(self) -> NodeRegistry:
        """This node's own directed view of the members."""
        return self.core.registry

    # -- life

    def start(self) -> None:
        """Begin: the sync thread, the timer, the first turn."""
        self._syncer.start()
        self.schedule()

    def stop(self) -> None:
        """End: no further turn, and the sync thread has finished. Storage may be closed after it."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
        self._syncer.stop()

    # -- what happened (called by the transport)

    def messages(self, peer: str, messages: list[Message]) -> None:
        """Messages of a peer's data connection. Raises `PeerNonsense`, which ends it."""
        if self._stopped or self._stuck is not None:
            return
        try:
            self._feed(self.core.receive, peer, messages, self._clock())
        except PeerNonsense:
            self.schedule()
            raise
        if (
            len(messages) == 1
            and isinstance(messages[0], ReadRound | ReadRoundReply)
            and not self._scheduled
        ):
            self._turn()  # a read waits for just this, and there is nothing to share a write with
        else:
            self.schedule()

    def beat(self, peer: str, beat: Beat) -> None:
        """A peer's heartbeat. Raises `PeerNonsense`, which ends its connection."""
        self._hear(self.core.receive_beat, peer, beat, self._clock())
        if self._stuck is not None:
            self._note_leaders(peer, beat)

    def _note_leaders(self, peer: str, beat: Beat) -> None:
        """What the core would tell the registry with its next orders, which it is not asked for."""
        for line in beat.groups:
            if line.leader == peer:
                self.registry.record_leader(line.partition, peer, line.term)

    def connected(self, peer: str) -> None:
        """Both our connections to the peer finished their handshakes."""
        self._hear(self.core.peer_connected, peer, self._clock())

    def lost(self, peer: str) -> None:
        """EOF or reset on a connection with the peer."""
        self._hear(self.core.peer_lost, peer, self._clock())

    def refused(self, peer: str) -> None:
        """The peer's address refuses connections."""
        self._hear(self.core.peer_refused, peer, self._clock())

    def _hear(self, fact: Callable[_P, None], *args: _P.args, **kwargs: _P.kwargs) -> None:
        if not self._stopped:
            try:
                self._feed(fact, *args, **kwargs)
            finally:
                self.schedule()

    def _feed(self, fact: Callable[_P, _R], *args: _P.args, **kwargs: _P.kwargs) -> _R:
        """Tell the core something; if it finds its rules broken, go no further. A peer's nonsense broke
        none of them: it is for the connection that brought it."""
        try:
            return fact(*args, **kwargs)
        except PeerNonsense:
            raise
        except Exception as error:
            self._break(error)
            raise

    # -- what the node asks

    def read(self, partition: int, ticket: object, min_index: int) -> None:
        """Ask for a read barrier; the answer comes to `owner.read_ended`."""
        if self._stuck is not None:
            self.owner.read_ended(ReadResult(ticket, partition, 0, ok=False))
        elif not self._stopped:
            self._feed(self.core.read, partition, ticket, min_index, self._clock())
            self.schedule()

    def hand_over(self) -> bool:
        """Leaving: move every leadership away. True when nothing is left to move."""
        if self._stopped:
            return True
        done = self._feed(self.core.hand_over, self._clock())
        self.schedule()
        return done

    def quarantine(self, partition: int, error: Corrupt) -> None:
        """A reader met a damaged record of the partition: take no part in it from now on."""
        if partition in self._applied:
            self._give_up(partition, error.message)
            self.schedule()

    def _give_up(self, partition: int, reason: str) -> None:
        self._applied.pop(partition, None)
        self._feed(self.core.quarantine, partition, reason, self._clock())

    def save_commits(self) -> None:
        """Have storage know, when this returns, the commit index of everything acknowledged so far.

        Raises `DiskFull` if the log cannot be written now.
        """
        self._feed(self.core.save_commits)
        self._turn()
        if self._stuck is not None:
            raise DiskFull("the disk is full: the log cannot be written; nothing was done, try again later")

    def yield_leadership(self, yields: bool) -> None:
        """Lead only where nobody else can (the disk is nearly full), or as placement says again."""
        self._hear(self.core.yield_leadership, yields, self._clock())

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
            self._stuck is not None and self.core.is_leader(partition)
        )

    @property
    def is_stuck(self) -> bool:
        """Whether the log cannot be written because the disk is full."""
        return self._stuck is not None

    # -- the turn

    def schedule(self) -> None:
        """Ask for a turn in this iteration of the loop; many calls make one."""
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        self._scheduled = False
        if self._stopped:
            return
        try:
            self._carry_out_all()
        except Exception as error:
            # Orders were taken from the core and not carried out: nothing can be trusted any more.
            self._break(error)
            raise

    def _break(self, error: Exception) -> None:
        if not self._stopped:  # a failed sync has been told already
            self._stopped = True
            self.owner.broken(error)

    def _carry_out_all(self) -> None:
        if self._stuck is not None and not self._try_again():
            self._arm(self._try_at)
            return
        if self.owner.pump():
            self.schedule()
        core = self.core
        while (ready := core.ready()) is not None:
            if not self._carry_out(ready):
                return
        self._arm(core.next_deadline())

    def _carry_out(self, ready: Ready) -> bool:
        if not self._write(ready):
            return False
        if ready.number and not self._sync_inline:
            self._syncer.request(ready.number)
        beats_sent = 0
        for peer, messages in ready.send.items():
            self._links.send_messages(peer, messages)
        if ready.beats and self._syncer.running_for(self._clock()) <= self._suspicion_us:
            wall_us = self._wall_us()
            for peer, beat in ready.beats.items():
                beat.wall_us = wall_us
                self._links.send_beat(peer, beat)
            beats_sent = len(ready.beats)
        owner = self.owner
        for change in ready.changes:
            owner.changed(change)
        for partition, commit in ready.committed:
            if partition in self._applied:
                self._applied[partition] = commit
                owner.committed(partition, commit)
        for result in ready.reads:
            owner.read_ended(result)
        if ready.number and self._sync_inline:
            self._sync_now(ready.number)
        for partition, reason in ready.damaged:
            self._applied.pop(partition, None)
            owner.damaged(partition, reason)
        if beats_sent:
            owner.beats_sent(beats_sent)
        return True

    def _write(self, ready: Ready) -> bool:
        """Store what the orders say, without the partitions that turn out to be damaged. False: no room."""
        while ready.writes:
            try:
                self._storage.write(ready.writes)
                return True
            except DiskFull as error:
                self._stuck = ready
                self._try_at = self._clock() + DISK_FULL_RETRY_US
                self._arm(self._try_at)
                self.owner.stuck(error)
                return False
            except Corrupt as error:
                partition = error.details.get("partition")
                if partition not in [write.partition for write in ready.writes]:
                    raise
                _leave_out(ready, partition)
                self._give_up(partition, error.message)
                self.schedule()
        return True

    def _sync_now(self, number: int) -> None:
        began = self._clock()
        try:
            self._storage.sync()
        except Exception as error:
            self._on_sync_failed(error)
            raise
        now = self._clock()
        self.core.persisted(number, now)
        self.owner.synced(now - began)

    def _try_again(self) -> bool:
        """Write what found no room. Until it succeeds nothing else of the core's orders is carried
        out, beats included, so the others stop counting on this node."""
        if self._clock() < self._try_at:
            return False
        ready, self._stuck = self._stuck, None
        assert ready is not None
        if not self._carry_out(ready):
            return False
        self.owner.stuck(None)
        return True

    # -- syncs

    def _on_synced(self, number: int, took_us: int) -> None:
        if self._stopped:
            return
        self._feed(self.core.persisted, number, self._clock())
        self._turn()
        self.owner.synced(took_us)

    def _on_sync_failed(self, error: BaseException) -> None:
        """In the sync thread, or in a turn: from now on this node says nothing, whatever `owner` does."""
        self._stopped = True
        self.owner.sync_failed(error)

    # -- time

    def _arm(self, due: int) -> None:
        """Have the timer ring at `due`; one that rings earlier anyway is left alone."""
        if self._timer is not None:
            if self._timer_due <= due:
                return
            self._timer.cancel()
        self._timer_due = due
        delay_us = max(0, due - self._clock())
        self._timer = self._loop.call_later(delay_us / 1_000_000, self._ring)

    def _ring(self) -> None:
        self._timer = None
        if self._stopped:
            return
        if self._stuck is None:
            self._feed(self.core.tick, self._clock())
        self._turn()


def _leave_out(ready: Ready, partition: int) -> None:
    """Drop the orders that rest on a write of this partition, which was not made."""
    ready.writes = [write for write in ready.writes if write.partition != partition]
    ready.send = {
        peer: [message for message in messages if not is_of(message, partition)]
        for peer, messages in ready.send.items()
    }
    ready.committed = [one for one in ready.committed if one[0] != partition]
    ready.reads = [replace(read, ok=read.ok and read.partition != partition) for read in ready.reads]
