"""An `Overview` as lines of text with styles, for a terminal of some width. Pure, like what it writes.

Columns that do not fit are left out, the least important first; none is cut.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from allsource.cluster.membership.liveness import UP
from allsource.node.cli.control.picture import ClusterPicture, NodePicture, owner_map
from allsource.node.cli.figures import show_rate
from allsource.node.cli.launch.overview import ChildState, NodeSeen, Overview, up

GOOD, DOUBT, BAD, HEAD, FAINT = "green", "yellow", "bold red", "bold", "dim"

COMPLAINT_S = 30.0
"""How long a warning of a node that serves is shown: what still holds is said again."""

_GAP = 2
_TIME_AND_LEVEL = re.compile(r"^\S+Z\s+\[\w+\s*\]\s+")
_SHOWN_IN_ORDER = (
    "node",
    "state",
    "pid",
    "leads",
    "copies",
    "events/s",
    "behind",
    "uptime",
    "used",
    "free",
    "http",
    "address",
    "starts",
)
_BY_IMPORTANCE = (
    "node",
    "state",
    "pid",
    "http",
    "leads",
    "events/s",
    "behind",
    "uptime",
    "free",
    "used",
    "copies",
    "address",
    "starts",
)


class Span(NamedTuple):
    """Some characters in one style (a name that rich knows, or none)."""

    text: str
    style: str = ""


Line = list[Span]


def lines(overview: Overview, width: int) -> list[Line]:
    """The table, what is wrong, and who owns what, no line longer than `width` but for messages."""
    told: list[Line] = [[Span(f"ALARM: {alarm}", BAD)] for alarm in overview.alarms()]
    told += _table([_cells(overview, node) for node in overview.nodes], width)
    told += [_complaint(node) for node in overview.nodes if _still_holds(node)]
    if (picture := overview.picture) is not None:
        told += _map(overview, picture, width)
    return told


def fitting(rows: Sequence[Mapping[str, Span]], width: int) -> list[str]:
    """The columns that fit into `width` characters, in the order in which they are shown.

    A column without anything in it is left out; node and state always stay.
    """
    chosen: list[str] = []
    room = width + _GAP
    for name in _BY_IMPORTANCE:
        if not any(row[name].text for row in rows):
            continue
        needed = max(len(name), *(len(row[name].text) for row in rows)) + _GAP
        if needed <= room or name in ("node", "state"):
            chosen.append(name)
            room -= needed
    return [name for name in _SHOWN_IN_ORDER if name in chosen]


def _table(rows: Sequence[Mapping[str, Span]], width: int) -> list[Line]:
    columns = fitting(rows, width) if rows else []
    widths = {name: max(len(name), *(len(row[name].text) for row in rows)) for name in columns}
    numeric = {name for name in columns if name not in ("node", "state", "http", "address")}

    def placed(name: str, span: Span) -> Span:
        text = span.text or "-"
        padded = text.rjust(widths[name]) if name in numeric else text.ljust(widths[name])
        return Span(padded + " " * _GAP, span.style if span.text else FAINT)

    head = [placed(name, Span(name, HEAD)) for name in columns]
    return [head, *([placed(name, row[name]) for name in columns] for row in rows)]


def _cells(overview: Overview, node: NodeSeen) -> dict[str, Span]:
    picture = overview.picture
    state = _state(overview, node)
    leads = node.picture.owned_by(node.id) if node.picture is not None else []
    owned = picture.owned_by(node.id) if picture is not None else []
    holds = sum(node.id in one.replicas for one in picture.partitions) if picture is not None else 0
    behind = overview.behind(node)
    copies = str(holds) if node.id not in overview.missing() else f"{holds} off"
    return {
        "node": Span(node.id, HEAD),
        "state": state,
        "pid": Span(str(node.pid) if node.pid is not None else ""),
        "leads": Span(str(len(leads)) if node.picture is not None else ""),
        "copies": Span(copies if picture is not None else "", BAD if copies.endswith("off") else ""),
        "events/s": Span(
            show_rate(sum(overview.rates.get(p, 0.0) for p in owned)) if overview.rates else ""
        ),
        "behind": Span("" if behind is None else str(behind)),
        "uptime": Span("" if node.uptime_s is None else duration(node.uptime_s)),
        "used": Span("" if node.disk_used is None else size(node.disk_used)),
        "free": Span("" if node.disk_free is None else size(node.disk_free)),
        "http": Span(node.http.removeprefix("http://")),
        "address": Span(node.address),
        "starts": Span(str(node.starts) if node.starts != 1 else "1"),
    }


def _state(overview: Overview, node: NodeSeen) -> Span:
    """One or two words of how a node is."""
    if node.picture is not None:
        word = "ready" if node.is_ready else "running"
        if node.by_hand:
            word += " (by hand)"
        if (verdict := overview.verdict(node.id)) not in ("", UP):
            return Span(f"{word}, {verdict} to others", DOUBT)
        about = [one for one in _pictured(overview) if one.id == node.id]
        if any(one.damaged for one in about):
            return Span(f"{word}, damaged", DOUBT)
        if any(one.yields for one in about):
            return Span(f"{word}, disk nearly full", DOUBT)
        return Span(word, GOOD if node.is_ready else DOUBT)
    if node.given_up:
        return Span("given up", BAD)
    if node.exit_signal:
        return Span("killed" if node.state is ChildState.ENDED else "killed, restarting", BAD)
    if node.state is ChildState.WAITING:
        return Span("restarting", DOUBT)
    if node.state is ChildState.ENDED:
        return Span("ended", BAD)
    if node.state is ChildState.STARTING:
        return Span("starting", DOUBT)
    return Span("silent", BAD)  # its process is there and does not answer


def _pictured(overview: Overview) -> tuple[NodePicture, ...]:
    return overview.picture.nodes if overview.picture is not None else ()


def _still_holds(node: NodeSeen) -> bool:
    """Whether what a node complained of, or how it ended, is still news."""
    if node.picture is None or not node.complaint:
        return bool(node.complaint)
    return not node.by_hand and (not node.is_ready or node.complaint_age_s <= COMPLAINT_S)


def _complaint(node: NodeSeen) -> Line:
    return [
        Span(f"{node.id}: ", HEAD),
        Span(brief(node.complaint, node.id), DOUBT if node.picture is not None else BAD),
    ]


def brief(line: str, node_id: str) -> str:
    """What a log line says: without its time, its level, its padding and the node's own name."""
    words = _TIME_AND_LEVEL.sub("", line).split()
    return " ".join(word for word in words if word != f"node={node_id}")


