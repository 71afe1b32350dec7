"""How a node takes part is one fact: an outsider refuses with the reason, until it is a member."""

from __future__ import annotations

import os
from typing import Any

import pytest
import structlog

from allsource.cluster.protocol.acquaintance import REGRESSED, START_NONCE_BYTES, Start
from allsource.cluster.protocol.frames import ProtocolError
from allsource.cluster.protocol.requests import ClusterView, DescribeCluster
from allsource.node.formation.acquaintances import Acquaintances
from allsource.node.formation.encounters import Encounters
from allsource.node.formation.formation import Formation, Standing
from allsource.node.member.member import Member
from allsource.node.part import Part
from allsource.node.requests.queue import LockFreeEventQueue
from allsource.storage.memory import MemoryStorage
from allsource.storage.model.errors import NoOwner
from tests.node.appends import append, events
from tests.node.members import settings_for


class Watched(Member):
    """A member without its parts that takes down what it is told."""

    def __init__(self) -> None:
        self.told: list[Any] = []
        self.core: Any = type("Core", (), {"groups": {}})
        self.submit = lambda request, **_: self.told.append(request)  # type: ignore[assignment]

    def start(self) -> None:
        self.told.append("start")

    def connected(self, peer: str, incarnation: int) -> None:
        self.told.append(("connected", peer, incarnation))

    def lost(self, peer: str) -> None:
        self.told.append(("lost", peer))

    def refused(self, peer: str) -> None:
        self.told.append(("refused", peer))


class Welcome:
    """The part of a welcome that is looked at."""

    def __init__(self, incarnation: int) -> None:
        self.start = Start("its replica", incarnation, bytes(START_NONCE_BYTES))


class Case:
    """n1 of three nodes, which has never been started before."""

    def __init__(self, storage: MemoryStorage | None = None) -> None:
        self.storage = storage or MemoryStorage(cluster_id="test", node_id="n1", partition_count=8)
        self.formation = Formation(self.storage, "n1", ("n1", "n2", "n3"), 8, 3, incarnation=1)
        self.part = Part(
            settings_for(3),
            "n1",
            self.storage,
            LockFreeEventQueue(1),
            missing=self.formation.missing,
            log_ends=list,
        )
        self.member = Watched()
        self.encounters = Encounters(
            self.formation,
            Acquaintances(
                self.formation,
                structlog.get_logger(),
                log_ends=list,
                acknowledged_by=lambda peer: [],
                takes_part=lambda: self.part.member is not None,
            ),
            self.part,
            lambda: self.member,
            structlog.wrap_logger(None, processors=[lambda *_: ""]),
            forgets=False,
        )

    def meet(self, peer: str, incarnation: int = 1) -> None:
        welcome: Any = Welcome(incarnation)
        self.formation.remember(peer, Start(peer, incarnation, os.urandom(START_NONCE_BYTES)))
        self.encounters.connected(peer, welcome)

    def ask(self, request: Any) -> Any:
        answers: list[Any] = []
        self.part.submit(request, timeout_ms=1, forwarded=False, reply=answers.append)
        return answers[0]


def test_an_outsider_refuses_with_the_reason_and_shows_its_view() -> None:
    case = Case()
    case.encounters.join()
    refusal = case.ask(append(("a", events())))
    assert isinstance(refusal, NoOwner)
    assert "has not met n2 yet" in refusal.message
    assert isinstance(case.ask(DescribeCluster()), ClusterView)
    case.part.now.messages("n2", [])
    case.part.now.save_commits()
    assert (case.part.member, case.formation.standing) == (None, Standing.FORMING)
    assert len(case.part.waits_for()) == 2


def test_the_last_peer_that_is_met_makes_it_a_member_and_it_hears_of_all() -> None:
    case = Case()
    case.encounters.join()
    case.meet("n2", 7)
    assert case.part.member is None
    case.meet("n3", 9)
    assert case.part.member is case.member
    assert case.member.told == ["start", ("connected", "n2", 7), ("connected", "n3", 9)]
    case.part.submit(DescribeCluster(), timeout_ms=1, forwarded=False, reply=lambda _: None)
    assert isinstance(case.member.told[-1], DescribeCluster), "requests go to the member from then on"
    case.encounters.lost("n2")
    assert case.member.told[-1] == ("lost", "n2")


def test_a_peer_that_was_lost_before_is_not_told_as_connected() -> None:
    case = Case()
    case.meet("n2")
    case.encounters.lost("n2")
    case.meet("n3")
    assert case.member.told == ["start", ("connected", "n3", 1)]


def test_a_node_begins_to_take_part_once() -> None:
    case = Case()
    case.meet("n2")
    case.meet("n3")
    case.meet("n3", 2)
    assert case.member.told.count("start") == 1
    with pytest.raises(AssertionError, match="once"):
        case.part.take(case.member)


def test_one_that_is_doubted_says_why_until_that_very_peer_accepts_it() -> None:
    storage = MemoryStorage(cluster_id="test", node_id="n1", partition_count=8)
    formed = Case(storage)
    formed.meet("n2")
    formed.meet("n3")
    doubted = Case(storage)
    refusal = ProtocolError(REGRESSED, "an older copy", by_peer=True)
    doubted.encounters.refused("n2", refusal)
    assert doubted.formation.standing is Standing.DOUBTED
    doubted.encounters.join()
    assert doubted.part.member is None
    [why] = doubted.part.waits_for()
    assert why.startswith(f"no agreement with n2: {REGRESSED}")
    doubted.meet("n3")
    assert doubted.part.member is None
    doubted.meet("n2")
    assert doubted.part.member is doubted.member
