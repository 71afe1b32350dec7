"""The reading half of the repositories' contract: by position, type and time."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from itertools import groupby
from random import Random
from typing import Any

import pytest

from allsource.storage.model.errors import InvalidRequest, NotFound, WrongExpectedVersion
from allsource.storage.model.events import Event, NewEvent
from allsource.storage.model.partition import partition_of
from allsource.storage.repository import EventStreamRepository
from tests.storage.repository_backend import BEGIN, Clock, RepositoryBackend, new, sharing_a_partition


class ReadingContract:
    """See the module's page; a part of `RepositoryContract`."""

    @pytest.fixture
    def backend(self) -> RepositoryBackend:
        raise AssertionError("the backend's module overrides this fixture")

    @pytest.fixture
    async def events(self, backend: RepositoryBackend) -> AsyncIterator[EventStreamRepository]:
        async with backend.make() as events:
            yield events

    # -- by position, type and time

    async def test_a_partition_is_read_by_position_and_type(self, events: EventStreamRepository) -> None:
        a, b = sharing_a_partition(2)
        for i in range(30):
            await events.append_to_stream((a, b)[i % 2], new(1 + i % 3, ("Red", "Blue", "Green")[i % 3]))
        await events.append_to_stream("elsewhere", new())
        partition = partition_of(a)
        found = await events.read_partition(partition)
        assert [e.position for e in found] == list(range(1, 61))
        assert Counter(e.type for e in found) == {"Red": 10, "Blue": 20, "Green": 30}
        paged = []
        while page := await events.read_partition(
            partition, from_position=paged[-1].position + 1 if paged else 1, limit=7
        ):
            assert len(page) <= 7
            paged += page
        assert paged == found
        blue = await events.read_partition(partition, types={"Blue"}, from_position=11, limit=5)
        assert blue == [e for e in found if e.type == "Blue" and e.position >= 11][:5]
        assert await events.read_partition(partition, types={"Black"}) == []
        assert await events.read_partition(partition, from_position=61) == []
        assert await events.read_partition(partition, limit=None) == found

    async def test_reading_by_time_and_as_of_a_time(self, backend: RepositoryBackend) -> None:
        clock = Clock()
        async with backend.make(clock=clock) as events:
            for hour in range(10):
                clock.now = BEGIN + timedelta(hours=hour)
                await events.append_to_stream("order-1", new(2))
            partition = partition_of("order-1")

            async def positions(**wanted: object) -> list[int]:
                found = await events.read_partition(partition, **wanted)  # type: ignore[arg-type]
                return [event.position for event in found]

            at = BEGIN + timedelta(hours=4)
            just_before, just_after = at - timedelta(microseconds=1), at + timedelta(microseconds=1)
            assert await positions(since=at) == list(range(9, 21))
            assert await positions(since=just_after) == list(range(11, 21))
            assert await positions(until=at) == list(range(1, 11))
            assert await positions(until=just_before) == list(range(1, 9))
            assert await positions(since=at, until=at) == [9, 10]
            assert await positions(since=at, from_position=12, limit=3) == [12, 13, 14]
            assert await positions(since=clock.now + timedelta(hours=1)) == []
            assert await positions(until=BEGIN - timedelta(hours=1)) == []

            past = await events.load_stream("order-1", as_of=at)
            assert past.current_version == 10
            assert [
                e.version for e in await events.read_stream("order-1", as_of=at, backward=True, limit=2)
            ] == [
                10,
                9,
            ]
            with pytest.raises(NotFound):
                await events.load_stream("order-1", as_of=BEGIN - timedelta(hours=1))
            past.append_event(NewEvent.json("Late"))
            with pytest.raises(WrongExpectedVersion):
                await events.save_stream(past)
            with pytest.raises(InvalidRequest, match="time zone"):
                await events.load_stream("order-1", as_of=datetime(2026, 1, 1))

    async def test_time_never_runs_backward_in_a_partition(self, backend: RepositoryBackend) -> None:
        clock = Clock()
        async with backend.make(clock=clock) as events:
            for hour in (3, 1, 2, 4):
                clock.now = BEGIN + timedelta(hours=hour)
                await events.append_to_stream("order-1", new())
            found = await events.read_stream("order-1")
            hours = [(event.timestamp_us - found[0].timestamp_us) // 3_600_000_000 for event in found]
            assert hours == [0, 0, 0, 1]

    async def test_a_partition_is_read_backward(self, events: EventStreamRepository) -> None:
        a, b = sharing_a_partition(2)
        partition = partition_of(a)
        assert await events.read_partition(partition, backward=True) == []
        for i in range(150):
            await events.append_to_stream((a, b)[i % 2], new(1 + i % 3, ("Red", "Blue")[i % 2]))
        all_of_it = await events.read_partition(partition)
        assert await events.read_partition(partition, backward=True, limit=None) == all_of_it[::-1]
        assert await events.read_partition(partition, backward=True, limit=5) == all_of_it[:-6:-1]
        paged: list[Event] = []
        while not paged or paged[-1].position > 1:
            paged += await events.read_partition(
                partition, backward=True, from_position=paged[-1].position - 1 if paged else None, limit=70
            )
            assert len(paged) <= len(all_of_it)
        assert paged == all_of_it[::-1]
        assert await events.read_partition(partition, backward=True, from_position=1) == all_of_it[:1]
        beyond = len(all_of_it) + 10
        assert await events.read_partition(partition, backward=True, from_position=beyond, limit=1) == [
            all_of_it[-1]
        ]

    @pytest.mark.parametrize("seed", range(3))
    async def test_any_way_of_reading_a_partition_equals_the_model(
        self, backend: RepositoryBackend, seed: int
    ) -> None:
        print(f"seed {seed}: pytest tests/storage -k 'any_way_of_reading and [{seed}]'")
        random, clock = Random(seed), Clock()
        streams = sharing_a_partition(5)
        partition = partition_of(streams[0])
        async with backend.make(clock=clock) as events:
            for _ in range(120):
                clock.now += timedelta(seconds=random.choice((0, 0, 1, 7)))
                made = new(random.randint(1, 4), random.choice(("Red", "Blue", "Green")))
                await events.append_to_stream(random.choice(streams), made)
            everything = await events.read_partition(partition, limit=None)
            assert [event.position for event in everything] == list(range(1, len(everything) + 1))
            for _ in range(60):
                await self._compare(events, partition, everything, random, clock)

    async def _compare(
        self,
        events: EventStreamRepository,
        partition: int,
        everything: list[Event],
        random: Random,
        clock: Clock,
    ) -> None:
        def moment() -> datetime | None:
            span = (clock.now - BEGIN) // timedelta(seconds=1) + 2
            return random.choice((None, BEGIN + timedelta(seconds=random.randint(-1, span))))

        backward, limit = random.random() < 0.5, random.choice((None, 1, 10, 1000))
        position = random.choice((None, random.randint(1, len(everything) + 2)))
        types = random.choice((None, {"Red"}, {"Red", "Green"}, {"Black"}))
        since, until = moment(), moment()

        def wanted(event: Event) -> bool:
            at = BEGIN + timedelta(microseconds=event.timestamp_us - Clock()())
            return (
                (
                    position is None
                    or (event.position <= position if backward else event.position >= position)
                )
                and (types is None or event.type in types)
                and (since is None or at >= since)
                and (until is None or at <= until)
            )

        expected = [event for event in (everything[::-1] if backward else everything) if wanted(event)]
        found = await events.read_partition(
            partition,
            from_position=position,
            limit=limit,
            backward=backward,
            types=types,
            since=since,
            until=until,
        )
        assert found == expected[:limit], (
            position,
            limit,
            backward,
            types,
            since,
            until,
        )

    async def test_a_limit_is_a_page_or_none_at_all(self, events: EventStreamRepository) -> None:
        names = sharing_a_partition(3)
        for name in names:
            await events.append_to_stream(name, new(2))
        partition = partition_of(names[0])
        for limit, streams, found in ((None, 3, 6), (2, 2, 2), (9, 3, 6), (2**63 - 1, 3, 6)):
            assert len(await events.read_partition(partition, limit=limit)) == found
            assert len(await events.get_streams_by_partition(partition, limit=limit)) == streams
            assert len(await events.list_streams(limit=limit)) == streams
            assert len(await events.read_stream(names[0], limit=limit)) == 2
        for bad in (0, -1, 2**63, True, "2", 2.0):
            limited: dict[str, Any] = {"limit": bad}
            for refused in (
                events.read_stream(names[0], **limited),
                events.read_partition(partition, **limited),
                events.get_streams_by_partition(partition, **limited),
                events.list_streams(**limited),
                events.read_stream(names[0], **{**limited, "limit": 1, "from_version": bad}),
                events.read_partition(partition, **{**limited, "limit": 1, "from_position": bad}),
            ):
                with pytest.raises(InvalidRequest, match=r"^(limit|from_version|from_position) must be"):
                    await refused

    async def test_all_partitions_are_read_by_time(self, backend: RepositoryBackend) -> None:
        clock, random = Clock(), Random(5)
        async with backend.make(clock=clock) as events:
            assert [event async for event in events.read_all()] == []
            for i in range(300):
                clock.now += timedelta(seconds=random.choice((0, 1)))
                # One busy partition, longer than a page of it, and many others.
                stream = "busy" if i % 2 else f"order-{i % 40}"
                await events.append_to_stream(stream, new(1, random.choice(("Red", "Blue"))))
            found = [event async for event in events.read_all()]
            assert len(found) == len({event.id for event in found}) == 300
            assert [e.timestamp_us for e in found] == sorted(e.timestamp_us for e in found)
            for partition, own in groupby(
                sorted(found, key=lambda e: e.partition), key=lambda e: e.partition
            ):
                assert list(own) == await events.read_partition(partition)
            middle = clock.now - (clock.now - BEGIN) / 2
            red = [event async for event in events.read_all(types={"Red"}, until=middle)]
            middle_us = Clock()() + (middle - BEGIN) // timedelta(microseconds=1)
            assert red == [e for e in found if e.type == "Red" and e.timestamp_us <= middle_us]
            late = [event async for event in events.read_all(since=middle)]
            assert late == [e for e in found if e.timestamp_us >= middle_us]
