"""JSON text that is only looked at: on one line, in ASCII, taken apart, and always the same JSON."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from allsource.storage.model.errors import InvalidRequest
from allsource.storage.model.json_text import check_json, in_ascii, is_json, members, one_line, parse_json
from tests.json_values import JSON_VALUES


@given(JSON_VALUES, st.sampled_from([None, 1, "\t"]), st.booleans())
def test_on_one_line_and_in_ascii_it_is_the_same(
    value: object, indent: int | str | None, ascii: bool
) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=ascii)
    if is_json(text.encode("utf-8", "replace")):
        assert "\n" not in one_line(text)
        assert in_ascii(text).isascii()
        assert json.loads(in_ascii(one_line(text))) == value


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            '{\n  "a b": 123456789012345678901234567890.1234,\r\n\t"c": [ ]}',
            '{"a b":123456789012345678901234567890.1234,"c":[]}',
        ),
        ('" \\" \\\\ "', '" \\" \\\\ "'),
        ('"\\ud800 "', '"\\ud800 "'),
    ],
)
def test_on_one_line(text: str, line: str) -> None:
    assert one_line(text) == line


@given(st.dictionaries(st.text(), JSON_VALUES), st.sampled_from([None, 2]))
def test_the_members_of_an_object_as_they_stand_there(value: dict[str, object], indent: int | None) -> None:
    found = members(json.dumps(value, indent=indent))
    assert {key: json.loads(text) for key, text in found.items()} == value
    assert members(' { "n" : 1.50 , "o" : {"n":[1 ]}} ') == {"n": "1.50", "o": '{"n":[1 ]}'}


@pytest.mark.parametrize(
    "raw",
    [
        *(b"1", b' {"a": "\\ud800"} ', '"é"'.encode(), b"1e999"),
        pytest.param(b"9" * 5000, id="long"),
        pytest.param(b"[" * 200 + b"]" * 200, id="deep"),
    ],
)
def test_what_is_json(raw: bytes) -> None:
    assert is_json(raw)


@pytest.mark.parametrize(
    "raw",
    [
        *(b"", b"x", b"1 2", b"NaN", b"-Infinity", b"\xff", b'"\xff"', b"\xef\xbb\xbf1", b"'a'", b'"\n"'),
        pytest.param(b"[" * 1_000_000, id="tower"),
    ],
)
def test_what_is_not_json(raw: bytes) -> None:
    assert not is_json(raw)


def test_a_key_twice_is_refused_where_values_are_made() -> None:
    check_json(b'{"a": 1, "a": 2}', "data")
    with pytest.raises(InvalidRequest, match=r"line 3 is not JSON: the key 'a'.* stands twice"):
        parse_json(b'{"a": 1, "a": 2}', "line 3")
