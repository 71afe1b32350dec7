"""A projection: read everything that was ever appended, partition by partition, and keep up with it.

An order is promised within a partition, not across them. So a projection remembers a position for each
partition, and saves its results and its positions together.
"""

import asyncio
import json
import os
import sys
import tempfile
from collections import Counter
from pathlib import Path

from allsource.client import Client, NewEvent

NODES = sys.argv[1:] or ["127.0.0.1:7101", "127.0.0.1:7102", "127.0.0.1:7103"]
SECRET = os.environ.get("ALLSOURCE_SECRET", "change-me-clients-of-three-nodes")


class Totals:
    """How many events of each type there are, kept in a file with the positions up to which it counted."""

    def __init__(self, file: Path) -> None:
        self._file = file
        saved = json.loads(file.read_text()) if file.exists() else {"counts": {}, "next": {}}
        self.counts = Counter(saved["counts"])
        self._next = {int(partition): position for partition, position in saved["next"].items()}

    async def catch_up(self, client: Client) -> None:
        """Take in all that is new in every partition."""
        for partition in range(len((await client.cluster())["partitions"])):
            await self._catch_up(client, partition)

    async def _catch_up(self, client: Client, partition: int) -> None:
        while True:
            page = await client.read_partition(partition, from_position=self._next.get(partition, 1))
            if not page.events:
                return
            self.counts.update(event.type for event in page.events)
            self._next[partition] = page.next_from
            self._save()

    def _save(self) -> None:
        """In one step: after a crash the file has the counts and the positions that belong together."""
        beside = self._file.with_suffix(".new")
        beside.write_text(json.dumps({"counts": self.counts, "next": self._next}))
        beside.replace(self._file)


async def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "totals.json"
        async with Client(NODES, secret=SECRET) as client:
            before = Totals(file)
            await before.catch_up(client)
            for number in range(10):
                await client.append(f"order-{number}", [NewEvent.json("Ordered", {"total": number})])
            after = Totals(file)  # as after a restart: it knows where it was
            await after.catch_up(client)
            print(f"{after.counts['Ordered'] - before.counts['Ordered']} orders since the first look")


asyncio.run(main())
