"""How simulated clients move marks: as consumers that are fenced, and some that are behind the times."""

from __future__ import annotations

from allsource.storage.model.entry import Mark
from tests.simulation.world import World

CLIENTS_MAX = 64
"""More than there are clients that move marks: each has positions of its own."""


class Consumer:
    """How a client moves marks: forward, mostly as the consumer that it last heard of; sometimes it takes
    over with a new generation, and sometimes it has not heard that somebody else did. No move is ever made
    twice, by whomever."""

    def __init__(self, number: int, world: World) -> None:
        self._number = number
        self._world = world
        self._believed: dict[tuple[int, str], tuple[int, int]] = {}
        self._made: set[tuple[int, str, int, int]] = set()

    def knows(self, partition: int, name: str, state: tuple[int, int]) -> None:
        """The mark was seen at `(generation, position)`."""
        self._believed[partition, name] = state

    def move(self, partition: int, name: str) -> Mark:
        """A move that nobody has made."""
        random = self._world.random
        generation, position = self._believed.get((partition, name), (0, 0))
        generation = max(0, generation + random.choices((0, 1, -1), (7, 2, 1))[0])
        step = position // CLIENTS_MAX + random.randint(0, 2)
        while (move := (partition, name, step * CLIENTS_MAX + self._number, generation)) in self._made:
            step += 1
        self._made.add(move)
        return Mark(*move[1:])
