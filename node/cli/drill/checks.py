"""The judge: from what writers were told and what every replica holds, what went wrong.

Pure, and therefore itself tried with histories that are wrong on purpose
(tests/node/cli/test_cli_checks.py): a checker that cannot fail is a defect. Numbers in parentheses are
the checkers of RULES.md.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from typing import NamedTuple

from allsource.node.cli.drill.history import (
    ACKNOWLEDGED,
    CONFLICT,
    REJECTED,
    UNKNOWN,
    Attempt,
    History,
    Place,
    Written,
)
from allsource.storage.model.events import Event

Log = Sequence[Event]
"""A partition's events by position, as one reader got them."""


class Fault(NamedTuple):
    """Something that must never happen, and a sentence that shows where it did."""

    kind: str
    detail: str


KINDS = {
    "missing": "acknowledged and missing",
    "moved": "acknowledged at another place than it is",
    "changed": "stored with other content than was sent",
    "duplicated": "stored more than once",
    "resurrected": "rejected and stored all the same",
    "invented": "stored and never sent",
    "torn": "stored in part",
    "gap": "gaps in positions or versions",
    "two_winners": "two winners of one version",
    "out_of_order": "real-time order broken",
    "false_conflict": "conflicts that were none",
    "differ": "replicas that differ",
}


def compare(partition: int, by_reader: Mapping[str, Log]) -> list[Fault]:
    """(3) The same position holds the same bytes, whoever was asked. Keys are the names of the readers."""
    faults = []
    readers = list(by_reader)
    for other in readers[1:]:
        one, two = by_reader[readers[0]], by_reader[other]
        if one == two:
            continue
        if len(one) != len(two):
            what = f"{readers[0]} has {len(one)} events, {other} has {len(two)}"
        else:
            ours, theirs = next(pair for pair in zip(one, two, strict=True) if pair[0] != pair[1])
            fields = [name for name, a, b in zip(Event._fields, ours, theirs, strict=True) if a != b]
            what = f"{_show(ours)} at {readers[0]} has another {', '.join(fields)} at {other}"
        faults.append(Fault("differ", f"partition {partition}: {what}"))
    return faults


def judge(history: History, logs: Mapping[int, Log]) -> list[Fault]:
    """Every fault that a finished drill's history and the stored events (by partition) show together.

    Events of streams that the drill did not write to are looked at for gaps alone.
    """
    faults: list[Fault] = []
    for partition, log in sorted(logs.items()):
        faults += _gaps(partition, log)
    faults += _against_history(history, [event for log in logs.values() for event in log])
    faults += _winners(history.attempts)
    for attempts in _by_stream(history.attempts).values():
        faults += _order(attempts)
        faults += _conflicts(attempts)
    return faults


def _gaps(partition: int, log: Log) -> Iterator[Fault]:
    """(3) Positions count 1, 2, 3 in a partition, versions in each stream."""
    versions: Counter[str] = Counter()
    for expected, event in enumerate(log, start=1):
        if event.position != expected:
            yield Fault(
                "gap", f"partition {partition}: position {event.position} where {expected} should be"
            )
            return  # everything behind it is off by as much
        versions[event.stream] += 1
        if event.version != versions[event.stream]:
            yield Fault(
                "gap",
                f"stream {event.stream!r}: version {event.version} where {versions[event.stream]} should be"
                f" (partition {partition}, position {event.position})",
            )
            versions[event.stream] = event.version


def _against_history(history: History, stored: Sequence[Event]) -> Iterator[Fault]:
    """(2, 4, 7) Acknowledged is stored, rejected is not, nothing twice, nothing else, nothing in part."""
    copies: dict[bytes, list[Event]] = {}
    for event in stored:
        copies.setdefault(event.id, []).append(event)
    for attempt in history.attempts:
        found = [copies.pop(written.id, []) for written in attempt.events]
        yield from _attempt_against_store(attempt, found)
    ours = history.streams()
    for left in copies.values():
        if left[0].stream in ours:
            yield Fault("invented", f"{_show(left[0])} was never sent")


def _attempt_against_store(attempt: Attempt, found: Sequence[Sequence[Event]]) -> Iterator[Fault]:
    for number, (written, events) in enumerate(zip(attempt.events, found, strict=True)):
        place = attempt.places[number] if attempt.outcome == ACKNOWLEDGED else None
        yield from _event_against_store(attempt, written, place, events)
    there = [events[0] for events in found if events]
    if there and (len(there) != len(attempt.events) or not _contiguous(there)):
        yield Fault(
            "torn",
            f"of {len(attempt.events)} events of one append by {attempt.writer},"
            f" {len(there)} are stored, at positions {[event.position for event in there]}",
        )


