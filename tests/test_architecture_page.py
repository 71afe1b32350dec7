"""The map in `ARCHITECTURE.md` names every folder of the house, says which are pure, and names no other."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator

from scripts.rooms import ROOMS, ROOT, folders
from tests.examples import fenced
from tests.test_architecture import PURE

MAP = fenced((ROOT / "ARCHITECTURE.md").read_text(), "")[0]
_NAME = re.compile(r"(?<![\w/])([a-z]+)/")


def drawn() -> Iterator[tuple[str, list[str]]]:
    """Each room of the map with its lines."""
    for block in re.split(r"^(?=\w)", MAP, flags=re.MULTILINE):
        if block:
            room, _, rest = block.partition("/")
            yield room, rest.splitlines()


def test_the_map_names_every_folder_and_no_other() -> None:
    told = {room: set(_NAME.findall("\n".join(lines))) for room, lines in drawn()}
    there: dict[str, set[str]] = {room: set() for room in ROOMS}
    for name in folders():
        room, _, path = name.removeprefix("allsource.").partition(".")
        there[room] |= {path.rpartition(".")[2]} - {""}
    assert {room: told[room] for room in ROOMS} == there


def test_the_map_names_every_room_and_no_other() -> None:
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    rooms = {name.partition("/")[0] for name in files.splitlines() if "/" in name}
    assert {room for room, _ in drawn()} == {room for room in rooms if not room.startswith(".")}


def test_the_map_says_which_folders_are_pure() -> None:
    pure = {name.rpartition(".")[2] for name in PURE if name in folders()}
    told = {
        name
        for room, lines in drawn()
        for line in lines
        if room in ROOMS and line.endswith("pure")
        for name in _NAME.findall(line)
    }
    assert told == pure
