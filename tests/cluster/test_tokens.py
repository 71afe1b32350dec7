"""A token comes from outside: it is one that an append may have returned, or a definite refusal."""

from __future__ import annotations

import pytest

from allsource.cluster.protocol.requests import make_token, parse_token
from allsource.storage.model.errors import InvalidRequest


@pytest.mark.parametrize("index", [0, 1, 2**63 - 1])
def test_what_an_append_returned_is_read_back(index: int) -> None:
    assert parse_token(make_token(7, index), 7) == index


def test_no_token_asks_for_nothing() -> None:
    assert parse_token("", 7) == 0


@pytest.mark.parametrize(
    "token",
    [
        "7",
        ":",
        "7:",
        ":7",
        "x:1",
        "8:1",
        "7:-1",
        "-7:1",
        "7:1:2",
        " 7:1",
        "7:1\n",
        "7:\u0663",
        "7:1e3",
        "7:1_0",
        f"7:{2**63}",
        "7:" + "9" * 19,
        "7:" + "9" * 5000,
        "9" * 5000 + ":7",
        "\x00",
        "\ud800",
    ],
)
def test_anything_else_is_refused_in_one_short_sentence(token: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_token(token, 7)
    assert len(caught.value.message) < 150
