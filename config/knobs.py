"""The schema as a list: each knob's key in the YAML, its field, its kind and its default.

Derived from `schema`'s dataclasses, so that the loader, `describe` and the test of README.md's table
cannot disagree with them, nor with each other.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import MISSING, dataclass, fields
from functools import cache
from typing import Any, get_type_hints

from allsource.config.schema import HttpSettings, Limits, LogSettings, Settings, StorageSettings
from allsource.config.values import Duration, Kind

SECTIONS: dict[str, type] = {
    "limits": Limits,
    "storage": StorageSettings,
    "http": HttpSettings,
    "log": LogSettings,
}
"""The keys of the file that hold further keys, and what they become."""

NODES = "nodes"
"""The key that holds a list of nodes."""


@dataclass(frozen=True)
class Knob:
    """One scalar setting. `default` is None if the file must give a value, or if it is computed."""

    key: str
    field: str
    kind: Kind
    default: Any


@cache
def knobs_of(cls: type) -> dict[str, Knob]:
    """The scalar knobs of a schema class by their keys, in the order of the class."""
    hints = get_type_hints(cls, include_extras=True)
    found = {}
    for field in fields(cls):
        for kind in getattr(hints[field.name], "__metadata__", ()):
            key = field.name.removesuffix("_ms") if isinstance(kind, Duration) else field.name
            default = None if field.default is MISSING else field.default
            found[key] = Knob(key, field.name, kind, default)
    return found


def all_knobs() -> Iterator[tuple[str, Knob]]:
    """Every knob of a file with its dotted key (`limits.event_bytes_max`), without those of nodes."""
    for key, knob in knobs_of(Settings).items():
        yield key, knob
    for section, cls in SECTIONS.items():
        for key, knob in knobs_of(cls).items():
            yield f"{section}.{key}", knob


def keys_of(cls: type) -> list[str]:
    """The keys that a mapping of the file may have, which becomes a `cls`."""
    extra = [*SECTIONS, NODES] if cls is Settings else []
    return [*knobs_of(cls), *extra]
