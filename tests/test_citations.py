"""What code and pages cite exists: rules and checkers by number, files and documents by name."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RULES = ROOT / "cluster" / "consensus" / "RULES.md"

_NUMBERS = r"(\d+(?:(?:, | and | or | to )\d+)*)"
_RULE = re.compile(rf"(?<![\w-])[Rr]ules? {_NUMBERS}")
_CHECKER = re.compile(rf"(?<![\w-])[Cc]heckers? {_NUMBERS}")
_DOCUMENT = re.compile(r"(?<![\w./-])((?:[\w.-]+/)*[A-Z][A-Z_]+\.md)\b")
_FILE = re.compile(
    r"(?<![\w./{-])((?:client|cluster|config|docs|examples|integration|node|scripts|storage|tests)"
    r"/[\w./-]*\w\.(?:py|md|yaml|json|sql|txt))\b"
)


@cache
def texts() -> dict[Path, str]:
    """Every text of ours that may cite something."""
    names = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split("\0")
    kinds = (".py", ".md", ".sql", ".yaml", ".toml", ".txt")
    paths = [ROOT / name for name in names if name.endswith(kinds) and ".typing" not in name]
    return {path: path.read_text() for path in paths if path.is_file() and path != Path(__file__)}


def cited(pattern: re.Pattern[str]) -> Iterator[tuple[str, str]]:
    """`(where, what)` of each citation."""
    for path, text in texts().items():
        for match in pattern.finditer(text):
            line = text.count("\n", 0, match.start()) + 1
            yield f"{path.relative_to(ROOT)}:{line}", match.group(1)


def numbers(text: str) -> set[int]:
    return {int(number) for number in re.findall(r"\d+", text)}


def rules() -> list[int]:
    return [
        int(number) for number in re.findall(r"^- \*\*Rule (\d+)\.\*\*", RULES.read_text(), re.MULTILINE)
    ]


def test_every_rule_has_its_own_number() -> None:
    assert sorted(rules()) == list(range(1, 40))


def test_every_rule_that_is_cited_exists() -> None:
    known = set(rules())
    wrong = [f"{where}: rule {what}" for where, what in cited(_RULE) if not numbers(what) <= known]
    assert not wrong, "\n".join(["", *wrong])
    assert sum(1 for _ in cited(_RULE)) > 50, "the pattern finds nothing any more"


def test_no_rule_of_another_paper_is_cited() -> None:
    """`RULES.md` alone is in the repository."""
    foreign = re.compile(r"\b([A-Z]{2,}) [Rr]ules? \d")
    wrong = [f"{where}: {what} rule" for where, what in cited(foreign)]
    assert not wrong, "\n".join(["", *wrong])


def test_every_checker_that_is_cited_exists() -> None:
    listed = RULES.read_text().split("## Checkers")[1]
    known = {int(number) for number in re.findall(r"^(\d+)\. ", listed, re.MULTILINE)}
    assert known == set(range(1, 11))
    wrong = [f"{where}: checker {what}" for where, what in cited(_CHECKER) if not numbers(what) <= known]
    assert not wrong, "\n".join(["", *wrong])


def test_every_document_and_file_that_is_mentioned_exists() -> None:
    """A document by its name may be anywhere in the repository; a path is from its top, or beside."""
    names = {path.name for path in texts()}
    wrong = []
    for where, what in [*cited(_DOCUMENT), *cited(_FILE)]:
        beside = (ROOT / where.partition(":")[0]).parent / what
        there = (ROOT / what).exists() or beside.exists() or ("/" not in what and what in names)
        if not there:
            wrong.append(f"{where}: {what}")
    assert not wrong, "\n".join(["", *sorted(set(wrong))])
