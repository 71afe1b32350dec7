"""Data at the place where a relative `data_dir` was once looked for: below the current directory.

A relative `data_dir` starts from the folder of the configuration file. It used to start from the process's
current directory, and people still expect it there. A node that finds nothing at the one place while its
events lie at the other must not begin an empty store: it says where they are and how to move them.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import click

from allsource.config.schema import Settings
from allsource.storage.files.format import read_format
from allsource.storage.model.errors import StorageFault


class Misplaced(NamedTuple):
    """A node's events at `found`, where `data_dir` has none."""

    node_id: str
    found: Path
    data_dir: Path


class DataElsewhere(click.ClickException):
    """The message says what was found where, and the commands that put it right."""

    exit_code = 73  # EX_CANTCREAT, as of every data directory that cannot be used as it is

    def __init__(self, misplaced: Sequence[Misplaced]) -> None:
        moves = "".join(f"\n  {_move(one)}" for one in misplaced)
        ids = ", ".join(one.node_id for one in misplaced)
        super().__init__(
            f"no data of {ids} in {misplaced[0].data_dir.parent}, where the configuration file says that it"
            " is, but there is some below the current directory. A relative data_dir starts from the file's"
            f" folder. Move the data there:{moves}\nor, to begin empty, start from another directory"
        )


def refuse_to_begin_empty(settings: Settings, file: Path, node_ids: Sequence[str]) -> None:
    """Raise `DataElsewhere` if one of these nodes would start empty while its events are below here."""
    if not settings.storage.traits.in_data_dir:
        return
    found = [one for node_id in node_ids if (one := misplaced(settings, file, node_id, Path.cwd()))]
    if found:
        raise DataElsewhere(found)


def misplaced(settings: Settings, file: Path, node_id: str, here: Path) -> Misplaced | None:
    """Whether a node's events are not in its `data_dir` but where that path would lead from `here`."""
    wanted = settings.node(node_id).data_dir
    candidate = Path(os.path.normpath(here / os.path.relpath(wanted, Path(os.path.abspath(file)).parent)))
    try:
        if candidate == wanted or read_format(wanted) is not None:
            return None
        theirs = read_format(candidate)
    except StorageFault:  # who opens it says what is wrong
        return None
    if theirs is None or (theirs.cluster_id, theirs.node_id) != (settings.cluster_id, node_id):
        return None
    return Misplaced(node_id, candidate, wanted)


def _move(one: Misplaced) -> str:
    parent, found, wanted = (
        shlex.quote(str(path)) for path in (one.data_dir.parent, one.found, one.data_dir)
    )
    room = f"rmdir {wanted}" if one.data_dir.exists() else f"mkdir -p {parent}"
    return f"{room} && mv {found} {wanted}"
