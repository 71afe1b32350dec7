"""When a group of this node stands for election, and when it leaves elections to others.

Rules 12 and 13: an election is due after a random silence of the leader (Raft §5.2), sooner when the
registry knows that the leader is gone, and then in the order of the ranks. Rule 35: who led and could not
replicate lets others lead first. What a vote is worth, `voter` knows; here are only times, in microseconds.
"""

from __future__ import annotations

from allsource.cluster.consensus.environment import Environment

LET_OTHERS_SUSPICIONS = 2
"""A leader that could not replicate leaves the next election to the others for so many suspicion times;
twice as long each further time, up to four times that."""
VAIN_LEADERSHIPS_MAX = 2
"""From this many vain leaderships on, waiting grows no longer."""
WANT_AGAIN_GROWTH = 4
"""As its owner (rule 36) it asks for the leadership back after the same time at first, and after so many
times as long each further time: others lead meanwhile."""
ELECTION_SYNCS = 3
"""An election takes two syncs one after the other, the candidate's and the voters', and may find each disk
busy with another."""
VAIN_TERMS_MAX = 8
"""From this many vain terms on, the time between two elections grows no longer."""


class Candidacy:
    """One group's. The methods that give a time say when the group is to look next."""

    def __init__(self, partition: int, environment: Environment) -> None:
        self.may_stand_us = 0
        """Until then the others stand."""
        self._partition = partition
        self._environment = environment
        self._vain_terms = 0
        self._vain_leaderships = 0
        self._wants_again_us = 0

    # -- what happened

    def term_began(self) -> None:
        """A new term, without a leader yet."""
        self._vain_terms = min(self._vain_terms + 1, VAIN_TERMS_MAX)

    def leader_found(self) -> None:
        """The term has a leader."""
        self._vain_terms = 0

    def led_in_vain(self, now: int) -> None:
        """This node led and could not replicate."""
        vain = self._vain_leaderships
        wait = LET_OTHERS_SUSPICIONS * self._environment.config.suspicion_us << vain
        self._vain_leaderships = min(vain + 1, VAIN_LEADERSHIPS_MAX)
        self.may_stand_us = now + wait
        self._wants_again_us = now + wait * WANT_AGAIN_GROWTH**vain

    def committed(self) -> None:
        """This node leads, and something was committed."""
        self._vain_leaderships = 0

    def peer_reachable(self, now: int) -> None:
        """A peer is back: perhaps it can be replicated to now."""
        self.may_stand_us = min(self.may_stand_us, now)

    # -- what follows from it

    def lets_others_lead_for(self, now: int) -> int:
        """For how long this node, which led in vain, does not want to be given the group; 0 if it does."""
        return max(0, self._wants_again_us - now)

    def if_leader_falls_silent(self, now: int) -> int:
        """The fallback timeout of Raft §5.2, randomised; the registry's word usually comes first."""
        span = self._environment.config.suspicion_us
        return now + span + self._environment.jitter(span)

    def soon(self, now: int) -> int:
        """No leader is known: after a short random while, later ranks later.

        An election must have the time that it needs (the broadcast time of Raft §5.6), and each vote
        waits for a sync. Where a sync takes longer than a retry, a candidate would else give itself up
        before the first vote can be there, and leadership fall to whoever stands in the luckiest term,
        not to whom it was handed. The others' disks are taken for like ours; if they are slower, or
        votes are split, elections that came to nothing double the while. The suspicion time bounds it.
        """
        config = self._environment.config
        rank = self._environment.rank(self._partition)
        needed = max(
            config.retry_us << max(0, self._vain_terms - 1), ELECTION_SYNCS * self._environment.sync_us()
        )
        span = min(needed, config.suspicion_us)
        wait = span + self._environment.jitter(span)
        return now + wait + (3 if rank is None else rank) * config.stagger_us

    def by_rank(self, deadline: int, now: int) -> int:
        """The leader is gone: the preferred successor at once, the others a stagger later each; not later
        than at `deadline`."""
        rank = self._environment.rank(self._partition)
        if rank is None:
            return self.soon(now)
        return min(deadline, now + rank * self._environment.config.stagger_us)
