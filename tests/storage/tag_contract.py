"""What a repository does with tags and marks: numbers without gaps, positions that never go back."""

from __future__ import annotations

from itertools import pairwise
from random import Random

import pytest

from allsource.storage.model.answers import StreamAppend
from allsource.storage.model.entry import Mark
from allsource.storage.model.errors import (
    InvalidRequest,
    MarkRefused,
    WrongExpectedTag,
    WrongExpectedVersion,
)
from allsource.storage.model.events import Event
from allsource.storage.model.partition import partition_of, partition_of_tag
from allsource.storage.repository import EventStreamRepository
from tests.storage.repository_backend import RepositoryBackend, new

TAG = "shop"
A, B, C = "a{shop}", "b{shop}", "{shop}"
OTHER = "a{other}"
PARTITION = partition_of_tag(TAG)


def numbered(events: list[Event]) -> list[tuple[int, str, int]]:
    return [(event.tag_number, event.stream, event.version) for event in events]


class TagContract:
    """A part of `RepositoryContract`."""

    # -- tags

    async def test_a_tag_numbers_the_events_of_its_streams(self, events: EventStreamRepository) -> None:
        await events.append_to_stream(A, new(2))
        await events.append(StreamAppend(B, new()), StreamAppend(A, new()), StreamAppend(C, new(2)))
        await events.append_to_stream(OTHER, new())
        await events.append_to_stream(B, new(1, "Paid"))
        expected = [(1, A, 1), (2, A, 2), (3, B, 1), (4, A, 3), (5, C, 1), (6, C, 2), (7, B, 2)]
        assert numbered(await events.read_tag(TAG)) == expected
        assert numbered(await events.read_tag(TAG, backward=True)) == expected[::-1]
        assert numbered(await events.read_tag("other")) == [(1, OTHER, 1)]
        assert await events.read_tag("nothing") == []
        everything = [e for e in await events.read_partition(PARTITION) if "{shop}" in e.stream]
        assert numbered(everything) == expected, "and in every read the event says its number"
        assert numbered(await events.read_stream(B)) == [(3, B, 1), (7, B, 2)]

    async def test_pages_of_a_tag(self, events: EventStreamRepository) -> None:
        for number in range(7):
            await events.append(
                StreamAppend(A, new(1 + number % 3)), StreamAppend(B, new(1, f"T{number % 2}"))
            )
        everything = await events.read_tag(TAG, limit=None)
        last = everything[-1].tag_number
        assert [event.tag_number for event in everything] == list(range(1, last + 1))
        for start in (1, 2, 3, last - 1, last, last + 1, last + 9):
            for limit in (1, 2, 5, 100):
                page = await events.read_tag(TAG, from_number=start, limit=limit)
                assert page == everything[start - 1 :][:limit]
                page = await events.read_tag(TAG, from_number=start, limit=limit, backward=True)
                assert page == everything[:start][::-1][:limit]
        wanted = [event for event in everything if event.type == "T1"]
        assert await events.read_tag(TAG, types=["T1"]) == wanted
        assert await events.read_tag(TAG, types={"T1"}, limit=2, backward=True) == wanted[::-1][:2]
        assert await events.read_tag(TAG, types=["T9"]) == []

    async def test_streams_without_a_tag_have_no_number(self, events: EventStreamRepository) -> None:
        for stream in ("plain", "{", "{}x", "}a{"):
            await events.append_to_stream(stream, new(2))
            assert [event.tag_number for event in await events.read_stream(stream)] == [0, 0]

    async def test_a_large_append_is_numbered_through(self, events: EventStreamRepository) -> None:
        await events.append_to_stream(A, new(3))
        await events.append_to_stream(B, new(700))
        assert [e.tag_number for e in await events.read_stream(B, limit=None)] == list(range(4, 704))
        (one,) = await events.read_tag(TAG, from_number=500, limit=1)
        assert (one.tag_number, one.version) == (500, 497)

    async def test_an_append_may_expect_a_tags_number(self, events: EventStreamRepository) -> None:
        await events.append(StreamAppend(A, new(2)), expected_tag=0)
        with pytest.raises(WrongExpectedTag) as caught:
            await events.append(StreamAppend(B, new()), expected_tag=1)
        assert caught.value.details == {"tag": TAG, "expected": 1, "actual": 2}
        sent = StreamAppend(B, new(), "no_stream")
        await events.append(sent, StreamAppend(A, new()), expected_tag=2)
        with pytest.raises(WrongExpectedVersion):
            await events.append(StreamAppend(B, new(), "no_stream"), expected_tag=4)
        assert len(await events.read_tag(TAG)) == 4

    async def test_a_retry_is_known_whatever_it_expected(self, events: EventStreamRepository) -> None:
        sent, mark = StreamAppend(A, new(2)), Mark("m", 1, 0)
        first = await events.append(sent, expected_tag=0, marks=[mark])
        await events.append_to_stream(B, new())
        again = await events.append(sent, expected_tag=0, marks=[mark])
        assert again == first._replace(duplicate=True)
        assert len(await events.read_tag(TAG)) == 3

    @pytest.mark.parametrize(
        ("appends", "expected"),
        [
            ([StreamAppend("plain", new())], 0),
            ([StreamAppend(A, new())], -3),
            ([StreamAppend(A, new())], "2"),
            ([StreamAppend(A, new())], True),
            ([StreamAppend(A, new())], 2**63),
            ([], 0),
        ],
    )
    async def test_what_is_no_expected_tag(
        self, events: EventStreamRepository, appends: list[StreamAppend], expected: int
    ) -> None:
        with pytest.raises(InvalidRequest):
            await events.append(*appends, expected_tag=expected)
        assert await events.count_streams() == 0

    @pytest.mark.parametrize("tag", ["", "{shop}", "a}b", 7, "x" * 129, "a\0"])
    async def test_what_is_no_tag(self, events: EventStreamRepository, tag: str) -> None:
        with pytest.raises(InvalidRequest):
            await events.read_tag(tag)

    async def test_the_stores_own_names_are_refused(self, events: EventStreamRepository) -> None:
        for stream in ("$", "$groups", "$x{shop}"):
            with pytest.raises(InvalidRequest, match="store's own"):
                await events.append_to_stream(stream, new())
        assert await events.count_streams() == 0

    # -- marks

    async def test_marks_move_forward_and_are_fenced(self, events: EventStreamRepository) -> None:
        partition = partition_of("plain")
        assert await events.get_mark(partition, "m") is None
        for position, generation in ((5, 1), (6, 1), (0, 2), (1, 2), (2**63 - 1, 9)):
            mark = Mark("m", position, generation)
            await events.append(StreamAppend("plain", new()), marks=[mark])
            assert await events.get_mark(partition, "m") == mark
            for refused in (mark, (position - 1, generation), (position + 7, generation - 1)):
                moved = Mark("m", *refused[-2:])
                if min(moved[1:]) < 0 or max(moved[1:]) >= 2**63:
                    continue
                with pytest.raises(MarkRefused) as caught:
                    await events.append(StreamAppend("plain", new()), marks=[moved])
                assert caught.value.details == {
                    "name": "m",
                    "position": position,
                    "generation": generation,
                }
        assert await events.get_mark(partition, "m1") is None
        assert await events.get_mark((partition + 1) % 32, "m") is None
        assert len(await events.read_stream("plain")) == 5, "what is refused stores nothing"

    async def test_an_append_moves_all_its_marks_or_none(self, events: EventStreamRepository) -> None:
        await events.append(StreamAppend(A, new()), marks=[Mark("m", 3, 0)])
        with pytest.raises(MarkRefused):
            await events.append(StreamAppend(A, new()), marks=[Mark("n", 1, 0), Mark("m", 3, 0)])
        with pytest.raises(WrongExpectedVersion):
            await events.append(StreamAppend(A, new(), 7), marks=[Mark("n", 1, 0)])
        assert await events.get_mark(PARTITION, "n") is None

    async def test_marks_move_without_events(self, events: EventStreamRepository) -> None:
        await events.append_to_stream(A, new(2))
        marks = [Mark("m", 3, 1), Mark("n", 4, 1)]
        done = await events.move_marks(PARTITION, marks)
        assert (done.partition, done.streams, done.duplicate) == (PARTITION, (), False)
        assert (done.first_position, done.last_position) == (3, 2)
        again = await events.move_marks(PARTITION, marks)
        assert again.duplicate, "a retry is told what happened"
        with pytest.raises(MarkRefused):
            await events.move_marks(PARTITION, [Mark("m", 3, 1), Mark("n", 5, 1)])
        await events.move_marks(PARTITION, [Mark("m", 9, 1)])
        with pytest.raises(MarkRefused):
            await events.move_marks(PARTITION, marks)
        assert await events.get_mark(PARTITION, "m") == Mark("m", 9, 1)
        later = await events.append_to_stream(A, new())
        assert later.first_position == 3, "marks take no position"
        assert [event.position for event in await events.read_partition(PARTITION)] == [1, 2, 3]

    @pytest.mark.parametrize(
        "marks",
        [
            [Mark("", 1, 1)],
            [Mark("x" * 129, 1, 1)],
            [Mark("a\n", 1, 1)],
            [Mark("m", -1, 1)],
            [Mark("m", 1, -1)],
            [Mark("m", 2**63, 1)],
            [Mark("m", 1, 2**63)],
            [("m", "1", 1)],
            [("m", True, 1)],
            [("m", 1)],
            ["abc", None],
            [Mark("m", 1, 1), Mark("m", 2, 1)],
            [Mark(f"m{number}", 1, 1) for number in range(1025)],
            [],
        ],
    )
    async def test_what_are_no_marks(self, events: EventStreamRepository, marks: list[Mark]) -> None:
        with pytest.raises(InvalidRequest):
            await events.move_marks(PARTITION, marks)
        if marks:
            with pytest.raises(InvalidRequest):
                await events.append(StreamAppend(A, new()), marks=marks)
        assert await events.count_streams() == 0

    async def test_tags_and_marks_are_there_after_a_restart(self, backend: RepositoryBackend) -> None:
        if not backend.reopens():
            return
        async with backend.make() as events:
            await events.append(StreamAppend(A, new(2)), marks=[Mark("m", 1, 1)])
            found = await events.read_tag(TAG)
        async with backend.make() as events:
            assert await events.read_tag(TAG) == found
            assert await events.get_mark(PARTITION, "m") == Mark("m", 1, 1)
            await events.append(StreamAppend(B, new()), expected_tag=2, marks=[Mark("m", 2, 1)])
            assert numbered(await events.read_tag(TAG))[-1] == (3, B, 1)

    @pytest.mark.parametrize("seed", range(2))
    async def test_random_tags_and_marks(self, backend: RepositoryBackend, seed: int) -> None:
        """Replay one alone: `pytest tests/storage -k 'random_tags and [SEED]'`."""
        print(f"seed {seed}: pytest tests/storage -k 'random_tags and [{seed}]'")
        random = Random(seed)
        numbers = {TAG: 0, "other": 0}
        mark: tuple[int, int] | None = None
        async with backend.make() as events:
            for _ in range(80):
                streams = random.sample((A, B, C), random.choice((1, 2)))
                tag = TAG
                if random.random() < 0.2:
                    streams, tag = [OTHER], "other"
                position, generation = mark or (0, 0)
                moved = (
                    random.randint(max(0, position - 1), position + 2),
                    max(0, generation + random.choice((0, 0, 0, 1, -1))),
                )
                marks = [Mark("m", *moved)] if tag == TAG and random.random() < 0.4 else []
                expected = random.choice((None, None, numbers[tag], numbers[tag] + 1))
                appends = [StreamAppend(stream, new(random.choice((1, 1, 3)))) for stream in streams]
                fenced = bool(marks) and mark is not None and moved[::-1] <= mark[::-1]
                try:
                    await events.append(*appends, expected_tag=expected, marks=marks)
                except MarkRefused:
                    assert fenced
                except WrongExpectedTag:
                    assert expected == numbers[tag] + 1
                else:
                    assert not fenced
                    assert expected in (None, numbers[tag])
                    numbers[tag] += sum(len(append.events) for append in appends)
                    mark = moved if marks else mark
            for tag, last in numbers.items():
                found = [event.tag_number for event in await events.read_tag(tag, limit=None)]
                assert found == list(range(1, last + 1))
            positions = [e.position for e in await events.read_tag(TAG, limit=None)]
            assert all(one < other for one, other in pairwise(positions))
