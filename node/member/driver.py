"""Gives a replica its turns on the event loop, and has its outcomes acted on.

What happens is fed to the replica at once, and `schedule` asks for a *turn*: once in an iteration of the
loop this node's own work is proposed (`Work.pump`), then orders are carried out one after another, and what
came of each is acted on (`Work.act`) before the next. So everything that arrived together shares one write,
one sync and one frame for each peer.

A promise about ourselves is kept here (rule 31): whatever raises while facts are fed in, orders are carried
out or outcomes are acted on, leaves a decision half done. So the driver stops for good *before* anybody is
told (`Work.broken`, `Work.sync_failed`): no later turn can confirm what this one dropped. What can wait, as
metrics can, comes behind the consequences.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Generic, ParamSpec, Protocol, TypeVar

from allsource.cluster.consensus.messages import Beat, Message, ReadResult, ReadRound, ReadRoundReply
from allsource.cluster.consensus.multiraft import MultiRaft
from allsource.cluster.consensus.sense import PeerNonsense
from allsource.cluster.shell.replica import Links, Outcome, Replica, SyncFailed
from allsource.storage.files.sync_thread import SyncThread
from allsource.storage.interface import Storage
from allsource.storage.model.errors import Corrupt, DiskFull
from allsource.storage.model.log import PartitionState

_P = ParamSpec("_P")
_R = TypeVar("_R")


class Work(Protocol):
    """What a node does in its turns, and with their outcomes."""

    def pump(self) -> bool:
        """Propose what waits. True if there is more than one turn should do."""

    def act(self, outcome: Outcome) -> None:
        """Orders were carried out: tell those who wait, then people and counters."""

    def synced(self, took_us: int) -> None:
        """The sync thread has synced once (for the metrics)."""

    def stuck(self, error: DiskFull | None) -> None:
        """The log cannot be written, told after each attempt; or (None) can again."""

    def sync_failed(self, error: BaseException) -> None:
        """End the process at once (rule 16). May be called in the sync thread."""

    def broken(self, error: Exception) -> None:
        """The core or the storage broke its own rules: end the process at once."""


_W = TypeVar("_W", bound=Work)


class Driver(Generic[_W]):
    """See the module's page. `work` is what it works for."""

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
        work: Callable[[Driver[_W]], _W],
        sync_inline: bool = False,
        wall_us: Callable[[], int] = lambda: 0,
    ) -> None:
        """`work` makes what this driver works for, which in turn asks it for turns. `sync_inline`: a sync
        of this storage is as short as a write. The rest as for `Replica`."""
        self._loop = loop
        self._clock = clock
        self._is_scheduled = False
        self._stopped = False
        self._told: DiskFull | None = None
        """What `Work.stuck` was told last."""
        self._timer: asyncio.TimerHandle | None = None
        self._timer_due = 0
        self._sync_thread = (
            None
            if sync_inline
            else SyncThread(loop, storage.sync, clock=clock, done=self._synced, failed=self._sync_failed)
        )
        self.replica = Replica(
            core,
            storage,
            links,
            states,
            clock=clock,
            suspicion_us=suspicion_us,
            syncs=self._sync_thread,
            wall_us=wall_us,
        )
        self.is_leader = self.replica.is_leader
        self.can_propose = self.replica.can_propose
        self.entry_term = self.replica.entry_term
        self.next_index = self.replica.next_index
        self.propose = self.replica.propose
        self.commit_index = self.replica.commit_index
        self.hosts = self.replica.hosts
        self.leader_of = self.replica.leader_of
        self.quorum_is_up = self.replica.quorum_is_up
        self.is_handing_over = self.replica.is_handing_over
        self.work = work(self)

    # -- life

    def start(self) -> None:
        """Begin: the sync thread, the timer, the first turn."""
        if self._sync_thread is not None:
            self._sync_thread.start()
        self.schedule()

    def stop(self) -> None:
        """End: no further turn, and the sync thread has finished. Storage may be closed after it."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
        if self._sync_thread is not None:
            self._sync_thread.stop()

    # -- what happened (called by the transport)

    def messages(self, peer: str, messages: list[Message]) -> None:
        """Messages of a peer's data connection. Raises `PeerNonsense`, which ends it."""
        if self._stopped:
            return
        try:
            self.replica.messages(peer, messages)
        except PeerNonsense:  # it broke no rule of ours: it is for the connection that brought it
            self.schedule()
            raise
        except Exception as error:
            self._break(error)
            raise
        if (
            len(messages) == 1
            and isinstance(messages[0], ReadRound | ReadRoundReply)
            and not self._is_scheduled
        ):
            self._turn()  # a read waits for just this, and there is nothing to share a write with
        else:
            self.schedule()

    def beat(self, peer: str, beat: Beat) -> None:
        """A peer's heartbeat. Raises `PeerNonsense`, which ends its connection."""
        self._feed(self.replica.beat, peer, beat)

    def connected(self, peer: str) -> None:
        """Both our connections to the peer finished their handshakes."""
        self._feed(self.replica.connected, peer)

    def lost(self, peer: str) -> None:
        """EOF or reset on a connection with the peer."""
        self._feed(self.replica.lost, peer)

    def refused(self, peer: str) -> None:
        """The peer's address refuses connections."""
        self._feed(self.replica.refused, peer)

    # -- what the node asks

    def read(self, partition: int, ticket: object, min_index: int) -> None:
        """Ask for a read barrier; the answer is among the `reads` of an outcome."""
        if self._stopped:
            return
        if self.replica.stuck is not None:
            self.work.act(Outcome(reads=(ReadResult(ticket, partition, 0, ok=False),)))
            return
        try:
            self.replica.read(partition, ticket, min_index)
        except Exception as error:
            self._break(error)
            raise
        self.schedule()

    def quarantine(self, partition: int, error: Corrupt) -> None:
        """A reader met a damaged record of the partition: take no part in it from now on."""
        self._feed(self.replica.quarantine, partition, error.message)

    def yield_leadership(self, yields: bool) -> None:
        """Lead only where nobody else can (the disk is nearly full), or as placement says again."""
        self._feed(self.replica.yield_leadership, yields)

    def hand_over(self) -> bool:
        """Leaving: move every leadership away. True when nothing is left to move."""
        return self._stopped or bool(self._feed(self.replica.hand_over))

    def save_commits(self) -> None:
        """Have storage know, when this returns, the commit index of everything acknowledged so far.

        Raises `DiskFull` if the log cannot be written now.
        """
        self._guard(self.replica.core.save_commits)
        self._turn()
        if self.replica.stuck is not None:
            raise DiskFull("the disk is full: the log cannot be written; nothing was done, try again later")

    def _feed(self, fact: Callable[_P, _R], *args: _P.args, **kwargs: _P.kwargs) -> _R | None:
        """Tell the replica something, and ask for a turn."""
        try:
            return self._guard(fact, *args, **kwargs)
        finally:
            self.schedule()

    def _guard(self, fact: Callable[_P, _R], *args: _P.args, **kwargs: _P.kwargs) -> _R | None:
        """Tell the replica something; if that finds a rule broken, go no further. What a peer said against
        the rules (`PeerNonsense`) broke none of ours: it is for the connection that brought it."""
        if self._stopped:
            return None
        try:
            return fact(*args, **kwargs)
        except PeerNonsense:
            raise
        except Exception as error:
            self._break(error)
            raise

    # -- the turn

    def schedule(self) -> None:
        """Ask for a turn in this iteration of the loop; many calls make one."""
        if not self._is_scheduled:
            self._is_scheduled = True
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        self._is_scheduled = False
        if self._stopped:
            return
        try:
            self._carry_out_all()
        except SyncFailed as error:
            self._sync_failed(error.reason)
            raise
        except Exception as error:
            # Orders were taken from the core and not carried out: nothing can be trusted any more.
            self._break(error)
            raise

    def _carry_out_all(self) -> None:
        replica, act = self.replica, self.work.act
        if replica.stuck is not None:
            outcome = replica.carry_out()
            if outcome is not None:
                act(outcome)
        if replica.stuck is None:
            if self.work.pump():
                self.schedule()
            while (outcome := replica.carry_out()) is not None:
                act(outcome)
        self._arm(replica.next_deadline)
        if replica.stuck is not self._told:
            self._told = replica.stuck
            self.work.stuck(self._told)

    def _break(self, error: Exception) -> None:
        if not self._stopped:  # a failed sync has been told already
            self._stopped = True
            self.work.broken(error)

    # -- syncs

    def _synced(self, number: int, took_us: int) -> None:
        if self._stopped:
            return
        self._guard(self.replica.persisted, number)
        self._turn()
        self.work.synced(took_us)

    def _sync_failed(self, error: BaseException) -> None:
        """In the sync thread, or in a turn: from now on this node says nothing, whatever becomes of the
        rest."""
        self._stopped = True
        self.work.sync_failed(error)

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
        if not self._stopped:
            self._guard(self.replica.tick)
            self._turn()
