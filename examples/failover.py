"""Append while nodes die: a client goes on, nothing that was acknowledged is lost, nothing stands twice.

Start it, and kill a node (or two, one after the other) with `kill -9` while it runs.
"""

import asyncio
import os
import sys
import time
import uuid

from allsource.client import Client, NewEvent, OutcomeUnknown, Unavailable

NODES = sys.argv[1:] or ["127.0.0.1:7101", "127.0.0.1:7102", "127.0.0.1:7103"]
SECRET = os.environ.get("ALLSOURCE_SECRET", "change-me-clients-of-three-nodes")
SECONDS = float(os.environ.get("SECONDS", "10"))
WRITERS = 32


async def append(client: Client, stream: str, event: NewEvent) -> None:
    """Append until it is known to be done: the same event, with the same id, so that it is stored once."""
    while True:
        try:
            await client.append(stream, event)
            return
        except (OutcomeUnknown, Unavailable) as error:
            print(f"{stream}: {error.code}, again", flush=True)


async def write(client: Client, stream: str, until: float) -> tuple[int, float]:
    """How many events were acknowledged, and the longest wait for one, in seconds."""
    acknowledged, longest_s = 0, 0.0
    while (begun := time.monotonic()) < until:
        await append(client, stream, NewEvent.json("Counted", acknowledged + 1))
        acknowledged += 1
        longest_s = max(longest_s, time.monotonic() - begun)
    return acknowledged, longest_s


async def main() -> None:
    streams = [f"counter-{uuid.uuid4()}" for _ in range(WRITERS)]
    async with Client(NODES, secret=SECRET) as client:
        print(f"{WRITERS} writers append for {SECONDS:g} s: kill a node now", flush=True)
        until = time.monotonic() + SECONDS
        done = await asyncio.gather(*[write(client, stream, until) for stream in streams])
        print(f"{sum(count for count, _ in done)} appends acknowledged")
        print(f"longest wait {max(wait for _, wait in done) * 1000:.0f} ms")
        for stream, (count, _) in zip(streams, done, strict=True):
            found = [event.json() async for event in client.stream(stream)]
            assert found == list(range(1, count + 1)), stream
        print("all of them are there, in order, once")


asyncio.run(main())
