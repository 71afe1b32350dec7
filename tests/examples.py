"""Examples out of documents: what is shown there is run as it stands."""

from __future__ import annotations

import re
from pathlib import Path
from textwrap import dedent

README = Path(__file__).resolve().parent.parent / "README.md"


def fenced(text: str, language: str) -> list[str]:
    """The blocks between ```` ```language ```` and ```` ``` ````, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def commands(lines: str) -> list[str]:
    """The commands of a shell block: a line that is indented belongs to the one before."""
    return re.findall(r"^\S.*(?:\n\s.*)*", lines, re.MULTILINE)


def literal(docstring: str) -> list[str]:
    """The indented blocks behind a paragraph that ends with `::`."""
    found = re.findall(r"::\n\n((?:(?: {4}.*)?\n)+)", docstring)
    return [dedent(block).strip() + "\n" for block in found]


def replaced(text: str, replacements: dict[str, str]) -> str:
    """The text with placeholders replaced; each of them must be there."""
    for placeholder, value in replacements.items():
        assert placeholder in text, f"{placeholder!r} is not in the example any more"
        text = text.replace(placeholder, value)
    return text
