"""A contract that cannot fail is a defect: copies that are broken on purpose must not pass it.

Each mutant breaks one promise in a few lines; the random histories, with the same seeds that the honest
backends pass, must notice it within a few runs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from random import Random
from typing import Any

import pytest

from allsource.config.schema import Limits
from allsource.storage.embedded import log_repository
from allsource.storage.embedded.log_repository import LogRepository
from allsource.storage.memory import MemoryStorage
from allsource.storage.model.answers import AppendResult, StreamAppend
from allsource.storage.model.append import AppendRequest, Known, Log, Unmet, decide
from allsource.storage.model.chunks import CheckedEvents
from allsource.storage.model.entry import Append, Entry, NewAppend, Part, Place
from allsource.storage.model.errors import AllsourceError, WrongExpectedVersion
from allsource.storage.model.expected import ANY, is_met, show_expected
from allsource.storage.model.log import PartitionWrite, StreamHead, StreamSlice
from tests.storage.contract import PARTITIONS, RandomHistory
from tests.storage.decision_contract import against_the_pure_decision
from tests.storage.repository_contract import Clock, RandomRepository
from tests.storage.rivals import MANY, ONE, TASKS, THREADS, Rivals, all_at_once
from tests.storage.test_memory import MemoryBackend
from tests.storage.test_repository import MemoryRepositoryBackend

SEEDS = range(6)


def breaks_storage(mutant: type[MemoryStorage]) -> bool:
    class Backend(MemoryBackend):
        def open(self) -> MemoryStorage:
            return mutant(cluster_id="c", node_id="n1", partition_count=PARTITIONS)

    return any(_fails(lambda seed=seed: RandomHistory(Backend(), seed).run(120)) for seed in SEEDS)


def _fails(run: Callable[[], object]) -> bool:
    try:
        run()
    except (AssertionError, AllsourceError, LookupError, pytest.fail.Exception):
        return True
    return False


class MissedRollback(MemoryStorage):
    """A truncation leaves the event ids behind."""

    def write(self, writes: Sequence[PartitionWrite]) -> None:
        kept = [dict(log.ids) for log in self._logs]
        super().write(writes)
        for log, ids in zip(self._logs, kept, strict=True):
            log.ids = {**ids, **log.ids}


class HeadNotRestored(MemoryStorage):
    """After a truncation a head still carries the time of what is gone."""

    def head(self, partition: int, stream: str) -> StreamHead | None:
        found = super().head(partition, stream)
        if found is None:
            return None
        newest = max(entry.timestamp_us for entry in self._logs[partition].entries)
        return found._replace(updated_us=newest)


class LosesSynced(MemoryStorage):
    """A crash takes something that was synced."""

    def crash(self) -> None:
        super().crash()
        for partition, log in enumerate(self._logs):
            if log.entries:
                log.apply(PartitionWrite(partition, None, len(log.entries)))


class TornWrite(MemoryStorage):
    """A crash keeps one partition of a write and forgets the others."""

    def crash(self) -> None:
        if self._unsynced:
            del self._unsynced[-1][:1]
        super().crash()


class SliceTooFar(MemoryStorage):
    """Reading from the middle of a slice begins at the next one."""

    def slices(
        self, partition: int, stream: str, from_version: int, *, forward: bool, slices_max: int
    ) -> list[StreamSlice]:
        found = super().slices(partition, stream, from_version, forward=forward, slices_max=slices_max)
        return found[1:] if forward and found and found[0].first_version < from_version else found


class NoopsTakePositions(MemoryStorage):
    """The first entry at a position is taken, though it may hold no event."""

    def index_of_position(self, partition: int, position: int) -> int | None:
        for entry in self._logs[partition].entries:
            if entry.first_position >= position:
                return entry.index
        return None


class TagNotRestored(MemoryStorage):
    """A truncation leaves a tag's numbers behind."""

    def write(self, writes: Sequence[PartitionWrite]) -> None:
        kept = [{tag: list(slices) for tag, slices in log.tags.items()} for log in self._logs]
        super().write(writes)
        for log, before in zip(self._logs, kept, strict=True):
            log.tags = {
                tag: max(before.get(tag, []), log.tags.get(tag, []), key=len) for tag in before | log.tags
            }


