"""Which nodes keep a partition, and which of them should lead it: two pure functions of the members.

Every process computes placement for itself and all must agree without talking, so nothing here may
depend on anything but the arguments: the members in the order of the YAML, and who is healthy.

Two questions, kept apart because they change at different times (RULES.md, "Three things kept
apart"). `replica_sets` follows membership alone: who keeps the data. `owners` follows liveness too:
who of them should lead. A wrong suspicion therefore moves leaderships, never data.

What `owners` promises:

* All healthy: partition p belongs to `members[p % n]` (32; 16 and 16; 8 each of 4; 4 each of 8).
* A healthy member that does not yield keeps all that it would own with everybody healthy. Only partitions
  whose first choice is down, or yields, are dealt to others, and they go home when it is back.
* A member that yields (its disk is nearly full, or it is shutting down) leads only where no other
  healthy replica could.
* The dealt counts are as even as the replica sets allow: no chain of moves of dealt partitions would
  even them out further. That costs one thing, and knowingly: when a *second* member goes down, a
  partition of the first one may be dealt once more, because a balanced deal that depends on the set
  of healthy members alone, and not on the order of the losses, cannot always keep it where it was.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Sequence

ReplicaSets = tuple[tuple[str, ...], ...]
Owners = tuple[str | None, ...]


def replica_sets(members: Sequence[str], partition_count: int, replication_factor: int) -> ReplicaSets:
    """The replicas of each partition; the first of each is the preferred owner.

    With fewer members than `replication_factor`, all of them. Every member gets the same number of
    replicas, give or take one. The followers' order shifts by one with each round over the members,
    as in Kafka's `assignReplicasToBrokers`, so that a lost node's partitions spread over all others.
    """
    if replication_factor < 1:
        raise ValueError(f"replication factor {replication_factor} is below 1")
    if len(set(members)) != len(members):
        raise ValueError(f"a member is named twice: {list(members)}")
    if not members:
        return ((),) * partition_count
    size = min(replication_factor, len(members))
    turns, left = divmod(partition_count, len(members))
    full = [_shifted(members, i, turn)[:size] for turn in range(turns) for i in range(len(members))]
    last = [_shifted(members, i, turns)[:size] for i in range(left)]
    _even_round(members, last)
    return tuple(tuple(group) for group in full + last)


def _shifted(members: Sequence[str], leader: int, turn: int) -> list[str]:
    """`members[leader]`, and the others in the order in which they follow it in round `turn`."""
    n = len(members)
    return [members[leader], *(members[(leader + 1 + (turn + j) % (n - 1)) % n] for j in range(n - 1))]


def _even_round(members: Sequence[str], round_: list[list[str]]) -> None:
    """Replace followers until all members have equally many replicas, give or take one.

    In a full round everybody follows equally often; in a part of one they do not. A replacement is
    always there: a member with at least two more than another is in at least two groups without the
    other, and leads at most one of them.
    """
    load = {member: sum(member in group for group in round_) for member in members}
    while (
        load[most := max(members, key=load.__getitem__)]
        > load[least := min(members, key=load.__getitem__)] + 1
    ):
        group = next(group for group in round_ if most in group[1:] and least not in group)
        group[group.index(most)] = least
        load[most] -= 1
        load[least] += 1


def owners(
    replicas: Sequence[Sequence[str]], healthy: Collection[str], yielding: Collection[str] = ()
) -> Owners:
    """Who should lead each partition; None where no replica is healthy. See the module's page."""
    choices = [_choices(group, healthy, yielding) for group in replicas]
    owner = [candidates[0] if candidates else None for candidates in choices]
    owned = {member: owner.count(member) for group in choices for member in group}
    dealt = [p for p, member in enumerate(owner) if member is not None and member != replicas[p][0]]
    while _even_out(owner, owned, choices, dealt):
        pass
    return tuple(owner)


def _choices(group: Sequence[str], healthy: Collection[str], yielding: Collection[str]) -> list[str]:
    able = [member for member in group if member in healthy]
    return [member for member in able if member not in yielding] or able


def _even_out(
    owner: list[str | None], owned: dict[str, int], choices: list[list[str]], dealt: list[int]
) -> bool:
    """Hand dealt partitions on along one chain from a member that owns at least two more than its end.

    A partition whose first choice is down falls to the next healthy replica; that is not even yet, and
    to move one partition at a time is not enough: a place may have to be made first. Chains that reduce
    the difference are (Harvey, Ladner, Lovász, Tamir, "Semi-matchings for bipartite graphs and load
    balancing", 2003). False when there is none.
    """
    for start in sorted(owned, key=lambda member: (-owned[member], member)):
        came_by: dict[str, int] = {start: -1}  # member -> the partition that it would take over
        queue = deque([start])
        while queue:
            giver = queue.popleft()
            if owned[giver] <= owned[start] - 2:
                _hand_on(owner, owned, came_by, giver)
                return True
            for partition in dealt:
                if owner[partition] == giver:
                    for taker in choices[partition]:
                        if taker not in came_by:
                            came_by[taker] = partition
                            queue.append(taker)
    return False


def _hand_on(owner: list[str | None], owned: dict[str, int], came_by: dict[str, int], end: str) -> None:
    """Carry out the chain that ends at `end`: each member on it takes one partition of the one before."""
    taker = end
    while (partition := came_by[taker]) >= 0:
        giver = owner[partition]
        assert giver is not None, "a dealt partition has an owner"
        owner[partition] = taker
        owned[taker] += 1
        owned[giver] -= 1
        taker = giver


def hosted_by(node_id: str, replicas: ReplicaSets) -> tuple[int, ...]:
    """The partitions that a member keeps."""
    return tuple(p for p, group in enumerate(replicas) if node_id in group)


def succession(
    replica_set: Sequence[str],
    owner: str | None,
    healthy: Collection[str],
    yielding: Collection[str] = (),
) -> tuple[str, ...]:
    """The order in which a partition's replicas should stand for election.

    The owner that placement names first, then the other healthy ones in replica order, those that yield
    last; those that are down do not stand at all.
    """
    first = [owner] if owner is not None and owner in replica_set and owner in healthy else []
    others = [member for member in replica_set if member in healthy and member != owner]
    return (*first, *sorted(others, key=lambda member: member in yielding))
