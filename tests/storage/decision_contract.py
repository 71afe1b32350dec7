"""The repositories' contract where it is about the decision to append (`storage.model.append`).

`steps` draws appends that meet each branch of the decision, valid and invalid, and `truth` says what must
come of one: what the pure decision says over a log of dictionaries. Every repository is held against that
here, and a partition's owner in `tests/node/requests/test_ingest.py`.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable
from random import Random
from typing import Any, NamedTuple

import pytest

from allsource.config.schema import Limits
from allsource.storage.model.answers import AppendResult, StreamAppend
from allsource.storage.model.append import STREAMS_MAX, AppendRequest, append_request, partition_of_append
from allsource.storage.model.entry import Mark
from allsource.storage.model.errors import (
    AllsourceError,
    EventIdConflict,
    InvalidRequest,
    TooLarge,
    WrongExpectedVersion,
)
from allsource.storage.model.events import NewEvent
from allsource.storage.model.partition import partition_of
from allsource.storage.repository import EventStreamRepository
from tests.storage.model.pure_log import PureLog
from tests.storage.repository_backend import RepositoryBackend, new, sharing_a_partition

STREAMS = (*sharing_a_partition(3), "part-0{shared}-again")
PARTITION = partition_of(STREAMS[0])
SEED_VARIABLE = "ALLSOURCE_TEST_SEED"
LIMITS = Limits(append_events_max=6, append_bytes_max=2000, event_bytes_max=300)


class Step(NamedTuple):
    """An append, as a caller asks for it; without streams, a move of marks of `PARTITION`."""

    appends: tuple[StreamAppend, ...]
    expected_tag: int | None = None
    marks: tuple[Mark, ...] = ()


def drawn_seed() -> int:
    """Another one in each run, or the one to be replayed; printed with the line that replays it."""
    seed = int(os.environ.get(SEED_VARIABLE) or Random().randrange(1 << 32))
    print(f"{SEED_VARIABLE}={seed} pytest tests/storage tests/node/requests -k pure_decision")
    return seed


def comparable(answer: AppendResult | AllsourceError) -> Any:
    """An answer that can be compared. Where there is no log, results have no index."""
    if isinstance(answer, AllsourceError):
        return type(answer), answer.message, answer.details
    return answer._replace(index=0)


async def outcome(call: Awaitable[AppendResult]) -> Any:
    """What came of an append."""
    try:
        result = await call
    except AllsourceError as error:
        return comparable(error)
    assert isinstance(result, AppendResult), "errors are raised"
    return comparable(result)


def truth(log: PureLog, step: Step) -> Any:
    """What must come of it."""
    try:
        return comparable(log.append(packed(step), LIMITS))
    except AllsourceError as error:
        return comparable(error)


def packed(step: Step) -> AppendRequest:
    """As an append goes to its partition's owner."""
    partition = -1 if step.appends or step.expected_tag is not None else PARTITION
    request = append_request("appends", step.appends, step.expected_tag, step.marks, partition)
    partition_of_append(request, 32)
    return request


def steps(random: Random, count: int) -> list[Step]:
    """Appends to a few streams: new ones, retries whole, in another order, in part or with a change, with
    expectations that hold and that do not, marks that move and that may not, and now and then what is not
    allowed."""
    found: list[Step] = []
    log = PureLog(PARTITION)  # to know what to expect of a tag
    sound = [_fresh(random)]
    moved: list[tuple[Mark, ...]] = [(Mark("m", 1, 0),)]
    for _ in range(count):
        kind = random.random()
        if kind < 0.08:
            moved.append(_marks(random) if random.random() < 0.6 else random.choice(moved[-4:]))
            found.append(Step((), None, moved[-1]))
        elif kind < 0.9:
            known = sound if random.random() < 0.5 else sound[-3:]  # also what is not written yet
            again = _again(random, random.choice(known), random.choice(sound))
            sound.append(_fresh(random) if kind < 0.55 else again)
            found.append(_step(random, sound[-1], log.tag("shared")[0]))
        elif kind < 0.97:
            found.append(Step(_wrong(random, random.choice(sound))))
        else:
            found.append(_wrong_beside(random, random.choice(sound)))
        truth(log, found[-1])
    return found


