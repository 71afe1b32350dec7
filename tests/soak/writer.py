"""The well-behaved application beside the abuse: a few writers that wait for each answer."""

from __future__ import annotations

import asyncio
import time
from itertools import count

from allsource.client import Client, NewEvent
from allsource.storage.model.errors import AllsourceError

WRITERS = 8
PAUSE_S = 0.02

FILL_BYTES = 160 << 20
_FILL_EVENT = 4096
_FILL_BATCH = 100
_FILL_INFLIGHT = 8


async def fill(client: Client, run: str) -> None:
    """Write as much as fills a node's write buffers twice over, so that its memory is that of a node which
    has been used for a while, before anybody looks at it."""
    numbers = iter(range(FILL_BYTES // (_FILL_EVENT * _FILL_BATCH)))

    async def writer() -> None:
        for number in numbers:
            event = {"text": f"{number:08d}" * (_FILL_EVENT // 8)}
            batch = [NewEvent.json("Filled", event) for _ in range(_FILL_BATCH)]
            await client.append(f"fill-{run}-{number % 512}", batch)

    await asyncio.gather(*[writer() for _ in range(_FILL_INFLIGHT)])


class Writers:
    """`latencies`: seconds for each acknowledged append; `errors`: what else came back, by code."""

    def __init__(self, client: Client, run: str) -> None:
        self._client = client
        self._run = run
        self.latencies: list[float] = []
        self.errors: dict[str, int] = {}
        self.acknowledged: dict[str, int] = {}

    async def run(self, seconds: float) -> None:
        """Write until the time is over."""
        end = time.monotonic() + seconds
        await asyncio.gather(*[self._write(f"soak-{self._run}-{i}", end) for i in range(WRITERS)])

    async def _write(self, name: str, end: float) -> None:
        for number in count():
            if time.monotonic() >= end:
                return
            stream = f"{name}-{number % 32}"
            event = NewEvent.json("Written", {"number": number, "text": "x" * 100})
            began = time.monotonic()
            try:
                await self._client.append(stream, [event])
            except AllsourceError as error:
                self.errors[error.code] = self.errors.get(error.code, 0) + 1
            else:
                self.latencies.append(time.monotonic() - began)
                self.acknowledged[stream] = self.acknowledged.get(stream, 0) + 1
            await asyncio.sleep(PAUSE_S)

    async def missing(self) -> list[str]:
        """Streams that hold fewer events than were acknowledged."""
        found = []
        for stream, number in self.acknowledged.items():
            page = await self._client.read_stream(stream, limit=1)
            if page.current_version < number:
                found.append(f"{stream}: {page.current_version} of {number}")
        return found
