"""The workloads: small closed loops over the client library, one function each.

The events are like those of applications (`events`), on streams that spread over all partitions. Most
appends expect nothing of the version; those of `64-writers-exact` expect it exactly, over thousands of
streams, as aggregates do. `--help` lists them.
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
from allsource.node.cli.bench.events import Events
from allsource.node.cli.bench.measure import Measured, Meter, Operation, closed_loop
from allsource.node.cli.control.cluster import ClusterProcess, Node

_EXACT_STREAMS = 5000
_BATCH = 1000
_SMALL_BATCH = 100
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
    events: Events = field(default_factory=Events)
    readable: list[str] = field(default_factory=list)
    """Streams of ten events each, from one append, once made."""
    singles: list[str] = field(default_factory=list)
    """Streams of ten events each, from ten appends, once made."""

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


async def _append(bench: Bench, name: str, workers: int) -> Measured:
    append, run, event = bench.client.append, bench.run, bench.events.next
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


async def writers_64_exact(bench: Bench) -> Measured:
    """64 closed-loop writers, one event each, exact versions over 5,000 streams."""
    append, event = bench.client.append, bench.events.next
    random = Random(1)
    owned: list[list[tuple[str, int]]] = [
        [(f"bench-{bench.run}-exact-{number}", 0) for number in range(worker, _EXACT_STREAMS, 64)]
        for worker in range(64)
    ]

    async def one(worker: int) -> int:
        mine = owned[worker]
        at = random.randrange(len(mine))
        stream, version = mine[at]
        await append(stream, [event()], version)
        mine[at] = (stream, version + 1)
        return 1

    measured = await bench.loop("64-writers-exact", "append", 64, one)
    bench.written += measured.units
    return measured


async def in_flight_1024(bench: Bench) -> Measured:
    """1024 appends in flight, one event each."""
    return await _append(bench, "1024-in-flight", 1024)


async def _batches(bench: Bench, size: int) -> Measured:
    turn = 0

    async def one(worker: int) -> int:
        nonlocal turn
        turn += 1
        stream = f"bench-{bench.run}-batch-{size}-{turn % _BATCH_STREAMS}"
        await bench.client.append(stream, bench.events.some(size))
        return size

    measured = await bench.loop(f"batches-of-{size}", "event", 8, one)
    bench.written += measured.units
    return measured


async def batches(bench: Bench) -> Measured:
    """Appends of 1000 events, 8 in flight; counted in events."""
    return await _batches(bench, _BATCH)


async def small_batches(bench: Bench) -> Measured:
    """Appends of 100 events, 8 in flight; counted in events."""
    return await _batches(bench, _SMALL_BATCH)


async def _read(
    bench: Bench, name: str, workers: int, consistency: Consistency, streams: list[str]
) -> Measured:
    random = Random(1)
    read = bench.client.read_stream

    async def one(worker: int) -> int:
        page = await read(random.choice(streams), limit=_READ_EVENTS, consistency=consistency)
        assert len(page.events) == _READ_EVENTS
        return 1

    return await bench.loop(name, "read", workers, one)


async def _readable(bench: Bench) -> list[str]:
    if not bench.readable:
        bench.readable = await _streams_of_ten(bench, "read", [_READ_EVENTS])
    return bench.readable


async def _singles(bench: Bench) -> list[str]:
    if not bench.singles:
        bench.singles = await _streams_of_ten(bench, "single", [1] * _READ_EVENTS)
    return bench.singles


async def _streams_of_ten(bench: Bench, name: str, appends: list[int]) -> list[str]:
    """Make the streams that are read; `appends`: the sizes of each one's appends."""
    streams = [f"bench-{bench.run}-{name}-{number}" for number in range(_READ_STREAMS)]
    append, some = bench.client.append, bench.events.some
    for size in appends:
        for start in range(0, len(streams), 100):
            await asyncio.gather(*[append(stream, some(size)) for stream in streams[start : start + 100]])
    for node_id in bench.cluster.present:  # a local read may come before a follower knows of the commit
        await bench.cluster.caught_up(node_id)
    bench.written += len(streams) * _READ_EVENTS
    return streams


async def read_one(bench: Bench) -> Measured:
    """Read a 10-event stream, one at a time, linearizable."""
    return await _read(bench, "read-1", 1, "linearizable", await _readable(bench))


async def read_one_local(bench: Bench) -> Measured:
    """Read a 10-event stream, one at a time, from any replica."""
    return await _read(bench, "read-1-local", 1, "local", await _readable(bench))


async def read_64(bench: Bench) -> Measured:
    """Read a 10-event stream, 64 at a time, linearizable."""
    return await _read(bench, "read-64", 64, "linearizable", await _readable(bench))


async def read_64_local(bench: Bench) -> Measured:
    """Read a 10-event stream, 64 at a time, from any replica."""
    return await _read(bench, "read-64-local", 64, "local", await _readable(bench))


async def read_64_singles(bench: Bench) -> Measured:
    """Read a stream of ten single appends, 64 at a time, linearizable."""
    return await _read(bench, "read-64-singles", 64, "linearizable", await _singles(bench))


async def scan(bench: Bench) -> Measured:
    """Read every event of every partition once; counted in events, latency of the whole."""
    while bench.written < _SCAN_EVENTS_MIN:
        appends = [
            bench.client.append(f"bench-{bench.run}-scan-{number}", bench.events.some(_BATCH))
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
            await bench.client.append(stream, bench.events.some(1))
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
    "64-writers-exact": writers_64_exact,
    "1024-in-flight": in_flight_1024,
    "batches-of-100": small_batches,
    "batches-of-1000": batches,
    "read-1": read_one,
    "read-1-local": read_one_local,
    "read-64": read_64,
    "read-64-local": read_64_local,
    "read-64-singles": read_64_singles,
    "scan": scan,
    "kill-owner": kill,
}
"""In the order in which they are run: those that read come behind those that write."""
