"""How a client opens: it waits for the first node, and knows when waiting has no point.

A node that is down may come up, so the client waits for it until its time is over. A node that answers and
refuses this client (wrong secret, another cluster) will refuse it later too, and so will what is no node at
all. Then the caller is told why at once, and not that something timed out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from allsource.client.cluster_map import Address
from allsource.client.dialler import Dialler
from allsource.client.errors import ConnectionRefused
from allsource.cluster.protocol.frames import ProtocolError
from allsource.storage.model.errors import AllsourceError, Unavailable

OTHERS_S = 0.5
"""How long other nodes have to accept the client when one has refused it for good: an operator may be
changing their secret, node after node."""

_LASTING = frozenset(("frame_too_large", "malformed", "version", "wrong_cluster", "wrong_secret"))
"""The protocol's codes for refusals that last. Others may pass (too many connections, a timeout)."""


async def connect_to_one(
    seeds: Sequence[Address],
    dialler: Dialler,
    connected: asyncio.Event,
    news: asyncio.Event,
    timeout_s: float,
) -> None:
    """Dial, and return when a node is connected; raises `ConnectionRefused` or `Unavailable`.

    `news` is set whenever a node was connected or an address could not be reached.
    """
    loop = asyncio.get_running_loop()
    end = loop.time() + timeout_s
    dialler.dial(seeds)
    while not connected.is_set():
        refused = [seed for seed in seeds if _lasting(dialler.failures.get(seed))]
        if len(refused) == len(seeds):
            break
        if refused:
            end = min(end, loop.time() + OTHERS_S)
        news.clear()
        try:
            async with asyncio.timeout_at(end):
                await news.wait()
        except TimeoutError:
            break
    if not connected.is_set():
        raise _why_not(seeds, dialler, timeout_s)


def _lasting(failure: Exception | None) -> bool:
    return isinstance(failure, ProtocolError) and failure.code in _LASTING


def _why_not(seeds: Sequence[Address], dialler: Dialler, timeout_s: float) -> AllsourceError:
    failures = [dialler.failures.get(seed) for seed in seeds]
    for (host, port), failure in zip(seeds, failures, strict=True):
        if isinstance(failure, ProtocolError) and failure.code in _LASTING:
            return ConnectionRefused(f"{host}:{port}: {failure.message}", reason=failure.code)
    reasons = "; ".join(
        f"{host}:{port}: {failure or 'no answer'}"
        for (host, port), failure in zip(seeds, failures, strict=True)
    )
    return Unavailable(f"no node could be reached within {timeout_s:g} s ({reasons})")
