"""One round of a drill: hurt some owners, wait until every partition takes writes, heal, wait again.

What is measured is silence: the longest time in which a partition acknowledged nothing although its
writers kept trying. It is looked for from the moment of the injury until every partition had accepted a
write that began after it, and once more from the healing until the partitions were back (giving them
back costs a moment too). Figures therefore contain the writers' own pauses, some 10 ms.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from random import Random

from allsource.node.cli.control.cluster import ClusterFault, ClusterProcess
from allsource.node.cli.drill.history import History, longest_silence
from allsource.node.cli.drill.writers import Writers
from allsource.node.cli.figures import ranges

ACCEPT_TIMEOUT_S = 30.0
"""A partition that takes no writes for so long, though a majority is up, has failed the drill."""


@dataclass(frozen=True, slots=True)
class Injury:
    """What is done to the victims, and what undoes it."""

    name: str
    past: str
    """As in "n2 *killed*"."""
    hurt: Callable[[ClusterProcess, Sequence[str]], None]
    heal: Callable[[ClusterProcess, Sequence[str]], None] | None
    """None: nothing does, and the cluster goes on without them."""
    ends: bool
    """Whether their processes end, so that healing is a new start."""

    def for_good(self) -> Injury:
        """The same for storage in memory: a node that is started again has forgotten its votes, and is
        refused."""

        def hurt(cluster: ClusterProcess, victims: Sequence[str]) -> None:
            self.hurt(cluster, victims)
            cluster.lose(*victims)

        return replace(self, past=f"{self.past} for good", hurt=hurt, heal=None)


def _kill(cluster: ClusterProcess, victims: Sequence[str]) -> None:
    cluster.kill(*victims)


def _stop(cluster: ClusterProcess, victims: Sequence[str]) -> None:
    for victim in victims:
        cluster.nodes[victim].terminate()


def _start(cluster: ClusterProcess, victims: Sequence[str]) -> None:
    cluster.start(*victims)


def _pause(cluster: ClusterProcess, victims: Sequence[str]) -> None:
    for victim in victims:
        cluster.nodes[victim].pause()


def _resume(cluster: ClusterProcess, victims: Sequence[str]) -> None:
    for victim in victims:
        cluster.nodes[victim].resume()


KILL = Injury("kill-node", "killed", _kill, _start, ends=True)
STOP = Injury("stop-node", "stopped", _stop, _start, ends=True)
PAUSE = Injury("pause-node", "paused", _pause, _resume, ends=False)


@dataclass(frozen=True, slots=True)
class Round:
    """What a round measured. Times in seconds; the silences by partition."""

    number: int
    victims: tuple[str, ...]
    owned: tuple[int, ...]
    """The partitions that the victims owned when they were hurt."""
    takeover: dict[int, float]
    """Longest silence from the injury until every partition accepted writes."""
    return_: dict[int, float]
    """Longest silence from the healing until the partitions were back; empty if nothing was healed."""
    accept_s: float
    """From the injury until every partition had acknowledged a write that began after it."""
    back_s: float | None
    """From the healing until the victims had caught up and their partitions back; None: never."""


async def run_round(
    number: int, injury: Injury, cluster: ClusterProcess, writers: Writers, random: Random, victims: int
) -> Round:
    """One round. Raises `ClusterFault` if the cluster does not come back."""
    chosen = tuple(sorted(random.sample(cluster.present, victims)))
    owned = await _owned_by(cluster, chosen)
    hurt = writers.now()
    injury.hurt(cluster, chosen)
    if injury.ends:
        await cluster.ended(*chosen)
    await _accepting(writers, hurt, f"{', '.join(chosen)} {injury.past}")
    healed = writers.now()
    takeover = _silences(writers.history, cluster.settings.partitions, hurt, healed)
    if injury.heal is None:
        await cluster.settled()
        await _accepting(writers, writers.now(), f"{', '.join(chosen)} gone")
        return Round(number, chosen, owned, takeover, {}, healed - hurt, None)
    injury.heal(cluster, chosen)
    await cluster.ready(*chosen)
    for victim in chosen:
        await cluster.caught_up(victim)
    await cluster.settled()
    back = writers.now()
    await _accepting(writers, back, f"{', '.join(chosen)} back")
    return Round(
        number,
        chosen,
        owned,
        takeover,
        _silences(writers.history, cluster.settings.partitions, healed, writers.now()),
        healed - hurt,
        back - healed,
    )


async def _owned_by(cluster: ClusterProcess, node_ids: Sequence[str]) -> tuple[int, ...]:
    asked = cluster.present[0]
    picture = await cluster.picture(asked)
    if picture is None:
        raise ClusterFault(f"{asked} does not describe the cluster")
    return tuple(sorted(p for node_id in node_ids for p in picture.owned_by(node_id)))


async def _accepting(writers: Writers, since: float, after: str) -> None:
    if silent := await writers.all_accept(since, ACCEPT_TIMEOUT_S):
        raise ClusterFault(
            f"with {after}, partitions {ranges(silent)} took no writes for {ACCEPT_TIMEOUT_S:g} s"
        )


def _silences(history: History, partitions: int, start: float, end: float) -> dict[int, float]:
    return {
        partition: longest_silence(history.since(partition, start), start, end)
        for partition in range(partitions)
    }
