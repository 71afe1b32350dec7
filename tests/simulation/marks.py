"""Judging what became of marks: each is a register that only moves on, by generation and then by position.

A move that was acknowledged is in the log; one that was refused had no room behind what was there; a read
sees what was acknowledged, or read, before it began. Each move of a history is made by one append alone.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

from allsource.storage.model.entry import Mark
from tests.simulation.evidence import Evidence, name_of
from tests.simulation.history import (
    A_MARK,
    LINEARIZABLE,
    OK,
    REJECTED,
    AppendOperation,
    ReadOperation,
    Unmoved,
)

State = tuple[int, int]
"""`(generation, position)`: later states are higher. Zeros before the first move."""

NEVER_SET: State = (0, 0)


class _Known(NamedTuple):
    """Somebody knew at a time that the mark had come as far as this."""

    at: int
    state: State


def marks(evidence: Evidence) -> list[str]:
    """Checker 10: marks move forward only, for those alone who were told so, and reads see it."""
    complaints = []
    for (partition, name), moves in evidence.marks.items():
        for (before, _), (mark, place) in pairwise(moves):
            if _state(mark) <= _state(before):
                complaints.append(f"{partition}/{place.index} moves mark {name} from {before} to {mark}")
    for operation in evidence.acknowledged():
        complaints += _unstored(evidence, operation)
    known = _known(evidence)
    for operation in evidence.history.appends:
        if operation.outcome == REJECTED and isinstance(operation.conflict, Unmoved):
            complaints += _bad_refusal(evidence, operation, operation.conflict, known)
    for read in evidence.history.reads:
        if read.outcome == OK and read.stream.startswith(A_MARK):
            complaints += _bad_read(evidence, read, known)
    return complaints


def _state(mark: Mark) -> State:
    return mark.generation, mark.position


def _unstored(evidence: Evidence, operation: AppendOperation) -> list[str]:
    """An append that was acknowledged has moved its marks, at the place that it was told."""
    placed = operation.placed
    assert placed is not None
    complaints = []
    for mark in operation.marks:
        indexes = [
            p.index for m, p in evidence.marks.get((operation.partition, mark.name), ()) if m == mark
        ]
        if indexes != [placed.index]:
            complaints.append(
                f"{name_of(operation)} was acknowledged at {placed.index}, and moves {mark} at {indexes}"
            )
    return complaints


def _known(evidence: Evidence) -> dict[tuple[int, str], list[_Known]]:
    known: dict[tuple[int, str], list[_Known]] = {}
    for append in evidence.acknowledged():
        for mark in append.marks:
            found = _Known(append.returned, _state(mark))
            known.setdefault((append.partition, mark.name), []).append(found)
    for read in evidence.history.reads:
        if read.outcome == OK and read.stream.startswith(A_MARK):
            known.setdefault(_key(read), []).append(_Known(read.returned, read.mark))
    return known


def _key(read: ReadOperation) -> tuple[int, str]:
    return read.partition, read.stream.removeprefix(A_MARK)


def _least(known: list[_Known], before: int) -> State:
    return max((state for at, state in known if at < before), default=NEVER_SET)


def _bad_refusal(
    evidence: Evidence,
    operation: AppendOperation,
    refused: Unmoved,
    known: dict[tuple[int, str], list[_Known]],
) -> list[str]:
    there = (refused.generation, refused.position)
    wanted = next(_state(mark) for mark in operation.marks if mark.name == refused.name)
    if wanted > there:
        return [f"{name_of(operation)} was refused a move to {wanted} from {there}"]
    key = operation.partition, refused.name
    least = _least(known.get(key, []), operation.invoked)
    if there < least:
        return [f"{name_of(operation)} was refused at {there}, after {least} was known"]
    return _never_was(evidence, operation, key, there)


def _never_was(
    evidence: Evidence, operation: AppendOperation | ReadOperation, key: tuple[int, str], state: State
) -> list[str]:
    """A state that somebody was told was there, and not before anybody had asked for it."""
    if state == NEVER_SET:
        return []
    if state not in [_state(mark) for mark, _ in evidence.marks.get(key, ())]:
        return [f"{name_of(operation)} was told of mark {key[1]} at {state}, which never was"]
    movers = [
        append.invoked
        for append in evidence.history.appends
        if append.partition == key[0] and (key[1], state[1], state[0]) in append.marks
    ]
    if movers and min(movers) > operation.returned:
        return [f"{name_of(operation)} was told of mark {key[1]} at {state}, which came later"]
    return []


def _bad_read(
    evidence: Evidence, read: ReadOperation, known: dict[tuple[int, str], list[_Known]]
) -> list[str]:
    least = _least(known[_key(read)], read.invoked) if read.kind == LINEARIZABLE else NEVER_SET
    if read.token:
        moves = evidence.marks.get(_key(read), ())
        least = max([least, *(_state(mark) for mark, place in moves if place.index <= read.token)])
    if read.mark < least:
        return [f"{name_of(read)} returned {read.mark}, {least} was known before"]
    return _never_was(evidence, read, _key(read), read.mark)
