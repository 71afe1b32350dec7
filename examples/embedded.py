"""The store inside your own process, without any cluster: `python embedded.py rocksdb:///var/lib/shop`.

The same program runs with `memory://` (gone when it ends: for tests) and with PostgreSQL.
"""

import asyncio
import sys

from allsource.storage.model.errors import WrongExpectedVersion
from allsource.storage.model.events import NewEvent
from allsource.storage.repository import open_repository

ADDRESS = sys.argv[1] if len(sys.argv) > 1 else "memory://"


async def main() -> None:
    async with open_repository(ADDRESS) as events:
        # An aggregate: load a copy, add events to it, save it.
        order = await events.get_or_create_stream("order-1")
        order.append_event(NewEvent.json("OrderPlaced", {"total": 42}))
        order.append_event(NewEvent.json("OrderPaid", {"by": "card"}))
        await events.save_stream(order)
        print(f"version {order.current_version}, of which {order.watermark} are stored")

        # Two copies: the one that is saved second is stale, and is refused.
        mine, yours = await events.load_stream("order-1"), await events.load_stream("order-1")
        mine.append_event(NewEvent.json("OrderShipped"))
        yours.append_event(NewEvent.json("OrderCancelled"))
        await events.save_stream(mine)
        try:
            await events.save_stream(yours)
        except WrongExpectedVersion as error:
            print(f"refused: expected {error.details['expected']}, got {error.details['actual']}")

        # Without aggregates: append and read. Streams that share a {tag} can be appended to at once.
        await events.append_to_stream("order-2", [NewEvent.json("OrderPlaced", {"total": 7})], "no_stream")
        for event in await events.read_stream("order-1"):
            print(event.version, event.type, event.json())
        print([info.stream for info in await events.list_streams(prefix="order-")])
        print([event.stream async for event in events.read_all(types=["OrderPlaced"])])


asyncio.run(main())
