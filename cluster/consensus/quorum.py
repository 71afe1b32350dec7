"""Majorities, also of two voter sets at once (joint consensus, Raft §6).

Every decision of a group is one of two questions: which index has a majority stored, and has a
majority said yes. Under a joint configuration both voter sets must agree; two decisions then always
share a voter, whichever sets they were made in, and that voter is why nothing is lost.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from allsource.storage.model.entry import Configuration


def stored_by_majority(configuration: Configuration, match: Mapping[str, int]) -> int:
    """The highest index that a majority of every voter set has stored durably (0 if unknown).

    Given times instead of indexes, it is the latest moment since which a majority has been heard.
    """
    index = _stored(configuration.voters, match)
    if configuration.outgoing:
        index = min(index, _stored(configuration.outgoing, match))
    return index


def _stored(voters: Collection[str], match: Mapping[str, int]) -> int:
    ranked = sorted([match.get(voter, 0) for voter in voters])
    return ranked[(len(ranked) - 1) // 2] if ranked else 0


def has_majority(configuration: Configuration, agreed: Collection[str]) -> bool:
    """Whether a majority of every voter set is among `agreed`."""
    return _agree(configuration.voters, agreed) and (
        not configuration.outgoing or _agree(configuration.outgoing, agreed)
    )


def _agree(voters: Collection[str], agreed: Collection[str]) -> bool:
    return 2 * sum([voter in agreed for voter in voters]) > len(voters)


def cannot_win(configuration: Configuration, refused: Collection[str]) -> bool:
    """Whether so many refused that no majority is left to win."""
    return _blocked(configuration.voters, refused) or (
        bool(configuration.outgoing) and _blocked(configuration.outgoing, refused)
    )


def _blocked(voters: Collection[str], refused: Collection[str]) -> bool:
    return 2 * sum([voter not in refused for voter in voters]) <= len(voters)
