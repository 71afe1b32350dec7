"""Expected versions: the words, the numbers, and when they are met."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from allsource.storage.model.errors import InvalidRequest
from allsource.storage.model.expected import (
    ANY,
    EXISTS,
    NO_STREAM,
    VERSION_MAX,
    is_met,
    parse_expected,
    show_expected,
)


@pytest.mark.parametrize(
    ("said", "meant"), [("any", ANY), ("exists", EXISTS), ("no_stream", NO_STREAM), (0, NO_STREAM), (7, 7)]
)
def test_words_and_versions(said: object, meant: int) -> None:
    assert parse_expected(said) == meant
    assert parse_expected(show_expected(meant)) == meant


@given(st.integers(0, VERSION_MAX))
def test_every_version_is_itself(version: int) -> None:
    assert parse_expected(version) == version
    assert is_met(version, version)
    assert not is_met(version, version + 1)


@pytest.mark.parametrize("said", [-1, -2, 1.0, True, False, "", "ANY", "7", None, [], VERSION_MAX + 1])
def test_anything_else_is_refused(said: object) -> None:
    with pytest.raises(InvalidRequest, match="expected_version must be"):
        parse_expected(said)


@pytest.mark.parametrize(
    ("expected", "met_at"),
    [(ANY, {0, 1, 2}), (EXISTS, {1, 2}), (NO_STREAM, {0}), (1, {1}), (2, {2}), (3, set())],
)
def test_when_it_is_met(expected: int, met_at: set[int]) -> None:
    assert {version for version in range(3) if is_met(expected, version)} == met_at
