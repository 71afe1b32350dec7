"""A node that has forgotten may not vote: who may take part, and who is refused."""

from __future__ import annotations

import itertools

import pytest

from allsource.node.formation import Formation
from allsource.storage.errors import StorageFault
from allsource.storage.memory import MemoryStorage

MEMBERS = ("n1", "n2", "n3")


def start(storage: MemoryStorage, node_id: str = "n1", members: tuple[str, ...] = MEMBERS) -> Formation:
    return Formation(storage, node_id, members, 32, 3)


def test_a_sole_member_is_formed_at_once() -> None:
    assert start(MemoryStorage(), members=("n1",)).is_formed


def test_a_node_is_formed_when_it_has_met_everybody_and_stays_so() -> None:
    storage = MemoryStorage()
    formation = start(storage)
    assert formation.missing() == ["n2", "n3"]
    assert not formation.met("n3", "r3")
    assert not formation.met("n3", "r3")
    assert formation.missing() == ["n2"]
    assert formation.met("n2", "r2"), "this meeting formed the cluster"
    assert formation.is_formed
    assert not formation.met("n2", "r2"), "only once"
    again = start(storage)
    assert again.is_formed
    assert again.missing() == []


def test_meetings_are_remembered_over_a_restart() -> None:
    storage = MemoryStorage()
    start(storage).met("n2", "r2")
    storage.crash()
    again = start(storage)
    assert again.remembered("n2") == "r2"
    assert again.remembered("n3") is None
    assert again.missing() == ["n3"]


def test_what_was_remembered_is_not_replaced() -> None:
    formation = start(MemoryStorage())
    formation.met("n2", "r2")
    formation.met("n2", "another")
    assert formation.remembered("n2") == "r2"


def test_strangers_are_not_met() -> None:
    formation = start(MemoryStorage())
    assert not formation.met("n9", "r9")
    assert formation.remembered("n9") is None


@pytest.mark.parametrize(
    ("members", "partitions", "factor", "key"),
    [
        (("n1", "n2"), 32, 3, "members"),
        (("n2", "n1", "n3"), 32, 3, "members"),
        (("n1", "n2", "n4"), 32, 3, "members"),
        (MEMBERS, 16, 3, "partitions"),
        (MEMBERS, 32, 1, "replication_factor"),
    ],
)
def test_a_formed_node_refuses_another_cluster_shape(
    members: tuple[str, ...], partitions: int, factor: int, key: str
) -> None:
    storage = MemoryStorage()
    formation = start(storage)
    formation.met("n2", "r2")
    formation.met("n3", "r3")
    with pytest.raises(StorageFault, match=key):
        Formation(storage, "n1", members, partitions, factor)


class Handshakes:
    """All members, and the rule of the handshake: each side refuses an id that it does not remember."""

    def __init__(self) -> None:
        self.storages: dict[str, MemoryStorage] = {}
        self.nodes: dict[str, Formation] = {}
        for node in MEMBERS:
            self.wipe(node)

    def wipe(self, node: str) -> None:
        self.storages[node] = MemoryStorage()
        self.nodes[node] = start(self.storages[node], node)

    def dial(self, one: str, other: str) -> bool:
        for here, there in ((one, other), (other, one)):
            remembered = self.nodes[here].remembered(there)
            if remembered not in (None, self.replica_id(there)):
                return False
        self.nodes[one].met(other, self.replica_id(other))
        return True

    def dial_all(self) -> None:
        for one, other in itertools.permutations(MEMBERS, 2):
            self.dial(one, other)

    def replica_id(self, node: str) -> str:
        return self.storages[node].identity.replica_id


def test_a_wiped_node_never_forms_again() -> None:
    cluster = Handshakes()
    cluster.dial_all()
    cluster.wipe("n2")
    cluster.dial_all()
    assert not cluster.nodes["n2"].is_formed
    assert cluster.nodes["n2"].missing() == ["n1", "n3"]


@pytest.mark.parametrize("order", list(itertools.permutations(itertools.permutations(MEMBERS, 2), 3))[::7])
def test_whoever_may_have_voted_and_is_wiped_is_found_out(order: tuple[tuple[str, str], ...]) -> None:
    """After any few handshakes: two formed nodes can make a majority. Wipe one of them: it cannot form
    again, in whatever order they meet from then on."""
    cluster = Handshakes()
    for one, other in order:
        cluster.dial(one, other)
    for node in MEMBERS:
        for other in MEMBERS:
            if node != other:
                cluster.dial(node, other)
        if sum(formation.is_formed for formation in cluster.nodes.values()) == 2:
            break
    formed = [node for node, formation in cluster.nodes.items() if formation.is_formed]
    assert len(formed) >= 2
    cluster.wipe(formed[0])
    cluster.dial_all()
    assert not cluster.nodes[formed[0]].is_formed
