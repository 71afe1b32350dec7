"""Asking the nodes how they are, through the HTTP door that everyone has.

Behind a child's address another process may answer: one that somebody started by hand after our child had
ended, or that of another launch of the same file, which has the ports already. What it says of the cluster
is as good as our child's; that our child is well it does not say.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import aiohttp

from allsource.node.cli.control.picture import ClusterPicture
from allsource.node.cli.launch.supervisor import Child, Display

_UNTIL_READY_S = 0.1
_AFTERWARDS_S = 0.5
_TIMEOUT = aiohttp.ClientTimeout(total=2)


async def watch(children: Sequence[Child], display: Display) -> None:
    """Keep the children's states and pictures fresh until cancelled; tell when all are ready at last."""
    begun, told = time.monotonic(), False
    async with aiohttp.ClientSession(timeout=_TIMEOUT) as http:
        while True:
            await asyncio.gather(*[_look(child, http) for child in children])
            if not told and all(child.serves for child in children):
                told = True
                display.ready(time.monotonic() - begun)
            await asyncio.sleep(_AFTERWARDS_S if told else _UNTIL_READY_S)


async def _look(child: Child, http: aiohttp.ClientSession) -> None:
    """Ask the node at a child's address; of one that does not answer the process is all that is known."""
    life = child.starts
    ready, picture = await _ask(child, http)
    if child.starts != life or not life:
        return  # what was asked may have been its last life
    if picture is not None and picture.pid == child.node.pid and not child.is_up:
        ready, picture = False, None  # it has ended since
    child.seen(is_ready=ready, picture=picture)


async def _ask(child: Child, http: aiohttp.ClientSession) -> tuple[bool, ClusterPicture | None]:
    """Whether the node at the address is ready, and its picture, if it is the node that belongs there."""
    try:
        async with http.get(f"{child.http_url}/health/ready") as answer:
            ready = answer.status == 200
        async with http.get(f"{child.http_url}/v1/cluster") as answer:
            picture = ClusterPicture.read(await answer.json()) if answer.status == 200 else None
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError, KeyError, TypeError):
        return False, None  # the last three: not a node of ours
    if picture is None or picture.node != child.id:
        return False, None
    return ready, picture
