"""The workloads: small closed loops over the client library, one function each.

The events are of 200 bytes (data), on streams that spread over all partitions. Appends expect nothing
of the version, so that a worker's next append does not depend on its last one; `--help` lists them.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from random import Random

from allsource.client import Client
from allsource.client.arguments import Consistency
from allsource.node.cli.bench.measure import Measured, Meter, Operation, closed_loop
from allsource.node.cli.control.cluster import ClusterProcess, Node
from allsource.storage.model.events import NewEvent

EVENT_BYTES = 200
_DATA = b'{"padding":"' + b"." * (EVENT_BYTES - 14) + b'"}'
_BATCH = 1000
_BATCH_STREAMS = 64
_READ_STREAMS = 1000
_READ_EVENTS = 10
_SCAN_EVENTS_MIN = 200_000
_KILLS = 3
_KILL_WRITERS = 64
_KILL_PAUSE_S = 0.02


@dataclass(slots=True)
class Bench:
    """What every workload works with."""

    client: Client
    cluster: ClusterProcess
    nodes: Sequence[Node]
    """The servers whose CPU time is counted; empty if they are elsewhere."""
    seconds: float
    warm_up_s: float = 0.5
    run: str = field(default_factory=lambda: secrets.token_hex(4))
    """Keeps the streams of this run apart from those of others."""
    written: int = 0
    """Events that this run has appended so far, at least."""
    readable: list[str] = field(default_factory=list)
    """Streams of ten events each, once made."""

    async def loop(self, name: str, unit: str, workers: int, operation: Operation) -> Measured:
        """`closed_loop` with this bench's settings."""
        return await closed_loop(
            name,
            unit,
            operation,
            workers=workers,
            seconds=self.seconds,
            warm_up_s=self.warm_up_s,
            nodes=self.nodes,
        )


def event() -> NewEvent:
    """A new event of `EVENT_BYTES` bytes."""
    return NewEvent("bench.Event", _DATA)


async def _append(bench: Bench, name: str, workers: int) -> Measured:
    append, run = bench.client.append, bench.run
    streams = [f"bench-{run}-{name}-{worker}" for worker in range(workers)]

    async def one(worker: int) -> int:
        await append(streams[worker], [event()])
        return 1

    measured = await bench.loop(name, "append", workers, one)
    bench.written += measured.units
    return measured


async def one_writer(bench: Bench) -> Measured:
    """One writer, one event at a time."""
    return await _append(bench, "1-writer", 1)


async def writers_64(bench: Bench) -> Measured:
    """64 closed-loop writers, one event each."""
    return await _append(bench, "64-writers", 64)


async def in_flight_1024(bench: Bench) -> Measured:
    """1024 appends in flight, one event each."""
    return await _append(bench, "1024-in-flight", 1024)


async def batches(bench: Bench) -> Measured:
    """Appends of 1000 events, 8 in flight; counted in events."""
    turn = 0

    async def one(worker: int) -> int:
        nonlocal turn
        turn += 1
        stream = f"bench-{bench.run}-batch-{turn % _BATCH_STREAMS}"
        await bench.client.append(stream, [event() for _ in range(_BATCH)])
        return _BATCH

    measured = await bench.loop("batches-of-1000", "event", 8, one)
    bench.written += measured.units
    return measured


async def _read(bench: Bench, name: str, workers: int, consistency: Consistency) -> Measured:
    await _make_readable(bench)
    random = Random(1)
    read, streams = bench.client.read_stream, bench.readable

    async def one(worker: int) -> int:
        page = await read(random.choice(streams), limit=_READ_EVENTS, consistency=consistency)
        assert len(page.events) == _READ_EVENTS
        return 1

    return await bench.loop(name, "read", workers, one)


async def _make_readable(bench: Bench) -> None:
    if bench.readable:
        return
    streams = [f"bench-{bench.run}-read-{number}" for number in range(_READ_STREAMS)]
    for start in range(0, len(streams), 100):
        some = streams[start : start + 100]
        await asyncio.gather(
            *[bench.client.append(stream, [event() for _ in range(_READ_EVENTS)]) for stream in some]
        )
    for node_id in bench.cluster.present:  # a local read may come before a follower knows of the commit
        await bench.cluster.caught_up(node_id)
    bench.readable = streams
    bench.written += len(streams) * _READ_EVENTS


async def read_one(bench: Bench) -> Measured:
    """Read a 10-event stream, one at a time, linearizable."""
    return await _read(bench, "read-1", 1, "linearizable")


async def read_one_local(bench: Bench) -> Measured:
    """Read a 10-event stream, one at a time, from any replica."""
    return await _read(bench, "read-1-local", 1, "local")


async def read_64(bench: Bench) -> Measured:
    """Read a 10-event stream, 64 at a time, linearizable."""
    return await _read(bench, "read-64", 64, "linearizable")


async def read_64_local(bench: Bench) -> Measured:
    """Read a 10-event stream, 64 at a time, from any replica."""
    return await _read(bench, "read-64-local", 64, "local")


async def scan(bench: Bench) -> Measured:
    """Read every event of every partition once; counted in events, latency of the whole."""
    while bench.written < _SCAN_EVENTS_MIN:
        appends = [
            bench.client.append(f"bench-{bench.run}-scan-{number}", [event() for _ in range(_BATCH)])
            for number in range(8)
        ]
        await asyncio.gather(*appends)
        bench.written += 8 * _BATCH
    meter, begun = Meter(bench.nodes), time.perf_counter()
    events = 0
    async for _ in bench.client.scan():
        events += 1
    seconds = time.perf_counter() - begun
    servers, client = meter.read()
    return Measured("scan", "event", events, seconds, [seconds], servers, client)


async def kill(bench: Bench) -> Measured:
    """Kill owners with SIGKILL under 64 writers; latency of the writes around the kills, longest last."""
    stopping = False
    latencies: list[float] = []

    async def writer(number: int) -> None:
        stream = f"bench-{bench.run}-kill-{number}"
        while not stopping:
            started = time.perf_counter()
            await bench.client.append(stream, [event()])
            latencies.append(time.perf_counter() - started)
            await asyncio.sleep(_KILL_PAUSE_S)

    writers = [asyncio.create_task(writer(number)) for number in range(_KILL_WRITERS)]
    begun, longest = time.perf_counter(), []
    client_cpu = time.process_time()
    for victim in (bench.cluster.ids * _KILLS)[:_KILLS]:
        await asyncio.sleep(0.5)
        latencies.clear()
        bench.cluster.kill(victim)
        await asyncio.sleep(1.0)
        bench.cluster.start(victim)
        await bench.cluster.settled()
        longest.append(max(latencies))
    stopping = True
    await asyncio.gather(*writers)
    bench.written += len(latencies)
    seconds = time.perf_counter() - begun
    return Measured("kill-owner", "kill", _KILLS, seconds, longest, None, time.process_time() - client_cpu)


WORKLOADS: dict[str, Callable[[Bench], Awaitable[Measured]]] = {
    "1-writer": one_writer,
    "64-writers": writers_64,
    "1024-in-flight": in_flight_1024,
    "batches-of-1000": batches,
    "read-1": read_one,
    "read-1-local": read_one_local,
    "read-64": read_64,
    "read-64-local": read_64_local,
    "scan": scan,
    "kill-owner": kill,
}
"""In the order in which they are run: those that read come behind those that write."""
