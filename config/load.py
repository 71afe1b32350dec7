"""From a YAML file, the environment and explicit overrides to frozen `Settings`.

Later beats earlier: the file; then environment variables, `ALLSOURCE__` and the key in capitals with
two underscores between its parts (`ALLSOURCE__LIMITS__EVENT_BYTES_MAX=2MiB`); then `overrides` by
dotted key (`limits.event_bytes_max`). A node's own keys come from the file alone.

A relative path in the file starts from the folder that the file is in, not from the process's current
directory: the same file must mean the same data wherever it is used from, or a node would start
empty without a word. The folder is taken as the file was named: a symbolic link is not followed, so that a
file that is replaced behind its name (as Kubernetes mounts them) keeps its data.

All faults are told at once, so that a file can be corrected in one go. So the reader goes on after a
fault, with a value in place of the faulty one, and a rule between settings is checked only if none of
its settings is faulty.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

from allsource.config.client_secret import derived_client_secret
from allsource.config.document import ConfigFault, Fault, Item, Items, Keys, Text, read_document
from allsource.config.knobs import NODES, SECTIONS, Knob, all_knobs, keys_of, knobs_of
from allsource.config.rules import contradictions
from allsource.config.schema import (
    NodeSettings,
    Settings,
    default_cluster_id,
    default_replication_factor,
)
from allsource.config.values import Secret

__all__ = ["ENVIRONMENT_PREFIX", "ConfigFault", "Fault", "load_settings"]

ENVIRONMENT_PREFIX = "ALLSOURCE__"

_COMPUTED = frozenset(("client_secret", "cluster_id", "replication_factor", "data_dir"))
"""Keys without a fixed default that a file may leave out."""


def load_settings(
    path: Path, env: Mapping[str, str] = os.environ, overrides: Mapping[str, str] | None = None
) -> Settings:
    """The settings of the cluster that the file describes; raises `ConfigFault` with all its faults."""
    reader = _Reader(Path(os.path.abspath(path)).parent, env, overrides or {})
    top = read_document(Path(path), reader.faults)
    settings = reader.settings(top) if top is not None else None
    if settings is None or reader.faults:
        raise ConfigFault(path, reader.faults)
    return settings


class _Given(NamedTuple):
    """A value from outside the file, and what to call its origin."""

    text: str
    origin: str


class _Reader:
    """One reading of a configuration: collects faults, and which keys they concern."""

    def __init__(self, folder: Path, env: Mapping[str, str], overrides: Mapping[str, str]) -> None:
        """`folder`: where relative paths start."""
        self.faults: list[Fault] = []
        self._folder = folder
        self._env = env
        self._faulty: set[str] = set()
        self._lines: dict[str, int] = {}
        self._outside = dict(self._outside_values(env, overrides))

    def settings(self, top: Keys) -> Settings:
        """The settings, with stand-ins where there were faults."""
        values = self._knobs(Settings, top, "")
        for section, cls in SECTIONS.items():
            keys = self._section(top, section)
            values[section] = cls(**self._knobs(cls, keys, section))
        values["nodes"] = self._nodes(top, values["cluster_name"])
        values["client_secret"] = values["client_secret"] or derived_client_secret(values["secret"])
        values["cluster_id"] = values["cluster_id"] or default_cluster_id(values["cluster_name"])
        values["replication_factor"] = values["replication_factor"] or default_replication_factor(
            len(values["nodes"])
        )
        settings = Settings(**values)
        self._check_rules(settings)
        return settings

    # -- the parts of a file

    def _section(self, top: Keys, section: str) -> Keys:
        """A section's keys. Nothing below its name (all commented out, say) is as good as no section."""
        found = top.values.get(section)
        line = top.lines.get(section, top.line)
        if isinstance(found, Keys):
            return found
        if found is not None and not (isinstance(found, Text) and found.text is None):
            allowed = ", ".join(keys_of(SECTIONS[section]))
            self._fault(line, section, f"found {found}; allowed: a mapping of {allowed}")
        return Keys(line)

    def _nodes(self, top: Keys, cluster_name: str) -> tuple[NodeSettings, ...]:
        found = top.values.get(NODES)
        line = self._lines[NODES] = top.lines.get(NODES, top.line)
        if not isinstance(found, Items):
            what = "missing" if found is None else f"found {found}"
            self._fault(line, NODES, f"{what}; allowed: a list of nodes, each with {_listed(NodeSettings)}")
            return ()
        return tuple(self._node(item, f"{NODES}[{i}]", cluster_name) for i, item in enumerate(found.items))

    def _node(self, item: Item, key: str, cluster_name: str) -> NodeSettings:
        if not isinstance(item, Keys):
            self._fault(item.line, key, f"found {item}; allowed: a mapping of {_listed(NodeSettings)}")
            self._faulty.update(f"{key}.{name}" for name in knobs_of(NodeSettings))
            return NodeSettings(id="", host="", port=0, http_port=0, data_dir=Path())
        values = self._knobs(NodeSettings, item, key)
        if f"{key}.id" in self._faulty or "cluster_name" in self._faulty:
            self._faulty.add(f"{key}.data_dir")
        if values["data_dir"] is None:
            values["data_dir"] = Path("data", cluster_name, values["id"])
        values["data_dir"] = self._folder / values["data_dir"]
        return NodeSettings(**values)

    def _knobs(self, cls: type, keys: Keys, prefix: str) -> dict[str, Any]:
        """The scalar settings of a mapping, by their fields, and faults for keys that it cannot have."""
        for name, line in keys.lines.items():
            if name not in keys_of(cls):
                self._fault(line, _join(prefix, name), _unknown(name, cls))
        return {
            knob.field: self._knob(knob, keys, _join(prefix, knob.key)) for knob in knobs_of(cls).values()
        }

    def _knob(self, knob: Knob, keys: Keys, key: str) -> Any:
        value = knob.default
        line = keys.lines.get(knob.key, keys.line)
        if knob.key in keys.values:
            self._lines[key] = line
            value = self._value(knob, keys.values[knob.key], line, key)
        if key in self._outside:
            text, origin = self._outside[key]
            value = self._parsed(knob, text, 0, key, f"{origin}: ")
        elif value is None and knob.key not in keys.values and knob.key not in _COMPUTED:
            self._fault(line, key, f"missing; allowed: {knob.kind.allowed}")
        return _stand_in(knob) if value is None else value

    # -- values

    def _value(self, knob: Knob, item: Item, line: int, key: str) -> Any:
        if isinstance(knob.kind, Secret) and isinstance(item, Keys):
            text = self._secret_from(item, key)
            return None if text is None else self._parsed(knob, text, line, key, "")
        if not isinstance(item, Text) or item.text is None:
            self._fault(line, key, f"found {item}; allowed: {knob.kind.allowed}")
            return None
        return self._parsed(knob, item.text, line, key, "")

    def _parsed(self, knob: Knob, text: str, line: int, key: str, origin: str) -> Any:
        """The value that the text stands for, or None and a fault."""
        try:
            return knob.kind.parse(text)
        except ValueError:
            # A secret is not repeated where it could end in a log.
            found = f"{len(text)} characters" if isinstance(knob.kind, Secret) else repr(text)
            self._fault(line, key, f"{origin}found {found}; allowed: {knob.kind.allowed}")
            return None

    def _secret_from(self, keys: Keys, key: str) -> str | None:
        """What `{env: NAME}` or `{file: PATH}` names, or None and a fault."""
        match list(keys.values.items()):
            case [("env", Text(line, str() as name))]:
                if name in self._env:
                    return self._env[name]
                self._fault(line, key, f"the environment variable {name} is not set")
            case [("file", Text(line, str() as name))]:
                try:
                    path = self._folder / Path(name).expanduser()
                    return path.read_text(encoding="utf-8").rstrip("\r\n")
                except (OSError, ValueError, RuntimeError) as error:
                    reason = getattr(error, "strerror", None) or error
                    self._fault(line, key, f"the file {name} cannot be read: {reason}")
            case _:
                self._fault(keys.line, key, "found a mapping; allowed: {env: NAME} or {file: PATH}")
        return None

    # -- beside the file

    def _outside_values(
        self, env: Mapping[str, str], overrides: Mapping[str, str]
    ) -> Iterator[tuple[str, _Given]]:
        by_variable = {ENVIRONMENT_PREFIX + key.replace(".", "__").upper(): key for key, _ in all_knobs()}
        for variable in sorted(env):
            if variable in by_variable:
                yield by_variable[variable], _Given(env[variable], f"the environment variable {variable}")
            elif variable.startswith(ENVIRONMENT_PREFIX):
                hint = _did_you_mean(variable, by_variable)
                self.faults.append(Fault(0, "", f"the environment variable {variable} sets no key{hint}"))
        known = [key for key, _ in all_knobs()]
        for key, text in overrides.items():
            if key in known:
                yield key, _Given(text, "an override")
            else:
                self.faults.append(Fault(0, key, f"unknown key in an override{_did_you_mean(key, known)}"))

    def _check_rules(self, settings: Settings) -> None:
        for keys, message in contradictions(settings):
            if self._faulty.isdisjoint(keys):
                self.faults.append(Fault(self._line_of(keys), keys[0], message))

    def _line_of(self, keys: tuple[str, ...]) -> int:
        """The line of the first of these keys that the file gives."""
        return next((self._lines[key] for key in keys if key in self._lines), 0)

    def _fault(self, line: int, key: str, message: str) -> None:
        self.faults.append(Fault(line, key, message))
        self._faulty.add(key)


def _stand_in(knob: Knob) -> Any:
    """What takes the place of a value that is faulty, or that is computed later (None)."""
    if knob.default is not None:
        return knob.default
    return None if knob.key in _COMPUTED else ""


def _join(prefix: str, key: str) -> str:
    return f"{prefix}.{key}" if prefix else key


def _listed(cls: type) -> str:
    return ", ".join(keys_of(cls))


def _unknown(name: str, cls: type) -> str:
    """What to say of a key that `cls` does not have: where it belongs, else what it may have meant."""
    homes = [key for key, knob in all_knobs() if knob.key == name]
    if homes:
        return f"unknown key here; did you mean {homes[0]}?"
    if cls is not NodeSettings and name in knobs_of(NodeSettings):
        return f"unknown key here; did you mean {NODES}[...].{name}?"
    hint = _did_you_mean(name, keys_of(cls))
    return f"unknown key{hint}" if hint else f"unknown key; allowed: {_listed(cls)}"


def _did_you_mean(name: str, known: Mapping[str, str] | list[str]) -> str:
    close = get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]}?" if close else ""
