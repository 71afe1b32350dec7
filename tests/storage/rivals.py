"""Writers that want the same versions: who may win, and what the losers must be told.

The model is a compare-and-set register for each stream: each version has one winner, who expected the one
before; a loser is told a version that the stream really had meanwhile. The judge is the drill's
(`allsource.node.cli.drill.checks`), which has tests of its own.

Run as a program, it is one of several processes: `python -m tests.storage.rivals URL NUMBER STREAM...`
writes with 16 tasks and prints what became of each attempt (the clock is the machine's, so that attempts
of several processes have one order).
"""

from __future__ import annotations

import asyncio
import pickle
import sys
import time
from collections import Counter
from collections.abc import Sequence

from allsource.node.cli.drill.checks import judge
from allsource.node.cli.drill.history import ACKNOWLEDGED, CONFLICT, Attempt, History, Place, Written
from allsource.storage.model.answers import AppendResult
from allsource.storage.model.errors import WrongExpectedVersion
from allsource.storage.model.events import NewEvent
from allsource.storage.model.partition import partition_of
from allsource.storage.repository import EventStreamRepository, open_repository

TASKS, THREADS, PROCESSES = 64, 8, 4
ONE = ("contended",)
MANY = (*(f"contended-{i}" for i in range(10)), *(f"contended-{i}{{shared}}" for i in range(6)))
"""Streams of several partitions, and six that share one."""

TIMEOUT_S = 60.0
_STREAMS_EACH = 4


class Rivals:
    """Writers of these streams. Each believes to know their versions, and learns from what it is told."""

    def __init__(self, events: EventStreamRepository, streams: Sequence[str]) -> None:
        self._events = events
        self._streams = streams
        self.history = History()

    async def by_tasks(self, tasks: int, tries: int, name: str = "task") -> None:
        """So many tasks, each with so many tries."""
        await asyncio.gather(*(self._task(f"{name}-{n}", n, tries) for n in range(tasks)))

    async def _task(self, name: str, number: int, tries: int) -> None:
        believed: Counter[str] = Counter()
        for stream in self._turns(number, tries):
            believed[stream] = await self._attempt(name, stream, believed[stream])

    async def by_threads(self, threads: int, tries: int) -> None:
        """So many threads, which hand each try to the repository's loop and wait for it."""
        loop = asyncio.get_running_loop()

        def thread(number: int) -> None:
            believed: Counter[str] = Counter()
            for stream in self._turns(number, tries):
                attempt = self._attempt(f"thread-{number}", stream, believed[stream])
                believed[stream] = asyncio.run_coroutine_threadsafe(attempt, loop).result(TIMEOUT_S)

        await asyncio.gather(*(asyncio.to_thread(thread, number) for number in range(threads)))

    def _turns(self, number: int, tries: int) -> list[str]:
        """The streams that one hand tries, in turn: half of them are its neighbour's too."""
        first = number * _STREAMS_EACH // 2
        return [self._streams[(first + turn % _STREAMS_EACH) % len(self._streams)] for turn in range(tries)]

    async def _attempt(self, name: str, stream: str, expected: int) -> int:
        """One append; the stream's version as its writer knows it afterwards."""
        event = NewEvent.json("Won", name)
        written = (Written(stream, event.id, event.data),)
        attempt = Attempt(name, partition_of(stream), expected, written, time.monotonic())
        try:
            done = await self._events.append_to_stream(stream, [event], expected)
        except WrongExpectedVersion as error:
            attempt.outcome, attempt.actual = CONFLICT, int(error.details["actual"])
        else:
            attempt.outcome = ACKNOWLEDGED
            attempt.places = (Place(done.streams[0].last_version, done.first_position),)
        attempt.ended = time.monotonic()
        self.history.add(attempt)
        return attempt.actual if attempt.outcome == CONFLICT else attempt.last_version

    async def check(self) -> None:
        """Exactly the winners that the model allows, and their events, in order, once, and nothing else."""
        partitions = {partition_of(stream) for stream in self._streams}
        logs = {p: await self._events.read_partition(p, limit=None) for p in partitions}
        assert judge(self.history, logs) == []
        for stream in self._streams:
            attempts = [attempt for attempt in self.history.attempts if attempt.stream == stream]
            winners = [(a.last_version, a.events[0].id) for a in attempts if a.outcome == ACKNOWLEDGED]
            found = await self._events.read_stream(stream, limit=None)
            assert [(event.version, event.id) for event in found] == sorted(winners)
            assert [event.version for event in found] == list(range(1, len(winners) + 1))
            assert len(winners) < len(attempts), "nobody lost: they were no rivals"


async def all_at_once(events: EventStreamRepository, streams: Sequence[str], rounds: int) -> None:
    """In each round all tasks expect the same version of a stream: one of them wins it, and every other one
    is told the version that this one made."""
    for version in range(rounds):
        claims = [(streams[n % len(streams)], NewEvent.json("Won", n)) for n in range(TASKS)]
        outcomes = await asyncio.gather(
            *(events.append_to_stream(stream, [event], version) for stream, event in claims),
            return_exceptions=True,
        )
        winners: dict[str, NewEvent] = {}
        for (stream, event), outcome in zip(claims, outcomes, strict=True):
            if isinstance(outcome, AppendResult):
                assert stream not in winners, f"two winners of version {version + 1}"
                assert tuple(outcome.streams[0]) == (stream, version + 1, version + 1)
                winners[stream] = event
            else:
                assert isinstance(outcome, WrongExpectedVersion), outcome
                assert outcome.details["expected"] == (version or "no_stream")
                assert outcome.details["actual"] == version + 1
        for stream in streams:
            (newest,) = await events.read_stream(stream, from_version=version + 1)
            assert newest.id == winners[stream].id


# -- one of several processes

_PROCESS_TASKS = TASKS // PROCESSES
_PROCESS_TRIES = 16


async def _main(url: str, number: str, streams: Sequence[str]) -> None:
    async with open_repository(url) as events:
        rivals = Rivals(events, streams)
        print("ready", flush=True)
        sys.stdin.readline()
        await rivals.by_tasks(_PROCESS_TASKS, _PROCESS_TRIES, f"process-{number}")
    print(pickle.dumps(rivals.history.attempts).hex())


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1], sys.argv[2], sys.argv[3:]))
