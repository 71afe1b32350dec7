"""What every `EventStreamRepository` must do, whichever storage stands behind it.

A backend's test module derives from `RepositoryContract` and gives it a `backend` fixture.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from random import Random

import pytest

from allsource.config.schema import Limits
from allsource.storage.model.answers import StreamAppend
from allsource.storage.model.errors import (
    InvalidRequest,
    NotFound,
    StorageFault,
    TooLarge,
    WrongExpectedVersion,
)
from allsource.storage.model.events import BINARY, NewEvent
from allsource.storage.model.partition import partition_of
from allsource.storage.model.times import as_microseconds as as_us
from allsource.storage.repository import EventStreamRepository
from tests.foreign import foreign_event
from tests.storage.decision_contract import DecisionContract
from tests.storage.reading_contract import ReadingContract
from tests.storage.repository_backend import BEGIN, Clock, RepositoryBackend, new, sharing_a_partition
from tests.storage.tag_contract import TagContract
from tests.storage.writing_contract import WritingContract


class RepositoryContract(ReadingContract, WritingContract, DecisionContract, TagContract):
    """The suite."""

    # -- appending and reading

    async def test_what_is_appended_can_be_read(self, events: EventStreamRepository) -> None:
        before = datetime.now(UTC)
        first = await events.append_to_stream("order-1", new(2), "no_stream")
        second = await events.append_to_stream("order-1", new(1, "Paid"), 2)
        assert [tuple(one) for one in (*first.streams, *second.streams)] == [
            ("order-1", 1, 2),
            ("order-1", 3, 3),
        ]
        assert (first.first_position, first.last_position, second.first_position) == (1, 2, 3)
        found = await events.read_stream("order-1")
        assert [(e.version, e.position, e.type) for e in found] == [
            (1, 1, "Tested"),
            (2, 2, "Tested"),
            (3, 3, "Paid"),
        ]
        assert {e.partition for e in found} == {partition_of("order-1")}
        info = await events.get_stream_info("order-1")
        assert before - timedelta(seconds=1) <= info.created_at <= info.updated_at
        assert (info.current_version, info.partition) == (3, partition_of("order-1"))

    async def test_events_come_back_byte_for_byte(self, events: EventStreamRepository) -> None:
        sent = [
            NewEvent.json("shop:Order.Placed", {"é": [1, None]}, {"by": "me"}),
            NewEvent("half", b'{"pair": "\\ud800"}'),
            NewEvent("raw", bytes(range(256)), b"\x00\xff", BINARY),
        ]
        await events.append_to_stream("order-é", sent)
        found = await events.read_stream("order-é")
        assert [(e.id, e.type, e.data, e.metadata, e.encoding) for e in found] == [
            (e.id, e.type, e.data, e.metadata, e.encoding) for e in sent
        ]

    async def test_reading_in_pages_and_both_directions(self, events: EventStreamRepository) -> None:
        for count in (1, 3, 2, 7, 1):
            await events.append_to_stream("order-1", new(count))
            await events.append_to_stream("order-2", new(1))

        async def versions(**wanted: object) -> list[int]:
            found = await events.read_stream("order-1", **wanted)  # type: ignore[arg-type]
            return [event.version for event in found]

        every = list(range(1, 15))
        assert await versions() == every
        assert await versions(backward=True) == every[::-1]
        assert await versions(limit=None) == every
        for start in (1, 2, 5, 8, 14):
            for limit in (1, 2, 6, 100):
                assert await versions(from_version=start, limit=limit) == every[start - 1 :][:limit]
                backward = await versions(from_version=start, limit=limit, backward=True)
                assert backward == every[:start][::-1][:limit]
        assert await versions(from_version=15) == []
        assert await versions(from_version=99, backward=True, limit=2) == [14, 13]

    async def test_long_streams(self, events: EventStreamRepository) -> None:
        for _ in range(3):
            await asyncio.gather(*(events.append_to_stream("long", new(2)) for _ in range(100)))
        found = await events.read_stream("long", limit=None)
        assert [event.version for event in found] == list(range(1, 601))
        found = await events.read_stream("long", limit=None, backward=True)
        assert [event.version for event in found] == list(range(600, 0, -1))
        assert await events.verify_gapless("long")

    async def test_expected_versions(self, events: EventStreamRepository) -> None:
        with pytest.raises(WrongExpectedVersion, match="expected exists, got 0"):
            await events.append_to_stream("order-1", new(), "exists")
        with pytest.raises(WrongExpectedVersion, match="expected 1, got 0"):
            await events.append_to_stream("order-1", new(), 1)
        await events.append_to_stream("order-1", new(), 0)
        await events.append_to_stream("order-1", new(), "exists")
        await events.append_to_stream("order-1", new(), "any")
        for expected in ("no_stream", 0, 2, 4):
            with pytest.raises(WrongExpectedVersion) as caught:
                await events.append_to_stream("order-1", new(), expected)
            assert caught.value.details["actual"] == 3
        assert len(await events.read_stream("order-1")) == 3

    async def test_bad_input_changes_nothing(self, backend: RepositoryBackend) -> None:
        limits = Limits(event_bytes_max=100, append_bytes_max=500, append_events_max=5)
        async with backend.make(limits=limits) as events:
            one = new()[0]
            for wrong, kind in (
                ((" bad", new(), "any"), InvalidRequest),
                (("order-1", [], "any"), InvalidRequest),
                (("order-1", [foreign_event("")], "any"), InvalidRequest),
                (("order-1", {"type": "A"}, "any"), InvalidRequest),
                (("order-1", [one, "A"], "any"), InvalidRequest),
                (("order-1", [foreign_event(id=b"short")], "any"), InvalidRequest),
                (("order-1", [one, one], "any"), InvalidRequest),
                (("order-1", new(), "sometimes"), InvalidRequest),
                (("order-1", new(), -1), InvalidRequest),
                (("order-1", new(6), "any"), TooLarge),
                (("order-1", [NewEvent("t", b"x" * 101, b"", BINARY)], "any"), TooLarge),
                (("order-1", [NewEvent("t", b"x" * 99, b"", BINARY) for _ in range(5)], "any"), TooLarge),
            ):
                with pytest.raises(kind):
                    await events.append_to_stream(*wrong)
            for appends in (
                (),
                (StreamAppend("a", new()), StreamAppend("a", new())),
                ("order-1", new()),  # as `append_to_stream` is called
                (("order-1", new()),),
            ):
                with pytest.raises(InvalidRequest):
                    await events.append(*appends)
            assert await events.count_streams() == 0

    async def test_an_append_to_several_streams_is_atomic(self, events: EventStreamRepository) -> None:
        a, b, c = sharing_a_partition(3)
        await events.append_to_stream(a, new())
        done = await events.append(StreamAppend(a, new(2), 1), StreamAppend(b, new(1), "no_stream"))
        assert [tuple(one) for one in done.streams] == [(a, 2, 3), (b, 1, 1)]
        assert (done.first_position, done.last_position) == (2, 4)
        with pytest.raises(WrongExpectedVersion) as caught:
            await events.append(StreamAppend(c, new()), StreamAppend(b, new(), "no_stream"))
        assert caught.value.details["stream"] == b
        with pytest.raises(NotFound):
            await events.read_stream(c)
        found = await events.read_partition(partition_of(a))
        assert [(e.stream, e.version) for e in found] == [(a, 1), (a, 2), (a, 3), (b, 1)]

    async def test_several_streams_must_share_a_partition(self, events: EventStreamRepository) -> None:
        with pytest.raises(InvalidRequest, match="give them a common"):
            await events.append(StreamAppend("order-1", new()), StreamAppend("order-2", new()))
        assert await events.count_streams() == 0

    # -- what is not there

    async def test_a_missing_stream_is_not_found_everywhere(self, events: EventStreamRepository) -> None:
        for ask in (
            events.read_stream,
            events.load_stream,
            events.get_stream_info,
            events.get_watermark,
            events.verify_gapless,
        ):
            with pytest.raises(NotFound, match="absent"):
                await ask("absent")
            with pytest.raises(InvalidRequest):
                await ask("\n")
        assert (await events.get_or_create_stream("absent")).current_version == 0
        with pytest.raises(NotFound):
            await events.get_stream_info("absent")

    async def test_partitions_that_do_not_exist(self, events: EventStreamRepository) -> None:
        for partition in (-1, 32):
            for ask in (events.read_partition, events.get_streams_by_partition, events.partition_stats):
                with pytest.raises(InvalidRequest, match="0 to 31"):
                    await ask(partition)

    # -- aggregates

    async def test_an_aggregate_is_loaded_changed_and_saved(self, events: EventStreamRepository) -> None:
        stream = await events.get_or_create_stream("order-1")
        stream.append_event(NewEvent.json("Placed"))
        stream.append_event(NewEvent.json("Paid"))
        saved = await events.save_stream(stream)
        assert saved is not None
        assert (saved.first_position, saved.duplicate) == (1, False)
        assert (stream.watermark, stream.pending) == (2, [])
        assert await events.save_stream(stream) is None
        again = await events.load_stream("order-1")
        assert again.events_from(1) == stream.events_from(1)
        assert again.is_gapless()
        again.append_event(NewEvent.json("Shipped"))
        await events.save_stream(again)
        assert await events.get_watermark("order-1") == 3

    async def test_a_stale_copy_is_refused(self, events: EventStreamRepository) -> None:
        await events.append_to_stream("order-1", new())
        mine, theirs = await events.load_stream("order-1"), await events.load_stream("order-1")
        theirs.append_event(NewEvent.json("Cancelled"))
        await events.save_stream(theirs)
        mine.append_event(NewEvent.json("Shipped"))
        with pytest.raises(WrongExpectedVersion, match="expected 1, got 2"):
            await events.save_stream(mine)
        assert [e.type for e in await events.read_stream("order-1")] == ["Tested", "Cancelled"]
        assert mine.watermark == 1

    async def test_saving_twice_stores_once(self, events: EventStreamRepository) -> None:
        """As after an unknown outcome: the first attempt was stored, the copy does not know."""
        stream = await events.get_or_create_stream("order-1")
        event = NewEvent.json("Placed")
        stream.append_event(event)
        await events.append_to_stream("order-1", [event], 0)
        saved = await events.save_stream(stream)
        assert saved is not None
        assert saved.duplicate
        assert (stream.watermark, len(await events.read_stream("order-1"))) == (1, 1)

    # -- lists and figures

    async def test_streams_are_listed_and_counted(self, events: EventStreamRepository) -> None:
        names = [f"order-{i}" for i in range(40)] + ["user-é", "user-z", "a"]
        for i, name in enumerate(names):
            await events.append_to_stream(name, new(1 + i % 3))
        ordered = sorted(names, key=lambda name: name.encode())
        assert [info.stream for info in await events.list_streams()] == ordered
        paged: list[str] = []
        while page := await events.list_streams(after=paged[-1] if paged else "", limit=6):
            paged += [info.stream for info in page]
            assert len(paged) <= len(names)
        assert paged == ordered
        assert [info.stream for info in await events.list_streams(prefix="user-")] == ["user-z", "user-é"]
        assert await events.count_streams() == len(names)
        by_partition = [info.stream for p in range(32) for info in await events.get_streams_by_partition(p)]
        assert sorted(by_partition) == sorted(names)
        for name in names:
            own = await events.get_streams_by_partition(partition_of(name))
            assert name in [info.stream for info in own]

    async def test_partition_stats(self, backend: RepositoryBackend) -> None:
        clock = Clock()
        async with backend.make(clock=clock) as events:
            a, b = sharing_a_partition(2)
            await events.append_to_stream(a, new(3))
            clock.now += timedelta(hours=1)
            await events.append_to_stream(b, new(1))
            clock.now += timedelta(hours=1)
            await events.append_to_stream(b, new(1))
            stats = await events.partition_stats(partition_of(a))
            assert stats[1:5] == (2, 5, 2.5, 3)
            assert (stats.oldest_update, stats.newest_update) == (BEGIN, BEGIN + timedelta(hours=2))
            assert stats[5:] == (as_us(BEGIN), as_us(BEGIN + timedelta(hours=2)))
            empty = await events.partition_stats((partition_of(a) + 1) % 32)
            assert empty[1:] == (0, 0, 0.0, 0, None, None)
            assert (empty.oldest_update, empty.newest_update) == (None, None)

    # -- many at once, over restarts, in the wrong state

    async def test_a_cancelled_writer_disturbs_nobody(self, events: EventStreamRepository) -> None:
        tasks = [asyncio.create_task(events.append_to_stream(f"s{i}", new())) for i in range(20)]
        await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes[::2])
        assert not any(isinstance(outcome, BaseException) for outcome in outcomes[1::2])
        for i in range(1, 20, 2):
            assert await events.get_watermark(f"s{i}") == 1

    async def test_what_was_stored_is_there_after_a_restart(self, backend: RepositoryBackend) -> None:
        sent = new(3)
        async with backend.make() as events:
            first = await events.append_to_stream("order-1", sent)
            found = await events.read_stream("order-1")
        async with backend.make() as events:
            if not backend.reopens():
                assert await events.count_streams() == 0
                return
            assert await events.read_stream("order-1") == found
            assert await events.append_to_stream("order-1", sent) == first._replace(duplicate=True)
            assert (await events.append_to_stream("order-1", new(), 3)).first_position == 4

    async def test_it_is_used_in_async_with(self, backend: RepositoryBackend) -> None:
        events = backend.make()
        with pytest.raises(StorageFault, match="async with"):
            await events.read_stream("order-1")
        async with events:
            await events.append_to_stream("order-1", new())
        with pytest.raises(StorageFault, match="async with"):
            await events.append_to_stream("order-1", new())

    # -- all of it together

    @pytest.mark.parametrize("seed", range(4))
    async def test_random_histories_equal_the_model(self, backend: RepositoryBackend, seed: int) -> None:
        """Replay one alone: `pytest tests/storage -k 'repository and random_histories and [SEED]'`."""
        await RandomRepository(backend, seed).run(steps=150)


class RandomRepository:
    """Random calls against a dict of lists; restarts and kills keep everything that was acknowledged."""

    STREAMS = (*sharing_a_partition(3), "order-1", "order-2", "é")

    def __init__(self, backend: RepositoryBackend, seed: int) -> None:
        print(f"seed {seed}: pytest tests/storage -k 'repository and random_histories and [{seed}]'")
        self.random = Random(seed)
        self.backend = backend
        self.model: dict[str, list[NewEvent]] = {stream: [] for stream in self.STREAMS}
        self.sent: list[tuple[StreamAppend, ...]] = []

    async def run(self, steps: int) -> None:
        async with AsyncExitStack() as stack:
            self.stack = stack
            self.events = await stack.enter_async_context(self.backend.make())
            for _ in range(steps):
                act = self.random.choices(
                    (self.append, self.append_several, self.retry, self.save, self.read, self.kill),
                    (10, 4, 3, 4, 6, 1),
                )[0]
                await act()
            await self.check()

    def some(self) -> list[NewEvent]:
        return [
            NewEvent("Random", self.random.randbytes(8), encoding=BINARY)
            for _ in range(self.random.choice((1, 1, 2, 5)))
        ]

    def wish(self, stream: str) -> str | int:
        version = len(self.model[stream])
        return self.random.choice(("any", "any", "exists", "no_stream", version, version, version + 1))

    def meets(self, append: StreamAppend) -> bool:
        version, wish = len(self.model[append.stream]), append.expected_version
        return {"any": True, "exists": version > 0, "no_stream": version == 0}.get(
            str(wish), wish == version
        )

    async def append(self) -> None:
        stream = self.random.choice(self.STREAMS)
        await self.send(StreamAppend(stream, self.some(), self.wish(stream)))

    async def append_several(self) -> None:
        streams = self.random.sample(self.STREAMS[:3], 2)
        await self.send(*(StreamAppend(stream, self.some(), self.wish(stream)) for stream in streams))

    async def send(self, *appends: StreamAppend) -> None:
        if all(self.meets(append) for append in appends):
            done = await self.events.append(*appends)
            assert not done.duplicate
            for append in appends:
                self.model[append.stream] += append.events
            self.sent.append(appends)
        else:
            with pytest.raises(WrongExpectedVersion):
                await self.events.append(*appends)

    async def retry(self) -> None:
        if self.sent:
            assert (await self.events.append(*self.random.choice(self.sent))).duplicate

    async def save(self) -> None:
        name = self.random.choice(self.STREAMS)
        stream = await self.events.get_or_create_stream(name)
        for event in self.some():
            stream.append_event(event)
            self.model[name].append(event)
        await self.events.save_stream(stream)

    async def read(self) -> None:
        name = self.random.choice([name for name in self.STREAMS if self.model[name]] or ["absent"])
        if name == "absent":
            return
        version, limit = self.random.randint(1, len(self.model[name]) + 1), self.random.randint(1, 9)
        found = await self.events.read_stream(name, from_version=version, limit=limit)
        assert [e.id for e in found] == [e.id for e in self.model[name][version - 1 :][:limit]]

    async def kill(self) -> None:
        revived = await self.backend.kill(self.events)
        if revived is not None:
            self.events = await self.stack.enter_async_context(revived)
            await self.check()

    async def check(self) -> None:
        for name, expected in self.model.items():
            if not expected:
                with pytest.raises(NotFound):
                    await self.events.read_stream(name)
                continue
            found = await self.events.read_stream(name, limit=None)
            assert [(e.version, e.id, e.data) for e in found] == [
                (version, e.id, e.data) for version, e in enumerate(expected, 1)
            ]
            assert await self.events.verify_gapless(name)
        assert await self.events.count_streams() == sum(1 for events in self.model.values() if events)
        for partition in {partition_of(name) for name in self.STREAMS}:
            positions = [e.position for e in await self.events.read_partition(partition, limit=None)]
            assert positions == list(range(1, len(positions) + 1))
