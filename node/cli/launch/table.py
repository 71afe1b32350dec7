"""A launch shown on a terminal: a table of the nodes, a map of the partitions, and news above them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from allsource.config.schema import Settings
from allsource.node.cli.launch.lines import how_it_ended, welcome, what_now
from allsource.node.cli.launch.supervisor import READY, WAITING, Child
from allsource.node.cli.output import rich_table
from allsource.node.cli.picture import ClusterPicture, owner_map

COLUMNS = ("node", "state", "pid", "address", "http", "owns", "leads", "starts", "last error")

_REFRESH_PER_S = 4
_COMPLAINT_CHARACTERS = 48
_TIME_AND_LEVEL = re.compile(r"^\S+Z\s+\[\w+\s*\]\s+")


class TableDisplay:
    """A context: inside it the terminal shows the launch, and is left as it was found."""

    def __init__(self, settings: Settings, config: Path, children: Sequence[Child]) -> None:
        self._settings = settings
        self._config = config
        self._children = children
        self._live = Live(
            console=Console(), get_renderable=lambda: draw(children), refresh_per_second=_REFRESH_PER_S
        )

    def __enter__(self) -> TableDisplay:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def started(self, child: Child) -> None:
        """The table shows it."""

    def said(self, child: Child, line: str) -> None:
        if line == child.last_complaint:
            self._news(f"{child.id} | {line}", "yellow")

    def ended(self, child: Child, again_in_s: float | None) -> None:
        self._news(f"{child.id} {how_it_ended(child)}{what_now(child, again_in_s)}", "red")

    def ready(self, seconds: float) -> None:
        for line in welcome(self._settings, self._config, seconds):
            self._news(line, "green" if not line.startswith(" ") else "")

    def stopping(self) -> None:
        self._news("stopping all nodes (Ctrl-C again: at once)", "yellow")

    def _news(self, line: str, style: str) -> None:
        self._live.console.print(Text(line, style=style), soft_wrap=True)


def draw(children: Sequence[Child]) -> Group:
    """The table and the map, from what the children said last."""
    picture = newest_picture(children)
    parts = [rich_table("", COLUMNS, [row(child, picture) for child in children])]
    if picture is not None:
        parts.append(Text("owners by partition\n" + "\n".join(owner_map(picture.owners()))))
    return Group(*parts)


def newest_picture(children: Sequence[Child]) -> ClusterPicture | None:
    """The picture of the node that knows the newest terms: a node that was cut off has an old one."""
    pictures = [child.picture for child in children if child.picture is not None]
    return max(pictures, key=lambda picture: sum(one.term for one in picture.partitions), default=None)


def row(child: Child, picture: ClusterPicture | None) -> list[str]:
    """A node's line: what the cluster says that it owns, and what it says itself that it leads."""
    owned = picture.owned_by(child.id) if picture is not None else []
    leads = child.picture.owned_by(child.id) if child.picture is not None else []
    wrong = child.last_complaint if child.state != READY or child.starts > 1 else ""
    return [
        child.id,
        "to be restarted" if child.state == WAITING else child.state,
        str(child.node.pid) if child.is_up else "-",
        child.address,
        child.http_url,
        str(len(owned)),
        str(len(leads)),
        str(child.starts),
        _brief(wrong),
    ]


def _brief(line: str) -> str:
    """What a log line says, short enough for a cell: no time, no level, no padding."""
    words = " ".join(_TIME_AND_LEVEL.sub("", line).split())
    if len(words) <= _COMPLAINT_CHARACTERS:
        return words
    return words[: _COMPLAINT_CHARACTERS - 1] + "\u2026"
