"""Descriptors are dealt out so that the database and the peers always have theirs."""

from __future__ import annotations

import pytest

from allsource.cluster.budgets.descriptors import (
    CLIENTS_MAX,
    DESCRIPTORS_WANTED,
    HTTP_MAX,
    PER_PEER,
    RESERVED,
    TooFewDescriptors,
    caps_for,
    wanted,
)
from allsource.config.schema import NODES_MAX
from allsource.storage.files.descriptors import database_files

UNLIMITED = -1


@pytest.mark.parametrize("nodes", [1, 3, 5, NODES_MAX])
@pytest.mark.parametrize("descriptors", [512, 1024, 4096, 65_536, 1 << 20, 1 << 30])
def test_all_shares_together_are_never_more_than_there_is(descriptors: int, nodes: int) -> None:
    caps = caps_for(descriptors, nodes)
    sockets = caps.http + caps.clients + caps.strangers + PER_PEER * nodes
    assert sockets + database_files(descriptors) + RESERVED <= descriptors
    assert min(caps) >= 16


def test_many_descriptors_are_many_connections() -> None:
    caps = caps_for(1024, 3)
    assert caps.http >= 200
    assert caps.clients >= 200
    assert caps_for(1 << 20, 3)[:2] == (HTTP_MAX, CLIENTS_MAX)


@pytest.mark.parametrize("descriptors", [0, 64, 256])
def test_too_few_are_refused_with_what_to_do(descriptors: int) -> None:
    with pytest.raises(TooFewDescriptors, match=r"ulimit -n"):
        caps_for(descriptors, 3)


@pytest.mark.parametrize(
    ("soft", "hard", "expected"),
    [
        (1024, 4096, 4096),
        (1024, 1 << 30, DESCRIPTORS_WANTED),
        (1024, UNLIMITED, DESCRIPTORS_WANTED),
        (1 << 21, 1 << 22, 1 << 21),
        (UNLIMITED, UNLIMITED, UNLIMITED),
    ],
)
def test_as_many_are_asked_for_as_the_system_allows(soft: int, hard: int, expected: int) -> None:
    assert wanted(soft, hard, UNLIMITED) == expected