def _step(random: Random, appends: tuple[StreamAppend, ...], number: int) -> Step:
    """These appends; now and then with a number that their tag should have (it has `number`), or marks."""
    expected_tag = max(0, number - random.choice((0, 0, 0, 1, 5))) if random.random() < 0.2 else None
    return Step(appends, expected_tag, _marks(random) if random.random() < 0.2 else ())


def _marks(random: Random) -> tuple[Mark, ...]:
    names = random.sample(("m", "n"), random.choice((1, 1, 2)))
    return tuple(Mark(name, random.randint(0, 9), random.choice((0, 0, 1, 2))) for name in names)


def _wrong_beside(random: Random, appends: tuple[StreamAppend, ...]) -> Step:
    """What is not allowed of a tag's number and of marks."""
    return random.choice(
        (
            Step(appends, -1),
            Step(appends, 2**63),
            Step((StreamAppend("plain", new()),), 0),
            Step((), 0, (Mark("m", 9, 9),)),
            Step(appends, None, (Mark("", 1, 1),)),
            Step(appends, None, (Mark("m", -1, 1),)),
            Step((), None, (Mark("m", 9, 2**63),)),
            Step((), None, (Mark("m", 8, 9), Mark("m", 9, 9))),
            Step((StreamAppend("$own{shared}", new()),)),
        )
    )


def _fresh(random: Random) -> tuple[StreamAppend, ...]:
    streams = random.sample(STREAMS, random.choice((1, 1, 1, 2, 3)))
    return tuple(StreamAppend(stream, _some(random), _wish(random)) for stream in streams)


def _some(random: Random) -> list[NewEvent]:
    return [
        NewEvent("Tested", str(random.randint(0, 9)).encode(), id=random.randbytes(16))
        for _ in range(random.choice((1, 1, 1, 2, 3)))
    ]


def _wish(random: Random) -> str | int:
    return random.choice(("any", "any", "any", "exists", "no_stream", random.randint(0, 12)))


def _again(
    random: Random, one: tuple[StreamAppend, ...], other: tuple[StreamAppend, ...]
) -> tuple[StreamAppend, ...]:
    match random.randint(0, 7):
        case 0 | 1:
            return one
        case 2:
            return tuple(append._replace(expected_version=_wish(random)) for append in reversed(one))
        case 3:
            return one[: random.randint(1, len(one))]
        case 4:  # parts of two appends, or one with another's stream
            return (*one[:1], *other[-1:])
        case 5:
            return (one[0]._replace(stream=random.choice(STREAMS)), *one[1:])
        case 6:
            events = list(one[0].events)  # type: ignore[arg-type]  # always lists here
            return (one[0]._replace(events=events[: random.randint(1, len(events))]), *one[1:])
        case _:
            changed = [
                NewEvent(event.type, b'"other"', id=event.id)
                for event in one[0].events  # type: ignore[union-attr]
            ]
            return (one[0]._replace(events=changed), *one[1:])


def _wrong(random: Random, one: tuple[StreamAppend, ...]) -> tuple[StreamAppend, ...]:
    first = one[0]
    return random.choice(
        (
            (),
            (first, first),
            (first._replace(stream=""),),
            (first._replace(stream="elsewhere"), StreamAppend("part-0{shared}", new())),
            (first._replace(expected_version="sometimes"),),
            (first._replace(expected_version=-1),),
            (first._replace(events=[]),),
            (first._replace(events=[*new(4), *new(3)]),),
            (StreamAppend(STREAMS[0], new(4)), StreamAppend(STREAMS[1], new(3))),
            (first._replace(events=[NewEvent("Tested", b'"' + b"x" * 300 + b'"')]),),
            (first._replace(events=[NewEvent("Tested", b'"' + b"x" * 290 + b'"') for _ in range(6)]),),
            (first._replace(events=[*first.events, *first.events]),),  # type: ignore[misc]
            (StreamAppend(STREAMS[0], first.events), StreamAppend(STREAMS[1], first.events)),
        )
    )


async def against_the_pure_decision(backend: RepositoryBackend, seed: int) -> None:
    """Hold a repository against it."""
    log = PureLog(PARTITION)
    async with backend.make(limits=LIMITS) as events:
        for step in steps(Random(seed), 150):
            assert await outcome(asked(events, step)) == truth(log, step), step
        for name in ("m", "n"):
            mark = log.mark(name)
            assert await events.get_mark(PARTITION, name) == (mark and Mark(name, *mark[:2]))


