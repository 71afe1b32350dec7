"""The settings in force, as a file that could be loaded: for `allsource config check`.

Every knob is there, also those that the file left to their defaults. Secrets are masked. The mask is too
short for a secret, so the text is refused where somebody uses it as a file.
"""

from __future__ import annotations

from typing import Any

import yaml

from allsource.config.knobs import NODES, SECTIONS, knobs_of
from allsource.config.promise import promise_of
from allsource.config.schema import Settings
from allsource.config.values import Count


def describe(settings: Settings) -> str:
    """The settings as YAML text, in the order of the schema, below a comment with what they promise."""
    promise = promise_of(settings)
    top = _shown(settings)
    if promise.durability != settings.durability:
        del top["durability"]  # it means nothing for this storage
    for section in SECTIONS:
        top[section] = _shown(getattr(settings, section))
    top[NODES] = [_shown(node) for node in settings.nodes]
    text: str = yaml.safe_dump(top, sort_keys=False, allow_unicode=True, width=1000)
    return f"# durability {promise.durability}: {promise.meaning}\n{text}"


def _shown(part: Any) -> dict[str, Any]:
    """A settings object's scalar knobs, each as a person would write it; unset ones are left out."""
    shown: dict[str, Any] = {}
    cls: type = type(part)
    for key, knob in knobs_of(cls).items():
        text = knob.kind.show(getattr(part, knob.field))
        if text:
            shown[key] = int(text) if isinstance(knob.kind, Count) else text
    return shown
