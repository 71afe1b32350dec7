"""Stream ids and the one hash of the product."""

from __future__ import annotations

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from allsource.storage.model.errors import InvalidRequest
from allsource.storage.model.partition import (
    EntityId,
    PartitionKey,
    check_name,
    check_own_stream,
    check_stream_id,
    check_tag,
    hash_tag,
    partition_of,
    partition_of_tag,
    tag_of,
)

good_ids = st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=1, max_size=40).filter(
    lambda s: not s[0].isspace() and not s[-1].isspace() and len(s.encode()) <= 128
)


@pytest.mark.parametrize(
    ("text", "crc"),
    # The check value of CRC-32/ISO-HDLC (RFC 1952's), and others that any implementation gives.
    [("123456789", 0xCBF43926), ("a", 0xE8B7BE43), ("ab", 0x9E83486D)],
)  # fmt: skip
def test_the_hash_is_the_known_crc_32(text: str, crc: int) -> None:
    assert zlib.crc32(text.encode()) == crc
    assert partition_of(text) == crc % 32
    assert partition_of(text, 1024) == crc % 1024


@pytest.mark.parametrize(
    ("stream", "partition"),
    [("order-1", 15), ("order-2", 21), ("user:42", 6), ("žluťoučký", 5), ("{x}", 3), ("x", 3)],
)
def test_partitions_never_change(stream: str, partition: int) -> None:
    """Written down once, computed with zlib: stored events depend on every one of these."""
    assert partition_of(stream) == partition


@pytest.mark.parametrize(
    ("stream", "tag"),
    [
        ("{user1000}.following", "user1000"),
        ("{user1000}.followers", "user1000"),
        ("foo{}{bar}", "foo{}{bar}"),
        ("foo{{bar}}zap", "{bar"),
        ("foo{bar}{zap}", "bar"),
        ("foo{bar", "foo{bar"),
        ("foo}bar{", "foo}bar{"),
        ("}{a}", "a"),
        ("plain", "plain"),
    ],
)
def test_hash_tags_are_those_of_redis_cluster(stream: str, tag: str) -> None:
    assert hash_tag(stream) == tag
    assert partition_of(stream) == zlib.crc32(tag.encode()) % 32


@given(good_ids, st.integers(1, 1024))
def test_partitions_are_in_range_and_follow_the_tag(stream: str, count: int) -> None:
    partition = partition_of(stream, count)
    assert 0 <= partition < count
    assert partition == partition_of(hash_tag(stream), count) or "{" in hash_tag(stream)


@pytest.mark.parametrize(
    ("stream", "tag"),
    [
        ("{user1000}.following", "user1000"),
        ("order-{7}", "7"),
        ("foo{}{bar}", ""),
        ("foo{{bar}}zap", "{bar"),
        ("foo{bar}{zap}", "bar"),
        ("foo{bar", ""),
        ("foo}bar{", ""),
        ("}{a}", "a"),
        ("a{ b }", " b "),
        ("plain", ""),
        ("{a}", "a"),
        ("$own{a}", ""),
        ("${a}", ""),
        ("own${a}", "a"),
        ("{$}", "$"),
    ],
)
def test_the_tag_that_numbers_a_streams_events(stream: str, tag: str) -> None:
    assert tag_of(stream) == tag
    if tag:
        check_tag(tag)
        assert partition_of_tag(tag) == partition_of(stream)


@given(good_ids | good_ids.map(lambda name: f"a{{{name}}}"), st.integers(1, 1024))
def test_what_a_stream_is_tagged_with_can_be_asked_for(stream: str, count: int) -> None:
    if len(stream.encode()) <= 128 and (tag := tag_of(stream)):
        check_tag(tag)
        assert partition_of_tag(tag, count) == partition_of(stream, count)


@given(st.text(max_size=140))
def test_what_can_be_asked_for_is_the_tag_of_a_stream(tag: str) -> None:
    try:
        check_tag(tag)
    except InvalidRequest:
        return
    check_stream_id(f"{{{tag}}}")
    assert tag_of(f"{{{tag}}}") == tag


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("", "not empty, without braces"),
        ("{order-7}", "without braces"),
        ("a}", "without braces"),
        (7, "a tag is a string"),
        (None, "a tag is a string"),
        (b"a", "a tag is a string"),
        ("a\0", "control"),
        ("a\ud800", "surrogate"),
        ("a" * 127, "128 bytes"),
        ("é" * 64, "128 bytes"),
    ],
)
def test_bad_tags_are_refused_with_the_rule(value: object, says: str) -> None:
    with pytest.raises(InvalidRequest, match=says):
        check_tag(value)


def test_the_longest_tag_and_one_that_ends_in_white_space() -> None:
    for tag in ("a" * 126, "é" * 63, " a ", "{"):
        check_tag(tag)


@pytest.mark.parametrize("stream", ["$", "$a", "${t}", "$$"])
def test_the_stores_own_streams(stream: str) -> None:
    check_stream_id(stream)
    with pytest.raises(
        InvalidRequest, match=r"names that begin with \$ are the store's own; choose another"
    ):
        check_own_stream(stream)


@pytest.mark.parametrize("stream", ["a$", "-$", "{$}"])
def test_streams_of_users(stream: str) -> None:
    check_own_stream(stream)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("", "a mark must not be empty"),
        (5, "a mark is a string, not int"),
        ("x" * 129, "a mark has at most 128 bytes of UTF-8"),
        ("é" * 65, "a mark has at most 128 bytes of UTF-8"),
        ("a\nb", "a mark must not hold control characters"),
        ("a ", "mark 'a ' must not begin or end with white space"),
        ("a\ud800b", "a mark must be valid Unicode"),
    ],
)
def test_a_name_is_refused_as_what_it_names(value: object, says: str) -> None:
    with pytest.raises(InvalidRequest, match=f"^{says}"):
        check_name(value, "a mark")


@given(good_ids)
def test_good_ids_are_taken_as_they_are(stream: str) -> None:
    entity = EntityId(stream)
    assert entity == stream
    assert EntityId(entity) is entity
    assert PartitionKey.from_entity_id(entity).partition_id == partition_of(stream)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("", "not be empty"),
        (" a", "white space"),
        ("a ", "white space"),
        ("a\u2003", "white space"),
        ("a\x00b", "control"),
        ("a\nb", "control"),
        ("a\x7f", "control"),
        ("a\x85b", "control"),
        ("a\ud800b", "surrogate"),
        ("a" * 129, "128 bytes"),
        ("é" * 65, "128 bytes"),
        (7, "string"),
        (None, "string"),
        (b"a", "string"),
    ],
)
def test_bad_ids_are_refused_with_the_rule(value: object, says: str) -> None:
    with pytest.raises(InvalidRequest, match=says):
        check_stream_id(value)
    with pytest.raises(InvalidRequest):
        EntityId(value)  # type: ignore[arg-type]


@pytest.mark.parametrize("value", ["a" * 128, "é" * 64, "a b", "\U0001f30d", "a:b/c{d}", "-"])
def test_ids_at_the_limit_are_taken(value: str) -> None:
    assert EntityId(value) == value


def test_a_partition_key_prints_and_checks_itself() -> None:
    assert str(PartitionKey(5)) == "partition-5/32"
    assert PartitionKey.from_partition_id(0, 1) == PartitionKey(0, 1)
    for wrong in (-1, 32):
        with pytest.raises(InvalidRequest, match=f"partition {wrong} is out of range: 0 to 31"):
            PartitionKey.from_partition_id(wrong)
    with pytest.raises(InvalidRequest):
        PartitionKey.from_entity_id(" bad")
