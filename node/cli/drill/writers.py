"""The writers of a drill: on every partition, all the time, each writing down what it tried and was told.

Four to a partition, in two kinds. A *plain* writer appends to streams of its own without caring for
versions: one event, several events, and one event each to two streams. A *compare-and-set* writer
expects an exact version; one has a stream to itself and two share one, so that one of them must lose.

A writer never has two appends in flight. Pauses between its writes keep the machine free to show how long a
takeover takes, rather than how well it does without CPU.
"""

from __future__ import annotations

import asyncio
import json
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from itertools import count
from random import Random
from typing import Protocol

from allsource.cluster.protocol.requests import AppendResult
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
from allsource.storage.model.errors import AllsourceError, Rejected, WrongExpectedVersion
from allsource.storage.model.events import NewEvent
from allsource.storage.model.partition import partition_of

_POLL_S = 0.005
_BATCH = 3
_PADDING = "." * 120
"""Makes an event's data about 200 bytes, as the benchmark's."""


Part = tuple[str, Sequence[NewEvent], int | str]
"""A stream, events for it, and the expected version: a part of one append."""


class Appender(Protocol):
    """What a writer needs of `allsource.client.Client`."""

    async def append_many(self, appends: Sequence[Part]) -> AppendResult: ...


class Clock:
    """Seconds since the drill began."""

    def __init__(self) -> None:
        self._origin = time.monotonic()

    def __call__(self) -> float:
        return time.monotonic() - self._origin


def tag_of(partition: int, partition_count: int, run: str) -> str:
    """A hash tag `{...}` whose streams are in this partition."""
    return next(
        tag for i in count() if partition_of(tag := f"{{drill-{run}-{i}}}", partition_count) == partition
    )


class Writers:
    """All writers of a drill; `start` them, and `stop` before the history is judged."""

    def __init__(
        self, client: Appender, *, partitions: int, run: str, seed: int, clock: Clock, pause_s: float
    ) -> None:
        """`run` keeps the streams of several drills on one cluster apart. `pause_s`: between two writes."""
        self.history = History()
        self._clock = clock
        self._pause_s = pause_s
        self._random = Random(seed)
        self._stopping = False
        self._tasks: list[asyncio.Task[None]] = []
        self._begun = [-1.0] * partitions
        """When the latest acknowledged write of each partition began."""
        self._writers: list[_Writer] = []
        for partition in range(partitions):
            tag = tag_of(partition, partitions, run)
            self._writers += _writers_of(client, partition, tag, self)

    def start(self) -> None:
        """Begin to write."""
        self._tasks = [asyncio.create_task(self._run(writer)) for writer in self._writers]

    async def stop(self) -> None:
        """Let every write that is under way end, and write no more."""
        self._stopping = True
        await asyncio.gather(*self._tasks)

    def now(self) -> float:
        """The drill's time."""
        return self._clock()

    def record(self, attempt: Attempt) -> None:
        """Take down a finished attempt."""
        self.history.add(attempt)
        if attempt.outcome == ACKNOWLEDGED:
            self._begun[attempt.partition] = max(self._begun[attempt.partition], attempt.started)

    async def all_accept(self, since: float, timeout_s: float) -> list[int]:
        """Wait until each partition has acknowledged a write that began after `since`.

        Returns the partitions that have not when the time is up (none: all is well).
        """
        deadline = self.now() + timeout_s
        while waiting := [p for p, begun in enumerate(self._begun) if begun <= since]:
            for task in self._tasks:
                if task.done():
                    task.result()  # a writer that broke ends the drill with its own error
            if self.now() > deadline:
                break
            await asyncio.sleep(_POLL_S)
        return waiting

    async def _run(self, writer: _Writer) -> None:
        await asyncio.sleep(self._random.random() * self._pause_s)
        while not self._stopping:
            await writer.write()
            await asyncio.sleep(self._pause_s * self._random.uniform(0.5, 1.5))


def _writers_of(client: Appender, partition: int, tag: str, writers: Writers) -> list[_Writer]:
    plain = (f"{tag}-plain-a", f"{tag}-plain-b")
    return [
        _PlainWriter(f"p{partition}-plain", client, partition, plain, writers),
        _CasWriter(f"p{partition}-cas", client, partition, (f"{tag}-cas",), writers),
        _CasWriter(f"p{partition}-rival-1", client, partition, (f"{tag}-rivals",), writers),
        _CasWriter(f"p{partition}-rival-2", client, partition, (f"{tag}-rivals",), writers),
    ]


class _Writer(ABC):
    """One writer. Subclasses say what the next append is, and learn from its outcome."""

    def __init__(
        self, name: str, client: Appender, partition: int, streams: tuple[str, ...], writers: Writers
    ) -> None:
        self._name = name
        self._client = client
        self._partition = partition
        self._streams = streams
        self._writers = writers
        self._sequence = 0

    async def write(self) -> None:
        """Make one append and record what became of it."""
        appends, expected = self._next()
        written = tuple(
            Written(stream, event.id, event.data) for stream, events, _ in appends for event in events
        )
        attempt = Attempt(self._name, self._partition, expected, written, self._writers.now())
        try:
            result = await self._client.append_many(appends)
        except WrongExpectedVersion as error:
            attempt.outcome, attempt.actual = CONFLICT, int(error.details["actual"])
        except Rejected as error:
            attempt.outcome, attempt.code = REJECTED, error.code
        except AllsourceError as error:
            attempt.outcome, attempt.code = UNKNOWN, error.code
        else:
            attempt.outcome, attempt.places = ACKNOWLEDGED, tuple(_places(result))
        attempt.ended = self._writers.now()
        self._learn(attempt)
        self._writers.record(attempt)

    @abstractmethod
    def _next(self) -> tuple[list[Part], int | None]:
        """The next append, and the exact version that it expects, if it does."""

    @abstractmethod
    def _learn(self, attempt: Attempt) -> None:
        """Take note of an outcome."""

    def _event(self) -> NewEvent:
        self._sequence += 1
        data = {"writer": self._name, "sequence": self._sequence, "padding": _PADDING}
        return NewEvent("drill.Written", json.dumps(data).encode())


class _PlainWriter(_Writer):
    _turn = 0

    def _next(self) -> tuple[list[Part], int | None]:
        one, other = self._streams
        self._turn += 1
        match self._turn % 4:
            case 0 | 1:
                return [(one, [self._event()], "any")], None
            case 2:
                return [(one, [self._event() for _ in range(_BATCH)], "any")], None
            case _:
                return [(one, [self._event()], "any"), (other, [self._event()], "any")], None

    def _learn(self, attempt: Attempt) -> None:
        """It appends whatever the version is."""


class _CasWriter(_Writer):
    _version = 0
    """The stream's version as this writer believes."""

    def _next(self) -> tuple[list[Part], int | None]:
        return [(self._streams[0], [self._event()], self._version)], self._version

    def _learn(self, attempt: Attempt) -> None:
        if attempt.outcome == ACKNOWLEDGED:
            self._version = attempt.last_version
        elif attempt.outcome == CONFLICT:
            self._version = attempt.actual


def _places(result: AppendResult) -> Iterator[Place]:
    """Where each event of an append is: the streams follow each other in the order sent."""
    position = count(result.first_position)
    for stream in result.streams:
        for version in range(stream.first_version, stream.last_version + 1):
            yield Place(version, next(position))
