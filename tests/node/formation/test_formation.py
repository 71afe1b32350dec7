"""A node that has forgotten may not vote: who may take part, and who is refused."""

from __future__ import annotations

import itertools

import pytest

from allsource.cluster.protocol.acquaintance import Start
from allsource.node.formation.formation import Formation, Standing
from allsource.storage.memory import MemoryStorage
from allsource.storage.model.errors import StorageFault

MEMBERS = ("n1", "n2", "n3")


def start(storage: MemoryStorage, node_id: str = "n1", members: tuple[str, ...] = MEMBERS) -> Formation:
    return Formation(storage, node_id, members, 32, 3, incarnation=storage.identity.incarnation)


def of(replica_id: str, incarnation: int = 1) -> Start:
    return Start(replica_id, incarnation, replica_id.encode().ljust(16, b"."))


def meet(formation: Formation, peer: str, start: Start) -> bool:
    """A whole handshake that we began. True if it let us begin."""
    formation.remember(peer, start)
    return formation.greeted(peer)


def test_a_sole_member_is_formed_at_once() -> None:
    assert start(MemoryStorage(), members=("n1",)).standing is Standing.ADMITTED


def test_a_node_is_formed_when_it_has_met_everybody_and_stays_so() -> None:
    storage = MemoryStorage()
    formation = start(storage)
    assert formation.missing() == ["n2", "n3"]
    assert not meet(formation, "n3", of("r3"))
    assert not meet(formation, "n3", of("r3"))
    assert formation.missing() == ["n2"]
    assert meet(formation, "n2", of("r2")), "this meeting formed the cluster"
    assert formation.standing is Standing.ADMITTED
    assert not meet(formation, "n2", of("r2")), "only once"
    again = start(storage)
    assert again.standing is Standing.ADMITTED
    assert again.missing() == []


def test_meetings_are_remembered_over_a_restart() -> None:
    storage = MemoryStorage()
    meet(start(storage), "n2", of("r2"))
    storage.crash()
    again = start(storage)
    assert again.remembered() == {"n2": of("r2")}
    assert again.missing() == ["n3"]


def test_the_newest_start_of_a_peer_is_remembered() -> None:
    storage = MemoryStorage()
    formation = start(storage)
    formation.remember("n2", of("r2"))
    formation.remember("n2", of("r2", 2))
    assert formation.remembered() == start(storage).remembered() == {"n2": of("r2", 2)}


def test_strangers_are_not_met() -> None:
    formation = start(MemoryStorage())
    assert not meet(formation, "n9", of("r9"))
    assert formation.remembered() == {}


def test_every_start_has_a_nonce_that_its_directory_knows_for_ever() -> None:
    storage = MemoryStorage()
    nonces = {}
    for incarnation in (1, 2, 3):
        nonces[incarnation] = start(storage).nonce_of(incarnation)
        storage.crash()
    last = start(storage)
    assert {number: last.nonce_of(number) for number in nonces} == nonces
    assert len({*nonces.values(), last.nonce_of(4)} - {None}) == 4
    assert last.nonce_of(5) is None


def test_who_is_taken_for_an_older_copy_waits_until_that_peer_accepts_it() -> None:
    storage = MemoryStorage()
    formation = start(storage)
    meet(formation, "n2", of("r2"))
    meet(formation, "n3", of("r3"))
    formation.doubt("n2", "it is an older copy")
    storage.crash()
    again = start(storage)
    assert again.standing is not Standing.ADMITTED
    assert again.missing() == ["n2"]
    assert again.doubts() == {"n2": "it is an older copy"}
    assert not meet(again, "n3", of("r3")), "another one's word does not count"
    assert meet(again, "n2", of("r2"))
    assert start(storage).standing is Standing.ADMITTED


def test_strangers_cast_no_doubts() -> None:
    formation = start(MemoryStorage(), members=("n1",))
    formation.doubt("n9", "it is an older copy")
    assert formation.standing is Standing.ADMITTED


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
    meet(formation, "n2", of("r2"))
    meet(formation, "n3", of("r3"))
    with pytest.raises(StorageFault, match=key):
        Formation(storage, "n1", members, partitions, factor, incarnation=2)


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
            remembered = self.nodes[here].remembered().get(there)
            if remembered not in (None, of(self.replica_id(there))):
                return False
        self.nodes[other].remember(one, of(self.replica_id(one)))
        meet(self.nodes[one], other, of(self.replica_id(other)))
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
    assert cluster.nodes["n2"].standing is not Standing.ADMITTED
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
        if sum(formation.standing is Standing.ADMITTED for formation in cluster.nodes.values()) == 2:
            break
    formed = [node for node, formation in cluster.nodes.items() if formation.standing is Standing.ADMITTED]
    assert len(formed) >= 2
    cluster.wipe(formed[0])
    cluster.dial_all()
    assert cluster.nodes[formed[0]].standing is not Standing.ADMITTED