def _map(overview: Overview, picture: ClusterPicture, width: int) -> list[Line]:
    """Who owns each partition; `!` where some copy is on a node that is not up, `-` for no owner."""
    missing = overview.missing()
    marked = [
        (one.owner or "-") + ("!" if up(one.replicas, missing) < len(one.replicas) else "")
        for one in picture.partitions
    ]
    longest = max(map(len, marked), default=1)
    columns = max(1, min(16, (width + _GAP) // (longest + 4 + _GAP)))
    columns = next((n for n in (16, 8, 4, 2) if n <= columns), 1)
    short = sum(cell.endswith("!") for cell in marked)
    legend = (
        f"; !: fewer copies than {max(len(one.replicas) for one in picture.partitions)}" if short else ""
    )
    total = f", {show_rate(sum(overview.rates.values()))} events/s" if overview.rates else ""
    head = [Span(f"owners by partition{legend}", HEAD), Span(total, FAINT)]
    return [
        head,
        *(
            [Span(line, DOUBT if "!" in line or " -" in line else "")]
            for line in owner_map(marked, columns)
        ),
    ]


def duration(seconds: float) -> str:
    """A time in its two largest units: `42s`, `3m10s`, `5h02m`, `12d04h`."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02}s"
    if whole < 86_400:
        return f"{whole // 3600}h{whole % 3600 // 60:02}m"
    return f"{whole // 86_400}d{whole % 86_400 // 3600:02}h"


def size(number: int) -> str:
    """Bytes in at most four characters and a unit: `640K`, `12M`, `1.5G`, `120G`."""
    value, unit = number / 1024, "K"
    for larger in "MGT":
        if value < 1000:
            break
        value, unit = value / 1024, larger
    return f"{value:.1f}{unit}" if value < 10 and unit != "K" else f"{value:.0f}{unit}"
