"""What is learned of peers is written down before it counts, or the process ends."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import structlog

from allsource.cluster.protocol.acquaintance import LogEnd, Start
from allsource.cluster.protocol.frames import ProtocolError
from allsource.node.formation.acquaintances import Acquaintances
from allsource.node.formation.formation import Formation, Standing
from allsource.node.member import ending
from allsource.node.member.ending import EXIT_STORAGE, EXIT_SYNC_FAILED
from allsource.storage.memory import MemoryStorage
from allsource.storage.model.errors import DiskFull, StorageFault

OLD, NEW = Start("r2", 3, b"third of n2....."), Start("r2", 4, b"fourth of n2....")
VERDICT = ProtocolError("regressed", "the data directory of node n1 is an older copy", by_peer=True)


class Disk(MemoryStorage):
    """A storage whose small values cannot be written any more, from when `fails` is set."""

    fails: Exception | None = None

    def put_meta(self, values: Mapping[str, bytes]) -> None:
        if self.fails is not None:
            raise self.fails
        super().put_meta(values)


class DeadLog:
    def __getattr__(self, level: str) -> Any:
        def say(*_: object, **__: object) -> None:
            raise BrokenPipeError(32, "Broken pipe")

        return say


class Case:
    """n1 of two nodes, formed, which remembers n2's third start."""

    def __init__(self, *, log: Any = None, acknowledged: list[LogEnd] | None = None) -> None:
        self.disk = Disk()
        self.formation = self.start()
        self.formation.remember("n2", OLD)
        self.formation.greeted("n2")
        self.takes_part = True
        self.acquaintances = Acquaintances(
            self.formation,
            log or structlog.get_logger(),
            log_ends=list,
            acknowledged_by=lambda peer: acknowledged or [],
            takes_part=lambda: self.takes_part,
        )

    def start(self) -> Formation:
        return Formation(self.disk, "n1", ("n1", "n2"), 8, 2, incarnation=1)

    def meet(self, start: Start = NEW, *ends: LogEnd, asked: Start | None = OLD) -> str:
        refusal = self.acquaintances.meet("n2", start, ends, asked)
        return refusal.code if refusal is not None else ""


@pytest.fixture
def exits(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    found: list[int] = []
    monkeypatch.setattr(ending.os, "_exit", found.append)
    return found


@pytest.fixture(params=["a log", "a log that raises"])
def log(request: pytest.FixtureRequest) -> Any:
    quiet = structlog.wrap_logger(None, processors=[lambda *_: ""])
    return quiet if request.param == "a log" else DeadLog()


def test_a_new_start_is_remembered_durably(exits: list[int]) -> None:
    case = Case()
    assert case.meet() == ""
    assert case.formation.remembered() == case.start().remembered() == {"n2": NEW}
    assert exits == []


def test_a_start_that_is_known_is_not_written_again() -> None:
    case = Case()
    case.disk.fails = StorageFault("no more")
    assert case.meet(OLD) == ""


def test_a_new_start_that_lacks_what_was_acknowledged_is_refused_and_not_remembered() -> None:
    case = Case(acknowledged=[LogEnd(0, 2, 10)])
    assert case.meet(NEW, LogEnd(0, 2, 9)) == "regressed"
    assert case.formation.remembered() == {"n2": OLD}
    assert case.meet(NEW, LogEnd(0, 2, 10)) == ""
    assert case.meet(NEW, LogEnd(0, 2, 9), asked=NEW) == "", "once met, what it shows may be old"


def test_a_handshake_that_another_one_outpaced_is_refused() -> None:
    case = Case()
    case.formation.remember("n2", NEW)
    assert case.meet(Start("r2", 5, b"fifth of n2....."), asked=OLD) == "superseded"
    assert case.formation.remembered() == {"n2": NEW}


def test_what_cannot_be_written_down_ends_the_process(exits: list[int], log: Any) -> None:
    """It once went on, as if it had been: a failed sync must never be forgotten (rule 16)."""
    case = Case(log=log)
    case.disk.fails = StorageFault("the sync failed")
    with pytest.raises(StorageFault):
        case.meet()
    assert exits == [EXIT_SYNC_FAILED]
    assert case.formation.remembered() == {"n2": OLD}


def test_forming_that_cannot_be_written_down_ends_the_process(exits: list[int], log: Any) -> None:
    case = Case(log=log)
    case.formation.doubt("n2", "an older copy")
    case.disk.fails = StorageFault("the sync failed")
    with pytest.raises(StorageFault):
        case.acquaintances.greeted("n2")
    assert exits == [EXIT_SYNC_FAILED]
    assert case.formation.standing is not Standing.ADMITTED


def test_a_full_disk_puts_the_meeting_off(exits: list[int]) -> None:
    case = Case()
    case.disk.fails = DiskFull("no room")
    assert case.meet() == "disk_full"
    assert exits == []
    case.disk.fails = None
    assert case.meet() == ""


def test_who_is_taken_for_an_older_copy_writes_it_down_and_ends(exits: list[int], log: Any) -> None:
    case = Case(log=log)
    case.acquaintances.refused_by("n2", VERDICT)
    assert exits == [EXIT_STORAGE]
    again = case.start()
    assert again.standing is not Standing.ADMITTED
    assert again.doubts() == {"n2": VERDICT.message}


def test_it_ends_also_when_it_cannot_write_that_down(exits: list[int], log: Any) -> None:
    case = Case(log=log)
    case.disk.fails = StorageFault("the sync failed")
    with pytest.raises(StorageFault):
        case.acquaintances.refused_by("n2", VERDICT)
    assert exits == [EXIT_SYNC_FAILED]


def test_who_takes_no_part_breaks_no_promise_and_waits(exits: list[int]) -> None:
    case = Case()
    case.takes_part = False
    case.acquaintances.refused_by("n2", VERDICT)
    assert exits == []
    assert case.formation.standing is not Standing.ADMITTED


def test_other_refusals_are_no_judgement(exits: list[int]) -> None:
    case = Case()
    case.acquaintances.refused_by("n2", ProtocolError("superseded", "connected again", by_peer=True))
    assert exits == []
    assert case.formation.standing is Standing.ADMITTED
