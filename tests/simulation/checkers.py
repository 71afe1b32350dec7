"""Judging a finished run by what clients were told and what the logs hold.

The checkers are those of RULES.md, by their numbers there. Each is a pure function from the
evidence to a list of complaints, so that hand-made bad histories can show that it is able to fail.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from itertools import zip_longest

from allsource.storage.model.expected import ANY, EXISTS, is_met
from allsource.storage.model.partition import tag_of
from tests.simulation.evidence import Evidence, Stored, Where, content_of, name_of, name_of_tag
from tests.simulation.history import (
    A_MARK,
    A_TAG,
    LINEARIZABLE,
    OK,
    REFUSED,
    REJECTED,
    TAKEN,
    WHOLE_PARTITION,
    AppendOperation,
    Conflict,
    Intent,
    ReadOperation,
)
from tests.simulation.marks import marks


def expected_versions(evidence: Evidence) -> list[str]:
    """Checker 1: appends to a stream or tag are a compare-and-set register, in real-time order."""
    complaints = []
    for operation in evidence.acknowledged():
        for intent, first in _promises(operation):
            if not _met(intent, first):
                complaints.append(f"{name_of(operation)} expected {intent.expected}, and got {first}")
        if operation.expected_tag != ANY:
            complaints += _unexpected_number(evidence, operation)
    for operation in evidence.history.appends:
        if operation.outcome == REJECTED and isinstance(operation.conflict, Conflict):
            complaints += _bad_rejection(evidence, operation, operation.conflict)
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


def _unexpected_number(evidence: Evidence, operation: AppendOperation) -> list[str]:
    first = evidence.numbers.get(operation.intents[0].ids[0])
    if first in (None, operation.expected_tag + 1):
        return []
    return [f"{name_of(operation)} expected number {operation.expected_tag}, and got {first}"]


def _bad_rejection(evidence: Evidence, operation: AppendOperation, conflict: Conflict) -> list[str]:
    wanted = [operation.expected_tag] if conflict.stream.startswith(A_TAG) else []
    wanted += [intent.expected for intent in operation.intents if intent.stream == conflict.stream]
    if conflict.expected not in wanted:
        return [f"{name_of(operation)} was rejected for another one's expectation: {conflict}"]
    if is_met(conflict.expected, conflict.actual):
        return [f"{name_of(operation)} was rejected at {conflict.actual}, which is what it expected"]
    least = 0
    for other in evidence.acknowledged():
        if other.returned < operation.invoked:
            least = max(least, _last_of(evidence, other, conflict.stream))
    if conflict.actual < least:
        return [f"{name_of(operation)} was rejected at {conflict.actual}, after {least} was acknowledged"]
    if conflict.actual > len(evidence.streams.get(conflict.stream, ())):
        return [f"{name_of(operation)} was rejected at {conflict.actual}, which never was"]
    if conflict.actual > 0:
        author = evidence.author(evidence.streams[conflict.stream][conflict.actual - 1])
        if author is not None and author.invoked > operation.returned:
            return [f"{name_of(operation)} was rejected at {conflict.actual}, which came later"]
    return []


def _last_of(evidence: Evidence, operation: AppendOperation, stream: str) -> int:
    """The last version that an acknowledged append was told of a stream; of a tag, the last number that it
    has there (nobody is told)."""
    if stream.startswith(A_TAG):
        last = [i.ids[-1] for i in operation.intents if name_of_tag(tag_of(i.stream)) == stream]
        return max((evidence.numbers.get(event_id, 0) for event_id in last), default=0)
    for intent, first in _promises(operation):
        if intent.stream == stream:
            return first + len(intent.ids) - 1
    return 0


def _out_of_order(evidence: Evidence) -> list[str]:
    """An append that began after another was acknowledged lies behind it in the partition."""
    complaints = []
    by_partition: dict[int, list[tuple[AppendOperation, Where]]] = {}
    for operation in evidence.acknowledged():
        where = evidence.appends.get(operation.content)
        if where is not None:
            by_partition.setdefault(operation.partition, []).append((operation, where))
    for operations in by_partition.values():
        returned: list[tuple[int, Where]] = []
        newest = Where(0, 0, 0)
        for operation, where in sorted(operations, key=lambda one: one[0].invoked):
            while returned and returned[0][0] < operation.invoked:
                newest = max(newest, heapq.heappop(returned)[1])
            if where <= newest:
                complaints.append(
                    f"{name_of(operation)} lies at {where}, and {newest} was acknowledged before"
                )
            heapq.heappush(returned, (operation.returned, where))
    return complaints


def final_read(evidence: Evidence) -> list[str]:
    """Checker 2: acknowledged is in it, rejected is not, and all that is in it was attempted."""
    complaints = []
    for operation in evidence.history.appends:
        if operation.outcome == OK:
            complaints += _misplaced(evidence, operation)
        elif operation.outcome in (REJECTED, REFUSED, TAKEN):
            if operation.content in evidence.appends:
                complaints.append(f"{name_of(operation)} was {operation.outcome}, and is stored")
            elif operation.outcome == TAKEN and not _is_taken(evidence, operation):
                complaints.append(f"{name_of(operation)} has ids that nobody has taken")
    unknown = [event_id for event_id in evidence.stored if event_id not in evidence.authors]
    return complaints + [f"event {event_id.hex()} was never sent" for event_id in unknown]


def _is_taken(evidence: Evidence, operation: AppendOperation) -> bool:
    return any(event_id in evidence.stored for i in operation.intents for event_id in i.ids)


def _misplaced(evidence: Evidence, operation: AppendOperation) -> list[str]:
    placed = operation.placed
    assert placed is not None
    position = placed.first_position
    complaints = []
    if len(placed.first_versions) != len(operation.intents):
        complaints.append(f"{name_of(operation)} was answered for others too: {placed}")
    where = evidence.appends.get(operation.content)
    if where is not None and (where.index, where.first_position) != (placed.index, placed.first_position):
        complaints.append(f"{name_of(operation)} was acknowledged at {placed}, and is at {where}")
    for intent, first in _promises(operation):
        for offset, event_id in enumerate(intent.ids):
            promised = Stored(intent.stream, first + offset, position, placed.index)
            held = evidence.stored.get(event_id)
            if held is None:
                complaints.append(f"{name_of(operation)} was acknowledged as {promised}, and is lost")
            elif promised not in held:
                complaints.append(
                    f"{name_of(operation)} was acknowledged as {promised}, and is at {held[0]}"
                )
            position += 1
    return complaints


def gapless(evidence: Evidence) -> list[str]:
    """Checker 3: versions, numbers, positions and indexes have no gap; all replicas hold the same bytes."""
    complaints = []
    for partition, entries in evidence.logs.items():
        position, term, versions, numbers = 1, 0, dict[str, int](), dict[str, int]()
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
                tag = tag_of(part.stream)
                if part.first_tag_number != (numbers.get(tag, 0) + 1 if tag else 0):
                    complaints.append(
                        f"{partition}/{index}: {part.stream} has number {part.first_tag_number} "
                        f"behind {numbers.get(tag, 0)}"
                    )
                numbers[tag] = numbers.get(tag, 0) + part.count
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
        if operation.outcome != OK or operation.stream.startswith(A_MARK):
            continue
        stream = evidence.events_of(operation)
        if list(operation.ids) != stream[: len(operation.ids)]:
            complaints.append(f"{name_of(operation)} returned what is no prefix of {operation.stream}")
            continue
        if list(operation.numbers) != [evidence.numbers[event_id] for event_id in operation.ids]:
            complaints.append(f"{name_of(operation)} returned other numbers of its events")
        if operation.ids:
            author = evidence.author(operation.ids[-1])
            if author is not None and author.invoked > operation.returned:
                complaints.append(f"{name_of(operation)} returned an event of the future")
        if operation.token and len(operation.ids) < _least_of_token(evidence, operation):
            complaints.append(f"{name_of(operation)} did not see what its token promised")
    return complaints + _stale_reads(evidence)


def _least_of_token(evidence: Evidence, read: ReadOperation) -> int:
    """How many of the read's events lie in entries up to its token's."""
    entries = evidence.logs[read.partition][: read.token]
    parts = [part for entry in entries for part in entry.parts]
    return sum(
        part.count
        for part in parts
        if read.stream in (WHOLE_PARTITION, part.stream, name_of_tag(tag_of(part.stream)))
    )


def _stale_reads(evidence: Evidence) -> list[str]:
    """A read sees at least what was acknowledged, or read, before it began."""
    known: dict[str | int, list[tuple[int, int]]] = {}
    for append in evidence.acknowledged():
        assert append.placed is not None
        last_position = append.placed.first_position + sum(len(i.ids) for i in append.intents) - 1
        known.setdefault(append.partition, []).append((append.returned, last_position))
        for intent in append.intents:
            for name in (intent.stream, name_of_tag(tag_of(intent.stream))):
                known.setdefault(name, []).append((append.returned, _last_of(evidence, append, name)))
    finished = [o for o in evidence.history.reads if o.outcome == OK and not o.stream.startswith(A_MARK)]
    for read in finished:
        known.setdefault(_key(read), []).append((read.returned, len(read.ids)))
    complaints = []
    for read in finished:
        if read.kind != LINEARIZABLE:
            continue
        least = max((v for returned, v in known[_key(read)] if returned < read.invoked), default=0)
        if len(read.ids) < least:
            complaints.append(f"{name_of(read)} returned version {len(read.ids)}, {least} was known before")
    return complaints


def _key(read: ReadOperation) -> str | int:
    return read.partition if read.stream == WHOLE_PARTITION else read.stream


def atomic_appends(evidence: Evidence) -> list[str]:
    """Checker 7: what an entry says is an append is one that somebody asked for, whole and in its order."""
    wanted = {operation.content for operation in evidence.history.appends}
    return [
        f"append {ordinal} of {partition}/{entry.index} is not exactly one that was asked for"
        for partition, entries in evidence.logs.items()
        for entry in entries
        for ordinal in range(len(entry.appends))
        if content_of(entry, ordinal) not in wanted
    ]


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
    marks,
)


def judge(evidence: Evidence) -> list[str]:
    """All complaints of all checkers, each with the checker's name before it."""
    return [f"{check.__name__}: {complaint}" for check in CHECKERS for complaint in check(evidence)]
