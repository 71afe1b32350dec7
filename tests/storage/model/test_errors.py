"""The error family: every member has a code, says whether it is definite, and survives the wire."""

from __future__ import annotations

import re

import msgpack
import pytest

from allsource.storage.model import errors
from allsource.storage.model.errors import (
    AllsourceError,
    MarkRefused,
    OutcomeUnknown,
    Rejected,
    WrongExpectedTag,
    WrongExpectedVersion,
)


def family(cls: type[AllsourceError]) -> list[type[AllsourceError]]:
    """The members that travel; a room's own errors, which never do, derive from them elsewhere."""
    found = [cls, *(member for sub in cls.__subclasses__() for member in family(sub))]
    return [member for member in found if member.__module__ == errors.__name__]


FAMILY = family(AllsourceError)
SAMPLES: dict[type[AllsourceError], AllsourceError] = {
    WrongExpectedVersion: WrongExpectedVersion("s", "no_stream", 3),
    WrongExpectedTag: WrongExpectedTag("t", 2, 3),
    MarkRefused: MarkRefused("m", 2**63 - 1, 7),
}


def test_codes_are_unique() -> None:
    codes = [cls.code for cls in FAMILY]
    assert len(set(codes)) == len(codes)


def drawn(page: str) -> dict[str, str]:
    """Each class in a page's tree, and the one that it hangs on."""
    found: dict[str, str] = {}
    above: list[str] = []
    for line in page.splitlines():
        if shown := re.match(r"    ((?:│   |    )*)(?:├── |└── )(\w+)", line):
            depth = len(shown[1]) // 4
            found[shown[2]] = above[depth]
            above[depth + 1 :] = [shown[2]]
        elif line == "    AllsourceError":
            above = ["AllsourceError"]
    return found


def test_the_tree_in_the_modules_page_is_the_family() -> None:
    assert drawn(errors.__doc__ or "") == {
        cls.__name__: cls.__bases__[0].__name__ for cls in FAMILY if cls is not AllsourceError
    }


def test_the_family_is_complete() -> None:
    """Those that came last are in it."""
    assert {WrongExpectedTag, MarkRefused, WrongExpectedVersion} < set(FAMILY)
    assert {"wrong_expected_tag", "mark_refused"} < {cls.code for cls in FAMILY}


@pytest.mark.parametrize("cls", FAMILY, ids=lambda cls: cls.__name__)
def test_only_rejections_are_definite(cls: type[AllsourceError]) -> None:
    assert cls.definite is issubclass(cls, Rejected)


@pytest.mark.parametrize("cls", FAMILY, ids=lambda cls: cls.__name__)
def test_the_wire_keeps_class_message_and_details(cls: type[AllsourceError]) -> None:
    error = SAMPLES.get(cls) or cls("what happened; what to do", limit=5, owner=None)
    back = AllsourceError.from_wire(msgpack.unpackb(msgpack.packb(error.to_wire())))
    assert type(back) is cls
    assert (back.message, back.details, str(back)) == (error.message, error.details, error.message)


def test_a_conflict_says_what_was_expected_and_what_is() -> None:
    error = WrongExpectedVersion("order-1", 4, 7)
    assert "expected 4, got 7" in str(error)
    assert error.details == {"stream": "order-1", "expected": 4, "actual": 7}
    tagged = WrongExpectedTag("shop", 4, 7)
    assert "tag 'shop': expected number 4, got 7; read the tag and decide again" in str(tagged)
    assert tagged.details == {"tag": "shop", "expected": 4, "actual": 7}
    refused = MarkRefused("mailer", 4, 7)
    assert "mark 'mailer' is at position 4 of generation 7" in str(refused)
    assert refused.details == {"name": "mailer", "position": 4, "generation": 7}


@pytest.mark.parametrize(
    "value", [None, [], ["invalid"], ["invalid", "m", []], ["unheard_of", "m", {}], 7, {"code": "x"}]
)
def test_what_is_not_understood_is_an_unknown_outcome(value: object) -> None:
    assert isinstance(AllsourceError.from_wire(value), OutcomeUnknown)
