"""As much of PromQL as it takes to say which metrics and labels an expression uses.

Not a parser: strings are blanked out, and what remains is told apart by its neighbours. The one rule for
whoever writes an expression: grouping stands before its operand, `sum by (x) (...)`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

_WORDS = frozenset(("and", "or", "unless", "bool", "offset"))
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
_SELECTOR = re.compile(r"(?<![\w$])([a-zA-Z_:][\w:]*)\s*(\{[^}]*\})?")
_GROUPING = re.compile(r"\b(by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)")
_JOIN = re.compile(r"\b(on|ignoring)\s*\(")
_WINDOW = re.compile(r"\[[^\]]*\]")


class Use(NamedTuple):
    """A label that something of an expression rests on, and the metrics that must have it."""

    label: str
    metrics: frozenset[str]
    any_of_them: bool = False


def metrics_in(expression: str) -> set[str]:
    """The names of all metrics."""
    return {name for name, _ in _selectors(expression)}


def labels_in(expression: str) -> Iterator[Use]:
    """Every label of a selector or a grouping."""
    for name, matchers in _selectors(expression):
        for matcher in filter(None, matchers.split(",")):
            label = re.split(r"[=!]", matcher, maxsplit=1)[0].strip()
            yield Use(label, frozenset((name,)))
    plain = _blank(expression)
    for found in _GROUPING.finditer(plain):
        word, labels = found.groups()
        operand = _operand(plain, found.end()) if word in ("by", "without") else plain
        for label in filter(None, map(str.strip, labels.split(","))):
            # What a join leaves has the labels of one side.
            of_one_side = word.startswith("group_") or (word == "by" and _JOIN.search(operand) is not None)
            yield Use(label, frozenset(metrics_in(operand)), of_one_side)


def grouped_by(expression: str) -> set[str] | None:
    """The labels that are left when the outermost operation is an aggregation `by`; None if it is not."""
    found = re.match(r"\s*(?:histogram_quantile\([\d.]+,\s*)?\w+\s+by\s*\(([^)]*)\)", expression)
    return {label.strip() for label in found[1].split(",")} if found else None


def _blank(expression: str) -> str:
    return _WINDOW.sub("", _STRING.sub('""', expression))


def _selectors(expression: str) -> Iterator[tuple[str, str]]:
    """Names of metrics and what their braces hold."""
    plain = _GROUPING.sub(" ", _blank(expression))
    for found in _SELECTOR.finditer(plain):
        name, braces = found.groups()
        is_called = plain[found.end() :].lstrip().startswith("(")
        if not is_called and name not in _WORDS:
            yield name, (braces or "").strip("{}")


def _operand(plain: str, start: int) -> str:
    """The bracketed expression that begins at or behind `start`."""
    begin = plain.index("(", start)
    depth = 0
    for at in range(begin, len(plain)):
        depth += (plain[at] == "(") - (plain[at] == ")")
        if depth == 0:
            return plain[begin : at + 1]
    raise ValueError(f"unbalanced: {plain}")