async def asked(events: EventStreamRepository, step: Step) -> AppendResult:
    """The step put to a repository."""
    if step.appends or step.expected_tag is not None:
        return await events.append(*step.appends, expected_tag=step.expected_tag, marks=step.marks)
    return await events.move_marks(PARTITION, step.marks)


class DecisionContract:
    """A part of `RepositoryContract`, whose fixtures it uses."""

    async def test_a_retry_gets_the_first_answer_again(self, events: EventStreamRepository) -> None:
        sent = new(3)
        first = await events.append_to_stream("order-1", sent, "no_stream")
        await events.append_to_stream("order-1", new())
        again = await events.append_to_stream("order-1", sent, "no_stream")
        assert again == first._replace(duplicate=True)
        assert await events.append_to_stream("order-1", sent, 77) == again, "ids come before versions"
        assert len(await events.read_stream("order-1")) == 4

    async def test_the_same_ids_with_other_content_are_refused(self, events: EventStreamRepository) -> None:
        one, two = new(2)
        await events.append_to_stream("order-{1}", [one])
        for stream, changed in (
            ("order-{1}", [one, two]),
            ("order-{1}", [NewEvent(one.type, b'"other"', id=one.id)]),
            ("order-again-{1}", [one]),
        ):
            with pytest.raises(EventIdConflict, match="position 1, with other content"):
                await events.append_to_stream(stream, changed)
        assert len(await events.read_stream("order-{1}")) == 1

    async def test_a_retry_of_several_streams_in_another_order(self, events: EventStreamRepository) -> None:
        a, b = sharing_a_partition(2)
        appends = [StreamAppend(a, new(2)), StreamAppend(b, new(1))]
        first = await events.append(*appends)
        assert await events.append(*reversed(appends)) == first._replace(duplicate=True)
        with pytest.raises(EventIdConflict):
            await events.append(appends[1])

    async def test_ids_of_two_appends_in_one_are_a_conflict_with_the_older(
        self, events: EventStreamRepository
    ) -> None:
        a, b = sharing_a_partition(2)
        older, newer = StreamAppend(a, new()), StreamAppend(b, new())
        await events.append(older)
        await events.append(newer)
        for both in ((older, newer), (newer, older)):
            with pytest.raises(EventIdConflict) as caught:
                await events.append(*both)
            assert caught.value.details["first_position"] == 1

    async def test_a_retry_that_is_not_well_formed_is_refused_as_such(
        self, events: EventStreamRepository
    ) -> None:
        sent = new()
        await events.append_to_stream("order-1", sent)
        for expected in ("sometimes", -1, True):
            with pytest.raises(InvalidRequest, match="expected_version must be"):
                await events.append_to_stream("order-1", sent, expected)

    async def test_only_first_ids_are_known(self, events: EventStreamRepository) -> None:
        one, two = new(2)
        await events.append_to_stream("order-1", [one, two])
        done = await events.append_to_stream("order-1", [two])
        assert not done.duplicate
        assert len(await events.read_stream("order-1")) == 3

    async def test_the_first_failed_expectation_is_named(self, events: EventStreamRepository) -> None:
        a, b, c = sharing_a_partition(3)
        with pytest.raises(WrongExpectedVersion) as caught:
            await events.append(
                StreamAppend(a, new()), StreamAppend(b, new(), 5), StreamAppend(c, new(), 6)
            )
        assert caught.value.details == {"stream": b, "expected": 5, "actual": 0}
        assert await events.count_streams() == 0

    async def test_limits_are_those_of_the_whole_append(self, backend: RepositoryBackend) -> None:
        a, b = sharing_a_partition(2)
        async with backend.make(limits=Limits(append_events_max=5)) as events:
            with pytest.raises(TooLarge, match="at most 5 events in one append"):
                await events.append(StreamAppend(a, new(3)), StreamAppend(b, new(3)))
            too_many = [StreamAppend(f"{n}{{shared}}", new()) for n in range(STREAMS_MAX + 1)]
            with pytest.raises(TooLarge, match=f"at most {STREAMS_MAX} streams"):
                await events.append(*too_many)
            assert await events.count_streams() == 0

    async def test_every_outcome_is_that_of_the_pure_decision(self, backend: RepositoryBackend) -> None:
        await against_the_pure_decision(backend, drawn_seed())
