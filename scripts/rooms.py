"""The import graph of the house: sub-rooms, arrows between them, arrows back, circles.

    python scripts/rooms.py            figures of each room and folder
    python scripts/rooms.py --arrows   every arrow too

A sub-room is a file or a folder directly inside a room; its page (`__init__.py`) is the room itself and
not counted. An arrow says that something in one sub-room imports something in another, for types only or
inside a function included. Needs nothing but Python.
"""

from __future__ import annotations

import argparse
import ast
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("client", "cluster", "config", "node", "storage")


class Module(NamedTuple):
    """A Python file of the product and its import name."""

    name: str
    path: Path
    is_package: bool


class Import(NamedTuple):
    """One imported name, where it stands, and whether it is there when the module is loaded."""

    target: str
    where: str
    at_load: bool


@cache
def modules() -> tuple[Module, ...]:
    """Every module of the five rooms."""
    found = []
    for room in ROOMS:
        for path in sorted((ROOT / room).rglob("*.py")):
            parts = list(path.relative_to(ROOT).with_suffix("").parts)
            is_package = parts[-1] == "__init__"
            name = ".".join(["allsource", *(parts[:-1] if is_package else parts)])
            found.append(Module(name, path, is_package))
    return tuple(found)


@cache
def names() -> frozenset[str]:
    """The import names of all modules."""
    return frozenset(module.name for module in modules())


@cache
def imports_of(module: Module) -> tuple[Import, ...]:
    """What the module imports anywhere in it, type checking and function bodies included.

    `from a import b` counts as `a.b` if that is a module of ours, else as `a`.
    """
    tree = ast.parse(module.path.read_text())
    return tuple(sorted(set(_imports(tree, module, at_load=True))))


def _imports(tree: ast.AST, module: Module, *, at_load: bool) -> Iterator[Import]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, where_of(module.path, node), at_load)
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(node, module)
            for alias in node.names:
                full = f"{base}.{alias.name}"
                yield Import(full if full in names() else base, where_of(module.path, node), at_load)
        else:
            inner = at_load and not (_is_lazy(node) or _is_for_types(node))
            yield from _imports(node, module, at_load=inner)


def _is_lazy(node: ast.AST) -> bool:
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)


def _is_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")


def _absolute(node: ast.ImportFrom, module: Module) -> str:
    if node.level == 0:
        return node.module or ""
    package = module.name.split(".")
    package = package[: len(package) - node.level + module.is_package]
    return ".".join([*package, *([node.module] if node.module else [])])


def where_of(path: Path, node: ast.stmt | ast.expr) -> str:
    """`file:line`, from the top."""
    return f"{path.relative_to(ROOT)}:{node.lineno}"


def folders() -> list[str]:
    """The import names of all rooms and folders, outermost first."""
    return sorted(module.name for module in modules() if module.is_package)


def sub_rooms(folder: str) -> set[str]:
    """What lies directly inside a folder, by the last part of its name."""
    prefix = folder + "."
    return {name[len(prefix) :].partition(".")[0] for name in names() if name.startswith(prefix)}


def arrows(folder: str) -> set[tuple[str, str]]:
    """`(from, to)`, sub-rooms of one folder."""
    prefix = folder + "."
    found = set()
    for module in modules():
        if module.name.startswith(prefix):
            here = module.name[len(prefix) :].partition(".")[0]
            for target, _, _ in imports_of(module):
                there = target[len(prefix) :].partition(".")[0] if target.startswith(prefix) else here
                if there != here:
                    found.add((here, there))
    return found


def circles(folder: str) -> list[set[str]]:
    """Groups of sub-rooms that reach each other."""
    edges: dict[str, set[str]] = {}
    for here, there in arrows(folder):
        edges.setdefault(here, set()).add(there)
    reach = {room: _reachable(room, edges) for room in edges}
    found: list[set[str]] = []
    for room in sorted(reach):
        circle = {other for other in reach[room] if room in reach.get(other, set())}
        if circle and circle not in found:
            found.append(circle)
    return found


def _reachable(start: str, edges: dict[str, set[str]]) -> set[str]:
    found: set[str] = set()
    todo = [start]
    while todo:
        for there in edges.get(todo.pop(), ()):
            if there not in found:
                found.add(there)
                todo.append(there)
    return found


def loaded_by(name: str) -> set[str]:
    """Every module of ours that importing `name` loads, the pages of their folders included."""
    by_name = {module.name: module for module in modules()}
    found: set[str] = set()
    todo = [name]
    while todo:
        parts = todo.pop().split(".")
        for end in range(2, len(parts) + 1):
            one = ".".join(parts[:end])
            if one in by_name and one not in found:
                found.add(one)
                todo += [target for target, _, at_load in imports_of(by_name[one]) if at_load]
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--arrows", action="store_true", help="print every arrow")
    options = parser.parse_args()
    print(f"{'folder':<32} sub-rooms  arrows  circles")
    bad = 0
    for folder in ["allsource", *folders()]:
        rooms, found, rings = sub_rooms(folder), arrows(folder), circles(folder)
        if len(rooms) < 2:
            continue
        bad += len(rings)
        shown = "; ".join(" ".join(sorted(ring)) for ring in rings) or "-"
        print(f"{folder:<32} {len(rooms):>9} {len(found):>7}  {shown}")
        if options.arrows:
            for here, there in sorted(found):
                print(f"    {here} -> {there}")
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
