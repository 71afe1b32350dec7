"""A pure model of grouping: what the appends of one turn become, and the log as their owner sees it.

All appends that a partition is given in one turn become one entry. Each is decided on its own, behind those
before it, and has its own place in the entry; one that is refused takes nothing with it. This is a second
telling of `storage.model.append.decide` and of `node.requests`, by brute force.
"""

from __future__ import annotations

from typing import NamedTuple

from allsource.storage.model.entry import Append, Entry, Mark, NewAppend, Part, Place, chunk_heads
from allsource.storage.model.expected import ANY, is_met
from allsource.storage.model.log import MarkAt
from allsource.storage.model.partition import tag_of
from tests.simulation.disk import Index, chunks_of
from tests.simulation.history import A_TAG, AppendOperation, Conflict, Unmoved


class Refused(NamedTuple):
    """Why an append is not done. It rests on the entry at `index`."""

    conflict: Conflict | Unmoved
    index: int


class Draft:
    """One partition's log with what is not on the disk: what was proposed, and the group of this turn."""

    def __init__(self, index: Index) -> None:
        self._index = index
        """What the disk derives from its log."""
        self._ahead: list[tuple[Place, Append]] = []
        """What the disk does not have yet, in order."""
        self.group: list[NewAppend] = []
        """What is decided and not proposed yet."""

    # -- deciding

    def decide(self, operation: AppendOperation, next_index: int) -> Place | Refused | NewAppend:
        """Where the append, or one that has an id of it, is already; or why it is refused; or what it adds
        to the group, whose entry will be at `next_index`."""
        known = self._known(operation)
        if known is not None:
            return known
        for mark in operation.marks:
            before = self.mark(mark.name)
            if before is not None and not self.moves(before, mark):
                return Refused(Unmoved(mark.name, before.position, before.generation), before.index)
        if operation.expected_tag != ANY:
            tag = tag_of(operation.intents[0].stream)
            number, index = self.tag(tag)
            if number != operation.expected_tag:
                return Refused(Conflict(A_TAG + tag + "}", operation.expected_tag, number), index)
        for intent in operation.intents:
            actual, index = self.head(intent.stream)
            if not is_met(intent.expected, actual):
                return Refused(Conflict(intent.stream, intent.expected, actual), index)
        new = self._new(operation)
        self._ahead.append((Place(next_index, len(self.group)), new.append))
        self.group.append(new)
        return new

    def _known(self, operation: AppendOperation) -> Place | None:
        for intent in operation.intents:
            place = self.find(intent.ids[0])
            if place is not None:
                return place
        if operation.intents:
            return None
        marks = [self.mark(mark.name) for mark in operation.marks]
        places = [Place(before.index, before.ordinal) for before in marks if before is not None]
        stored = [(before.position, before.generation) for before in marks if before is not None]
        if stored == [(position, generation) for _, position, generation in operation.marks]:
            return max(places)
        return None

    def moves(self, before: MarkAt, mark: Mark) -> bool:
        """Whether a mark that is there may be moved so."""
        return (mark.generation, mark.position) > (before.generation, before.position)

    def _new(self, operation: AppendOperation) -> NewAppend:
        parts: list[Part] = []
        data: list[bytes] = []
        numbers: dict[str, int] = {}
        for stream, _, ids in operation.intents:
            tag = tag_of(stream)
            number = numbers.get(tag, self.tag(tag)[0] + 1) if tag else 0
            numbers[tag] = number + len(ids)
            chunks = chunks_of(ids)
            first = self.head(stream)[0] + 1
            parts.append(Part(stream, first, len(ids), ids[0], number, ("E",), chunk_heads(chunks)))
            data += [chunk.data for chunk in chunks]
        return NewAppend(Append(tuple(parts), operation.marks), tuple(data))

    def take_back(self) -> None:
        """The newest append of the group is not to be."""
        self._ahead.pop()
        self.group.pop()

    # -- what the log holds

    def find(self, first_id: bytes) -> Place | None:
        """Where the append is one of whose parts begins with this event."""
        for place, append in self._ahead:
            if any(part.first_id == first_id for part in append.parts):
                return place
        return self._index.appends.get(first_id)

    def head(self, stream: str) -> tuple[int, int]:
        """Version of the stream, and index of the entry that holds it."""
        for place, append in reversed(self._ahead):
            for part in append.parts:
                if part.stream == stream:
                    return part.last_version, place.index
        return self._index.version(stream), self._index.head_index(stream)

    def tag(self, tag: str) -> tuple[int, int]:
        """Newest number of the tag, and index of the entry that holds it."""
        for place, append in reversed(self._ahead):
            for part in reversed(append.parts):
                if tag_of(part.stream) == tag:
                    return part.first_tag_number + part.count - 1, place.index
        return self._index.tag(tag)

    def mark(self, name: str) -> MarkAt | None:
        """The mark as the newest append left it."""
        for place, append in reversed(self._ahead):
            for mark in append.marks:
                if mark.name == name:
                    return MarkAt(mark.position, mark.generation, *place)
        return self._index.mark(name, 1 << 62)

    # -- what becomes of it

    def written(self) -> None:
        """Everything that was proposed is on the disk."""
        self._ahead.clear()


def stored_as(entry: Entry, ordinal: int) -> tuple[int, tuple[Part, ...]]:
    """First position and parts of one append of an entry."""
    before = sum(part.count for append in entry.appends[:ordinal] for part in append.parts)
    return entry.first_position + before, entry.appends[ordinal].parts