class MarkNotRestored(MemoryStorage):
    """A mark stays where a move took it that is truncated."""

    def write(self, writes: Sequence[PartitionWrite]) -> None:
        kept = [{name: list(moves) for name, moves in log.moved.items()} for log in self._logs]
        super().write(writes)
        for log, before in zip(self._logs, kept, strict=True):
            log.moved = {
                name: max(before.get(name, []), log.moved.get(name, []), key=len)
                for name in before | log.moved
            }


class OneForAll(MemoryStorage):
    """All appends of an entry are said to be its first."""

    def place_of_append(self, partition: int, first_event_id: bytes) -> Place | None:
        found = super().place_of_append(partition, first_event_id)
        return found and found._replace(ordinal=0)


STORAGE_MUTANTS = [
    *(MissedRollback, HeadNotRestored, LosesSynced, TornWrite, SliceTooFar, NoopsTakePositions),
    *(TagNotRestored, MarkNotRestored, OneForAll),
]


def test_the_honest_copy_passes() -> None:
    assert not breaks_storage(MemoryStorage)


@pytest.mark.parametrize("mutant", STORAGE_MUTANTS, ids=lambda mutant: mutant.__name__)
def test_broken_storages_fail_the_contract(mutant: type[MemoryStorage]) -> None:
    assert breaks_storage(mutant), mutant.__doc__


def test_an_entry_that_is_read_wrongly_is_noticed() -> None:
    class Stale(MemoryStorage):
        def entries_at(self, partition: int, indexes: Sequence[int]) -> list[Entry]:
            return super().entries_at(partition, [max(1, index - 1) for index in indexes])

    async def run() -> None:
        backend = BrokenBackend(LogRepository, Stale)
        await RandomRepository(backend, 0).run(150)

    assert _fails_async(run)


# -- repositories


class BrokenBackend(MemoryRepositoryBackend):
    def __init__(self, kind: type[LogRepository], storage: type[MemoryStorage] = MemoryStorage) -> None:
        self._kind = kind
        self._storage = storage

    def make(self, *, limits: Limits | None = None, clock: Clock | None = None) -> LogRepository:
        return self._kind(self._storage, limits=limits)


def _fails_async(run: Callable[[], Coroutine[None, None, None]]) -> bool:
    return _fails(lambda: asyncio.run(run()))


def breaks_repository(kind: type[LogRepository]) -> bool:
    def attempt(seed: int) -> bool:
        return _fails_async(lambda: RandomRepository(BrokenBackend(kind), seed).run(150))

    return any(attempt(seed) for seed in range(4))


def _changed(append: NewAppend, change: Callable[[Part], Part]) -> NewAppend:
    (parts, marks), data = append
    return NewAppend(Append(tuple(map(change, parts)), marks), data)


class LostUpdate(LogRepository):
    """The expected version is not compared."""

    async def append(self, *appends: StreamAppend, **more: Any) -> AppendResult:
        anything = (append._replace(expected_version="any") for append in appends)
        return await super().append(*anything, **more)


class Gap(LogRepository):
    """Every seventh append skips a version."""

    def _write(self, partition: int, append: NewAppend) -> Entry:
        if self._end(partition).last_index % 7 == 6:
            append = _changed(append, lambda part: part._replace(first_version=part.first_version + 1))
        return super()._write(partition, append)


class ReusedVersion(LogRepository):
    """Every seventh append takes the version of the newest event again."""

    def _write(self, partition: int, append: NewAppend) -> Entry:
        if self._end(partition).last_index % 7 == 6:
            append = _changed(
                append, lambda part: part._replace(first_version=max(1, part.first_version - 1))
            )
        return super()._write(partition, append)


