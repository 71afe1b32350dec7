"""The error family: every member has a code, says whether it is definite, and survives the wire."""

from __future__ import annotations

import msgpack
import pytest

from allsource.storage.model import errors
from allsource.storage.model.errors import AllsourceError, OutcomeUnknown, Rejected, WrongExpectedVersion


def family(cls: type[AllsourceError]) -> list[type[AllsourceError]]:
    """The members that travel; a room's own errors, which never do, derive from them elsewhere."""
    found = [cls, *(member for sub in cls.__subclasses__() for member in family(sub))]
    return [member for member in found if member.__module__ == errors.__name__]


FAMILY = family(AllsourceError)


def test_codes_are_unique() -> None:
    codes = [cls.code for cls in FAMILY]
    assert len(set(codes)) == len(codes)


@pytest.mark.parametrize("cls", FAMILY, ids=lambda cls: cls.__name__)
def test_each_is_drawn_in_the_modules_page(cls: type[AllsourceError]) -> None:
    assert cls.__name__ in (errors.__doc__ or "")


@pytest.mark.parametrize("cls", FAMILY, ids=lambda cls: cls.__name__)
def test_only_rejections_are_definite(cls: type[AllsourceError]) -> None:
    assert cls.definite is issubclass(cls, Rejected)


@pytest.mark.parametrize("cls", FAMILY, ids=lambda cls: cls.__name__)
def test_the_wire_keeps_class_message_and_details(cls: type[AllsourceError]) -> None:
    if cls is WrongExpectedVersion:
        error: AllsourceError = WrongExpectedVersion("s", "no_stream", 3)
    else:
        error = cls("what happened; what to do", limit=5, owner=None)
    back = AllsourceError.from_wire(msgpack.unpackb(msgpack.packb(error.to_wire())))
    assert type(back) is cls
    assert (back.message, back.details, str(back)) == (error.message, error.details, error.message)


def test_a_conflict_says_what_was_expected_and_what_is() -> None:
    error = WrongExpectedVersion("order-1", 4, 7)
    assert "expected 4, got 7" in str(error)
    assert error.details == {"stream": "order-1", "expected": 4, "actual": 7}


@pytest.mark.parametrize(
    "value", [None, [], ["invalid"], ["invalid", "m", []], ["unheard_of", "m", {}], 7, {"code": "x"}]
)
def test_what_is_not_understood_is_an_unknown_outcome(value: object) -> None:
    assert isinstance(AllsourceError.from_wire(value), OutcomeUnknown)
