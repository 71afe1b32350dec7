"""The walls of the house: who may import whom, what a pure room may know, and what is shipped.

Each test collects all breaches before it fails, so that one run tells all of them.
"""

from __future__ import annotations

import ast
import importlib.metadata
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterable
from pathlib import Path

import pytest

from scripts.rooms import ROOMS, ROOT, imports_of, loaded_by, modules, names, where_of

PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())

MAY_IMPORT = {
    "allsource.config": ("allsource.config",),
    "allsource.storage": ("allsource.storage", "allsource.config.schema"),
    "allsource.cluster": ("allsource.cluster", "allsource.storage", "allsource.config.schema"),
    "allsource.node": ("allsource.node", "allsource.cluster", "allsource.storage", "allsource.config"),
    "allsource.node.cli": ("allsource",),
    "allsource.client": (
        "allsource.client",
        "allsource.cluster.protocol",
        "allsource.cluster.sockets",
        "allsource.storage.model",
    ),
}
"""Imports point down: node -> cluster -> storage -> config.schema. The command line is where both ends
meet. What the client may load, with all that stands behind its imports, is a wall of its own: see below."""

NODES_ONLY = ("allsource.cluster.protocol.message_codec", "allsource.cluster.protocol.node_session")
"""What only nodes speak; consensus stands behind it."""

NEEDED_BY_A_CLIENT = frozenset({"msgpack", "msgspec", "zstandard"})
"""Of the distributions that this one depends on."""

PURE = (
    "allsource.cluster.budgets",
    "allsource.cluster.consensus",
    "allsource.cluster.membership",
    "allsource.cluster.protocol",
    "allsource.config.backends",
    "allsource.config.schema",
    "allsource.node.http.patience",
    "allsource.storage.files.descriptors",
    "allsource.storage.interface",
    "allsource.storage.model",
    "allsource.storage.postgres.overlay",
    "allsource.storage.postgres.seen",
    "allsource.storage.rocksdb.keys",
)
"""What can be tested, and simulated, without a socket, a clock or a die."""

IMPURE = frozenset(
    {
        *("asyncio", "concurrent", "multiprocessing", "random", "secrets", "select", "selectors"),
        *("signal", "socket", "ssl", "subprocess", "threading", "time"),
        *("aiohttp", "asyncpg", "rocksdict", "structlog", "uvloop"),
    }
)

SEEDED = {"allsource.cluster.consensus": frozenset(("random",))}
"""Randomised timeouts come from a `random.Random(seed)` of its own; RULES.md rule 13."""


def within(name: str, rooms: tuple[str, ...] | str) -> bool:
    """Whether a module is one of `rooms` or inside one."""
    rooms = (rooms,) if isinstance(rooms, str) else rooms
    return any(name == room or name.startswith(room + ".") for room in rooms)


def is_ours(target: str) -> bool:
    return within(target, "allsource")


def test_the_rooms_are_found() -> None:
    assert len(modules()) > 30
    assert {"allsource.config.schema", "allsource.cluster.consensus.messages"} <= names()


def test_imports_point_down() -> None:
    breaches = []
    for module in modules():
        room = max((room for room in MAY_IMPORT if within(module.name, room)), key=len)
        for target, where, _ in imports_of(module):
            if is_ours(target) and not within(target, MAY_IMPORT[room]):
                breaches.append(f"{where}: {room} may not import {target}")
    assert not breaches, "\n".join(["", *breaches])


def behind_the_clients_wall(loaded: Iterable[str]) -> list[str]:
    """What of these modules a client may not load. The pages of the folders above it are only text."""
    pages = ("allsource", "allsource.cluster", "allsource.storage")
    return sorted(
        name
        for name in loaded
        if name not in pages
        and (not within(name, MAY_IMPORT["allsource.client"]) or within(name, NODES_ONLY))
    )


def test_nothing_of_a_node_is_behind_the_imports_of_the_client() -> None:
    """It is installed in other people's services: it takes only what it speaks."""
    client = [module for module in modules() if within(module.name, "allsource.client")]
    imported = {one.target for module in client for one in imports_of(module)}  # late ones too
    loaded = set().union(*map(loaded_by, imported))
    assert behind_the_clients_wall(loaded) == []
    # The judge would notice: a node's transport, and the peers' part of the protocol, load consensus.
    assert "allsource.cluster.consensus.messages" in behind_the_clients_wall(loaded_by(NODES_ONLY[1]))


def test_importing_the_client_loads_little() -> None:
    """As a user sees it, in a process of its own: nothing of a node, and none of what only nodes need."""
    line = (
        "import sys; before = set(sys.modules); import allsource.client; print(*set(sys.modules) - before)"
    )
    run = subprocess.run([sys.executable, "-c", line], capture_output=True, text=True, check=True)
    loaded = run.stdout.split()
    assert "allsource.client.client" in loaded
    assert behind_the_clients_wall(name for name in loaded if is_ours(name)) == []
    foreign = {name.partition(".")[0] for name in loaded} & depended_on()
    assert foreign == NEEDED_BY_A_CLIENT


