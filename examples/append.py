"""Append with an expected version: decide on what was read, and decide again if somebody else was first.

Three guests reserve seats of a show at the same moment; two of them want the same one.
"""

import asyncio
import os
import sys
import uuid

from allsource.client import Client, NewEvent, NotFound, WrongExpectedVersion

NODES = sys.argv[1:] or ["127.0.0.1:7101", "127.0.0.1:7102", "127.0.0.1:7103"]
SECRET = os.environ.get("ALLSOURCE_SECRET", "change-me-clients-of-three-nodes")


async def reserved(client: Client, show: str) -> tuple[dict[str, str], int]:
    """Who has which seat, and the version of the stream that says so (0: it does not exist yet)."""
    seats, version = {}, 0
    try:
        async for event in client.stream(show):
            seats[event.json()["seat"]] = event.json()["guest"]
            version = event.version
    except NotFound:
        pass
    return seats, version


async def reserve(client: Client, show: str, seat: str, guest: str) -> bool:
    """Whether the guest has got the seat."""
    while True:
        seats, version = await reserved(client, show)
        if seat in seats:
            return False
        event = NewEvent.json("SeatReserved", {"seat": seat, "guest": guest})
        try:
            await client.append(show, event, version)
            return True
        except WrongExpectedVersion:
            pass  # somebody reserved a seat meanwhile, perhaps this one: look again


async def main() -> None:
    show = f"show-{uuid.uuid4()}"
    async with Client(NODES, secret=SECRET) as client:
        wishes = {"Ada": "A1", "Grace": "A2", "Edsger": "A1"}
        got = await asyncio.gather(*[reserve(client, show, seat, guest) for guest, seat in wishes.items()])
        print(f"{sum(got)} of {len(got)} guests have got their seat")
        seats, version = await reserved(client, show)
        print(f"reserved are {', '.join(sorted(seats))}; the show is at version {version}")


asyncio.run(main())
