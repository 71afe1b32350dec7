"""The well-behaved application beside the abuse: a few writers that wait for each answer."""

from __future__ import annotations

import asyncio
import time
from itertools import count

from allsource.client import Client, NewEvent
from allsource.storage.errors import AllsourceError

WRITERS = 8
PAUSE_S = 0.02


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