def _event_against_store(
    attempt: Attempt, written: Written, place: Place | None, events: Sequence[Event]
) -> Iterator[Fault]:
    if len(events) > 1:
        yield Fault("duplicated", " and ".join(map(_show, events)))
    if place is not None and not events:
        yield Fault(
            "missing",
            f"{written.stream!r} version {place.version} (partition {attempt.partition}, position"
            f" {place.position}, event {written.id.hex()}), acknowledged to {attempt.writer}"
            f" at {attempt.ended:.3f} s",
        )
    for event in events:
        if attempt.outcome in (CONFLICT, REJECTED):
            yield Fault(
                "resurrected", f"{_show(event)}, refused to {attempt.writer}: {attempt.code or 'conflict'}"
            )
        if place is not None and Place(event.version, event.position) != place:
            yield Fault("moved", f"{_show(event)} was acknowledged as {place}")
        if event.stream != written.stream or event.data != written.data:
            yield Fault("changed", f"{_show(event)}: {event.data!r} of {event.stream!r}, sent {written}")


def _contiguous(events: Sequence[Event]) -> bool:
    first = events[0].position
    return [event.position for event in events] == list(range(first, first + len(events)))


def _winners(attempts: Sequence[Attempt]) -> Iterator[Fault]:
    """(1) Each version of a stream was acknowledged to one writer, and to who expected the one before."""
    holders: dict[tuple[str, int], Attempt] = {}
    for attempt in attempts:
        for written, place in zip(attempt.events, attempt.places, strict=False):
            other = holders.setdefault((written.stream, place.version), attempt)
            if other is not attempt:
                yield Fault(
                    "two_winners",
                    f"{written.stream!r} version {place.version}: {other.writer} and {attempt.writer}",
                )
        if attempt.places and attempt.expected is not None:
            got = attempt.places[0].version
            if got != attempt.expected + 1:
                yield Fault(
                    "two_winners",
                    f"{attempt.stream!r}: {attempt.writer} expected version {attempt.expected} and was"
                    f" acknowledged version {got}",
                )


def _by_stream(attempts: Sequence[Attempt]) -> dict[str, list[Attempt]]:
    """Attempts on one stream each (an append to several has an order of its own), by stream."""
    found: dict[str, list[Attempt]] = {}
    for attempt in attempts:
        found.setdefault(attempt.stream, []).append(attempt)
    return found


def _order(attempts: Sequence[Attempt]) -> Iterator[Fault]:
    """(1) A write that began after another one was acknowledged stands behind it."""
    acknowledged = [attempt for attempt in attempts if attempt.places]
    for attempt, before in _newest_before(acknowledged, acknowledged):
        version = attempt.last_version
        if version <= before:
            yield Fault(
                "out_of_order",
                f"{attempt.stream!r}: {attempt.writer} began at {attempt.started:.3f} s and was"
                f" acknowledged version {version}; version {before} had been acknowledged already",
            )


def _conflicts(attempts: Sequence[Attempt]) -> Iterator[Fault]:
    """(1) Who lost a version lost it to somebody: the version named is not the one expected, not
    older than what was acknowledged before, and not newer than anybody had tried to write by then."""
    acknowledged = [attempt for attempt in attempts if attempt.places]
    losers = [attempt for attempt in attempts if attempt.outcome == CONFLICT]
    tries = sorted((a.started, len(a.events)) for a in attempts if a.outcome in (ACKNOWLEDGED, UNKNOWN))
    started = [moment for moment, _ in tries]
    tried = [0, *accumulate(count for _, count in tries)]
    for attempt, before in _newest_before(losers, acknowledged):
        why = ""
        if attempt.actual == attempt.expected:
            why = "which is what was expected"
        elif attempt.actual < before:
            why = f"but version {before} had been acknowledged before"
        elif attempt.actual > tried[bisect_right(started, attempt.ended)]:
            why = "which nobody had written yet"
        if why:
            yield Fault(
                "false_conflict",
                f"{attempt.stream!r}: {attempt.writer} expected {attempt.expected} and was told"
                f" {attempt.actual}, {why}",
            )


def _newest_before(later: Sequence[Attempt], earlier: Sequence[Attempt]) -> Iterator[tuple[Attempt, int]]:
    """Each of `later` with the newest version that was acknowledged in `earlier` before it began."""
    ended = sorted(earlier, key=lambda attempt: attempt.ended)
    newest, next_ended = 0, 0
    for attempt in sorted(later, key=lambda attempt: attempt.started):
        while next_ended < len(ended) and ended[next_ended].ended < attempt.started:
            newest = max(newest, ended[next_ended].last_version)
            next_ended += 1
        yield attempt, newest


def _show(event: Event) -> str:
    return (
        f"event {event.id.hex()} ({event.stream!r} version {event.version}, partition {event.partition},"
        f" position {event.position})"
    )
