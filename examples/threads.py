"""The blocking client, for programs without asyncio: one for the whole program, used from many threads."""

import os
import sys
import uuid
from concurrent.futures import ThreadPoolExecutor

from allsource.client import BlockingClient, NewEvent

NODES = sys.argv[1:] or ["127.0.0.1:7101", "127.0.0.1:7102", "127.0.0.1:7103"]
SECRET = os.environ.get("ALLSOURCE_SECRET", "change-me-clients-of-three-nodes")

journal = f"journal-{uuid.uuid4()}"

with BlockingClient(NODES, secret=SECRET) as client:

    def note(number: int) -> int:
        """The version that the note has got."""
        return client.append(journal, NewEvent.json("Noted", {"number": number})).streams[0].first_version

    with ThreadPoolExecutor(8) as threads:
        versions = sorted(threads.map(note, range(100)))
    print(f"versions {versions[0]} to {versions[-1]}, {len(set(versions))} different ones")
    print(f"{sum(1 for _ in client.stream(journal))} notes in {client.stream_info(journal).stream[:8]}")
