"""All the groups of one node as one machine without I/O: groups, failure detector, placement, reads.

SKELETON: the interface that the shell (cluster/replica.py) and the simulation drive.

The shell's loop is the same few calls in order: feed what happened (messages, beats, connections,
the time, proposals, finished syncs), then take `ready()` and carry out its orders. Every input takes
`now` in microseconds of one monotonic clock. Nothing here blocks, reads a clock or draws a random
number that was not seeded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from allsource.cluster.consensus.messages import Beat, Message, Ready
from allsource.storage.entry import Entry, Part
from allsource.storage.interface import PartitionState


class LogReader(Protocol):
    """The part of `Storage` that consensus reads: entries that are no longer in its memory."""

    def entries(self, partition: int, first: int, last: int, bytes_max: int) -> list[Entry]: ...


@dataclass(frozen=True, slots=True)
class ConsensusConfig:
    """Timing and flow control. Times in microseconds."""

    heartbeat_us: int = 100_000
    suspicion_us: int = 500_000
    stagger_us: int = 15_000
    """How long each further-ranked successor waits before it stands too (rule 13)."""
    append_bytes_max: int = 1 << 20
    """Entries in one Append message."""
    inflight_messages_max: int = 64
    inflight_bytes_max: int = 8 << 20
    uncommitted_bytes_max: int = 32 << 20
    """Per partition; beyond it appends are refused (rule 21)."""
    catch_up_bytes_per_s: int = 32 << 20
    """Entries read from disk for followers that are far behind, for the whole node (rule 23)."""


class MultiRaft:
    def __init__(
        self,
        node_id: str,
        members: tuple[str, ...],
        states: Mapping[int, PartitionState],
        reader: LogReader,
        *,
        config: ConsensusConfig,
        replication_factor: int,
        partition_count: int,
        seed: int,
        now: int,
    ) -> None:
        """`members`: all node ids of the cluster in the order of the YAML. `states`: one for every
        partition that this node hosts (placement says which). An empty log is bootstrapped with the
        configuration entry that every replica writes alike (index 1, term 0, committed)."""
        raise NotImplementedError

    # -- inputs

    def receive(self, sender: str, messages: list[Message], now: int) -> None:
        """Messages from a peer's data connection, in order."""
        raise NotImplementedError

    def receive_beat(self, sender: str, beat: Beat, now: int) -> None:
        """A heartbeat from a peer."""
        raise NotImplementedError

    def peer_connected(self, peer: str, now: int) -> None:
        """A handshake with the peer finished (our connection to it): it is alive and hears us."""
        raise NotImplementedError

    def peer_lost(self, peer: str, now: int) -> None:
        """EOF or reset on a connection with the peer: a hint, not a death (rule 29)."""
        raise NotImplementedError

    def peer_refused(self, peer: str, now: int) -> None:
        """A reconnect was refused: its process is gone."""
        raise NotImplementedError

    def tick(self, now: int) -> None:
        """Let time pass. Call at `next_deadline()`, and at least every heartbeat interval."""
        raise NotImplementedError

    def persisted(self, number: int, now: int) -> None:
        """A sync that began after write `number` has returned (so all lower numbers are durable)."""
        raise NotImplementedError

    def propose(self, partition: int, parts: tuple[Part, ...], timestamp_us: int) -> Entry:
        """Append an entry at this node, which must lead the partition (`can_propose`). The parts'
        versions were checked by the caller against heads that include what is not committed.
        The returned entry's `(term, index)` is the key of the pending answer."""
        raise NotImplementedError

    def can_propose(self, partition: int) -> bool:
        """Leader, not handing leadership over, and uncommitted bytes below the limit."""
        raise NotImplementedError

    def read(self, partition: int, ticket: object, min_index: int, now: int) -> None:
        """Ask for a linearizable read at the leader. `ReadResult(ticket, ...)` comes in a later Ready,
        not before everything up to `min_index` (0 for none) is committed too. Not leader: `ok` False."""
        raise NotImplementedError

    def hand_over(self, now: int) -> bool:
        """Shutting down: move every leadership to a caught-up peer. True when none is left here (or
        none can be moved); call again after further Readys. Once called, this node no longer campaigns."""
        raise NotImplementedError

    # -- outputs

    def ready(self) -> Ready | None:
        """The orders since the last call, None if there are none. Ends a batch: see `Ready`."""
        raise NotImplementedError

    def next_deadline(self) -> int:
        """When `tick` has something to do, at the latest."""
        raise NotImplementedError

    # -- what others may look at (never change)

    def leader_of(self, partition: int) -> str | None:
        """The leader of a hosted partition as this node knows it, or, of one that it does not host,
        the node whose beats say so."""
        raise NotImplementedError

    def is_leader(self, partition: int) -> bool:
        raise NotImplementedError

    def commit_index(self, partition: int) -> int:
        """0 for a partition that is not hosted here."""
        raise NotImplementedError
