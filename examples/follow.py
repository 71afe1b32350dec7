"""Read a stream as it grows, and go on where one stopped.

There are no subscriptions yet: who follows a stream asks for what comes after the last event that it saw.
Keep that version where you keep your results, and nothing is missed or taken twice.
"""

import asyncio
import os
import sys
import uuid
from collections.abc import AsyncIterator

from allsource.client import Client, Event, NewEvent, NotFound

NODES = sys.argv[1:] or ["127.0.0.1:7101", "127.0.0.1:7102", "127.0.0.1:7103"]
SECRET = os.environ.get("ALLSOURCE_SECRET", "change-me-clients-of-three-nodes")
PAUSE_S = 0.1


async def follow(client: Client, stream: str, seen: int = 0) -> AsyncIterator[Event]:
    """Every event after version `seen`, for ever; the stream may come into being meanwhile."""
    while True:
        try:
            async for event in client.stream(stream, from_version=seen + 1):
                yield event
                seen = event.version
        except NotFound:
            pass
        await asyncio.sleep(PAUSE_S)


async def read_some(client: Client, stream: str, seen: int, count: int) -> int:
    """Print the next `count` events; the version up to which they were seen."""
    async for event in follow(client, stream, seen):
        print(event.version, event.json())
        seen = event.version
        count -= 1
        if count == 0:
            break
    return seen


async def write(client: Client, stream: str) -> None:
    for number in range(1, 6):
        await client.append(stream, NewEvent.json("Measured", {"celsius": 20 + number}))
        await asyncio.sleep(PAUSE_S / 2)


async def main() -> None:
    stream = f"thermometer-{uuid.uuid4()}"
    async with Client(NODES, secret=SECRET) as client:
        writer = asyncio.create_task(write(client, stream))
        seen = await read_some(client, stream, seen=0, count=3)
        print(f"stopped at version {seen}, and goes on from there:")
        await read_some(client, stream, seen, count=2)
        await writer


asyncio.run(main())
