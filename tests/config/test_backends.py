"""Backends are asked what they can do, never compared by name."""

from __future__ import annotations

import ast

from allsource.config.backends import BACKENDS
from allsource.storage.open import BACKENDS as OPENERS
from scripts.rooms import modules, where_of


def test_every_backend_that_can_be_opened_says_what_it_can_do() -> None:
    assert sorted(BACKENDS) == sorted(OPENERS)


def test_events_are_in_one_place_at_most() -> None:
    for traits in BACKENDS.values():
        assert not (traits.in_data_dir and traits.in_server)
        assert traits.survives_restart == (traits.in_data_dir or traits.in_server)


def test_nobody_compares_a_backend_by_its_name() -> None:
    breaches = [
        where_of(module.path, node)
        for module in modules()
        for node in ast.walk(ast.parse(module.path.read_text()))
        if isinstance(node, ast.Compare)
        for operand in (node.left, *node.comparators)
        if isinstance(operand, ast.Constant) and operand.value in BACKENDS
    ]
    assert not breaches, "\n".join(["", *breaches])
