"""What a group needs of the node around it, and the knobs of its timing and flow control."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class ConsensusConfig:
    """Timing and flow control. Times in microseconds."""

    heartbeat_us: int = 100_000
    suspicion_us: int = 500_000
    """Silence after which a leader is given up, and within which a voter sticks to it (rule 12)."""
    stagger_us: int = 15_000
    """How long each further-ranked successor waits before it stands too (rule 13)."""
    retry_us: int = 60_000
    """A group without a leader tries again after one to two of these."""
    notice_us: int = 10_000
    """How long followers may wait to hear of a commit that no append carried to them."""
    append_bytes_max: int = 128 << 10
    """Entries in one Append message, if it holds more than one. A follower takes it in one piece. What it
    costs to decode goes by appends, not by entries: 1.5 us for each, so 0.8 ms for 128 KiB of those of 250
    bytes. One entry may be larger: as large as one append, or as what shares an entry
    (`node.requests.lanes`)."""
    inflight_messages_max: int = 64
    inflight_bytes_max: int = 8 << 20
    uncommitted_bytes_max: int = 32 << 20
    """Per partition; beyond it appends are refused (rule 21)."""
    catch_up_bytes_per_s: int = 32 << 20
    """Entries read from disk for followers that are far behind, for the whole node (rule 23)."""


class Environment(Protocol):
    """The node, as one of its groups sees it."""

    node_id: str
    config: ConsensusConfig

    def touch(self, partition: int) -> None:
        """The group has something for the next Ready."""

    def wake_at(self, when: int) -> None:
        """The group's `tick` has something to do at `when`."""

    def jitter(self, span: int) -> int:
        """A seeded random integer from 0 to `span`, both included."""
        ...

    def reaches(self, peer: str) -> bool:
        """Whether sending to the peer makes sense (our own registry does not say that it is down)."""
        ...

    def lane_moved(self, peer: str, now: int) -> None:
        """Something that our data connection to the peer carried has arrived there."""

    def lane_moves(self, peer: str, now: int) -> bool:
        """Whether what we send the peer has arrived lately, given how much is under way."""
        ...

    def lane_carries(self, peer: str, now: int) -> bool:
        """Whether something that is sent to the peer now would arrive, if it lives, as far as is known."""
        ...

    def may_stand(self) -> bool:
        """Whether this node may campaign: not leaving, and it trusts itself (rule 26)."""
        ...

    def sync_us(self) -> int:
        """How long this node's own writes lately waited for their sync; 0 if none has ended yet."""
        ...

    def rank(self, partition: int) -> int | None:
        """This node's place among the healthy successors (0 stands first), None if it is not one."""
        ...

    def may_send(self, partition: int, now: int, *, from_disk: bool) -> bool:
        """Whether entries may be sent to a follower now, `from_disk` if they must be read from there; if
        not, the group is touched again when they may (rules 23 and 37)."""
        ...

    def sent(self, size: int, *, from_disk: bool) -> None:
        """So many bytes of entries are on their way to a follower."""