def depended_on() -> set[str]:
    """The import names of the distributions in pyproject.toml, optional ones included."""
    listed = [*PYPROJECT["project"]["dependencies"]]
    for extra in PYPROJECT["project"]["optional-dependencies"].values():
        listed += extra
    asked = {re.split(r"[^\w.-]", text, maxsplit=1)[0].lower() for text in listed}
    distributions = importlib.metadata.packages_distributions()
    found = {name for name, given in distributions.items() if asked & {one.lower() for one in given}}
    assert {"aiohttp", "rocksdict", "asyncpg"} <= found
    return found - {"allsource"}


def test_pure_rooms_do_no_io_and_read_no_clock() -> None:
    """And import nothing of ours that does: purity that leaks through a helper is none."""
    breaches = []
    for module in modules():
        if not within(module.name, PURE):
            continue
        allowed = next((SEEDED[room] for room in SEEDED if within(module.name, room)), frozenset())
        for target, where, _ in imports_of(module):
            top = target.partition(".")[0]
            if top in IMPURE - allowed:
                breaches.append(f"{where}: {module.name} is pure and may not import {target}")
            # A package's page may name what lives in it; the modules are what is imported.
            elif is_ours(target) and not within(target, (*PURE, "allsource.config.values")):
                breaches.append(f"{where}: {module.name} is pure, and {target} is not known to be")
    assert not breaches, "\n".join(["", *breaches])


def test_every_pure_room_exists() -> None:
    assert [name for name in PURE if name not in names()] == []


def test_seeded_randomness_is_never_the_shared_one() -> None:
    """`random.Random(seed)` and nothing else of the module: a replay must draw the same numbers."""
    breaches = []
    for module in modules():
        if within(module.name, tuple(SEEDED)):
            for node in ast.walk(ast.parse(module.path.read_text())):
                match node:
                    case ast.ImportFrom(module="random", names=imported):
                        breaches += [where_of(module.path, node) for a in imported if a.name != "Random"]
                    case ast.Attribute(value=ast.Name(id="random"), attr=attr) if attr != "Random":
                        breaches.append(where_of(module.path, node))
    assert not breaches, "\n".join(["", *breaches])


def test_nobody_imports_a_room_by_its_bare_name() -> None:
    """Bare `config` or `node` would be another distribution's package on a user's machine."""
    breaches = []
    for folder in (*ROOMS, "tests", "integration", "scripts"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                targets: list[str] = []
                if isinstance(node, ast.Import):
                    targets = [alias.name for alias in node.names]
                elif isinstance(node, ast.ImportFrom) and node.level == 0:
                    targets = [node.module or ""]
                breaches += [
                    f"{path.relative_to(ROOT)}: {target}"
                    for target in targets
                    if target.partition(".")[0] in ROOMS
                ]
    assert not breaches, "\n".join(["", *breaches])


def test_every_module_says_why_it_exists() -> None:
    silent = [m.name for m in modules() if not ast.get_docstring(ast.parse(m.path.read_text()))]
    assert not silent, "\n".join(["", *silent])


def test_the_package_list_equals_the_tree() -> None:
    listed = PYPROJECT["tool"]["setuptools"]["packages"]
    assert listed == sorted(module.name for module in modules() if module.is_package)
    assert PYPROJECT["tool"]["setuptools"]["package-dir"] == {f"allsource.{room}": room for room in ROOMS}


def test_no_folder_of_modules_lacks_its_page() -> None:
    folders = {module.path.parent for module in modules()}
    assert [str(f.relative_to(ROOT)) for f in sorted(folders) if not (f / "__init__.py").exists()] == []


@pytest.mark.parametrize("room", ROOMS)
def test_types_are_shipped_and_checked(room: str) -> None:
    assert (ROOT / room / "py.typed").exists()
    assert (ROOT / ".typing" / "allsource" / room).resolve() == ROOT / room
    assert f"allsource.{room}" in PYPROJECT["tool"]["mypy"]["packages"]


def test_the_wheel_holds_allsource_and_nothing_else(tmp_path: Path) -> None:
    """Built as a user's pip would, from a copy, without the network."""
    source = tmp_path / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for room in ROOMS:
        shutil.copytree(ROOT / room, source / room, ignore=shutil.ignore_patterns("__pycache__", "data"))
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    built = subprocess.run(
        [*command, "--wheel-dir", str(tmp_path), str(source)], capture_output=True, text=True, check=False
    )
    assert built.returncode == 0, built.stderr
    (wheel,) = tmp_path.glob("*.whl")
    inside = zipfile.ZipFile(wheel).namelist()
    version = PYPROJECT["project"]["version"]
    assert {name.partition("/")[0] for name in inside} == {"allsource", f"allsource-{version}.dist-info"}
    shipped = {name for name in inside if name.endswith(".py")}
    assert shipped == {
        "allsource/" + str(module.path.relative_to(ROOT)).replace("\\", "/") for module in modules()
    }
    assert "allsource/config/three-nodes.yaml" in inside
    assert "allsource/storage/postgres/migrations/0001_events.sql" in inside
    assert {f"allsource/{room}/py.typed" for room in ROOMS} <= set(inside)
