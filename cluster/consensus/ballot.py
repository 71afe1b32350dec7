"""The votes for one candidate in one term, or in the pre-vote for it (Raft §5.2, thesis §9.6)."""

from __future__ import annotations

from allsource.cluster.consensus.quorum import cannot_win, has_majority
from allsource.storage.model.entry import Configuration


class Ballot:
    """Counted by the configuration in force; the candidate votes for itself."""

    __slots__ = ("_granted", "_refused")

    def __init__(self, candidate: str) -> None:
        self._granted = {candidate}
        self._refused: set[str] = set()

    def cast(self, voter: str, *, granted: bool) -> None:
        """A voter has answered."""
        (self._granted if granted else self._refused).add(voter)

    def is_won(self, configuration: Configuration) -> bool:
        """Whether a majority has said yes."""
        return has_majority(configuration, self._granted)

    def is_lost(self, configuration: Configuration) -> bool:
        """Whether so many have said no that it cannot be won any more."""
        return cannot_win(configuration, self._refused)
