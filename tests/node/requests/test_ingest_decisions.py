"""The write path decides as the pure decision does, whatever it is asked in whatever turns."""

from __future__ import annotations

from random import Random
from typing import Any

from allsource.storage.model.errors import InvalidRequest
from tests.node.requests.desk import Desk, P
from tests.storage.decision_contract import LIMITS, comparable, drawn_seed, packed, steps, truth
from tests.storage.model.pure_log import PureLog


def test_every_outcome_is_that_of_the_pure_decision() -> None:
    """Also of appends that are decided in one turn, so that they rest on what is not committed yet."""
    random, desk, log = Random(drawn_seed()), Desk(limits=LIMITS), PureLog(P)
    asked: list[tuple[Any, list[Any]]] = []
    for appends in steps(random, 400):
        wanted = truth(log, appends)
        try:
            _, answers = desk.ask(packed(appends))
        except InvalidRequest as error:  # as its caller's door says
            answers = [error]
        asked.append((wanted, answers))
        if random.random() < 0.3:
            desk.settle()
    desk.settle()
    for wanted, answers in asked:
        assert [comparable(answer) for answer in answers] == [wanted]
