"""A launch shown on a terminal: a table of the nodes, a map of the partitions, and news above them.

What it says is `overview`'s and `layout`'s; here it gets onto the terminal. Colours are rich's, who
knows `NO_COLOR`.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from allsource.config.schema import Settings
from allsource.node.cli.launch.layout import lines
from allsource.node.cli.launch.lines import how_it_ended, welcome, what_now
from allsource.node.cli.launch.overview import Overview
from allsource.node.cli.launch.sight import Sight
from allsource.node.cli.launch.supervisor import Child
from allsource.storage.model.printable import printable

_REFRESH_PER_S = 4


class TableDisplay:
    """A context: inside it the terminal shows the launch, and is left as it was found."""

    def __init__(self, settings: Settings, config: Path, children: Sequence[Child]) -> None:
        self._settings = settings
        self._config = config
        self._sight = Sight(children)
        console = Console()
        self._live = Live(
            console=console,
            get_renderable=lambda: draw(self._sight.overview(), console.width),
            refresh_per_second=_REFRESH_PER_S,
        )
        self._disks: asyncio.Task[None] | None = None

    def __enter__(self) -> TableDisplay:
        self._live.start()
        self._disks = asyncio.create_task(self._sight.look_at_disks())
        if places := where(self._settings):
            self._news(f"data in {places}", "")
        return self

    def __exit__(self, *_: object) -> None:
        if self._disks is not None:
            self._disks.cancel()
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
        self._live.console.print(Text(printable(line), style=style), soft_wrap=True)


def draw(overview: Overview, width: int) -> Group:
    """The lines of the overview; no cell is ever read as markup."""
    return Group(
        *(
            Text.assemble(*((printable(text), style) for text, style in line))
            for line in lines(overview, width)
        )
    )


def where(settings: Settings) -> str:
    """The data directories of the nodes, in full; empty where the events are in no directory."""
    if not settings.storage.traits.in_data_dir:
        return ""
    places = [node.data_dir.resolve() for node in settings.nodes]
    parents = {place.parent for place in places}
    if len(places) == 1 or len(parents) > 1:
        return ", ".join(map(str, places))
    return f"{parents.pop()}{os.sep}{{{','.join(place.name for place in places)}}}"
