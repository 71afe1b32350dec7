"""A YAML file as keys and texts that remember their lines.

PyYAML's loaders forget where a value stood, keep the last of two equal keys in silence, and turn
`no` into False and `010` into 8. So this reads the composed nodes, and leaves it to the schema what
a text means: a node may be called `no`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import yaml

_TAGS = "tag:yaml.org,2002:"
_PLAIN_TAGS = frozenset(
    _TAGS + name
    for name in ("map", "seq", "str", "null", "bool", "int", "float", "timestamp", "value", "merge")
)
"""What YAML itself makes of a value; any other tag would ask the reader to do something."""


class Fault(NamedTuple):
    """One thing that is wrong with a configuration."""

    line: int
    """Line of the file, from 1; 0 if it is not the file's (the environment, an override)."""
    key: str
    """Path to the value, as `limits.event_bytes_max` or `nodes[0].port`; empty for the whole file."""
    message: str
    """What was found and what is allowed."""

    def __str__(self) -> str:
        where = f"line {self.line}: " if self.line else ""
        return f"{where}{self.key}: {self.message}" if self.key else f"{where}{self.message}"


class ConfigFault(Exception):
    """A configuration that cannot be used; `faults` has all that is wrong with it, in order of lines."""

    def __init__(self, path: Path, faults: list[Fault]) -> None:
        self.path = path
        self.faults = sorted(faults)
        super().__init__(path, self.faults)

    def __str__(self) -> str:
        if len(self.faults) == 1:
            return f"{self.path}: {self.faults[0]}"
        lines = (f"\n  {fault}" for fault in self.faults)
        return f"{self.path}: {len(self.faults)} faults{''.join(lines)}"


@dataclass(frozen=True)
class Text:
    """A scalar as it is written; `text` is None for nothing and for `null`."""

    line: int
    text: str | None

    def __str__(self) -> str:
        return "nothing" if self.text is None else repr(self.text)


@dataclass(frozen=True)
class Items:
    """A list."""

    line: int
    items: list[Item] = field(default_factory=list)

    def __str__(self) -> str:
        return "a list"


@dataclass(frozen=True)
class Keys:
    """A mapping. `lines` are those of the keys."""

    line: int
    values: dict[str, Item] = field(default_factory=dict)
    lines: dict[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        return "a mapping"


Item = Text | Items | Keys


def read_document(path: Path, faults: list[Fault]) -> Keys | None:
    """The mapping that the file is; None, and a fault is added, if the file is none."""
    try:
        node = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
        top = Text(1, None) if node is None else _Conversion(faults).item(node, "")
    except OSError as error:
        faults.append(Fault(0, "", f"cannot be read: {error.strerror or error}"))
    except UnicodeDecodeError as error:
        faults.append(Fault(0, "", f"is not UTF-8 text (byte {error.start})"))
    except RecursionError:
        faults.append(Fault(0, "", "is nested too deeply"))
    except yaml.YAMLError as error:
        faults.append(_syntax_fault(error))
    else:
        if isinstance(top, Keys):
            return top
        faults.append(Fault(top.line, "", f"found {top}; allowed: a mapping of keys to values"))
    return None


def _syntax_fault(error: yaml.YAMLError) -> Fault:
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        parts = [part for part in (error.context, error.problem) if part]
        return Fault(mark.line + 1 if mark else 0, "", "not valid YAML: " + ", ".join(parts))
    if isinstance(error, yaml.reader.ReaderError):
        return Fault(0, "", f"not valid YAML: the character #x{error.character:04x} is not allowed")
    return Fault(0, "", f"not valid YAML: {error}")


class _Conversion:
    """From PyYAML's nodes to ours.

    Each node is converted once however many aliases name it, so that a small file cannot become a
    large value; a list or mapping that holds itself is a fault.
    """

    def __init__(self, faults: list[Fault]) -> None:
        self._faults = faults
        self._done: dict[int, Item | None] = {}

    def item(self, node: yaml.Node, key: str) -> Item:
        line = node.start_mark.line + 1
        if id(node) not in self._done:
            self._done[id(node)] = None
            self._done[id(node)] = self._convert(node, line, key)
        found = self._done[id(node)]
        if found is None:
            self._faults.append(Fault(line, key, "found an alias of what it is in"))
            return Text(line, None)
        return found

    def _convert(self, node: yaml.Node, line: int, key: str) -> Item:
        if node.tag not in _PLAIN_TAGS:
            self._faults.append(Fault(line, key, f"found the tag {node.tag}; tags have no meaning here"))
        if isinstance(node, yaml.MappingNode):
            return self._keys(node, line, key)
        if isinstance(node, yaml.SequenceNode):
            return Items(line, [self.item(item, f"{key}[{i}]") for i, item in enumerate(node.value)])
        is_null = node.tag == _TAGS + "null"
        return Text(line, None if is_null else node.value)

    def _keys(self, node: yaml.MappingNode, line: int, prefix: str) -> Keys:
        found = Keys(line)
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                self._faults.append(Fault(line, prefix, "found a list or mapping as a key; allowed: words"))
                continue
            name = key_node.value
            key = f"{prefix}.{name}" if prefix else name
            if name in found.values:
                message = f"given twice; it is on line {found.lines[name]} already"
                self._faults.append(Fault(line, key, message))
                continue
            found.values[name] = self.item(value_node, key)
            found.lines[name] = line
        return found
