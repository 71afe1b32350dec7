"""A scrape, read as strictly as `promtool check metrics` and Prometheus' own parser would.

`prometheus_client.parser` takes much that they refuse; `families_of` refuses what they do.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

_NAME = re.compile(r"[a-z][a-z0-9_]*")
_SUFFIXES = {"counter": ("_total", "_created"), "histogram": ("_bucket", "_sum", "_count")}
_FOREIGN_UNITS = re.compile(r"_(ms|us|ns|milliseconds|microseconds|minutes|kb|mb|kilobytes|megabytes)(_|$)")


def families_of(text: str) -> dict[str, Metric]:
    """The metric families by name; an AssertionError names all that is wrong with the text."""
    families = list(text_string_to_metric_families(text))
    faults = [*_of_text(text), *(fault for family in families for fault in _of_family(family))]
    assert not faults, "\n".join(["", *faults])
    return {family.name: family for family in families}


def _of_text(text: str) -> Iterator[str]:
    if not text.endswith("\n"):
        yield "the last line does not end"
    for keyword in ("HELP", "TYPE"):
        named = Counter(line.split()[2] for line in text.splitlines() if line.startswith(f"# {keyword} "))
        yield from (f"{name}: {n} lines of {keyword}" for name, n in named.items() if n > 1)
    family, closed = "", set[str]()
    for line in text.splitlines():
        if line.startswith("# HELP "):
            if family:
                closed.add(family)
            family = line.split()[2]
        elif not line.startswith("#"):
            name = re.split(r"[ {]", line, maxsplit=1)[0]
            if not name.startswith(family) or name in closed:
                yield f"{name}: not below its own HELP"


def _of_family(family: Metric) -> Iterator[str]:
    name = family.name
    if not _NAME.fullmatch(name):
        yield f"{name}: not a name"
    if not family.documentation.strip():
        yield f"{name}: no HELP"
    if family.type not in ("counter", "gauge", "histogram"):
        yield f"{name}: no type"
    if _FOREIGN_UNITS.search(name):
        yield f"{name}: not in seconds or bytes"
    if family.type == "gauge" and name.endswith(("_total", "_count", "_sum", "_bucket")):
        yield f"{name}: a gauge with the suffix of another type"
    series = Counter((sample.name, tuple(sorted(sample.labels.items()))) for sample in family.samples)
    yield from (f"{one}: {n} times" for one, n in series.items() if n > 1)
    for sample in family.samples:
        if sample.name not in [name + suffix for suffix in _SUFFIXES.get(family.type, ("",))]:
            yield f"{sample.name}: not a sample of a {family.type} {name}"
        if any(not label_value for label_value in sample.labels.values()):
            yield f"{sample.name}: an empty label is none: {sample.labels}"
        if family.type == "counter" and not sample.value >= 0:
            yield f"{sample.name}: a counter below 0"
    if len({frozenset(s.labels) for s in family.samples if s.name == name}) > 1:
        yield f"{name}: series with different labels"
    if family.type == "histogram":
        counts = [s.value for s in family.samples if s.name.endswith("_bucket")]
        totals = [s.value for s in family.samples if s.name.endswith("_count")]
        edges = [s.labels["le"] for s in family.samples if s.name.endswith("_bucket")]
        if counts != sorted(counts) or counts[-1:] != totals or edges[-1:] != ["+Inf"]:
            yield f"{name}: its buckets contradict each other"