class HalfAnAppend(LogRepository):
    """Of an append to several streams only the first one is stored."""

    def _write(self, partition: int, append: NewAppend) -> Entry:
        (parts, marks), data = append
        kept = parts[:1]
        chunks = sum(len(part.chunks) for part in kept)
        return super()._write(partition, NewAppend(Append(kept, marks), data[:chunks]))


class ChecksTooEarly(LogRepository):
    """Compares the version, lets others in, and writes without looking again."""

    async def append(self, *appends: StreamAppend, **more: Any) -> AppendResult:
        for append in appends:
            stream = await self.get_or_create_stream(append.stream)
            if append.expected_version not in ("any", stream.current_version):
                raise WrongExpectedVersion(append.stream, append.expected_version, stream.current_version)
        await asyncio.sleep(0)
        anything = (append._replace(expected_version="any") for append in appends)
        return await super().append(*anything, **more)


class NamesAnotherVersion(LogRepository):
    """Tells a loser a version that the stream does not have."""

    async def append(self, *appends: StreamAppend, **more: Any) -> AppendResult:
        try:
            return await super().append(*appends, **more)
        except WrongExpectedVersion as error:
            actual = int(error.details["actual"]) + 1
            raise WrongExpectedVersion(appends[0].stream, error.details["expected"], actual) from None


class ConsolesLosers(LogRepository):
    """Tells every other loser that it has won."""

    _lost = 0

    async def append(self, *appends: StreamAppend, **more: Any) -> AppendResult:
        try:
            self._won = await super().append(*appends, **more)
        except WrongExpectedVersion:
            self._lost += 1
            if self._lost % 2:
                raise
        return self._won


CONCURRENT_MUTANTS = [LostUpdate, Gap, ReusedVersion, ChecksTooEarly, NamesAnotherVersion, ConsolesLosers]


async def rival(kind: type[LogRepository], streams: tuple[str, ...], way: str) -> None:
    """The tests of `WritingContract`."""
    async with BrokenBackend(kind).make() as events:
        rivals = Rivals(events, streams)
        match way:
            case "tasks":
                await rivals.by_tasks(TASKS, tries=32)
            case "threads":
                await rivals.by_threads(THREADS, tries=32)
            case _:
                await all_at_once(events, streams, rounds=8)
                return
        await rivals.check()


WAYS = [(streams, way) for streams in (ONE, MANY) for way in ("tasks", "threads", "all at once")]


@pytest.mark.parametrize(("streams", "way"), WAYS)
def test_honest_rivals_pass(streams: tuple[str, ...], way: str) -> None:
    asyncio.run(rival(LogRepository, streams, way))


@pytest.mark.parametrize(("streams", "way"), WAYS)
@pytest.mark.parametrize("mutant", CONCURRENT_MUTANTS, ids=lambda mutant: mutant.__name__)
def test_broken_repositories_fail_among_rivals(
    mutant: type[LogRepository], streams: tuple[str, ...], way: str
) -> None:
    assert _fails_async(lambda: rival(mutant, streams, way)), mutant.__doc__


REPOSITORY_MUTANTS = [LostUpdate, Gap, ReusedVersion, HalfAnAppend]


def test_the_honest_repository_passes() -> None:
    assert not breaks_repository(LogRepository)


@pytest.mark.parametrize("mutant", REPOSITORY_MUTANTS, ids=lambda mutant: mutant.__name__)
def test_broken_repositories_fail_the_contract(mutant: type[LogRepository]) -> None:
    assert breaks_repository(mutant), mutant.__doc__


# -- the decision to append


Decision = NewAppend | Known | Unmet
Checked = Sequence[CheckedEvents]


class _Forgetful:
    def __init__(self, log: Log) -> None:
        self.head, self.tag, self.mark = log.head, log.tag, log.mark

    def place_of_append(self, first_event_id: bytes) -> None:
        return None


def forgets_retries(request: AppendRequest, checked: Checked, log: Log) -> Decision:
    """A retry is stored again."""
    return decide(request, checked, _Forgetful(log))


