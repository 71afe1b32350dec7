"""How people write values, and what they must not."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from allsource.config.values import (
    GIB,
    MIB,
    Choice,
    Count,
    Directory,
    Dsn,
    Duration,
    Host,
    Kind,
    Name,
    Secret,
    Size,
    Uuid,
    dsn_host,
    is_loopback,
    written_duration,
    written_size,
)

SIZE = Size(0, 1 << 50)
DURATION = Duration(0, 1 << 50)
DSN = Dsn(8, 200)


@pytest.mark.parametrize(
    ("text", "bytes_"),
    [
        ("0", 0),
        ("512", 512),
        ("1_000_000", 1_000_000),
        ("512B", 512),
        ("64KB", 64_000),
        ("64kB", 64_000),
        ("64KiB", 65_536),
        ("64 KiB", 65_536),
        ("16MiB", 16 * MIB),
        ("16MB", 16_000_000),
        ("1.5GiB", GIB + GIB // 2),
        ("2GB", 2_000_000_000),
        ("1TiB", 1024 * GIB),
        ("1TB", 1000**4),
    ],
)
def test_sizes(text: str, bytes_: int) -> None:
    assert SIZE.parse(text) == bytes_


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [("100", 100), ("100ms", 100), ("2s", 2000), ("0.1s", 100), ("1.5 s", 1500), ("2m", 120_000)],
)
def test_durations(text: str, milliseconds: int) -> None:
    assert DURATION.parse(text) == milliseconds


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (SIZE, "16mib"),
        (SIZE, "16Mb"),
        (SIZE, "16 M"),
        (SIZE, "1.5"),
        (SIZE, "0.3B"),
        (SIZE, "-1"),
        (SIZE, "010"),
        (SIZE, "1e3"),
        (SIZE, "0x10"),
        (SIZE, ""),
        (SIZE, "MiB"),
        (SIZE, "\u0661MiB"),
        (SIZE, "1__0MiB_"),
        (SIZE, "2s"),
        (Size(10, 20), "9"),
        (Size(10, 20), "21"),
        (SIZE, "9" * 5000),
        (DURATION, "1.5ms"),
        (DURATION, "1us"),
        (DURATION, "1h"),
        (DURATION, "16MiB"),
        (Duration(10, 20), "1s"),
        (Count(0, 100), "1.0"),
        (Count(0, 100), "+1"),
        (Count(0, 100), "05"),
        (Count(0, 100), "101"),
        (Count(0, 100), "1:30"),
        (Count(0, 100), "five"),
        (Count(0, 1 << 62), "9" * 5000),
        (Choice(("fsync", "os")), "Fsync"),
        (Choice(("fsync", "os")), ""),
        (Name(), ""),
        (Name(), "-n1"),
        (Name(), ".."),
        (Name(), "a/b"),
        (Name(), "a b"),
        (Name(), "ü"),
        (Name(), "n" * 65),
        (Uuid(), "n1"),
        (Host(), ""),
        (Host(), "a b"),
        (Host(), "http://a"),
        (Host(), "999.1.1.1"),
        (Host(), "1234:5"),
        (Host(), "a..b"),
        (Host(), "-a"),
        (Host(), "a" * 64),
        (Host(), "a." * 127 + "bc"),
        (DSN, "nonsense://db/x"),
        (DSN, "postgresql:db"),
        (DSN, "postgresql://db:port/x"),
        (DSN, "postgresql://db:99999/x"),
        (DSN, "postgresql://me:pass#word@db/x"),
        (DSN, "postgresql://me:pass word@db/x"),
        (DSN, "postgresql://db/x?schema"),
        (DSN, "host=db dbname=x"),
        (Directory(), ""),
        (Directory(), "a\0b"),
        (Directory(), "~no-such-user-anywhere/data"),
        (Secret(8, 10), "1234567"),
        (Secret(8, 10), "12345678901"),
    ],
)
def test_refused(kind: Kind, text: str) -> None:
    with pytest.raises(ValueError):
        kind.parse(text)


@given(st.integers(0, 1 << 50))
def test_what_is_shown_is_what_is_read(value: int) -> None:
    for kind in (SIZE, DURATION, Count(0, 1 << 50)):
        assert kind.parse(kind.show(value)) == value


@given(st.text(max_size=40))
def test_any_text_is_a_value_or_a_value_error(text: str) -> None:
    kinds: tuple[Kind, ...]
    kinds = (
        SIZE,
        DURATION,
        Count(0, 9),
        Choice(("a", "b")),
        Name(),
        Uuid(),
        Host(),
        Directory(),
        Secret(1, 9),
        DSN,
    )
    for kind in kinds:
        try:
            value = kind.parse(text)
        except ValueError:
            continue
        assert kind.parse(kind.show(value)) == value or isinstance(kind, Secret)


def test_values_are_shown_in_their_largest_whole_unit() -> None:
    assert [written_size(n) for n in (0, 1000, 1024, 1536, 16 * MIB, GIB)] == [
        "0B",
        "1000B",
        "1KiB",
        "1536B",
        "16MiB",
        "1GiB",
    ]
    assert [written_duration(n) for n in (0, 100, 1000, 1500)] == ["0ms", "100ms", "1s", "1500ms"]


def test_names_that_are_fine() -> None:
    for name in ("n1", "N1", "1", "eu-west_1.a", "n" * 64):
        assert Name().parse(name) == name
    for host in ("127.0.0.1", "::1", "db-1.example.org", "localhost", "fe80::1"):
        assert Host().parse(host) == host


def test_a_uuid_is_kept_in_its_usual_form() -> None:
    assert Uuid().parse("6B3F0F6E3C0E5D0A9A530D2F6D1F2F11") == "6b3f0f6e-3c0e-5d0a-9a53-0d2f6d1f2f11"


def test_the_home_directory_is_meant_by_a_tilde(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Directory().parse("~/data") == tmp_path / "data"


def test_a_shown_secret_is_too_short_to_be_one() -> None:
    secret = Secret(8, 100)
    with pytest.raises(ValueError):
        secret.parse(secret.show("correct horse"))
    assert secret.show("") == ""


@pytest.mark.parametrize(
    ("dsn", "host"),
    [
        ("postgresql://me:p%40ss@db.example.org:5433/x?schema=s&sslmode=require", "db.example.org"),
        ("postgres://db/x", "db"),
        ("postgresql://[::1]:5432/x", "::1"),
        ("postgresql:///x", ""),
        ("postgresql:///x?host=/var/run/postgresql", "/var/run/postgresql"),
        ("postgresql://a:1,b:2/x", "a"),
    ],
)
def test_where_a_dsn_leads(dsn: str, host: str) -> None:
    assert DSN.parse(dsn) == dsn
    assert dsn_host(dsn) == host


def test_what_a_reader_of_a_value_learns() -> None:
    assert Secret(8, 100).is_confidential("correct horse")
    assert not Secret(8, 100).is_confidential("change-me-three-nodes")
    assert DSN.is_confidential("postgresql://me:hunter2@db/x")
    assert DSN.is_confidential("postgresql://db/x?password=hunter2")
    assert not DSN.is_confidential("postgresql://me@db/x")


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.8.9.1", True),
        ("::1", True),
        ("LocalHost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.1", False),
        ("localhost.example.org", False),
    ],
)
def test_which_addresses_only_this_machine_reaches(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected
