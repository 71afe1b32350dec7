"""How people write a value, and what each kind of value may be.

A knob's type in `schema` carries one of these kinds (`Annotated[int, Size(...)]`), and everything
that must agree is derived from it: what the loader accepts, what its fault says is allowed, how
`describe` prints the value, and the table in README.md.

`parse` takes the text of a YAML scalar, of an environment variable or of a `--set` alike. It raises
`ValueError`; its text is not shown. What people are told is `allowed`, always the same sentence.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import parse_qs, urlsplit
from uuid import UUID

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB
TIB = 1024 * GIB

_SIZES = {
    "B": 1,
    "KB": 1000,
    "kB": 1000,
    "KiB": KIB,
    "MB": 1000**2,
    "MiB": MIB,
    "GB": 1000**3,
    "GiB": GIB,
    "TB": 1000**4,
    "TiB": TIB,
}
_DURATIONS = {"ms": 1, "s": 1000, "m": 60_000}

_AMOUNT = re.compile(r"(0|[1-9][0-9_]*)(\.[0-9]+)? ?([A-Za-z]*)", re.ASCII)
_INTEGER = re.compile(r"0|[1-9][0-9_]*", re.ASCII)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", re.ASCII)
_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_HOST_PATTERN = re.compile(r"\*|(\*\.)?[A-Za-z0-9._-]{1,253}", re.ASCII)
_HOST = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(?:\.{_LABEL})*\.?", re.ASCII)
"""RFC 1123, and the underscores that private networks use."""
_ALL_DIGITS = re.compile(r"[0-9.]+", re.ASCII)

EXAMPLE_SECRET = "change-me"
"""How the secrets of the examples begin. Everybody knows them, so they keep nothing secret."""


class Kind(Protocol):
    """What a knob's value may be, and how it is written."""

    @property
    def allowed(self) -> str:
        """What may be written, as the end of the sentence "allowed: ..."."""
        ...

    def parse(self, text: str) -> Any:
        """The value that the text stands for, or `ValueError`."""
        ...

    def show(self, value: Any) -> str:
        """The text that a person would write for the value."""
        ...


@dataclass(frozen=True)
class Size:
    """A number of bytes: `16MiB`, `64KB`, `1.5GiB`, or a plain number of bytes."""

    least: int
    most: int

    @property
    def allowed(self) -> str:
        return f"a size such as 512B, 64KB or 16MiB, from {self.show(self.least)} to {self.show(self.most)}"

    def parse(self, text: str) -> int:
        return _within(self, _amount(text, _SIZES))

    def show(self, value: int) -> str:
        return written_size(value)


@dataclass(frozen=True)
class Duration:
    """A time in whole milliseconds: `100ms`, `1.5s`, `2m`, or a plain number of milliseconds."""

    least: int
    most: int

    @property
    def allowed(self) -> str:
        return f"a duration such as 100ms or 2s, from {self.show(self.least)} to {self.show(self.most)}"

    def parse(self, text: str) -> int:
        return _within(self, _amount(text, _DURATIONS))

    def show(self, value: int) -> str:
        return written_duration(value)


@dataclass(frozen=True)
class Count:
    """A whole number without a unit."""

    least: int
    most: int

    @property
    def allowed(self) -> str:
        return f"a whole number from {self.least} to {self.most}"

    def parse(self, text: str) -> int:
        if not _INTEGER.fullmatch(text):
            raise ValueError(text)
        return _within(self, int(text))

    def show(self, value: int) -> str:
        return str(value)


@dataclass(frozen=True)
class Choice:
    """One of a few words."""

    words: tuple[str, ...]

    @property
    def allowed(self) -> str:
        return f"{', '.join(self.words[:-1])} or {self.words[-1]}"

    def parse(self, text: str) -> str:
        if text not in self.words:
            raise ValueError(text)
        return text

    def show(self, value: str) -> str:
        return value


@dataclass(frozen=True)
class Name:
    """A name that is also safe as a folder and in a log line."""

    allowed = "1 to 64 letters, digits, '-', '_' or '.', beginning with a letter or digit"

    def parse(self, text: str) -> str:
        if not _NAME.fullmatch(text):
            raise ValueError(text)
        return text

    def show(self, value: str) -> str:
        return value


@dataclass(frozen=True)
class Uuid:
    """A UUID, kept in its usual form."""

    allowed = "a UUID such as 6b3f0f6e-3c0e-5d0a-9a53-0d2f6d1f2f11"

    def parse(self, text: str) -> str:
        return str(UUID(text))

    def show(self, value: str) -> str:
        return value


