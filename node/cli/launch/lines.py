"""A launch told in lines: for pipes and log files, for programs, and (above the table) for terminals."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from allsource.config.promise import promise_of
from allsource.config.schema import Settings
from allsource.node.cli.launch.supervisor import Child
from allsource.node.cli.output import echo_json, note, say


def how_it_ended(child: Child) -> str:
    """An ending in words, with the child's last ones if they are the reason and were not told before."""
    status = child.exit_status or 0
    if status < 0:
        return f"was killed by signal {-status}"  # its last words were about something else
    how = f"ended with status {status}"
    if child.ended_as_before:
        return f"{how} again"
    return f"{how}: {bare(child, child.last_words)}" if child.last_words else how


def refuses(child: Child, line: str) -> bool:
    """Whether a line is what a node says when it cannot go on: its last one, and why it ends."""
    return line.startswith(_refusal(child))


def bare(child: Child, line: str) -> str:
    """A refusal without the names of the program and the node, which stand before it anyway."""
    return line.removeprefix(_refusal(child))


def _refusal(child: Child) -> str:
    return f"allsource: {child.id}: "


def what_now(child: Child, again_in_s: float | None) -> str:
    """What the launch does about an ending, to be put behind it."""
    if again_in_s is not None:
        return f"; it is started again in {again_in_s:g} s"
    if child.is_given_up:
        return f"; given up after {child.failures} failed starts in a row"
    return ""


def welcome(settings: Settings, config: Path, seconds: float) -> list[str]:
    """That the cluster is ready, what to try, and what may be lost, if anything may."""
    promise = promise_of(settings)
    warning = [f"{promise.durability}: {promise.meaning}"] if promise.is_less else []
    urls = [f"http://{node.host}:{node.http_port}" for node in settings.nodes]
    body = '{"expected_version": "any", "events": [{"type": "Greeted", "data": {"name": "world"}}]}'
    return [
        f"cluster {settings.cluster_name!r} is ready after {seconds:.1f} s:"
        f" {len(settings.nodes)} nodes, {settings.partitions} partitions. Any node answers; try:",
        f"  curl {urls[0]}/v1/streams/hello/events -H content-type:application/json -d '{body}'",
        f"  curl {urls[len(urls) // 2]}/v1/streams/hello/events",
        f"  curl {urls[-1]}/v1/cluster",
        f"  {our_command()} status --config {config}",
        *warning,
    ]


def our_command() -> str:
    """What to type for `allsource` here: its path, unless the shell finds it by its name."""
    ours = Path(sys.executable).with_name("allsource")
    found = shutil.which("allsource")
    if not ours.exists() or (found is not None and ours.samefile(found)):
        return "allsource"
    return str(ours.relative_to(Path.cwd()) if ours.is_relative_to(Path.cwd()) else ours)


class PlainDisplay:
    """One line for everything, what a node says behind its id. Why it ended is said once, with its end."""

    def __init__(self, settings: Settings, config: Path) -> None:
        self._settings = settings
        self._config = config

    def started(self, child: Child) -> None:
        self._say(f"{child.id} started: pid {child.node.pid}, {child.address}, {child.http_url}")

    def said(self, child: Child, line: str) -> None:
        if not refuses(child, line):
            say(f"{child.id} | {line}")

    def ended(self, child: Child, again_in_s: float | None) -> None:
        note(f"allsource: {child.id} {how_it_ended(child)}{what_now(child, again_in_s)}")

    def ready(self, seconds: float) -> None:
        for line in welcome(self._settings, self._config, seconds):
            self._say(line)

    def stopping(self) -> None:
        self._say("stopping all nodes")

    def _say(self, line: str) -> None:
        say(f"allsource: {line}" if not line.startswith(" ") else line)


class JsonDisplay:
    """One JSON object a line: `{"happened": ..., ...}`."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def started(self, child: Child) -> None:
        self._tell("started", node=child.id, pid=child.node.pid, address=child.address, http=child.http_url)

    def said(self, child: Child, line: str) -> None:
        self._tell("said", node=child.id, line=line)

    def ended(self, child: Child, again_in_s: float | None) -> None:
        self._tell(
            "ended",
            node=child.id,
            status=child.exit_status,
            last_words=child.last_words,
            again_in_s=again_in_s,
            given_up=child.is_given_up,
        )

    def ready(self, seconds: float) -> None:
        self._tell("ready", cluster=self._settings.cluster_name, seconds=round(seconds, 3))

    def stopping(self) -> None:
        self._tell("stopping")

    def _tell(self, happened: str, **facts: Any) -> None:
        echo_json({"happened": happened, **facts})


def nobody_left(children: Sequence[Child]) -> str:
    """That a launch is over that nobody stopped; why was said as each node ended."""
    if any(child.was_live for child in children):
        return "all nodes have ended"
    return "no node could be started"
