"""Judging a finished run by what clients were told and what the logs hold.

The checkers are those of RULES.md, by their numbers there. Each is a pure function from the
evidence to a list of complaints, so that hand-made bad histories can show that it is able to fail.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import NamedTuple

from allsource.storage.model.entry import EVENTS, Entry
from allsource.storage.model.expected import EXISTS, is_met
from tests.simulation.disk import ids_of
from tests.simulation.history import (
    LINEARIZABLE,
    OK,
    OPEN,
    REFUSED,
    REJECTED,
    TAKEN,
    WHOLE_PARTITION,
    AppendOperation,
    History,
    Intent,
    ReadOperation,
)

Logs = Mapping[int, Sequence[Entry]]
"""By partition, its committed entries."""


class Stored(NamedTuple):
    """One event as the final log holds it."""

    stream: str
    version: int
    position: int
    index: int


class Evidence:
    """A history and the final logs, with what several checkers look up."""

    def __init__(
        self,
        history: History,
        logs: Logs,
        replicas: Mapping[tuple[str, int], Sequence[Entry]] | None = None,
    ) -> None:
        self.history = history
        self.logs = logs
        self.replicas = replicas or {}
        """By (node, partition): the committed entries that a node holds."""
        self.stored: dict[bytes, list[Stored]] = {}
        self.streams: dict[str, list[bytes]] = {}
        """Event ids of each stream in the order of the log."""
        self.partitions: dict[int, list[bytes]] = {partition: [] for partition in logs}
        """Event ids of each partition in the order of the log."""
        self.groups: set[tuple[tuple[str, tuple[bytes, ...]], ...]] = set()
        """What each entry holds: streams with their event ids."""
        for entries in logs.values():
            for entry in entries:
                self._add(entry)

    def _add(self, entry: Entry) -> None:
        position = entry.first_position
        if entry.parts:
            self.groups.add(tuple([(p.stream, tuple(ids_of(p.blob))) for p in entry.parts]))
        for part in entry.parts:
            for offset, event_id in enumerate(ids_of(part.blob)):
                self.partitions[entry.partition].append(event_id)
                stored = Stored(part.stream, part.first_version + offset, position, entry.index)
                self.stored.setdefault(event_id, []).append(stored)
                self.streams.setdefault(part.stream, []).append(event_id)
                position += 1

    def acknowledged(self) -> Iterator[AppendOperation]:
        """Appends that were answered with a place."""
        return (o for o in self.history.appends if o.outcome == OK)


def expected_versions(evidence: Evidence) -> list[str]:
    """Checker 1: appends to a stream are a compare-and-set register, in real-time order."""
    complaints = []
    for operation in evidence.acknowledged():
        for intent, first in _promises(operation):
            if not _met(intent, first):
                complaints.append(f"{_name(operation)} expected {intent.expected}, and got {first}")
    for operation in evidence.history.appends:
        if operation.outcome == REJECTED:
            complaints += _bad_rejection(evidence, operation)
    return complaints + _out_of_order(evidence)


def _promises(operation: AppendOperation) -> list[tuple[Intent, int]]:
    """Each intent with the first version that was promised for it (0 if the answer has too few)."""
    assert operation.placed is not None
    return list(
        zip_longest(
            operation.intents, operation.placed.first_versions[: len(operation.intents)], fillvalue=0
        )
    )


def _met(intent: Intent, first_version: int) -> bool:
    if intent.expected >= 0:
        return first_version == intent.expected + 1
    return intent.expected != EXISTS or first_version > 1


def _bad_rejection(evidence: Evidence, operation: AppendOperation) -> list[str]:
    conflict = operation.conflict
    assert conflict is not None
    if is_met(conflict.expected, conflict.actual):
        return [f"{_name(operation)} was rejected at {conflict.actual}, which is what it expected"]
    least = 0
    for other in evidence.acknowledged():
        if other.returned < operation.invoked:
            least = max(least, _last_version(other, conflict.stream))
    if conflict.actual < least:
        return [f"{_name(operation)} was rejected at {conflict.actual}, after {least} was acknowledged"]
    if conflict.actual > len(evidence.streams.get(conflict.stream, ())):
        return [f"{_name(operation)} was rejected at {conflict.actual}, which never was"]
    if conflict.actual > 0:
        author = _author(evidence, evidence.streams[conflict.stream][conflict.actual - 1])
        if author is not None and author.invoked > operation.returned:
            return [f"{_name(operation)} was rejected at {conflict.actual}, which came later"]
    return []


def _last_version(operation: AppendOperation, stream: str) -> int:
    for intent, first in _promises(operation):
        if intent.stream == stream:
            return first + len(intent.ids) - 1
    return 0


def _author(evidence: Evidence, event_id: bytes) -> AppendOperation | None:
    authors = _authors(evidence)
    return authors.get(event_id)


def _authors(evidence: Evidence) -> dict[bytes, AppendOperation]:
    found: dict[bytes, AppendOperation] | None = getattr(evidence, "authors", None)
    if found is None:
        found = {}
        for operation in evidence.history.appends:
            for intent in operation.intents:
                for event_id in intent.ids:
                    found.setdefault(event_id, operation)
        evidence.authors = found  # type: ignore[attr-defined]
    return found


def _out_of_order(evidence: Evidence) -> list[str]:
    """An append that began after another was acknowledged lies behind it in the partition."""
    complaints = []
    by_partition: dict[int, list[AppendOperation]] = {}
    for operation in evidence.acknowledged():
        by_partition.setdefault(operation.partition, []).append(operation)
    for operations in by_partition.values():
        returned: list[tuple[int, int]] = []
        newest = 0
        for operation in sorted(operations, key=lambda o: o.invoked):
            assert operation.placed is not None
            while returned and returned[0][0] < operation.invoked:
                newest = max(newest, heapq.heappop(returned)[1])
            if operation.placed.first_position <= newest:
                complaints.append(f"{_name(operation)} lies before position {newest}, acknowledged earlier")
            heapq.heappush(returned, (operation.returned, operation.placed.first_position))
    return complaints


def final_read(evidence: Evidence) -> list[str]:
    """Checker 2: acknowledged is in it, rejected is not, and all that is in it was attempted."""
    complaints = []
    for operation in evidence.history.appends:
        if operation.outcome == OK:
            complaints += _misplaced(evidence, operation)
        elif operation.outcome in (REJECTED, REFUSED, TAKEN):
            if tuple([(i.stream, i.ids) for i in operation.intents]) in evidence.groups:
                complaints.append(f"{_name(operation)} was {operation.outcome}, and is stored")
            elif operation.outcome == TAKEN and not _is_taken(evidence, operation):
                complaints.append(f"{_name(operation)} has ids that nobody has taken")
    authors = _authors(evidence)
    return complaints + [f"event {i.hex()} was never sent" for i in evidence.stored if i not in authors]


def _is_taken(evidence: Evidence, operation: AppendOperation) -> bool:
    return any(event_id in evidence.stored for i in operation.intents for event_id in i.ids)


def _misplaced(evidence: Evidence, operation: AppendOperation) -> list[str]:
    placed = operation.placed
    assert placed is not None
    position = placed.first_position
    complaints = []
    for intent, first in _promises(operation):
        for offset, event_id in enumerate(intent.ids):
            promised = Stored(intent.stream, first + offset, position, placed.index)
            held = evidence.stored.get(event_id)
            if held is None:
                complaints.append(f"{_name(operation)} was acknowledged as {promised}, and is lost")
            elif promised not in held:
                complaints.append(f"{_name(operation)} was acknowledged as {promised}, and is at {held[0]}")
            position += 1
    return complaints


def gapless(evidence: Evidence) -> list[str]:
    """Checker 3: versions, positions and indexes have no gap, and all replicas hold the same bytes."""
    complaints = []
    for partition, entries in evidence.logs.items():
        position, term, versions = 1, 0, dict[str, int]()
        for index, entry in enumerate(entries, 1):
            if entry.index != index or entry.term < term or entry.first_position != position:
                complaints.append(
                    f"{partition}/{index}: {entry.index=} {entry.term=} {entry.first_position=}"
                )
            for part in entry.parts:
                if part.first_version != versions.get(part.stream, 0) + 1:
                    complaints.append(
                        f"{partition}/{index}: {part.stream} has a gap at {part.first_version}"
                    )
                versions[part.stream] = part.last_version
            position, term = entry.next_position, entry.term
    for (node, partition), entries in evidence.replicas.items():
        for held, true in zip(entries, evidence.logs[partition], strict=False):
            if held.record != true.record:
                complaints.append(f"{node} differs at {partition}/{held.index}")
        if len(entries) > len(evidence.logs[partition]):
            complaints.append(f"{node} has more committed in {partition} than anybody")
    return complaints


def no_event_twice(evidence: Evidence) -> list[str]:
    """Checker 4: however often an append was retried, its events are stored once."""
    return [
        f"event {event_id.hex()} is stored at {places}"
        for event_id, places in evidence.stored.items()
        if len(places) > 1
    ]


def reads(evidence: Evidence) -> list[str]:
    """Checker 5: each read is a prefix, sees what was acknowledged before it, and nothing of the future.

    A local read may be stale; one with a token sees what the token came from."""
    complaints = []
    for operation in evidence.history.reads:
        if operation.outcome != OK:
            continue
        stream = _events_of(evidence, operation)
        if list(operation.ids) != stream[: len(operation.ids)]:
            complaints.append(f"{_name(operation)} returned what is no prefix of {operation.stream}")
            continue
        if operation.ids:
            author = _author(evidence, operation.ids[-1])
            if author is not None and author.invoked > operation.returned:
                complaints.append(f"{_name(operation)} returned an event of the future")
        if operation.token and len(operation.ids) < _least_of_token(evidence, operation):
            complaints.append(f"{_name(operation)} did not see what its token promised")
    return complaints + _stale_reads(evidence)


def _events_of(evidence: Evidence, read: ReadOperation) -> list[bytes]:
    """All events that the read could return, in order."""
    if read.stream == WHOLE_PARTITION:
        return evidence.partitions[read.partition]
    return evidence.streams.get(read.stream, [])


def _least_of_token(evidence: Evidence, read: ReadOperation) -> int:
    """How many of the read's events lie in entries up to its token's."""
    entries = evidence.logs[read.partition][: read.token]
    parts = [part for entry in entries for part in entry.parts]
    return sum(part.count for part in parts if read.stream in (WHOLE_PARTITION, part.stream))


def _stale_reads(evidence: Evidence) -> list[str]:
    """A read sees at least what was acknowledged, or read, before it began."""
    known: dict[str | int, list[tuple[int, int]]] = {}
    for append in evidence.acknowledged():
        assert append.placed is not None
        last_position = append.placed.first_position + sum(len(i.ids) for i in append.intents) - 1
        known.setdefault(append.partition, []).append((append.returned, last_position))
        for intent in append.intents:
            seen = (append.returned, _last_version(append, intent.stream))
            known.setdefault(intent.stream, []).append(seen)
    finished = [o for o in evidence.history.reads if o.outcome == OK]
    for read in finished:
        known.setdefault(_key(read), []).append((read.returned, len(read.ids)))
    complaints = []
    for read in finished:
        if read.kind != LINEARIZABLE:
            continue
        least = max((v for returned, v in known[_key(read)] if returned < read.invoked), default=0)
        if len(read.ids) < least:
            complaints.append(f"{_name(read)} returned version {len(read.ids)}, {least} was known before")
    return complaints


def _key(read: ReadOperation) -> str | int:
    return read.partition if read.stream == WHOLE_PARTITION else read.stream


def atomic_appends(evidence: Evidence) -> list[str]:
    """Checker 7: an append is in the log whole, as one entry, in the order that was asked for."""
    complaints = []
    wanted = {tuple([(i.stream, i.ids) for i in o.intents]) for o in evidence.history.appends}
    for partition, entries in evidence.logs.items():
        for entry in entries:
            if entry.kind != EVENTS:
                continue
            if tuple([(part.stream, tuple(ids_of(part.blob))) for part in entry.parts]) not in wanted:
                complaints.append(f"{partition}/{entry.index} is not exactly one append")
    return complaints


def terms(evidence: Evidence) -> list[str]:
    """Checker 8: one leader in a term, and acknowledgements of two terms never interleave by index."""
    complaints = []
    leaders: dict[tuple[int, int], tuple[str, int]] = {}
    for election in evidence.history.elections:
        leader = (election.node, election.incarnation)
        known = leaders.setdefault((election.partition, election.term), leader)
        if known != leader:
            complaints.append(f"{known} and {leader} lead {election.partition} in term {election.term}")
    newest: dict[int, int] = {}
    by_index = sorted(
        ((o.partition, o.placed.index, o.placed.term) for o in evidence.acknowledged() if o.placed),
    )
    for partition, index, term in by_index:
        if term < newest.get(partition, 0):
            complaints.append(f"{partition}/{index} was acknowledged in term {term}, an earlier one later")
        newest[partition] = max(term, newest.get(partition, 0))
    return complaints


CHECKERS: tuple[Callable[[Evidence], list[str]], ...] = (
    expected_versions,
    final_read,
    gapless,
    no_event_twice,
    reads,
    atomic_appends,
    terms,
)


def judge(evidence: Evidence) -> list[str]:
    """All complaints of all checkers, each with the checker's name before it."""
    return [f"{check.__name__}: {complaint}" for check in CHECKERS for complaint in check(evidence)]


def _name(operation: AppendOperation | ReadOperation) -> str:
    end = "…" if operation.returned == OPEN else operation.returned
    what = "append" if isinstance(operation, AppendOperation) else "read"
    when = f"{operation.invoked}-{end}"
    return f"{what} of client {operation.client} in partition {operation.partition} ({when})"
