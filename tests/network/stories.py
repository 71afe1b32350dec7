"""What happens to the network, and what the cluster owes its writers meanwhile.

Each story says what is cut between the nodes; the client reaches every node at all times. `writable`:
whether every partition keeps a majority whose members reach each other, so that writes go on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from random import Random

from tests.network.lan import Lan

FLAP_S = 0.3


@dataclass(frozen=True, slots=True)
class Story:
    """`nodes`: in a cluster of how many it is told."""

    name: str
    nodes: int
    cut: Callable[[Lan, Random], Awaitable[None]]
    writable: bool = True


async def _isolate(lan: Lan, random: Random) -> None:
    victim = random.choice(lan.node_ids)
    for other in lan.node_ids:
        if other != victim:
            lan.cut(victim, other)


async def _mute(lan: Lan, random: Random) -> None:
    victim = random.choice(lan.node_ids)
    for other in lan.node_ids:
        if other != victim:
            lan.cut(victim, other, one_way=True)


async def _deaf(lan: Lan, random: Random) -> None:
    victim = random.choice(lan.node_ids)
    for other in lan.node_ids:
        if other != victim:
            lan.cut(other, victim, one_way=True)


async def _bridge(lan: Lan, random: Random) -> None:
    one, other = random.sample(lan.node_ids, 2)
    lan.cut(one, other)


async def _one_link_one_way(lan: Lan, random: Random) -> None:
    one, other = random.sample(lan.node_ids, 2)
    lan.cut(one, other, one_way=True)


async def _halves(lan: Lan, random: Random) -> None:
    few = random.sample(lan.node_ids, (len(lan.node_ids) - 1) // 2)
    for one in few:
        for other in lan.node_ids:
            if other not in few:
                lan.cut(one, other)


async def _flapping(lan: Lan, random: Random) -> None:
    victim = random.choice(lan.node_ids)
    for _ in range(4):
        for other in lan.node_ids:
            if other != victim:
                lan.cut(victim, other)
        await asyncio.sleep(FLAP_S)
        lan.heal()
        await asyncio.sleep(FLAP_S)
    for other in lan.node_ids:
        if other != victim:
            lan.cut(victim, other)


async def _all_links(lan: Lan, random: Random) -> None:
    for one in lan.node_ids:
        for other in lan.node_ids:
            if one < other:
                lan.cut(one, other)


STORIES = {
    story.name: story
    for story in (
        Story("isolate", 3, _isolate),
        Story("mute", 3, _mute),
        Story("deaf", 3, _deaf),
        Story("bridge", 3, _bridge),
        Story("one link one way", 3, _one_link_one_way),
        Story("flapping", 3, _flapping),
        Story("all links", 3, _all_links, writable=False),
        Story("minority of five", 5, _halves),
        Story("bridge of five", 5, _bridge),
    )
}