@dataclass(frozen=True)
class Host:
    """A host name or an IP address."""

    allowed = "a host name or an IP address"

    def parse(self, text: str) -> str:
        if ":" in text or _ALL_DIGITS.fullmatch(text):
            ipaddress.ip_address(text)  # raises ValueError
        elif not _HOST.fullmatch(text):
            raise ValueError(text)
        return text

    def show(self, value: str) -> str:
        return value


@dataclass(frozen=True)
class HostNames:
    """Any number of host names. `*.name` stands for all below a name, `*` for all."""

    allowed = "host names with commas between them, perhaps `*.NAME` or `*`"

    def parse(self, text: str) -> tuple[str, ...]:
        names = tuple(name.strip() for name in text.split(",")) if text.strip() else ()
        if not all(_HOST_PATTERN.fullmatch(name) for name in names):
            raise ValueError(text)
        return names

    def show(self, value: tuple[str, ...]) -> str:
        return ", ".join(value)


@dataclass(frozen=True)
class Directory:
    """A path; `~` is one's home. The loader decides where a relative one starts."""

    allowed = "a path"

    def parse(self, text: str) -> Path:
        if not text or "\0" in text:
            raise ValueError(text)
        try:
            return Path(text).expanduser()
        except RuntimeError as error:  # `~nobody`: there is no such home
            raise ValueError(text) from error

    def show(self, value: Path) -> str:
        return str(value)


@dataclass(frozen=True)
class Secret:
    """Text that is never printed. It may be kept elsewhere: `{env: NAME}` or `{file: PATH}`."""

    least: int
    most: int

    @property
    def allowed(self) -> str:
        return f"{self.least} to {self.most} characters, or {{env: NAME}}, or {{file: PATH}}"

    def parse(self, text: str) -> str:
        if not self.least <= len(text) <= self.most:
            raise ValueError("wrong length")
        return text

    def show(self, value: str) -> str:
        return "***" if value else ""

    def is_confidential(self, value: str) -> bool:
        """Whether somebody who reads the value learns anything."""
        return bool(value) and not value.startswith(EXAMPLE_SECRET)


@dataclass(frozen=True)
class Dsn(Secret):
    """Where a PostgreSQL server is, as a URL in libpq's form. It may hold a password."""

    @property
    def allowed(self) -> str:
        return (
            "postgresql://user:password@host/database (special characters of a password as %40 and the"
            f" like), up to {self.most} characters, or {{env: NAME}}, or {{file: PATH}}"
        )

    def parse(self, text: str) -> str:
        parts = urlsplit(super().parse(text))
        if parts.scheme not in ("postgresql", "postgres") or not text.startswith(f"{parts.scheme}://"):
            raise ValueError("another scheme")
        if parts.fragment or any(ord(character) <= 0x20 for character in text):
            raise ValueError("characters that would have to be escaped")  # the rest would be cut off unseen
        if "," not in parts.netloc:  # several hosts, each with its port, are for the driver to read
            _ = parts.port  # raises ValueError
        parse_qs(parts.query, strict_parsing=bool(parts.query))
        return text

    def is_confidential(self, value: str) -> bool:
        parts = urlsplit(value)
        return parts.password is not None or "password" in parse_qs(parts.query)


def dsn_host(dsn: str) -> str:
    """The host that a `Dsn` names; empty for the local server's socket."""
    parts = urlsplit(dsn)
    return parts.hostname or parse_qs(parts.query).get("host", [""])[0]


def is_loopback(host: str) -> bool:
    """Whether a `Host` can be reached from its own machine alone. False for any name but localhost."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower().removesuffix(".") == "localhost"


def written_size(value: int) -> str:
    """`16MiB` for 16777216: the largest unit that divides the number of bytes."""
    for unit, factor in (("TiB", TIB), ("GiB", GIB), ("MiB", MIB), ("KiB", KIB)):
        if value >= factor and value % factor == 0:
            return f"{value // factor}{unit}"
    return f"{value}B"


def written_duration(value: int) -> str:
    """`2s` for 2000 milliseconds, `100ms` for 100."""
    return f"{value // 1000}s" if value >= 1000 and value % 1000 == 0 else f"{value}ms"


def _amount(text: str, units: dict[str, int]) -> int:
    """`1.5MiB` and the like as a whole number of the smallest unit, in which a plain number is already."""
    match = _AMOUNT.fullmatch(text)
    if match is None:
        raise ValueError(text)
    whole, fraction, unit = match.groups()
    if unit not in units and (unit or fraction):
        raise ValueError(text)
    # Decimal: 0.1s is 100 ms exactly, and a fraction that is not a whole number of them is a mistake.
    exact = Decimal(whole + (fraction or "")) * units.get(unit, 1)
    if exact != exact.to_integral_value():
        raise ValueError(text)
    return int(exact)


def _within(kind: Size | Duration | Count, value: int) -> int:
    if not kind.least <= value <= kind.most:
        raise ValueError(str(value))
    return value
