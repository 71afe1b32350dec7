"""Whether others on this machine can read what a configuration keeps secret: from the files' modes.

A warning, not a refusal: a group may be meant to read the file, and a refusal would come too late for a
secret that was read already. Secrets in the environment are not looked at.
"""

from __future__ import annotations

import os
import shlex
import stat
from collections.abc import Iterator
from pathlib import Path

from allsource.config.document import Fault, Keys, Text, read_document
from allsource.config.knobs import SECTIONS, knobs_of
from allsource.config.schema import Settings
from allsource.config.values import Secret

_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def is_open_to_others(path: Path) -> bool:
    """Whether the mode of a file or directory lets anybody but its owner in. False if it cannot be told."""
    try:
        return os.name == "posix" and bool(path.stat().st_mode & _OTHERS)
    except OSError:
        return False


def exposures(file: Path) -> list[str]:
    """A sentence for each secret-bearing file of the configuration, itself first, that others can read."""
    return [
        f"{path} holds {' and '.join(keys)}, and its mode {stat.S_IMODE(path.stat().st_mode):04o} lets"
        f" other users of this machine read it; run: chmod 600 {shlex.quote(str(path))}"
        for path, keys in _secrets_by_file(file).items()
        if is_open_to_others(path)
    ]


def _secrets_by_file(file: Path) -> dict[Path, list[str]]:
    faults: list[Fault] = []  # the loader's to tell
    top = read_document(file, faults)
    found: dict[Path, list[str]] = {}
    for key, path in _secrets_of(top, file) if top is not None else ():
        found.setdefault(path, []).append(key)
    return found


def _secrets_of(top: Keys, file: Path) -> Iterator[tuple[str, Path]]:
    """The key of each secret, and the file that it is written in."""
    yield from _secrets_in(top, Settings, "", file)
    for section, cls in SECTIONS.items():
        if isinstance(keys := top.values.get(section), Keys):
            yield from _secrets_in(keys, cls, f"{section}.", file)


def _secrets_in(keys: Keys, cls: type, prefix: str, file: Path) -> Iterator[tuple[str, Path]]:
    for key, knob in knobs_of(cls).items():
        if not isinstance(knob.kind, Secret):
            continue
        match keys.values.get(key):
            case Text(_, str() as text) if knob.kind.is_confidential(text):
                yield prefix + key, file
            case Keys(values={"file": Text(_, str() as name)}):
                yield prefix + key, Path(os.path.abspath(file)).parent / Path(name).expanduser()
            case _:
                pass
