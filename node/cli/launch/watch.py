"""Asking the children how they are, through the HTTP door that everyone has.

Behind a child's address another process may answer: that of a second launch of the same file, which has the
ports already. What it says is not about our child.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import aiohttp

from allsource.node.cli.launch.supervisor import READY, RUNNING, Child, Display
from allsource.node.cli.picture import ClusterPicture

_UNTIL_READY_S = 0.1
_AFTERWARDS_S = 0.5
_TIMEOUT = aiohttp.ClientTimeout(total=2)


async def watch(children: Sequence[Child], display: Display) -> None:
    """Keep the children's states and pictures fresh until cancelled; tell when all are ready at last."""
    begun, told = time.monotonic(), False
    async with aiohttp.ClientSession(timeout=_TIMEOUT) as http:
        while True:
            await asyncio.gather(*[_look(child, http) for child in children])
            if not told and all(child.state == READY for child in children):
                told = True
                display.ready(time.monotonic() - begun)
            await asyncio.sleep(_AFTERWARDS_S if told else _UNTIL_READY_S)


async def _look(child: Child, http: aiohttp.ClientSession) -> None:
    """Ask one child; of one that does not answer the process is all that is known."""
    if not child.is_up:
        return
    life = child.starts
    try:
        async with http.get(f"{child.http_url}/health/ready") as answer:
            ready = answer.status == 200
        async with http.get(f"{child.http_url}/v1/cluster") as answer:
            picture = ClusterPicture.read(await answer.json()) if answer.status == 200 else None
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError, KeyError, TypeError):
        picture = None  # the last three: not a node of ours
    answered = picture is not None and picture.pid == child.node.pid
    if not answered:
        ready, picture = False, None
    if child.starts == life and child.is_up:
        child.was_live = child.was_live or answered
        child.picture = picture
        if answered:
            child.state = READY if ready else RUNNING
        elif child.state == READY:
            child.state = RUNNING
