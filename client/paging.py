"""Reads that go on over many pages.

The next page is asked for before the events of this one are handed out, and a scan reads several partitions
at a time. A page that does not lead on ends the read: it would be asked for again for ever.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from contextlib import aclosing
from typing import NamedTuple

from allsource.client.calls import Call
from allsource.client.errors import UnreadableAnswer
from allsource.client.unpacking import checked, stream_events
from allsource.client.unpacking import events_of as unpacked
from allsource.cluster.protocol.requests import PartitionPage, ReadPartition, ReadStream
from allsource.storage.model.events import Event

PAGES_AHEAD = 16
"""Partitions that a scan reads at the same time."""


class Brought(NamedTuple):
    """A page, and the call that brought it."""

    call: Call
    page: PartitionPage


class _Asked(NamedTuple):
    """A page that is on its way, and the position from which it was asked for."""

    call: Call
    position: int


async def whole_stream(
    first: ReadStream, start: Callable[[ReadStream], Awaitable[Call]]
) -> AsyncGenerator[Event, None]:
    """Every event of a stream from the first page on; `start` sends a read."""
    ahead = deque([await start(first)])
    try:
        while ahead:
            call = ahead.popleft()
            found = stream_events(await call.future, call)
            if found.next_from:
                last = found.events[-1].version if found.events else 0
                _check_advance(*((last, found.next_from) if first.forward else (found.next_from, last)))
                ahead.append(await start(first._replace(from_version=found.next_from)))
            for event in found.events:
                yield event
    finally:
        _abandon(ahead)


async def scan(
    partitions: Callable[[], Iterable[int]],
    first: ReadPartition,
    start: Callable[[ReadPartition], Awaitable[Call]],
) -> AsyncGenerator[Brought, None]:
    """Every page of these partitions, each with the call that brought it; every read is like `first`."""
    todo = deque((partition, 1) for partition in partitions())
    ahead: deque[_Asked] = deque()
    try:
        while todo or ahead:
            while todo and len(ahead) < PAGES_AHEAD:
                partition, position = todo.popleft()
                read = first._replace(partition=partition, from_position=position)
                ahead.append(_Asked(await start(read), position))
            call, position = ahead.popleft()
            found: PartitionPage = await call.future
            if found.runs and found.next_from <= found.last_position:
                _check_advance(position, found.next_from)
                todo.appendleft((found.partition, found.next_from))
            yield Brought(call, found)
    finally:
        _abandon(asked.call for asked in ahead)


async def events_of(
    pages: AsyncGenerator[Brought, None],
) -> AsyncGenerator[Event, None]:
    """The events of pages, one by one."""
    async with aclosing(pages):
        async for call, found in pages:
            for event in unpacked(found, call):
                yield event


async def without_calls(
    pages: AsyncGenerator[Brought, None],
) -> AsyncGenerator[PartitionPage, None]:
    """The pages alone."""
    async with aclosing(pages):
        async for call, found in pages:
            yield checked(found, call)


def _check_advance(low: int, high: int) -> None:
    """A page that leads back would be read for ever."""
    if low >= high:
        raise UnreadableAnswer("a node answered a read with a page that does not lead on")


def _abandon(calls: Iterable[Call]) -> None:
    """Nobody will look at these answers any more."""
    for call in calls:
        if not call.future.cancel() and not call.future.cancelled():
            call.future.exception()