def versions_come_first(request: AppendRequest, checked: Checked, log: Log) -> Decision:
    """A retry conflicts with itself."""
    for part in request.parts:
        version, index = log.head(part.stream)
        if not is_met(part.expected, version):
            error = WrongExpectedVersion(part.stream, show_expected(part.expected), version)
            return Unmet(error, index)
    return decide(request, checked, log)


def looks_at_the_first_id_alone(request: AppendRequest, checked: Checked, log: Log) -> Decision:
    """The ids of further streams are not known."""
    place = log.place_of_append(checked[0].first_id)
    return forgets_retries(request, checked, log) if place is None else Known(place)


def expects_of_the_first_stream_alone(request: AppendRequest, checked: Checked, log: Log) -> Decision:
    """Further streams may be at any version."""
    parts = (*request.parts[:1], *(part._replace(expected=ANY) for part in request.parts[1:]))
    return decide(request._replace(parts=parts), checked, log)


def expects_nothing_of_the_tag(request: AppendRequest, checked: Checked, log: Log) -> Decision:
    """An append happens whatever its tag's number is."""
    return decide(request._replace(expected_tag=ANY), checked, log)


def moves_marks_anywhere(request: AppendRequest, checked: Checked, log: Log) -> Decision:
    """Back, and for any generation."""
    decision = decide(request._replace(marks=()), checked, log)
    if isinstance(decision, NewAppend):
        return decision._replace(append=decision.append._replace(marks=request.marks))
    return decision


def forgets_the_marks(request: AppendRequest, checked: Checked, log: Log) -> Decision:
    """Of an append that has events, too."""
    decision = decide(request, checked, log)
    if isinstance(decision, NewAppend) and request.parts:
        return decision._replace(append=decision.append._replace(marks=()))
    return decision


def counts_each_stream_for_itself(request: AppendRequest, checked: Checked, log: Log) -> Decision:
    """Two streams of a tag get the same numbers."""
    decision = decide(request, checked, log)
    if isinstance(decision, NewAppend):
        parts = tuple(
            part._replace(first_tag_number=part.first_tag_number and part.first_version)
            for part in decision.append.parts
        )
        return decision._replace(append=decision.append._replace(parts=parts))
    return decision


def names_the_newest(request: AppendRequest, checked: Checked, log: Log) -> Decision:
    """Of several appends with these ids the newest is named."""
    places = [place for part in checked if (place := log.place_of_append(part.first_id)) is not None]
    return Known(max(places)) if places else decide(request, checked, log)


DECISION_MUTANTS: list[Callable[[AppendRequest, Checked, Log], Decision]] = [
    forgets_retries,
    versions_come_first,
    looks_at_the_first_id_alone,
    expects_of_the_first_stream_alone,
    expects_nothing_of_the_tag,
    moves_marks_anywhere,
    forgets_the_marks,
    counts_each_stream_for_itself,
    names_the_newest,
]


def breaks_the_decision() -> bool:
    def attempt(seed: int) -> bool:
        return _fails_async(lambda: against_the_pure_decision(BrokenBackend(LogRepository), seed))

    return any(attempt(seed) for seed in range(4))


def test_the_honest_decision_passes() -> None:
    assert not breaks_the_decision()


@pytest.mark.parametrize("mutant", DECISION_MUTANTS, ids=lambda mutant: mutant.__name__)
def test_broken_decisions_fail_the_contract(
    mutant: Callable[[AppendRequest, Checked, Log], Decision], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_repository, "decide", mutant)
    assert breaks_the_decision(), mutant.__doc__


def test_verify_notices_what_the_mutants_leave_behind() -> None:
    storage = MissedRollback(partition_count=PARTITIONS)
    history = RandomHistory(MemoryBackend(), 0)
    history.storage, history.random = storage, Random(3)
    faults: list[str] = []
    for _ in range(60):
        write = history._change(history.logs[0])
        storage.write([write])
        faults += storage.verify(0)
    assert faults
