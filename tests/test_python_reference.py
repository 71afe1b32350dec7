"""`docs/python.md` against the code: every public call with signature and answer, every name, every field.

The page is written by hand, and held here: it can be read in the repository without making anything, and
who changes a signature is shown the line to write.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import allsource.client
from allsource.client import BlockingClient, Client
from allsource.storage.model.errors import AllsourceError
from allsource.storage.repository import ADDRESSES, EventStreamRepository, open_repository

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "python.md").read_text()


def section(title: str) -> str:
    return PAGE.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def rows(text: str) -> list[tuple[str, str]]:
    """The first two cells of each row whose first is code."""
    lines = [re.split(r"(?<!\\)\|", line) for line in text.splitlines() if line.startswith("| `")]
    return [(cells[1].strip(" `"), cells[2].strip()) for cells in lines]


def public(cls: type) -> dict[str, Any]:
    return {name: getattr(cls, name) for name, _ in inspect.getmembers(cls) if not name.startswith("_")}


def shown(name: str, call: Callable[..., Any]) -> tuple[str, str]:
    """A call and its answer as the page shows them: without `self` and types."""
    signature = inspect.signature(call)
    parameters = [
        one.replace(annotation=one.empty)
        for one in signature.parameters.values()
        if one.name not in ("self", "cls")
    ]
    text = str(inspect.Signature(parameters)).replace("'", '"')
    return f"{name}{text}", answer(str(signature.return_annotation))


def answer(annotation: str) -> str:
    each = re.fullmatch(r"Async(?:Generator|Iterator)\[(\w+)(?:, None)?\]", annotation)
    said = f"each `{each[1]}`" if each else f"`{annotation}`"
    return said.replace(" | ", r" \| ")


def calls_of(cls: type) -> list[tuple[str, str]]:
    found = []
    for name, value in public(cls).items():
        if isinstance(inspect.getattr_static(cls, name), property):
            found.append((name, f"`{value.fget.__annotations__['return']}`"))
        else:
            found.append(shown(name, value))
    return found


def test_the_page_has_every_call_of_the_client() -> None:
    making, _ = shown("Client", Client.__init__)
    _compare(rows(section("Client")), [(making, ""), *calls_of(Client)])


def test_the_blocking_client_has_the_same_calls() -> None:
    plain = {name: shown(name, call)[0] for name, call in public(Client).items()}
    assert {name: shown(name, call)[0] for name, call in public(BlockingClient).items()} == plain
    assert shown("", BlockingClient.__init__) == shown("", Client.__init__)


def test_the_page_has_every_call_of_a_repository() -> None:
    told = [row for row in rows(section("Repository")) if "://" not in row[0]]
    wanted = [shown("open_repository", open_repository), *calls_of(EventStreamRepository)]
    _compare(told, wanted)


def _compare(told: list[tuple[str, str]], wanted: list[tuple[str, str]]) -> None:
    lines = [f"missing: | `{call}` | {result} |" for call, result in sorted(set(wanted) - set(told))]
    lines += [f"no more: | `{call}` | {result} |" for call, result in sorted(set(told) - set(wanted))]
    assert not lines, "\n".join(["docs/python.md:", *lines])
    assert len(told) == len(wanted)


def test_the_page_has_an_address_of_each_kind() -> None:
    schemes = {row[0].partition(":")[0] for row in rows(section("Repository")) if "://" in row[0]}
    assert schemes == ADDRESSES.keys() - {"postgres"}  # another name for postgresql


def fields(cls: type) -> list[str]:
    """Its fields, then its properties."""
    own = cls.__match_args__  # type: ignore[attr-defined]  # in the order in which one is made
    properties = [name for name, value in vars(cls).items() if isinstance(value, property)]
    return [*own, *properties]


def test_the_page_has_every_field_of_what_is_answered() -> None:
    for name, told in rows(section("Events and answers")):
        assert re.findall(r"`(\w+)`", told) == fields(getattr(allsource.client, name)), name


def test_the_page_has_every_name_that_is_imported_from_the_client() -> None:
    missing = [name for name in allsource.client.__all__ if f"`{name}" not in PAGE]
    assert not missing


def test_the_errors_of_the_page_are_those_of_the_client() -> None:
    exported = {
        name
        for name in allsource.client.__all__
        if issubclass(getattr(allsource.client, name), AllsourceError)
    }
    general = {"AllsourceError", "OutcomeUnknown", "Rejected"}
    assert {name for name, _ in rows(section("How a call ends"))} == exported - general
